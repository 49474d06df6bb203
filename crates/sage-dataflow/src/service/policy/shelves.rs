//! What is kept of a service's methods in a run, without their types; and the journals of this process.

use std::any::Any;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, Weak};

use super::cache::CacheFigures;
use super::failure::Failed;
use super::flight::FlightFigures;
use super::journal::{Journal, OpenJournal};
use super::kept::Kept;
use super::store::StoreError;
use crate::sync::Arc;

/// What is kept of one method in a run, without its types.
pub(super) trait Shelf: Send + Sync {
    fn figures(&self) -> (CacheFigures, FlightFigures);
    fn erase(&self, tag: &str) -> Result<u64, StoreError>;
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<R: Clone + Send + Sync + 'static> Shelf for Kept<R, Failed> {
    fn figures(&self) -> (CacheFigures, FlightFigures) {
        Kept::figures(self)
    }

    fn erase(&self, tag: &str) -> Result<u64, StoreError> {
        Kept::erase(self, tag)
    }

    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// The shelves of a run, by the methods' names.
pub(super) type Shelves = Mutex<HashMap<String, Arc<dyn Shelf>>>;

/// The journals that are in use in this process, by their folders: several services of a job may have the same.
static JOURNALS: Mutex<Option<HashMap<PathBuf, Weak<OpenJournal>>>> = Mutex::new(None);

/// Opens a journal, or finds it open.
pub(super) fn open(journal: &Journal) -> Result<Arc<OpenJournal>, StoreError> {
    let folder = std::path::absolute(journal.folder()).unwrap_or_else(|_| journal.folder().to_owned());
    let mut journals = JOURNALS.lock().unwrap_or_else(PoisonError::into_inner);
    let journals = journals.get_or_insert_default();
    journals.retain(|_, open| open.strong_count() > 0);
    if let Some(open) = journals.get(&folder).and_then(Weak::upgrade) {
        return Ok(open);
    }
    let opened = journal.open()?;
    journals.insert(folder, Arc::downgrade(&opened));
    Ok(opened)
}
