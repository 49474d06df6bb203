//! `call_service("db", x, method="search")`: services called by their names.
//!
//! Like [`Method`](crate::method), a type by hand for the sake of vectorcall. What it does itself is the call that is made for
//! each record: of a service that has been called before, on this thread. All others it leaves to a function of the package.
//!
//! It owns the dict of the job's handles, in which the interpreter's collector would find nothing to follow, and functions of a
//! module, so that it takes no part in collections.

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::service::Handle;
use crate::vectorcall::{Stack, callable_type, member, returned};

/// Makes what calls the services of these handles. Whatever is no plain call is handed to `others(handles, ..)`, and
/// `call_service[name]` to `item(handles, name)`.
#[pyfunction]
pub(crate) fn caller<'py>(
    py: Python<'py>,
    handles: Py<PyDict>,
    others: Py<PyAny>,
    item: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let class = caller_type(py)?.as_type_ptr();
    // SAFETY: the type's objects have the layout of `Caller`.
    let made = unsafe { ffi::PyType_GenericAlloc(class, 0) };
    // SAFETY: a new reference, or null and an exception.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
    let caller = made.as_ptr().cast::<Caller>();
    // SAFETY: the object is new, so that nobody else sees it; its fields hold zeros, which are not dropped by a write.
    unsafe {
        ptr::addr_of_mut!((*caller).vectorcall).write(vectorcall);
        ptr::addr_of_mut!((*caller).handles).write(handles);
        ptr::addr_of_mut!((*caller).others).write(others);
        ptr::addr_of_mut!((*caller).item).write(item);
    }
    Ok(made)
}

/// What is called.
#[repr(C)]
struct Caller {
    head: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    handles: Py<PyDict>,
    others: Py<PyAny>,
    item: Py<PyAny>,
}

fn caller_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = TYPE.get_or_try_init(py, || {
        let members = [member(c"__vectorcalloffset__", ffi::Py_T_PYSSIZET, offset_of!(Caller, vectorcall))];
        let slots = [
            (ffi::Py_tp_dealloc, dealloc as ffi::destructor as *mut c_void),
            (ffi::Py_mp_subscript, subscript as ffi::binaryfunc as *mut c_void),
        ];
        // SAFETY: the member is a field of `Caller` that holds what is said, and the functions are of the kinds that belong there.
        unsafe { callable_type(py, c"sage._sage.Caller", size_of::<Caller>(), &members, &slots) }
    })?;
    Ok(made.bind(py))
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called once, with the last reference to an object of this type, by a thread that is attached. An object whose fields
    // were never written does not exist: `caller` cannot fail between the two. An object of a heap type owns a reference to it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let caller = object.cast::<Caller>();
        ptr::drop_in_place(ptr::addr_of_mut!((*caller).handles));
        ptr::drop_in_place(ptr::addr_of_mut!((*caller).others));
        ptr::drop_in_place(ptr::addr_of_mut!((*caller).item));
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn subscript(object: *mut ffi::PyObject, key: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by an attached thread with an object of this type and a key, which its caller keeps alive.
    let (py, caller, key) = unsafe {
        let py = Python::assume_attached();
        (py, &*object.cast::<Caller>(), Bound::from_borrowed_ptr(py, key))
    };
    returned(py, caller.item.bind(py).call1((&caller.handles, key)).map(Bound::into_ptr))
}

unsafe extern "C" fn vectorcall(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by an attached thread with an object of this type, which its caller keeps alive.
    let (py, caller) = unsafe { (Python::assume_attached(), &*object.cast::<Caller>()) };
    // SAFETY: the caller's own arguments.
    let stack = unsafe { Stack::new(py, args, nargsf, kwnames) };
    if let Some(result) = call_now(py, caller, &stack) {
        return returned(py, result);
    }
    returned(py, call_otherwise(py, caller, &stack))
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

    let mut method = intern!(py, "process").clone();
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
                method = object(value).cast_into::<PyString>().ok()?;
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
    handle.get().call_now(|service| stack.call(service, &method))
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
