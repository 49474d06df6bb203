//! Lines of text: [`TextSource`] and [`TextSink`].

use std::fmt::Display;
use std::io::Write;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str;

use sage::{BoxError, CloseContext, FinishContext, Line, OpenContext, Sink, Source};

use crate::bad_line::{BadLine, Lenient, strict_source};
use crate::error::{InputError, OutputError};
use crate::files::Files;
use crate::lines::Lines;
use crate::output::Output;
use crate::walk::{Format, OpenFile, Parsed, Walk};

/// Reads files line by line, as [`sage::Line`]; see [`Files`] for which files, in what order, and how large.
///
/// A line ends with `\n` or `\r\n`, and with nothing else. A line that is not in the files'
/// [`encoding`](Files::encoding) fails the job; with [`lenient`](Self::lenient) it is a [`BadLine`].
///
/// **Guarantees.** One replica gives every line of its files once, in order, in each run. It keeps no position: a run
/// begins with the first file again. Every failure to read on is an [`InputError`].
///
/// ```
/// use sage::Environment;
/// use sage_connectors::TextSource;
///
/// let env = Environment::local("manifest");
/// let names = env
///     .from_source(|_replica| TextSource::new("Cargo.*"))
///     .filter(|line| line.text.starts_with("name"))
///     .collect();
/// env.run()?;
/// assert_eq!(names.take()[0].text, r#"name = "sage-connectors""#);
/// # Ok::<(), sage::RunError>(())
/// ```
#[derive(Debug)]
pub struct TextSource(Walk<TextFormat>);

impl TextSource {
    /// Reads the files that match a pattern, or one file; see [`Files`].
    pub fn new(files: impl Into<Files>) -> Self {
        Self(Walk::new(files.into(), TextFormat))
    }

    /// Gives each line that is not in the files' encoding as a [`BadLine`] among the others, instead of failing.
    pub fn lenient(self) -> impl Source<Item = Result<Line, BadLine>> {
        Lenient(self.0)
    }
}

strict_source!(TextSource, Line);

#[derive(Debug)]
struct TextFormat;

impl Format for TextFormat {
    type Item = Line;
    type Reader = Lines;

    fn begin(&self, path: &Path, files: &Files) -> Result<Lines, InputError> {
        Ok(Lines::new(OpenFile::open(path, files)?))
    }

    #[inline]
    fn next(&self, lines: &mut Lines) -> Result<Option<Parsed<Line>>, InputError> {
        let Some(line) = lines.next()? else { return Ok(None) };
        let text = str::from_utf8(line).map(str::to_owned);
        Ok(Some(match text {
            Ok(text) => Ok(Line { path: lines.path.clone(), number: lines.number, text }),
            Err(error) => Err(lines.not_text(error)),
        }))
    }
}

/// Writes each record, by its `Display`, as a line of a file that appears when it is complete.
///
/// [The crate's page](crate#files-that-appear-when-they-are-complete) says for all file sinks when the file appears,
/// under which name, and what is there after a failure. A record whose text contains line ends becomes several lines.
///
/// ```
/// use sage::Environment;
/// use sage_connectors::TextSink;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("squares.txt");
/// # let into = path.clone();
///
/// let env = Environment::local("squares");
/// env.from_iter(1..=3).map(|n| n * n).sink_to(move |_replica| TextSink::new(into.clone()));
/// env.run()?;
/// assert_eq!(std::fs::read_to_string(path)?, "1\n4\n9\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TextSink<T> {
    path: PathBuf,
    private: bool,
    output: Option<Output>,
    types: PhantomData<fn(T)>,
}

impl<T> TextSink<T> {
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

impl<T: Display + Send + 'static> Sink for TextSink<T> {
    type In = T;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        self.output = Some(Output::open(&self.path, self.private, cx)?);
        Ok(())
    }

    #[inline]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        let output = self.output.as_mut().ok_or(OutputError::NotOpen)?;
        writeln!(output, "{record}").map_err(|source| output.failed(source).into())
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
