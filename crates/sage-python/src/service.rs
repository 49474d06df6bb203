//! Services that are Python objects, and the handles their users call them by.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use sage::{BoxError, CallError, HookContext, Service, ServiceHandle};

use crate::error::{Raised, ServiceError};
use crate::thread::{attach, call, call_method};

/// A service in Python.
pub(crate) struct PythonService {
    /// Has the hooks `setup`, `stop` and `cleanup`.
    hooks: Py<PyAny>,
    /// The user's object.
    instance: Py<PyAny>,
}

impl PythonService {
    /// Makes the service by calling the package's factory.
    pub(crate) fn make(factory: &Py<PyAny>) -> Result<Self, BoxError> {
        attach(|py| {
            let make = || {
                let hooks = call(factory.bind(py), &PyTuple::empty(py), None)?.unbind();
                let instance = hooks.getattr(py, intern!(py, "instance"))?;
                Ok(Self { hooks, instance })
            };
            make().map_err(|exception| Raised::new(py, exception, None, None).into())
        })
    }

    fn hook(&self, name: &str) -> Result<(), BoxError> {
        attach(|py| match call_method(py, &self.hooks, name) {
            Ok(_) => Ok(()),
            Err(exception) => Err(Raised::new(py, exception, None, None).into()),
        })
    }
}

impl Service for PythonService {
    fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        self.hook("setup")
    }

    fn stop(&self, _cx: &HookContext) -> Result<(), BoxError> {
        self.hook("stop")
    }

    fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        self.hook("cleanup")
    }
}

/// Calls a service.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Handle {
    handle: ServiceHandle<PythonService>,
    name: String,
    /// Whether a call has come through: from then on, none waits for the service to start.
    serves: AtomicBool,
}

impl Handle {
    pub(crate) fn new(name: String, handle: ServiceHandle<PythonService>) -> Self {
        Self { handle, name, serves: AtomicBool::new(false) }
    }
}

impl Handle {
    /// A call that may have to wait until the service has started, which takes the interpreter.
    #[cold]
    fn first_call<'py>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> Result<PyResult<Bound<'py, PyAny>>, CallError> {
        let (method, args, kwargs) =
            (method.clone().unbind(), args.clone().unbind(), kwargs.map(|kw| kw.clone().unbind()));
        let called = py.detach(|| {
            self.handle.call(|service| {
                attach(|py| {
                    let kwargs = kwargs.as_ref().map(|kwargs| kwargs.bind(py));
                    call(&service.instance.bind(py).getattr(method)?, args.bind(py), kwargs).map(Bound::unbind)
                })
            })
        })?;
        self.serves.store(true, Ordering::Relaxed);
        Ok(called.map(|result| result.into_bound(py)))
    }
}

#[pymethods]
impl Handle {
    /// The service's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Calls a method of the service, on this thread. What it raises is raised here.
    #[pyo3(signature = (method, args, kwargs=None))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call =
            |py: Python<'py>, service: &PythonService| call(&service.instance.bind(py).getattr(method)?, args, kwargs);
        let called = if self.serves.load(Ordering::Relaxed) {
            self.handle.call(|service| call(py, service))
        } else {
            self.first_call(py, method, args, kwargs)
        };
        called.unwrap_or_else(|error| Err(ServiceError::new_err(error.to_string())))
    }

    fn __repr__(&self) -> String {
        format!("<service {}>", self.name)
    }
}
