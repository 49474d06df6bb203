//! Embedders that are Python objects.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use sage::{BoxError, Service};
use sage_services::{EmbedError, Embedder, EmbedderId};

use crate::error::attempt;
use crate::retrieval::coordinates;
use crate::thread::call;

/// An embedder of the user's, which is open as long as its owner wants.
pub(super) struct PythonEmbedder {
    id: EmbedderId,
    /// Has `embed_passages` and `embed_queries`.
    object: Py<PyAny>,
}

impl PythonEmbedder {
    pub(super) fn new(id: EmbedderId, object: Py<PyAny>) -> Self {
        Self { id, object }
    }

    fn embed(&self, method: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let made = attempt(|py| {
            let given = PyTuple::new(py, [PyList::new(py, texts)?])?;
            let made = call(&self.object.bind(py).getattr(method)?, &given, None)?;
            let vectors = made.try_iter()?.map(|vector| Ok(coordinates(&vector?)?.to_vec()));
            vectors.collect()
        });
        made.map_err(|error| EmbedError::Failed { name: self.id.name().to_owned(), source: BoxError::from(error) })
    }
}

impl Service for PythonEmbedder {}

impl Embedder for PythonEmbedder {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed("embed_passages", texts)
    }

    /// Of a blank one it knows nothing, and is not asked.
    fn embed_queries(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        if texts.iter().all(|text| text.trim().is_empty()) {
            return Ok(vec![vec![0.0; self.id.dimensions()]; texts.len()]);
        }
        self.embed("embed_queries", texts)
    }
}

/// The id of an embedder, by the text that stands for it in Python: that of one of the engine's says its dimensions and
/// weights, too, which those in a file are then compared with.
pub(super) fn id_of(text: &str, dimensions: usize) -> EmbedderId {
    let told = text.strip_suffix(')').and_then(|text| text.rsplit_once(&format!(" ({dimensions} dimensions")));
    match told {
        Some((name, "")) => EmbedderId::new(name, dimensions),
        Some((name, weights)) if weights.starts_with(", weights ") => {
            EmbedderId::new(name, dimensions).with_weights(&weights[", weights ".len()..])
        }
        _ => EmbedderId::new(text, dimensions),
    }
}
