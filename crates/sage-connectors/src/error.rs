//! What can go wrong with files: [`InputError`] and [`OutputError`]. Each names the file, and the line if there is one.

use std::io;
use std::path::{Path, PathBuf};

use sage::{BoxError, WhileOpening};

use crate::bad_line::BadLine;

/// Why records could not be read from files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The pattern is not a glob pattern.
    #[error("`{pattern}` is not a glob pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// No file matches the pattern.
    #[error("no file matches `{pattern}`; check the path and the folder the program runs in")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A file could not be listed or opened; it may have vanished since it was listed.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file could not be read, or could not be unpacked.
    #[error("{}:{line}: cannot read on", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The line that was being read, from 1.
        line: u64,
        /// The system's or the decoder's reason.
        source: io::Error,
    },
    /// A compressed file ends in the middle: it was cut off, or is still being written.
    #[error("{}:{line}: the compressed file ends early; it was cut off or is still being written", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The line that was being read, from 1.
        line: u64,
    },
    /// A line or record is longer than [`Files::max_record_bytes`](crate::Files::max_record_bytes).
    #[error("{}:{line}: the record is longer than {limit_bytes} bytes; see `Files::max_record_bytes`", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line it begins at, from 1.
        line: u64,
        /// The limit.
        limit_bytes: usize,
    },
    /// A line or record is malformed. A source's `lenient` form gives these as records.
    #[error(transparent)]
    Malformed(BadLine),
    /// A file is not one of Parquet, is damaged, or has no such column. With the feature `parquet`.
    #[error("{}: cannot be read as Parquet, from row {row} on", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The first row that could not be read, from 1.
        row: u64,
        /// The decoder's reason.
        source: BoxError,
    },
    /// A row of a Parquet file is not a record. With the feature `parquet`.
    #[error("{}: row {row} is not a record", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// What is wrong with it.
        source: BoxError,
    },
    /// An option has a value it cannot have.
    #[error("{option} {why}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with its value.
        why: &'static str,
    },
}

impl InputError {
    /// Makes the error of reading `path` at `line`.
    pub(crate) fn reading(path: &Path, line: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated { path, line },
            _ => Self::Read { path, line, source },
        }
    }

    /// The same once more.
    pub(crate) fn again(&self) -> Self {
        let copy = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
        match self {
            Self::Pattern { pattern, .. } | Self::NoMatch { pattern } => Self::NoMatch { pattern: pattern.clone() },
            Self::Open { path, source } => Self::Open { path: path.clone(), source: copy(source) },
            Self::Read { path, line, source } => Self::Read { path: path.clone(), line: *line, source: copy(source) },
            Self::Truncated { path, line } => Self::Truncated { path: path.clone(), line: *line },
            Self::TooLong { path, line, limit_bytes } => {
                Self::TooLong { path: path.clone(), line: *line, limit_bytes: *limit_bytes }
            }
            Self::Malformed(bad) => Self::Malformed(bad.clone()),
            Self::Table { path, row, source } => {
                Self::Table { path: path.clone(), row: *row, source: source.to_string().into() }
            }
            Self::Row { path, row, source } => {
                Self::Row { path: path.clone(), row: *row, source: source.to_string().into() }
            }
            Self::Option { option, why } => Self::Option { option, why },
        }
    }

    /// The error as a source reports it: a file that cannot be opened is not a record that cannot be read.
    #[cold]
    pub(crate) fn told(self) -> BoxError {
        match self {
            Self::Open { .. } => WhileOpening::new(self).into(),
            other => other.into(),
        }
    }
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The file could not be created beside its target; the folder may not exist or may not be written to.
    #[error("cannot create a file for {}; check that its folder exists and may be written to", path.display())]
    Create {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The target is a folder.
    #[error("{} is a folder, not a file", path.display())]
    Folder {
        /// The target.
        path: PathBuf,
    },
    /// The target is a device or a pipe, which cannot be split into parts.
    #[error("{} is not a regular file, and {parallelism} replicas cannot share it; use one", path.display())]
    Shared {
        /// The target.
        path: PathBuf,
        /// How many replicas the sink has.
        parallelism: usize,
    },
    /// The target's extension asks for a compression that is not written: `.zst`.
    #[error("{} cannot be written: of the compressed formats, only `.gz` is", path.display())]
    Compression {
        /// The target.
        path: PathBuf,
    },
    /// Writing failed; the disk may be full.
    #[error("cannot write {}", path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A record cannot be written in this format.
    #[error("{}: the record cannot be written in this format", path.display())]
    Record {
        /// The target.
        path: PathBuf,
        /// What is in the way.
        source: BoxError,
    },
    /// The records cannot be the columns of a Parquet file. With the feature `parquet`.
    #[error("{}: the records cannot be columns of Parquet", path.display())]
    Columns {
        /// The target.
        path: PathBuf,
        /// What is in the way.
        source: BoxError,
    },
    /// An error policy let a record pass that could not be written, and half of it may be in the file. So the file does
    /// not appear.
    #[error("{} was not made, because an earlier write to it failed", path.display())]
    Incomplete {
        /// The target.
        path: PathBuf,
    },
    /// Everything was written, and the file could not be given its name.
    #[error("cannot rename the finished file to {}", path.display())]
    Rename {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An option has a value it cannot have.
    #[error("{option} {why}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with its value.
        why: &'static str,
    },
    /// The sink was not opened before it was written to.
    #[error("the sink is not open")]
    NotOpen,
}
