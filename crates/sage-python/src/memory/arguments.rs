//! What several of the classes read of their arguments, and give.

use std::time::Duration;

use jiff::Timestamp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDateTime};

use crate::retrieval::{kind, moment};
use crate::spec::Seconds;

/// A moment, of a datetime with a time zone.
pub(super) fn moment_of(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Timestamp> {
    let date = given
        .cast::<PyDateTime>()
        .map_err(|_| PyTypeError::new_err(format!("`{name}` is a datetime with a time zone, not {}", kind(given))))?;
    moment(name, date)
}

/// A length of time of more than 0, of seconds or a `timedelta`: as the package reads it elsewhere.
pub(super) fn duration_of(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Duration> {
    static SECONDS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = given.py();
    let read = SECONDS.import(py, "sage._arguments", "seconds")?;
    let more = [("more", true)].into_py_dict(py)?;
    Ok(read.call((format!("`{name}`"), given), Some(&more))?.extract::<Seconds>()?.0)
}

/// The number that has the fewest digits of those that are this one in 32 bits: 0.8 is 0.8.
pub(super) fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}
