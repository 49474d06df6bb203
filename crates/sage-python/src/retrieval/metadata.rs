//! Metadata of records: Python objects as the values that every store keeps, and back.

use jiff::Timestamp;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple, PyTzInfo,
    PyTzInfoAccess,
};
use sage_services::store::{Metadata, Value};

use super::arguments::kind;

const SECONDS_A_DAY: i64 = 86_400;
const MICROSECONDS: i64 = 1_000_000;

/// The values of a mapping; none of `None`.
pub(crate) fn metadata(given: Option<&Bound<'_, PyAny>>) -> PyResult<Metadata> {
    let Some(given) = given else { return Ok(Metadata::new()) };
    let mapping = given.cast::<PyMapping>().map_err(|_| {
        let found = kind(given);
        PyTypeError::new_err(format!("metadata is a mapping of names to values, not {found}"))
    })?;
    mapping.items()?.iter().map(|item| named(&item)).collect()
}

/// A name and its value.
pub(super) fn named(item: &Bound<'_, PyAny>) -> PyResult<(String, Value)> {
    let (name, found): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
    let name = name.cast::<PyString>().map_err(|_| {
        let found = kind(&name);
        PyTypeError::new_err(format!("the name of a value is a text, not {found}"))
    })?;
    let name = name.to_str()?.to_owned();
    let value = value(&name, &found)?;
    Ok((name, value))
}

/// One value, which is or is to be compared with that of this name.
pub(super) fn value(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(list) = given.cast::<PyList>() {
        return list.iter().map(|item| single(name, &item)).collect::<PyResult<_>>().map(Value::List);
    }
    if let Ok(tuple) = given.cast::<PyTuple>() {
        return tuple.iter().map(|item| single(name, &item)).collect::<PyResult<_>>().map(Value::List);
    }
    single(name, given)
}

fn single(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(text) = given.cast::<PyString>() {
        return Ok(Value::String(text.to_str()?.to_owned()));
    }
    // A truth is an `int` as well.
    if let Ok(truth) = given.cast::<PyBool>() {
        return Ok(Value::Boolean(truth.is_true()));
    }
    if given.is_instance_of::<PyInt>() {
        let number = given.extract().map_err(|_| PyValueError::new_err(format!("`{name}` has more than 64 bits")))?;
        return Ok(Value::Integer(number));
    }
    if let Ok(number) = given.cast::<PyFloat>() {
        return Ok(Value::Float(number.value()));
    }
    if let Ok(date) = given.cast::<PyDateTime>() {
        return moment(name, date).map(Value::Date);
    }
    Err(PyTypeError::new_err(format!(
        "`{name}` is {}: a value is a str, int, float, bool or datetime, or a list of them",
        kind(given)
    )))
}

/// A moment, of a datetime that says its time zone.
pub(crate) fn moment(name: &str, date: &Bound<'_, PyDateTime>) -> PyResult<Timestamp> {
    let py = date.py();
    if date.get_tzinfo().is_none() || date.call_method0("utcoffset")?.is_none() {
        return Err(PyValueError::new_err(format!(
            "`{name}` is a datetime without a time zone, which may mean any of them: give it one, as in \
             `moment.replace(tzinfo=timezone.utc)`"
        )));
    }
    let since = date.sub(epoch(py)?)?.cast_into::<PyDelta>()?;
    let seconds = i64::from(since.get_days()) * SECONDS_A_DAY + i64::from(since.get_seconds());
    let microseconds = seconds * MICROSECONDS + i64::from(since.get_microseconds());
    Timestamp::from_microsecond(microseconds).map_err(|error| PyValueError::new_err(format!("`{name}`: {error}")))
}

/// A datetime in UTC.
pub(crate) fn date<'py>(py: Python<'py>, moment: Timestamp) -> PyResult<Bound<'py, PyAny>> {
    let microseconds = moment.as_microsecond();
    let seconds = microseconds.div_euclid(MICROSECONDS);
    let of_a_day = |seconds: i64| i32::try_from(seconds).expect("a moment is within some thousand years");
    let (days, seconds) = (seconds.div_euclid(SECONDS_A_DAY), seconds.rem_euclid(SECONDS_A_DAY));
    let rest = of_a_day(microseconds.rem_euclid(MICROSECONDS));
    epoch(py)?.add(PyDelta::new(py, of_a_day(days), of_a_day(seconds), rest, false)?)
}

fn epoch(py: Python<'_>) -> PyResult<&Bound<'_, PyDateTime>> {
    static EPOCH: PyOnceLock<Py<PyDateTime>> = PyOnceLock::new();
    let made = EPOCH.get_or_try_init(py, || {
        PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&*PyTzInfo::utc(py)?)).map(Bound::unbind)
    });
    Ok(made?.bind(py))
}

/// A value as a Python object.
pub(super) fn object<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Integer(number) => number.into_pyobject(py)?.into_any(),
        Value::Float(number) => number.into_pyobject(py)?.into_any(),
        Value::Boolean(truth) => PyBool::new(py, *truth).to_owned().into_any(),
        Value::Date(moment) => date(py, *moment)?,
        Value::List(items) => objects(py, items)?.into_any(),
        // No value of this version is another.
        _ => return Err(PyTypeError::new_err(format!("Python has no value for a {}", value.kind()))),
    })
}

pub(super) fn objects<'py>(py: Python<'py>, values: &[Value]) -> PyResult<Bound<'py, PyList>> {
    let items: Vec<_> = values.iter().map(|value| object(py, value)).collect::<PyResult<_>>()?;
    PyList::new(py, items)
}

/// All values, by their names.
pub(crate) fn mapping<'py>(py: Python<'py>, metadata: &Metadata) -> PyResult<Bound<'py, PyDict>> {
    let mapping = PyDict::new(py);
    for (name, value) in metadata {
        mapping.set_item(name, object(py, value)?)?;
    }
    Ok(mapping)
}
