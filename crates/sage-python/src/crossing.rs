//! Calls of a service's method that the loop of a chain makes itself.
//!
//! A call that goes from the interpreter into compiled code and from there into a Python function costs the interpreter
//! twice what one costs that stays within its loop. So where the function of a step is a method of a service, the loop
//! calls the method of the service's object, and a [`Crossing`] is before and behind each call:
//!
//! ```python
//! try: y = f[(+f).name(x)]
//! except BaseException as error: f.failed(error); raise
//! ```
//!
//! `+f` begins the call at the engine's gate, or is refused there, and gives the object; `f[…]` ends it with its
//! result, and `failed` with its exception. Nobody but that loop has the crossing, and none of its functions get the
//! object from it.
//!
//! Where a call may have to wait, `+f` gives something whose methods are those of a handle, and `f[…]` has nothing to
//! do. Like a method, the type takes no part in collections of cycles: nothing that it refers to can get hold of it.

use std::ffi::c_void;
use std::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use sage::{BegunCall, Called};

use crate::method::{self, Binding};
use crate::service::{Handle, PythonService, is_coroutine};
use crate::vectorcall::{self, returned};

/// Such an object.
#[repr(C)]
struct Inner {
    head: PyObject,
    binding: Py<Binding>,
    name: Py<PyString>,
    /// Whose methods are those of a handle.
    others: Py<PyAny>,
    begun: Option<Begun>,
}

/// A call under way.
struct Begun {
    /// Of the handle, which is behind it as it has to be dropped later.
    call: BegunCall<'static, PythonService>,
    handle: Py<Handle>,
}

/// The crossing for a function, if that is a method of a service which may be called through one; and its name.
/// `others` has the methods of a handle.
#[pyfunction]
pub(crate) fn crossing<'py>(
    function: &Bound<'py, PyAny>,
    others: Py<PyAny>,
) -> PyResult<Option<(Bound<'py, PyAny>, Py<PyString>)>> {
    let py = function.py();
    let Some((binding, name)) = method::plain(function)? else { return Ok(None) };
    let class = class(py)?;
    // SAFETY: a new reference, or null and an exception.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class.as_type_ptr(), 0)) }?;
    let inner = made.as_ptr().cast::<Inner>();
    // SAFETY: the object is new, so that nobody else sees it, and of this layout; its fields hold zeros, which are not
    // dropped by a write.
    unsafe {
        ptr::addr_of_mut!((*inner).binding).write(binding);
        ptr::addr_of_mut!((*inner).name).write(name.clone_ref(py));
        ptr::addr_of_mut!((*inner).others).write(others);
        ptr::addr_of_mut!((*inner).begun).write(None);
    }
    Ok(Some((made, name)))
}

/// `+f`.
unsafe extern "C" fn begin(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by an attached thread with an object of this type.
    let (py, inner) = unsafe { (Python::assume_attached(), object.cast::<Inner>()) };
    let begin = || {
        // SAFETY: attached; nothing that is called here comes back to this object.
        let (binding, others) = unsafe { (&(*inner).binding, &(*inner).others) };
        let Some(handle) = Binding::current(binding.bind(py)) else { return Ok(others.clone_ref(py)) };
        // SAFETY: the call is dropped before `handle`, which owns what it borrows, and which never moves it.
        let shared: &'static Handle = unsafe { &*ptr::from_ref(handle.get()) };
        let Some(call) = shared.begin_call() else { return Ok(others.clone_ref(py)) };
        let call = call?;
        let service = call.service().instance.clone_ref(py);
        // SAFETY: as above. What was there had no end, and gets one.
        unsafe { (*inner).begun = Some(Begun { call, handle }) };
        Ok(service)
    };
    returned(py, begin().map(Py::into_ptr))
}

/// Takes the call under way, if there is one. It ends where it began.
///
/// # Safety
/// Called by an attached thread with an object of this type.
#[inline]
unsafe fn take(inner: *mut Inner) -> PyResult<Option<Begun>> {
    // SAFETY: as promised.
    let begun = unsafe { &mut (*inner).begun };
    if begun.as_ref().is_some_and(|begun| !begun.call.is_here()) {
        return Err(PyRuntimeError::new_err("a loop of a job is gone through by its own thread"));
    }
    Ok(begun.take())
}

/// `f[…]`.
unsafe extern "C" fn end(object: *mut PyObject, result: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by an attached thread with an object of this type, and a result that its caller keeps alive.
    unsafe {
        let py = Python::assume_attached();
        let result = Bound::from_borrowed_ptr(py, result);
        let end = || match take(object.cast())? {
            Some(Begun { call, handle }) if is_coroutine(result.as_ptr()) => {
                call.end(Called::GoesOn);
                handle.get().awaited(result)
            }
            Some(Begun { call, handle: _handle }) => {
                call.end(Called::Returned);
                Ok(result)
            }
            None => Ok(result),
        };
        returned(py, end().map(Bound::into_ptr))
    }
}

/// `f.failed(error)`.
unsafe extern "C" fn failed(object: *mut PyObject, error: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by an attached thread with an object of this type, and an exception that its caller keeps alive.
    unsafe {
        let py = Python::assume_attached();
        let error = Bound::from_borrowed_ptr(py, error);
        let end = || {
            let Some(Begun { call, handle: _handle }) = take(object.cast())? else { return Ok(()) };
            let raised = PyErr::from_value(error.clone());
            let explained = call.service().explain(py, (*object.cast::<Inner>()).name.bind(py), raised);
            call.end(Called::Failed);
            // One that is as it was, is raised again by the loop.
            if explained.value(py).is(&error) { Ok(()) } else { Err(explained) }
        };
        returned(py, end().map(|()| py.None().into_ptr()))
    }
}

unsafe extern "C" fn dealloc(object: *mut PyObject) {
    // SAFETY: called once, with the last reference to an object of this type, by an attached thread. An object of a
    // heap type owns a reference to it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let inner = object.cast::<Inner>();
        if let Ok(begun) = take(inner) {
            drop(begun);
            ptr::drop_in_place(ptr::addr_of_mut!((*inner).binding));
            ptr::drop_in_place(ptr::addr_of_mut!((*inner).name));
            ptr::drop_in_place(ptr::addr_of_mut!((*inner).others));
        }
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = TYPE.get_or_try_init(py, || {
        let method = ffi::PyMethodDef {
            ml_name: c"failed".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: failed },
            ml_flags: ffi::METH_O,
            ml_doc: c"failed($self, error, /)\n--\n\nEnds the call that has raised this.".as_ptr(),
        };
        // The type refers to them as long as it lives, which is for ever.
        let methods = Box::leak(Box::new([method, ffi::PyMethodDef::zeroed()]));
        let slots = [
            (ffi::Py_nb_positive, begin as ffi::unaryfunc as *mut c_void),
            (ffi::Py_mp_subscript, end as ffi::binaryfunc as *mut c_void),
            (ffi::Py_tp_dealloc, dealloc as ffi::destructor as *mut c_void),
            (ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        ];
        let flags = ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        // SAFETY: the functions are of the kinds that belong there; the methods live for ever.
        unsafe { vectorcall::class::<Inner>(py, c"sage._sage.Crossing", flags, &slots) }.map(Bound::unbind)
    })?;
    Ok(made.bind(py))
}
