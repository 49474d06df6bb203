//! [`StoreError`]: why an answer could not be kept, or found again.

use std::io;
use std::path::{Path, PathBuf};

use super::super::BoxError;

/// Why a journal, or a cache on disk, could not be opened, or could not keep or give an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another part of this one, uses the folder.
    #[error("{} is used {}", path.display(), used_by(*process))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that uses it, if it has said so.
        process: Option<u32>,
    },
    /// The file is of another kind.
    #[error("{} was not written by a journal or cache of this kind", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version of this library.
    #[error("{} has version {version} of the format, which this version of sage does not know", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u32,
    },
    /// Bytes in the middle of the file are not as they were written. Nothing is read past them.
    #[error("{} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where what is damaged begins.
        offset: u64,
    },
    /// The disk is full, or the file may not grow.
    #[error("there is no room for more in {}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An answer is larger than an entry may be.
    #[error("an answer of {bytes} bytes is larger than an entry may be ({limit} bytes)")]
    TooLarge {
        /// The bytes of the answer.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An earlier write failed in a way that leaves open what is in the file.
    #[error("{} takes nothing more, as a write to it failed", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// An answer could not be turned into bytes, or bytes into an answer. For bytes that another form of the answer's
    /// type was written as, declare another `version`.
    #[error("an answer does not fit its codec; if its type has changed, declare another version")]
    Codec {
        /// What the codec said.
        source: BoxError,
    },
    /// Two methods of a service have one name, and the answers of both are to be kept under it.
    #[error("another method `{method}` of this service keeps its answers; declare it once, and clone it")]
    SameName {
        /// The name of both.
        method: String,
    },
    /// The system refused to read or write.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn used_by(process: Option<u32>) -> String {
    match process {
        Some(process) if process == std::process::id() => "already in this process".to_owned(),
        // A child that was made by fork(2) has its parent's lock for as long as it lives.
        Some(process) if !Path::new(&format!("/proc/{process}")).exists() => {
            format!("by a child of process {process}, which is gone")
        }
        Some(process) => format!("by process {process}"),
        None => "by another process".to_owned(),
    }
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
