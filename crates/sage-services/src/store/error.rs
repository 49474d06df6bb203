//! [`StoreError`].

use std::io;
use std::path::PathBuf;

use sage::{BoxError, ServiceError, Verdict};
use thiserror::Error;

use super::log::LogError;

/// Why a store did not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A collection's name is not one that every store takes.
    #[error(
        "{name:?} is no name of a collection: that has 3 to 255 ASCII letters, digits and `_`, begins with a letter \
         and does not end in `_`"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// Vectors cannot have as many dimensions.
    #[error("vectors have 1 to 65,536 dimensions, not {dimensions}")]
    BadDimensions {
        /// What was asked for.
        dimensions: usize,
    },
    /// A vector has another number of coordinates than the collection's.
    #[error(
        "the vector of {of:?} has {found} dimensions where collection `{collection}`{} has {expected}",
        embedder.as_ref().map_or_else(String::new, |embedder| format!(", made with {embedder},"))
    )]
    DimensionMismatch {
        /// The record's id, or "the query".
        of: String,
        /// The collection.
        collection: String,
        /// What makes the collection's vectors.
        embedder: Option<String>,
        /// Dimensions of the collection.
        expected: usize,
        /// Dimensions of the vector.
        found: usize,
    },
    /// A coordinate is NaN or infinite.
    #[error("coordinate {index} of the vector of {of:?} is not finite")]
    NotFinite {
        /// The record's id, or "the query".
        of: String,
        /// Position of the first such coordinate, from 0.
        index: usize,
    },
    /// The vector has no direction to compare by its cosine, as its length is zero or too small to divide by.
    #[error("the vector of {of:?} is zero, which has no direction to compare")]
    ZeroVector {
        /// The record's id, or "the query".
        of: String,
    },
    /// A record is not one that every store takes.
    #[error("record {id:?} is refused: {why}")]
    BadRecord {
        /// Its id, or the beginning of it.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// A batch has an id twice.
    #[error("a batch has the id {id:?} twice")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// A search asked for no results.
    #[error("a search must ask for at least one result")]
    NoResultsAsked,
    /// A search cannot be made.
    #[error("a search is refused: {why}")]
    BadSearch {
        /// What is wrong with it.
        why: String,
    },
    /// A filter has no meaning.
    #[error("a filter is refused: {why}")]
    BadFilter {
        /// What is wrong with it.
        why: String,
    },
    /// A collection that must exist does not.
    #[error("there is no collection `{name}` in {place}")]
    UnknownCollection {
        /// Its name.
        name: String,
        /// The store.
        place: String,
    },
    /// The store has another collection of this name.
    #[error("collection `{collection}` was made with other {what}: {found}, not {expected}")]
    OtherCollection {
        /// Its name.
        collection: String,
        /// What differs.
        what: &'static str,
        /// What the store has recorded.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// This store cannot do it.
    #[error("{store} cannot do this: {what}")]
    Unsupported {
        /// The kind of store.
        store: &'static str,
        /// What it cannot do.
        what: String,
    },
    /// The store holds its maximum number of records already.
    #[error("the store is full: it holds its maximum of {max_records} records")]
    Full {
        /// The limit.
        max_records: usize,
    },
    /// It was called before it was opened, or after it was closed.
    #[error("the store of collection `{collection}` is {state}")]
    NotOpen {
        /// The collection.
        collection: String,
        /// "not open yet" or "closed".
        state: &'static str,
    },
    /// A batch is too large to be written whole.
    #[error("a batch has {bytes} bytes; {most} are written at once: divide it")]
    BatchTooLarge {
        /// What it takes.
        bytes: usize,
        /// What is taken.
        most: usize,
    },
    /// The store was closed meanwhile, or is not open yet.
    #[error("the store is not open")]
    Closed,
    /// Another process writes this store.
    #[error("another process has `{}` open", path.display())]
    Locked {
        /// Its file.
        path: PathBuf,
    },
    /// A file of the store does not hold what was written.
    #[error("`{}` is damaged at byte {offset}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, from 0.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("`{}` cannot be {done}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// "read", "written", …
        done: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A server did not do it.
    #[error("{server} did not {what}")]
    Server {
        /// Its kind and address.
        server: String,
        /// What it was asked for.
        what: &'static str,
        /// What it said, and what that means.
        source: ServiceError,
    },
}

impl StoreError {
    /// What it means to a policy.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Server { source, .. } => source.verdict(),
            Self::File { .. } | Self::Locked { .. } | Self::NotOpen { .. } | Self::Closed => Verdict::Passing(None),
            _ => Verdict::Bad,
        }
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Locked { path } => Self::Locked { path },
            LogError::Damaged { path, offset, why } => Self::Damaged { path, offset, why },
            LogError::File { path, done, source } => Self::File { path, done, source },
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        Self::new(error.verdict(), BoxError::from(error))
    }
}
