//! [`Embedded`]: a store in this process, in memory or in a file.
//!
//! The file is a log of what was written (`log.rs`, `entry.rs`); all of it is in memory, too (`contents.rs`), and only
//! the log is the truth.
//!
//! Lock order: `log`, then `contents`. A write holds the log from beginning to end, so writes take effect in its order;
//! it takes `contents` for the moment in which it becomes visible, so searches never wait for a disk.

mod columns;
mod contents;
mod entry;
mod index_file;

use std::future::ready;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Serialize;

use super::driver::{Driver, StoreFuture};
use super::error::StoreError;
use super::filter::Filter;
use super::record::{Hit, Record, Search};
use super::schema::Schema;
use crate::store::log::{self, Log};
use contents::Contents;
use entry::{Entry, Header, Stored};

/// A store in this process: in memory, or in a file that one process at a time has open.
///
/// A file survives a `kill -9` with all that was acknowledged, and with [`synced`](Self::synced) or after
/// [`persist`](super::VectorStore::persist) a loss of power. Damage to it is told with its place. Searches by vector
/// compare exactly up to 4,000,000 numbers, such as 10,000 vectors of 384. Above that they go by an index, which finds
/// 99 of 100 results: the first search builds it, and it is kept beside the file, as `FILE.index`, from one process to
/// the next. A search by words is BM25, over lists that the first one makes. All records are in memory: 100,000 of 384
/// dimensions take about 200 MB with their index, and their texts.
///
/// ```
/// use sage_services::store::{Embedded, Record, Schema, Search, VectorStore};
/// use sage_services::wait;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let schema = Schema::new("places", 2).with_text_search();
/// let store = VectorStore::new(schema, Embedded::at(folder.path().join("places.sage")))?;
/// wait(async {
///     store.open().await?;
///     let east = Record::new("east", vec![1.0, 0.0]).text("to the right");
///     let north = Record::new("north", vec![0.0, 1.0]).text("up on the map");
///     store.upsert(vec![east, north]).await?;
///     let hits = store.search(Search::hybrid(vec![0.1, 1.0], "map", 1)).await?;
///     assert_eq!(hits[0].id, "north");
///     store.close().await
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Option<PathBuf>,
    synced: bool,
    max_records: usize,
    log: Mutex<State>,
    contents: RwLock<Option<Contents>>,
}

/// What writes hold.
#[derive(Debug, Default)]
struct State {
    log: Option<Log>,
    /// Records stored and deleted since the log was made or rewritten.
    written: usize,
    header: Vec<u8>,
}

/// Dead records that are left in a log before it is rewritten, however few are alive.
const FEW: usize = 1_000;
/// Bytes of records that are put into one frame when a log is rewritten.
const REWRITTEN: usize = 4 << 20;

impl Embedded {
    /// Limit of [`max_records`](Self::max_records) unless set.
    pub const DEFAULT_MAX_RECORDS: usize = 1_000_000;

    /// A store in memory. It is gone when it is closed.
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    /// A store in this file, which is made if it is not there, with the folders above it, for its owner only.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self::new(Some(path.into()))
    }

    fn new(path: Option<PathBuf>) -> Self {
        let (log, contents) = (Mutex::default(), RwLock::default());
        Self(Arc::new(Inner { path, synced: false, max_records: Self::DEFAULT_MAX_RECORDS, log, contents }))
    }

    /// Each write survives a loss of power when it is acknowledged. It takes milliseconds more.
    #[must_use]
    pub fn synced(self) -> Self {
        self.set(|inner| inner.synced = true)
    }

    /// Sets how many records are taken, 1 to 4,000,000,000; 1,000,000 unless set. The memory it may take follows
    /// from it.
    #[must_use]
    pub fn max_records(self, max_records: u32) -> Self {
        self.set(|inner| inner.max_records = (max_records as usize).min(4_000_000_000))
    }

    fn set(mut self, set: impl FnOnce(&mut Inner)) -> Self {
        set(Arc::get_mut(&mut self.0).expect("a store is set up before it is cloned"));
        self
    }

    /// Writes all records into a new file, which is a store of its own. Searches go on meanwhile, writes wait.
    ///
    /// # Errors
    /// [`StoreError::NotOpen`], [`StoreError::File`], also if there is a file already.
    pub fn snapshot(&self, path: impl AsRef<Path>) -> Result<(), StoreError> {
        let state = self.writing()?;
        let contents = self.reading()?;
        log::write_new(path.as_ref(), frames(&state.header, &contents).map(Ok))?;
        Ok(())
    }

    /// Rewrites the file without what was replaced and deleted, so that nothing is left of it there. It happens by
    /// itself when more than half of the records in the file are gone.
    ///
    /// # Errors
    /// [`StoreError::NotOpen`], [`StoreError::File`].
    pub fn compact(&self) -> Result<(), StoreError> {
        let mut state = self.writing()?;
        self.rewrite(&mut state)
    }

    fn rewrite(&self, state: &mut State) -> Result<(), StoreError> {
        let contents = self.reading()?;
        if let Some(log) = &mut state.log {
            log.rewrite(frames(&state.header, &contents))?;
            index_file::remove(log.path());
        }
        state.written = contents.len();
        Ok(())
    }

    fn opened(&self, schema: &Schema) -> Result<(), StoreError> {
        let mut state = self.lock();
        let mut contents = Contents::new(schema);
        state.header = to_bytes(&Header::of(schema));
        state.written = 0;
        if let Some(path) = &self.0.path {
            let State { header, written, .. } = &mut *state;
            let mut read = Reading { path, schema, contents: &mut contents, written, is_checked: false };
            let new = (!schema.is_to_exist()).then_some(&**header);
            let log = Log::open(path, self.0.synced, new, |says, offset| read.frame(says, offset))?;
            let log = log.ok_or_else(|| StoreError::UnknownCollection {
                name: schema.name().to_owned(),
                place: format!("`{}`", path.display()),
            })?;
            index_file::read(path, log.stamp(), contents.vectors_mut());
            state.log = Some(log);
        } else if schema.is_to_exist() {
            let (name, place) = (schema.name().to_owned(), "memory, where a store is always new".to_owned());
            return Err(StoreError::UnknownCollection { name, place });
        }
        *self.0.contents.write().unwrap_or_else(PoisonError::into_inner) = Some(contents);
        Ok(())
    }

    fn upserted(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let mut state = self.writing()?;
        let (len, new) = {
            let contents = self.reading()?;
            (contents.len(), contents.count_new(&records))
        };
        if len + new > self.0.max_records {
            return Err(StoreError::Full { max_records: self.0.max_records });
        }
        state.append(&Entry::Upsert(records.iter().map(Stored::of).collect()), records.len())?;
        let mut contents = self.changing()?;
        records.into_iter().for_each(|record| contents.put(record));
        drop(contents);
        self.tidy(&mut state)
    }

    fn deleted(&self, which: impl FnOnce(&Contents) -> Vec<Arc<str>>) -> Result<usize, StoreError> {
        let mut state = self.writing()?;
        let ids = which(&*self.reading()?);
        if ids.is_empty() {
            return Ok(0);
        }
        state.append(&Entry::Delete(ids.iter().map(|id| &**id).collect()), ids.len())?;
        let mut contents = self.changing()?;
        for id in &ids {
            contents.remove(id);
        }
        drop(contents);
        self.tidy(&mut state)?;
        Ok(ids.len())
    }

    /// Rewrites the log when most of it is about records that are gone. What was asked for is done by then: that it
    /// cannot be rewritten, as on a full disk, is no error of the write.
    fn tidy(&self, state: &mut State) -> Result<(), StoreError> {
        let alive = self.reading()?.len();
        if state.written > 2 * alive + FEW
            && let Some(log) = &state.log
        {
            let path = log.path().to_owned();
            if let Err(error) = self.rewrite(state) {
                tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error, "cannot rewrite it");
                state.written = alive;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writers' lock of a store that is open.
    fn writing(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        self.reading().map(|_| state)
    }

    fn reading(&self) -> Result<Open<RwLockReadGuard<'_, Option<Contents>>>, StoreError> {
        Open::new(self.0.contents.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn changing(&self) -> Result<Open<RwLockWriteGuard<'_, Option<Contents>>>, StoreError> {
        Open::new(self.0.contents.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn append(&mut self, entry: &Entry<'_>, records: usize) -> Result<(), StoreError> {
        if let Some(log) = &mut self.log {
            let bytes = to_bytes(entry);
            if bytes.len() > log::LONGEST {
                return Err(StoreError::BatchTooLarge { bytes: bytes.len(), most: log::LONGEST });
            }
            log.append(&bytes)?;
            self.written += records;
        }
        Ok(())
    }
}

/// The records of a store that is open.
struct Open<G>(G);

impl<G: Deref<Target = Option<Contents>>> Open<G> {
    fn new(guard: G) -> Result<Self, StoreError> {
        if guard.is_some() { Ok(Self(guard)) } else { Err(StoreError::Closed) }
    }
}

impl<G: Deref<Target = Option<Contents>>> Deref for Open<G> {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        self.0.as_ref().expect("it was looked at when it was locked")
    }
}

impl<G: DerefMut<Target = Option<Contents>>> DerefMut for Open<G> {
    fn deref_mut(&mut self) -> &mut Contents {
        self.0.as_mut().expect("it was looked at when it was locked")
    }
}

/// Reads the log of a store that is being opened.
struct Reading<'a> {
    path: &'a Path,
    schema: &'a Schema,
    contents: &'a mut Contents,
    written: &'a mut usize,
    is_checked: bool,
}

impl Reading<'_> {
    fn frame(&mut self, says: &[u8], offset: u64) -> Result<(), StoreError> {
        let damaged = |why: &str| StoreError::Damaged { path: self.path.to_owned(), offset, why: why.to_owned() };
        if !self.is_checked {
            let header: Header = postcard::from_bytes(says).map_err(|_| damaged("it does not say which collection"))?;
            self.is_checked = true;
            if header.name != self.schema.name {
                let (found, expected) = (header.name, self.schema.name.clone());
                let collection = self.path.display().to_string();
                return Err(StoreError::OtherCollection { collection, what: "name", found, expected });
            }
            return self.schema.check_found(header.dimensions(), header.metric(), header.embedder());
        }
        match postcard::from_bytes(says).map_err(|_| damaged("it is of another version"))? {
            Entry::Upsert(records) => {
                *self.written += records.len();
                for stored in records {
                    let record = stored.record().filter(|record| record.vector.len() == self.schema.dimensions());
                    self.contents.put(record.ok_or_else(|| damaged("a record is none of this collection"))?);
                }
            }
            Entry::Delete(ids) => {
                *self.written += ids.len();
                for id in ids {
                    self.contents.remove(id);
                }
            }
        }
        Ok(())
    }
}

/// The frames of a log that holds these records and nothing else.
fn frames(header: &[u8], contents: &Contents) -> impl Iterator<Item = Vec<u8>> {
    let mut next = 0;
    let records = std::iter::from_fn(move || {
        let mut records = Vec::new();
        let mut bytes = 0;
        while (next as usize) < contents.len() && bytes < REWRITTEN {
            let record = contents.record(next);
            bytes += 4 * record.vector.len() + record.text.len();
            records.push(record);
            next += 1;
        }
        (!records.is_empty()).then(|| to_bytes(&Entry::Upsert(records.iter().map(Stored::of).collect())))
    });
    std::iter::once(header.to_vec()).chain(records)
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("what is in memory has bytes")
}

/// Everything is done when a future is made: nothing of it waits.
impl Driver for Embedded {
    fn kind(&self) -> &'static str {
        "the embedded store"
    }

    fn has_text_search(&self) -> bool {
        true
    }

    fn open<'a>(&'a self, schema: &'a Schema) -> StoreFuture<'a, ()> {
        Box::pin(ready(self.opened(schema)))
    }

    fn health(&self) -> StoreFuture<'_, ()> {
        Box::pin(ready(self.reading().map(drop)))
    }

    fn upsert(&self, records: Vec<Record>) -> StoreFuture<'_, ()> {
        Box::pin(ready(self.upserted(records)))
    }

    fn get(&self, ids: Vec<String>) -> StoreFuture<'_, Vec<Record>> {
        let found = self.reading().map(|contents| ids.iter().filter_map(|id| contents.get(id)).collect());
        Box::pin(ready(found))
    }

    fn delete(&self, ids: Vec<String>) -> StoreFuture<'_, usize> {
        let there =
            |contents: &Contents| ids.iter().filter(|id| contents.contains(id)).map(|id| (**id).into()).collect();
        Box::pin(ready(self.deleted(there)))
    }

    fn delete_where(&self, filter: Filter) -> StoreFuture<'_, usize> {
        Box::pin(ready(self.deleted(|contents| contents.ids_that_meet(&filter))))
    }

    fn search(&self, search: Search) -> StoreFuture<'_, Vec<Hit>> {
        Box::pin(ready(self.reading().map(|contents| contents.search(search))))
    }

    fn count(&self, filter: Option<Filter>) -> StoreFuture<'_, usize> {
        let count = self.reading().map(|contents| match filter {
            Some(filter) => contents.count_that_meet(&filter),
            None => contents.len(),
        });
        Box::pin(ready(count))
    }

    fn persist(&self) -> StoreFuture<'_, ()> {
        let persisted = |state: MutexGuard<'_, State>| Ok(state.log.as_ref().map_or(Ok(()), Log::persist)?);
        Box::pin(ready(self.writing().and_then(persisted)))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        let mut state = self.lock();
        let contents = self.0.contents.write().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(log), Some(contents)) = (&state.log, &contents) {
            index_file::write(log.path(), log.stamp(), contents.vectors());
        }
        // Only now may another process open it.
        *state = State::default();
        drop(state);
        drop(contents);
        Box::pin(ready(Ok(())))
    }
}
