//! [`CsvSink`].

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;

use csv::{ErrorKind, Writer, WriterBuilder};
use sage::{BoxError, CloseContext, FinishContext, OpenContext, Sink};
use serde::Serialize;

use super::source::check_delimiter;
use crate::error::OutputError;
use crate::output::Output;

/// Writes each record as a record of CSV to a file that appears when it is complete.
///
/// [The crate's page](crate#files-that-appear-when-they-are-complete) says for all file sinks when the file appears,
/// under which name, and what is there after a failure.
///
/// A struct's field names become the first record of the file, or of each part. A file without records is empty,
/// because their fields are not known. Fields are quoted where they need it, and lines end with `\n`. All records must
/// have the same number of fields, and no field may be a map or a struct; any other record fails the job with
/// [`OutputError::Record`].
///
/// ```
/// use sage::Environment;
/// use sage_connectors::CsvSink;
/// use serde::Serialize;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("sizes.csv");
/// # let into = path.clone();
///
/// #[derive(Serialize)]
/// struct Size {
///     name: &'static str,
///     size_bytes: u64,
/// }
///
/// let env = Environment::local("sizes");
/// env.from_iter([Size { name: "a, b", size_bytes: 7 }]).sink_to(move |_replica| CsvSink::new(into.clone()));
/// env.run()?;
/// assert_eq!(std::fs::read_to_string(path)?, "name,size_bytes\n\"a, b\",7\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CsvSink<T> {
    path: PathBuf,
    headers: bool,
    delimiter: u8,
    private: bool,
    writer: Option<Writer<Output>>,
    broken: bool,
    types: PhantomData<fn(T)>,
}

impl<T> CsvSink<T> {
    /// Writes the file at `path`; compressed if that ends in `.gz`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (headers, delimiter, types) = (true, b',', PhantomData);
        Self { path: path.into(), headers, delimiter, private: false, writer: None, broken: false, types }
    }

    /// Says whether the names of a struct's fields become the first record. Tuples have none. Default: true.
    pub fn headers(mut self, headers: bool) -> Self {
        self.headers = headers;
        self
    }

    /// Lets only its owner read and write a new file (mode 0600): for dead letters and other private data. A file that
    /// is replaced keeps its mode. Default: as the process's mask says.
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Sets the byte between fields: any ASCII character except a double quote and a line end; with another, the sink
    /// does not open. Default: `,`.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }
}

impl<T> fmt::Debug for CsvSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvSink").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T> CsvSink<T> {
    #[cold]
    fn failed(&mut self, error: csv::Error) -> OutputError {
        self.broken = true;
        let path = match &self.writer {
            Some(writer) => writer.get_ref().target().to_owned(),
            None => self.path.clone(),
        };
        match error.into_kind() {
            ErrorKind::Io(source) => OutputError::Write { path, source },
            ErrorKind::Serialize(message) => OutputError::Record { path, source: message.into() },
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                let message = format!("it has {len} fields, and the first record {expected_len}");
                OutputError::Record { path, source: message.into() }
            }
            other => OutputError::Record { path, source: format!("{other:?}").into() },
        }
    }
}

impl<T: Serialize + Send + 'static> Sink for CsvSink<T> {
    type In = T;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        check_delimiter(self.delimiter).map_err(|why| OutputError::Option { option: "delimiter", why })?;
        let output = Output::open(&self.path, self.private, cx)?;
        let writer = WriterBuilder::new().has_headers(self.headers).delimiter(self.delimiter).from_writer(output);
        self.writer = Some(writer);
        Ok(())
    }

    #[inline]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        let writer = self.writer.as_mut().ok_or(OutputError::NotOpen)?;
        writer.serialize(record).map_err(|error| self.failed(error).into())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.flush().map_err(|source| self.failed(source.into()).into())
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let path = writer.get_ref().target().to_owned();
        // A writer that cannot write out what it still has takes the temporary file with it.
        match writer.into_inner() {
            Ok(output) if !self.broken => Ok(output.publish()?),
            Err(error) if !self.broken => {
                let source = io::Error::new(error.error().kind(), error.error().to_string());
                Err(OutputError::Write { path, source }.into())
            }
            _ => Err(OutputError::Incomplete { path }.into()),
        }
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        // A writer that cannot write out what it still has takes the temporary file with it.
        match self.writer.take().map(Writer::into_inner) {
            Some(Ok(output)) => Ok(output.close(cx)?),
            Some(Err(_)) | None => Ok(()),
        }
    }
}
