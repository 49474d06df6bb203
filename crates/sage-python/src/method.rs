//! Methods of services, as objects that are called as fast as a function.
//!
//! A class of PyO3's is called with a tuple and a dict, which are made for each call. A type of CPython's own may offer
//! *vectorcall* instead: it is called with the arguments as they lie on the interpreter's stack. [`Method`] is such a
//! type, written by hand: it puts the service's object before the arguments, goes through the engine's gate, and calls
//! on.
//!
//! Ownership is free of cycles that the interpreter's collector could have seen: a method owns its name and a
//! [`Binding`], a binding the engine's handle, for as long as a job runs. So the type takes no part in collections.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::offset_of;

use pyo3::IntoPyObjectExt;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyString, PyType};

use crate::error::ServiceError;
use crate::service::Handle;
use crate::vectorcall::{Callable, Called, Stack, member};

/// Which job's service a handle means at the moment.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Binding {
    name: String,
    handle: UnsafeCell<Option<Py<Handle>>>,
}

// SAFETY: `handle` is only touched within a critical section of the object, in `replace` and `current`; where there is
// a global lock, that is what holding it means.
unsafe impl Sync for Binding {}

impl Binding {
    /// The handle of the current job's service.
    #[inline]
    pub(crate) fn current(this: &Bound<'_, Self>) -> Option<Py<Handle>> {
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

    /// See [`Handle::erase`].
    fn erase(this: &Bound<'_, Self>, tag: &str) -> PyResult<u64> {
        let name = &this.get().name;
        let none = || ServiceError::new_err(format!("answers of service `{name}` are erased while a job runs"));
        Self::current(this).ok_or_else(none)?.get().erase(this.py(), tag)
    }

    /// A method of the service, whichever job's that is when it is called; with other settings of its policy, if there
    /// are `changes`.
    #[pyo3(signature = (name, changes=None, is_async=false))]
    fn method<'py>(
        this: &Bound<'py, Self>,
        name: &str,
        changes: Option<Py<PyAny>>,
        is_async: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let is_async = is_async.into_py_any(py)?;
        let (has_changes, changes) = (changes.is_some(), changes.into_py_any(py)?);
        let name = PyString::intern(py, name).unbind();
        let method = Method { binding: this.clone().unbind(), name, has_changes, changes, is_async };
        // SAFETY: the type is that of methods.
        unsafe { Callable::make(method_type(py)?, method) }
    }
}

/// A method of a service.
struct Method {
    binding: Py<Binding>,
    name: Py<PyString>,
    has_changes: bool,
    /// As Python has them: also for who takes the method to another process.
    changes: Py<PyAny>,
    /// Whether what it returns has to be awaited, as far as the service's class tells.
    is_async: Py<PyAny>,
}

/// Whether an object is a method of a service.
///
/// # Safety
/// The object is alive.
#[inline]
pub(crate) unsafe fn is_method(py: Python<'_>, object: *mut ffi::PyObject) -> bool {
    // SAFETY: as promised.
    method_type(py).is_ok_and(|class| unsafe { ffi::Py_TYPE(object) } == class.as_type_ptr())
}

/// What a method is called by, if the object is one whose calls are those of the service itself: without a policy, and
/// of the running job.
pub(crate) fn plain(object: &Bound<'_, PyAny>) -> PyResult<Option<(Py<Binding>, Py<PyString>)>> {
    let py = object.py();
    // SAFETY: it is alive.
    if !unsafe { is_method(py, object.as_ptr()) } {
        return Ok(None);
    }
    // SAFETY: it is of that type, whose objects have this layout.
    let method = unsafe { &(*object.as_ptr().cast::<Callable<Method>>()).inner };
    let current = Binding::current(method.binding.bind(py));
    let is_plain = !method.has_changes && current.is_some_and(|handle| handle.get().is_plain());
    Ok(is_plain.then(|| (method.binding.clone_ref(py), method.name.clone_ref(py))))
}

impl Called for Method {
    #[inline]
    fn call<'py>(&self, py: Python<'py>, stack: &Stack<'py>) -> PyResult<*mut ffi::PyObject> {
        let current = Binding::current(self.binding.bind(py));
        if let Some(handle) = &current
            && !self.has_changes
            && let Some(result) = handle.get().call_now(py, |service| stack.call(service, self.name.bind(py)))
        {
            return result;
        }
        call_slowly(py, self, current.as_ref(), stack).map(Bound::into_ptr)
    }
}

fn method_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = TYPE.get_or_try_init(py, || {
        let members = [
            member(c"__name__", ffi::Py_T_OBJECT_EX, offset_of!(Callable<Method>, inner.name)),
            member(c"__self__", ffi::Py_T_OBJECT_EX, offset_of!(Callable<Method>, inner.binding)),
            member(c"changes", ffi::Py_T_OBJECT_EX, offset_of!(Callable<Method>, inner.changes)),
            member(c"is_async", ffi::Py_T_OBJECT_EX, offset_of!(Callable<Method>, inner.is_async)),
        ];
        let slots = [(ffi::Py_tp_repr, repr as ffi::reprfunc as *mut c_void)];
        // SAFETY: the members are fields that hold objects, and the function is of the kind that belongs there.
        unsafe { Callable::<Method>::class(py, c"sage._sage.Method", &members, &slots) }
    })?;
    Ok(made.bind(py))
}

unsafe extern "C" fn repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by an attached thread with an object of this type.
    let (py, method) = unsafe { (Python::assume_attached(), &(*object.cast::<Callable<Method>>()).inner) };
    let (service, name) = (&method.binding.get().name, method.name.bind(py));
    PyString::new(py, &format!("<method {name} of service {service}>")).into_ptr()
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
            "service `{service}` can be called while a job of its environment runs: from its functions and services, \
             or between `submit()` and `stop()`"
        )));
    };
    let (args, kwargs) = stack.collect()?;
    let changes = method.changes.extract(py)?;
    handle.get().call(py, Some(method.name.bind(py)), &args, Some(&kwargs), None, changes)
}
