//! Async functions: coroutines that run on an event loop of their replica, and are awaited by the engine.
//!
//! A replica has two threads: the task's, where the engine keeps count of what is in flight, in order, and of the time each
//! record may take; and the loop's, where Python runs. They meet at a [`Bridge`]. The task's thread attaches at no time while it
//! hands records over and takes results: neither waits for the interpreter because of the other.
//!
//! The loop begins when the operator behind the futures opens and ends when it closes: see [`Looped`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;
use sage::{BoxError, CloseContext, DataStream, Emit, Fault, OpenContext, Operator, Order, Pipe, Stream};
use tokio::sync::oneshot;

use crate::Record;
use crate::chain::close;
use crate::error::Raised;
use crate::policies::{Policy, letter};
use crate::steps::{Step, copy, ended, timed};
use crate::thread::{Kept, attach, call};
use crate::value::Value;

/// What a coroutine came to: the values that go on.
type Answer = Result<Vec<Value>, Raised>;

#[derive(Default)]
struct Waiting {
    next: u64,
    begin: Vec<(u64, Value)>,
    cancel: Vec<u64>,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    answered: Vec<(oneshot::Sender<Answer>, Answer)>,
}

/// Where the thread of a task and that of its event loop meet.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Bridge {
    waiting: Mutex<Waiting>,
    /// A byte is in the pipe while this is set, or about to be: the loop has been told that something waits.
    told: AtomicBool,
    reader: PipeReader,
    writer: PipeWriter,
}

impl Bridge {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the loop that something waits.
    fn tell(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            // It cannot be full, and its other end is open as long as this one.
            let _ = (&self.writer).write_all(&[0]);
        }
    }

    /// Keeps the answer for a record until `send`; returns how many are kept.
    fn answer(&self, number: u64, answer: Answer) -> usize {
        let mut waiting = self.waiting();
        // Nobody waits for the answer of a record that was given up.
        if let Some(asked) = waiting.answers.remove(&number) {
            waiting.answered.push((asked, answer));
        }
        waiting.answered.len()
    }
}

#[pymethods]
impl Bridge {
    #[new]
    fn new() -> PyResult<Self> {
        let (reader, writer) = pipe()?;
        Ok(Self { waiting: Mutex::default(), told: AtomicBool::new(false), reader, writer })
    }

    /// The descriptor that is readable while something waits.
    fn fileno(&self) -> i32 {
        self.reader.as_raw_fd()
    }

    /// The records to begin with, each with a number, and the numbers of those that were given up. Waits for nothing.
    #[expect(clippy::type_complexity, reason = "a pair of lists, for Python")]
    fn take<'py>(&self, py: Python<'py>) -> PyResult<(Vec<(u64, Bound<'py, PyAny>)>, Vec<u64>)> {
        if !self.told.load(Ordering::Acquire) {
            return Ok((Vec::new(), Vec::new()));
        }
        (&self.reader).read_exact(&mut [0])?;
        self.told.store(false, Ordering::Release);
        let (begin, cancel) = {
            let mut waiting = self.waiting();
            (std::mem::take(&mut waiting.begin), std::mem::take(&mut waiting.cancel))
        };
        let begin = begin.into_iter().map(|(number, value)| Ok((number, value.into_object(py)?)));
        Ok((begin.collect::<PyResult<_>>()?, cancel))
    }

    /// Answers for a record with what goes on. Returns, as `failed` does, how many answers are to be sent on.
    fn done(&self, number: u64, results: &Bound<'_, PyList>) -> usize {
        self.answer(number, Ok(results.iter().map(|value| Value::Object(value.unbind())).collect()))
    }

    /// Answers for a record with an exception.
    fn failed(&self, py: Python<'_>, number: u64, exception: Bound<'_, PyAny>) -> usize {
        self.answer(number, Err(Raised::new(py, PyErr::from_value(exception), None)))
    }

    /// Sends the answers on to the task. Several at a time, as it is woken for them. Says whether something waits to be taken.
    fn send(&self) -> bool {
        let answered = std::mem::take(&mut self.waiting().answered);
        for (asked, answer) in answered {
            // As in `answer`.
            let _ = asked.send(answer);
        }
        self.told.load(Ordering::Acquire)
    }
}

thread_local! {
    /// The bridge of the task that runs on this thread.
    static BRIDGE: RefCell<Option<Arc<Py<Bridge>>>> = const { RefCell::new(None) };
}

/// A record that was handed over. Dropped before it is answered, it is given up.
struct Asked {
    number: u64,
    bridge: Arc<Py<Bridge>>,
    answer: oneshot::Receiver<Answer>,
    time: i64,
    is_answered: bool,
}

impl Asked {
    fn new(record: Record) -> Result<Self, BoxError> {
        let bridge = BRIDGE.with_borrow(Clone::clone).ok_or("the event loop of an async function is not there")?;
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut waiting = bridge.get().waiting();
            waiting.next += 1;
            let number = waiting.next;
            waiting.begin.push((number, record.value));
            waiting.answers.insert(number, sender);
            number
        };
        bridge.get().tell();
        Ok(Self { number, bridge, answer, time: record.time, is_answered: false })
    }
}

impl Future for Asked {
    type Output = Result<Vec<Record>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        self.is_answered = true;
        let time = self.time;
        let record = |value| Record { time, ..Record::from(value) };
        Poll::Ready(match answer {
            Ok(Ok(values)) => Ok(values.into_iter().map(record).collect()),
            Ok(Err(raised)) => Err(raised.into()),
            Err(_) => Err("the event loop of an async function has ended".into()),
        })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let bridge = self.bridge.get();
        let mut waiting = bridge.waiting();
        if waiting.answers.remove(&self.number).is_some() {
            waiting.begin.retain(|(number, _)| *number != self.number);
            waiting.cancel.push(self.number);
            drop(waiting);
            bridge.tell();
        }
    }
}

/// Stands behind the futures, in their task: begins and ends its event loop, and takes the results of a record apart.
struct Looped {
    /// Makes the runner: an attribute `bridge`, and a method `close()`.
    make: Py<PyAny>,
    runner: Option<Py<PyAny>>,
    thread: Option<Kept>,
}

impl Operator for Looped {
    type In = Vec<Record>;
    type Out = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.thread = Kept::here();
        let bridge = attach(|py| {
            let raised = |exception| Raised::new(py, exception, None);
            let replica = (cx.replica, cx.parallelism).into_pyobject(py).map_err(raised)?;
            let runner = call(self.make.bind(py), &replica, None).map_err(raised)?.unbind();
            let runner = self.runner.insert(runner);
            let bridge = runner.getattr(py, intern!(py, "bridge")).map_err(raised)?;
            bridge.cast_bound::<Bridge>(py).map(|bridge| bridge.clone().unbind()).map_err(|error| raised(error.into()))
        })?;
        BRIDGE.set(Some(Arc::new(bridge)));
        Ok(())
    }

    fn process(&mut self, records: Vec<Record>, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        records.into_iter().try_for_each(|record| out.emit(record))
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        let _until_closed = self.thread.take();
        BRIDGE.set(None);
        attach(|py| self.runner.take().map_or(Ok(()), |runner| close(py, &runner)))
    }
}

/// Ends a step of async functions. A macro, as the types of the streams have no names here.
macro_rules! looped {
    ($py:expr, $stream:expr, $step:expr, $letters:expr) => {{
        let make = $step.make.clone_ref($py);
        let looped = move || Looped { make: copy(&make), runner: None, thread: None };
        let name = format!("functions of {}", $step.name);
        if $letters {
            let (stream, letters) = $stream.dead_letters();
            vec![timed($py, stream.operator(looped).named(name), $step)?, letters.map(letter).boxed()]
        } else {
            vec![timed($py, $stream.operator(looped).named(name), $step)?]
        }
    }};
}

/// Runs async functions on a stream.
pub(crate) fn asynchronous<P: Pipe<Out = Record>>(
    py: Python<'_>,
    stream: Stream<P>,
    step: &Step,
) -> PyResult<Vec<DataStream<Record>>> {
    let order = if step.required(py, "ordered")? { Order::Ordered } else { Order::Unordered };
    let ask = |record: Record| {
        let asked = Asked::new(record);
        async move { asked?.await }
    };
    let stream = stream.try_map_async(step.required(py, "in_flight")?, order, ask);
    let mut stream = stream.named(&*step.name).parallelism(step.parallelism);
    if let Some(limit) = step.seconds(py, "timeout")? {
        stream = stream.timeout(limit);
    }
    let outputs = match Policy::of(py, step)? {
        None => looped!(py, stream, step, false),
        Some(Policy { retry: Some(retry), on_error, letters }) => {
            looped!(py, stream.on_error(on_error).retry(retry), step, letters)
        }
        Some(Policy { on_error, letters, .. }) => looped!(py, stream.on_error(on_error), step, letters),
    };
    ended(py, outputs, step)
}
