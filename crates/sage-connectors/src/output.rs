//! One output file that appears under its name when it is complete, or not at all.
//!
//! An [`Output`] owns a temporary file beside its target. [`Output::publish`], for a sink's `finish`, makes it the
//! target; [`Output::close`], for a sink's `close`, removes it, or keeps it as `NAME.partial` where a signal has ended
//! the job.
//!
//! Invariants: only one rename touches the target, and only after everything was written and synced without an error.
//! Whenever an `Output` is dropped, also by a panic, the temporary file is gone. Who may not read the target may not
//! read the temporary file.
//!
//! Knows nothing of formats, and writes only through a [`Disk`]; where a file lies and who may read it is in
//! `target.rs`.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use sage::{BoxError, CloseContext, OpenContext, StopReason};
use tempfile::TempPath;

use crate::error::OutputError;
use crate::open::Compression;
use crate::target::{beside, folder, in_place, mode_of, part};

const BUFFER_BYTES: usize = 128 << 10;

/// The system calls on a file, so that a test can play the disk.
pub(crate) trait Disk: Write + Send + std::fmt::Debug {
    /// Gives the file the permissions of the one that it replaces.
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    /// Waits until the content is on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Gives the file the name of its target.
    fn rename(&self, temporary: TempPath, target: &Path) -> io::Result<()>;
    /// Waits until the name is on the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

impl Disk for File {
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.set_permissions(Permissions::from_mode(mode))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn rename(&self, temporary: TempPath, target: &Path) -> io::Result<()> {
        temporary.persist(target).map_err(|error| error.error)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// A file being written.
#[derive(Debug)]
pub(crate) struct Output {
    target: PathBuf,
    writer: BufWriter<Packer>,
    /// The file beside the target; `None` where the target is written in place, a device or a pipe.
    temporary: Option<TempPath>,
    /// Whether something could not be written: the file will not appear.
    broken: bool,
}

impl Output {
    /// Opens the file for one replica. If it is `private`, only its owner may read and write a new file.
    pub(crate) fn open(path: &Path, private: bool, cx: &OpenContext) -> Result<Self, OutputError> {
        let compression = Compression::of(path);
        if compression == Compression::Zstd {
            return Err(OutputError::Compression { path: path.to_owned() });
        }
        let special = fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir());
        let (target, file, temporary) = if special {
            let (target, file) = in_place(path, cx.parallelism)?;
            (target, file, None)
        } else {
            let target = part(path, cx.replica, cx.parallelism);
            let (target, file, temporary) = beside(target, private)?;
            (target, file, Some(temporary))
        };
        Ok(Self::new(target, Box::new(file), compression, temporary))
    }

    fn new(target: PathBuf, file: Box<dyn Disk>, compression: Compression, temporary: Option<TempPath>) -> Self {
        let writer = BufWriter::with_capacity(BUFFER_BYTES, Packer::new(file, compression));
        Self { target, writer, temporary, broken: false }
    }

    /// The file this will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Whether something could not be written.
    #[cfg(feature = "parquet")]
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Notes a write that failed: the file will not appear.
    #[cold]
    pub(crate) fn failed(&self, source: io::Error) -> OutputError {
        OutputError::Write { path: self.target.clone(), source }
    }

    /// Notes a record that the format cannot hold: the file will not appear.
    #[cold]
    pub(crate) fn unfit(&mut self, source: impl Into<BoxError>) -> OutputError {
        self.broken = true;
        OutputError::Record { path: self.target.clone(), source: source.into() }
    }

    /// Makes the file the target. If something could not be written, and an error policy let that pass, there is no
    /// file.
    pub(crate) fn publish(self) -> Result<(), OutputError> {
        if self.broken {
            let path = self.target.clone();
            self.discard()?;
            return Err(OutputError::Incomplete { path });
        }
        let Self { target, writer, temporary, .. } = self;
        let failed = |source| OutputError::Write { path: target.clone(), source };
        let packer = writer.into_inner().map_err(|error| failed(error.into_error()))?;
        let file = packer.finish().map_err(failed)?;
        let Some(temporary) = temporary else { return Ok(()) };
        if let Some(mode) = mode_of(&target) {
            file.set_mode(mode).map_err(failed)?;
        }
        file.sync().map_err(failed)?;
        file.rename(temporary, &target).map_err(|source| OutputError::Rename { path: target.clone(), source })?;
        // The file has its name. Where a folder cannot be synced, as on some network file systems, there is no more
        // to be had than that.
        let _ = file.sync_folder(folder(&target));
        Ok(())
    }

    /// Ends a file that will not be complete. If a signal ended the job, the file is kept under another name, because
    /// whoever sent the signal may have waited for hours; otherwise it is removed.
    pub(crate) fn close(self, cx: &CloseContext) -> Result<(), OutputError> {
        if matches!(cx.reason(), StopReason::Signal(_)) && self.temporary.is_some() {
            if let Some(partial) = self.keep()? {
                cx.note(format!("{} has what was written before the job was stopped", partial.display()));
            }
            return Ok(());
        }
        self.discard()
    }

    /// Gives the file, as far as it was written, the target's name with `.partial` behind it, unless it is empty.
    fn keep(self) -> Result<Option<PathBuf>, OutputError> {
        let Self { target, writer, temporary, .. } = self;
        let Some(temporary) = temporary else { return Ok(None) };
        // What cannot be written any more is missing at its end, where the file is not complete anyway.
        match writer.into_inner() {
            Ok(packer) => drop(packer.finish()),
            Err(error) => drop(error.into_inner().into_parts()),
        }
        let mut partial = target.into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if fs::metadata(&temporary).is_ok_and(|about| about.len() == 0) {
            return Ok(None);
        }
        let kept = temporary.persist(&partial);
        kept.map_err(|error| OutputError::Rename { path: partial.clone(), source: error.error })?;
        Ok(Some(partial))
    }

    /// Removes the file.
    fn discard(self) -> Result<(), OutputError> {
        let Self { target, writer, temporary, .. } = self;
        // Takes the file out without writing what is buffered.
        drop(writer.into_parts());
        match temporary.map(TempPath::close) {
            Some(Err(source)) if source.kind() != io::ErrorKind::NotFound => {
                Err(OutputError::Write { path: target, source })
            }
            _ => Ok(()),
        }
    }
}

impl Write for Output {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).inspect_err(|_| self.broken = true)
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).inspect_err(|_| self.broken = true)
    }

    /// Gives the buffer to the system, so that a full disk is noticed before the file is closed. What gzip holds back
    /// stays there, because gzip compresses small pieces badly.
    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().inspect_err(|_| self.broken = true)
    }
}

/// Compresses what is written, or does not.
#[derive(Debug)]
enum Packer {
    Plain(Box<dyn Disk>),
    Gzip(Box<GzEncoder<Box<dyn Disk>>>),
}

impl Packer {
    fn new(file: Box<dyn Disk>, compression: Compression) -> Self {
        match compression {
            Compression::Gzip => Self::Gzip(Box::new(GzEncoder::new(file, flate2::Compression::default()))),
            Compression::None | Compression::Zstd => Self::Plain(file),
        }
    }

    fn finish(self) -> io::Result<Box<dyn Disk>> {
        match self {
            Self::Plain(file) => Ok(file),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was done, in order.
    type Journal = Arc<Mutex<Vec<String>>>;

    /// A disk that notes what is done, and whose next write, sync or rename fails if it is told so.
    #[derive(Debug)]
    struct Noting {
        file: File,
        journal: Journal,
        fails: &'static str,
    }

    impl Noting {
        fn done(&self, what: &str) -> io::Result<()> {
            self.journal.lock().unwrap().push(what.to_owned());
            if self.fails == what { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl Write for Noting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.done("write").and_then(|()| self.file.write(bytes));
            if written.is_err() {
                self.fails = "";
            }
            written
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk for Noting {
        fn set_mode(&self, mode: u32) -> io::Result<()> {
            self.done("mode").and_then(|()| self.file.set_mode(mode))
        }
        fn sync(&self) -> io::Result<()> {
            self.done("sync")
        }
        fn rename(&self, temporary: TempPath, target: &Path) -> io::Result<()> {
            self.done("rename").and_then(|()| self.file.rename(temporary, target))
        }
        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            self.done(&format!("sync {}", folder.file_name().unwrap().display()))
        }
    }

    fn on(target: &Path, compression: Compression, fails: &'static str) -> (Output, Journal) {
        let (target, file, temporary) = beside(target.to_owned(), false).unwrap();
        let journal = Journal::default();
        let disk = Noting { file, journal: journal.clone(), fails };
        (Output::new(target, Box::new(disk), compression, Some(temporary)), journal)
    }

    #[test]
    fn a_file_is_on_the_disk_before_it_gets_its_name_and_its_name_after_that() {
        for compression in [Compression::None, Compression::Gzip] {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().join("place");
            fs::create_dir(&place).unwrap();
            fs::write(place.join("a.txt"), "old").unwrap();
            let (mut output, journal) = on(&place.join("a.txt"), compression, "");
            output.write_all(b"new").unwrap();
            output.publish().unwrap();
            let mut done = journal.lock().unwrap().clone();
            done.dedup();
            assert_eq!(done, ["write", "mode", "sync", "rename", "sync place"]);
        }
    }

    #[test]
    fn a_file_does_not_appear_after_a_write_that_failed_once_or_when_it_cannot_be_synced() {
        for (fails, let_pass) in
            [("write", true), ("write", false), ("sync", false), ("mode", false), ("rename", false)]
        {
            for compression in [Compression::None, Compression::Gzip] {
                let dir = tempfile::tempdir().unwrap();
                let target = dir.path().join("a.txt");
                fs::write(&target, "old").unwrap();
                let (mut output, _) = on(&target, compression, fails);
                // Noise, so that something is left of it when it is packed.
                let noise: Vec<u8> = (0..BUFFER_BYTES * 4).map(|n| (n * n / 7 + n / 3) as u8).collect();
                if let_pass {
                    // As a sink under an error policy that lets records pass.
                    while output.write_all(&noise).is_ok() {}
                    output.write_all(b"and more").unwrap();
                } else {
                    output.write_all(b"new").unwrap();
                }
                let error = output.publish().unwrap_err();
                assert_eq!(matches!(error, OutputError::Incomplete { .. }), let_pass, "{fails}: {error}");
                assert_eq!(fs::read_to_string(&target).unwrap(), "old", "{fails}");
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{fails}");
            }
        }
    }
}
