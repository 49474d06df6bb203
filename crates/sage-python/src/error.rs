//! Errors on their way from Python into a job's report, and back.

use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyStopIteration, PyTimeoutError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use sage::{BoxError, CallError, Fatal, HookEnded, RetriesExhausted, Verdict};

use crate::thread::attach;

create_exception!(sage, SubmitError, PyRuntimeError, "The pipeline cannot be run as it is declared.");
create_exception!(sage, ServiceError, PyRuntimeError, "A service does not exist, or does not take calls.");
create_exception!(
    sage._sage,
    NotAwaited,
    PyTypeError,
    "A function returned something to await, and nothing awaits it."
);
create_exception!(sage._sage, CallEnded, ServiceError, "A call of a service has no answer, as the job ends.");
create_exception!(sage, WorkerLost, PyRuntimeError, "A worker process has ended though nobody asked it to.");
create_exception!(
    sage._sage,
    HookOverdue,
    PyTimeoutError,
    "A hook of a service in a process of its own did not end by its deadline, and that process is ended."
);
create_exception!(
    sage._sage,
    StateNotKept,
    PyRuntimeError,
    "The state of a function cannot be kept as its checkpoint."
);

/// An exception that Python code raised.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Raised {
    /// The exception, with its traceback.
    pub(crate) exception: PyErr,
    message: String,
    is_fatal: bool,
    /// How often the function was called, where it was called again.
    attempts: Option<u32>,
}

/// How much of a function's name a message shows.
const NAME_CHARS: usize = 200;

/// Attaches the calling thread, as [`attach`] does, for Python code that may raise.
pub(crate) fn attempt<R>(act: impl for<'py> FnOnce(Python<'py>) -> PyResult<R>) -> Result<R, Raised> {
    attach(|py| act(py).map_err(|exception| Raised::new(py, exception)))
}

impl Raised {
    /// Where a task runs one function only, or it does not matter which.
    pub(crate) fn new(py: Python<'_>, exception: PyErr) -> Self {
        Self::by(py, exception, None)
    }

    /// `function` is the one that raised it, where a task runs several, and with what it was at work, if there is more
    /// to say.
    pub(crate) fn by(py: Python<'_>, exception: PyErr, function: Option<(String, String)>) -> Self {
        let exception = unwrapped(py, exception);
        let kind = exception.get_type(py).name().map_or_else(|_| "exception".to_owned(), |name| name.to_string());
        let text = exception.value(py).str().map_or_else(|_| String::new(), |text| text.to_string());
        let mut message = if text.is_empty() { kind } else { format!("{kind}: {text}") };
        if let Some((function, at)) = function {
            let end = function.char_indices().nth(NAME_CHARS).map(|(end, _)| end);
            let (name, more) = end.map_or((function.as_str(), ""), |end| (&function[..end], "…"));
            message = format!("in `{name}{more}`{at}: {message}");
        }
        // Of the package's own: see `_replica.py`.
        let told = |name| exception.value(py).getattr(name);
        let is_fatal = is_fatal(py, &exception) || told(intern!(py, "_sage_is_fatal")).is_ok();
        let attempts = told(intern!(py, "_sage_attempts")).and_then(|attempts| attempts.extract()).ok();
        Self { exception, message, is_fatal, attempts }
    }

    /// The service whose call has ended with the job, if that is what it tells.
    fn of_the_end(&self, py: Python<'_>) -> Option<String> {
        let is_end = self.exception.is_instance_of::<CallEnded>(py);
        is_end.then(|| self.exception.value(py).getattr(intern!(py, "service")).ok()?.extract().ok()).flatten()
    }

    /// As an error of a hook.
    pub(crate) fn of_hook(self) -> BoxError {
        if attach(|py| self.exception.is_instance_of::<HookOverdue>(py)) {
            return HookEnded(self.message).into();
        }
        self.into()
    }

    /// As an error of a record, of which a policy may say what becomes of it.
    pub(crate) fn error(self) -> BoxError {
        if let Some(service) = attach(|py| self.of_the_end(py)) {
            return CallError::Ended { service }.into();
        }
        let is_fatal = self.is_fatal;
        let error: BoxError = match self.attempts {
            Some(attempts) => RetriesExhausted { attempts, source: BoxError::from(self).into() }.into(),
            None => self.into(),
        };
        if is_fatal { Fatal::new(error).into() } else { error }
    }
}

/// What an error means to a policy, as an exception tells it (see `_verdicts.py`), and after how long the service may
/// be called again.
pub(crate) fn verdict_as_told(verdict: Verdict) -> (&'static str, Option<Duration>) {
    match verdict {
        Verdict::Passing(after) => ("passing", after),
        Verdict::Throttled(after) => ("throttled", after),
        Verdict::Denied => ("denied", None),
        Verdict::Outage => ("outage", None),
        _ => ("bad", None),
    }
}

/// Whether no policy lets it pass: it ends programs, as `SystemExit` and `KeyboardInterrupt` do, or is no fault of the
/// record.
fn is_fatal(py: Python<'_>, exception: &PyErr) -> bool {
    if exception.is_instance_of::<PyException>(py) {
        return exception.is_instance_of::<NotAwaited>(py)
            || exception.is_instance_of::<StateNotKept>(py)
            || exception.is_instance_of::<WorkerLost>(py);
    }
    // A function that gives up a call of its own may raise it; it says nothing of the program.
    exception.get_type(py).name().map_or(true, |name| name != "CancelledError")
}

/// The `StopIteration` that a function raised, where it was a coroutine or a generator: Python puts another exception
/// in its place.
fn unwrapped(py: Python<'_>, exception: PyErr) -> PyErr {
    if exception.get_type(py).is(py.get_type::<PyRuntimeError>())
        && let Some(cause) = exception.cause(py)
        && cause.is_instance_of::<PyStopIteration>(py)
        && exception.value(py).to_string().ends_with("raised StopIteration")
    {
        return cause;
    }
    exception
}
