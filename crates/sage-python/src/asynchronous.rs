//! Async functions, and functions on threads: calls of several records at a time, which the engine awaits.
//!
//! A replica has the task's thread, where the engine keeps count of what is in flight, in order, and of the time each
//! record may take; Python runs on others, of an event loop or of its own. They meet at a [`Bridge`].
//!
//! The caller of the function is made when the operator opens, and ends when it closes: see [`Caller`].

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use sage::{
    AsyncFunction, BoxError, CloseContext, DataStream, Fatal, LeftBehind, OpenContext, Order, Pipe, StopReason, Stream,
};
use tokio::sync::oneshot;

use crate::Record;
use crate::bridge::{Answer, Bridge, Refused, in_time};
use crate::error::{Raised, attempt};
use crate::object::Object;
use crate::policies::policed;
use crate::spec::Seconds;
use crate::steps::Step;
use crate::thread::{attach, call, call_method};

/// Where a task has its records worked on.
struct Meeting {
    bridge: Py<Bridge>,
    /// Has the methods `begin_close`, `finish_close`, `blocked` and `hurry`, and afterwards `notes` for the report.
    runner: Py<PyAny>,
    /// How long a call that was given up may take to end.
    patience: Duration,
    /// Whether the runner has to be told of a drain.
    has_pauses: bool,
    /// Whether somebody looks if the loop still runs.
    is_watched: AtomicBool,
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
    fn new(record: Record, meeting: Option<&Arc<Meeting>>) -> Self {
        let time = record.time;
        let asked = || -> Result<_, BoxError> {
            let meeting = meeting.ok_or("the caller of the function is missing")?.clone();
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

/// Begins and ends what calls the function.
#[derive(Clone)]
struct Caller {
    /// Makes the runner: an attribute `bridge`, and the methods that [`Meeting`] and `close` tell of.
    make: Object,
    meeting: Option<Arc<Meeting>>,
}

impl Caller {
    fn meet(&self, cx: &OpenContext) -> Result<Meeting, Raised> {
        attempt(|py| {
            let runner = self.make.made_pausing(py, cx)?;
            let bridge = runner.getattr(intern!(py, "bridge"))?.cast::<Bridge>()?.clone().unbind();
            let patience = Duration::try_from_secs_f64(runner.getattr(intern!(py, "patience"))?.extract()?);
            let patience = patience.unwrap_or(Duration::MAX);
            let has_pauses = runner.getattr(intern!(py, "has_pauses"))?.extract()?;
            Ok(Meeting { bridge, runner: runner.unbind(), patience, has_pauses, is_watched: AtomicBool::new(false) })
        })
    }
}

impl AsyncFunction<Record> for Caller {
    type Out = Vec<Record>;
    type Future = Asked;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        self.meeting = Some(Arc::new(self.meet(cx)?));
        Ok(())
    }

    fn call(&mut self, record: Record) -> Asked {
        Asked::new(record, self.meeting.as_ref())
    }

    fn result(output: Result<Vec<Record>, BoxError>) -> Result<Vec<Record>, BoxError> {
        output
    }

    fn hurry(&mut self) {
        let Some(meeting) = self.meeting.as_ref().filter(|meeting| meeting.has_pauses) else { return };
        // It only sets what is waited for.
        attach(|py| meeting.runner.call_method0(py, intern!(py, "hurry"))).map_or_else(drop, drop);
    }

    /// What the function has left behind is waited for: as long as the runner says, less if the task has to end before.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let Some(meeting) = self.meeting.take() else { return Ok(()) };
        let is_cancelled = !matches!(cx.reason(), StopReason::EndOfInput | StopReason::Drain);
        let patience = attempt(|py| {
            call(&meeting.runner.bind(py).getattr("begin_close")?, &(is_cancelled,).into_pyobject(py)?, None)?.extract()
        })?;
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
        let left = attempt(|py| {
            let left = call_method(py, &meeting.runner, "finish_close")?.extract::<Option<String>>();
            let notes = meeting.runner.getattr(py, intern!(py, "notes"))?.extract::<Vec<String>>(py)?;
            notes.into_iter().for_each(|note| cx.note(note));
            // Here, as the descriptors of a bridge are to be closed by now.
            drop(meeting);
            left
        })?;
        match left {
            None => Ok(()),
            Some(left) => Err(LeftBehind(left).into()),
        }
    }
}

/// Runs async functions on a stream.
pub(crate) fn asynchronous<P: Pipe<Out = Record>>(
    stream: Stream<P>,
    step: &Step,
    replicas: Option<usize>,
    in_flight: usize,
    ordered: bool,
    timeout: Option<Seconds>,
) -> Vec<DataStream<Record>> {
    let order = if ordered { Order::Ordered } else { Order::Unordered };
    let function = Caller { make: step.make.clone(), meeting: None };
    let stream = stream.map_async_with(in_flight, order, function);
    let mut stream = stream.named(&*step.name);
    if let Some(replicas) = replicas {
        stream = stream.parallelism(replicas);
    }
    if let Some(limit) = timeout {
        stream = stream.timeout_since(limit.0, Asked::begun);
    }
    policed(stream, step)
}
