//! A source that reads many logs as one, in the order of their times.
//!
//! Logs of one machine cover the same hours, so reading one after the other would make all but the first late.
//! [`Merged`] looks into each file for its first time, then goes through all of them at once: the next line is always
//! the one with the earliest time. A file is open only from its first time to its last, so of rotated logs, which
//! follow each other, one at a time is open.
//!
//! Invariants:
//!  1. The lines of a file keep their order: a line takes its turn by the latest time in its file so far, so one that
//!     is out of order, or has no time, comes right behind the line before it.
//!  2. Equal times go by path, so the order depends on the data alone.
//!  3. Whenever the watermark enters another window, the source lets its batch end. Watermarks go downstream between
//!     batches. So it also depends on the data alone which lines are late, and not on how large the batches happen to
//!     be.
//!
//! Each file has its own [`TextSource`], which unpacks it. A file that cannot be read, or is not text, is noted and
//! skipped from that place on.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use sage::{BoxError, CloseContext, Line, Next, Source, SourceContext};
use sage_connectors::{BadLine, Files, TextSource};

use crate::line::{LogLine, Reading};
use crate::notes::Notes;
use crate::time::leading;

/// Lines in which to look for a file's first time. A file without one there is opened first of all, and stays open
/// until its turn comes, in case there is a time further on.
const PROBED_LINES: usize = 10_000;
/// Files open at once. If more files cover the same time, the rest waits, and its lines may be late.
const MAX_OPEN: usize = 128;
/// A longer line ends the reading of its file.
const MAX_LINE_BYTES: usize = 4 << 20;

/// A file to read.
#[derive(Clone)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the folder.
    pub name: Arc<str>,
}

/// Reads files of lines as one, by their times.
pub struct Merged {
    reading: Reading,
    /// The windows' length and how far the watermark stays behind the latest time, in milliseconds.
    window_ms: i64,
    behind_ms: i64,
    notes: Notes,
    /// Not looked into yet, the next one last.
    unknown: Vec<(usize, LogFile)>,
    /// Not opened yet: the earliest last.
    waiting: Vec<Waiting>,
    sorted: bool,
    open: BinaryHeap<Reader>,
    latest: i64,
    /// Which window the watermark is in.
    window: i64,
    /// Whether the batch is to end before the next line.
    pause: bool,
}

struct Waiting {
    first: i64,
    number: usize,
    modified_ms: i64,
    file: LogFile,
}

type Text = Box<dyn Source<Item = Result<Line, BadLine>>>;

/// A file being read, and the next line of it.
struct Reader {
    text: Text,
    next: LogLine,
    /// The latest time of its lines so far: when it is its turn.
    turn: i64,
    number: usize,
    reading: Reading,
}

impl Merged {
    /// Reads these files, given in the order of their paths.
    pub fn new(files: Vec<LogFile>, reading: Reading, window: Duration, behind: Duration, notes: Notes) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            reading,
            window_ms: millis(window).max(1),
            behind_ms: millis(behind),
            notes,
            unknown: files.into_iter().enumerate().rev().collect(),
            waiting: Vec::new(),
            sorted: false,
            open: BinaryHeap::new(),
            latest: i64::MIN,
            window: i64::MIN,
            pause: false,
        }
    }

    /// Finds out when a file begins.
    fn probe(&mut self, number: usize, file: LogFile, cx: &SourceContext) {
        match first_time(&file, &self.reading, cx) {
            Ok((first, modified_ms)) => self.waiting.push(Waiting { first, number, modified_ms, file }),
            Err(error) => self.notes.passed_over(&file.name, &*error),
        }
    }

    /// Opens the files whose turn it is.
    fn open_due(&mut self, cx: &SourceContext) {
        while let Some(next) = self.waiting.last()
            && self.open.len() < MAX_OPEN
            && self.open.peek().is_none_or(|open| (next.first, next.number) < (open.turn, open.number))
        {
            let Some(Waiting { first, number, modified_ms, file }) = self.waiting.pop() else { break };
            match Reader::open(&file, first, number, modified_ms, self.reading, cx) {
                Ok(reader) => self.open.extend(reader),
                Err(error) => self.notes.passed_over(&file.name, &*error),
            }
        }
    }

    /// Takes the line whose turn it is; `None` when all files are at their ends.
    fn take_line(&mut self, cx: &SourceContext) -> Option<LogLine> {
        let mut reader = self.open.peek_mut()?;
        let failure = match reader.advance(cx) {
            Ok(Some(line)) => return Some(line),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let line = PeekMut::pop(reader).next;
        if let Some(error) = failure {
            self.notes.passed_over(&line.path, &*error);
        }
        Some(line)
    }

    /// Notes that a line goes downstream.
    fn passed(&mut self, line: &LogLine) {
        if let (Some(stamp), None) = (line.stamp, &line.not_utf8)
            && stamp.millis > self.latest
        {
            self.latest = stamp.millis;
            let window = self.latest.saturating_sub(self.behind_ms).div_euclid(self.window_ms);
            self.pause |= std::mem::replace(&mut self.window, window) != window;
        }
    }
}

impl Source for Merged {
    type Item = LogLine;

    fn next(&mut self, cx: &SourceContext) -> Result<Next<LogLine>, BoxError> {
        if let Some((number, file)) = self.unknown.pop() {
            self.probe(number, file, cx);
            return Ok(Next::Idle);
        }
        if !std::mem::replace(&mut self.sorted, true) {
            self.waiting.sort_by_key(|file| std::cmp::Reverse((file.first, file.number)));
        }
        if std::mem::take(&mut self.pause) {
            return Ok(Next::Idle);
        }
        if self.open.len() < MAX_OPEN && !self.waiting.is_empty() {
            self.open_due(cx);
        }
        let Some(line) = self.take_line(cx) else { return Ok(Next::End) };
        self.passed(&line);
        Ok(Next::Record(line))
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.open.clear();
        Ok(())
    }
}

impl Reader {
    /// Opens a file and reads its first line; `None` if it has none.
    fn open(
        file: &LogFile,
        first: i64,
        number: usize,
        modified_ms: i64,
        reading: Reading,
        cx: &SourceContext,
    ) -> Result<Option<Self>, BoxError> {
        let path = Arc::clone(&file.name);
        let next =
            LogLine { path, line: 0, text: String::new(), not_utf8: None, after_ms: None, modified_ms, stamp: None };
        let mut reader = Self { text: text(file, cx)?, next, turn: first, number, reading };
        Ok(reader.advance(cx)?.map(|_before_the_first| reader))
    }

    /// Gives the current line and reads the next one; `None` if there is no next.
    fn advance(&mut self, cx: &SourceContext) -> Result<Option<LogLine>, BoxError> {
        let read = match self.text.next(cx)? {
            Next::Record(read) => read,
            _ => return Ok(None),
        };
        let (line, text, not_utf8) = match read {
            Ok(Line { number, text, .. }) => (number, text, None),
            Err(BadLine { line, message, text, .. }) => (line, text, Some(message)),
        };
        let &mut Self { ref next, reading, .. } = self;
        let stamp = match not_utf8 {
            None => leading(&text, &reading.assumed(next.modified_ms)),
            Some(_) => None,
        };
        let after_ms = next.stamp.map(|stamp| stamp.millis).or(next.after_ms);
        let (path, modified_ms) = (Arc::clone(&next.path), next.modified_ms);
        self.turn = self.turn.max(stamp.map_or(i64::MIN, |stamp| stamp.millis));
        let next = LogLine { path, line, text, not_utf8, after_ms, modified_ms, stamp };
        Ok(Some(std::mem::replace(&mut self.next, next)))
    }
}

/// The reader whose turn comes first is the greatest, as a heap has it.
impl Ord for Reader {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.turn, other.number).cmp(&(self.turn, self.number))
    }
}

impl PartialOrd for Reader {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Reader {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Reader {}

fn text(file: &LogFile, cx: &SourceContext) -> Result<Text, BoxError> {
    let files = Files::path(&file.path).max_record_bytes(MAX_LINE_BYTES);
    let mut text: Text = Box::new(TextSource::new(files).lenient());
    text.open(cx)?;
    Ok(text)
}

/// The first time in a file, or the earliest possible one if the first lines have none, and when the file was last
/// written. Fails for a file that is not text.
fn first_time(file: &LogFile, reading: &Reading, cx: &SourceContext) -> Result<(i64, i64), BoxError> {
    let modified = std::fs::metadata(&file.path)?.modified()?;
    let modified_ms = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let mut text = text(file, cx)?;
    for _ in 0..PROBED_LINES {
        let stamp = match text.next(cx)? {
            Next::Record(Ok(line)) if line.text.contains('\0') => return Err("it is not text".into()),
            Next::Record(Err(bad)) if bad.text.contains('\0') => return Err("it is not text".into()),
            Next::Record(Ok(line)) => leading(&line.text, &reading.assumed(modified_ms)),
            Next::Record(Err(_)) => None,
            _ => break,
        };
        if let Some(stamp) = stamp {
            return Ok((stamp.millis, modified_ms));
        }
    }
    Ok((i64::MIN, modified_ms))
}
