//! An embedded vector store: exact cosine search over everything it holds, in memory.
//!
//! Who owns what: the store owns a copy of every vector, normalised, in one contiguous matrix, and the payloads beside
//! it. Searches share a read lock; changes take the write lock for one record, or for one batch.
//!
//! Invariants, which hold whenever the lock is free:
//! 1. `ids`, `payloads` and the rows of `matrix` correspond by position, and `rows` maps each id to its position.
//! 2. Every row has length 1 to within rounding; no row holds a NaN, an infinity or only zeros.
//! 3. A failed change changes nothing: a batch is checked whole before its first record is stored.
//! 4. The result of a search depends on the records in the store, not on the order in which they arrived.
//!
//! Knows nothing of text, files or embedders.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sage::{BoxError, HookContext, Service};
use thiserror::Error;

use super::scan::nearest;

/// One result of [`VectorStore::search`].
#[derive(Debug, Clone, PartialEq)]
pub struct Hit<P> {
    /// Id under which the record was stored.
    pub id: Arc<str>,
    /// Cosine of the angle between the query and the record, −1 to 1; 1 is the same direction.
    pub score: f32,
    /// A clone of the record's payload.
    pub payload: P,
}

/// Why a [`VectorStore`] refused a change or a search.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A vector has another number of coordinates than the store.
    #[error("a vector has {found} dimensions where the store has {expected}")]
    DimensionMismatch {
        /// Dimensions of the store.
        expected: usize,
        /// Dimensions of the vector given.
        found: usize,
    },
    /// A coordinate is NaN or infinite.
    #[error("coordinate {index} of a vector is not finite")]
    NotFinite {
        /// Position of the first such coordinate, from 0.
        index: usize,
    },
    /// The vector has no direction, as its length is zero (or too small to divide by).
    #[error("a vector of zeros has no direction to compare")]
    ZeroVector,
    /// A search asked for no results.
    #[error("a search must ask for at least one result")]
    NoResultsAsked,
    /// The store holds its maximum number of records already.
    #[error("the store is full: it holds its maximum of {max_records} records")]
    Full {
        /// The limit, from [`VectorStore::max_records`].
        max_records: usize,
    },
}

/// A record to store: its id, its vector and its payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<P> {
    /// Identifies the record; storing the same id again replaces it.
    pub id: Arc<str>,
    /// Any vector of the store's dimensions with a direction; it need not have length 1.
    pub vector: Vec<f32>,
    /// Given back, cloned, with every hit; an `Arc` makes that cheap.
    pub payload: P,
}

/// An exact cosine search over vectors in memory.
///
/// For up to a few hundred thousand vectors an exact scan answers in milliseconds to tenths of a second and is never
/// wrong, unlike an approximate index. Beyond that a remote store or an index is the better tool.
///
/// A record takes `4 × dimensions` bytes, plus its id twice over and its payload: 100,000 records of 1,024 dimensions
/// take 400 MB. The store refuses records beyond [`max_records`](Self::max_records), 1,000,000 unless set.
///
/// ```
/// use sage_services::VectorStore;
///
/// let store = VectorStore::new(2);
/// store.upsert("east", &[1.0, 0.0], "to the right")?;
/// store.upsert("north", &[0.0, 2.0], "up")?;
/// let hits = store.search(&[0.1, 1.0], 1)?;
/// assert_eq!((&*hits[0].id, hits[0].payload), ("north", "up"));
/// # Ok::<(), sage_services::StoreError>(())
/// ```
#[derive(Debug)]
pub struct VectorStore<P> {
    dimensions: usize,
    max_records: usize,
    table: RwLock<Table<P>>,
}

#[derive(Debug)]
struct Table<P> {
    rows: HashMap<Arc<str>, usize>,
    ids: Vec<Arc<str>>,
    payloads: Vec<P>,
    matrix: Vec<f32>,
}

impl<P> VectorStore<P> {
    /// Limit of [`max_records`](Self::max_records) unless set.
    pub const DEFAULT_MAX_RECORDS: usize = 1_000_000;

    /// Creates an empty store of vectors with `dimensions` coordinates, 1 to 65,536.
    ///
    /// # Panics
    ///
    /// When `dimensions` is outside of that range.
    pub fn new(dimensions: usize) -> Self {
        assert!((1..=65_536).contains(&dimensions), "dimensions must be 1 to 65,536, not {dimensions}");
        Self { dimensions, max_records: Self::DEFAULT_MAX_RECORDS, table: RwLock::new(Table::default()) }
    }

    /// Sets how many records the store accepts, 1,000,000 by default; the memory it may take follows from it.
    #[must_use]
    pub fn with_max_records(mut self, max_records: usize) -> Self {
        self.max_records = max_records;
        self
    }

    /// Number of coordinates of every vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Number of records the store accepts.
    pub fn max_records(&self) -> usize {
        self.max_records
    }

    /// Number of records stored.
    pub fn len(&self) -> usize {
        self.read().ids.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores one record, replacing the one with an equal id. Returns whether it replaced one.
    ///
    /// # Errors
    ///
    /// [`StoreError::DimensionMismatch`], [`NotFinite`](StoreError::NotFinite) or
    /// [`ZeroVector`](StoreError::ZeroVector) for an unusable vector; [`Full`](StoreError::Full) for a new id in a full
    /// store.
    pub fn upsert(&self, id: impl Into<Arc<str>>, vector: &[f32], payload: P) -> Result<bool, StoreError> {
        let row = self.normalised(vector)?;
        let id = id.into();
        let mut table = self.write();
        if table.ids.len() >= self.max_records && !table.rows.contains_key(&id) {
            return Err(StoreError::Full { max_records: self.max_records });
        }
        let replaced = table.put(id, &row, payload);
        drop(table);
        // The payload's destructor is the caller's code: it runs after the lock is free.
        Ok(replaced.is_some())
    }

    /// Stores all records or, on an error, none. A later record of the batch replaces an earlier one with its id.
    ///
    /// # Errors
    ///
    /// As [`upsert`](Self::upsert), for the first record that is refused.
    pub fn upsert_batch(&self, records: impl IntoIterator<Item = Record<P>>) -> Result<(), StoreError> {
        let rows = records
            .into_iter()
            .map(|record| Ok((record.id, self.normalised(&record.vector)?, record.payload)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let mut table = self.write();
        let mut new: Vec<&Arc<str>> =
            rows.iter().map(|(id, ..)| id).filter(|id| !table.rows.contains_key(*id)).collect();
        new.sort_unstable();
        new.dedup();
        if table.ids.len() + new.len() > self.max_records {
            return Err(StoreError::Full { max_records: self.max_records });
        }
        let replaced: Vec<P> = rows.into_iter().filter_map(|(id, row, payload)| table.put(id, &row, payload)).collect();
        drop(table);
        drop(replaced);
        Ok(())
    }

    /// Removes a record and returns its payload, or `None` when no record has that id.
    pub fn delete(&self, id: &str) -> Option<P> {
        self.write().remove(id, self.dimensions)
    }

    /// Removes everything and gives the memory back.
    pub fn clear(&self) {
        let emptied = mem::take(&mut *self.write());
        drop(emptied);
    }

    fn read(&self) -> RwLockReadGuard<'_, Table<P>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// No code of a caller runs under the write lock, so a poisoned one still guards a consistent table.
    fn write(&self) -> RwLockWriteGuard<'_, Table<P>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn normalised(&self, vector: &[f32]) -> Result<Vec<f32>, StoreError> {
        if vector.len() != self.dimensions {
            return Err(StoreError::DimensionMismatch { expected: self.dimensions, found: vector.len() });
        }
        if let Some(index) = vector.iter().position(|x| !x.is_finite()) {
            return Err(StoreError::NotFinite { index });
        }
        // In double precision the square of the largest f32 does not overflow.
        let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if length < f64::from(f32::MIN_POSITIVE) {
            return Err(StoreError::ZeroVector);
        }
        Ok(vector.iter().map(|&x| (f64::from(x) / length) as f32).collect())
    }
}

impl<P: Clone> VectorStore<P> {
    /// Returns a clone of the payload stored under `id`.
    pub fn get(&self, id: &str) -> Option<P> {
        let table = self.read();
        table.rows.get(id).map(|&row| table.payloads[row].clone())
    }

    /// Returns the `k` records closest in direction to `query`, best first; equal scores in the order of their ids.
    ///
    /// Compares with every record, so the result is exact. Returns fewer than `k` when the store holds fewer.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoResultsAsked`] when `k` is 0; an unusable `query` as in [`upsert`](Self::upsert).
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<Hit<P>>, StoreError> {
        if k == 0 {
            return Err(StoreError::NoResultsAsked);
        }
        let query = self.normalised(query)?;
        let table = self.read();
        Ok(nearest(&query, &table.matrix, &table.ids, k)
            .into_iter()
            .map(|found| Hit {
                id: Arc::clone(found.id),
                score: found.score,
                payload: table.payloads[found.row].clone(),
            })
            .collect())
    }
}

impl<P: Send + Sync + 'static> Service for VectorStore<P> {
    /// Gives the memory back, although handles to the service may live on.
    fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        tracing::debug!(records = self.len(), "the vector store releases its records");
        self.clear();
        Ok(())
    }
}

impl<P> Table<P> {
    /// Stores a row of length 1 and returns the payload it replaced.
    fn put(&mut self, id: Arc<str>, row: &[f32], payload: P) -> Option<P> {
        if let Some(&at) = self.rows.get(&id) {
            self.matrix[at * row.len()..][..row.len()].copy_from_slice(row);
            return Some(mem::replace(&mut self.payloads[at], payload));
        }
        self.rows.insert(Arc::clone(&id), self.ids.len());
        self.ids.push(id);
        self.payloads.push(payload);
        self.matrix.extend_from_slice(row);
        None
    }

    /// Moves the last row into the place of the one removed, so that the matrix keeps no holes.
    fn remove(&mut self, id: &str, dimensions: usize) -> Option<P> {
        let at = self.rows.remove(id)?;
        self.ids.swap_remove(at);
        if let Some(moved) = self.ids.get(at) {
            self.rows.insert(Arc::clone(moved), at);
        }
        let last = self.ids.len();
        self.matrix.copy_within(last * dimensions.., at * dimensions);
        self.matrix.truncate(last * dimensions);
        Some(self.payloads.swap_remove(at))
    }
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self { rows: HashMap::new(), ids: Vec::new(), payloads: Vec::new(), matrix: Vec::new() }
    }
}
