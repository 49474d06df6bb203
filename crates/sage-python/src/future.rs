//! Calls of services on other threads, and their futures.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use sage::{CallError, ServiceHandle, ServiceState};

use crate::error::ServiceError;
use crate::service::{PythonService, refused};
use crate::thread::{self, attach, lock};
use crate::workers::{Begun, MOST_THREADS, Work, Workers, entering, is_worker, leaving, spin_until};

/// How often a thread that waits sees to the signals of its program.
const SIGNALS: Duration = Duration::from_millis(100);

/// What is called, and with what.
pub(crate) struct Request {
    /// The number of the service.
    service: usize,
    /// The caller's context variables.
    context: Py<PyAny>,
    method: Py<PyString>,
    args: Py<PyTuple>,
    kwargs: Option<Py<PyDict>>,
}

impl Request {
    pub(crate) fn new(
        py: Python<'_>,
        service: usize,
        method: &Bound<'_, PyString>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        static COPY: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
        let context = COPY.import(py, "contextvars", "copy_context")?.call0()?.unbind();
        let (method, args) = (method.clone().unbind(), args.clone().unbind());
        Ok(Self { service, context, method, args, kwargs: kwargs.map(|kwargs| kwargs.clone().unbind()) })
    }

    fn call(self, py: Python<'_>, service: &PythonService) -> PyResult<Py<PyAny>> {
        let method = service.method(py, self.method.bind(py))?;
        let args: Vec<_> = std::iter::once(method).chain(self.args.bind(py).iter()).collect();
        let run = self.context.bind(py).getattr(pyo3::intern!(py, "run"))?;
        let kwargs = self.kwargs.as_ref().map(|kwargs| kwargs.bind(py));
        thread::call(&run, &PyTuple::new(py, args)?, kwargs).map(Bound::unbind)
    }
}

type Answer = PyResult<Py<PyAny>>;
type Inside = Pin<Box<dyn Future<Output = Result<Answer, CallError>> + Send>>;

/// A call that another thread makes.
pub(crate) struct Call {
    /// The number of the service.
    service: usize,
    stage: Mutex<Stage>,
    ended: Condvar,
    is_over: AtomicBool,
    /// Whether somebody sleeps until it is over. Changes while `stage` is locked.
    is_awaited: AtomicBool,
}

enum Stage {
    /// Inside the gate, which keeps the service from being cleaned, and not begun.
    Waiting(Inside),
    Running,
    Ended(Answer),
    /// Nobody wants the result, or there will be none.
    Dropped,
}

impl Call {
    /// Nobody waits for it any more. If it has not begun, it is not made. The calling thread is attached and holds no
    /// lock, as what is dropped may have the program's objects.
    fn give_up(&self) {
        let mut stage = lock(&self.stage);
        if matches!(*stage, Stage::Waiting(_) | Stage::Running) {
            let before = std::mem::replace(&mut *stage, Stage::Dropped);
            drop(stage);
            drop(before);
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
    fn wait(&self, limit: Duration) -> bool {
        let is_over = || self.is_over.load(Ordering::Acquire);
        if spin_until(is_over) {
            return true;
        }
        let stage = lock(&self.stage);
        self.is_awaited.store(true, Ordering::Relaxed);
        drop(self.ended.wait_timeout_while(stage, limit, |_| !is_over()));
        is_over()
    }

    /// Wakes whoever waits for it.
    fn tell(&self) {
        self.is_over.store(true, Ordering::Release);
        let stage = lock(&self.stage);
        let is_awaited = self.is_awaited.load(Ordering::Relaxed);
        drop(stage);
        if is_awaited {
            self.ended.notify_all();
        }
    }

    /// Makes the call, in one step: see [`begin`].
    fn make(&self, mut inside: Inside) {
        let result = match inside.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(result)) => result,
            Poll::Ready(Err(error)) => Err(refused(&error)),
            Poll::Pending => unreachable!("it waits for nothing"),
        };
        let mut stage = lock(&self.stage);
        if matches!(*stage, Stage::Running) {
            *stage = Stage::Ended(result);
        } else {
            drop(stage);
            drop(result);
        }
    }
}

impl Work for Call {
    fn run(&self) {
        let is_made = attach(|_py| match self.claim() {
            Some(inside) => {
                self.make(inside);
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
    let mut inside: Inside = Box::pin(async move {
        let entered = caller.clone();
        let call = async |instance: sage::ServiceRef<PythonService>| {
            NextTime(false).await;
            if entered.state() != ServiceState::Ready {
                leaving();
                return Err(ServiceError::new_err(format!(
                    "service `{}` is not serving: it is {}",
                    entered.name(),
                    entered.state()
                )));
            }
            let result = attach(|py| request.call(py, &instance));
            // Before the service is left, which the end of a job waits for: so it then waits for this thread, too.
            leaving();
            result
        };
        caller.call_async(call).await
    });
    // Polled once here.
    let mut enter = || inside.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let entered = if serves.load(Ordering::Relaxed) { enter() } else { py.detach(enter) };
    match entered {
        Poll::Ready(Err(error)) => return Err(refused(&error)),
        Poll::Ready(Ok(_)) | Poll::Pending => serves.store(true, Ordering::Relaxed),
    }
    let call = Arc::new(Call {
        service,
        stage: Mutex::new(Stage::Waiting(inside)),
        ended: Condvar::new(),
        is_over: false.into(),
        is_awaited: false.into(),
    });
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
const NOT_MADE: &str = "the call was not made, because the job is over";

/// How long to wait before looking at signals; `None` when the time is up.
fn time_left(until: Option<Instant>) -> Option<Duration> {
    let left = until.map_or(SIGNALS, |until| until.saturating_duration_since(Instant::now()).min(SIGNALS));
    (!left.is_zero()).then_some(left)
}

/// What becomes of a call on another thread.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct ServiceFuture {
    pub(crate) call: Arc<Call>,
    /// What is said of it when the time is up, but for the time.
    pub(crate) what: String,
    pub(crate) timeout: Option<f64>,
}

/// The timeout, if a call could keep it.
pub(crate) fn check_timeout(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let refuse = |seconds: f64| {
        PyValueError::new_err(format!("a timeout is more than 0 seconds, not {seconds}; leave it out for none"))
    };
    match timeout {
        None => Ok(None),
        Some(seconds) if seconds > 0.0 => Ok(Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))),
        Some(seconds) => Err(refuse(seconds)),
    }
}

/// The result of a call, when it is over. Where that takes longer than `timeout` allows, the call goes on, if it has
/// begun, and its result is dropped if `gives_up`.
pub(crate) fn result(
    py: Python<'_>,
    call: &Call,
    timeout: Option<Duration>,
    gives_up: bool,
    late: impl FnOnce() -> String,
) -> PyResult<Py<PyAny>> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // When all workers wait for calls that no worker has taken, nobody else would make them.
    if timeout.is_none()
        && is_worker()
        && let Some(inside) = call.claim()
    {
        entering(call.service);
        call.make(inside);
        py.detach(|| call.tell());
    }
    while !call.is_over.load(Ordering::Acquire) {
        match time_left(until) {
            Some(left) if py.detach(|| call.wait(left)) => break,
            Some(_) => {}
            None => {
                if gives_up {
                    call.give_up();
                }
                return Err(PyTimeoutError::new_err(late()));
            }
        }
        py.check_signals()?;
    }
    match &*lock(&call.stage) {
        Stage::Ended(Ok(value)) => Ok(value.clone_ref(py)),
        Stage::Ended(Err(error)) => Err(error.clone_ref(py)),
        _ => Err(ServiceError::new_err(NOT_MADE)),
    }
}

#[pymethods]
impl ServiceFuture {
    /// Whether the call has ended.
    fn done(&self) -> bool {
        self.call.is_over.load(Ordering::Acquire)
    }

    /// What the service returned; waits for it for ``timeout`` seconds, or those given to the call. Raises what it
    /// raised, or ``TimeoutError``.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let timeout = timeout.or(self.timeout);
        let late = || format!("{} within {} s", self.what, timeout.unwrap_or_default());
        result(py, &self.call, check_timeout(timeout)?, false, late)
    }
}
