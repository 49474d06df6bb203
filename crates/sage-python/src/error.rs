//! Errors on their way from Python into a job's report, and back.

use pyo3::create_exception;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

create_exception!(_sage, SubmitError, PyRuntimeError, "The pipeline cannot be run as it is declared.");
create_exception!(_sage, ServiceError, PyRuntimeError, "A service does not exist, or does not take calls.");

/// An exception that Python code raised.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Raised {
    /// The exception, with its traceback.
    pub(crate) exception: PyErr,
    message: String,
}

impl Raised {
    /// `function` is the one that raised it, where a task runs several.
    pub(crate) fn new(py: Python<'_>, exception: PyErr, function: Option<String>) -> Self {
        let kind = exception.get_type(py).name().map_or_else(|_| "exception".to_owned(), |name| name.to_string());
        let text = exception.value(py).str().map_or_else(|_| String::new(), |text| text.to_string());
        let mut message = if text.is_empty() { kind } else { format!("{kind}: {text}") };
        if let Some(function) = function {
            message = format!("in `{function}`: {message}");
        }
        Self { exception, message }
    }
}
