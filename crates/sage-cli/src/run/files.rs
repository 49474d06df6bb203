//! Files that are there whole or not at all, and on the disk when they are said to be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest file that is read.
const MOST_BYTES: u64 = 8 << 20;

/// Writes a value as JSON, for this user alone, in the place of what was there.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = created(OpenOptions::new().truncate(true), &beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder(path)
}

/// Reads a value.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {MOST_BYTES} bytes")));
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Opens a file for writing, and makes it if it is not there, for this user alone.
pub(super) fn created(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    how.write(true).create(true).mode(0o600).open(path)
}

/// Puts on the disk that a file of this name is there.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
