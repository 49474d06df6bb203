//! The records: a Python object, or a value that operators of the engine work on without the interpreter.
//!
//! Only objects of exactly the built-in types become values, so that what comes out of a pipeline is what went in. A
//! [`Key`] is made while its thread is attached, hash included; from then on it is compared without the interpreter,
//! but for objects of other classes.
//!
//! Keys are equal where a `dict` says so, but that all floats that are not a number are one key. So their hash is the
//! same for equal ones: of built-in types the same in every run, of objects of other classes what Python says in this
//! process.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::iter::{BoundFrozenSetIterator, BoundTupleIterator};
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyString, PyTuple};
use pyo3::{IntoPyObjectExt, PyTypeInfo, intern};
use sage::BoxError;

use crate::error::{Raised, attempt};
use crate::object::Object;
use crate::thread::attach;

/// How many parts a key may have, tuples included, to become a value.
const MOST_PARTS: usize = 64;

/// A value of a record.
#[derive(Debug, Clone, Default)]
pub(crate) enum Value {
    Object(Object),
    #[default]
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Tuple(Box<[Value]>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

impl Value {
    /// The value of a number, a text, bytes, a truth or `None`; any other object itself. So containers stay what a
    /// program has: they may be shared, contain themselves or change, and to look at one is no reason to copy it.
    /// Not-a-number stays an object too, as inside a key each such object is equal to itself alone.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> Self {
        if let Ok(text) = object.cast_exact::<PyString>() {
            // A surrogate has no UTF-8.
            if let Ok(text) = text.to_str() {
                return Self::Text(text.into());
            }
        } else if let Ok(number) = object.cast_exact::<PyInt>() {
            if let Ok(number) = number.extract() {
                return Self::Int(number);
            }
        } else if let Ok(number) = object.cast_exact::<PyFloat>() {
            if !number.value().is_nan() {
                return Self::Float(number.value());
            }
        } else if object.is_none() {
            return Self::None;
        } else if let Ok(truth) = object.cast_exact::<PyBool>() {
            return Self::Bool(truth.is_true());
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return Self::Bytes(bytes.as_bytes().into());
        }
        Self::Object(object.clone().into())
    }

    /// The value of a key: small tuples of plain values become values as well, so that they compare without the
    /// interpreter.
    fn of_key(object: &Bound<'_, PyAny>) -> Self {
        if object.cast::<PyFloat>().is_ok_and(|number| number.value().is_nan()) {
            return Self::Float(f64::NAN);
        }
        Self::plain(object, &mut MOST_PARTS.clone()).unwrap_or_else(|| Self::Object(object.clone().into()))
    }

    /// The value of an object that is plain in all its parts, if there is room for as many.
    fn plain(object: &Bound<'_, PyAny>, room: &mut usize) -> Option<Self> {
        *room = room.checked_sub(1)?;
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            let parts: Option<Vec<_>> = tuple.iter().map(|part| Self::plain(&part, room)).collect();
            return parts.map(|parts| Self::Tuple(parts.into()));
        }
        Some(Self::of(object)).filter(|value| !matches!(value, Self::Object(_)))
    }

    /// The object of a value.
    pub(crate) fn into_object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let objects =
            |items: Vec<Self>| items.into_iter().map(|item| item.into_object(py)).collect::<PyResult<Vec<_>>>();
        match self {
            Self::Object(object) => Ok(object.into_bound(py)),
            Self::None => Ok(py.None().into_bound(py)),
            Self::Bool(truth) => truth.into_bound_py_any(py),
            Self::Int(number) => number.into_bound_py_any(py),
            Self::Float(number) => number.into_bound_py_any(py),
            Self::Text(text) => text.into_bound_py_any(py),
            Self::Bytes(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
            Self::Tuple(items) => Ok(PyTuple::new(py, objects(items.into_vec())?)?.into_any()),
            Self::List(items) => Ok(PyList::new(py, objects(items)?)?.into_any()),
            Self::Dict(pairs) => {
                let dict = PyDict::new(py);
                for (key, value) in pairs {
                    dict.set_item(key.into_object(py)?, value.into_object(py)?)?;
                }
                Ok(dict.into_any())
            }
        }
    }

    /// The number that it is, if it is one.
    fn number(&self) -> Option<Number> {
        match *self {
            Self::Bool(truth) => Some(Number::Int(i64::from(truth))),
            Self::Int(number) => Some(Number::Int(number)),
            Self::Float(number) => Some(Number::Float(number)),
            _ => None,
        }
    }

    /// Whether they are the same key, as Python compares keys, but that all not-a-numbers are one.
    fn is_same_key(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (self.number(), other.number()) {
            return one.equals(other);
        }
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::None, Self::None) => true,
            (Self::Tuple(one), Self::Tuple(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is_same_key(other))
            }
            (Self::Object(_), _) | (_, Self::Object(_)) => attempt(|py| {
                let (one, other) = (self.clone().into_object(py)?, other.clone().into_object(py)?);
                // An object is the same key as itself, whatever it says.
                Ok(one.is(&other) || one.eq(other)?)
            })
            .unwrap_or_else(|raised| throw(raised)),
            _ => false,
        }
    }
}

/// Leaves a function of the engine that cannot give an error: the engine takes this panic for the error it carries.
pub(crate) fn throw(raised: Raised) -> ! {
    let error: BoxError = raised.into();
    std::panic::resume_unwind(Box::new(error))
}

/// A number, as keys compare: `1`, `1.0` and `True` are the same.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => one == other,
            (Self::Float(one), Self::Float(other)) => one == other || (one.is_nan() && other.is_nan()),
            // A float that is a whole number of 64 bits converts without loss, and no other one equals such a number.
            (Self::Int(int), Self::Float(float)) | (Self::Float(float), Self::Int(int)) => {
                float == float.trunc() && (-9.3e18..9.3e18).contains(&float) && float as i128 == i128::from(int)
            }
        }
    }
}

/// The key of a record: its hash, the same in every run but for objects whose class says otherwise, and the value.
#[derive(Debug, Default)]
pub(crate) struct Key {
    pub(crate) hash: u64,
    value: Value,
}

impl Key {
    /// The key that an object is; an error where it cannot be one, such as a list.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let key = Self { hash: spread(stable_hash(object)?), value: Value::of_key(object) };
        match &key.value {
            Value::Text(_) => unmixed(PLAIN)?,
            Value::Object(_) if object.is_instance_of::<PyString>() && hashed_as::<PyString>(object)?.is_none() => {
                unmixed(OWN)?;
            }
            _ => {}
        }
        Ok(key)
    }

    /// The key that a value is. Only a value that is an object needs the interpreter.
    pub(crate) fn of_value(value: Value) -> PyResult<Self> {
        match value {
            Value::Text(text) => Self::of_text(text),
            value => attach(|py| Self::of(&value.into_object(py)?)),
        }
    }

    pub(crate) fn of_text(text: Box<str>) -> PyResult<Self> {
        unmixed(PLAIN)?;
        Ok(Self { hash: spread(fnv(text.as_bytes())), value: Value::Text(text) })
    }

    /// Whether it is of a class below that of texts.
    pub(crate) fn is_like_text(&self) -> bool {
        match &self.value {
            Value::Object(object) => attach(|py| object.bind(py).is_instance_of::<PyString>()),
            _ => false,
        }
    }

    /// The text that it is, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The object that the key was made of, or an equal one.
    pub(crate) fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.value.clone().into_object(py)
    }

    /// Whether it is `True`.
    pub(crate) fn is_true(&self) -> bool {
        matches!(self.value, Value::Bool(true))
    }

    pub(crate) fn value(&self) -> Value {
        self.value.clone()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.value.is_same_key(&other.value)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Texts that are keys: plain ones, and those of a class that says itself what it is equal to.
const PLAIN: u8 = 1;
const OWN: u8 = 2;

thread_local! {
    /// Which of them this thread has made keys of. A thread works for one task.
    static SEEN: Cell<u8> = const { Cell::new(0) };
}

/// Refuses texts of both kinds for one task: the hash of neither can follow the other's, so equal ones might not come
/// together.
fn unmixed(kind: u8) -> PyResult<()> {
    let seen = SEEN.get() | kind;
    if seen == PLAIN | OWN {
        return Err(PyTypeError::new_err(
            "some keys are plain texts, and some are texts of a class with its own `__hash__`, \
             which may be equal to them; let all keys be of one class",
        ));
    }
    SEEN.set(seen);
    Ok(())
}

/// A container of a key whose parts are being hashed: its parts that are left, and what those before them came to.
enum Part<'py> {
    Tuple(BoundTupleIterator<'py>, u64),
    Set(BoundFrozenSetIterator<'py>, u64),
}

/// A hash that equal keys have in common. Python's own differs from run to run for texts. Keys may be nested to any
/// depth: the containers that are begun lie on the heap.
fn stable_hash(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    if object.cast::<PyFloat>().is_ok_and(|number| number.value().is_nan()) {
        return Ok(0x7FF8_0000);
    }
    let mut begun: Vec<Part<'_>> = Vec::new();
    let mut object = object.clone();
    loop {
        let mut hash = if let Some(tuple) = hashed_as::<PyTuple>(&object)? {
            begun.push(Part::Tuple(tuple.iter(), 0x9E37_79B9));
            None
        } else if let Some(set) = hashed_as::<PyFrozenSet>(&object)? {
            begun.push(Part::Set(set.iter(), 0));
            None
        } else {
            Some(hash_of_one(&object)?)
        };
        // Goes on to the next part, and out of every container that has no more.
        object = loop {
            let Some(part) = begun.last_mut() else { return Ok(hash.unwrap_or_default()) };
            let (next, so_far) = match part {
                Part::Tuple(items, so_far) => {
                    *so_far = hash.take().map_or(*so_far, |hash| so_far.wrapping_mul(31).wrapping_add(hash));
                    (items.next(), *so_far)
                }
                Part::Set(items, so_far) => {
                    *so_far = so_far.wrapping_add(hash.take().unwrap_or_default());
                    (items.next(), *so_far)
                }
            };
            match next {
                Some(next) => break next,
                None => {
                    begun.pop();
                    hash = Some(so_far);
                }
            }
        };
    }
}

/// The same for values that are not containers.
fn hash_of_one(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Some(text) = hashed_as::<PyString>(object)? {
        // One with a surrogate has no UTF-8; what is hashed then has a mark in its place.
        return Ok(fnv(text.to_string_lossy().as_bytes()));
    }
    if let Some(bytes) = hashed_as::<PyBytes>(object)? {
        return Ok(fnv(bytes.as_bytes()) ^ 0x5BD1_E995);
    }
    if object.is_none() {
        return Ok(0x4E6F_6E65);
    }
    // Numbers hash by their value, whatever their type. Of any other class, equal objects have this in common and
    // nothing else.
    Ok(object.hash()?.cast_unsigned() as u64)
}

/// The object as one of a built-in type, if it is hashed as those are: it is one, or of a class below that does not say
/// otherwise.
fn hashed_as<'a, 'py, T: PyTypeInfo>(object: &'a Bound<'py, PyAny>) -> PyResult<Option<&'a Bound<'py, T>>> {
    if let Ok(exact) = object.cast_exact::<T>() {
        return Ok(Some(exact));
    }
    let Ok(below) = object.cast::<T>() else { return Ok(None) };
    let hash = intern!(object.py(), "__hash__");
    let is_inherited = object.get_type().getattr(hash)?.is(&T::type_object(object.py()).getattr(hash)?);
    Ok(is_inherited.then_some(below))
}

/// FNV-1a of 64 bits, by Fowler, Noll and Vo.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Spreads neighbours over the replicas: the finaliser of MurmurHash3, by Appleby.
fn spread(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^ (hash >> 33)
}
