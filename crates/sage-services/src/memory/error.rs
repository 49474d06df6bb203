//! [`MemoryError`].

use std::io;
use std::path::PathBuf;

use sage::{BoxError, ServiceError, Verdict};
use thiserror::Error;

use super::scope::Scope;
use crate::embed::EmbedError;
use crate::store::log::LogError;

/// Why a memory did not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A name in a scope is refused.
    #[error("the {part} {name:?} is refused: {why}")]
    BadScope {
        /// What is named: "tenant", "user", "agent" or "session".
        part: &'static str,
        /// The name, or the beginning of it.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A turn is refused, and with it all that were appended together.
    #[error("turn {id:?} is refused: {why}")]
    BadTurn {
        /// Its id, or the beginning of it.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The scope has a turn with this id already, which was appended with another role or text.
    #[error("turn {id:?} of {scope} is there already, with another role or text; `update` changes it")]
    OtherText {
        /// Whose it is.
        scope: Scope,
        /// Its id.
        id: String,
    },
    /// There is no such turn in exactly this scope, or none any more.
    #[error("there is no turn {id:?} in {scope}")]
    UnknownTurn {
        /// The scope.
        scope: Scope,
        /// The id.
        id: String,
    },
    /// Nothing is remembered in this scope.
    #[error("nothing is remembered of {scope}")]
    UnknownScope {
        /// The scope.
        scope: Scope,
    },
    /// A recall or a window is refused.
    #[error("it cannot be asked like this: {why}")]
    BadQuery {
        /// What is wrong with it.
        why: String,
    },
    /// A vector does not fit the others.
    #[error("the vector of {of:?} is refused: {why}")]
    BadVector {
        /// The turn's id, or "the query".
        of: String,
        /// What is wrong with it.
        why: String,
    },
    /// The embedder failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The vectors in the file were made by another embedder.
    #[error("the vectors in `{}` were made by {found}, not by {expected}", path.display())]
    OtherEmbedder {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: String,
        /// What the memory was given.
        expected: String,
    },
    /// It holds its maximum number of turns already.
    #[error("the memory is full: it holds its maximum of {max_turns} turns")]
    Full {
        /// The limit.
        max_turns: usize,
    },
    /// What is appended together is too much to be written at once.
    #[error("{bytes} bytes are appended at once; {most} are taken: divide them")]
    TooMuchAtOnce {
        /// What it takes.
        bytes: usize,
        /// What is taken.
        most: usize,
    },
    /// The turns were changed or erased while their summary was made. Nothing is changed.
    #[error("turns of {scope} were changed while they were summarised; try again")]
    Changed {
        /// Whose they are.
        scope: Scope,
    },
    /// The summariser failed. Nothing is changed.
    #[error("no summary was made")]
    NoSummary(#[source] BoxError),
    /// The answers of a service that are about the scope could not be erased. Of the memory nothing is erased yet.
    #[error("answers with the tag {tag:?} are not erased, and nothing of the memory")]
    AnswersLeft {
        /// The tag.
        tag: String,
        /// What failed.
        source: BoxError,
    },
    /// The memory is not open, or was closed.
    #[error("the memory is not open")]
    NotOpen,
    /// The system has no thread for what expires.
    #[error("there is no thread for what expires")]
    NoThread(#[source] io::Error),
    /// Another process has the file open.
    #[error("another process has `{}` open", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold what was written.
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
    /// A line of an export is none. Nothing is imported.
    #[error("line {line} of `{}` is no turn: {why}; nothing is imported", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl MemoryError {
    /// What it means to a policy.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::File { .. } | Self::Locked { .. } | Self::NotOpen | Self::Changed { .. } => Verdict::Passing(None),
            _ => Verdict::Bad,
        }
    }
}

impl From<LogError> for MemoryError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Locked { path } => Self::Locked { path },
            LogError::Damaged { path, offset, why } => Self::Damaged { path, offset, why },
            LogError::File { path, done, source } => Self::File { path, done, source },
        }
    }
}

impl From<MemoryError> for ServiceError {
    fn from(error: MemoryError) -> Self {
        Self::new(error.verdict(), BoxError::from(error))
    }
}
