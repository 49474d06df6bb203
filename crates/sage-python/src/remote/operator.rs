//! [`RemoteChain`]: an operator whose functions run in a worker process.
//!
//! Records are gathered and sent as batches, of which two are under way at most: so the worker has the next one when
//! it is done with one. It answers a batch in pieces, each with what has come out since the last. Nothing is held back
//! from a watermark, a probe or the end of input: before these, all results are waited for.

use std::collections::VecDeque;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;
use sage::{BoxError, CloseContext, Emit, Fault, OpenContext, Operator, Stop, StopReason};

use crate::Record;
use crate::blocks::Pace;
use crate::chain::{Failure, Manner};
use crate::error::{Raised, attempt};
use crate::object::Object;
use crate::spec::Seconds;
use crate::thread::{attach, call_method};
use crate::waits::Cancelled;

/// How many batches a worker has at most.
const MOST_UNDER_WAY: usize = 2;

/// A chain of one replica, in a worker of its own.
pub(crate) struct RemoteChain {
    /// Makes the adapter, which starts the worker: see `python/sage/_remote.py`.
    make: Object,
    manner: Manner,
    adapter: Option<Py<PyAny>>,
    gathered: Vec<Record>,
    /// How many records each batch under way has.
    under_way: VecDeque<usize>,
    pace: Pace,
}

/// What a worker has answered.
#[derive(FromPyObject)]
struct Answer<'py> {
    results: Bound<'py, PyList>,
    /// Of the last answer to a batch, how long the worker was at work on it.
    took: Option<Seconds>,
    failure: Option<(Bound<'py, PyAny>, Option<(String, String)>, Option<u64>)>,
}

impl RemoteChain {
    pub(crate) fn new(make: Object, manner: Manner) -> Self {
        let pace = Pace::new(manner.most);
        Self { make, manner, adapter: None, gathered: Vec::new(), under_way: VecDeque::new(), pace }
    }

    /// Sends what was gathered, when the worker has room for it.
    fn send(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        while self.under_way.len() >= MOST_UNDER_WAY {
            self.receive(out)?;
        }
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.under_way.push_back(self.gathered.len());
        let (takes, gathered, adapter) = (self.manner.takes, std::mem::take(&mut self.gathered), &self.adapter);
        let sent = attempt(|py| {
            let objects = gathered.into_iter().map(|record| takes.object(record, py));
            let list = PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)?;
            adapter
                .iter()
                .try_for_each(|adapter| adapter.call_method1(py, intern!(py, "send"), (list.clone(),)).map(drop))
        });
        self.unless_cancelled(sent.map_err(Raised::error), out)
    }

    /// Takes an answer, and emits what is in it.
    fn receive(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        let is_alone = self.manner.most == 1;
        let (gives, adapter) = (self.manner.gives, &self.adapter);
        let received = attach(|py| {
            let Some(adapter) = adapter else { return Ok((Vec::new(), Some(Duration::ZERO))) };
            let raised = |exception: PyErr| Raised::new(py, exception).error();
            let answer = adapter.call_method0(py, intern!(py, "receive")).map_err(raised)?;
            let Answer { results, took, failure } = answer.extract(py).map_err(raised)?;
            if let Some((exception, function, record)) = failure {
                let exception = PyErr::from_value(exception);
                return Err(Failure { exception, function, record }.error(py, is_alone));
            }
            let records = results.iter().map(|object| gives.record(object)).collect::<PyResult<Vec<_>>>();
            Ok((records.map_err(raised)?, took.map(|took| took.0)))
        });
        match received {
            Ok((records, took)) => {
                if let Some(took) = took
                    && let Some(count) = self.under_way.pop_front()
                {
                    self.pace.took(count, took);
                }
                records.into_iter().try_for_each(|record| out.emit(record))?;
                out.look()
            }
            Err(error) => {
                // Nothing of what is behind it goes on; of one record alone, the next one is another try.
                self.under_way.clear();
                self.unless_cancelled(Err(error), out)
            }
        }
    }

    /// What a wait that the job has ended has raised is no error: the engine says so itself.
    fn unless_cancelled(&mut self, result: Result<(), BoxError>, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        let Err(error) = result else { return Ok(()) };
        let is_cancelled = |raised: &Raised| attach(|py| raised.exception.is_instance_of::<Cancelled>(py));
        // What is no exception of a record is kept in another error.
        let raised = error.downcast_ref::<Raised>().or_else(|| error.source().and_then(|source| source.downcast_ref()));
        if raised.is_some_and(is_cancelled) {
            self.gathered.clear();
            self.under_way.clear();
            out.look()?;
        }
        Err(Fault::Error(error))
    }

    fn run(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.send(out)?;
        while !self.under_way.is_empty() {
            self.receive(out)?;
        }
        Ok(())
    }
}

impl Operator for RemoteChain {
    type In = Record;
    type Out = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let adapter = &mut self.adapter;
        let opened = attempt(|py| {
            let made = self.make.made_pausing(py, cx)?;
            call_method(py, adapter.insert(made.unbind()), "open").map(drop)
        });
        match opened {
            Err(_) if cx.cancelling().has_begun() => Err(Stop::Cancelled.into()),
            Err(raised) => Err(Fault::Error(raised.error())),
            Ok(()) => Ok(()),
        }
    }

    fn process(&mut self, record: Record, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.gathered.push(record);
        match self.manner.most {
            1 => self.run(out),
            _ if self.gathered.len() >= self.pace.records => self.send(out),
            _ => Ok(()),
        }
    }

    fn flush(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.run(out)
    }

    fn finish(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.run(out)?;
        let adapter = &self.adapter;
        let finished = attempt(|py| {
            adapter.iter().try_for_each(|adapter| adapter.call_method0(py, intern!(py, "finish")).map(drop))
        });
        self.unless_cancelled(finished.map_err(Raised::error), out)?;
        self.under_way.push_back(0);
        self.run(out)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.gathered.clear();
        let is_whole = self.under_way.is_empty() && matches!(cx.reason(), StopReason::EndOfInput | StopReason::Drain);
        let closed = attempt(|py| {
            let Some(adapter) = self.adapter.take() else { return Ok(()) };
            let notes = adapter.call_method1(py, intern!(py, "close"), (is_whole,))?;
            notes.extract::<Vec<String>>(py)?.into_iter().for_each(|note| cx.note(note));
            Ok(())
        });
        Ok(closed?)
    }
}
