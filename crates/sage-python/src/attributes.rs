//! Objects whose attributes are made when they are first asked for.
//!
//! `__getattr__` in a class written in Python would do, or in one of PyO3's; but either makes every attribute slow,
//! those that are there as well, and a handle's are looked up for each call. This type looks them up as any object's
//! are, and only then asks.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::vectorcall::returned;

/// Makes the base of classes with a method `_missing`, which gives an attribute that the object does not have.
pub(crate) fn attributes_type(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let getattro = getattro as ffi::getattrofunc as *mut c_void;
    let mut slots = [
        ffi::PyType_Slot { slot: ffi::Py_tp_getattro, pfunc: getattro },
        ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() },
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    let mut spec = ffi::PyType_Spec {
        name: c"sage._sage.Attributes".as_ptr(),
        basicsize: c_int::try_from(size_of::<ffi::PyObject>()).expect("an object is small"),
        itemsize: 0,
        flags: c_uint::try_from(flags).expect("these flags are of the lower half"),
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is whole, and what it points to is copied, but for the name, which is static. All but the one
    // slot is inherited from `object`, whose objects have the same layout.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec)) }?;
    Ok(made.cast_into::<PyType>()?)
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
