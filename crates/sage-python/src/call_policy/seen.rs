//! [`Seen`]: the object of a service with a policy, at which is looked before it is called.

use std::sync::Mutex;

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::ServiceError;
use crate::service::USUAL;
use crate::thread::lock;

/// The objects of a service with a policy, for as long as it lives: a policy looks at a method before it is called.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Option<(Py<PyAny>, Py<PyAny>)>>);

impl Seen {
    /// From now on, these are its hooks and the user's object.
    pub(crate) fn set(&self, objects: Option<(Py<PyAny>, Py<PyAny>)>) {
        // Not dropped while it is locked: they are a program's.
        let before = std::mem::replace(&mut *lock(&self.0), objects);
        drop(before);
    }

    /// The hooks and the user's object. `start` has the service started, where it is not yet.
    fn objects<'py>(
        &self,
        py: Python<'py>,
        start: impl FnOnce() -> PyResult<()>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let there = || lock(&self.0).as_ref().map(|(hooks, it)| (hooks.clone_ref(py), it.clone_ref(py)));
        let objects = match there() {
            Some(objects) => Some(objects),
            None => {
                start()?;
                there()
            }
        };
        let (hooks, instance) = objects.ok_or_else(|| ServiceError::new_err("the service is not serving"))?;
        Ok((hooks.into_bound(py), instance.into_bound(py)))
    }

    /// A method.
    pub(crate) fn method<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
        start: impl FnOnce() -> PyResult<()>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (hooks, instance) = self.objects(py, start)?;
        instance.getattr(name).map_err(|error| explain(&hooks, name, error))
    }

    /// Whether there is such a method.
    pub(crate) fn has(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyString>,
        start: impl FnOnce() -> PyResult<()>,
    ) -> PyResult<bool> {
        self.objects(py, start)?.1.hasattr(name)
    }

    /// The name of the method that a call means which names none.
    pub(crate) fn usual(&self, py: Python<'_>, start: impl FnOnce() -> PyResult<()>) -> PyResult<&'static str> {
        Ok(usual_of(&self.objects(py, start)?.1).unwrap_or(USUAL[0]))
    }
}

/// The first of the usual methods that an object has.
pub(crate) fn usual_of(instance: &Bound<'_, PyAny>) -> Option<&'static str> {
    let is_there = |name: &str| instance.getattr(name).is_ok_and(|method| method.is_callable());
    USUAL.into_iter().find(|name| is_there(name))
}

/// The exception of a call: where it is that there is no such method, it names those that are close.
#[cold]
pub(crate) fn explain(hooks: &Bound<'_, PyAny>, method: &Bound<'_, PyString>, error: PyErr) -> PyErr {
    let py = hooks.py();
    if !error.is_instance_of::<PyAttributeError>(py) {
        return error;
    }
    match hooks.call_method1(intern!(py, "explain"), (method, error.value(py))) {
        Ok(explained) => PyErr::from_value(explained),
        Err(error) => error,
    }
}
