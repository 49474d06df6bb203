//! The index of a store, beside its file: a cache, which nothing depends on.
//!
//! It is read and written by whoever holds the lock on the log. A stamp says for which state of that it was built; one
//! that is missing, damaged or of another state is built again when it is needed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::store::log::beside;
use crate::store::vectors::Vectors;

/// Takes up the index, if there is one for this state.
pub(super) fn read(log: &Path, stamp: u64, vectors: &mut Vectors) {
    let path = beside(log, "index");
    // One that a process which was killed had not finished.
    let _ = fs::remove_file(beside(&path, "new"));
    let is_of_this_length = |file: fs::Metadata| file.is_file() && file.len() == vectors.index_length();
    // Whatever else lies there is not read, however long it is.
    if !fs::symlink_metadata(&path).is_ok_and(is_of_this_length) {
        return;
    }
    let Ok(bytes) = fs::read(&path) else { return };
    if let Err(why) = vectors.take_up_index(&bytes, stamp) {
        tracing::debug!(path = %path.display(), %why, "it is built again when it is needed");
    }
}

/// Writes the index, if there is one, and removes one that is there for another state.
pub(super) fn write(log: &Path, stamp: u64, vectors: &Vectors) {
    let path = beside(log, "index");
    let written = match vectors.index_as_bytes(stamp) {
        Some(bytes) => replace(&path, &bytes),
        None => {
            remove(log);
            Ok(())
        }
    };
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot keep the index: it is built again when it is needed");
    }
}

/// It has codes of vectors, also of those that are deleted.
pub(super) fn remove(log: &Path) {
    let _ = fs::remove_file(beside(log, "index"));
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, "new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}
