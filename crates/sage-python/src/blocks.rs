//! A container read block by block: what works on several records at a time takes them from the container's own iterator.
//!
//! A block is an iterator that ends after so many records, and the one behind it, which knows how many are left. It
//! stays on its thread.

use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use sage::{BoxError, CloseContext, Next, Source, SourceContext};

use crate::Record;
use crate::error::Raised;
use crate::thread::{Kept, attach, waited};
use crate::value::Value;

/// How many records are worked on at a time, at most.
pub(crate) const MOST_RECORDS: usize = 4096;

/// How long that may take, so that a job that is stopped stops soon, and results go on.
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

    /// Learns how long the last records took. What a thread waited for others that had the interpreter is no part of that: fewer
    /// records at a time would make it wait more often.
    pub(crate) fn took(&mut self, time: Duration) {
        self.records = if time > LONG { (self.records / 4).max(1) } else { (self.records * 2).min(self.most) };
    }
}

/// Gives the blocks of a container.
pub(crate) struct Blocks {
    /// Makes the adapter: an iterable, whose iterators know how many records are left.
    make: Py<PyAny>,
    iterator: Option<Py<PyIterator>>,
    islice: Option<Py<PyAny>>,
    count: usize,
    pace: Pace,
    /// When the last block was given, and how long this thread had waited for others by then.
    begun: (Instant, Duration),
    thread: Option<Kept>,
}

impl Blocks {
    pub(crate) fn new(make: Py<PyAny>) -> Self {
        let (pace, begun) = (Pace::new(MOST_RECORDS), (Instant::now(), Duration::ZERO));
        Self { make, iterator: None, islice: None, count: 0, pace, begun, thread: None }
    }

    /// The iterator that ends after `count` records, and the one behind it.
    fn block(&mut self, py: Python<'_>) -> PyResult<Option<Record>> {
        let (Some(iterator), Some(islice)) = (&self.iterator, &self.islice) else { return Ok(None) };
        let iterator = iterator.bind(py);
        self.count = left(iterator)?.min(self.pace.records);
        if self.count == 0 {
            return Ok(None);
        }
        let block = islice.bind(py).call1((iterator, self.count))?;
        let parts = [Value::Object(block.unbind()), Value::Object(iterator.clone().into_any().unbind())];
        Ok(Some(Record::from(Value::Tuple(parts.into()))))
    }
}

/// How many records an iterator of a container has left.
pub(crate) fn left(iterator: &Bound<'_, PyAny>) -> PyResult<usize> {
    iterator.call_method0(intern!(iterator.py(), "__length_hint__"))?.extract()
}

/// The two iterators of a block.
pub(crate) fn parts<'py>(py: Python<'py>, record: Record) -> PyResult<(Bound<'py, PyIterator>, Bound<'py, PyAny>)> {
    let (block, iterator): (Bound<'py, PyAny>, Bound<'py, PyAny>) = record.value.into_object(py)?.extract()?;
    Ok((block.cast_into()?, iterator))
}

impl Source for Blocks {
    type Item = Record;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        self.thread = Kept::here();
        attach(|py| {
            let mut open = || {
                let adapter = self.make.bind(py).call1((cx.replica, cx.parallelism))?;
                self.iterator = Some(adapter.try_iter()?.unbind());
                self.islice = Some(py.import("itertools")?.getattr("islice")?.unbind());
                Ok(())
            };
            open().map_err(|exception| Raised::new(py, exception, None).into())
        })
    }

    fn next(&mut self, _cx: &SourceContext) -> Result<Next<Record>, BoxError> {
        // What is behind it has worked on the last block since.
        if self.count > 0 {
            let (begun, waited_before) = self.begun;
            self.pace.took(begun.elapsed().saturating_sub(waited() - waited_before));
        }
        let block = attach(|py| self.block(py).map_err(|exception| Raised::new(py, exception, None)))?;
        self.begun = (Instant::now(), waited());
        Ok(block.map_or(Next::End, Next::Record))
    }

    fn count(&self) -> u64 {
        self.count as u64
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        let _until_closed = self.thread.take();
        attach(|_py| {
            self.iterator = None;
            self.islice = None;
        });
        Ok(())
    }
}
