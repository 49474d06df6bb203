//! [`Keep`]: which answers of a method are kept, and how they are known again; the layer that does it.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError, Weak};

use super::cache::{Cache, CacheFigures, DiskCache};
use super::call::Way;
use super::failure::{Failed, Failure};
use super::flight::FlightFigures;
use super::journal::{Journal, OpenJournal};
use super::kept::{Asked, Kept, NotKept, Whose};
use super::key::Codec;
use super::layers::Layers;
use super::method::{Declared, Method};
use super::store::StoreError;
use crate::service::call_error::CallError;
use crate::sync::{Arc, lock};

/// Which answers of a method are kept, and how they are known again.
///
/// An answer belongs to the service's name, the [version](crate::Policy::version) that its policy declares, the method,
/// the arguments in their canonical form, and the [sample](crate::CallPolicy::sample). Errors are never kept. Calls
/// with equal arguments that are made at the same time share one, and its error.
///
/// See [`MethodBuilder::keep`](super::MethodBuilder::keep) for an example.
pub struct Keep<Q, R> {
    arguments: Box<dyn Fn(&Q) -> Option<Vec<u8>> + Send + Sync>,
    tag: Option<Box<dyn Fn(&Q) -> Option<String> + Send + Sync>>,
    codec: Arc<dyn Codec<R>>,
    cache: Cache,
    in_journal: bool,
}

impl<Q, R> Keep<Q, R> {
    /// `arguments` gives the canonical form of a request's arguments: equal bytes for requests that may have the same
    /// answer, and for no others. `None`: this request has none, and its answer is not kept. `codec` makes bytes of an
    /// answer. Nothing is kept yet: say where by [`cache`](Self::cache) or [`journal`](Self::journal).
    pub fn new(
        arguments: impl Fn(&Q) -> Option<Vec<u8>> + Send + Sync + 'static,
        codec: impl Codec<R> + 'static,
    ) -> Self {
        let codec = Arc::new(codec);
        Self { arguments: Box::new(arguments), tag: None, codec, cache: Cache::new(), in_journal: false }
    }

    /// Keeps answers in a cache.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// Keeps answers in the [journal](crate::Policy::journal) that the service's policy declares.
    pub fn journal(mut self) -> Self {
        self.in_journal = true;
        self
    }

    /// Gives answers a tag, such as a user's id, by which they can be erased later: see
    /// [`Method::erase`](super::Method::erase).
    pub fn tag(mut self, tag: impl Fn(&Q) -> Option<String> + Send + Sync + 'static) -> Self {
        self.tag = Some(Box::new(tag));
        self
    }

    /// What is wrong with these settings, for a service of this version.
    pub(super) fn mistake(&self, version: Option<&str>, journal: Option<&Journal>) -> Option<String> {
        if version.is_none() {
            return Some("answers are kept only for a declared version: say `Policy::version`".to_owned());
        }
        let is_lost = self.in_journal && journal.is_none();
        let lost = || "a method keeps its answers in a journal: say `Policy::journal`".to_owned();
        self.cache.mistake().or_else(|| is_lost.then(lost))
    }
}

impl<Q, R> fmt::Debug for Keep<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, in_journal, .. } = self;
        f.debug_struct("Keep").field("cache", cache).field("in_journal", in_journal).finish_non_exhaustive()
    }
}

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

type Boxed<'a, R> = Pin<Box<dyn Future<Output = Result<R, CallError>> + Send + 'a>>;

/// The layer, for a method whose answers can be kept.
pub(super) trait Keeps<Q, R>: Send + Sync {
    fn answer<'a>(&'a self, method: &'a Method<Q, R>, layers: &'a Layers, request: Q, may_block: bool) -> Boxed<'a, R>;
    fn shelf(&self, declared: &Declared<Q, R>, layers: &Layers) -> Result<Arc<dyn Shelf>, StoreError>;
}

impl<Q, R> Keep<Q, R>
where
    Q: Clone + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    fn kept(&self, declared: &Declared<Q, R>, layers: &Layers) -> Result<Arc<Kept<R, Failed>>, StoreError> {
        let mut shelves = lock(&layers.shelves);
        if let Some(shelf) = shelves.get(&declared.name) {
            let shelf = shelf.clone().any().downcast();
            return Ok(shelf.expect("methods have names of their own"));
        }
        let disk = DiskCache::open(&self.cache)?.map(Arc::new);
        let journal = match (&declared.state.policy.journal, self.in_journal) {
            (Some(journal), true) => Some(layers.journal(journal)?),
            _ => None,
        };
        let version = declared.state.policy.version.as_deref().unwrap_or_default();
        let whose = Whose { service: &declared.service, version, method: &declared.name };
        let kept = Kept::new(&whose, self.codec.clone(), &self.cache, disk, journal);
        let kept = Arc::new(kept.map_err(|source| StoreError::Io { path: PathBuf::new(), source })?);
        shelves.insert(declared.name.clone(), kept.clone());
        Ok(kept)
    }
}

impl<Q, R> Keeps<Q, R> for Keep<Q, R>
where
    Q: Clone + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    fn answer<'a>(&'a self, method: &'a Method<Q, R>, layers: &'a Layers, request: Q, may_block: bool) -> Boxed<'a, R> {
        Box::pin(async move {
            let Some(arguments) = (self.arguments)(&request) else {
                return method
                    .through_outages(&Way { layers, may_block, place: None }, request)
                    .await
                    .map_err(Failed::told);
            };
            let kept = self.kept(&method.declared, layers).map_err(|error| method.store(Arc::new(error)))?;
            let tag = self.tag.as_ref().and_then(|tag| tag(&request));
            let asked =
                Asked { arguments, sample: method.call.sample, tag: tag.as_deref(), until: method.deadline(layers) };
            let call = |place| async move {
                let way = Way { layers, may_block, place };
                method.through_outages(&way, request).await
            };
            match kept.answer(&layers.time, asked, call, Failed::is_own).await {
                Ok(answer) => Ok(answer),
                Err(NotKept::Call(failed)) => Err(failed.told()),
                Err(NotKept::Store(error)) => Err(method.store(error)),
                Err(NotKept::PastDeadline) => Err(Failure::PastDeadline(None).told(&method.declared.service, 1)),
            }
        })
    }

    fn shelf(&self, declared: &Declared<Q, R>, layers: &Layers) -> Result<Arc<dyn Shelf>, StoreError> {
        let kept: Arc<dyn Shelf> = self.kept(declared, layers)?;
        Ok(kept)
    }
}

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
