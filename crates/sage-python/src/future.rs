//! The futures of calls on other threads: `ServiceFuture`, which behaves as Python's `concurrent.futures.Future` does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;

use crate::async_call::{Answer, Call, time_left};
use crate::workers::is_worker;

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

/// What came of a call, when it is over. Where that takes longer than `timeout` allows, the call goes on, if it has
/// begun, and its result is dropped if `gives_up`.
pub(crate) fn answer(
    py: Python<'_>,
    call: &Call,
    timeout: Option<Duration>,
    gives_up: bool,
    late: impl FnOnce() -> String,
) -> PyResult<Answer> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    if timeout.is_none() && is_worker() {
        call.make_here(py);
    }
    while !call.is_over() {
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
    call.answer(py)
}

impl ServiceFuture {
    fn answer(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Answer> {
        let timeout = timeout.or(self.timeout);
        let late = || format!("{} within {} s", self.what, timeout.unwrap_or_default());
        answer(py, &self.call, check_timeout(timeout)?, false, late)
    }
}

#[pymethods]
impl ServiceFuture {
    /// Whether the call has ended, or was cancelled.
    fn done(&self) -> bool {
        self.call.is_over()
    }

    /// Whether the call is being made.
    fn running(&self) -> bool {
        self.call.is_running()
    }

    /// Cancels the call, unless it has begun. Says whether it is cancelled.
    fn cancel(&self, py: Python<'_>) -> bool {
        self.call.cancel(py)
    }

    /// Whether the call was cancelled.
    fn cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// What the service returned; waits for it for ``timeout`` seconds, or those given to the call. Raises what it
    /// raised, ``TimeoutError``, or ``concurrent.futures.CancelledError``.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.answer(py, timeout)?
    }

    /// What the service raised, or ``None``; waits as ``result`` does.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.answer(py, timeout)?.err().map(|error| error.into_value(py).into_any()))
    }

    /// Has ``fn(future)`` called when the call has ended or is cancelled: by the thread that makes the call, as a part
    /// of it; at once if it has ended already. What it raises is given to ``sys.unraisablehook``.
    #[pyo3(signature = (r#fn, /))]
    fn add_done_callback(slf: &Bound<'_, Self>, r#fn: Bound<'_, PyAny>) {
        slf.get().call.on_end(slf.py(), (r#fn.unbind(), slf.clone().into_any().unbind()));
    }
}
