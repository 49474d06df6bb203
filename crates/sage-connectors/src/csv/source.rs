//! [`CsvSource`].

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ErrorKind, Position, Reader, ReaderBuilder, StringRecord};
use sage::Source;
use serde::de::DeserializeOwned;

use super::kept::{Kept, TooMuch, quote_is_open};
use crate::bad_line::{BadLine, Lenient, strict_source};
use crate::encoding::Encoding;
use crate::error::InputError;
use crate::files::Files;
use crate::walk::{Format, OpenFile, Parsed, Walk};

/// Bytes that the parser reads at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Reads a `T` from each record of CSV; see [`Files`] for which files, in what order, and how large.
///
/// The first record of every file names the fields of a struct. With [`headers(false)`](Self::headers) there is no such
/// record: a `T` takes its fields in order, and a tuple will do. Commas, or another [`delimiter`](Self::delimiter),
/// separate fields. A field in double quotes may contain delimiters and line ends, and two double quotes for one.
/// Records end with `\n`, `\r\n` or `\r`; empty lines are skipped. An empty field is `None` for an `Option`.
///
/// A record is malformed if it is not a `T`, if it has more or fewer fields than the first record of its file, if a
/// field is not in the files' encoding, or if a quoted field is open at the end of the file. Such a record fails the
/// job; with [`lenient`](Self::lenient) it is a [`BadLine`]. The names in the first record must be text in both cases.
/// Errors name the line at which a record begins.
///
/// **Guarantees.** One replica gives every record of its files once, in order, in each run. It keeps no position: a run
/// begins with the first file again. Every failure to read on is an [`InputError`].
///
/// ```
/// # use std::fs;
/// use sage::Environment;
/// use sage_connectors::CsvSource;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("prices.tsv");
/// # fs::write(&path, "pear\t45\nplum\t\n")?;
///
/// let env = Environment::local("prices");
/// let prices = env
///     .from_source(move |_replica| {
///         CsvSource::<(String, Option<u32>)>::new(path.clone()).headers(false).delimiter(b'\t')
///     })
///     .collect();
/// env.run()?;
/// assert_eq!(prices.take(), [("pear".to_owned(), Some(45)), ("plum".to_owned(), None)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CsvSource<T: DeserializeOwned + Send + 'static>(Walk<CsvFormat<T>>);

impl<T: DeserializeOwned + Send + 'static> CsvSource<T> {
    /// Records of the files a pattern matches, or of one file; see [`Files`].
    pub fn new(files: impl Into<Files>) -> Self {
        Self(Walk::new(files.into(), CsvFormat { headers: true, delimiter: b',', types: PhantomData }))
    }

    /// Says whether the first record of each file names the fields. Default: true.
    pub fn headers(mut self, headers: bool) -> Self {
        self.0.format.headers = headers;
        self
    }

    /// Sets the byte between fields: any ASCII character except a double quote and a line end; with another, the source
    /// does not open. Default: `,`.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.0.format.delimiter = delimiter;
        self
    }

    /// Gives each record that is not a `T` as a [`BadLine`] among the others, instead of failing.
    pub fn lenient(self) -> impl Source<Item = Result<T, BadLine>> {
        Lenient(self.0)
    }
}

strict_source!(CsvSource<T: DeserializeOwned>, T);

struct CsvFormat<T> {
    headers: bool,
    delimiter: u8,
    types: PhantomData<fn() -> T>,
}

/// What is wrong with a delimiter, if anything.
pub(super) fn check_delimiter(delimiter: u8) -> Result<(), &'static str> {
    match delimiter {
        b'"' | b'\n' | b'\r' => Err("may not be a double quote or a line end"),
        0x80.. => Err("must be an ASCII character"),
        _ => Ok(()),
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for CsvFormat<T> {
    type Item = T;
    type Reader = Records;

    fn check(&self) -> Result<(), InputError> {
        check_delimiter(self.delimiter).map_err(|why| InputError::Option { option: "delimiter", why })
    }

    fn begin(&self, path: &Path, files: &Files) -> Result<Records, InputError> {
        let mut records = Records::new(OpenFile::open(path, files)?, self.delimiter);
        if self.headers
            && let Some(first) = records.next(|record, _| Ok(record.clone()))?
        {
            records.names = Some(first.map_err(|bad| InputError::Malformed(*bad))?);
        }
        Ok(records)
    }

    #[inline]
    fn next(&self, records: &mut Records) -> Result<Option<Parsed<T>>, InputError> {
        records.next(|record, names| record.deserialize(names))
    }
}

/// The records of one file.
struct Records {
    reader: Reader<Kept>,
    path: Arc<Path>,
    encoding: Encoding,
    max_record_bytes: usize,
    delimiter: u8,
    record: StringRecord,
    names: Option<StringRecord>,
}

impl Records {
    fn new(file: OpenFile, delimiter: u8) -> Self {
        let OpenFile { path, input, encoding, max_record_bytes } = file;
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .delimiter(delimiter)
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(Kept::new(input));
        Self { reader, path, encoding, max_record_bytes, delimiter, record: StringRecord::new(), names: None }
    }

    #[inline]
    fn next<R>(
        &mut self,
        parse: impl FnOnce(&StringRecord, Option<&StringRecord>) -> csv::Result<R>,
    ) -> Result<Option<Parsed<R>>, InputError> {
        let from = self.reader.position().clone();
        let room = (self.max_record_bytes as u64).saturating_add(2 * BUFFER_BYTES as u64);
        self.reader.get_mut().begin(from.byte(), room);
        let read = self.reader.read_record(&mut self.record);
        let to = self.reader.position().byte();
        if matches!(read, Ok(false)) {
            return Ok(None);
        }
        if to - from.byte() > self.max_record_bytes as u64 && self.text(&from, to).1.len() > self.max_record_bytes {
            return Err(self.too_long(&from, to));
        }
        let parsed = match read.and_then(|_| parse(&self.record, self.names.as_ref())).map_err(csv::Error::into_kind) {
            Err(ErrorKind::Io(source)) => return Err(self.unreadable(&from, to, source)),
            // Whatever else is wrong with it, this is why.
            _ if self.reader.get_ref().ends_at(to) && quote_is_open(self.text(&from, to).1, self.delimiter) => {
                Err("a quoted field is open at the end of the file".to_owned())
            }
            parsed => parsed.map_err(|kind| self.told(kind)),
        };
        Ok(Some(parsed.map_err(|message| {
            let (line, text) = self.text(&from, to);
            BadLine::new(&self.path, line, message, text)
        })))
    }

    /// The record's first line and its text. What lies before it, the end of the record before and empty lines, is
    /// read along with it.
    fn text(&self, from: &Position, to: u64) -> (u64, &[u8]) {
        let read = self.reader.get_ref().text(from.byte(), to);
        let before = read.iter().take_while(|&&byte| byte == b'\n' || byte == b'\r').count();
        let (before, text) = read.split_at(before);
        let line = from.line() + before.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let text = match text {
            [text @ .., b'\r', b'\n'] | [text @ .., b'\n' | b'\r'] => text,
            text => text,
        };
        (line, text)
    }

    #[cold]
    fn too_long(&self, from: &Position, to: u64) -> InputError {
        let (path, line) = (PathBuf::from(&*self.path), self.text(from, to).0);
        InputError::TooLong { path, line, limit_bytes: self.max_record_bytes }
    }

    #[cold]
    fn unreadable(&self, from: &Position, to: u64, source: io::Error) -> InputError {
        match TooMuch::is(&source) {
            true => self.too_long(from, to),
            false => InputError::reading(&self.path, self.reader.position().line(), source),
        }
    }

    /// What is wrong, without the place, which the [`BadLine`] has.
    #[cold]
    fn told(&self, kind: ErrorKind) -> String {
        match kind {
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} fields, where the first record of the file has {expected_len}")
            }
            ErrorKind::Utf8 { err, .. } => format!("field {} is not valid {}", err.field() + 1, self.encoding.name()),
            ErrorKind::Deserialize { err, .. } => match err.field() {
                Some(field) => format!("field {}{}: {}", field + 1, self.name(field), err.kind()),
                None => err.kind().to_string(),
            },
            // Kinds that reading does not give today; they are told as they are.
            other => format!("{other:?}"),
        }
    }

    fn name(&self, field: u64) -> String {
        let name = self.names.as_ref().and_then(|names| names.get(usize::try_from(field).ok()?));
        name.map(|name| format!(" (`{name}`)")).unwrap_or_default()
    }
}
