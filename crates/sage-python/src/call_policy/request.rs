//! [`Request`]: a call as the engine's policy has it, which may make it several times and anywhere.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::answer::{Form, idempotency_key};
use super::keep::Keeping;
use crate::service::PythonService;
use crate::thread::call;

/// A call. Clones are the same call.
#[derive(Clone)]
pub(crate) struct Request(pub(crate) Arc<Asked>);

/// What is called, with what, and from where.
pub(crate) struct Asked {
    pub(crate) method: Py<PyString>,
    pub(crate) args: Py<PyTuple>,
    pub(crate) kwargs: Option<Py<PyDict>>,
    pub(crate) place: Place,
    /// The caller's context variables, where another thread may have to make the call.
    pub(crate) context: Option<Py<PyAny>>,
    /// What it costs in its batch.
    pub(crate) cost: u64,
    /// What is spent on it, as far as that is known before.
    pub(crate) price: f64,
    /// How its answer is kept, if it is.
    pub(crate) kept: Option<(Arc<Keeping>, Form)>,
    /// Whether its method takes the call's idempotency key.
    pub(crate) takes_key: bool,
}

/// Where a call is awaited.
pub(crate) enum Place {
    /// On the thread of a caller that waits for it, and may make the call itself.
    Thread,
    /// On an event loop.
    Loop(Py<PyAny>),
}

/// A copy of the calling thread's context variables.
pub(crate) fn context_here(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COPY.import(py, "contextvars", "copy_context")?.call0()
}

impl Asked {
    /// Calls the method on this thread, and in this context.
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        service: &PythonService,
        key: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let method = service.method(py, Some(self.method.bind(py)))?;
        call(&method, self.args.bind(py), self.keywords(py, key)?.as_ref())
    }

    /// Calls it in another context.
    pub(crate) fn call_within<'py>(
        &self,
        context: &Bound<'py, PyAny>,
        service: &PythonService,
        key: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = context.py();
        let method = service.method(py, Some(self.method.bind(py)))?;
        let all: Vec<_> = std::iter::once(method).chain(self.args.bind(py).iter()).collect();
        let kwargs = self.keywords(py, key)?;
        call(&context.getattr(intern!(py, "run"))?, &PyTuple::new(py, all)?, kwargs.as_ref())
    }

    /// The keywords, with the call's idempotency key where the method takes one and the caller gave none.
    fn keywords<'py>(&self, py: Python<'py>, key: Option<String>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let given = self.kwargs.as_ref().map(|kwargs| kwargs.bind(py));
        let Some(key) = key.filter(|_| self.takes_key) else { return Ok(given.cloned()) };
        let kwargs = given.map_or_else(|| Ok(PyDict::new(py)), |given| given.copy())?;
        if !kwargs.contains(idempotency_key(py))? {
            kwargs.set_item(idempotency_key(py), key)?;
        }
        Ok(Some(kwargs))
    }
}
