//! Async functions, and functions on threads: calls of several records at a time, which the engine awaits.
//!
//! A replica has the task's thread, where the engine keeps count of what is in flight, in order, and of the time each
//! record may take; Python runs on others, of an event loop or of its own. They meet at a [`Bridge`].
//!
//! The caller of the function is made when the operator behind the futures opens, and ends when it closes: see
//! [`Caller`].

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use sage::{
    BoxError, CloseContext, DataStream, Emit, Fatal, Fault, LeftBehind, OpenContext, Operator, Order, Pipe, StopReason,
    Stream,
};
use tokio::sync::oneshot;

use crate::Record;
use crate::bridge::{Answer, Bridge, Refused, in_time};
use crate::error::Raised;
use crate::policies::letter;
use crate::rows::functions_of;
use crate::spec::Seconds;
use crate::steps::{Step, copy};
use crate::thread::{attach, call, call_method};

/// Where the task that runs on this thread has its records worked on.
struct Meeting {
    bridge: Py<Bridge>,
    /// Has the methods `begin_close`, `finish_close` and `blocked`.
    runner: Py<PyAny>,
    /// How long a call that was given up may take to end.
    patience: Duration,
    /// Whether somebody looks if the loop still runs.
    is_watched: AtomicBool,
}

thread_local! {
    static MEETING: RefCell<Option<Arc<Meeting>>> = const { RefCell::new(None) };
}

impl Meeting {
    /// Fails what is in flight if the loop has not taken notice, after a while, that a record was given up: a call
    /// blocks it, and no timeout reaches those behind.
    fn watch(self: &Arc<Self>, number: u64) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let meeting = self.clone();
        runtime.spawn(async move {
            tokio::time::sleep(meeting.patience).await;
            meeting.is_watched.store(false, Ordering::Release);
            if meeting.bridge.get().is_untold(number) {
                let blocked =
                    attach(|py| meeting.runner.call_method0(py, intern!(py, "blocked"))?.extract::<String>(py));
                meeting.bridge.get().is_stuck(&blocked.unwrap_or_else(|_| "its event loop is blocked".to_owned()));
            }
        });
    }
}

/// A record that was handed over, or why it cannot be. Dropped before it is answered, it is given up.
struct Asked {
    asked: Result<InFlight, Option<BoxError>>,
    time: i64,
}

struct InFlight {
    number: u64,
    meeting: Arc<Meeting>,
    answer: oneshot::Receiver<Answer>,
    begun: Arc<OnceLock<Instant>>,
    is_answered: bool,
}

impl Asked {
    fn new(record: Record) -> Self {
        let time = record.time;
        let asked = || -> Result<_, BoxError> {
            let meeting = MEETING.with_borrow(Clone::clone).ok_or("the caller of the function is missing")?;
            let (number, answer, begun) = meeting.bridge.get().ask(record.value).map_err(refused)?;
            Ok(InFlight { number, meeting, answer, begun, is_answered: false })
        };
        Self { asked: asked().map_err(Some), time }
    }

    /// When its call has begun.
    fn begun(&self) -> Option<Instant> {
        self.asked.as_ref().ok()?.begun.get().copied()
    }
}

fn refused(refused: Refused) -> BoxError {
    match refused {
        Refused::Raised(raised) => raised.error(),
        Refused::Stuck(why) => Fatal::new(why).into(),
    }
}

impl Future for Asked {
    type Output = Result<Vec<Record>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let time = self.time;
        let flight = match &mut self.asked {
            Ok(flight) => flight,
            Err(error) => {
                return Poll::Ready(Err(error.take().unwrap_or_else(|| "it was polled after its end".into())));
            }
        };
        let answer = ready!(Pin::new(&mut flight.answer).poll(cx));
        flight.is_answered = true;
        Poll::Ready(match answer {
            Ok(Ok(records)) => Ok(records.into_iter().map(|record| Record { time, ..record }).collect()),
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => Err("the caller of the function has ended".into()),
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.is_answered && self.meeting.bridge.get().give_up(self.number) {
            self.meeting.watch(self.number);
        }
    }
}

/// Stands behind the futures, in their task: begins and ends what calls the function, and takes the results of a record
/// apart.
struct Caller {
    /// Makes the runner: an attribute `bridge`, and the methods that [`Meeting`] and [`Caller::close`] tell of.
    make: Py<PyAny>,
    meeting: Option<Arc<Meeting>>,
}

impl Caller {
    fn meet(&self, cx: &OpenContext) -> Result<Meeting, Raised> {
        attach(|py| {
            let made = || {
                let replica = (cx.replica, cx.parallelism).into_pyobject(py)?;
                let runner = call(self.make.bind(py), &replica, None)?;
                let bridge = runner.getattr(intern!(py, "bridge"))?.cast::<Bridge>()?.clone().unbind();
                let patience = Duration::try_from_secs_f64(runner.getattr(intern!(py, "patience"))?.extract()?);
                let patience = patience.unwrap_or(Duration::MAX);
                Ok(Meeting { bridge, runner: runner.unbind(), patience, is_watched: AtomicBool::new(false) })
            };
            made().map_err(|exception| Raised::new(py, exception, None))
        })
    }
}

impl Operator for Caller {
    type In = Vec<Record>;
    type Out = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let meeting = Arc::new(self.meet(cx)?);
        MEETING.set(Some(meeting.clone()));
        self.meeting = Some(meeting);
        Ok(())
    }

    fn process(&mut self, records: Vec<Record>, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        records.into_iter().try_for_each(|record| out.emit(record))
    }

    /// What the function has left behind is waited for: as long as the runner says, less if the task has to end before.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        MEETING.set(None);
        let Some(meeting) = self.meeting.take() else { return Ok(()) };
        let raised = |exception| attach(|py| Raised::new(py, exception, None));
        let is_cancelled = !matches!(cx.reason(), StopReason::EndOfInput | StopReason::Drain);
        let begin = |py: Python<'_>| {
            call(&meeting.runner.bind(py).getattr("begin_close")?, &(is_cancelled,).into_pyobject(py)?, None)?.extract()
        };
        let patience = attach(begin).map_err(raised)?;
        let begun = Instant::now();
        let patience = Duration::try_from_secs_f64(patience).ok().and_then(|patience| begun.checked_add(patience));
        let mut limit = (None, patience);
        meeting.bridge.get().await_end(|| {
            let (now, deadline) = (Instant::now(), cx.deadline());
            if deadline != limit.0 {
                limit = (deadline, deadline.map(|deadline| in_time(now, deadline)).into_iter().chain(patience).min());
            }
            let end = limit.1.unwrap_or(now + Duration::from_secs(1));
            if now < end {
                cx.wait(end);
            }
            now < end || limit.1.is_none()
        });
        let left = attach(|py| {
            let left = call_method(py, &meeting.runner, "finish_close")?.extract::<Option<String>>();
            // Here, as the descriptors of a bridge are to be closed by now.
            drop(meeting);
            left
        });
        match left.map_err(raised)? {
            None => Ok(()),
            Some(left) => Err(LeftBehind(left).into()),
        }
    }
}

/// Ends a step of async functions. A macro, as the types of the streams have no names here.
macro_rules! called {
    ($stream:expr, $step:expr) => {{
        let make = copy(&$step.make);
        let caller = move || Caller { make: copy(&make), meeting: None };
        let name = functions_of(&$step.name);
        if $step.policy.letters {
            let (stream, letters) = $stream.dead_letters();
            vec![stream.operator(caller).named(name).boxed(), letters.map(letter).boxed()]
        } else {
            vec![$stream.operator(caller).named(name).boxed()]
        }
    }};
}

/// Runs async functions on a stream.
pub(crate) fn asynchronous<P: Pipe<Out = Record>>(
    stream: Stream<P>,
    step: &Step,
    in_flight: usize,
    ordered: bool,
    timeout: Option<Seconds>,
) -> Vec<DataStream<Record>> {
    let order = if ordered { Order::Ordered } else { Order::Unordered };
    let stream = stream.try_map_async(in_flight, order, Asked::new);
    let mut stream = stream.named(&*step.name).parallelism(step.parallelism);
    if let Some(limit) = timeout {
        stream = stream.timeout_since(limit.0, Asked::begun);
    }
    match step.policy.retry() {
        None if step.policy.is_none() => called!(stream, step),
        None => called!(stream.on_error(step.policy.on_error()), step),
        Some(retry) => called!(stream.on_error(step.policy.on_error()).retry(retry), step),
    }
}
