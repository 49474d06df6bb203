//! Which files a source reads.
//!
//! Knows nothing of formats, and opens no file: `walk.rs` does.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::encoding::Encoding;
use crate::error::InputError;

/// The files a source reads: one file, or those that match a glob pattern.
///
/// A `&str` or `String` becomes a pattern. A path becomes one file, whatever characters are in it. The source lists the
/// files when the job starts, sorts them by path and opens one after the other. With several replicas, replica `r` of
/// `n` reads the files number `r`, `r + n`, `r + 2n` … of the list; each replica makes its own list, so files should
/// not come and go while a job starts. Directories are left out, and so are names that begin with a dot unless the
/// pattern has the dot too. In a match, U+FFFD stands for bytes of a name that are not UTF-8. `**` stands for any
/// number of folders. It follows links to folders, but never round in a circle.
///
/// The extension, in upper or lower case, says how a file is unpacked: `.gz` (also with several members) and `.zst`
/// (also with several frames, with a window of up to 128 MiB). Its text is then read as UTF-8, or in another
/// [`encoding`](Self::encoding), without a byte order mark at its beginning.
///
/// # Lines
///
/// A line of text or JSON ends with `\n` or `\r\n`. Nothing else ends a line: neither a `\r` alone, as in files of old
/// Macs, nor U+0085, U+2028 or any other line end of Unicode. Records of CSV end with a `\r` alone as well.
///
/// # Malformed lines
///
/// A malformed line or CSV record fails the job, and the error names the file and the line. A `lenient` source instead
/// gives it as a [`BadLine`](crate::BadLine) among the records, which you can skip and count or send elsewhere.
///
/// # Files that change
///
/// A source reads a file as long as it is when it is opened. What is appended later belongs to the next run. A file
/// that has become shorter fails the job, and so does one that has vanished since it was listed. A file whose length
/// the system gives as 0, such as a pipe, a device or a file of `/proc`, is read to its end. A pipe that gives nothing
/// holds up a drain and a cancel: the engine cannot end a read, and abandons the task at the deadline.
///
/// ```
/// use sage_connectors::{Files, TextSource};
///
/// let source = TextSource::new(Files::new("logs/**/*.log.gz").max_record_bytes(1 << 20));
/// # let _ = source;
/// ```
#[derive(Debug, Clone)]
pub struct Files {
    which: Which,
    pub(crate) max_record_bytes: usize,
    pub(crate) encoding: Encoding,
}

#[derive(Debug, Clone)]
enum Which {
    Pattern(String),
    Path(PathBuf),
}

impl Files {
    /// The longest line or record that is read, in bytes, unless it is changed: 64 MiB.
    pub const DEFAULT_MAX_RECORD_BYTES: usize = 64 << 20;

    /// The files that match a glob pattern, such as `data/**/*.jsonl.gz`.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self::of(Which::Pattern(pattern.into()))
    }

    /// The file at `path`, which must exist when the job opens it.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::of(Which::Path(path.into()))
    }

    /// Sets how long a line, or a CSV record, may be, in bytes of its unpacked text without the line end; a longer one
    /// fails the job. Default: 64 MiB.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// Sets the encoding of the files. Default: UTF-8; a line with anything else in it is malformed.
    ///
    /// ```
    /// # use std::fs;
    /// use sage::Environment;
    /// use sage_connectors::{Encoding, Files, TextSource};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("menu.txt");
    /// # fs::write(&path, b"caf\xE9\r\n")?;
    ///
    /// let env = Environment::local("menu");
    /// let files = Files::path(path).encoding(Encoding::Latin1);
    /// let lines = env.from_source(move |_replica| TextSource::new(files.clone())).collect();
    /// env.run()?;
    /// assert_eq!(lines.take()[0].text, "café");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    fn of(which: Which) -> Self {
        Self { which, max_record_bytes: Self::DEFAULT_MAX_RECORD_BYTES, encoding: Encoding::Utf8 }
    }

    /// The files there are now, sorted by path.
    pub(crate) fn list(&self) -> Result<Vec<PathBuf>, InputError> {
        let pattern = match &self.which {
            Which::Path(path) => return Ok(vec![path.clone()]),
            Which::Pattern(pattern) => pattern,
        };
        Pattern::new(pattern).map_err(|source| InputError::Pattern { pattern: pattern.clone(), source })?;
        let root = if pattern.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() };
        let mut parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        parts.dedup_by(|part, before| *part == ANY_FOLDERS && *before == ANY_FOLDERS);
        let mut files = Vec::new();
        find(&root, &parts, &mut Vec::new(), &mut files)?;
        if files.is_empty() {
            return Err(InputError::NoMatch { pattern: pattern.clone() });
        }
        files.sort();
        Ok(files)
    }
}

/// The part of a pattern that stands for any number of folders, also none.
const ANY_FOLDERS: &str = "**";

/// Finds the files below `at` that match the parts of a pattern. A name that is not UTF-8 is matched as it is shown,
/// with U+FFFD in it. `linked` are the folders that links on the way have led to; none is searched within itself.
fn find(at: &Path, parts: &[&str], linked: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<(), InputError> {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let Some((&part, rest)) = parts.split_first() else {
        if !at.is_dir() {
            files.push(at.to_owned());
        }
        return Ok(());
    };
    if !part.contains(['*', '?', '[']) {
        let next = at.join(part);
        return if fs::symlink_metadata(&next).is_ok() { find(&next, rest, linked, files) } else { Ok(()) };
    }
    let any_folders = part == ANY_FOLDERS;
    if any_folders {
        find(at, rest, linked, files)?;
    }
    let one = if any_folders { "*" } else { part };
    let Ok(pattern) = Pattern::new(one) else { return Ok(()) };
    for name in names_in(at)? {
        if !pattern.matches_with(&name.to_string_lossy(), options) {
            continue;
        }
        let next = at.join(name);
        if !any_folders {
            find(&next, rest, linked, files)?;
        } else if next.is_symlink() {
            let (Ok(real), Ok(here)) = (next.canonicalize(), at.join(".").canonicalize()) else { continue };
            if real.is_dir() && !here.starts_with(&real) && !linked.contains(&real) {
                linked.push(real);
                find(&next, parts, linked, files)?;
                linked.pop();
            }
        } else if next.is_dir() {
            find(&next, parts, linked, files)?;
        }
    }
    Ok(())
}

/// The names in a folder; none where there is no folder.
fn names_in(folder: &Path) -> Result<Vec<OsString>, InputError> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(here).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    entries.or_else(|source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Vec::new()),
        _ => Err(InputError::Open { path: folder.to_owned(), source }),
    })
}

impl From<&str> for Files {
    fn from(pattern: &str) -> Self {
        Self::new(pattern)
    }
}

impl From<String> for Files {
    fn from(pattern: String) -> Self {
        Self::new(pattern)
    }
}

impl From<&Path> for Files {
    fn from(path: &Path) -> Self {
        Self::path(path)
    }
}

impl From<PathBuf> for Files {
    fn from(path: PathBuf) -> Self {
        Self::path(path)
    }
}
