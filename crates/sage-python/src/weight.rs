//! Estimates how many bytes an object takes, for the limit on the bytes that wait between tasks.
//!
//! Numbers, texts and bytes are weighed each time. Of other objects only a sample is weighed, each with the objects it
//! refers to, one level down (for an object of a class: its dictionary with its values); the objects between two
//! samples count as much as the last one. This runs no code of the program: it goes through an object as the collector
//! does, and reads attributes of types that are written in C.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

use crate::value::Value;

/// How many objects of a type count as much as the one before them that was weighed.
const SAMPLED: u32 = 32;
/// From this weight on each is weighed.
const HEAVY: usize = 16 << 10;
/// How many objects are looked at in one that refers to others.
const LOOKED_AT: usize = 32;
/// What an object takes that nothing more is known of.
const OBJECT: usize = 48;

#[derive(Clone, Copy)]
struct Sample {
    of: *mut PyTypeObject,
    weight: usize,
    left: u32,
}

thread_local! {
    static LAST: Cell<Sample> = const { Cell::new(Sample { of: ptr::null_mut(), weight: 0, left: 0 }) };
}

/// The weight of an object, in bytes.
#[inline]
pub(crate) fn weight(object: &Bound<'_, PyAny>) -> usize {
    if let Some(weight) = plain(object) {
        return weight;
    }
    let of = object.get_type_ptr();
    let last = LAST.get();
    if last.of == of && last.left > 0 {
        LAST.set(Sample { left: last.left - 1, ..last });
        return last.weight;
    }
    let weight = weighed(object);
    LAST.set(Sample { of, weight, left: if weight < HEAVY { SAMPLED } else { 0 } });
    weight
}

/// The weight of a number, a text, bytes, a truth or `None`.
#[inline]
fn plain(object: &Bound<'_, PyAny>) -> Option<usize> {
    if let Ok(text) = object.cast_exact::<PyString>() {
        // SAFETY: it is a text, and the thread is attached.
        let (length, kind) = unsafe { (ffi::PyUnicode_GET_LENGTH(text.as_ptr()), ffi::PyUnicode_KIND(text.as_ptr())) };
        return Some(OBJECT + length.unsigned_abs() * kind as usize);
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Some(OBJECT + bytes.as_bytes().len());
    }
    let is_small = object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_none()
        || object.is_exact_instance_of::<PyBool>();
    is_small.then_some(OBJECT)
}

/// What an object takes by itself: without those it refers to, but with the bytes of an array.
fn alone(object: &Bound<'_, PyAny>) -> usize {
    if let Some(weight) = plain(object) {
        return weight;
    }
    // SAFETY: the object is alive and the thread attached; the type of an object outlives it.
    let (size, item, is_buffer) = unsafe {
        let of = &*object.get_type_ptr();
        (of.tp_basicsize, of.tp_itemsize, ffi::PyObject_CheckBuffer(object.as_ptr()) == 1)
    };
    let items = match item {
        0 => 0,
        // SAFETY: as above; a type with items is one of objects of variable size.
        item => item.unsigned_abs() * unsafe { ffi::Py_SIZE(object.as_ptr()) }.unsigned_abs(),
    };
    let held = if is_buffer && !is_of_a_class(object) { bytes_of(object) } else { 0 };
    size.unsigned_abs() + items + held
}

/// Whether it is of a class that a program may have written.
fn is_of_a_class(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the type of an object outlives it.
    unsafe { ffi::PyType_HasFeature(object.get_type_ptr(), ffi::Py_TPFLAGS_HEAPTYPE) != 0 }
}

/// How many bytes an array, or whatever shows its memory, has.
fn bytes_of(object: &Bound<'_, PyAny>) -> usize {
    let bytes = object.getattr_opt("nbytes").ok().flatten().and_then(|bytes| bytes.extract().ok());
    bytes.or_else(|| object.len().ok()).unwrap_or(0)
}

/// What is gone through, one level down.
struct Going {
    weight: usize,
    looked_at: usize,
    /// Whether it is an object of a class, whose attributes may be in a dictionary.
    is_of_a_class: bool,
}

impl Going {
    /// Adds an object; returns whether enough were looked at.
    fn add(&mut self, object: &Bound<'_, PyAny>) -> bool {
        // Types and modules are everybody's.
        // SAFETY: the object is alive, and the thread attached.
        let is_shared = unsafe { ffi::PyType_Check(object.as_ptr()) == 1 || ffi::PyModule_Check(object.as_ptr()) == 1 };
        if !is_shared {
            self.weight = self.weight.saturating_add(alone(object));
        }
        self.looked_at += 1;
        self.looked_at >= LOOKED_AT
    }
}

/// The weight of an object with that of those it refers to.
#[cold]
fn weighed(object: &Bound<'_, PyAny>) -> usize {
    let own = alone(object);
    // SAFETY: the object is alive and the thread attached. Only objects that are the collector's are gone through.
    let (is_collected, traverse) =
        unsafe { (ffi::PyObject_IS_GC(object.as_ptr()) != 0, (*object.get_type_ptr()).tp_traverse) };
    let Some(traverse) = traverse.filter(|_| is_collected) else { return own };
    let mut going = Going { weight: 0, looked_at: 0, is_of_a_class: is_of_a_class(object) };
    // SAFETY: as `gc.get_referents` does; `look` is given objects that are alive, changes nothing, and runs no code of
    // a program's. `going` outlives the call.
    unsafe { traverse(object.as_ptr(), look, (&raw mut going).cast()) };
    if going.looked_at < LOOKED_AT {
        return own + going.weight;
    }
    // The rest of a large container is as those that were looked at.
    let entries = length(object).unwrap_or(going.looked_at).max(going.looked_at);
    own + going.weight / going.looked_at * entries
}

/// How many items a built-in container has.
fn length(object: &Bound<'_, PyAny>) -> Option<usize> {
    if let Ok(list) = object.cast::<PyList>() {
        return Some(list.len());
    }
    if let Ok(tuple) = object.cast::<PyTuple>() {
        return Some(tuple.len());
    }
    if let Ok(dict) = object.cast_exact::<PyDict>() {
        return Some(dict.len());
    }
    let set = object.cast_exact::<PySet>().map(|set| set.len());
    set.or_else(|_| object.cast_exact::<PyFrozenSet>().map(|set| set.len())).ok()
}

/// Adds an object that another one refers to. Stops when enough were looked at.
unsafe extern "C" fn look(object: *mut PyObject, going: *mut c_void) -> c_int {
    // SAFETY: `weighed` passes one, and nobody else has it meanwhile.
    let going = unsafe { &mut *going.cast::<Going>() };
    // SAFETY: the thread is attached: it goes through an object.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: whoever refers to the object keeps it alive.
    let object = unsafe { Borrowed::from_ptr(py, object) };
    let mut is_enough = going.add(&object);
    if going.is_of_a_class
        && let Ok(attributes) = object.cast_exact::<PyDict>()
    {
        is_enough = is_enough || attributes.iter().any(|(_, value)| going.add(&value));
    }
    c_int::from(is_enough)
}

impl Value {
    /// What a value holds beside its own size; of an object, nothing is known here.
    pub(crate) fn held(&self) -> usize {
        let all = |items: &[Self]| items.iter().map(|item| size_of::<Self>() + item.held()).sum();
        match self {
            Self::Object(_) | Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) => 0,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Tuple(items) => all(items),
            Self::List(items) => all(items),
            Self::Dict(pairs) => {
                pairs.iter().map(|(key, value)| 2 * size_of::<Self>() + key.held() + value.held()).sum()
            }
        }
    }
}
