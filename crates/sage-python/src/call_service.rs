//! `call_service("db", x, method="search")`: services called by their names.
//!
//! Like [`Method`](crate::method), a [`Callable`] for the sake of vectorcall. What it does itself is the call that is
//! made for each record: of a service that has been called before, on this thread. All others it leaves to a function
//! of the package.
//!
//! It owns the dict of the job's handles, in which the interpreter's collector would find nothing to follow, and
//! functions of a module, so that it takes no part in collections.

use std::ffi::c_void;
use std::ptr;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::service::Handle;
use crate::vectorcall::{Callable, Called, Stack, returned};

/// Makes what calls the services of these handles. Whatever is no plain call is handed to `others(handles, ..)`, and
/// `call_service[name]` to `item(handles, name)`.
#[pyfunction]
pub(crate) fn caller<'py>(
    py: Python<'py>,
    handles: Py<PyDict>,
    others: Py<PyAny>,
    item: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the type is that of callers.
    unsafe { Callable::make(caller_type(py)?, Caller { handles, others, item }) }
}

/// What is called.
struct Caller {
    handles: Py<PyDict>,
    others: Py<PyAny>,
    item: Py<PyAny>,
}

impl Called for Caller {
    #[inline]
    fn call<'py>(&self, py: Python<'py>, stack: &Stack<'py>) -> PyResult<*mut ffi::PyObject> {
        call_now(py, self, stack).unwrap_or_else(|| call_otherwise(py, self, stack))
    }
}

fn caller_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = TYPE.get_or_try_init(py, || {
        let slots = [(ffi::Py_mp_subscript, subscript as ffi::binaryfunc as *mut c_void)];
        // SAFETY: the function is of the kind that belongs there.
        unsafe { Callable::<Caller>::class(py, c"sage._sage.Caller", &[], &slots) }
    })?;
    Ok(made.bind(py))
}

unsafe extern "C" fn subscript(object: *mut ffi::PyObject, key: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by an attached thread with an object of this type and a key, which its caller keeps alive.
    let (py, caller, key) = unsafe {
        let py = Python::assume_attached();
        (py, &(*object.cast::<Callable<Caller>>()).inner, Bound::from_borrowed_ptr(py, key))
    };
    returned(py, caller.item.bind(py).call1((&caller.handles, key)).map(Bound::into_ptr))
}

/// The call, if it is one of those that are made here.
#[inline]
fn call_now<'py>(py: Python<'py>, caller: &Caller, stack: &Stack<'py>) -> Option<PyResult<*mut ffi::PyObject>> {
    let args = stack.args();
    let (positional, named) = args.split_at(stack.positional);
    let (name, rest) = positional.split_first()?;
    // SAFETY: the arguments and the tuple of their names are alive until the call returns.
    let object = |ptr: &*mut ffi::PyObject| unsafe { Bound::from_borrowed_ptr(py, *ptr) };
    // A key that cannot be one is left to the function for all others, which says so.
    let handle = caller.handles.bind(py).get_item(object(name)).ok()??;
    let handle = handle.cast_into::<Handle>().ok()?;

    let mut method = None;
    // The arguments of the method: a place for its object, and those that are not ours.
    let mut few = [ptr::null_mut(); FEW];
    let mut many = Vec::new();
    let all: &mut [*mut ffi::PyObject] = if args.len() <= FEW {
        &mut few
    } else {
        many.resize(args.len(), ptr::null_mut());
        &mut many
    };
    all[1..=rest.len()].copy_from_slice(rest);
    let mut names = Vec::new();
    let mut end = 1 + rest.len();
    if !named.is_empty() {
        let all_names = object(&stack.names).cast_into::<PyTuple>().ok()?;
        for (name, value) in all_names.iter_borrowed().zip(named) {
            if is_named(&name, intern!(py, "method")) {
                let value = object(value);
                method = if value.is_none() { None } else { Some(value.cast_into::<PyString>().ok()?) };
            } else if is_named(&name, intern!(py, "timeout")) {
                if !object(value).is_none() {
                    return None;
                }
            } else {
                names.push(name.to_owned());
                all[end] = *value;
                end += 1;
            }
        }
    }
    let names = if names.is_empty() { None } else { Some(PyTuple::new(py, names).ok()?) };
    let names = names.as_ref().map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: an array of our own, with a place before the first argument, and the names of the last ones.
    let stack = unsafe {
        let positional = rest.len() | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        Stack::new(py, all.as_mut_ptr().add(1), positional, names)
    };
    handle.get().call_now(py, |service| stack.call(service, method.as_ref().unwrap_or_else(|| service.usual(py))))
}

/// So many arguments need no memory of their own.
const FEW: usize = 8;

/// Whether an argument has this name. Names in a program's text are the same objects as ours.
#[inline]
fn is_named(name: &Borrowed<'_, '_, PyAny>, wanted: &Bound<'_, PyString>) -> bool {
    name.is(wanted) || name.eq(wanted).unwrap_or(false)
}

#[cold]
fn call_otherwise<'py>(py: Python<'py>, caller: &Caller, stack: &Stack<'py>) -> PyResult<*mut ffi::PyObject> {
    let (args, kwargs) = stack.collect()?;
    let all = std::iter::once(caller.handles.bind(py).clone().into_any()).chain(args.iter());
    let args = PyTuple::new(py, all.collect::<Vec<_>>())?;
    caller.others.bind(py).call(args, Some(&kwargs)).map(Bound::into_ptr)
}
