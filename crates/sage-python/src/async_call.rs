//! Calls of services on other threads: see [`future`](crate::future) for what the callers have of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use sage::{CallError, ServiceHandle, ServiceState};

use crate::error::ServiceError;
use crate::service::{Handle, PythonService, refused};
use crate::thread::{self, attach, lock};
use crate::workers::{Begun, MOST_THREADS, Work, Workers, entering, is_worker, leaving, spin_until};

pyo3::import_exception!(concurrent.futures, CancelledError);

/// How often a thread that waits sees to the signals of its program.
const SIGNALS: Duration = Duration::from_millis(100);

/// What is called, and with what.
pub(crate) struct Request {
    /// The number of the service.
    service: usize,
    /// The caller's context variables.
    context: Py<PyAny>,
    /// The service's own choice if `None`.
    method: Option<Py<PyString>>,
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
}

impl Request {
    pub(crate) fn new(
        py: Python<'_>,
        service: usize,
        method: Option<&Bound<'_, PyString>>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        static COPY: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
        let context = COPY.import(py, "contextvars", "copy_context")?.call0()?.unbind();
        let (method, args) = (method.map(|method| method.clone().unbind()), args.clone().unbind());
        Ok(Self { service, context, method, args, kwargs: kwargs.map(|kwargs| kwargs.clone().unbind()) })
    }

    fn call(self, py: Python<'_>, service: &PythonService) -> PyResult<Py<PyAny>> {
        let method = service.method(py, self.method.as_ref().map(|method| method.bind(py)))?;
        let args: Vec<_> = std::iter::once(method).chain(self.args.bind(py).iter()).collect();
        let run = self.context.bind(py).getattr(pyo3::intern!(py, "run"))?;
        let kwargs = self.kwargs.as_ref().map(|kwargs| kwargs.bind(py));
        thread::call(&run, &PyTuple::new(py, args)?, kwargs).map(Bound::unbind)
    }
}

pub(crate) type Answer = PyResult<Py<PyAny>>;
type Inside = Pin<Box<dyn Future<Output = Result<(), CallError>> + Send>>;

/// A function to call when a call is over, and what to call it with.
type Callback = (Py<PyAny>, Py<PyAny>);

/// A call that another thread makes.
pub(crate) struct Call {
    /// The number of the service.
    service: usize,
    stage: Mutex<Stage>,
    ended: Condvar,
    is_over: AtomicBool,
    /// Whether somebody sleeps until it is over. Changes while `stage` is locked.
    is_awaited: AtomicBool,
    /// `None` once they were called.
    callbacks: Mutex<Option<Vec<Callback>>>,
}

enum Stage {
    /// Inside the gate, which keeps the service from being cleaned, and not begun.
    Waiting(Inside),
    Running,
    Ended(Answer),
    /// The program has cancelled it before it was begun.
    Cancelled,
    /// Nobody wants the result, or there will be none.
    Dropped,
}

impl Call {
    /// One that others than this module's make.
    pub(crate) fn running(service: usize) -> Arc<Self> {
        Arc::new(Self::at(service, Stage::Running))
    }

    /// One that is over.
    pub(crate) fn over(service: usize, answer: Answer) -> Arc<Self> {
        let call =
            Self { is_over: true.into(), callbacks: Mutex::new(None), ..Self::at(service, Stage::Ended(answer)) };
        Arc::new(call)
    }

    fn at(service: usize, stage: Stage) -> Self {
        Self {
            service,
            stage: Mutex::new(stage),
            ended: Condvar::new(),
            is_over: false.into(),
            is_awaited: false.into(),
            callbacks: Mutex::new(Some(Vec::new())),
        }
    }

    /// Nobody waits for it any more. If it has not begun, it is not made. The calling thread is attached and holds no
    /// lock, as what is dropped may have the program's objects.
    pub(crate) fn give_up(&self) {
        let mut stage = lock(&self.stage);
        if matches!(*stage, Stage::Waiting(_) | Stage::Running) {
            let before = std::mem::replace(&mut *stage, Stage::Dropped);
            drop(stage);
            drop(before);
        }
    }

    /// Cancels it, unless it has begun; says whether it is cancelled.
    pub(crate) fn cancel(&self, py: Python<'_>) -> bool {
        let mut stage = lock(&self.stage);
        if !matches!(*stage, Stage::Waiting(_)) {
            return matches!(*stage, Stage::Cancelled);
        }
        let before = std::mem::replace(&mut *stage, Stage::Cancelled);
        drop(stage);
        drop(before);
        self.tell();
        self.call_back(py);
        true
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(*lock(&self.stage), Stage::Cancelled)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(*lock(&self.stage), Stage::Running)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// What came of it, when it is over; an error of its own if it was cancelled.
    pub(crate) fn answer(&self, py: Python<'_>) -> PyResult<Answer> {
        match &*lock(&self.stage) {
            Stage::Ended(Ok(value)) => Ok(Ok(value.clone_ref(py))),
            Stage::Ended(Err(error)) => Ok(Err(error.clone_ref(py))),
            Stage::Cancelled => Err(CancelledError::new_err("the call was cancelled before it was begun")),
            Stage::Waiting(_) | Stage::Running | Stage::Dropped => Ok(Err(ServiceError::new_err(NOT_MADE))),
        }
    }

    /// Has a function called when it is over, by the thread that makes it; at once and here if it is.
    pub(crate) fn on_end(&self, py: Python<'_>, callback: Callback) {
        if let Some(callbacks) = &mut *lock(&self.callbacks) {
            callbacks.push(callback);
            return;
        }
        // It is told of right after the others were called.
        py.detach(|| while !self.wait(SIGNALS) {});
        called_back(py, &callback);
    }

    /// It has come to this. Within the call, so that a service waits for what its callers do then.
    pub(crate) fn end(&self, py: Python<'_>, answer: Answer) {
        let mut stage = lock(&self.stage);
        if matches!(*stage, Stage::Running) {
            *stage = Stage::Ended(answer);
            drop(stage);
        } else {
            drop(stage);
            drop(answer);
        }
        self.call_back(py);
    }

    fn call_back(&self, py: Python<'_>) {
        let callbacks = lock(&self.callbacks).take().unwrap_or_default();
        if !callbacks.is_empty() {
            self.tell();
        }
        callbacks.iter().for_each(|callback| called_back(py, callback));
    }

    /// Makes it here and now, if no thread has begun with it: when all workers wait for calls that no worker has taken,
    /// nobody else would.
    pub(crate) fn make_here(&self, py: Python<'_>) {
        if let Some(inside) = self.claim() {
            entering(self.service);
            self.make(py, inside);
            py.detach(|| self.tell());
        }
    }

    /// Takes it to make it, if nobody has and somebody wants it. The calling thread is attached.
    fn claim(&self) -> Option<Inside> {
        let mut stage = lock(&self.stage);
        if !matches!(*stage, Stage::Waiting(_)) {
            return None;
        }
        match std::mem::replace(&mut *stage, Stage::Running) {
            Stage::Waiting(inside) => Some(inside),
            _ => None,
        }
    }

    /// Waits until it is over, for `limit` at most; the calling thread is not attached.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let is_over = || self.is_over();
        if spin_until(is_over) {
            return true;
        }
        let stage = lock(&self.stage);
        self.is_awaited.store(true, Ordering::Relaxed);
        drop(self.ended.wait_timeout_while(stage, limit, |_| !is_over()));
        is_over()
    }

    /// Wakes whoever waits for it.
    pub(crate) fn tell(&self) {
        self.is_over.store(true, Ordering::Release);
        let stage = lock(&self.stage);
        let is_awaited = self.is_awaited.load(Ordering::Relaxed);
        drop(stage);
        if is_awaited {
            self.ended.notify_all();
        }
    }

    /// Makes the call, in one step: see [`begin`].
    fn make(&self, py: Python<'_>, mut inside: Inside) {
        match inside.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => self.end(py, Err(refused(&error))),
            Poll::Pending => unreachable!("it waits for nothing"),
        }
    }
}

/// A program's callback, whose exceptions nobody waits for.
fn called_back(py: Python<'_>, (function, argument): &Callback) {
    let function = function.bind(py);
    let called = PyTuple::new(py, [argument]).and_then(|args| thread::call(function, &args, None));
    if let Err(exception) = called {
        exception.write_unraisable(py, Some(function));
    }
}

impl Work for Call {
    fn run(&self) {
        let is_made = attach(|py| match self.claim() {
            Some(inside) => {
                self.make(py, inside);
                true
            }
            None => {
                leaving();
                false
            }
        });
        // Not while attached: whoever wakes would only wait again, for the interpreter.
        if is_made {
            self.tell();
        }
    }

    fn refuse(&self) {
        attach(|_py| self.give_up());
        self.tell();
        attach(|py| self.call_back(py));
    }

    fn is_wanted(&self) -> bool {
        matches!(*lock(&self.stage), Stage::Waiting(_))
    }

    fn service(&self) -> usize {
        self.service
    }
}

/// Waits for the first time it is polled, and never again.
struct NextTime(bool);

impl Future for NextTime {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Begins a call: this thread goes through the gate, so that its use of the service is noted and a service that stops
/// is refused at once; a worker makes the call, and leaves. A call that has not begun when the service stops is refused
/// as well.
///
/// Where as many calls wait as there may be, this waits until there is room, for `limit` at most; on a worker without a
/// limit it raises.
pub(crate) fn begin(
    py: Python<'_>,
    handle: &Arc<ServiceHandle<PythonService>>,
    workers: &Workers,
    serves: &AtomicBool,
    request: Request,
    limit: Option<Duration>,
    late: impl FnOnce() -> String,
) -> PyResult<Arc<Call>> {
    let (caller, service) = (handle.clone(), request.service);
    let call = Arc::new_cyclic(|made: &Weak<Call>| {
        let made = made.clone();
        let inside = Box::pin(async move {
            let entered = caller.clone();
            let call = async |instance: sage::ServiceRef<PythonService>| {
                NextTime(false).await;
                attach(|py| {
                    let answer = match entered.state() {
                        ServiceState::Ready => {
                            let answer = request.call(py, &instance);
                            if answer.is_err() {
                                entered.note_error();
                            }
                            answer.and_then(|result| Handle::given(&entered, result.into_bound(py)))
                        }
                        state => Err(ServiceError::new_err(format!(
                            "service `{}` is not serving: it is {state}",
                            entered.name()
                        ))),
                    };
                    let call = made.upgrade().expect("whoever makes a call has it");
                    call.end(py, answer);
                });
                // Before the service is left, which the end of a job waits for: so it then waits for this thread, too.
                leaving();
            };
            caller.call_async(call).await
        });
        Call::at(service, Stage::Waiting(inside))
    });
    // Polled once here.
    let enter = || match &mut *lock(&call.stage) {
        Stage::Waiting(inside) => inside.as_mut().poll(&mut Context::from_waker(Waker::noop())),
        _ => unreachable!("nobody else has it"),
    };
    let entered = if serves.load(Ordering::Relaxed) { enter() } else { py.detach(enter) };
    match entered {
        Poll::Ready(Err(error)) => return Err(refused(&error)),
        Poll::Ready(Ok(())) | Poll::Pending => serves.store(true, Ordering::Relaxed),
    }
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        match workers.begin(call.clone()) {
            Begun::Taken => return Ok(call),
            Begun::NoThread => return Err(ServiceError::new_err("no thread could be started for the call")),
            Begun::Over => return Err(ServiceError::new_err(NOT_MADE)),
            Begun::Full => {}
        }
        // Those who make the room wait for room.
        if limit.is_none() && is_worker() {
            return Err(ServiceError::new_err(format!(
                "{MOST_THREADS} calls of services are under way and {} wait for a thread, which is the most; \
                 this call comes from such a call and would wait for itself, so call the service without \
                 `call_service_async`, or make fewer calls at a time",
                workers.most_queued()
            )));
        }
        if handle.state() != ServiceState::Ready {
            return Err(ServiceError::new_err(NOT_MADE));
        }
        match time_left(until) {
            Some(left) => py.detach(|| workers.wait_for_room(left)),
            None => return Err(PyTimeoutError::new_err(late())),
        }
        py.check_signals()?;
    }
}

/// What is said of a call that had to wait, and whose turn did not come.
pub(crate) const NOT_MADE: &str = "the call was not made, because the job is over";

/// How long to wait before looking at signals; `None` when the time is up.
pub(crate) fn time_left(until: Option<Instant>) -> Option<Duration> {
    let left = until.map_or(SIGNALS, |until| until.saturating_duration_since(Instant::now()).min(SIGNALS));
    (!left.is_zero()).then_some(left)
}
