//! Methods of services, as objects that are called as fast as a function.
//!
//! A class of PyO3's is called with a tuple and a dict, which are made for each call. A type of CPython's own may offer
//! *vectorcall* instead: it is called with the arguments as they lie on the interpreter's stack. [`Method`] is such a type,
//! written by hand: it puts the service's object before the arguments, goes through the engine's gate, and calls on.
//!
//! Ownership is free of cycles that the interpreter's collector could have seen: a method owns its name and a [`Binding`], a
//! binding the engine's handle, for as long as a job runs. So the type takes no part in collections.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_uint, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::error::ServiceError;
use crate::service::{Handle, PythonService};

/// Which job's service a handle means at the moment.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Binding {
    name: String,
    handle: UnsafeCell<Option<Py<Handle>>>,
}

// SAFETY: `handle` is only touched within a critical section of the object, in `replace` and `current`; where there is a global
// lock, that is what holding it means.
unsafe impl Sync for Binding {}

impl Binding {
    /// The handle of the current job's service.
    fn current(this: &Bound<'_, Self>) -> Option<Py<Handle>> {
        // SAFETY: nothing else touches the field, as said above, and copying a reference runs no other code.
        with_critical_section(this, || unsafe { &*this.get().handle.get() }.as_ref().map(|h| h.clone_ref(this.py())))
    }

    fn replace(this: &Bound<'_, Self>, handle: Option<Py<Handle>>, only: Option<&Bound<'_, Handle>>) {
        let before = with_critical_section(this, || {
            // SAFETY: nothing else touches the field, and what was there is released only afterwards.
            let place = unsafe { &mut *this.get().handle.get() };
            if only.is_some_and(|only| place.as_ref().is_none_or(|place| !place.is(only))) {
                return None;
            }
            std::mem::replace(place, handle)
        });
        drop(before);
    }
}

#[pymethods]
impl Binding {
    #[new]
    #[pyo3(signature = (name, handle=None))]
    fn new(name: String, handle: Option<Py<Handle>>) -> Self {
        Self { name, handle: UnsafeCell::new(handle) }
    }

    /// The service's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// From now on, the service of this job is meant.
    fn bind(this: &Bound<'_, Self>, handle: Py<Handle>) {
        Self::replace(this, Some(handle), None);
    }

    /// The job is over. Does nothing where another job's service is meant by now.
    fn unbind(this: &Bound<'_, Self>, handle: &Bound<'_, Handle>) {
        Self::replace(this, None, Some(handle));
    }

    /// A method of the service, whichever job's that is when it is called. With `timeout`, in seconds, another thread calls it.
    #[pyo3(signature = (name, timeout=None))]
    fn method<'py>(this: &Bound<'py, Self>, name: &str, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        Method::make(this.clone().unbind(), PyString::intern(this.py(), name).unbind(), timeout)
            .map(|made| made.into_bound(this.py()))
    }
}

/// A method of a service.
#[repr(C)]
struct Method {
    head: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    binding: Py<Binding>,
    name: Py<PyString>,
    timeout: Option<f64>,
}

impl Method {
    fn make(binding: Py<Binding>, name: Py<PyString>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        Python::attach(|py| {
            let class = method_type(py)?.as_type_ptr();
            // SAFETY: the type is one of ours, whose objects have the layout of `Method`.
            let made = unsafe { ffi::PyType_GenericAlloc(class, 0) };
            // SAFETY: a new reference, or null and an exception.
            let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
            let method = made.as_ptr().cast::<Self>();
            // SAFETY: the object is new, so that nobody else sees it; its fields hold zeros, which are not dropped by a write.
            unsafe {
                ptr::addr_of_mut!((*method).vectorcall).write(vectorcall);
                ptr::addr_of_mut!((*method).binding).write(binding);
                ptr::addr_of_mut!((*method).name).write(name);
                ptr::addr_of_mut!((*method).timeout).write(timeout);
            }
            Ok(made.unbind())
        })
    }
}

fn method_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = TYPE.get_or_try_init(py, || {
        let member = |name: &'static std::ffi::CStr, type_code, offset| ffi::PyMemberDef {
            name: name.as_ptr(),
            type_code,
            offset: ffi::Py_ssize_t::try_from(offset).expect("an object is small"),
            flags: ffi::Py_READONLY,
            doc: ptr::null(),
        };
        let mut members = [
            member(c"__vectorcalloffset__", ffi::Py_T_PYSSIZET, offset_of!(Method, vectorcall)),
            member(c"__name__", ffi::Py_T_OBJECT_EX, offset_of!(Method, name)),
            ffi::PyMemberDef::default(),
        ];
        let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
        let mut slots = [
            slot(ffi::Py_tp_dealloc, dealloc as ffi::destructor as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as ffi::ternaryfunc as *mut c_void),
            slot(ffi::Py_tp_repr, repr as ffi::reprfunc as *mut c_void),
            slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
            slot(0, ptr::null_mut()),
        ];
        let flags = ffi::Py_TPFLAGS_DEFAULT
            | ffi::Py_TPFLAGS_HAVE_VECTORCALL
            | ffi::Py_TPFLAGS_IMMUTABLETYPE
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        let mut spec = ffi::PyType_Spec {
            name: c"sage._sage.Method".as_ptr(),
            basicsize: c_int::try_from(size_of::<Method>()).expect("an object is small"),
            itemsize: 0,
            flags: c_uint::try_from(flags).expect("these flags are of the lower half"),
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: the spec is whole; what it points to is copied, but for the names, which are static. Each slot holds a function of
        // the kind that belongs there.
        let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec)) }?;
        Ok::<_, PyErr>(made.cast_into::<PyType>()?.unbind())
    })?;
    Ok(made.bind(py))
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called once, with the last reference to an object of this type, by a thread that is attached. An object whose fields
    // were never written does not exist: `make` cannot fail between the two. An object of a heap type owns a reference to it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let method = object.cast::<Method>();
        ptr::drop_in_place(ptr::addr_of_mut!((*method).binding));
        ptr::drop_in_place(ptr::addr_of_mut!((*method).name));
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by an attached thread with an object of this type.
    let (py, method) = unsafe { (Python::assume_attached(), &*object.cast::<Method>()) };
    let (service, name) = (&method.binding.get().name, method.name.bind(py));
    PyString::new(py, &format!("<method {name} of service {service}>")).into_ptr()
}

unsafe extern "C" fn vectorcall(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by an attached thread with an object of this type, which its caller keeps alive.
    let (py, method) = unsafe { (Python::assume_attached(), &*object.cast::<Method>()) };
    // SAFETY: the caller's own arguments.
    let stack = unsafe { Stack::new(py, args, nargsf, kwnames) };
    let current = Binding::current(method.binding.bind(py));
    if let Some(handle) = &current
        && method.timeout.is_none()
        && let Some(result) = handle.get().call_now(|service| stack.call(service, method.name.bind(py)))
    {
        return returned(py, result);
    }
    returned(py, call_slowly(py, method, current.as_ref(), &stack).map(Bound::into_ptr))
}

/// A result as the interpreter wants it: a new reference, or null and an exception.
#[inline]
fn returned(py: Python<'_>, result: PyResult<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    result.unwrap_or_else(|error| {
        error.restore(py);
        ptr::null_mut()
    })
}

/// A call that may have to wait, or be refused.
#[cold]
fn call_slowly<'py>(
    py: Python<'py>,
    method: &Method,
    current: Option<&Py<Handle>>,
    stack: &Stack<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(handle) = current else {
        let service = &method.binding.get().name;
        return Err(ServiceError::new_err(format!(
            "service `{service}` can be called while a job of its environment runs: from its functions and services, or between \
             `submit()` and `stop()`"
        )));
    };
    let (args, kwargs) = stack.collect()?;
    handle.get().call(py, method.name.bind(py), &args, Some(&kwargs), method.timeout)
}

/// The arguments of a call, where the interpreter put them. It does not outlive the call.
struct Stack<'py> {
    py: Python<'py>,
    /// The positional ones, and then the others.
    args: *const *mut ffi::PyObject,
    all: usize,
    positional: usize,
    /// The place before the first argument is ours while the call lasts.
    has_place: bool,
    /// The names of those that have one: a tuple of strings, or null.
    names: *mut ffi::PyObject,
}

impl<'py> Stack<'py> {
    /// # Safety
    /// What a function was called with by vectorcall; it has not returned yet.
    unsafe fn new(py: Python<'py>, args: *const *mut ffi::PyObject, nargsf: usize, names: *mut ffi::PyObject) -> Self {
        let positional = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: null or a tuple, by the protocol.
        let named = if names.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(names) }.unsigned_abs() };
        let has_place = nargsf & ffi::PY_VECTORCALL_ARGUMENTS_OFFSET != 0;
        Self { py, args, all: positional + named, positional, has_place, names }
    }

    fn args(&self) -> &[*mut ffi::PyObject] {
        if self.all == 0 {
            return &[];
        }
        // SAFETY: by the protocol so many arguments are there until the call returns.
        unsafe { std::slice::from_raw_parts(self.args, self.all) }
    }

    /// Calls a method of the service with these arguments; returns a new reference, or null and an exception.
    #[inline]
    fn call(&self, service: &PythonService, name: &Bound<'py, PyString>) -> *mut ffi::PyObject {
        let instance = service.instance.as_ptr();
        let result = if self.has_place {
            let first = self.args.cast_mut().wrapping_sub(1);
            // SAFETY: the protocol lends the place before the arguments, to be given back as it was. All references are
            // borrowed: the first from the service, which the gate keeps, the others from the caller.
            unsafe {
                let before = first.replace(instance);
                let result = ffi::PyObject_VectorcallMethod(name.as_ptr(), first, self.positional + 1, self.names);
                first.write(before);
                result
            }
        } else {
            let all: Vec<_> = std::iter::once(instance).chain(self.args().iter().copied()).collect();
            // SAFETY: as above, with the arguments in a place of our own.
            unsafe { ffi::PyObject_VectorcallMethod(name.as_ptr(), all.as_ptr(), self.positional + 1, self.names) }
        };
        if result.is_null() {
            service.explain(self.py, name, PyErr::fetch(self.py)).restore(self.py);
        }
        result
    }

    /// The arguments as a tuple and a dict, for a call that does not end here and now.
    #[cold]
    fn collect(&self) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        // SAFETY: the arguments are alive until the call returns, and so is the tuple of names.
        let object = |ptr: &*mut ffi::PyObject| unsafe { Bound::from_borrowed_ptr(self.py, *ptr) };
        let (positional, named) = self.args().split_at(self.positional);
        let kwargs = PyDict::new(self.py);
        if !self.names.is_null() {
            for (name, value) in object(&self.names).try_iter()?.zip(named) {
                kwargs.set_item(name?, object(value))?;
            }
        }
        Ok((PyTuple::new(self.py, positional.iter().map(object))?, kwargs))
    }
}
