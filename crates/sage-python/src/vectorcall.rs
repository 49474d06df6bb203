//! CPython's protocol *vectorcall*: the arguments of a call as they lie on the interpreter's stack, and types that take them so.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::service::PythonService;
use crate::thread::vectorcall_method;

/// A member of a type, which cannot be written.
pub(crate) fn member(name: &'static CStr, type_code: c_int, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code,
        offset: ffi::Py_ssize_t::try_from(offset).expect("an object is small"),
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    }
}

/// Makes a type whose objects are called by vectorcall, and cannot be made by a program.
///
/// # Safety
/// Objects are of `size` bytes; the members are fields of them, among these `__vectorcalloffset__`, and the slots hold functions of
/// the kinds that belong there.
pub(crate) unsafe fn callable_type(
    py: Python<'_>,
    name: &'static CStr,
    size: usize,
    members: &[ffi::PyMemberDef],
    slots: &[(c_int, *mut c_void)],
) -> PyResult<Py<PyType>> {
    let mut members: Vec<_> = members.iter().copied().chain([ffi::PyMemberDef::default()]).collect();
    let call = ffi::PyVectorcall_Call as ffi::ternaryfunc as *mut c_void;
    let own = [(ffi::Py_tp_call, call), (ffi::Py_tp_members, members.as_mut_ptr().cast()), (0, ptr::null_mut())];
    let slots = slots.iter().copied().chain(own);
    let mut slots: Vec<_> = slots.map(|(slot, pfunc)| ffi::PyType_Slot { slot, pfunc }).collect();
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: c_int::try_from(size).expect("an object is small"),
        itemsize: 0,
        flags: c_uint::try_from(flags).expect("these flags are of the lower half"),
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is whole, by what the caller promises; what it points to is copied, but for the names, which are static.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec)) }?;
    Ok(made.cast_into::<PyType>()?.unbind())
}

/// A result as the interpreter wants it: a new reference, or null and an exception.
#[inline]
pub(crate) fn returned(py: Python<'_>, result: PyResult<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    result.unwrap_or_else(|error| {
        error.restore(py);
        ptr::null_mut()
    })
}

/// The arguments of a call, where the interpreter put them. It does not outlive the call.
pub(crate) struct Stack<'py> {
    py: Python<'py>,
    /// The positional ones, and then the others.
    args: *const *mut ffi::PyObject,
    all: usize,
    pub(crate) positional: usize,
    /// The place before the first argument is ours while the call lasts.
    has_place: bool,
    /// The names of those that have one: a tuple of strings, or null.
    pub(crate) names: *mut ffi::PyObject,
}

impl<'py> Stack<'py> {
    /// # Safety
    /// What a function was called with by vectorcall; it has not returned yet.
    pub(crate) unsafe fn new(
        py: Python<'py>,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        names: *mut ffi::PyObject,
    ) -> Self {
        let positional = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        // SAFETY: null or a tuple, by the protocol.
        let named = if names.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(names) }.unsigned_abs() };
        let has_place = nargsf & ffi::PY_VECTORCALL_ARGUMENTS_OFFSET != 0;
        Self { py, args, all: positional + named, positional, has_place, names }
    }

    pub(crate) fn args(&self) -> &[*mut ffi::PyObject] {
        if self.all == 0 {
            return &[];
        }
        // SAFETY: by the protocol so many arguments are there until the call returns.
        unsafe { std::slice::from_raw_parts(self.args, self.all) }
    }

    /// Calls a method of the service with these arguments; returns a new reference, or null and an exception.
    #[inline]
    pub(crate) fn call(&self, service: &PythonService, name: &Bound<'py, PyString>) -> *mut ffi::PyObject {
        let instance = service.instance.as_ptr();
        let result = if self.has_place {
            let first = self.args.cast_mut().wrapping_sub(1);
            // SAFETY: the protocol lends the place before the arguments, to be given back as it was. All references are
            // borrowed: the first from the service, which the gate keeps, the others from the caller.
            unsafe {
                let before = first.replace(instance);
                let result = vectorcall_method(name.as_ptr(), first, self.positional + 1, self.names);
                first.write(before);
                result
            }
        } else {
            let all: Vec<_> = std::iter::once(instance).chain(self.args().iter().copied()).collect();
            // SAFETY: as above, with the arguments in a place of our own.
            unsafe { vectorcall_method(name.as_ptr(), all.as_ptr(), self.positional + 1, self.names) }
        };
        if result.is_null() {
            service.explain(self.py, name, PyErr::fetch(self.py)).restore(self.py);
        }
        result
    }

    /// The arguments as a tuple and a dict, for a call that does not end here and now.
    #[cold]
    pub(crate) fn collect(&self) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
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
