//! Rows of tables and lines of JSON, and what is known of them: JSON as a mapping of Python's.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::{Map, Value};

/// What is known of a row, as Python has it.
pub(super) fn fields<'py>(py: Python<'py>, fields: &Map<String, Value>) -> PyResult<Bound<'py, PyDict>> {
    if fields.is_empty() {
        return Ok(PyDict::new(py));
    }
    let json = serde_json::to_string(fields).expect("JSON is a text");
    Ok(py.import("json")?.call_method1("loads", (json,))?.cast_into::<PyDict>()?)
}

/// What is known of a row, given as a mapping that JSON has; nothing of `None`.
pub(super) fn fields_of(given: Option<&Bound<'_, PyAny>>) -> PyResult<Map<String, Value>> {
    let Some(given) = given else { return Ok(Map::new()) };
    let mapping = PyDict::new(given.py());
    mapping.call_method1("update", (given,))?;
    if mapping.is_empty() {
        return Ok(Map::new());
    }
    let json = given.py().import("json")?.call_method1("dumps", (mapping,))?.cast_into::<PyString>()?;
    serde_json::from_str(json.to_str()?)
        .map_err(|error| PyValueError::new_err(format!("metadata is what JSON has, unlike {given}: {error}")))
}

/// A row of a table or a line of JSON: a document of its own within the text of its file.
///
/// >>> Row((0, 11), 2, 2, {"row": 1}).metadata
/// {'row': 1}
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Row(pub(super) sage_services::Row);

#[pymethods]
impl Row {
    /// ``bytes`` are the first byte of its text in that of the file and the one behind the last, in UTF-8. Lines are
    /// those of the file, counted from 1, the last one inclusive. ``metadata`` is a mapping of what JSON has.
    #[new]
    #[pyo3(signature = (bytes, first_line=1, last_line=1, metadata=None))]
    fn new(
        bytes: (usize, usize),
        first_line: usize,
        last_line: usize,
        metadata: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        if first_line < 1 || last_line < first_line {
            return Err(PyValueError::new_err(format!(
                "there are no lines {first_line} to {last_line}: lines count from 1, first to last"
            )));
        }
        Ok(Self(sage_services::Row::new(bytes.0..bytes.1, first_line, last_line, fields_of(metadata)?)))
    }

    /// Where its text lies in that of the file: its first byte, and the one behind its last.
    #[getter]
    fn bytes(&self) -> (usize, usize) {
        (self.0.bytes.start, self.0.bytes.end)
    }

    /// Its first line in the file, counted from 1.
    #[getter]
    fn first_line(&self) -> usize {
        self.0.first_line
    }

    /// Its last line in the file, inclusive.
    #[getter]
    fn last_line(&self) -> usize {
        self.0.last_line
    }

    /// Of a table: ``row``, its number, counted from 1 below the header. Of JSON: the fields that are not its text.
    /// Each time a new mapping.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        fields(py, &self.0.metadata)
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<((usize, usize), usize, usize, Bound<'py, PyDict>)> {
        Ok((self.bytes(), self.first_line(), self.last_line(), self.metadata(py)?))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let sage_services::Row { first_line, last_line, .. } = &self.0;
        Ok(format!("Row({:?}, {first_line}, {last_line}, {})", self.bytes(), self.metadata(py)?.repr()?))
    }
}

/// The rows of a list, each of which lies in the text.
pub(super) fn rows(given: &Bound<'_, PyAny>, text: &str) -> PyResult<Vec<sage_services::Row>> {
    given
        .try_iter()?
        .map(|row| {
            let row = row?;
            let row = row
                .cast::<Row>()
                .map_err(|_| PyTypeError::new_err(format!("`rows` is a list of Row, unlike {row}")))?
                .get();
            if text.get(row.0.bytes.clone()).is_none() {
                return Err(PyValueError::new_err(format!("the text has no bytes {:?} of its own", row.bytes())));
            }
            Ok(row.0.clone())
        })
        .collect()
}
