//! The lines of the text files that match a glob pattern, read lazily: one file is open at a time, one line in memory.
//!
//! Several replicas share the files by bytes: each has one piece of all that was there when the first of them looked,
//! and a line belongs to the piece in which it begins. The last piece of a file goes on to wherever the file ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::vec;

use glob::{MatchOptions, Pattern};

use super::{Next, Source, SourceContext};
use crate::BoxError;
use crate::chain::CloseContext;
use crate::error::WhileOpening;
use crate::sync::lock;

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
/// No piece of a file is smaller than this, in bytes.
const MIN_PIECE_BYTES: u64 = 1 << 20;
/// How much of a file a replica looks through at once for the number of its first line, in bytes.
const COUNT_AT_ONCE_BYTES: u64 = 16 << 20;
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

/// The files that a pattern matched, with their sizes in bytes; the same for all replicas of a run.
pub(crate) type Listing = Arc<Mutex<Option<Arc<Vec<(PathBuf, u64)>>>>>;

/// The lines of every file a pattern matches, the files in alphabetical order; or a replica's part of them.
#[derive(Debug)]
pub struct Lines {
    pattern: String,
    listing: Listing,
    pieces: vec::IntoIter<Piece>,
    open: Option<OpenFile>,
    /// The error after which nothing more is read: lines behind it would come as if nothing were missing.
    stuck: Option<ReadError>,
}

/// The lines of a file that begin at `start` bytes or later, and before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    path: PathBuf,
    start: u64,
    end: u64,
}

/// The part of `files` that is for one of several replicas.
fn pieces(files: &[(PathBuf, u64)], replica: usize, replicas: usize) -> Vec<Piece> {
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    let cut = |replica: usize| (u128::from(total) * replica as u128 / replicas as u128) as u64;
    let mut pieces = Vec::new();
    let mut begin = 0;
    for (path, size) in files {
        // Where the file is cut, if it is: not so near to one of its ends that the piece would be a small one.
        let place = |cut: u64| match cut.saturating_sub(begin).min(*size) {
            small if small < MIN_PIECE_BYTES => 0,
            large if size - large < MIN_PIECE_BYTES => *size,
            place => place,
        };
        let first = place(cut(replica));
        let last = if replica + 1 == replicas { *size } else { place(cut(replica + 1)) };
        // One without a size may be a pipe.
        let is_whole = *size == 0 && (0..replicas).rev().find(|&replica| cut(replica) <= begin) == Some(replica);
        if first < last || is_whole {
            let end = if last == *size { u64::MAX } else { last };
            pieces.push(Piece { path: path.clone(), start: first, end });
        }
        begin += size;
    }
    pieces
}

#[derive(Debug)]
struct OpenFile {
    path: Arc<Path>,
    reader: BufReader<File>,
    line: u64,
    /// How many bytes were read, and which lines are wanted.
    position: u64,
    start: u64,
    end: u64,
}

impl Lines {
    pub(crate) fn new(pattern: String, listing: Listing) -> Self {
        Self { pattern, listing, pieces: Vec::new().into_iter(), open: None, stuck: None }
    }

    /// The files, which whoever comes first lists for all.
    fn listed(&self) -> Result<Arc<Vec<(PathBuf, u64)>>, ReadError> {
        let mut listing = lock(&self.listing);
        if let Some(files) = &*listing {
            return Ok(files.clone());
        }
        // The size of a file that cannot be looked at does not matter: it cannot be opened either.
        let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        let files = self.list()?.into_iter().map(|path| (size(&path), path)).map(|(size, path)| (path, size));
        Ok(listing.insert(Arc::new(files.collect())).clone())
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
    fn open(piece: &Piece) -> Result<Self, ReadError> {
        let Piece { path, start, end } = piece;
        match File::open(path) {
            Ok(file) => {
                let reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
                Ok(Self { path: path.as_path().into(), reader, line: 0, position: 0, start: *start, end: *end })
            }
            Err(source) => Err(ReadError::File { path: path.clone(), source }),
        }
    }

    /// Passes over lines that belong to pieces before, and counts them; some at a time. Returns whether it is done.
    #[inline]
    fn pass_over(&mut self) -> Result<bool, ReadError> {
        if self.position >= self.start { Ok(true) } else { self.pass_over_some() }
    }

    #[cold]
    fn pass_over_some(&mut self) -> Result<bool, ReadError> {
        let file = |source| ReadError::File { path: self.path.to_path_buf(), source };
        let until = self.start.min(self.position + COUNT_AT_ONCE_BYTES);
        while self.position < until {
            let buffer = self.reader.fill_buf().map_err(file)?;
            let count = buffer.len().min(usize::try_from(self.start - self.position).unwrap_or(usize::MAX));
            if count == 0 {
                // The file has become shorter.
                self.position = self.start;
                return Ok(true);
            }
            self.line += line_ends(&buffer[..count]);
            if count as u64 == self.start - self.position && buffer[count - 1] != b'\n' {
                // The rest of this line belongs to the piece before.
                self.reader.consume(count);
                self.position += count as u64 + self.reader.skip_until(b'\n').map_err(file)? as u64;
                self.line += 1;
                return Ok(true);
            }
            self.reader.consume(count);
            self.position += count as u64;
        }
        Ok(self.position >= self.start)
    }

    fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        if self.position >= self.end {
            return Ok(None);
        }
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
            Ok(read) => self.position += read as u64,
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

/// How many lines end in some bytes.
fn line_ends(bytes: &[u8]) -> u64 {
    // So few at once that a byte counts them, which the compiler does for many at a time.
    let ends = |bytes: &[u8]| bytes.iter().map(|&byte| u8::from(byte == b'\n')).sum::<u8>();
    bytes.chunks(usize::from(u8::MAX)).map(|bytes| u64::from(ends(bytes))).sum()
}

impl Source for Lines {
    type Item = Line;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        self.pieces = pieces(&self.listed()?, cx.replica, cx.parallelism).into_iter();
        Ok(())
    }

    #[inline]
    fn next(&mut self, _cx: &SourceContext) -> Result<Next<Line>, BoxError> {
        loop {
            if let Some(open) = &mut self.open {
                let line = match open.pass_over() {
                    Ok(true) => open.next_line(),
                    // For what the job has to say meanwhile.
                    Ok(false) => return Ok(Next::Idle),
                    Err(error) => Err(error),
                };
                match line {
                    Ok(Some(line)) => return Ok(Next::Record(line)),
                    Ok(None) => {}
                    Err(error) => self.stuck = Some(error),
                }
                self.open = None;
            }
            if let Some(stuck) = &self.stuck {
                return Err(stuck.again().into());
            }
            let Some(piece) = self.pieces.as_slice().first() else { return Ok(Next::End) };
            self.open = Some(OpenFile::open(piece).map_err(WhileOpening::new)?);
            self.pieces.next();
        }
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.open = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(piece: &Piece) -> Vec<(u64, String)> {
        let mut open = OpenFile::open(piece).expect("the file is there");
        while !open.pass_over().expect("a file that can be read") {}
        let lines = std::iter::from_fn(|| open.next_line().expect("lines of text"));
        lines.map(|line| (line.number, line.text)).collect()
    }

    #[test]
    fn wherever_a_file_is_cut_each_line_is_read_once_under_its_number() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for text in ["", "\n", "ab\nc\n\ndéfg\r\nh", "\n\nno end", "one line", "x\n"] {
            let path = dir.path().join("text");
            fs::write(&path, text).expect("a file");
            let piece = |start, end| Piece { path: path.clone(), start, end };
            let whole = read(&piece(0, u64::MAX));
            let size = text.len() as u64;
            for first in 0..=size {
                for second in first..=size {
                    let cut = [piece(0, first), piece(first, second), piece(second, u64::MAX)];
                    let lines: Vec<_> = cut.iter().flat_map(read).collect();
                    assert_eq!(lines, whole, "{text:?} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn the_pieces_of_all_replicas_are_the_files() {
        const MIB: u64 = MIN_PIECE_BYTES;
        for sizes in
            [vec![], vec![0], vec![5], vec![0, 10 * MIB, 0, 3, 0], vec![3 * MIB / 2; 4], vec![MIB, 90 * MIB, 1]]
        {
            let files: Vec<_> =
                sizes.iter().enumerate().map(|(n, &size)| (PathBuf::from(n.to_string()), size)).collect();
            for replicas in 1..=9 {
                let all: Vec<_> = (0..replicas).flat_map(|replica| pieces(&files, replica, replicas)).collect();
                for (path, size) in &files {
                    let mut ends = 0;
                    let of_file: Vec<_> = all.iter().filter(|piece| piece.path == *path).collect();
                    for piece in &of_file {
                        assert_eq!(piece.start, ends, "{sizes:?} for {replicas}");
                        assert!(piece.end == u64::MAX || piece.end - piece.start >= MIB);
                        ends = piece.end;
                    }
                    assert_eq!(ends, u64::MAX, "{sizes:?} for {replicas}");
                    assert!(of_file.last().is_some_and(|last| last.start == 0 || size - last.start >= MIB));
                }
            }
        }
        let even = pieces(&[(PathBuf::from("a"), 100 * MIB)], 1, 4);
        assert_eq!(even, [Piece { path: PathBuf::from("a"), start: 25 * MIB, end: 50 * MIB }]);
    }

    #[test]
    fn line_ends_are_counted_also_in_long_texts() {
        for length in [0, 1, 254, 255, 256, 600] {
            assert_eq!(line_ends(&vec![b'\n'; length]), length as u64);
            assert_eq!(line_ends(&vec![b'x'; length]), 0);
        }
    }
}
