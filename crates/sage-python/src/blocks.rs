//! A container read block by block: what works on several records at a time takes them from the container's own
//! iterator, one after the other, as a `for` loop would. A block says how many it may take at most; how many it has
//! taken is known afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use sage::{AtRecord, BoxError, CloseContext, Next, Source, SourceContext};

use crate::Record;
use crate::cutter::Loop;
use crate::error::{Raised, attempt};
use crate::object::Object;
use crate::records::Records;
use crate::thread::{self, attach, waited};
use crate::value::Value;

/// How many records are worked on at a time, at most.
pub(crate) const MOST_RECORDS: usize = 4096;

/// What takes longer makes the next block a smaller one. A block ends before that, after the record that is worked on:
/// see [`cutter`](crate::cutter).
const LONG: Duration = Duration::from_millis(10);

/// How many records to work on at a time: as many as do not take long.
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) records: usize,
    most: usize,
}

impl Pace {
    /// At most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { records: 1, most }
    }

    /// Learns how long the last records took. What a thread waited for others that had the interpreter is not part of
    /// that: fewer records at a time would make it wait more often.
    pub(crate) fn took(&mut self, records: usize, time: Duration) {
        if time > LONG {
            self.records = (records / 4).max(1);
        } else if records >= self.records {
            self.records = (self.records * 2).min(self.most);
        }
    }
}

/// Gives the blocks of a container.
pub(crate) struct Blocks {
    /// Makes the adapter: an object with the attribute `records`, the container.
    make: Object,
    records: Option<Records>,
    of: Option<Arc<Loop>>,
    pace: Pace,
    /// How many records were taken of the blocks before.
    before: u64,
    /// When the last block was given, and how long this thread had waited for others by then.
    begun: Option<(Instant, Duration)>,
}

impl Blocks {
    pub(crate) fn new(make: Object) -> Self {
        Self { make, records: None, of: None, pace: Pace::new(MOST_RECORDS), before: 0, begun: None }
    }

    /// How many records of the last block were taken.
    fn given(&self) -> usize {
        self.records.as_ref().map_or(0, Records::given)
    }

    /// The next block, unless reading the last one has failed.
    fn checked_block(&mut self, py: Python<'_>) -> Result<Option<Record>, BoxError> {
        let raised = |exception| Raised::new(py, exception);
        match self.records.as_ref().and_then(|records| records.take_error(py)) {
            None => Ok(self.block(py).map_err(raised)?),
            // It has happened behind the last record that was taken. The engine names the record behind the one that it
            // is told, as a source fails while it reads the next.
            Some(exception) => Err(AtRecord::new(self.before.saturating_sub(1), raised(exception)).into()),
        }
    }

    /// The next block, which the functions take their records from.
    fn block(&mut self, py: Python<'_>) -> PyResult<Option<Record>> {
        let (Some(records), Some(of)) = (&self.records, &self.of) else { return Ok(None) };
        if !records.has_more(py) {
            return Ok(None);
        }
        records.begin(py, of, self.pace.records);
        Ok(Some(Record::from(Value::Object(records.object(py).clone().into()))))
    }
}

impl Source for Blocks {
    type Item = Record;

    fn in_blocks(&self) -> bool {
        true
    }

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        self.of = Some(thread::watched());
        self.records = Some(attempt(|py| {
            let adapter = self.make.made(py, cx.replica, cx.parallelism)?;
            Records::of(&adapter.getattr("records")?, true)
        })?);
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Record>, BoxError> {
        // The task looks before every eighth call only while they come fast, and one of these may take long all the
        // same.
        if cx.interrupted() {
            return Ok(Next::Idle);
        }
        // What is behind it has worked on the last block since.
        if let Some((begun, waited_before)) = self.begun.take() {
            self.pace.took(self.given(), begun.elapsed().saturating_sub(waited() - waited_before));
        }
        self.before += self.given() as u64;
        let block = attach(|py| self.checked_block(py))?;
        self.begun = Some((Instant::now(), waited()));
        Ok(block.map_or(Next::End, Next::Record))
    }

    fn taken(&self) -> u64 {
        self.given() as u64
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        attach(|_py| self.records = None);
        Ok(())
    }
}
