//! Checks of arguments that several of the classes have.

use std::ops::RangeInclusive;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyString};

/// A whole number within a range: `TypeError` where it is no `int`, `ValueError` where it is outside.
pub(super) fn whole(name: &str, value: &Bound<'_, PyAny>, range: RangeInclusive<usize>) -> PyResult<usize> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!("`{name}` is a whole number, not {}", value.repr()?)));
    }
    // What no `usize` holds is outside as well.
    match value.extract::<usize>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            let (from, to) = (range.start(), range.end());
            let limits = if *to == usize::MAX { format!("at least {from}") } else { format!("{from} to {to}") };
            Err(PyValueError::new_err(format!("`{name}` is {limits}, not {}", value.repr()?)))
        }
    }
}

/// A text that holds more than white space.
pub(super) fn filled<'a>(name: &str, text: &'a str) -> PyResult<&'a str> {
    if text.trim().is_empty() {
        return Err(PyValueError::new_err(format!("`{name}` is empty: there is nothing to embed or to look for")));
    }
    Ok(text)
}

/// The texts of a list.
pub(super) fn several(name: &str, texts: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if texts.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!("`{name}` is a list of texts, not one text")));
    }
    texts.try_iter()?.map(|text| text?.extract()).collect()
}

/// The name of an object's type, for messages.
pub(crate) fn kind(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string())
}
