//! Embedders and a reranker that run models: from the files of one, or by a provider.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use sage::{ServiceError, Verdict, chain_of};
use sage_services::llm::LlmOptions;
use sage_services::{EmbedError, Embedder, EmbedderId, ModelError};

use super::arguments::{filled, several, whole};
use super::embedder::found;
use super::files::os_error;
use super::records::Hit;
use super::vector::Vector;
use crate::error::{ServiceError as Refused, verdict_as_told};
use crate::spec::Seconds;
use crate::thread::lock;

/// A service: turns text into vectors by looking up a vector for each token and taking their mean, from the files of a
/// model in a folder. It finds synonyms, but knows nothing of the order of words.
///
/// >>> StaticEmbedder("/nowhere")  # doctest: +ELLIPSIS
/// Traceback (most recent call last):
/// FileNotFoundError: ...
///
/// The folder is one that ``model2vec`` has saved, with ``model.safetensors``, ``tokenizer.json`` and ``config.json``,
/// that of the package ``wordllama``, or of a static model of ``sentence-transformers``. A vector has length 1 where
/// the model says so, and is all zeros for a text without a token that the model knows. A text that is blank is a
/// ``ValueError``. Threads share an embedder, and their calls run at the same time.
#[pyclass(frozen, subclass, module = "sage.services")]
pub(crate) struct StaticEmbedder(sage_services::StaticEmbedder);

#[pymethods]
impl StaticEmbedder {
    /// Opens a folder. ``name`` is how the model is called in its ``id``; that has a hash of its weights as well.
    ///
    /// Raises ``OSError`` for a file that cannot be read, and ``ValueError`` for one that is missing or damaged, or
    /// does not fit the others.
    #[new]
    #[pyo3(signature = (folder, name=None), text_signature = "(folder, name='static')")]
    fn new(py: Python<'_>, folder: PathBuf, name: Option<&str>) -> PyResult<Self> {
        let opened = py.detach(|| sage_services::StaticEmbedder::open(folder)).map_err(|error| refused(&error))?;
        Ok(Self(name.into_iter().fold(opened, sage_services::StaticEmbedder::with_name)))
    }

    /// The number of coordinates of every vector.
    #[getter]
    fn dimensions(&self) -> usize {
        self.0.id().dimensions()
    }

    /// Tells it from all other embedders: vectors of two can be compared if their ids are equal.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Embeds passages, which are to be found, in their order.
    fn embed_passages(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        passages(py, &self.0, texts)
    }

    /// Embeds questions, for which passages are to be found, in their order.
    fn embed_queries(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        queries(py, &self.0, texts)
    }

    fn __repr__(&self) -> String {
        format!("<StaticEmbedder {}>", self.0.id())
    }
}

/// A service: turns text into vectors by a transformer, from the files of a model in a folder, such as those of
/// all-MiniLM-L6-v2. It knows paraphrases and the order of words, and takes some hundred times as long as a
/// ``StaticEmbedder``.
///
/// >>> MiniLmEmbedder("/nowhere")  # doctest: +ELLIPSIS
/// Traceback (most recent call last):
/// FileNotFoundError: ...
///
/// It reads folders of ``sentence-transformers`` with a model of the kinds of BERT and XLM-RoBERTa: ``config.json``,
/// ``model.safetensors`` and ``tokenizer.json``. Every vector has length 1. A text that is blank is a ``ValueError``.
/// Threads share an embedder, and their calls run at the same time.
#[pyclass(frozen, subclass, module = "sage.services")]
pub(crate) struct MiniLmEmbedder(sage_services::MiniLmEmbedder);

#[pymethods]
impl MiniLmEmbedder {
    /// Opens a folder. ``name`` is how the model is called in its ``id``; that has a hash of its weights as well.
    ///
    /// Raises as ``StaticEmbedder`` does.
    #[new]
    #[pyo3(signature = (folder, name=None), text_signature = "(folder, name='minilm')")]
    fn new(py: Python<'_>, folder: PathBuf, name: Option<&str>) -> PyResult<Self> {
        let opened = py.detach(|| sage_services::MiniLmEmbedder::open(folder)).map_err(|error| refused(&error))?;
        Ok(Self(name.into_iter().fold(opened, sage_services::MiniLmEmbedder::with_name)))
    }

    /// The number of coordinates of every vector.
    #[getter]
    fn dimensions(&self) -> usize {
        self.0.id().dimensions()
    }

    /// Tells it from all other embedders: vectors of two can be compared if their ids are equal.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Embeds passages, which are to be found, in their order.
    fn embed_passages(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        passages(py, &self.0, texts)
    }

    /// Embeds questions, for which passages are to be found, in their order.
    fn embed_queries(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        queries(py, &self.0, texts)
    }

    fn __repr__(&self) -> String {
        format!("<MiniLmEmbedder {}>", self.0.id())
    }
}

/// A service: turns text into vectors by an embedding model of a provider, or of a server of one's own, with OpenAI's
/// protocol.
///
/// >>> embedder = LlmEmbedder("text-embedding-3-small", 1536, "http://localhost:8080/v1")
/// >>> embedder.id
/// 'text-embedding-3-small (1536 dimensions)'
///
/// It sends each request once. An error is a ``ServiceError`` whose ``verdict`` says what it means to a policy. A text
/// that is blank is a ``ValueError``. For single texts with what they cost, see ``Llm.embed``.
#[pyclass(frozen, subclass, module = "sage.services")]
pub(crate) struct LlmEmbedder {
    id: EmbedderId,
    /// `None` once it is closed.
    embedder: Mutex<Option<Arc<sage_services::LlmEmbedder>>>,
}

impl LlmEmbedder {
    fn open(&self) -> PyResult<Arc<sage_services::LlmEmbedder>> {
        lock(&self.embedder)
            .clone()
            .ok_or_else(|| PyRuntimeError::new_err(format!("the embedder {} is closed", self.id)))
    }
}

#[pymethods]
impl LlmEmbedder {
    /// A ``model`` by the provider's name for it, whose vectors have ``dimensions`` coordinates. Without ``base_url``
    /// it is OpenAI's, and without ``api_key`` as well, the key is that of the variable ``OPENAI_API_KEY``. A request
    /// may take ``timeout`` seconds.
    #[new]
    #[pyo3(
        signature = (model, dimensions, base_url=None, api_key=None, *, timeout=None),
        text_signature = "(model, dimensions, base_url=None, api_key=None, *, timeout=60.0)"
    )]
    fn new(
        model: &str,
        dimensions: &Bound<'_, PyAny>,
        base_url: Option<String>,
        api_key: Option<String>,
        timeout: Option<Seconds>,
    ) -> PyResult<Self> {
        let dimensions = whole("dimensions", dimensions, 1..=65_536)?;
        let key = api_key.or_else(|| base_url.is_none().then(|| std::env::var("OPENAI_API_KEY").ok()).flatten());
        let options = LlmOptions::new(filled("model", model)?).read_timeout(timeout.map_or(MOST_SECONDS, |it| it.0));
        let options = base_url.into_iter().fold(options, LlmOptions::base_url);
        let options = key.into_iter().fold(options, LlmOptions::key);
        let embedder = sage_services::LlmEmbedder::new(options, dimensions);
        Ok(Self { id: embedder.id().clone(), embedder: Mutex::new(Some(Arc::new(embedder))) })
    }

    /// The number of coordinates of every vector.
    #[getter]
    fn dimensions(&self) -> usize {
        self.id.dimensions()
    }

    /// Tells it from all other embedders, by the model's name: nobody here sees its weights.
    #[getter]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Embeds passages, which are to be found, in their order.
    fn embed_passages(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        passages(py, &*self.open()?, texts)
    }

    /// Embeds questions, for which passages are to be found, in their order.
    fn embed_queries(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        queries(py, &*self.open()?, texts)
    }

    /// Ends its thread and connections, when the calls under way are over. A job does this for its services.
    fn close(&self, py: Python<'_>) {
        let embedder = lock(&self.embedder).take();
        py.detach(|| drop(embedder));
    }

    fn __repr__(&self) -> String {
        format!("<LlmEmbedder {}>", self.id)
    }
}

/// How long a request of an [`LlmEmbedder`] may take unless it is said.
const MOST_SECONDS: Duration = Duration::from_secs(60);

/// A service: orders texts by a transformer that reads the question and a text together, from the files of a model in a
/// folder, such as those of ms-marco-MiniLM-L6-v2. It is the most exact way to order some tens of passages, and too
/// slow for more.
///
/// >>> CrossEncoder("/nowhere")  # doctest: +ELLIPSIS
/// Traceback (most recent call last):
/// FileNotFoundError: ...
///
/// It reads folders with a model of the kinds of BERT and XLM-RoBERTa that gives one score: ``config.json``,
/// ``model.safetensors`` and ``tokenizer.json``. A question and a text count up to 512 tokens together. Threads share
/// one, and their calls run at the same time.
#[pyclass(frozen, subclass, module = "sage.services")]
pub(crate) struct CrossEncoder(sage_services::CrossEncoder);

#[pymethods]
impl CrossEncoder {
    /// Opens a folder. Raises as ``StaticEmbedder`` does.
    #[new]
    fn new(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        py.detach(|| sage_services::CrossEncoder::open(folder)).map(Self).map_err(|error| refused(&error))
    }

    /// How well each text answers the question, from 0 to 1, in the order of the texts.
    fn scores(&self, py: Python<'_>, question: &str, texts: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
        let (question, texts) = (filled("question", question)?, several("texts", texts)?);
        let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
        py.detach(|| self.0.scores(question, &texts)).map_err(|error| refused(&error))
    }

    /// Reorders hits by how well their texts answer ``question``, and keeps the best ``keep`` (1 or more, 5 unless
    /// given), with new scores from 0 to 1.
    #[pyo3(signature = (question, hits, keep=None), text_signature = "($self, question, hits, keep=5)")]
    fn rerank(
        &self,
        py: Python<'_>,
        question: &str,
        hits: &Bound<'_, PyAny>,
        keep: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Hit>> {
        let question = filled("question", question)?;
        let keep = keep.map_or(Ok(5), |given| whole("keep", given, 1..=usize::MAX))?;
        let hits = found(hits)?;
        let ranked = py.detach(|| self.0.rerank(question, hits, keep)).map_err(|error| refused(&error))?;
        Ok(ranked.into_iter().map(Hit).collect())
    }
}

/// Embeds the passages of a list, none of which is blank.
pub(super) fn passages(py: Python<'_>, by: &impl Embedder, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
    embedded(py, texts, |texts| by.embed_passages(texts))
}

/// As above, questions.
pub(super) fn queries(py: Python<'_>, by: &impl Embedder, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
    embedded(py, texts, |texts| by.embed_queries(texts))
}

fn embedded(
    py: Python<'_>,
    texts: &Bound<'_, PyAny>,
    embed: impl FnOnce(&[&str]) -> Result<Vec<Vec<f32>>, EmbedError> + Send,
) -> PyResult<Vec<Vector>> {
    let texts = several("texts", texts)?;
    texts.iter().try_for_each(|text| filled("texts", text).map(drop))?;
    let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
    let vectors = py.detach(|| embed(&texts)).map_err(|error| failed(py, error))?;
    Ok(vectors.into_iter().map(|vector| Vector(vector.into())).collect())
}

/// A failure, which may say what it means to a policy.
fn failed(py: Python<'_>, error: EmbedError) -> PyErr {
    let raised = Refused::new_err(chain_of(&error));
    let causes = std::iter::successors(Some(&error as &dyn Error), |&cause| cause.source());
    let told = causes.filter_map(|cause| cause.downcast_ref::<ServiceError>()).next();
    let (verdict, after) = verdict_as_told(told.map_or(Verdict::Bad, ServiceError::verdict));
    let set = raised.value(py).setattr("verdict", verdict);
    let set = set.and_then(|()| raised.value(py).setattr("retry_after", after.map(|after| after.as_secs_f64())));
    set.map_or_else(|error| error, |()| raised)
}

fn refused(error: &ModelError) -> PyErr {
    match error {
        ModelError::Unreadable { path, source } => os_error(path, source),
        _ => PyValueError::new_err(chain_of(error)),
    }
}
