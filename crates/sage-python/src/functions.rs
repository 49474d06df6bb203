//! The functions of `sage.ops`, as the engine runs them.
//!
//! Each has a reference in Python, which says what it does. Here are the cases that are common and plain; for any other
//! value the reference is called, so that results and exceptions are those of the reference, only slower.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Raised, attempt};
use crate::json;
use crate::spec::Role;
use crate::thread::{attach, call};
use crate::value::Value;
use crate::words::{each_word, is_space};

/// A function of `sage.ops`.
#[derive(Clone)]
pub(crate) enum Function {
    Identity,
    Split(Option<String>),
    Strip,
    Lower,
    Contains(String),
    ParseJson,
    Field(String),
    ToInt,
    ToFloat,
    /// One that the reference does alone: with an argument that is not text, or that has half a character.
    Other,
}

/// One step of the chain.
pub(crate) struct Link {
    pub(crate) role: Role,
    pub(crate) function: Function,
    reference: Py<PyAny>,
}

impl Link {
    pub(crate) fn of(py: Python<'_>, (role, reference): &(Role, Py<PyAny>)) -> PyResult<Self> {
        let op = reference.bind(py);
        let argument: Option<Option<String>> = op.getattr("argument")?.extract().ok();
        let function = match (&*op.getattr("name")?.extract::<String>()?, argument) {
            ("split", Some(separator)) => Function::Split(separator),
            ("strip", _) => Function::Strip,
            ("lower", _) => Function::Lower,
            ("contains", Some(Some(part))) => Function::Contains(part),
            ("parse_json", _) => Function::ParseJson,
            ("field", Some(Some(name))) => Function::Field(name),
            ("to_int", _) => Function::ToInt,
            ("to_float", _) => Function::ToFloat,
            ("identity", _) => Function::Identity,
            _ => Function::Other,
        };
        Ok(Self { role: *role, function, reference: reference.clone_ref(py) })
    }
}

/// A value on its way through the chain; a text may be a part of another one.
#[derive(Clone)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    Value(Value),
}

impl Piece<'_> {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Value(Value::Text(text)) => Some(text),
            Self::Value(_) => None,
        }
    }

    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Text(text) => Value::Text(text.into()),
            Self::Value(value) => value,
        }
    }
}

impl Link {
    /// The result for a value; of a `flatmap`, a list.
    pub(crate) fn call(&self, piece: &Piece<'_>) -> Result<Value, Raised> {
        match self.plainly(piece) {
            Some(result) => Ok(result),
            None => self.reference(piece.clone().into_value()),
        }
    }

    /// The result, if it is known here and a text or a part of one.
    pub(crate) fn text<'a>(&self, piece: &'a Piece<'_>) -> Option<Cow<'a, str>> {
        let text = piece.text()?;
        match self.function {
            Function::Identity => Some(text.into()),
            Function::Strip => Some(text.trim_matches(is_space).into()),
            // Beyond ASCII, it depends on the version of Unicode.
            Function::Lower if text.is_ascii() => {
                let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                Some(if is_lower { text.into() } else { text.to_ascii_lowercase().into() })
            }
            _ => None,
        }
    }

    /// The result, if this is a case that is known here.
    pub(crate) fn plainly(&self, piece: &Piece<'_>) -> Option<Value> {
        let text = || piece.text();
        Some(match &self.function {
            Function::Identity => piece.clone().into_value(),
            Function::Split(None) => {
                let mut words = Vec::new();
                each_word::<()>(text()?, |word| {
                    words.push(Value::Text(word.into()));
                    Ok(())
                })
                .ok()?;
                Value::List(words)
            }
            Function::Split(Some(separator)) => {
                Value::List(text()?.split(&**separator).map(|part| Value::Text(part.into())).collect())
            }
            Function::Strip | Function::Lower => Value::Text(self.text(piece)?.into()),
            Function::Contains(part) => Value::Bool(text()?.contains(&**part)),
            // What is no JSON here may be some for the reference: numbers of any size, or not-a-number.
            Function::ParseJson => match piece {
                Piece::Value(Value::Bytes(bytes)) => json::value(std::str::from_utf8(bytes).ok()?)?,
                _ => json::value(text()?)?,
            },
            Function::Field(name) => match piece {
                Piece::Value(Value::Dict(pairs)) => {
                    let is_named = |(key, _): &&(Value, Value)| matches!(key, Value::Text(key) if **key == **name);
                    pairs.iter().rfind(is_named)?.1.clone()
                }
                Piece::Value(Value::Object(object)) => attach(|py| {
                    let found = object.bind(py).cast_exact::<PyDict>().ok()?.get_item(name).ok()?;
                    found.as_ref().map(Value::of)
                })?,
                _ => return None,
            },
            Function::ToInt => match piece {
                Piece::Value(Value::Int(number)) => Value::Int(*number),
                _ => {
                    let digits = text()?;
                    let is_plain = digits.strip_prefix('-').unwrap_or(digits).bytes().all(|byte| byte.is_ascii_digit());
                    Value::Int(is_plain.then(|| digits.parse().ok()).flatten()?)
                }
            },
            Function::ToFloat => match piece {
                Piece::Value(Value::Float(number)) => Value::Float(*number),
                _ => {
                    let is_plain = |byte: u8| byte.is_ascii_digit() || b".-".contains(&byte);
                    let number = text().filter(|text| text.bytes().all(is_plain))?;
                    Value::Float(number.parse().ok()?)
                }
            },
            Function::Other => return None,
        })
    }

    /// What the reference gives.
    #[cold]
    pub(crate) fn reference(&self, value: Value) -> Result<Value, Raised> {
        attempt(|py| {
            let result = call(self.reference.bind(py), &(value.into_object(py)?,).into_pyobject(py)?, None)?;
            Ok(match self.role {
                Role::FlatMap => {
                    Value::List(result.try_iter()?.map(|item| Ok(Value::of(&item?))).collect::<PyResult<_>>()?)
                }
                _ => Value::of(&result),
            })
        })
    }
}

#[cold]
pub(crate) fn raised(exception: PyErr) -> Raised {
    attach(|py| Raised::new(py, exception))
}

/// Whether Python takes a value for true.
pub(crate) fn is_true(value: &Value) -> Result<bool, Raised> {
    Ok(match value {
        Value::None => false,
        Value::Bool(truth) => *truth,
        Value::Int(number) => *number != 0,
        Value::Float(number) => *number != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::Bytes(bytes) => !bytes.is_empty(),
        Value::Tuple(items) => !items.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Dict(pairs) => !pairs.is_empty(),
        Value::Object(object) => attempt(|py| object.bind(py).is_truthy())?,
    })
}

/// The first value of a sum. What is joined and not added is refused, by the function that loops in Python ask as well.
pub(crate) fn summand(value: Value) -> Result<Value, Raised> {
    if matches!(value, Value::Int(_) | Value::Float(_)) {
        return Ok(value);
    }
    attempt(|py| {
        let function = py.import("sage._states")?.getattr("summand")?;
        Ok(Value::of(&call(&function, &(value.into_object(py)?,).into_pyobject(py)?, None)?))
    })
}

/// The sum of two values, as Python's `+` has it.
pub(crate) fn added(one: Value, other: Value) -> Result<Value, Raised> {
    match (&one, &other) {
        (Value::Int(a), Value::Int(b)) => {
            if let Some(sum) = a.checked_add(*b) {
                return Ok(Value::Int(sum));
            }
        }
        (Value::Float(a), Value::Float(b)) => return Ok(Value::Float(a + b)),
        (Value::Int(a), Value::Float(b)) => return Ok(Value::Float(*a as f64 + b)),
        (Value::Float(a), Value::Int(b)) => return Ok(Value::Float(a + *b as f64)),
        _ => {}
    }
    attempt(|py| Ok(Value::of(&one.into_object(py)?.add(other.into_object(py)?)?)))
}
