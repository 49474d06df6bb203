//! [`Records`]: iterators for loops that can be ended between two records.
//!
//! A loop that is interpreted ends when its iterator has no more. This one says so as well when its loop is to end, and
//! goes on in the next loop with what it has not given. It is a type of CPython's own, written by hand, as what it does
//! for each record is to cost what the iterator of a list costs. It reads a list as a `for` loop does, item by item,
//! whatever becomes of the list meanwhile; of anything else it asks the iterator.
//!
//! Whoever drives a loop says by [`Records::begin`] to which [`Loop`] it belongs and how many records it may take. An
//! iterator that stands for the results of a function, of which there are new ones for each record, is given them by
//! its method `over`, which the loop itself calls.
//!
//! Its fields are touched by the thread that drives it, while attached unless something else is said. It takes no part
//! in collections of cycles: nothing that it refers to can get hold of it.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyType};

use crate::blocks::MOST_RECORDS;
use crate::cutter::{ENDLESS, Loop};
use crate::vectorcall;

type Next = unsafe extern "C-unwind" fn(*mut PyObject) -> *mut PyObject;

#[repr(C)]
struct Inner {
    head: PyObject,
    /// The loop it belongs to: that of `kept`, or one that is never cut.
    of: *const Loop,
    kept: Option<Arc<Loop>>,
    /// What is read: a list, an iterator, or nothing any more. Owned.
    list: *mut PyObject,
    iterator: *mut PyObject,
    next: Option<Next>,
    /// How many records were given, how many of them before this loop, and how many there may be at its end.
    index: isize,
    begun: isize,
    end: isize,
    /// Whether the list is the engine's own.
    is_own: bool,
    /// Whether what the iterator raises is kept for the source, and not raised in the loop.
    keeps_error: bool,
    error: Option<PyErr>,
}

/// Such an iterator.
pub(crate) struct Records(Py<PyAny>);

impl Records {
    /// Reads nothing yet: for `over`.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let class = class(py)?;
        // SAFETY: a new reference, or null and an exception.
        let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class.as_type_ptr(), 0)) }?;
        let inner = made.as_ptr().cast::<Inner>();
        // SAFETY: the object is new, so that nobody else sees it, and of this layout; its fields hold zeros, which are
        // valid for those that are not written here, and are not dropped by a write.
        unsafe {
            ptr::addr_of_mut!((*inner).of).write(&ENDLESS);
            ptr::addr_of_mut!((*inner).kept).write(None);
            ptr::addr_of_mut!((*inner).error).write(None);
            ptr::addr_of_mut!((*inner).next).write(None);
        }
        Ok(Self(made.unbind()))
    }

    /// Reads a list that nobody else has.
    pub(crate) fn of_list(list: Bound<'_, PyList>) -> PyResult<Self> {
        let records = Self::new(list.py())?;
        let inner = records.inner();
        // SAFETY: attached, as there is a bound object; the reference is handed over.
        unsafe {
            (*inner).list = list.into_ptr();
            (*inner).is_own = true;
        }
        Ok(records)
    }

    /// Reads what an object iterates over. What that raises is kept, if so wanted, for [`Records::take_error`].
    pub(crate) fn of(object: &Bound<'_, PyAny>, keeps_error: bool) -> PyResult<Self> {
        let records = Self::new(object.py())?;
        let inner = records.inner();
        // SAFETY: attached, as there is a bound object, and the object is of this type.
        unsafe {
            if !read(inner, object.as_ptr()) {
                return Err(PyErr::fetch(object.py()));
            }
            (*inner).keeps_error = keeps_error;
        }
        Ok(records)
    }

    /// That of another object.
    pub(crate) fn from_object(object: Bound<'_, PyAny>) -> PyResult<Self> {
        let class = class(object.py())?;
        if !object.is_exact_instance(class) {
            return Err(pyo3::exceptions::PyTypeError::new_err("these are not records of the engine"));
        }
        Ok(Self(object.unbind()))
    }

    fn inner(&self) -> *mut Inner {
        self.0.as_ptr().cast()
    }

    pub(crate) fn object<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyAny> {
        self.0.bind(py)
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// From here on it belongs to this loop, which takes so many records at most.
    pub(crate) fn begin(&self, _py: Python<'_>, of: &Arc<Loop>, most: usize) {
        let inner = self.inner();
        // SAFETY: attached; the loop is kept as long as it is pointed to; the list is alive, and this runs no code of a
        // program but the end of objects that nobody else has, which cannot get hold of this one.
        unsafe {
            (*inner).of = Arc::as_ptr(of);
            let before = (*inner).kept.replace(of.clone());
            drop(before);
            if (*inner).is_own && (*inner).index > 0 && !(*inner).list.is_null() {
                let given = std::mem::take(&mut (*inner).index);
                ffi::PyList_SetSlice((*inner).list, 0, given, ptr::null_mut());
            }
            (*inner).begun = (*inner).index;
            (*inner).end = (*inner).index.saturating_add(isize::try_from(most).unwrap_or(isize::MAX));
        }
    }

    /// The loop that has begun takes no more than so many.
    pub(crate) fn limit(&self, _py: Python<'_>, most: usize) {
        let inner = self.inner();
        // SAFETY: attached.
        unsafe {
            let most = (*inner).begun.saturating_add(isize::try_from(most).unwrap_or(isize::MAX));
            (*inner).end = (*inner).end.min(most);
        }
    }

    /// How many records this loop has taken. For the thread that drives it.
    pub(crate) fn given(&self) -> usize {
        let inner = self.inner();
        // SAFETY: nothing else touches the two numbers, which are changed by its loop only.
        unsafe { (*inner).index - (*inner).begun }.unsigned_abs()
    }

    /// Whether there may be more.
    pub(crate) fn has_more(&self, _py: Python<'_>) -> bool {
        let inner = self.inner();
        // SAFETY: attached, and the list is alive.
        unsafe {
            match (*inner).list.is_null() {
                true => !(*inner).iterator.is_null(),
                // A program may let its own list grow until somebody has seen its end.
                false => !(*inner).is_own || (*inner).index < ffi::PyList_GET_SIZE((*inner).list),
            }
        }
    }

    /// Those of a list of the engine's own that no loop has taken.
    pub(crate) fn rest<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let inner = self.inner();
        // SAFETY: attached; the list is alive while the copy is made.
        unsafe {
            let Some(list) = Bound::from_borrowed_ptr_or_opt(py, (*inner).list) else { return Vec::new() };
            let Ok(list) = list.cast_into::<PyList>() else { return Vec::new() };
            list.iter().skip((*inner).index.unsigned_abs()).collect()
        }
    }

    /// What the iterator raised.
    pub(crate) fn take_error(&self, _py: Python<'_>) -> Option<PyErr> {
        // SAFETY: attached.
        unsafe { (*self.inner()).error.take() }
    }

    /// Gives none of those that are left.
    pub(crate) fn drop_rest(&self, _py: Python<'_>) {
        // SAFETY: attached, and of this type.
        unsafe { forget(self.inner()) }
    }
}

/// Has it read another object; says whether that can be read, and leaves an exception if not.
///
/// # Safety
/// Attached.
unsafe fn read(inner: *mut Inner, object: *mut PyObject) -> bool {
    // SAFETY: as promised; references are counted, and what was read before is let go last, when all fields hold again.
    unsafe {
        forget(inner);
        if is_list(object) {
            ffi::Py_INCREF(object);
            (*inner).list = object;
        } else {
            let iterator = get_iter(object);
            if iterator.is_null() {
                return false;
            }
            (*inner).iterator = iterator;
            (*inner).next =
                std::mem::transmute::<Option<ffi::iternextfunc>, Option<Next>>((*ffi::Py_TYPE(iterator)).tp_iternext);
        }
        (*inner).index = 0;
        (*inner).begun = 0;
        (*inner).end = isize::MAX;
        true
    }
}

/// As `PyObject_GetIter`, which runs a program's code and may be unwound: see [`thread`](crate::thread).
#[inline]
unsafe fn get_iter(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: the same function, of which it is only known that it may unwind.
    unsafe {
        let function = std::hint::black_box(std::mem::transmute::<
            unsafe extern "C" fn(*mut PyObject) -> *mut PyObject,
            Next,
        >(ffi::PyObject_GetIter));
        function(object)
    }
}

/// Reads nothing any more.
///
/// # Safety
/// Attached.
unsafe fn forget(inner: *mut Inner) {
    // SAFETY: as promised; the fields own what they refer to, and hold nothing when that is let go.
    unsafe {
        let list = std::mem::replace(&mut (*inner).list, ptr::null_mut());
        let iterator = std::mem::replace(&mut (*inner).iterator, ptr::null_mut());
        (*inner).next = None;
        ffi::Py_XDECREF(list);
        ffi::Py_XDECREF(iterator);
    }
}

/// The next record; null where there is none, or none for this loop, or with an exception.
unsafe extern "C-unwind" fn next(object: *mut PyObject) -> *mut PyObject {
    let inner = object.cast::<Inner>();
    // SAFETY: called by an attached thread with an object of this type. The list and the iterator are alive while they
    // are referred to; what calls a program's code does not hold on to a field across it.
    unsafe {
        let index = (*inner).index;
        let of = &*(*inner).of;
        if index >= (*inner).end || (of.is_marked() && index > (*inner).begun && of.is_over()) {
            return ptr::null_mut();
        }
        let list = (*inner).list;
        if !list.is_null() {
            if index < ffi::PyList_GET_SIZE(list) {
                let item = ffi::PyList_GET_ITEM(list, index);
                ffi::Py_INCREF(item);
                (*inner).index = index + 1;
                return item;
            }
            forget(inner);
            return ptr::null_mut();
        }
        let Some(next) = (*inner).next else { return ptr::null_mut() };
        let item = next((*inner).iterator);
        if item.is_null() {
            ended(inner);
        } else {
            (*inner).index = index + 1;
        }
        item
    }
}

/// The iterator has no more, or has raised.
///
/// # Safety
/// Attached.
#[cold]
unsafe fn ended(inner: *mut Inner) {
    // SAFETY: as promised.
    unsafe {
        let py = Python::assume_attached();
        let error = PyErr::take(py);
        forget(inner);
        match error {
            None => {}
            Some(error) if error.is_instance_of::<PyStopIteration>(py) => {}
            Some(error) if (*inner).keeps_error => (*inner).error = Some(error),
            Some(error) => error.restore(py),
        }
    }
}

/// The method `over`: from here on the results of a function are read, for the record that is worked on.
unsafe extern "C-unwind" fn over(object: *mut PyObject, results: *mut PyObject) -> *mut PyObject {
    let inner = object.cast::<Inner>();
    // SAFETY: called by an attached thread with an object of this type; the list of results is alive while its loop
    // runs.
    unsafe {
        let is_read =
            if is_list(results) || !is_one(results) { read(inner, results) } else { read_one(inner, results) };
        if !is_read {
            return ptr::null_mut();
        }
        let of = &*(*inner).of;
        let out = of.out.load(Ordering::Relaxed);
        if !out.is_null() && ffi::PyList_GET_SIZE(out) >= MOST_RESULTS {
            of.cut();
        }
        ffi::Py_INCREF(object);
        object
    }
}

#[inline]
unsafe fn is_list(object: *mut PyObject) -> bool {
    // SAFETY: attached, as those who ask are.
    unsafe { ffi::PyList_CheckExact(object) != 0 }
}

/// Whether a result of a function is one record, or `None`, and not several: a text, bytes, or what is not iterable.
/// What has to be awaited is neither, and cannot be read.
///
/// # Safety
/// Attached.
unsafe fn is_one(result: *mut PyObject) -> bool {
    // SAFETY: as promised.
    unsafe {
        let kind = ffi::Py_TYPE(result);
        if kind == &raw mut ffi::PyCoro_Type || kind == &raw mut ffi::PyAsyncGen_Type {
            return false;
        }
        let is_iterable = (*kind).tp_iter.is_some() || ffi::PySequence_Check(result) != 0;
        !is_iterable || ffi::PyUnicode_Check(result) != 0 || ffi::PyBytes_Check(result) != 0
    }
}

/// Has it read one record; of `None`, nothing. Says whether it can, and leaves an exception if not.
///
/// # Safety
/// Attached.
#[cold]
unsafe fn read_one(inner: *mut Inner, record: *mut PyObject) -> bool {
    // SAFETY: as promised; the list takes over a reference to the record, and `read` counts one of its own.
    unsafe {
        let is_none = ffi::Py_IsNone(record) != 0;
        let list = ffi::PyList_New(isize::from(!is_none));
        if list.is_null() {
            return false;
        }
        if !is_none {
            ffi::Py_INCREF(record);
            ffi::PyList_SET_ITEM(list, 0, record);
        }
        let is_read = read(inner, list);
        ffi::Py_DECREF(list);
        is_read
    }
}

/// A loop that has as many results ends, so that they do not become too many.
const MOST_RESULTS: isize = MOST_RECORDS as isize;

unsafe extern "C" fn dealloc(object: *mut PyObject) {
    // SAFETY: called once, with the last reference to an object of this type, by an attached thread. An object of a
    // heap type owns a reference to it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let inner = object.cast::<Inner>();
        forget(inner);
        ptr::drop_in_place(ptr::addr_of_mut!((*inner).kept));
        ptr::drop_in_place(ptr::addr_of_mut!((*inner).error));
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

/// The type, for the module.
pub(crate) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let made = TYPE.get_or_try_init(py, || {
        // SAFETY: the same function, but for how it may be left.
        let over = unsafe {
            std::mem::transmute::<
                unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject) -> *mut PyObject,
                ffi::PyCFunction,
            >(over)
        };
        let method = ffi::PyMethodDef {
            ml_name: c"over".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: over },
            ml_flags: ffi::METH_O,
            ml_doc: c"over($self, results, /)\n--\n\nReads these results from here on.".as_ptr(),
        };
        // The type refers to them as long as it lives, which is for ever.
        let methods = Box::leak(Box::new([method, ffi::PyMethodDef::zeroed()]));
        let slots = [
            (ffi::Py_tp_iter, ffi::PyObject_SelfIter as ffi::getiterfunc as *mut c_void),
            (ffi::Py_tp_iternext, next as Next as *mut c_void),
            (ffi::Py_tp_dealloc, dealloc as ffi::destructor as *mut c_void),
            (ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        ];
        let flags = ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        // SAFETY: the functions are of the kinds that belong there; the methods live for ever.
        unsafe { vectorcall::class::<Inner>(py, c"sage._sage.Records", flags, &slots) }.map(Bound::unbind)
    })?;
    Ok(made.bind(py))
}

/// An iterator that reads nothing yet, for a generated loop.
#[pyfunction]
pub(crate) fn records(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    Records::new(py).map(|records| records.0.into_bound(py))
}
