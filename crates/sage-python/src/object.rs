//! [`Object`]: a reference to a Python object that a thread of the engine may copy, attached or not.

use std::ops::Deref;

use pyo3::prelude::*;
use sage::OpenContext;

use crate::thread::{attach, call};
use crate::waits::{self, Pause};

/// A Python object, such as what a step makes its functions with for each replica. One that is dropped by a thread that
/// is not attached is released when the next thread attaches.
#[derive(Debug, FromPyObject)]
pub(crate) struct Object(Py<PyAny>);

impl Object {
    /// What the object makes for a replica, by a call.
    pub(crate) fn made<'py>(&self, py: Python<'py>, replica: usize, of: usize) -> PyResult<Bound<'py, PyAny>> {
        call(self.0.bind(py), &(replica, of).into_pyobject(py)?, None)
    }

    /// The same of functions that may be tried again on the task's thread, after a pause.
    pub(crate) fn made_pausing<'py>(&self, py: Python<'py>, cx: &OpenContext) -> PyResult<Bound<'py, PyAny>> {
        waits::enter(cx);
        call(self.0.bind(py), &(cx.replica, cx.parallelism, Pause::of(cx)).into_pyobject(py)?, None)
    }

    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        self.0.into_bound(py)
    }
}

impl Clone for Object {
    fn clone(&self) -> Self {
        attach(|py| Self(self.0.clone_ref(py)))
    }
}

impl Deref for Object {
    type Target = Py<PyAny>;

    fn deref(&self) -> &Py<PyAny> {
        &self.0
    }
}

impl From<Bound<'_, PyAny>> for Object {
    fn from(object: Bound<'_, PyAny>) -> Self {
        Self(object.unbind())
    }
}
