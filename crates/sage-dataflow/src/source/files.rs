//! The lines of the text files that match a glob pattern, read lazily: one file is open at a time, one line in memory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use glob::{MatchOptions, Pattern};

use super::{Next, Source, SourceContext};
use crate::BoxError;
use crate::chain::CloseContext;
use crate::error::WhileOpening;

/// One line of a text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file it comes from.
    pub path: Arc<Path>,
    /// Its number in the file, from 1.
    pub number: u64,
    /// Its text, without the line end.
    pub text: String,
}

/// The longest line that is read, in bytes: a file without line ends must not fill the memory.
const MAX_LINE_BYTES: u64 = 64 << 20;
const READ_BUFFER_BYTES: usize = 128 << 10;
/// Some programs begin a text with it; it is not part of the text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Why the lines of a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The pattern is not a glob pattern.
    #[error("`{pattern}` is not a glob pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// No file matches the pattern.
    #[error("no file matches `{pattern}`; check the path, or quote the pattern so that the shell leaves it alone")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A file could not be listed, opened or read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is not UTF-8.
    #[error("{}:{line}: the line is not valid UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// A line is longer than 64 MiB.
    #[error("{}:{line}: the line is longer than {} MiB", path.display(), MAX_LINE_BYTES >> 20)]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

impl ReadError {
    /// The same error once more, for another call of `next`.
    fn again(&self) -> Self {
        match self {
            Self::Pattern { pattern, .. } | Self::NoMatch { pattern } => Self::NoMatch { pattern: pattern.clone() },
            Self::File { path, source } => {
                Self::File { path: path.clone(), source: io::Error::new(source.kind(), source.to_string()) }
            }
            Self::NotUtf8 { path, line } => Self::NotUtf8 { path: path.clone(), line: *line },
            Self::TooLong { path, line } => Self::TooLong { path: path.clone(), line: *line },
        }
    }
}

/// The lines of every file a pattern matches, the files in alphabetical order.
#[derive(Debug)]
pub struct Lines {
    pattern: String,
    files: vec::IntoIter<PathBuf>,
    open: Option<OpenFile>,
    /// The error after which nothing more is read: lines behind it would come as if nothing were missing.
    stuck: Option<ReadError>,
}

#[derive(Debug)]
struct OpenFile {
    path: Arc<Path>,
    reader: BufReader<File>,
    line: u64,
}

impl Lines {
    pub(crate) fn new(pattern: String) -> Self {
        Self { pattern, files: Vec::new().into_iter(), open: None, stuck: None }
    }

    fn list(&self) -> Result<Vec<PathBuf>, ReadError> {
        let matches =
            glob::glob(&self.pattern).map_err(|source| ReadError::Pattern { pattern: self.pattern.clone(), source })?;
        let mut files = Vec::new();
        for entry in matches {
            let path = entry.map_err(|error| {
                let path = error.path().to_owned();
                ReadError::File { path, source: error.into() }
            })?;
            if !path.is_dir() {
                files.push(path);
            }
        }
        let odd = with_odd_names(&self.pattern, MatchOptions::new());
        if !odd.is_empty() {
            files.extend(odd);
            files.sort();
        }
        if files.is_empty() {
            return Err(ReadError::NoMatch { pattern: self.pattern.clone() });
        }
        Ok(files)
    }
}

/// The files of a pattern whose names are not UTF-8, which `glob` passes over: the replacement for what is none stands
/// for it in a match.
fn with_odd_names(pattern: &str, options: MatchOptions) -> Vec<PathBuf> {
    let (folder, name) = match pattern.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(both) => both,
        None => ("", pattern),
    };
    let Ok(name) = Pattern::new(name) else { return Vec::new() };
    let folders = match folder {
        "" => vec![PathBuf::new()],
        folder => glob::glob_with(folder, options).map(|found| found.flatten().collect()).unwrap_or_default(),
    };
    let is_odd = |file: &OsString| file.to_str().is_none() && name.matches_with(&file.to_string_lossy(), options);
    let files = folders.into_iter().flat_map(|folder| {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let names: Vec<_> = fs::read_dir(here).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        names.into_iter().filter(is_odd).map(move |name| folder.join(name))
    });
    files.filter(|path| !path.is_dir()).collect()
}

impl OpenFile {
    fn open(path: PathBuf) -> Result<Self, ReadError> {
        match File::open(&path) {
            Ok(file) => {
                let reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
                Ok(Self { path: path.into(), reader, line: 0 })
            }
            Err(source) => Err(ReadError::File { path, source }),
        }
    }

    fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        let path = || self.path.to_path_buf();
        let line = self.line + 1;
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes);
        match read {
            Err(source) => return Err(ReadError::File { path: path(), source }),
            Ok(0) => return Ok(None),
            Ok(read) if read as u64 == MAX_LINE_BYTES && bytes.last() != Some(&b'\n') => {
                return Err(ReadError::TooLong { path: path(), line });
            }
            Ok(_) => {}
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        let text = String::from_utf8(bytes).map_err(|_| ReadError::NotUtf8 { path: path(), line })?;
        self.line = line;
        Ok(Some(Line { path: self.path.clone(), number: line, text }))
    }
}

impl Source for Lines {
    type Item = Line;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        self.files = self.list()?.into_iter();
        Ok(())
    }

    #[inline]
    fn next(&mut self, _cx: &SourceContext) -> Result<Next<Line>, BoxError> {
        loop {
            if let Some(open) = &mut self.open {
                match open.next_line() {
                    Ok(Some(line)) => return Ok(Next::Record(line)),
                    Ok(None) => {}
                    Err(error) => self.stuck = Some(error),
                }
                self.open = None;
            }
            if let Some(stuck) = &self.stuck {
                return Err(stuck.again().into());
            }
            let Some(path) = self.files.as_slice().first() else { return Ok(Next::End) };
            self.open = Some(OpenFile::open(path.clone()).map_err(WhileOpening::new)?);
            self.files.next();
        }
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.open = None;
        Ok(())
    }
}
