//! CPython's protocol *vectorcall*: the arguments of a call as they lie on the interpreter's stack, and types that take
//! them so.

use std::ffi::{CStr, c_int, c_uint, c_ulong, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::service::PythonService;
use crate::thread::vectorcall_method;

/// What an object does that is called by vectorcall.
pub(crate) trait Called: Sized {
    /// The result: a new reference, or null and an exception, or an exception that is not raised yet.
    fn call<'py>(&self, py: Python<'py>, stack: &Stack<'py>) -> PyResult<*mut ffi::PyObject>;
}

/// An object that is called by vectorcall. Its type takes no part in collections of cycles.
#[repr(C)]
pub(crate) struct Callable<T> {
    head: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    pub(crate) inner: T,
}

impl<T: Called> Callable<T> {
    /// Makes the type of such objects, which a program cannot make.
    ///
    /// # Safety
    /// The members are fields of a `Callable<T>`, and the slots hold functions of the kinds that belong there.
    pub(crate) unsafe fn class(
        py: Python<'_>,
        name: &'static CStr,
        members: &[ffi::PyMemberDef],
        slots: &[(c_int, *mut c_void)],
    ) -> PyResult<Py<PyType>> {
        let pointer = member(c"__vectorcalloffset__", ffi::Py_T_PYSSIZET, offset_of!(Self, vectorcall));
        let ends = [pointer, ffi::PyMemberDef::default()];
        let mut members: Vec<_> = members.iter().copied().chain(ends).collect();
        let own = [
            (ffi::Py_tp_call, ffi::PyVectorcall_Call as ffi::ternaryfunc as *mut c_void),
            (ffi::Py_tp_dealloc, Self::dealloc as ffi::destructor as *mut c_void),
            (ffi::Py_tp_members, members.as_mut_ptr().cast()),
        ];
        let slots: Vec<_> = slots.iter().copied().chain(own).collect();
        let flags = ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        // SAFETY: by what the caller promises; the members are copied, but for their names, which are static.
        unsafe { class::<Self>(py, name, flags, &slots) }.map(Bound::unbind)
    }

    /// Makes an object.
    ///
    /// # Safety
    /// The type was made by `class` of this very `T`.
    pub(crate) unsafe fn make<'py>(class: &Bound<'py, PyType>, inner: T) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the type's objects have the layout of `Self`, by what the caller promises. A new reference, or null
        // and an exception.
        let made =
            unsafe { Bound::from_owned_ptr_or_err(class.py(), ffi::PyType_GenericAlloc(class.as_type_ptr(), 0)) }?;
        let object = made.as_ptr().cast::<Self>();
        // SAFETY: the object is new, so that nobody else sees it; its fields hold zeros, which are not dropped by a
        // write.
        unsafe {
            ptr::addr_of_mut!((*object).vectorcall).write(Self::vectorcall);
            ptr::addr_of_mut!((*object).inner).write(inner);
        }
        Ok(made)
    }

    unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
        // SAFETY: called once, with the last reference to an object of this type, by a thread that is attached. An
        // object whose fields were never written does not exist: `make` cannot fail between the two. An object of a
        // heap type owns a reference to it.
        unsafe {
            let class = ffi::Py_TYPE(object);
            ptr::drop_in_place(ptr::addr_of_mut!((*object.cast::<Self>()).inner));
            ffi::PyObject_Free(object.cast());
            ffi::Py_DECREF(class.cast());
        }
    }

    unsafe extern "C" fn vectorcall(
        object: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        kwnames: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject {
        // SAFETY: called by an attached thread with an object of this type, which its caller keeps alive, and the
        // caller's own arguments.
        let (py, called, stack) = unsafe {
            let py = Python::assume_attached();
            (py, &(*object.cast::<Self>()).inner, Stack::new(py, args, nargsf, kwnames))
        };
        returned(py, called.call(py, &stack))
    }
}

/// Makes a type of CPython's own that a program cannot change, whose objects have the layout of `T`.
///
/// # Safety
/// The slots hold what belongs there: functions of the right kinds, and tables that are copied or live for ever.
pub(crate) unsafe fn class<'py, T>(
    py: Python<'py>,
    name: &'static CStr,
    flags: c_ulong,
    slots: &[(c_int, *mut c_void)],
) -> PyResult<Bound<'py, PyType>> {
    let flags = flags | ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    let slots = slots.iter().copied().chain([(0, ptr::null_mut())]);
    let mut slots: Vec<_> = slots.map(|(slot, pfunc)| ffi::PyType_Slot { slot, pfunc }).collect();
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: c_int::try_from(size_of::<T>()).expect("an object is small"),
        itemsize: 0,
        flags: c_uint::try_from(flags).expect("these flags are of the lower half"),
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is whole, by what the caller promises; it is copied, but for the name, which is static.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec)) }?;
    Ok(made.cast_into::<PyType>()?)
}

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
