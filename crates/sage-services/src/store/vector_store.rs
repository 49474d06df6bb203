//! [`VectorStore`]: one collection of vectors, whichever store keeps it.
//!
//! Invariants:
//! 1. A driver is asked for nothing that has not been checked here, and for nothing before it was opened or after it
//!    was closed.
//! 2. A driver that was opened, or of which opening failed, is closed once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use sage::{AsyncService, BoxError, HookContext};

use super::driver::Driver;
use super::error::StoreError;
use super::filter::Filter;
use super::record::{Hit, Record, Search, check_batch, check_id};
use super::schema::Schema;

/// A service: one collection of vectors with texts and metadata, kept in a file, in memory or by a server.
///
/// What it is asked for is checked before anything is sent, so that all stores refuse the same. What was written is
/// found by every search that begins afterwards. The job opens it and closes it; without a job,
/// [`open`](Self::open) and [`close`](Self::close) do. Outside of async code, [`wait`](crate::wait) waits for what it
/// is asked.
#[derive(Debug)]
pub struct VectorStore {
    schema: Arc<Schema>,
    driver: Box<dyn Driver>,
    state: AtomicU8,
}

const NEW: u8 = 0;
const OPENING: u8 = 1;
const OPEN: u8 = 2;
const CLOSED: u8 = 3;

impl VectorStore {
    /// A collection that this driver keeps.
    ///
    /// # Errors
    /// [`StoreError::BadName`], [`StoreError::BadDimensions`]; [`StoreError::Unsupported`] for a
    /// [text search](Schema::with_text_search) that the driver does not have.
    pub fn new(schema: Schema, driver: impl Driver) -> Result<Self, StoreError> {
        schema.check()?;
        if schema.has_text_search() && !driver.has_text_search() {
            let what = "search texts by their words; the embedded store does, and joins both orders".to_owned();
            return Err(StoreError::Unsupported { store: driver.kind(), what });
        }
        Ok(Self { schema: Arc::new(schema), driver: Box::new(driver), state: AtomicU8::new(NEW) })
    }

    /// A constructor for [`register_async_service`](sage::Environment::register_async_service): each run of a job has
    /// a driver of its own.
    ///
    /// ```
    /// use sage::{BoxError, Environment};
    /// use sage_services::store::{Embedded, Record, Schema, VectorStore};
    ///
    /// # fn main() -> Result<(), BoxError> {
    /// let env = Environment::local("stored");
    /// let made = VectorStore::constructor(Schema::new("places", 2), Embedded::in_memory)?;
    /// let store = env.register_async_service("store", made).build();
    /// env.from_iter([("east", 1.0, 0.0), ("north", 0.0, 1.0)])
    ///     .try_map(move |(id, x, y)| {
    ///         store.try_call_blocking(async move |store| store.upsert(vec![Record::new(id, vec![x, y])]).await)
    ///     })
    ///     .sink(|()| {});
    /// env.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn constructor<D: Driver>(
        schema: Schema,
        driver: impl Fn() -> D + Send + Sync + 'static,
    ) -> Result<impl Fn() -> Self + Send + Sync + 'static, StoreError> {
        let new = move || Self::new(schema.clone(), driver());
        new()?;
        Ok(move || new().expect("it was made like this before"))
    }

    /// What the collection is.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The kind of store, such as "Chroma".
    pub fn kind(&self) -> &'static str {
        self.driver.kind()
    }

    /// Takes up the collection, or makes it. A job does this in its services' setup.
    ///
    /// # Errors
    /// [`StoreError::UnknownCollection`], [`StoreError::OtherCollection`], and what the store cannot do. It can then be
    /// opened again.
    pub async fn open(&self) -> Result<(), StoreError> {
        if self.state.compare_exchange(NEW, OPENING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return if self.state.load(Ordering::Acquire) == OPEN { Ok(()) } else { Err(self.not_open()) };
        }
        let opening = Opening(&self.state);
        self.driver.open(&self.schema).await?;
        opening.succeeded();
        Ok(())
    }

    /// Stores records, and replaces those with the same ids. All are checked before the first is stored.
    ///
    /// # Errors
    /// One for a record that is refused: none is stored then. A server may fail in the middle of a batch.
    pub async fn upsert(&self, records: Vec<Record>) -> Result<(), StoreError> {
        check_batch(&self.schema, &records)?;
        self.opened()?;
        if records.is_empty() {
            return Ok(());
        }
        self.driver.upsert(records).await
    }

    /// The records with these ids, in their order; `None` for one that is not there.
    ///
    /// # Errors
    /// [`StoreError::BadRecord`] for an id that no record can have, and what the store cannot do.
    pub async fn get(&self, ids: &[impl AsRef<str>]) -> Result<Vec<Option<Record>>, StoreError> {
        let ids = self.checked(ids)?;
        let mut asked = ids.clone();
        asked.sort_unstable();
        asked.dedup();
        let found = if asked.is_empty() { Vec::new() } else { self.driver.get(asked).await? };
        let found: std::collections::HashMap<String, Record> =
            found.into_iter().map(|record| (record.id.clone(), record)).collect();
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }

    /// Deletes the records with these ids, and says how many of them were there.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete(&self, ids: &[impl AsRef<str>]) -> Result<usize, StoreError> {
        let mut ids = self.checked(ids)?;
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() { Ok(0) } else { self.driver.delete(ids).await }
    }

    /// Deletes the records that meet the filter, and says how many they were.
    ///
    /// # Errors
    /// [`StoreError::BadFilter`], and what the store cannot do.
    pub async fn delete_where(&self, filter: Filter) -> Result<usize, StoreError> {
        filter.check()?;
        self.opened()?;
        self.driver.delete_where(filter).await
    }

    /// Searches: gives the best records, best first, and as many as were asked for if there are as many.
    ///
    /// # Errors
    /// [`StoreError::NoResultsAsked`], [`StoreError::BadSearch`] and others for a search that is refused, and what the
    /// store cannot do.
    pub async fn search(&self, search: Search) -> Result<Vec<Hit>, StoreError> {
        search.check(&self.schema)?;
        self.opened()?;
        let least = search.min_score;
        let mut hits = self.driver.search(search).await?;
        if let Some(least) = least {
            hits.retain(|hit| hit.score >= least);
        }
        Ok(hits)
    }

    /// The number of records.
    ///
    /// # Errors
    /// What the store cannot do.
    pub async fn count(&self) -> Result<usize, StoreError> {
        self.opened()?;
        self.driver.count(None).await
    }

    /// The number of records that meet the filter.
    ///
    /// # Errors
    /// [`StoreError::BadFilter`], and what the store cannot do.
    pub async fn count_where(&self, filter: Filter) -> Result<usize, StoreError> {
        filter.check()?;
        self.opened()?;
        self.driver.count(Some(filter)).await
    }

    /// Returns when all that was written survives a loss of power, as far as the store can say. Without it, what was
    /// acknowledged survives the end of this process.
    ///
    /// # Errors
    /// What the store cannot do.
    pub async fn persist(&self) -> Result<(), StoreError> {
        self.opened()?;
        self.driver.persist().await
    }

    /// Ends it: connections, threads and files are gone afterwards. A job does this in its services' cleanup. Closing
    /// again does nothing.
    ///
    /// # Errors
    /// What the store cannot do; it is closed all the same.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self.state.swap(CLOSED, Ordering::AcqRel) {
            CLOSED => Ok(()),
            _ => self.driver.close().await,
        }
    }

    fn checked(&self, ids: &[impl AsRef<str>]) -> Result<Vec<String>, StoreError> {
        ids.iter().try_for_each(|id| check_id(id.as_ref()))?;
        self.opened()?;
        Ok(ids.iter().map(|id| id.as_ref().to_owned()).collect())
    }

    fn opened(&self) -> Result<(), StoreError> {
        if self.state.load(Ordering::Acquire) == OPEN { Ok(()) } else { Err(self.not_open()) }
    }

    fn not_open(&self) -> StoreError {
        let state = if self.state.load(Ordering::Acquire) == CLOSED { "closed" } else { "not open yet" };
        StoreError::NotOpen { collection: self.schema.name.clone(), state }
    }
}

/// Lets the store be opened again, unless it succeeded or was closed meanwhile; also if the future is dropped.
struct Opening<'a>(&'a AtomicU8);

impl Opening<'_> {
    fn succeeded(self) {
        let _ = self.0.compare_exchange(OPENING, OPEN, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(OPENING, NEW, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl AsyncService for VectorStore {
    async fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        Ok(self.open().await?)
    }

    async fn health(&self) -> Result<(), BoxError> {
        self.opened()?;
        Ok(self.driver.health().await?)
    }

    async fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        Ok(self.close().await?)
    }
}
