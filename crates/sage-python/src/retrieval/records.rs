//! What goes into a store and what comes out of it, as Python objects.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use sage_services::store;

use super::metadata::{mapping, metadata};
use super::passages::Passage;
use super::vector::{Vector, coordinates};

/// How many characters of a text are shown.
const SHOWN: usize = 40;

/// What a store keeps: a vector, under an id, with a text and metadata.
///
/// >>> record = Record("guide.md#0", [0.6, 0.8], "Services stop last.", {"year": 2026})
/// >>> record.metadata["year"]
/// 2026
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Record(pub(super) store::Record);

#[pymethods]
impl Record {
    /// An id has 1 to 512 bytes, a text up to 1 MiB, and metadata up to 64 values: of ``str``, ``int``, ``float``,
    /// ``bool`` or ``datetime`` with a time zone, or a list of one of these.
    #[new]
    #[pyo3(signature = (id, vector, text="", metadata=None))]
    fn new(id: &str, vector: &Bound<'_, PyAny>, text: &str, metadata: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut record = store::Record::new(id, coordinates(vector)?.to_vec()).text(text);
        record.metadata = self::metadata(metadata)?;
        Ok(Self(record))
    }

    /// What identifies it: storing the same id again replaces it.
    #[getter]
    fn id(&self) -> &str {
        &self.0.id
    }

    /// Its vector.
    #[getter]
    fn vector(&self) -> Vector {
        Vector(self.0.vector.as_slice().into())
    }

    /// Its text, which may be empty.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// What else it says, by names; each time a new mapping. A date is in UTC.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        mapping(py, &self.0.metadata)
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<(&str, Vector, &str, Bound<'py, PyDict>)> {
        Ok((&self.0.id, self.vector(), &self.0.text, self.metadata(py)?))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (id, text, metadata) = (PyString::new(py, &self.0.id), shown(py, &self.0.text), self.metadata(py)?);
        Ok(format!("Record({}, {}, {}, {})", id.repr()?, self.vector().__repr__(), text.repr()?, metadata.repr()?))
    }
}

/// A record that a search has found.
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Hit(pub(super) store::Hit);

#[pymethods]
impl Hit {
    /// For what was found by something else than a ``VectorStore``.
    #[new]
    #[pyo3(signature = (id, score, text="", metadata=None))]
    fn new(id: &str, score: f32, text: &str, metadata: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut hit = store::Hit::new(id, score, text);
        hit.metadata = self::metadata(metadata)?;
        Ok(Self(hit))
    }

    /// The record's id.
    #[getter]
    fn id(&self) -> &str {
        &self.0.id
    }

    /// How well it compares; higher is better. Of a search by vector it is the cosine, −1 to 1, the inner product, or
    /// the distance as a negative number; of one by words it is that of BM25.
    #[getter]
    fn score(&self) -> f32 {
        self.0.score
    }

    /// The record's text.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// What else the record says, by names; each time a new mapping. A date is in UTC.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        mapping(py, &self.0.metadata)
    }

    /// The passage that was stored by ``Passage.record``. A text that was not is a document of its own, whose path is
    /// the id.
    #[getter]
    fn passage(&self) -> Passage {
        Passage((&self.0).into())
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<(&str, f32, &str, Bound<'py, PyDict>)> {
        Ok((&self.0.id, self.0.score, &self.0.text, self.metadata(py)?))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (id, text) = (PyString::new(py, &self.0.id), shown(py, &self.0.text));
        Ok(format!("Hit({}, {:.3}, {}, {})", id.repr()?, self.0.score, text.repr()?, self.metadata(py)?.repr()?))
    }
}

/// The beginning of a text.
pub(crate) fn shown<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyString> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => PyString::new(py, &format!("{}…", &text[..end])),
        None => PyString::new(py, text),
    }
}
