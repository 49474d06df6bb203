//! JSON lines, one value a line: [`JsonlSource`] and [`JsonlSink`].

use std::fmt;
use std::io::Write;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str;

use sage::{BoxError, CloseContext, FinishContext, OpenContext, Sink, Source};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bad_line::{BadLine, Lenient, strict_source};
use crate::error::{InputError, OutputError};
use crate::files::Files;
use crate::lines::Lines;
use crate::output::Output;
use crate::walk::{Format, OpenFile, Parsed, Walk};

/// Reads a `T` from each line of JSON; see [`Files`] for which files, in what order, and how large.
///
/// Lines of white space are skipped, and counted. A line that is not in the files' encoding, not JSON or not a `T`
/// fails the job; with [`lenient`](Self::lenient) it is a [`BadLine`]. JSON may be nested 128 deep.
///
/// **Guarantees.** One replica gives every record of its files once, in order, in each run. It keeps no position: a run
/// begins with the first file again. Every failure to read on is an [`InputError`].
///
/// ```
/// # use std::fs;
/// use sage::Environment;
/// use sage_connectors::JsonlSource;
/// use serde::Deserialize;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("orders.jsonl");
/// # fs::write(&path, "{\"fruit\": \"pear\", \"count\": 2}\n{\"fruit\": \"plum\", \"count\": 3}\n")?;
///
/// #[derive(Deserialize)]
/// struct Order {
///     fruit: String,
///     count: u32,
/// }
///
/// let env = Environment::local("orders");
/// let orders = env
///     .from_source(move |_replica| JsonlSource::<Order>::new(path.clone()))
///     .map(|order| format!("{} {}", order.count, order.fruit))
///     .collect();
/// env.run()?;
/// assert_eq!(orders.take(), ["2 pear", "3 plum"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JsonlSource<T: DeserializeOwned + Send + 'static>(Walk<JsonlFormat<T>>);

impl<T: DeserializeOwned + Send + 'static> JsonlSource<T> {
    /// Records of the files a pattern matches, or of one file; see [`Files`].
    pub fn new(files: impl Into<Files>) -> Self {
        Self(Walk::new(files.into(), JsonlFormat(PhantomData)))
    }

    /// Gives each line that is not a `T` as a [`BadLine`] among the records, instead of failing.
    pub fn lenient(self) -> impl Source<Item = Result<T, BadLine>> {
        Lenient(self.0)
    }
}

strict_source!(JsonlSource<T: DeserializeOwned>, T);

struct JsonlFormat<T>(PhantomData<fn() -> T>);

impl<T: DeserializeOwned + Send + 'static> Format for JsonlFormat<T> {
    type Item = T;
    type Reader = Lines;

    fn begin(&self, path: &Path, files: &Files) -> Result<Lines, InputError> {
        Ok(Lines::new(OpenFile::open(path, files)?))
    }

    #[inline]
    fn next(&self, lines: &mut Lines) -> Result<Option<Parsed<T>>, InputError> {
        loop {
            let Some(line) = lines.next()? else { return Ok(None) };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let parsed = match str::from_utf8(line) {
                Ok(text) => serde_json::from_str(text).map_err(|error| lines.bad(without_line(&error))),
                Err(error) => Err(lines.not_text(error)),
            };
            return Ok(Some(parsed));
        }
    }
}

/// The parser's message. It numbers lines within the text it was given, which is one line.
#[cold]
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(what) => format!("{what} at column {}", error.column()),
        None => message,
    }
}

/// Writes each record as a line of JSON to a file that appears when it is complete.
///
/// [The crate's page](crate#files-that-appear-when-they-are-complete) says for all file sinks when the file appears,
/// under which name, and what is there after a failure. A record that cannot be JSON, such as a map whose keys are not
/// strings, fails the job with [`OutputError::Record`].
///
/// ```
/// use sage::Environment;
/// use sage_connectors::JsonlSink;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("pairs.jsonl");
/// # let into = path.clone();
///
/// let env = Environment::local("pairs");
/// env.from_iter([("a", 1), ("b", 2)]).sink_to(move |_replica| JsonlSink::new(into.clone()));
/// env.run()?;
/// assert_eq!(std::fs::read_to_string(path)?, "[\"a\",1]\n[\"b\",2]\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JsonlSink<T> {
    path: PathBuf,
    private: bool,
    output: Option<Output>,
    types: PhantomData<fn(T)>,
}

impl<T> JsonlSink<T> {
    /// Writes the file at `path`; compressed if that ends in `.gz`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), private: false, output: None, types: PhantomData }
    }

    /// Lets only its owner read and write a new file (mode 0600): for dead letters and other private data. A file that
    /// is replaced keeps its mode. Default: as the process's mask says.
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }
}

impl<T> fmt::Debug for JsonlSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonlSink").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T: Serialize + Send + 'static> Sink for JsonlSink<T> {
    type In = T;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        self.output = Some(Output::open(&self.path, self.private, cx)?);
        Ok(())
    }

    #[inline]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        let output = self.output.as_mut().ok_or(OutputError::NotOpen)?;
        if let Err(error) = serde_json::to_writer(&mut *output, &record) {
            return Err(match error.io_error_kind() {
                Some(_) => output.failed(error.into()).into(),
                None => output.unfit(error).into(),
            });
        }
        output.write_all(b"\n").map_err(|source| output.failed(source).into())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        let Some(output) = &mut self.output else { return Ok(()) };
        output.flush().map_err(|source| output.failed(source).into())
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        self.output.take().map_or(Ok(()), |output| Ok(output.publish()?))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.output.take().map_or(Ok(()), |output| Ok(output.close(cx)?))
    }
}
