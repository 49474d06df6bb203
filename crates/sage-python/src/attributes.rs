//! Objects whose attributes are made when they are first asked for.
//!
//! `__getattr__` in a class written in Python would do, or in one of PyO3's; but either makes every attribute slow,
//! those that are there as well, and a handle's are looked up for each call. This type looks them up as any object's
//! are, and only then asks.

use std::ffi::c_void;

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::vectorcall::{class, returned};

/// Makes the base of classes with a method `_missing`, which gives an attribute that the object does not have.
pub(crate) fn attributes_type(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let slots = [(ffi::Py_tp_getattro, getattro as ffi::getattrofunc as *mut c_void)];
    // SAFETY: all but the one slot is inherited from `object`, whose objects have the same layout.
    unsafe { class::<ffi::PyObject>(py, c"sage._sage.Attributes", ffi::Py_TPFLAGS_BASETYPE, &slots) }
}

unsafe extern "C" fn getattro(object: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: passed on as it came.
    let there = unsafe { ffi::PyObject_GenericGetAttr(object, name) };
    if there.is_null() { missing(object, name) } else { there }
}

#[cold]
fn missing(object: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by an attached thread with an object and the name of an attribute, which the caller of `getattro`
    // keeps alive.
    let (py, object, name) = unsafe {
        let py = Python::assume_attached();
        (py, Bound::from_borrowed_ptr(py, object), Bound::from_borrowed_ptr(py, name))
    };
    let error = PyErr::fetch(py);
    let make = || {
        if !error.is_instance_of::<PyAttributeError>(py) {
            return Err(error);
        }
        // Of the class: asking the object would lead here again.
        object.get_type().getattr(intern!(py, "_missing"))?.call1((&object, name))
    };
    returned(py, make().map(Bound::into_ptr))
}
