//! What a store asks of a file, and the folder a file of answers stands in.
//!
//! A folder has one user at a time: it holds a lock on the file `lock`, in which its process id stands. The system lets
//! go of the lock when that process ends, however it ends.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// A file, or a fake one in a test.
pub(in super::super) trait Disk: Send + Sync {
    fn bytes(&self) -> io::Result<u64>;
    /// Fills the whole buffer.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all, or an unknown part of it if it fails.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file to this length.
    fn cut(&self, bytes: u64) -> io::Result<()>;
    /// Returns when what was written is on the medium.
    fn sync(&self) -> io::Result<()>;
}

impl Disk for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A folder that this process alone uses.
pub(in super::super) struct Folder {
    path: PathBuf,
    lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, and takes it.
    pub(in super::super) fn take(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let mut lock = private(&path.join("lock"), false).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Whoever has just taken it may not have said so yet.
                let _ = lock.take(20).read_to_string(&mut text);
                return Err(StoreError::InUse { path: path.to_owned(), process: text.trim().parse().ok() });
            }
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Opens a file in it, which is made if it is not there, and is its user's alone.
    pub(in super::super) fn file(&self, name: &str, is_new: bool) -> Result<File, StoreError> {
        let path = self.path(name);
        private(&path, is_new).map_err(|source| StoreError::Io { path, source })
    }

    pub(in super::super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes a file, if it is there.
    pub(in super::super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Returns when the names of its files are on the medium.
    pub(in super::super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing alone would not do while a child that is just being made has the file as well. If it fails, the
        // process' end does it.
        let _ = self.lock.unlock();
    }
}

fn private(path: &Path, is_new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Nothing that is no file keeps the caller waiting.
    options.read(true).write(true).create(true).truncate(is_new).mode(0o600).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if about.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
