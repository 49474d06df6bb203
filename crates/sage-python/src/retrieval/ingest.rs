//! Ingest: what of some documents has to be embedded again, and what is gone.
//!
//! A store is asked by its methods, so that it may be a `VectorStore`, a subclass, or the handle of a service.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::arguments::kind;
use super::filter::Filter;
use super::passages::Passage;
use super::records::Record;
use super::store::embedder_of;
use super::vector::coordinates;

/// Brings a collection to what a set of documents says now: only passages that changed are embedded, and what is gone
/// is deleted.
///
/// >>> embedder = Embedder()
/// >>> store, embedded = VectorStore(embedder=embedder), []
/// >>> for text in ("# Stops\n\nServices stop last.", "# Stops\n\nServices stop last.\n\n# Starts\n\nFirst."):
/// ...     ingest = Ingest(embedder)
/// ...     plan = ingest.plan(store, [Chunker().chunks("guide.md", text)])
/// ...     embedded.append(len(plan.texts))
/// ...     store.upsert_batch(plan.records(embedder.embed_passages(plan.texts)))
/// ...     deleted = ingest.sweep(store)
/// >>> embedded, store.count()
/// ([1, 1], 2)
///
/// Each run has an ``Ingest`` of its own. It is given the passages of every document by ``plan``, or told by ``keep``
/// that one could not be read; at the end ``sweep`` deletes the passages of all others. A collection belongs to one set
/// of documents: their paths tell them apart. A store is a ``VectorStore``, or the handle of a service that is one.
/// Threads share an ``Ingest``.
#[pyclass(frozen, module = "sage.services")]
pub(crate) struct Ingest(sage_services::Ingest);

#[pymethods]
impl Ingest {
    /// Begins a run, with what makes the vectors: an embedder, or its ``id``.
    #[new]
    fn new(embedder: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (id, _) = embedder_of(embedder)?;
        Ok(Self(sage_services::Ingest::new(id)))
    }

    /// Says what has to be done for these documents, each of which is a list of all its passages. Documents that are
    /// given together are looked up together. Of two documents with one path the later counts.
    ///
    /// Raises what the store raises.
    ///
    /// >>> store, guide = VectorStore(2), Chunker().chunks("guide.md", "Services stop last.")
    /// >>> plan = Ingest("mine").plan(store, [guide])
    /// >>> plan.texts, plan.unchanged
    /// (['Services stop last.'], [])
    fn plan(&self, py: Python<'_>, store: &Bound<'_, PyAny>, documents: &Bound<'_, PyAny>) -> PyResult<Plan> {
        let documents = documents.try_iter()?.map(|document| passages(&document?)).collect::<PyResult<Vec<_>>>()?;
        let (lookup, ids) = py.detach(|| {
            let lookup = self.0.look_up(documents);
            let ids = lookup.ids();
            (lookup, ids)
        });
        let count = ids.len();
        let there = store.call_method1("get_many", (ids,))?;
        let there = there.try_iter()?.map(|record| read(&record?)).collect::<PyResult<Vec<_>>>()?;
        if there.len() != count {
            let found = there.len();
            return Err(PyValueError::new_err(format!("`get_many` of the store gave {found} records for {count} ids")));
        }
        Ok(Plan(py.detach(|| lookup.plan(there))))
    }

    /// Has ``sweep`` leave a document alone that could not be read this time.
    ///
    /// >>> ingest = Ingest("mine")
    /// >>> ingest.keep("guide.md")
    /// >>> ingest.sweep(VectorStore(2))
    /// 0
    fn keep(&self, path: &str) {
        self.0.keep(path);
    }

    /// Deletes all passages that are of no document which was given to ``plan``, and says how many. What those
    /// documents were before is gone with it. Records without a path, which are no passages, stay.
    ///
    /// It is for the end, once everything that was planned is stored: a run that has not seen all documents must not
    /// call it. If it saw none, it deletes everything. Raises what the store raises.
    ///
    /// >>> store, [passage] = VectorStore(2), Chunker().chunks("old.md", "Services stop first.")
    /// >>> store.upsert_batch([passage.record([1.0, 0.0])])
    /// >>> Ingest("mine").sweep(store), store.count()
    /// (1, 0)
    fn sweep(&self, py: Python<'_>, store: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut deleted = 0;
        for gone in py.detach(|| self.0.gone()) {
            deleted += store.call_method1("delete_where", (Filter(gone),))?.extract::<usize>()?;
        }
        Ok(deleted)
    }

    fn __repr__(&self) -> &'static str {
        "<Ingest>"
    }
}

/// What has to be done for some documents: see ``Ingest.plan``.
#[pyclass(frozen, module = "sage.services")]
pub(crate) struct Plan(sage_services::Plan);

#[pymethods]
impl Plan {
    /// The texts that have to be embedded; each time a new list.
    #[getter]
    fn texts(&self) -> Vec<String> {
        self.0.texts()
    }

    /// The passages that are stored as they are. An ``Embedder``, which counts words, is told of them by its ``learn``.
    #[getter]
    fn unchanged(&self) -> Vec<Passage> {
        self.0.unchanged().iter().cloned().map(Passage).collect()
    }

    /// The records to store, given a vector for each of the ``texts``, in their order: those that changed, and those of
    /// which only the place did. A passage whose vector is zero cannot be found, and is left out.
    ///
    /// Raises ``ValueError`` when there are not as many vectors as texts.
    ///
    /// >>> plan = Ingest("mine").plan(VectorStore(2), [Chunker().chunks("guide.md", "Services stop last.")])
    /// >>> [record.id for record in plan.records([[1.0, 0.0]])]
    /// ['guide.md#000000']
    fn records(&self, py: Python<'_>, vectors: &Bound<'_, PyAny>) -> PyResult<Vec<Record>> {
        let vectors = vectors.try_iter()?.map(|vector| Ok(coordinates(&vector?)?.to_vec()));
        let vectors: Vec<Vec<f32>> = vectors.collect::<PyResult<_>>()?;
        let (found, texts) = (vectors.len(), self.0.changed());
        if found != texts {
            return Err(PyValueError::new_err(format!("`vectors` has {found} vectors for {texts} texts")));
        }
        let plan = self.0.clone();
        Ok(py.detach(|| plan.into_records(vectors)).into_iter().map(Record).collect())
    }

    fn __repr__(&self) -> String {
        format!("<Plan: {} texts to embed, {} passages unchanged>", self.0.changed(), self.0.unchanged().len())
    }
}

/// The passages of a document.
fn passages(document: &Bound<'_, PyAny>) -> PyResult<Vec<sage_services::Passage>> {
    let wrong = |found: &Bound<'_, PyAny>| {
        PyTypeError::new_err(format!("a document is a list of its passages, unlike {}", kind(found)))
    };
    let items = document.try_iter().map_err(|_| wrong(document))?;
    items
        .map(|item| {
            let item = item?;
            Ok(item.cast::<Passage>().map_err(|_| wrong(&item))?.get().0.clone())
        })
        .collect()
}

/// What a store has for an id.
fn read(record: &Bound<'_, PyAny>) -> PyResult<Option<sage_services::store::Record>> {
    if record.is_none() {
        return Ok(None);
    }
    let record = record
        .cast::<Record>()
        .map_err(|_| PyTypeError::new_err(format!("`get_many` of the store gave {}, not a Record", kind(record))))?;
    Ok(Some(record.get().0.clone()))
}
