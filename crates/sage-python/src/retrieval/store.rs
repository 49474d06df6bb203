//! The vector store, whose payloads are Python objects.

use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use sage_services::{LexicalEmbedder, Record, StoreError};

use super::arguments::{kind, whole};
use super::vector::coordinates;

create_exception!(sage.services, StoreFull, PyRuntimeError, "A store holds its maximum number of records.");

/// Counted outside of Python, so that a search clones it while detached. One that is dropped while detached is released
/// when its thread attaches again, at the end of the same call.
pub(super) type Payload = Arc<Py<PyAny>>;

/// One result of a search.
#[pyclass(frozen, module = "sage.services")]
pub(crate) struct Hit(pub(super) sage_services::Hit<Payload>);

impl Hit {
    fn payload_of<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.payload.bind(py)
    }
}

#[pymethods]
impl Hit {
    /// For passages that were found by something else than a ``VectorStore``.
    #[new]
    #[pyo3(signature = (id, score, payload))]
    fn new(id: &str, score: f32, payload: Py<PyAny>) -> Self {
        Self(sage_services::Hit { id: id.into(), score, payload: Arc::new(payload) })
    }

    /// The id under which the record was stored.
    #[getter]
    fn id(&self) -> &str {
        &self.0.id
    }

    /// From a search, the cosine of the angle between the query and the record: −1 to 1, and 1 is the same direction.
    #[getter]
    fn score(&self) -> f32 {
        self.0.score
    }

    /// What was stored with the record: the same object.
    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.payload.clone_ref(py)
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        let same = self.0.id == other.0.id && self.0.score == other.0.score;
        Ok(same && self.payload_of(py).eq(other.payload_of(py))?)
    }

    fn __getnewargs__(&self, py: Python<'_>) -> (&str, f32, Py<PyAny>) {
        (&self.0.id, self.0.score, self.payload(py))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Hit({:?}, {:.3}, {})", self.0.id, self.0.score, self.payload_of(py).repr()?))
    }
}

/// A service: an exact cosine search over vectors in memory, each with an id and a payload.
///
/// >>> store = VectorStore(2)
/// >>> store.upsert("east", [1.0, 0.0], "to the right")
/// False
/// >>> store.upsert("north", [0.0, 2.0], "up")
/// False
/// >>> store.search([0.1, 1.0], 1)[0].payload
/// 'up'
///
/// A vector is what an ``Embedder`` makes, a list or tuple of numbers, or an array of floats; it need not have length
/// 1. Every method raises ``ValueError`` for one of another number of dimensions, with a coordinate that is not finite,
/// or of zeros, and ``TypeError`` for anything else. A record takes 4 bytes a dimension, its id twice, and its payload,
/// any object. Threads share a store, and their searches run at the same time. A payload that refers to its store keeps
/// both until ``clear``.
#[pyclass(frozen, subclass, module = "sage.services")]
pub(crate) struct VectorStore(sage_services::VectorStore<Payload>);

#[pymethods]
impl VectorStore {
    /// A store of vectors with ``dimensions`` coordinates (1 to 65,536; 1,024 as those of an ``Embedder`` unless given)
    /// and at most ``max_records`` records (1,000,000 unless given).
    #[new]
    #[pyo3(signature = (dimensions=None, max_records=None), text_signature = "(dimensions=1024, max_records=1000000)")]
    fn new(dimensions: Option<&Bound<'_, PyAny>>, max_records: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let dimensions = dimensions
            .map_or(Ok(LexicalEmbedder::DEFAULT_DIMENSIONS), |given| whole("dimensions", given, 1..=65_536))?;
        let store = sage_services::VectorStore::new(dimensions);
        Ok(Self(match max_records {
            Some(given) => store.with_max_records(whole("max_records", given, 0..=usize::MAX)?),
            None => store,
        }))
    }

    /// The number of coordinates of every vector.
    #[getter]
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    /// The number of records that the store accepts.
    #[getter]
    fn max_records(&self) -> usize {
        self.0.max_records()
    }

    /// The number of records stored, as ``len(store)``, for those who have a handle.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.count()
    /// 0
    fn count(&self, py: Python<'_>) -> usize {
        py.detach(|| self.0.len())
    }

    /// Stores a record, replacing the one with an equal id. Returns whether it replaced one.
    ///
    /// Raises ``StoreFull`` for a new id in a full store.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert("east", [1.0, 0.0]), store.upsert("east", [2.0, 0.0])
    /// (False, True)
    #[pyo3(signature = (id, vector, payload=None))]
    fn upsert(
        &self,
        py: Python<'_>,
        id: &str,
        vector: &Bound<'_, PyAny>,
        payload: Option<Py<PyAny>>,
    ) -> PyResult<bool> {
        let vector = coordinates(vector)?;
        let payload = Arc::new(payload.unwrap_or_else(|| py.None()));
        py.detach(|| self.0.upsert(id, &vector, payload)).map_err(refused)
    }

    /// Stores all records, tuples of an id, a vector and a payload, or, when one is refused, none. Of two with one id
    /// the later stays.
    ///
    /// Raises as ``upsert`` does.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert_batch([("east", [1.0, 0.0], "right"), ("north", [0.0, 1.0], "up")])
    /// >>> len(store)
    /// 2
    fn upsert_batch(&self, py: Python<'_>, records: &Bound<'_, PyAny>) -> PyResult<()> {
        let records = records.try_iter()?.map(|record| self::record(&record?)).collect::<PyResult<Vec<_>>>()?;
        py.detach(|| self.0.upsert_batch(records)).map_err(refused)
    }

    /// The ``k`` records closest in direction to ``query``, best first; equal scores in the order of their ids. Fewer
    /// when the store holds fewer.
    ///
    /// Raises ``ValueError`` when ``k`` is less than 1.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert_batch([("east", [1.0, 0.0], "right"), ("north", [0.0, 1.0], "up")])
    /// >>> [(hit.id, hit.score, hit.payload) for hit in store.search([3.0, 0.0], 1)]
    /// [('east', 1.0, 'right')]
    fn search(&self, py: Python<'_>, query: &Bound<'_, PyAny>, k: &Bound<'_, PyAny>) -> PyResult<Vec<Hit>> {
        let (query, k) = (coordinates(query)?, whole("k", k, 1..=usize::MAX)?);
        py.detach(|| Ok(self.0.search(&query, k)?.into_iter().map(Hit).collect())).map_err(refused)
    }

    /// The payload stored under ``id``, or ``default`` when no record has that id.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert_batch([("east", [1.0, 0.0], "right")])
    /// >>> store.get("east"), store.get("west", "none there")
    /// ('right', 'none there')
    #[pyo3(signature = (id, default=None))]
    fn get(&self, py: Python<'_>, id: &str, default: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
        py.detach(|| self.0.get(id)).map(|payload| payload.clone_ref(py)).or(default)
    }

    /// Removes a record and returns its payload; ``None`` when no record has that id.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert_batch([("east", [1.0, 0.0], "right")])
    /// >>> store.delete("east"), store.delete("east")
    /// ('right', None)
    fn delete(&self, py: Python<'_>, id: &str) -> Option<Py<PyAny>> {
        py.detach(|| self.0.delete(id)).map(|payload| payload.clone_ref(py))
    }

    /// Removes everything and gives the memory back.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert_batch([("east", [1.0, 0.0], "right")])
    /// >>> store.clear()
    /// >>> len(store)
    /// 0
    fn clear(&self, py: Python<'_>) {
        py.detach(|| self.0.clear());
    }

    /// The hook of the engine: as ``clear``, although handles to the service may live on.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert_batch([("east", [1.0, 0.0], "right")])
    /// >>> store.cleanup()
    /// >>> len(store)
    /// 0
    fn cleanup(&self, py: Python<'_>) {
        self.clear(py);
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.count(py)
    }

    fn __contains__(&self, py: Python<'_>, id: &str) -> bool {
        py.detach(|| self.0.get(id).is_some())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<VectorStore of {} records in {} dimensions>", self.count(py), self.0.dimensions())
    }
}

fn record(record: &Bound<'_, PyAny>) -> PyResult<Record<Payload>> {
    let parts = record.cast::<PyTuple>().ok().filter(|parts| parts.len() == 3);
    let Some(parts) = parts else {
        let found = kind(record);
        return Err(PyTypeError::new_err(format!(
            "a record is a tuple of an id, a vector and a payload, not this {found}"
        )));
    };
    let id = parts.get_item(0)?;
    let vector = coordinates(&parts.get_item(1)?)?.to_vec();
    let id = id.cast::<PyString>()?.to_str()?.into();
    Ok(Record { id, vector, payload: Arc::new(parts.get_item(2)?.unbind()) })
}

fn refused(error: StoreError) -> PyErr {
    match error {
        StoreError::Full { .. } => StoreFull::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}
