//! The store of vectors.

use std::path::PathBuf;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use sage_services::LexicalEmbedder;
use sage_services::store::{self, Driver, Embedded, Metric, Schema, Search};

use super::arguments::{kind, several, whole};
use super::filter::Filter;
use super::metadata::metadata;
use super::records::{Hit, Record};
use super::store_errors::raised;
use super::vector::coordinates;
use crate::call_policy::wait::wait;

/// A service: a collection of vectors with texts and metadata, in memory, in a file or of a server.
///
/// >>> store = VectorStore(2, text_search=True)
/// >>> store.upsert("east", [1.0, 0.0], "to the right", {"turns": 1})
/// >>> store.upsert("north", [0.0, 2.0], "up on the map", {"turns": 0})
/// >>> store.search([0.1, 1.0], 1)[0].text
/// 'up on the map'
/// >>> [hit.id for hit in store.search([0.1, 1.0], filter=field("turns") >= 1)]
/// ['east']
/// >>> [hit.id for hit in store.search(text="a map")]
/// ['north']
///
/// It is open from the beginning until ``close``, which the job does for a service, and ``with`` for its block. What
/// was written is found by every search that begins afterwards. A file survives the end of the process, however it
/// ends, and after ``persist`` a loss of power; one process at a time has it open. All records of it are in memory.
///
/// A vector is what an ``Embedder`` makes, a list or tuple of numbers, or an array of floats; it need not have length
/// 1. Whatever no store would take raises ``ValueError`` before the first record is stored, or ``TypeError`` for
/// another type; ``StoreError`` says that the store could not do it. Threads share a store, and their searches run at
/// the same time.
#[pyclass(frozen, subclass, weakref, module = "sage.services")]
pub(crate) struct VectorStore {
    store: store::VectorStore,
    /// Of a store in this process.
    embedded: Option<Embedded>,
    path: Option<PathBuf>,
}

impl VectorStore {
    fn open(py: Python<'_>, schema: Schema, driver: impl Driver) -> PyResult<store::VectorStore> {
        let store = store::VectorStore::new(schema, driver).map_err(|error| raised(py, &error))?;
        wait(py, store.open(), None, true)?.map_err(|error| raised(py, &error))?;
        Ok(store)
    }

    /// Waits for what the store does, detached from the interpreter.
    fn done<T: Send>(py: Python<'_>, future: impl Future<Output = Result<T, store::StoreError>> + Send) -> PyResult<T> {
        wait(py, future, None, true)?.map_err(|error| raised(py, &error))
    }

    fn embedded(&self, what: &str) -> PyResult<Embedded> {
        self.embedded.clone().ok_or_else(|| {
            let kind = self.store.kind();
            super::StoreError::new_err(format!("{kind} cannot do this: {what}; the embedded store does"))
        })
    }
}

#[pymethods]
impl VectorStore {
    /// A collection of vectors with ``dimensions`` coordinates: 1 to 65,536; those of the ``embedder``, or 1,024 as
    /// those of an ``Embedder``, unless given. It is in memory, or in the file at ``path``, which is made if it is not
    /// there, with the folders above it, for its owner only.
    ///
    /// ``name`` has 3 to 255 ASCII letters, digits and ``_``, begins with a letter, and does not end in ``_``.
    /// ``metric`` is how vectors compare: ``"cosine"``, ``"inner_product"`` or ``"euclidean"``. With ``text_search``,
    /// texts are searched by their words as well. ``embedder``, or its ``id``, says what makes the vectors: a
    /// collection that another has made is refused. With ``must_exist`` a collection is not made.
    /// ``max_records`` is how many are taken, 1 to 4,000,000,000. With ``synced`` each write survives a loss of power
    /// when it is acknowledged; it takes milliseconds more.
    ///
    /// Raises ``StoreLocked`` if another process has the file open, ``OtherCollection`` if it holds another collection,
    /// ``UnknownCollection``, ``StoreDamaged``.
    #[new]
    #[pyo3(
        signature = (
            dimensions=None, *, path=None, name="passages", metric="cosine", text_search=false, embedder=None,
            must_exist=false, max_records=None, synced=false
        ),
        text_signature = "(dimensions=1024, *, path=None, name='passages', metric='cosine', text_search=False, \
                          embedder=None, must_exist=False, max_records=1000000, synced=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it, by their names")]
    fn new(
        py: Python<'_>,
        dimensions: Option<&Bound<'_, PyAny>>,
        path: Option<PathBuf>,
        name: &str,
        metric: &str,
        text_search: bool,
        embedder: Option<&Bound<'_, PyAny>>,
        must_exist: bool,
        max_records: Option<&Bound<'_, PyAny>>,
        synced: bool,
    ) -> PyResult<Self> {
        let schema = schema(dimensions, name, metric, embedder, must_exist)?;
        let schema = if text_search { schema.with_text_search() } else { schema };
        let embedded = path.as_ref().map_or_else(Embedded::in_memory, Embedded::at);
        let embedded = if synced { embedded.synced() } else { embedded };
        let most = max_records
            .map_or(Ok(Embedded::DEFAULT_MAX_RECORDS), |given| whole("max_records", given, 1..=4_000_000_000))?;
        let embedded = embedded.max_records(u32::try_from(most).expect("it was checked"));
        let store = Self::open(py, schema, embedded.clone())?;
        Ok(Self { store, embedded: Some(embedded), path })
    }

    /// A collection of a Chroma server, by its address, such as ``http://127.0.0.1:8000``. It takes Chroma 1.5 or
    /// later.
    ///
    /// The server keeps ``database`` and its ``tenant``. ``token`` is what it knows its users by. A request of which a
    /// call may make several may take ``timeout`` seconds. The rest is as for a store in a file; texts are not searched
    /// by their words there. Raises ``StoreUnavailable`` if the server does not answer.
    ///
    /// >>> VectorStore.chroma("http://127.0.0.1:9", 2)  # doctest: +ELLIPSIS, +IGNORE_EXCEPTION_DETAIL
    /// Traceback (most recent call last):
    /// sage.services.StoreUnavailable: Chroma at ...
    #[staticmethod]
    #[pyo3(
        signature = (
            url, dimensions=None, *, name="passages", metric="cosine", embedder=None, must_exist=false, token=None,
            tenant="default_tenant", database="default_database", timeout=None
        ),
        text_signature = "(url, dimensions=1024, *, name='passages', metric='cosine', embedder=None, \
                          must_exist=False, token=None, tenant='default_tenant', database='default_database', \
                          timeout=60.0)"
    )]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it, by their names")]
    fn chroma(
        py: Python<'_>,
        url: &str,
        dimensions: Option<&Bound<'_, PyAny>>,
        name: &str,
        metric: &str,
        embedder: Option<&Bound<'_, PyAny>>,
        must_exist: bool,
        token: Option<String>,
        tenant: &str,
        database: &str,
        timeout: Option<crate::spec::Seconds>,
    ) -> PyResult<Self> {
        let schema = schema(dimensions, name, metric, embedder, must_exist)?;
        let driver = store::Chroma::at(url).tenant(tenant).database(database);
        let driver = token.into_iter().fold(driver, store::Chroma::token);
        let driver = timeout.into_iter().fold(driver, |driver, timeout| driver.request_timeout(timeout.0));
        Ok(Self { store: Self::open(py, schema, driver)?, embedded: None, path: None })
    }

    /// A collection of a Milvus server, by its address, such as ``http://127.0.0.1:19530``.
    ///
    /// ``token`` is what the server knows its users by: an API key, or a name and a password as ``name:password``. A
    /// text has up to 65,535 bytes there. The rest is as for ``chroma``.
    ///
    /// >>> VectorStore.milvus("http://127.0.0.1:9", 2)  # doctest: +ELLIPSIS, +IGNORE_EXCEPTION_DETAIL
    /// Traceback (most recent call last):
    /// sage.services.StoreUnavailable: Milvus at ...
    #[staticmethod]
    #[pyo3(
        signature = (
            url, dimensions=None, *, name="passages", metric="cosine", embedder=None, must_exist=false, token=None,
            database="default", timeout=None
        ),
        text_signature = "(url, dimensions=1024, *, name='passages', metric='cosine', embedder=None, \
                          must_exist=False, token=None, database='default', timeout=60.0)"
    )]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it, by their names")]
    fn milvus(
        py: Python<'_>,
        url: &str,
        dimensions: Option<&Bound<'_, PyAny>>,
        name: &str,
        metric: &str,
        embedder: Option<&Bound<'_, PyAny>>,
        must_exist: bool,
        token: Option<String>,
        database: &str,
        timeout: Option<crate::spec::Seconds>,
    ) -> PyResult<Self> {
        let schema = schema(dimensions, name, metric, embedder, must_exist)?;
        let driver = store::Milvus::at(url).database(database);
        let driver = token.into_iter().fold(driver, store::Milvus::token);
        let driver = timeout.into_iter().fold(driver, |driver, timeout| driver.request_timeout(timeout.0));
        Ok(Self { store: Self::open(py, schema, driver)?, embedded: None, path: None })
    }

    /// The number of coordinates of every vector.
    #[getter]
    fn dimensions(&self) -> usize {
        self.store.schema().dimensions()
    }

    /// The name of the collection.
    #[getter]
    fn name(&self) -> &str {
        self.store.schema().name()
    }

    /// How vectors compare.
    #[getter]
    fn metric(&self) -> &'static str {
        match self.store.schema().metric_used() {
            Metric::InnerProduct => "inner_product",
            metric => metric.name(),
        }
    }

    /// What makes the vectors; ``None`` if that was not said.
    #[getter]
    fn embedder(&self) -> Option<&str> {
        self.store.schema().embedder_used()
    }

    /// The file; ``None`` for a store that is not in one.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// Stores a record, or replaces the one with this id. See ``Record`` for what it takes.
    ///
    /// Raises ``StoreFull`` for a new id in a full store.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert("east", [1.0, 0.0], "to the right", {"turns": 1})
    /// >>> store.count()
    /// 1
    #[pyo3(signature = (id, vector, text="", metadata=None))]
    fn upsert(
        &self,
        py: Python<'_>,
        id: &str,
        vector: &Bound<'_, PyAny>,
        text: &str,
        metadata: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let mut record = store::Record::new(id, coordinates(vector)?.to_vec()).text(text);
        record.metadata = self::metadata(metadata)?;
        Self::done(py, self.store.upsert(vec![record]))
    }

    /// Stores all records, or, when one is refused, none: each a ``Record``, or a tuple of an id, a vector and perhaps
    /// a text and metadata. No two have the same id.
    ///
    /// >>> store, [passage] = VectorStore(2), Chunker().chunks("guide.md", "Services stop last.")
    /// >>> store.upsert_batch([passage.record([0.0, 1.0]), ("east", [1.0, 0.0])])
    /// >>> store.search([0.0, 1.0], 1)[0].passage.path
    /// 'guide.md'
    fn upsert_batch(&self, py: Python<'_>, records: &Bound<'_, PyAny>) -> PyResult<()> {
        let records = records.try_iter()?.map(|record| self::record(&record?)).collect::<PyResult<Vec<_>>>()?;
        Self::done(py, self.store.upsert(records))
    }

    /// The record with this id; ``None`` if there is none.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert("east", [1.0, 0.0], "to the right")
    /// >>> store.get("east").text, store.get("west")
    /// ('to the right', None)
    fn get(&self, py: Python<'_>, id: &str) -> PyResult<Option<Record>> {
        let mut found = Self::done(py, self.store.get(&[id]))?;
        Ok(found.pop().flatten().map(Record))
    }

    /// The records with these ids, in their order; ``None`` for one that is not there.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert("east", [1.0, 0.0])
    /// >>> [record and record.id for record in store.get_many(["west", "east"])]
    /// [None, 'east']
    fn get_many(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Record>>> {
        let found = Self::done(py, self.store.get(&several("ids", ids)?))?;
        Ok(found.into_iter().map(|record| record.map(Record)).collect())
    }

    /// Deletes the records with these ids, or this one, and says how many of them were there.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert("east", [1.0, 0.0])
    /// >>> store.delete(["east", "west"]), store.delete("east")
    /// (1, 0)
    fn delete(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<usize> {
        let ids = match ids.cast::<PyString>() {
            Ok(id) => vec![id.to_str()?.to_owned()],
            Err(_) => several("ids", ids)?,
        };
        Self::done(py, self.store.delete(&ids))
    }

    /// Deletes the records that meet the filter, and says how many they were. ``delete_where({})`` deletes all.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert("east", [1.0, 0.0], metadata={"turns": 1})
    /// >>> store.delete_where(field("turns") > 0)
    /// 1
    fn delete_where(&self, py: Python<'_>, filter: &Bound<'_, PyAny>) -> PyResult<usize> {
        Self::done(py, self.store.delete_where(Filter::read(filter)?))
    }

    /// The ``k`` records that compare best, best first, 1 to 16,384; fewer only where fewer are there. Equal scores are
    /// in the order of their ids.
    ///
    /// They are compared with ``vector``, or with ``text`` by its words, or with both: then the places in the two
    /// orders are joined, by reciprocal rank fusion, and ``weights`` is what a place in each of them counts. ``filter``
    /// is a ``Filter`` or a mapping of values that are equal, and says which records are looked at. A score below
    /// ``min_score`` is no result.
    ///
    /// >>> store = VectorStore(2, text_search=True)
    /// >>> store.upsert_batch([("east", [1.0, 0.0], "to the right"), ("north", [0.0, 1.0], "up")])
    /// >>> [(hit.id, hit.score) for hit in store.search([3.0, 0.0], 1)]
    /// [('east', 1.0)]
    /// >>> [hit.id for hit in store.search([3.0, 0.0], 1, text="up", weights=(0.5, 2.0))]
    /// ['north']
    #[pyo3(
        signature = (vector=None, k=None, *, text=None, filter=None, weights=(1.0, 1.0), min_score=None),
        text_signature = "($self, vector=None, k=5, *, text=None, filter=None, weights=(1.0, 1.0), min_score=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it, by their names")]
    fn search(
        &self,
        py: Python<'_>,
        vector: Option<&Bound<'_, PyAny>>,
        k: Option<&Bound<'_, PyAny>>,
        text: Option<&str>,
        filter: Option<&Bound<'_, PyAny>>,
        weights: (f32, f32),
        min_score: Option<f32>,
    ) -> PyResult<Vec<Hit>> {
        let vector = vector.map(coordinates).transpose()?.map(|vector| vector.to_vec());
        let k = k.map_or(Ok(5), |given| whole("k", given, 1..=store::MAX_RESULTS))?;
        let search = match (vector, text) {
            (Some(vector), Some(text)) => Search::hybrid(vector, text, k),
            (Some(vector), None) => Search::vector(vector, k),
            (None, Some(text)) => Search::text(text, k),
            (None, None) => return Err(PyTypeError::new_err("a search takes a `vector`, a `text`, or both")),
        };
        let filter = filter.map(Filter::read).transpose()?;
        let search = filter.into_iter().fold(search.weights(weights.0, weights.1), Search::filter);
        let search = min_score.into_iter().fold(search, Search::min_score);
        Ok(Self::done(py, self.store.search(search))?.into_iter().map(Hit).collect())
    }

    /// The number of records, or of those that meet the filter.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.upsert("east", [1.0, 0.0], metadata={"turns": 1})
    /// >>> store.count(), store.count({"turns": 0})
    /// (1, 0)
    #[pyo3(signature = (filter=None))]
    fn count(&self, py: Python<'_>, filter: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        match filter {
            Some(filter) => Self::done(py, self.store.count_where(Filter::read(filter)?)),
            None => Self::done(py, self.store.count()),
        }
    }

    /// Returns when all that was written survives a loss of power, as far as the store can say.
    ///
    /// >>> VectorStore(2).persist()
    fn persist(&self, py: Python<'_>) -> PyResult<()> {
        Self::done(py, self.store.persist())
    }

    /// Rewrites the file without what was replaced and deleted, so that nothing is left of it there. It happens by
    /// itself when more than half of the records in the file are gone.
    ///
    /// >>> VectorStore(2).compact()
    fn compact(&self, py: Python<'_>) -> PyResult<()> {
        let embedded = self.embedded("compact a file")?;
        py.detach(|| embedded.compact()).map_err(|error| raised(py, &error))
    }

    /// Writes all records into a new file, which is a store of its own. Searches go on meanwhile, writes wait.
    ///
    /// >>> import os, tempfile
    /// >>> path = os.path.join(tempfile.mkdtemp(), "copy.sage")
    /// >>> VectorStore(2).snapshot(path)
    /// >>> VectorStore(2, path=path, must_exist=True).count()
    /// 0
    fn snapshot(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let embedded = self.embedded("write a copy")?;
        py.detach(|| embedded.snapshot(&path)).map_err(|error| raised(py, &error))
    }

    /// Ends it: what is in memory only, connections and the lock of the file are gone. A job does this for its
    /// services. Closing again does nothing.
    ///
    /// >>> store = VectorStore(2)
    /// >>> store.close()
    /// >>> store.count()
    /// Traceback (most recent call last):
    /// sage.services.StoreClosed: the store of collection `passages` is closed
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        Self::done(py, self.store.close())
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.count(py, None)
    }

    fn __repr__(&self) -> String {
        let schema = self.store.schema();
        let place = self.path.as_ref().map_or_else(String::new, |path| format!(" in `{}`", path.display()));
        format!("<VectorStore `{}` of {} dimensions{place}>", schema.name(), schema.dimensions())
    }
}

/// What a collection is. An embedder is a text, or has an `id` and `dimensions`.
fn schema(
    dimensions: Option<&Bound<'_, PyAny>>,
    name: &str,
    metric: &str,
    embedder: Option<&Bound<'_, PyAny>>,
    must_exist: bool,
) -> PyResult<Schema> {
    let (id, made) = embedder.map(embedder_of).transpose()?.unzip();
    let made = made.flatten();
    let given = dimensions.map(|given| whole("dimensions", given, 1..=65_536)).transpose()?;
    if let (Some(given), Some(made), Some(id)) = (given, made, &id)
        && given != made
    {
        return Err(PyValueError::new_err(format!("`dimensions` is {given}, but those of {id} are {made}")));
    }
    let metric = match metric {
        "cosine" => Metric::Cosine,
        "inner_product" => Metric::InnerProduct,
        "euclidean" => Metric::Euclidean,
        other => {
            return Err(PyValueError::new_err(format!(
                "`metric` is cosine, inner_product or euclidean, not {other:?}"
            )));
        }
    };
    let schema = Schema::new(name, given.or(made).unwrap_or(LexicalEmbedder::DEFAULT_DIMENSIONS)).metric(metric);
    let schema = id.into_iter().fold(schema, Schema::embedder);
    Ok(if must_exist { schema.must_exist() } else { schema })
}

/// The id of an embedder and, unless it is given by its id, how many coordinates its vectors have.
pub(super) fn embedder_of(given: &Bound<'_, PyAny>) -> PyResult<(String, Option<usize>)> {
    if let Ok(id) = given.cast::<PyString>() {
        return Ok((id.to_str()?.to_owned(), None));
    }
    let parts = || -> PyResult<(String, Option<usize>)> {
        Ok((given.getattr("id")?.extract()?, Some(given.getattr("dimensions")?.extract()?)))
    };
    parts().map_err(|_| {
        let found = kind(given);
        PyTypeError::new_err(format!("`embedder` is an id, or an object with an `id` and `dimensions`, not {found}"))
    })
}

fn record(given: &Bound<'_, PyAny>) -> PyResult<store::Record> {
    if let Ok(record) = given.cast::<Record>() {
        return Ok(record.get().0.clone());
    }
    let parts = given.cast::<PyTuple>().ok().filter(|parts| (2..=4).contains(&parts.len()));
    let Some(parts) = parts else {
        let found = kind(given);
        return Err(PyTypeError::new_err(format!(
            "a record is a Record, or a tuple of an id, a vector and perhaps a text and metadata, not this {found}"
        )));
    };
    let text = |index: usize| parts.get_item(index)?.extract::<String>();
    let mut record = store::Record::new(text(0)?, coordinates(&parts.get_item(1)?)?.to_vec());
    if parts.len() > 2 {
        record.text = text(2)?;
    }
    if parts.len() > 3 {
        let given = parts.get_item(3)?;
        record.metadata = metadata((!given.is_none()).then_some(&given))?;
    }
    Ok(record)
}
