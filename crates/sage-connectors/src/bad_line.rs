//! Malformed input as data: [`BadLine`], and the sources that give it among the records.

use std::path::Path;

use sage::{BoxError, CloseContext, Next, Source, SourceContext};
use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::walk::{Format, Walk};

/// A line or a CSV record that could not be parsed, with its text.
///
/// The `lenient` form of a source gives `Result<T, BadLine>`. A `BadLine` is an error, so an error policy can skip and
/// count them, up to a limit if you set one:
///
/// ```
/// # use std::fs;
/// use sage::{Environment, ErrorPolicy};
/// use sage_connectors::JsonlSource;
/// # let dir = tempfile::tempdir()?;
/// # let orders = dir.path().join("orders.jsonl");
/// # fs::write(&orders, "1\nzwei\n3\n")?;
///
/// let env = Environment::local("orders");
/// let numbers = env
///     .from_source(move |_replica| JsonlSource::<u32>::new(orders.clone()).lenient())
///     .try_map(|line| line)
///     .named("parse")
///     .on_error(ErrorPolicy::skip().at_most(1_000))
///     .collect();
/// let report = env.run()?;
/// assert_eq!((numbers.take(), report.operator("parse").unwrap().failed), (vec![1, 3], 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Or send them elsewhere:
///
/// ```
/// # use std::fs;
/// use sage::Environment;
/// use sage_connectors::{JsonlSink, JsonlSource};
/// # let dir = tempfile::tempdir()?;
/// # let (orders, bad) = (dir.path().join("orders.jsonl"), dir.path().join("bad.jsonl"));
/// # fs::write(&orders, "1\nzwei\n3\n")?;
/// # let into = bad.clone();
///
/// let env = Environment::local("orders");
/// let lines = env.from_source(move |_replica| JsonlSource::<u32>::new(orders.clone()).lenient());
/// let (numbers, rest) = lines.split_ok();
/// rest.sink_to(move |_replica| JsonlSink::new(into.clone()));
/// let numbers = numbers.collect();
/// env.run()?;
/// assert_eq!(numbers.take(), [1, 3]);
/// assert!(fs::read_to_string(bad)?.contains(r#""line":2,"message":"expected value at column 1","text":"zwei""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{path}:{line}: {message}")]
#[non_exhaustive]
pub struct BadLine {
    /// The file. Bytes of its path that are not UTF-8 are replaced.
    pub path: String,
    /// The line it begins at, from 1.
    pub line: u64,
    /// What is wrong with it, and where.
    pub message: String,
    /// The text, without the line end. Bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl BadLine {
    pub(crate) fn new(path: &Path, line: u64, message: String, text: &[u8]) -> Box<Self> {
        let text = String::from_utf8_lossy(text).into_owned();
        Box::new(Self { path: path.to_string_lossy().into_owned(), line, message, text })
    }
}

/// A source that gives malformed input as records.
#[derive(Debug)]
pub(crate) struct Lenient<F: Format>(pub(crate) Walk<F>);

impl<F: Format> Source for Lenient<F> {
    type Item = Result<F::Item, BadLine>;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        Ok(self.0.open(cx)?)
    }

    #[inline]
    fn next(&mut self, _cx: &SourceContext) -> Result<Next<Self::Item>, BoxError> {
        Ok(match self.0.next().map_err(InputError::told)? {
            Some(parsed) => Next::Record(parsed.map_err(|bad| *bad)),
            None => Next::End,
        })
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.0.close();
        Ok(())
    }
}

/// Implements `Source` for a struct around a [`Walk`]; malformed input fails the job.
macro_rules! strict_source {
    ($source:ident $(<$type:ident: $bound:path>)?, $item:ty) => {
        impl$(<$type: $bound + Send + 'static>)? sage::Source for $source$(<$type>)? {
            type Item = $item;

            fn open(&mut self, cx: &sage::SourceContext) -> Result<(), sage::BoxError> {
                Ok(self.0.open(cx)?)
            }

            #[inline]
            fn next(&mut self, _cx: &sage::SourceContext) -> Result<sage::Next<$item>, sage::BoxError> {
                match self.0.next().map_err($crate::InputError::told)? {
                    Some(Ok(record)) => Ok(sage::Next::Record(record)),
                    Some(Err(bad)) => Err(self.0.stick($crate::InputError::Malformed(*bad)).into()),
                    None => Ok(sage::Next::End),
                }
            }

            fn close(&mut self, _cx: &sage::CloseContext) -> Result<(), sage::BoxError> {
                self.0.close();
                Ok(())
            }
        }
    };
}

pub(crate) use strict_source;
