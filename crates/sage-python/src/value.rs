//! What a record is made of: a Python object, or a value that operators of the engine work on without the interpreter.
//!
//! Only objects of exactly the built-in types become values, so that what comes out of a pipeline is what went in. A [`Key`] is
//! made while its thread is attached, hash included; from then on it is compared without the interpreter, but for objects
//! of other classes.

use std::hash::{Hash, Hasher};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyString, PyTuple};
use sage::BoxError;

use crate::error::Raised;
use crate::thread::attach;

/// How deep containers may be nested to become values; what is deeper stays an object.
const MOST_DEPTH: usize = 64;

/// A value of a record.
#[derive(Debug)]
pub(crate) enum Value {
    /// A Python object. One that is dropped by a thread that is not attached is released when the next thread attaches.
    Object(Py<PyAny>),
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
    /// The value of an object; the object itself where it has none.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> Self {
        Self::nested(object, MOST_DEPTH)
    }

    fn nested(object: &Bound<'_, PyAny>, depth: usize) -> Self {
        let all = |items: &mut dyn Iterator<Item = Bound<'_, PyAny>>| {
            items.map(|item| Self::nested(&item, depth - 1)).collect()
        };
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
            return Self::Float(number.value());
        } else if object.is_none() {
            return Self::None;
        } else if let Ok(truth) = object.cast_exact::<PyBool>() {
            return Self::Bool(truth.is_true());
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return Self::Bytes(bytes.as_bytes().into());
        } else if depth == 0 {
            return Self::Object(object.clone().unbind());
        } else if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            let items: Vec<_> = all(&mut tuple.iter());
            return Self::Tuple(items.into());
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            return Self::List(all(&mut list.iter()));
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            let pair = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
                (Self::nested(&key, depth - 1), Self::nested(&value, depth - 1))
            };
            return Self::Dict(dict.iter().map(pair).collect());
        }
        Self::Object(object.clone().unbind())
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
            (Self::Object(_), _) | (_, Self::Object(_)) => attach(|py| {
                let equal = self.clone().into_object(py).and_then(|one| one.eq(other.clone().into_object(py)?));
                equal.unwrap_or_else(|exception| throw(Raised::new(py, exception, None)))
            }),
            _ => false,
        }
    }
}

/// Leaves a function of the engine that cannot give an error: the engine takes this panic for the error it carries.
pub(crate) fn throw(raised: Raised) -> ! {
    let error: BoxError = raised.into();
    std::panic::resume_unwind(Box::new(error))
}

impl Clone for Value {
    /// Attaches where it is an object.
    fn clone(&self) -> Self {
        match self {
            Self::Object(object) => attach(|py| Self::Object(object.clone_ref(py))),
            Self::None => Self::None,
            Self::Bool(truth) => Self::Bool(*truth),
            Self::Int(number) => Self::Int(*number),
            Self::Float(number) => Self::Float(*number),
            Self::Text(text) => Self::Text(text.clone()),
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Self::Tuple(items) => Self::Tuple(items.clone()),
            Self::List(items) => Self::List(items.clone()),
            Self::Dict(pairs) => Self::Dict(pairs.clone()),
        }
    }
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
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) hash: u64,
    value: Value,
}

impl Key {
    /// The key that an object is; an error where it cannot be one, such as a list.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        // A text of a class of its own is the same key as a plain one.
        let text = object.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
        let value = text.map_or_else(|| Value::of(object), |text| Value::Text(text.into()));
        Ok(Self { hash: spread(stable_hash(object)?), value })
    }

    /// The key that a value is. Only a value that is an object needs the interpreter.
    pub(crate) fn of_value(value: Value) -> PyResult<Self> {
        match &value {
            Value::Text(text) => Ok(Self { hash: spread(fnv(text.as_bytes())), value }),
            _ => attach(|py| Self::of(&value.into_object(py)?)),
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

impl Default for Key {
    fn default() -> Self {
        Self { hash: 0, value: Value::None }
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

/// A hash that equal keys have in common. Python's own differs from run to run for texts.
fn stable_hash(object: &Bound<'_, PyAny>) -> PyResult<u64> {
    if let Ok(text) = object.cast::<PyString>() {
        // One with a surrogate has no UTF-8; what is hashed then has a mark in its place.
        return Ok(fnv(text.to_string_lossy().as_bytes()));
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(fnv(bytes.as_bytes()) ^ 0x5BD1_E995);
    }
    if let Ok(tuple) = object.cast::<PyTuple>() {
        return tuple
            .iter()
            .try_fold(0x9E37_79B9_u64, |hash, item| Ok(hash.wrapping_mul(31).wrapping_add(stable_hash(&item)?)));
    }
    if let Ok(set) = object.cast::<PyFrozenSet>() {
        return set.iter().try_fold(0_u64, |hash, item| Ok(hash.wrapping_add(stable_hash(&item)?)));
    }
    if object.is_none() {
        return Ok(0x4E6F_6E65);
    }
    if object.cast::<PyFloat>().is_ok_and(|number| number.value().is_nan()) {
        return Ok(0x7FF8_0000);
    }
    // Numbers hash by their value, whatever their type.
    Ok(object.hash()?.cast_unsigned() as u64)
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
