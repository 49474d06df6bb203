//! What a recall is asked for, and gives.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use sage_services::memory;

use super::arguments::shortest;
use super::turn::Turn;
use crate::retrieval::shown;

/// What each part of a turn's score counts in a recall: 0 or more, not all of them 0.
///
/// >>> weights = Weights(recency=0.3, importance=0)
/// >>> weights.recency, weights.words == Weights().words
/// (0.3, True)
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Weights(pub(super) memory::Weights);

#[pymethods]
impl Weights {
    /// What is not given counts as it does where no weights are given: ``Weights()`` shows it. There words decide most,
    /// similarity helps them, and recency only says which of two equal turns comes first.
    #[new]
    #[pyo3(signature = (*, similarity=None, words=None, context=None, recency=None, importance=None))]
    fn new(
        similarity: Option<f32>,
        words: Option<f32>,
        context: Option<f32>,
        recency: Option<f32>,
        importance: Option<f32>,
    ) -> Self {
        let usual = memory::Weights::default();
        Self(memory::Weights {
            similarity: similarity.unwrap_or(usual.similarity),
            words: words.unwrap_or(usual.words),
            context: context.unwrap_or(usual.context),
            recency: recency.unwrap_or(usual.recency),
            importance: importance.unwrap_or(usual.importance),
        })
    }

    /// See ``Parts.similarity``.
    #[getter]
    fn similarity(&self) -> f64 {
        shortest(self.0.similarity)
    }

    /// See ``Parts.words``.
    #[getter]
    fn words(&self) -> f64 {
        shortest(self.0.words)
    }

    /// See ``Parts.context``.
    #[getter]
    fn context(&self) -> f64 {
        shortest(self.0.context)
    }

    /// See ``Parts.recency``.
    #[getter]
    fn recency(&self) -> f64 {
        shortest(self.0.recency)
    }

    /// See ``Parts.importance``.
    #[getter]
    fn importance(&self) -> f64 {
        shortest(self.0.importance)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((), Bound<'py, PyDict>)> {
        let memory::Weights { similarity, words, context, recency, importance } = self.0;
        Ok(((), named(py, [similarity, words, context, recency, importance])?))
    }

    fn __repr__(&self) -> String {
        let memory::Weights { similarity, words, context, recency, importance } = self.0;
        format!(
            "Weights(similarity={similarity}, words={words}, context={context}, recency={recency}, \
             importance={importance})"
        )
    }
}

/// The parts of a score, each from 0 to 1.
///
/// >>> str(Parts(words=0.5, recency=1))
/// 'similarity 0.000, words 0.500, context 0.000, recency 1.000, importance 0.000'
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Parts(memory::Parts);

#[pymethods]
impl Parts {
    /// A memory makes parts; others are for tests.
    #[new]
    #[pyo3(signature = (*, similarity=0.0, words=0.0, context=0.0, recency=0.0, importance=0.0))]
    fn new(similarity: f32, words: f32, context: f32, recency: f32, importance: f32) -> Self {
        let mut parts = memory::Parts::default();
        (parts.similarity, parts.words, parts.context) = (similarity, words, context);
        (parts.recency, parts.importance) = (recency, importance);
        Self(parts)
    }

    /// The cosine between the vectors of the turn and of what is asked; 0 where it is negative, or one of them is
    /// missing.
    #[getter]
    fn similarity(&self) -> f64 {
        shortest(self.0.similarity)
    }

    /// The words that the turn and its role share with what is asked: BM25 among the turns of the scope, divided by the
    /// sum that it cannot reach.
    #[getter]
    fn words(&self) -> f64 {
        shortest(self.0.words)
    }

    /// How well the turns around it fit, as the evidence in a conversation often answers a question that has the words:
    /// similarity and words, each times its weight, of the turn before (half of it), the one after (0.3), the second
    /// before (0.25) and the second after (0.15) in exactly the same scope.
    #[getter]
    fn context(&self) -> f64 {
        shortest(self.0.context)
    }

    /// How recently the turn was said: 1 now, a half after the half-life, and so on.
    #[getter]
    fn recency(&self) -> f64 {
        shortest(self.0.recency)
    }

    /// The turn's importance.
    #[getter]
    fn importance(&self) -> f64 {
        shortest(self.0.importance)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((), Bound<'py, PyDict>)> {
        let memory::Parts { similarity, words, context, recency, importance, .. } = self.0;
        Ok(((), named(py, [similarity, words, context, recency, importance])?))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Parts: {}>", self.0)
    }
}

fn named(py: Python<'_>, [similarity, words, context, recency, importance]: [f32; 5]) -> PyResult<Bound<'_, PyDict>> {
    let named = PyDict::new(py);
    named.set_item("similarity", similarity)?;
    named.set_item("words", words)?;
    named.set_item("context", context)?;
    named.set_item("recency", recency)?;
    named.set_item("importance", importance)?;
    Ok(named)
}

/// A turn that was recalled.
///
/// >>> with Memory() as memory:
/// ...     ids = memory.append(Scope("acme"), [("user", "I moved to Basel."), ("user", "Tea is hot.")])
/// ...     [recalled] = memory.recall(Scope("acme"), "When did I move?", k=1)
/// >>> recalled.turn.text, recalled.score > recalled.parts.words > 0
/// ('I moved to Basel.', True)
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Recalled(pub(super) memory::Recalled);

#[pymethods]
impl Recalled {
    /// A memory makes them; others are for tests.
    #[new]
    fn new(turn: &Turn, score: f32, parts: &Parts) -> Self {
        Self(memory::Recalled::new(turn.0.clone(), score, parts.0))
    }

    /// The turn.
    #[getter]
    fn turn(&self) -> Turn {
        Turn(self.0.turn.clone())
    }

    /// The sum of its parts, each times its weight. Higher is better.
    #[getter]
    fn score(&self) -> f64 {
        shortest(self.0.score)
    }

    /// What the score is made of.
    #[getter]
    fn parts(&self) -> Parts {
        Parts(self.0.parts)
    }

    fn __getnewargs__(&self) -> (Turn, f32, Parts) {
        (self.turn(), self.0.score, self.parts())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (role, text) = (PyString::new(py, &self.0.turn.role), shown(py, &self.0.turn.text));
        Ok(format!("<Recalled {:.3}: {}, {}>", self.0.score, role.repr()?, text.repr()?))
    }
}
