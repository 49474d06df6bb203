//! Objects whose attributes are made when they are first asked for.
//!
//! `__getattr__` in a class written in Python would do, or in one of PyO3's; but either makes every attribute slow,
//! those that are there as well, and a handle's are looked up for each call. This type looks them up as any object's
//! are, and only then asks. A method of a service it finds at once where it is the one that was asked for last.

use std::ffi::c_void;

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi::{self, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::method::is_method;
use crate::vectorcall::{class, returned};

/// Such an object.
#[repr(C)]
struct Inner {
    head: PyObject,
    /// The method that was asked for last, and the very text that named it; or null twice. Owned. One that is deleted
    /// meanwhile would only be made again.
    name: *mut PyObject,
    method: *mut PyObject,
}

/// Makes the base of classes with a method `_missing`, which gives an attribute that the object does not have.
pub(crate) fn attributes_type(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let slots = [
        (ffi::Py_tp_getattro, getattro as ffi::getattrofunc as *mut c_void),
        (ffi::Py_tp_dealloc, dealloc as ffi::destructor as *mut c_void),
    ];
    // SAFETY: all but the two slots is inherited from `object`, whose objects have the same layout at their begin.
    unsafe { class::<Inner>(py, c"sage._sage.Attributes", ffi::Py_TPFLAGS_BASETYPE, &slots) }
}

unsafe extern "C" fn getattro(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    let inner = object.cast::<Inner>();
    // SAFETY: called by an attached thread with an object of this type, or of one below it, and a name.
    unsafe {
        if (*inner).name == name {
            ffi::Py_INCREF((*inner).method);
            return (*inner).method;
        }
        let there = ffi::PyObject_GenericGetAttr(object, name);
        let there = if there.is_null() { missing(object, name) } else { there };
        if !there.is_null() && is_method(Python::assume_attached(), there) {
            ffi::Py_INCREF(name);
            ffi::Py_INCREF(there);
            let before = (std::mem::replace(&mut (*inner).name, name), std::mem::replace(&mut (*inner).method, there));
            ffi::Py_XDECREF(before.0);
            ffi::Py_XDECREF(before.1);
        }
        there
    }
}

unsafe extern "C" fn dealloc(object: *mut PyObject) {
    // SAFETY: called once, with the last reference to an object of this type or of one below it, by an attached thread.
    // An object of a heap type owns a reference to it.
    unsafe {
        let (class, inner) = (ffi::Py_TYPE(object), object.cast::<Inner>());
        ffi::Py_XDECREF((*inner).name);
        ffi::Py_XDECREF((*inner).method);
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

#[cold]
fn missing(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
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
