//! A source whose records come from a Python iterator.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyIterator;
use sage::{BoxError, CloseContext, Next, Source, SourceContext};

use crate::Object;
use crate::error::Raised;

/// How many records are asked for while the interpreter is held, at most.
const MOST_RECORDS: usize = 512;
/// For how long it is held for them, at most, but for the record that is being made.
const LONGEST: Duration = Duration::from_micros(500);

/// Gives what an iterator gives.
pub(crate) struct Iterated {
    /// Makes the function's adapter: an iterable, perhaps with a method `close`.
    make: Py<PyAny>,
    adapter: Option<Py<PyAny>>,
    iterator: Option<Py<PyIterator>>,
    ready: VecDeque<Py<PyAny>>,
    /// What came instead of a record, behind those that are ready.
    end: Option<Result<(), Raised>>,
    given: u64,
}

impl Iterated {
    pub(crate) fn new(make: Py<PyAny>) -> Self {
        Self { make, adapter: None, iterator: None, ready: VecDeque::new(), end: None, given: 0 }
    }

    /// Asks the iterator for as many records as come soon.
    fn fill(&mut self, cx: &SourceContext) {
        let began = Instant::now();
        let Some(iterator) = &self.iterator else { return };
        Python::attach(|py| {
            let mut iterator = iterator.bind(py).clone();
            while self.ready.len() < MOST_RECORDS {
                match iterator.next() {
                    Some(Ok(record)) => self.ready.push_back(record.unbind()),
                    Some(Err(exception)) => {
                        let record = self.given + self.ready.len() as u64 + 1;
                        self.end = Some(Err(Raised::new(py, exception, None, Some(record))));
                        return;
                    }
                    None => {
                        self.end = Some(Ok(()));
                        return;
                    }
                }
                if self.ready.len() % 8 == 1 && (began.elapsed() > LONGEST || cx.interrupted()) {
                    return;
                }
            }
        });
    }
}

impl Source for Iterated {
    type Item = Object;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        Python::attach(|py| {
            let made = self.make.call1(py, (cx.replica, cx.parallelism));
            let raised = |exception| Raised::new(py, exception, None, None);
            let adapter = self.adapter.insert(made.map_err(raised)?);
            self.iterator = Some(adapter.bind(py).try_iter().map_err(raised)?.unbind());
            Ok(())
        })
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Object>, BoxError> {
        if self.ready.is_empty() && self.end.is_none() {
            self.fill(cx);
        }
        if let Some(record) = self.ready.pop_front() {
            self.given += 1;
            return Ok(Next::Record(Object(record)));
        }
        match self.end.take() {
            Some(Ok(())) => {
                self.end = Some(Ok(()));
                Ok(Next::End)
            }
            Some(Err(raised)) => Err(raised.into()),
            None => Ok(Next::Idle),
        }
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        Python::attach(|py| {
            self.ready.clear();
            self.iterator = None;
            match self.adapter.take() {
                Some(adapter) => crate::chain::close(py, &adapter),
                None => Ok(()),
            }
        })
    }
}
