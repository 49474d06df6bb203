//! Answers of a service's `async def` methods: tasks on the event loop of their callers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use sage::Calling;

use super::on_thread::Answered;
use super::request::{Request, context_here};
use crate::error::{Raised, attempt};
use crate::service::PythonService;
use crate::thread::{attach, lock};

/// The moment by which the code at hand has to answer, as a context variable has it.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Deadline {
    deadline: Instant,
    /// When the attempt is past its timeout.
    timeout: Option<Instant>,
}

impl Deadline {
    /// That of an attempt, if it has one.
    pub(super) fn of(calling: &Calling<PythonService>) -> Option<Self> {
        calling.deadline().map(|deadline| Self { deadline, timeout: calling.timeout() })
    }

    /// Sets it in a context.
    pub(super) fn set(self, context: &Bound<'_, PyAny>) -> PyResult<()> {
        let set = variable(context.py())?.getattr(intern!(context.py(), "set"))?;
        context.call_method1(intern!(context.py(), "run"), (set, self)).map(drop)
    }
}

#[pymethods]
impl Deadline {
    /// How many seconds are left until the attempt at hand is past its timeout; `None` if it has none.
    fn until_timeout(&self) -> Option<f64> {
        self.timeout.map(|timeout| timeout.saturating_duration_since(Instant::now()).as_secs_f64())
    }
}

fn variable(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static DEADLINE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    DEADLINE.import(py, "sage._call_policies", "DEADLINE")
}

/// The deadline of the call that the code at hand answers on an event loop.
pub(super) fn deadline_here(py: Python<'_>) -> PyResult<Option<Instant>> {
    let told = variable(py)?.call_method0(intern!(py, "get"))?;
    Ok(told.cast::<Deadline>().ok().map(|told| told.get().deadline))
}

/// A task that answers a call. Polled on its loop's thread. Dropped before it is over, it is cancelled.
pub(super) struct OnLoop {
    task: Py<PyAny>,
    event_loop: Py<PyAny>,
    woken: Arc<Mutex<Option<Waker>>>,
    is_over: bool,
    /// Keeps the service from being cleaned.
    _calling: Calling<PythonService>,
}

impl OnLoop {
    pub(super) fn begin(
        calling: Calling<PythonService>,
        request: &Request,
        event_loop: &Py<PyAny>,
    ) -> Result<Self, Raised> {
        let woken = Arc::new(Mutex::new(None));
        let task = attempt(|py| {
            let coroutine = request.0.call(py, &calling, calling.idempotency_key())?;
            let ensure = py.import(intern!(py, "asyncio"))?.getattr(intern!(py, "ensure_future"))?;
            let options = PyDict::new(py);
            options.set_item(intern!(py, "loop"), event_loop)?;
            let task = match Deadline::of(&calling) {
                None => ensure.call((coroutine,), Some(&options))?,
                Some(deadline) => {
                    let context = context_here(py)?;
                    deadline.set(&context)?;
                    context.call_method(intern!(py, "run"), (ensure, coroutine), Some(&options))?
                }
            };
            task.call_method1(intern!(py, "add_done_callback"), (Done(woken.clone()),))?;
            Ok(task.unbind())
        })?;
        let event_loop = attach(|py| event_loop.clone_ref(py));
        Ok(Self { task, event_loop, woken, is_over: false, _calling: calling })
    }
}

impl Future for OnLoop {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let is_over = attach(|py| self.task.call_method0(py, intern!(py, "done")).and_then(|done| done.is_truthy(py)));
        if matches!(is_over, Ok(false)) {
            let before = lock(&self.woken).replace(cx.waker().clone());
            drop(before);
            return Poll::Pending;
        }
        self.is_over = true;
        Poll::Ready(attempt(|py| self.task.call_method0(py, intern!(py, "result"))))
    }
}

impl Drop for OnLoop {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        attach(|py| {
            let cancel = || {
                let cancel = self.task.getattr(py, intern!(py, "cancel"))?;
                if is_here(py, &self.event_loop)? {
                    return cancel.call0(py);
                }
                self.event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (cancel,))
            };
            // A loop that is closed has no tasks any more.
            cancel().map_or_else(drop, drop);
        });
    }
}

/// Whether this is the thread of an event loop.
pub(super) fn is_here(py: Python<'_>, event_loop: &Py<PyAny>) -> PyResult<bool> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(RUNNING.import(py, "asyncio", "_get_running_loop")?.call0()?.is(event_loop))
}

/// Is called when a task is over.
#[pyclass(frozen, module = "sage._sage")]
struct Done(Arc<Mutex<Option<Waker>>>);

#[pymethods]
impl Done {
    fn __call__(&self, _task: &Bound<'_, PyAny>) {
        let waker = lock(&self.0).take();
        waker.into_iter().for_each(Waker::wake);
    }
}
