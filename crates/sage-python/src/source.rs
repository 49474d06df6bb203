//! Sources whose records come from a Python iterator.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};

use pyo3::prelude::*;
use pyo3::types::PyIterator;
use sage::{BoxError, CloseContext, Next, Serves, Source, SourceContext};

use crate::Record;
use crate::error::{Raised, attempt};
use crate::object::Object;
use crate::thread::{attach, call_method, lock, next};
use crate::waits::{Wait, Waiting, ask};

/// How many records of a container are asked for at a time.
const MOST_RECORDS: usize = 512;

/// Gives what an iterator gives.
pub(crate) struct Iterated {
    /// Makes the function's adapter: an iterable, perhaps with a method `close`.
    make: Object,
    adapter: Option<Py<PyAny>>,
    iterator: Option<Py<PyIterator>>,
    ready: VecDeque<Record>,
    /// What it said that it waits for.
    waiting: Option<Waiting>,
    /// What came instead of a record, behind those that are ready.
    end: Option<Result<(), Raised>>,
    /// How many records are asked for at a time: one where the next may take as long as it likes, so that it holds back
    /// none of those before it.
    most: usize,
    /// Of the source of a pipeline that is a service.
    serving: Option<Arc<Serving>>,
}

/// What the source of a pipeline that is a service is told.
#[derive(Default)]
pub(crate) struct Serving {
    /// Nobody is left who could call, and the source has not yet closed its bridge.
    is_told: AtomicBool,
    /// The source's thread.
    thread: Mutex<Option<Thread>>,
}

impl Serves for Serving {
    fn opens(&self) {
        self.is_told.store(false, Ordering::Release);
    }

    fn ends(&self) {
        self.is_told.store(true, Ordering::Release);
        lock(&self.thread).iter().for_each(Thread::unpark);
    }
}

impl Iterated {
    /// Reads a container, whose records are all there.
    pub(crate) fn all_there(make: Object) -> Self {
        Self { most: MOST_RECORDS, ..Self::one_by_one(make) }
    }

    /// Reads an iterator that may wait for its next record.
    pub(crate) fn one_by_one(make: Object) -> Self {
        Self {
            make,
            adapter: None,
            iterator: None,
            ready: VecDeque::new(),
            waiting: None,
            end: None,
            most: 1,
            serving: None,
        }
    }

    /// Reads the calls of a pipeline that is a service.
    pub(crate) fn serving(make: Object, serving: Arc<Serving>) -> Self {
        Self { serving: Some(serving), ..Self::one_by_one(make) }
    }

    /// Whether nobody is left who could call, and the source has not yet closed its bridge.
    fn is_told(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.is_told.load(Ordering::Acquire))
    }

    /// Closes the bridge, if it is time: what waits there still comes, and then the end.
    fn heed(&mut self) -> Result<(), BoxError> {
        let is_time = self.serving.as_ref().is_some_and(|serving| serving.is_told.swap(false, Ordering::AcqRel));
        let Some(adapter) = self.adapter.as_ref().filter(|_| is_time) else { return Ok(()) };
        Ok(attempt(|py| call_method(py, adapter, "end").map(drop))?)
    }

    /// Asks the iterator for records.
    fn fill(&mut self) {
        let Some(iterator) = &self.iterator else { return };
        attach(|py| {
            self.waiting = None;
            let iterator = iterator.bind(py);
            let waits = py.get_type::<Wait>();
            while self.ready.len() < self.most {
                match next(iterator) {
                    Some(Ok(record)) if record.is_exact_instance(&waits) => {
                        self.waiting = record.cast_into().ok().map(|wait| Waiting::begin(wait.unbind()));
                        return;
                    }
                    Some(Ok(record)) => self.ready.push_back(Record::of(record)),
                    end => {
                        let end = end.transpose().map_err(|exception| Raised::new(py, exception));
                        self.end = Some(end.map(drop));
                        return;
                    }
                }
            }
        });
    }
}

impl Source for Iterated {
    type Item = Record;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        if let Some(serving) = &self.serving {
            *lock(&serving.thread) = Some(thread::current());
        }
        Ok(attempt(|py| {
            let adapter = self.adapter.insert(self.make.made(py, cx.replica, cx.parallelism)?.unbind());
            self.iterator = Some(adapter.bind(py).try_iter()?.unbind());
            Ok(())
        })?)
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Record>, BoxError> {
        // The task looks before every eighth call only while they come fast, and one of these may take long all the
        // same.
        if cx.interrupted() {
            return Ok(Next::Idle);
        }
        if self.is_told() {
            self.heed()?;
        }
        if self.ready.is_empty() && self.end.is_none() {
            if self.waiting.as_ref().is_some_and(|waiting| !waiting.is_over(cx, || self.is_told())) {
                return Ok(Next::Idle);
            }
            ask(cx, || self.fill());
        }
        if let Some(record) = self.ready.pop_front() {
            return Ok(Next::Record(record));
        }
        match self.end.take() {
            Some(Ok(())) => {
                self.end = Some(Ok(()));
                Ok(Next::End)
            }
            Some(Err(raised)) => Err(raised.error()),
            None => Ok(Next::Idle),
        }
    }

    fn serves(&self) -> bool {
        self.serving.is_some()
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        Ok(attempt(|py| {
            self.ready.clear();
            self.waiting = None;
            self.iterator = None;
            self.adapter.take().map_or(Ok(()), |adapter| call_method(py, &adapter, "close").map(drop))
        })?)
    }
}
