//! One output file that appears under its name when it is complete, or not at all.
//!
//! An [`Output`] owns a temporary file beside its target. [`Output::publish`], for a sink's `finish`, makes it the target;
//! [`Output::discard`], for a sink's `close`, removes it.
//!
//! Invariants: the target is touched by nothing but one rename; the rename comes after everything was written and
//! synced without an error; whenever an `Output` is dropped, also by a panic, the temporary file is gone.
//!
//! Knows nothing of formats.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use sage::{BoxError, OpenContext};
use tempfile::TempPath;

use crate::open::Compression;

const BUFFER_BYTES: usize = 128 << 10;
/// What a new file may be, before the process's mask.
const NEW_FILE_MODE: u32 = 0o666;

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
    /// Records were let pass that the file cannot do without: what was written before the failure may be half a record. The
    /// file does not appear, whatever the sink's error policy.
    #[error("{} is not made, for something could not be written to it", path.display())]
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
    /// Opens the file for one replica.
    pub(crate) fn open(path: &Path, cx: &OpenContext) -> Result<Self, OutputError> {
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
            let (target, file, temporary) = beside(target)?;
            (target, file, Some(temporary))
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, Packer::new(file, compression));
        Ok(Self { target, writer, temporary, broken: false })
    }

    /// The file this will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// What became of a write that failed.
    #[cold]
    pub(crate) fn failed(&self, source: io::Error) -> OutputError {
        OutputError::Write { path: self.target.clone(), source }
    }

    /// What becomes of a record that the format cannot hold. The file will not appear.
    #[cold]
    pub(crate) fn unfit(&mut self, source: impl Into<BoxError>) -> OutputError {
        self.broken = true;
        OutputError::Record { path: self.target.clone(), source: source.into() }
    }

    /// Makes the file the target. Where something could not be written, and an error policy let that pass, there is no file.
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
        if let Ok(replaced) = fs::metadata(&target) {
            file.set_permissions(replaced.permissions()).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        temporary
            .persist(&target)
            .map_err(|error| OutputError::Rename { path: target.clone(), source: error.error })?;
        // The file has its name. Where a folder cannot be synced, as on some network file systems, there is no more
        // to be had than that.
        let _ = File::open(folder(&target)).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// Removes the file.
    pub(crate) fn discard(self) -> Result<(), OutputError> {
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

    /// Gives what is buffered to the system, so that a disk that is full is found out before the file is closed. What
    /// gzip still holds back stays where it is, for packing little at a time packs badly.
    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().inspect_err(|_| self.broken = true)
    }
}

/// Packs what is written, or does not.
#[derive(Debug)]
enum Packer {
    Plain(File),
    Gzip(Box<GzEncoder<File>>),
}

impl Packer {
    fn new(file: File, compression: Compression) -> Self {
        match compression {
            Compression::Gzip => Self::Gzip(Box::new(GzEncoder::new(file, flate2::Compression::default()))),
            Compression::None | Compression::Zstd => Self::Plain(file),
        }
    }

    fn finish(self) -> io::Result<File> {
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

/// Makes a temporary file beside the target, which is where a link leads if it is one.
fn beside(target: PathBuf) -> Result<(PathBuf, File, TempPath), OutputError> {
    let target = if target.is_symlink() { fs::canonicalize(&target).unwrap_or(target) } else { target };
    if target.is_dir() {
        return Err(OutputError::Folder { path: target });
    }
    let made = tempfile::Builder::new()
        .prefix(".sage-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(NEW_FILE_MODE))
        .tempfile_in(folder(&target));
    match made {
        Ok(made) => {
            let (file, temporary) = made.into_parts();
            Ok((target, file, temporary))
        }
        Err(source) => Err(OutputError::Create { path: target, source }),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file of one replica: the path itself for one, and otherwise with its number before the extension.
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
    use super::*;

    #[test]
    fn parts_are_numbered_before_the_extensions() {
        let named = |path: &str| part(Path::new(path), 3, 12).to_str().unwrap().to_owned();
        assert_eq!(named("out/v1.2-a.jsonl.gz"), "out/v1.2-a.part-00003-of-00012.jsonl.gz");
        assert_eq!(named("a.csv"), "a.part-00003-of-00012.csv");
        assert_eq!(named("/x/plain"), "/x/plain.part-00003-of-00012");
        assert_eq!(part(Path::new("a.csv"), 0, 1), Path::new("a.csv"));
    }

    /// An output whose temporary file is real and whose bytes go to a device that is always full.
    fn on_a_full_disk(target: &Path, compression: Compression) -> Output {
        let (target, _, temporary) = beside(target.to_owned()).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let writer = BufWriter::with_capacity(BUFFER_BYTES, Packer::new(full, compression));
        Output { target, writer, temporary: Some(temporary), broken: false }
    }

    #[test]
    fn a_full_disk_at_the_end_leaves_the_old_file_and_no_other() {
        for compression in [Compression::None, Compression::Gzip] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("a.txt");
            fs::write(&target, "old").unwrap();
            let mut output = on_a_full_disk(&target, compression);
            output.write_all(b"new").unwrap();
            let error = output.publish().unwrap_err();
            assert!(matches!(&error, OutputError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull));
            assert_eq!(fs::read_to_string(&target).unwrap(), "old");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
