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
//! Knows nothing of formats, and uses the system only through a [`Disk`].

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use sage::{BoxError, CloseContext, OpenContext, StopReason};
use tempfile::TempPath;

use crate::open::Compression;

const BUFFER_BYTES: usize = 128 << 10;
/// The mode of a new file, before the process's mask.
const NEW_FILE_MODE: u32 = 0o666;
const PRIVATE_MODE: u32 = 0o600;
/// As many links as Linux follows, and its error for more.
const MOST_LINKS: u32 = 40;
const TOO_MANY_LINKS: i32 = 40;
/// The bits of a mode that say who may do what.
const MODE_BITS: u32 = 0o777;

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

/// The system calls on a file, so that a test can play the disk.
trait Disk: Write + Send + std::fmt::Debug {
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
        let file = match writer.into_inner() {
            Ok(packer) => packer.finish().ok(),
            Err(error) => {
                drop(error.into_inner().into_parts());
                None
            }
        };
        let mut partial = target.into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if fs::metadata(&temporary).is_ok_and(|about| about.len() == 0) {
            return Ok(None);
        }
        match file {
            Some(file) => file.rename(temporary, &partial),
            None => temporary.persist(&partial).map_err(|error| error.error),
        }
        .map_err(|source| OutputError::Rename { path: partial.clone(), source })?;
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

/// Opens a device or a pipe.
fn in_place(path: &Path, parallelism: usize) -> Result<(PathBuf, File), OutputError> {
    let path = path.to_owned();
    if parallelism > 1 {
        return Err(OutputError::Shared { path, parallelism });
    }
    match OpenOptions::new().write(true).open(&path) {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(OutputError::Create { path, source }),
    }
}

/// Makes a temporary file beside the target; if the target is a link, beside the file it leads to.
fn beside(target: PathBuf, private: bool) -> Result<(PathBuf, File, TempPath), OutputError> {
    let target = match end_of_links(target.clone()) {
        Ok(target) => target,
        Err(source) => return Err(OutputError::Create { path: target, source }),
    };
    if target.is_dir() {
        return Err(OutputError::Folder { path: target });
    }
    let replaced = mode_of(&target);
    let mode = if private || replaced.is_some() { PRIVATE_MODE } else { NEW_FILE_MODE };
    let made = tempfile::Builder::new()
        .prefix(".sage-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder(&target))
        .and_then(|made| replaced.map_or(Ok(()), |mode| made.as_file().set_mode(mode)).map(|()| made.into_parts()));
    match made {
        Ok((file, temporary)) => Ok((target, file, temporary)),
        Err(source) => Err(OutputError::Create { path: target, source }),
    }
}

/// Where a link leads, even if there is no file yet.
fn end_of_links(mut target: PathBuf) -> io::Result<PathBuf> {
    for _ in 0..MOST_LINKS {
        if !target.is_symlink() {
            return Ok(target);
        }
        target = folder(&target).join(fs::read_link(&target)?);
    }
    Err(io::Error::from_raw_os_error(TOO_MANY_LINKS))
}

/// The mode of the existing file, if there is one.
fn mode_of(target: &Path) -> Option<u32> {
    fs::metadata(target).ok().map(|about| about.mode() & MODE_BITS)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file of one replica: the path itself if it is the only one, otherwise with its number before the extension.
fn part(path: &Path, replica: usize, parallelism: usize) -> PathBuf {
    if parallelism == 1 {
        return path.to_owned();
    }
    let mut extension = OsString::new();
    let mut stem = path.to_owned();
    if Compression::of(path) != Compression::None {
        extension = dotted(path);
        stem.set_extension("");
    }
    let mut inner = dotted(&stem);
    inner.push(extension);
    stem.set_extension("");
    let mut name = stem.file_name().unwrap_or_default().to_owned();
    name.push(format!(".part-{replica:05}-of-{parallelism:05}"));
    name.push(inner);
    path.with_file_name(name)
}

/// The extension with its dot, or nothing.
fn dotted(path: &Path) -> OsString {
    let mut dotted = OsString::new();
    if let Some(extension) = path.extension() {
        dotted.push(".");
        dotted.push(extension);
    }
    dotted
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn parts_are_numbered_before_the_extensions() {
        let named = |path: &str| part(Path::new(path), 3, 12).to_str().unwrap().to_owned();
        assert_eq!(named("out/v1.2-a.jsonl.gz"), "out/v1.2-a.part-00003-of-00012.jsonl.gz");
        assert_eq!(named("a.csv"), "a.part-00003-of-00012.csv");
        assert_eq!(named("/x/plain"), "/x/plain.part-00003-of-00012");
        assert_eq!(part(Path::new("a.csv"), 0, 1), Path::new("a.csv"));
    }

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

    #[test]
    fn nobody_may_read_the_temporary_file_who_may_not_read_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & MODE_BITS;
        for expected in [0o600, 0o640, 0o444, 0o777] {
            let target = dir.path().join(format!("{expected:o}"));
            fs::write(&target, "old").unwrap();
            fs::set_permissions(&target, Permissions::from_mode(expected)).unwrap();
            for private in [false, true] {
                let (_, _, temporary) = beside(target.clone(), private).unwrap();
                assert_eq!(mode(&temporary), expected);
            }
        }
        let (_, _, private) = beside(dir.path().join("new"), true).unwrap();
        assert_eq!(mode(&private), 0o600);
        let (usual, (_, _, temporary)) = (dir.path().join("usual"), beside(dir.path().join("new"), false).unwrap());
        fs::write(&usual, "").unwrap();
        assert_eq!(mode(&temporary), mode(&usual));
    }
}
