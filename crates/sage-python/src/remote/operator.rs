//! [`RemoteChain`]: an operator whose functions run in a worker process.
//!
//! Records are gathered and sent as batches, of which two are under way at most: so the worker has the next one when
//! it is done with one. It answers a batch in pieces, each with what has come out since the last. The task takes
//! records meanwhile, and waits for these and for answers at once. Nothing is held back from a watermark, a probe or
//! the end of input: before these, all results are waited for.
//!
//! Where a step has an error policy, what comes back is an [`Outcome`](super::Outcome) of each record, which the
//! operator behind judges.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;
use sage::{BoxError, CloseContext, Emit, Fault, OpenContext, Operator, Stop, StopReason};

use super::channel::Channel;
use crate::Record;
use crate::blocks::Pace;
use crate::chain::{Failure, Manner};
use crate::error::{Raised, attempt};
use crate::object::Object;
use crate::spec::Seconds;
use crate::stage::Form;
use crate::thread::{attach, call_method};
use crate::waits::Cancelled;

/// How many batches a worker has at most.
const MOST_UNDER_WAY: usize = 2;

/// As many records go into a batch as would have had so many bytes in the last one.
const BATCH_BYTES: usize = 4 << 20;

/// What comes back from a worker: records, or an outcome of each record that was sent.
pub(crate) trait Comes: Send + Sized + 'static {
    /// Whether the records that were sent are kept for it.
    const KEEPS: bool;

    /// Of one of the results of a worker; `kept` are the records that wait for theirs.
    fn from_worker(result: Bound<'_, PyAny>, of: &Arc<Sent>, kept: &mut VecDeque<Record>) -> PyResult<Self>;
}

impl Comes for Record {
    const KEEPS: bool = false;

    fn from_worker(result: Bound<'_, PyAny>, of: &Arc<Sent>, _kept: &mut VecDeque<Record>) -> PyResult<Self> {
        of.gives.record(result)
    }
}

/// A worker that records are sent to.
pub(crate) struct Sent {
    pub(super) adapter: Py<PyAny>,
    pub(super) takes: Form,
    pub(super) gives: Form,
}

impl Sent {
    fn channel(&self, py: Python<'_>) -> PyResult<Option<Py<Channel>>> {
        self.adapter.getattr(py, intern!(py, "channel"))?.extract(py).map_err(PyErr::from)
    }
}

/// A chain of one replica, in a worker of its own.
pub(crate) struct RemoteChain<T> {
    /// Makes the adapter, which starts the worker: see `python/sage/_remote.py`.
    make: Object,
    manner: Manner,
    worker: Option<Arc<Sent>>,
    gathered: Vec<Record>,
    kept: VecDeque<Record>,
    /// The connection to the worker.
    channel: Option<Py<Channel>>,
    /// How many records each batch under way has.
    under_way: VecDeque<usize>,
    /// Whether a record has come since the task last looked whether there are more.
    has_come: bool,
    pace: Pace,
    /// How many records a batch may have for their size.
    most: usize,
    comes: PhantomData<fn() -> T>,
}

/// What a worker has answered.
#[derive(FromPyObject)]
pub(super) struct Answer<'py> {
    pub(super) results: Bound<'py, PyList>,
    /// Of the last answer to a batch, how long the worker was at work on it.
    took: Option<Seconds>,
    pub(super) failure: Option<(Bound<'py, PyAny>, Option<(String, String)>, Option<u64>)>,
}

impl<T: Comes> RemoteChain<T> {
    pub(crate) fn new(make: Object, manner: Manner) -> Self {
        let pace = Pace::new(manner.most);
        let (gathered, kept, under_way) = (Vec::new(), VecDeque::new(), VecDeque::new());
        let (worker, channel, comes) = (None, None, PhantomData);
        let most = manner.most;
        Self { make, manner, worker, gathered, kept, channel, under_way, has_come: false, pace, most, comes }
    }

    /// Sends what was gathered, when the worker has room for it.
    fn send(&mut self, out: &mut impl Emit<T>) -> Result<(), Fault> {
        while self.under_way.len() >= MOST_UNDER_WAY {
            self.receive(true, out)?;
        }
        if self.gathered.is_empty() {
            return Ok(());
        }
        let count = self.gathered.len();
        self.under_way.push_back(count);
        let (takes, gathered, worker) = (self.manner.takes, std::mem::take(&mut self.gathered), &self.worker);
        if T::KEEPS {
            self.kept.extend(gathered.iter().cloned());
        }
        let sent = attempt(|py| {
            let objects = gathered.into_iter().map(|record| takes.object(record, py));
            let list = PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)?;
            let Some(worker) = worker else { return Ok(0) };
            worker.adapter.call_method1(py, intern!(py, "send"), (list,))?.extract::<usize>(py)
        });
        match sent {
            Ok(bytes) => self.most = BATCH_BYTES * count / bytes.max(1),
            Err(raised) => self.unless_cancelled(Err(raised.error()), out)?,
        }
        Ok(())
    }

    /// Takes an answer, and emits what is in it; waits for it, if so wanted. Returns whether it was there.
    fn receive(&mut self, waits: bool, out: &mut impl Emit<T>) -> Result<bool, Fault> {
        let (worker, kept, channel) = (&self.worker, &mut self.kept, &mut self.channel);
        let received = attach(|py| {
            let Some(worker) = worker else { return Ok(Some((Vec::new(), Some(Duration::ZERO)))) };
            let raised = |exception: PyErr| Raised::new(py, exception).error();
            let answer = worker.adapter.call_method1(py, intern!(py, "receive"), (waits,)).map_err(raised)?;
            // Another worker may have taken its place.
            *channel = worker.channel(py).map_err(raised)?;
            let Some(Answer { results, took, failure }) = answer.extract(py).map_err(raised)? else { return Ok(None) };
            if let Some((exception, function, record)) = failure {
                let exception = PyErr::from_value(exception);
                return Err(Failure { exception, function, record }.error(py, false));
            }
            let records = results.iter().map(|object| T::from_worker(object, worker, kept));
            let records = records.collect::<PyResult<Vec<_>>>();
            Ok(Some((records.map_err(raised)?, took.map(|took| took.0))))
        });
        match received {
            Ok(None) => Ok(false),
            Ok(Some((records, took))) => {
                if let Some(took) = took
                    && let Some(count) = self.under_way.pop_front()
                {
                    self.pace.took(count, took);
                }
                records.into_iter().try_for_each(|record| out.emit(record))?;
                out.look().map(|()| true)
            }
            Err(error) => {
                // Nothing of what is behind it goes on.
                self.under_way.clear();
                self.unless_cancelled(Err(error), out).map(|()| true)
            }
        }
    }

    fn unless_cancelled(&mut self, result: Result<(), BoxError>, out: &mut impl Emit<T>) -> Result<(), Fault> {
        let Err(error) = result else { return Ok(()) };
        if is_cancelled(&error) {
            self.gathered.clear();
            self.under_way.clear();
            out.look()?;
        }
        Err(Fault::Error(error))
    }

    /// Whether the worker has sent something, or is lost. Of one whose records are judged, answers may have come before
    /// that to a record which was tried again.
    fn may_be_answered(&self) -> bool {
        let has_sent = || self.channel.as_ref().is_some_and(|channel| channel.get().has_frame());
        !self.under_way.is_empty() && (T::KEEPS || has_sent())
    }

    fn run(&mut self, out: &mut impl Emit<T>) -> Result<(), Fault> {
        self.send(out)?;
        while !self.under_way.is_empty() {
            self.receive(true, out)?;
        }
        Ok(())
    }
}

/// What a wait that the job has ended has raised is no error: the engine says so itself.
pub(super) fn is_cancelled(error: &BoxError) -> bool {
    // What is no exception of a record is kept in another error.
    let raised = error.downcast_ref::<Raised>().or_else(|| error.source().and_then(|source| source.downcast_ref()));
    raised.is_some_and(|raised: &Raised| attach(|py| raised.exception.is_instance_of::<Cancelled>(py)))
}

impl<T: Comes> Operator for RemoteChain<T> {
    type In = Record;
    type Out = T;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let (worker, channel, Manner { takes, gives, .. }) = (&mut self.worker, &mut self.channel, self.manner);
        let opened = attempt(|py| {
            let adapter = self.make.made_pausing(py, cx)?.unbind();
            let worker = worker.insert(Arc::new(Sent { adapter, takes, gives }));
            call_method(py, &worker.adapter, "open")?;
            *channel = worker.channel(py)?;
            Ok(())
        });
        match opened {
            Err(_) if cx.cancelling().has_begun() => Err(Stop::Cancelled.into()),
            Err(raised) => Err(Fault::Error(raised.error())),
            Ok(()) => Ok(()),
        }
    }

    fn process(&mut self, record: Record, out: &mut impl Emit<T>) -> Result<(), Fault> {
        self.gathered.push(record);
        self.has_come = true;
        if self.gathered.len() >= self.pace.records.min(self.most) { self.send(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut impl Emit<T>) -> Result<(), Fault> {
        self.run(out)
    }

    fn progress(&mut self, out: &mut impl Emit<T>) -> Result<(), Fault> {
        while self.may_be_answered() && self.receive(false, out)? {}
        // A second batch is to be a full one, unless no more records are there.
        let are_more = std::mem::take(&mut self.has_come);
        let room = if are_more { 1 } else { MOST_UNDER_WAY };
        if self.under_way.len() < room { self.send(out) } else { Ok(()) }
    }

    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().filter(|_| !self.under_way.is_empty()).map(|channel| channel.get().descriptor())
    }

    fn finish(&mut self, out: &mut impl Emit<T>) -> Result<(), Fault> {
        self.run(out)?;
        let worker = &self.worker;
        let finished = attempt(|py| {
            worker.iter().try_for_each(|worker| worker.adapter.call_method0(py, intern!(py, "finish")).map(drop))
        });
        self.unless_cancelled(finished.map_err(Raised::error), out)?;
        self.under_way.push_back(0);
        self.run(out)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.gathered.clear();
        self.kept.clear();
        self.channel = None;
        let is_whole = self.under_way.is_empty() && matches!(cx.reason(), StopReason::EndOfInput | StopReason::Drain);
        let closed = attempt(|py| {
            let Some(worker) = self.worker.take() else { return Ok(()) };
            let notes = worker.adapter.call_method1(py, intern!(py, "close"), (is_whole,))?;
            notes.extract::<Vec<String>>(py)?.into_iter().for_each(|note| cx.note(note));
            Ok(())
        });
        Ok(closed?)
    }
}
