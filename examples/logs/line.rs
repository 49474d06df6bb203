//! What travels through the jobs: lines as they were read, and lines whose time is known.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::term::{By, term};
use crate::time::{self, Assumed, Stamp, Year};

/// A line as it was read. As a dead letter it has all that a second attempt needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLine {
    /// The file, below the folder.
    #[serde(with = "shared")]
    pub path: Arc<str>,
    /// Its number in the file, from 1.
    pub line: u64,
    /// Without its end, and with U+FFFD for bytes that are not UTF-8.
    pub text: String,
    /// What was not UTF-8, if anything.
    pub not_utf8: Option<String>,
    /// The time of the last line before it in the file that has one, in milliseconds since 1970.
    pub after_ms: Option<i64>,
    /// When the file was last written, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Its own time; dead letters have none.
    #[serde(skip)]
    pub stamp: Option<Stamp>,
}

/// A line that is counted.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// When it was written.
    #[serde(rename = "time", serialize_with = "as_text")]
    pub millis: i64,
    /// The term it counts for.
    pub term: Cow<'static, str>,
    /// The file, below the folder.
    #[serde(with = "shared")]
    pub path: Arc<str>,
    /// Its number in the file, from 1.
    pub line: u64,
    /// The line.
    pub text: String,
}

/// Why a line cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadLine {
    /// It is not UTF-8; the place.
    NotUtf8(String),
    /// It does not begin with a time.
    NoTime,
    /// It has no time anywhere, and does not continue a line that has one.
    NoTimeAnywhere,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8(what) => f.write_str(what),
            Self::NoTime => f.write_str("no time at its beginning"),
            Self::NoTimeAnywhere => f.write_str("no time anywhere in it, and it continues no line that has one"),
        }
    }
}

impl std::error::Error for BadLine {}

/// How a line that was bad at first came to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mended {
    /// It has a time, but not at its beginning.
    TimeInside,
    /// It has a time, and bytes that are not UTF-8.
    NotUtf8,
    /// It continues a line that has a time, as in a stack trace, and got that time.
    Continuation,
}

impl Mended {
    /// How the summary calls such lines.
    pub fn words(self) -> &'static str {
        match self {
            Self::TimeInside => "have a time further inside, or as a finer number",
            Self::NotUtf8 => "have a time beside bytes that are not UTF-8",
            Self::Continuation => "continue a line that has a time, as stack traces do",
        }
    }
}

/// A line that was mended.
#[derive(Debug, Clone, Serialize)]
pub struct Recovered {
    /// How.
    pub how: Mended,
    /// The line.
    #[serde(flatten)]
    pub entry: Entry,
}

/// How lines are read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The kind of term that lines are counted by.
    pub by: By,
    /// Milliseconds that times without an offset are ahead of UTC.
    pub offset_ms: i64,
    /// The year of times without one; that of the file's last change unless given.
    pub year: Option<i64>,
}

impl Reading {
    /// The assumptions about times in a file.
    pub fn assumed(&self, modified_ms: i64) -> Assumed {
        Assumed { offset_ms: self.offset_ms, year: self.year.map_or(Year::Before(modified_ms), Year::Is) }
    }

    /// Turns a line with a time at its beginning into a counted line.
    pub fn strict(&self, line: LogLine) -> Result<Entry, BadLine> {
        if let Some(what) = line.not_utf8 {
            return Err(BadLine::NotUtf8(what));
        }
        let stamp = line.stamp.ok_or(BadLine::NoTime)?;
        Ok(self.entry(line, &stamp))
    }

    /// Tries the same for a bad line: takes a time anywhere in it, also beside bytes that are not text, and gives a
    /// continuation the time of the line it continues.
    pub fn lax(&self, line: LogLine) -> Result<Recovered, BadLine> {
        if let Some(stamp) = time::anywhere(&line.text, &self.assumed(line.modified_ms)) {
            let how = if line.not_utf8.is_some() { Mended::NotUtf8 } else { Mended::TimeInside };
            return Ok(Recovered { how, entry: self.entry(line, &stamp) });
        }
        match line.after_ms.filter(|_| continues(&line.text)) {
            Some(millis) => {
                let stamp = Stamp { millis, end: 0, form: time::Form::Plain };
                Ok(Recovered { how: Mended::Continuation, entry: self.entry(line, &stamp) })
            }
            None => Err(BadLine::NoTimeAnywhere),
        }
    }

    fn entry(&self, line: LogLine, stamp: &Stamp) -> Entry {
        let term = term(self.by, &line.text, stamp, &line.path);
        Entry { millis: stamp.millis, term, path: line.path, line: line.line, text: line.text }
    }
}

/// Whether a line looks like a further line of an entry: it is indented, or begins like a line of a stack trace.
fn continues(text: &str) -> bool {
    let indented = text.starts_with([' ', '\t']) && !text.trim().is_empty();
    indented || ["Caused by:", "Traceback (", "...", "at "].iter().any(|begin| text.starts_with(begin))
}

fn as_text<S: Serializer>(millis: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::to_text(*millis))
}

/// A shared text, for serde.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}
