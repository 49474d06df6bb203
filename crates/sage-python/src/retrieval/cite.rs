//! Numbers for passages that a model is shown, and what its answer cites.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::arguments::kind;
use super::passages::Passage;
use super::records::Hit;

/// The passages that a model is to answer from, numbered from 1.
///
/// >>> sources = Sources([Passage("stop.md", "Services stop last."), Passage("sink.md", "Sinks write.")])
/// >>> print(sources.prompt().splitlines()[0])
/// [1] stop.md:1
/// >>> citations = sources.cited_in("They stop last [1], as many say [7].")
/// >>> [str(citation) for citation in citations.known], citations.unknown
/// (['stop.md:1'], [7])
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Sources(sage_services::Sources);

#[pymethods]
impl Sources {
    /// Tells a model to cite, for the prompt.
    #[classattr]
    const INSTRUCTION: &str = sage_services::Sources::INSTRUCTION;

    /// Numbers passages, or the hits of a search, in their order.
    #[new]
    fn new(passages: &Bound<'_, PyAny>) -> PyResult<Self> {
        let read = |item: PyResult<Bound<'_, PyAny>>| -> PyResult<sage_services::Passage> {
            let item = item?;
            if let Ok(hit) = item.cast::<Hit>() {
                return Ok((&hit.get().0).into());
            }
            let passage = item.cast::<Passage>().map_err(|_| {
                let found = kind(&item);
                PyTypeError::new_err(format!("`passages` is a list of passages or hits, not of {found}"))
            })?;
            Ok(passage.get().0.clone())
        };
        let passages: Vec<_> = passages.try_iter()?.map(read).collect::<PyResult<_>>()?;
        Ok(Self(sage_services::Sources::new(passages)))
    }

    /// The passages in the order of their numbers.
    #[getter]
    fn passages(&self) -> Vec<Passage> {
        self.0.passages().iter().cloned().map(Passage).collect()
    }

    /// The text for the prompt: each passage below its number, place and headings, with a blank line behind it.
    ///
    /// >>> Sources([Passage("stop.md", "Services stop last.")]).prompt()
    /// '[1] stop.md:1\nServices stop last.\n\n'
    fn prompt(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.prompt())
    }

    /// Finds what an answer cites: numbers in brackets, such as ``[1]``, ``[1, 3]``, ``[2-4]``, ``[^1]`` and ``【1】``,
    /// also behind the word "source" or "passage".
    ///
    /// >>> sources = Sources([Passage("stop.md", "Services stop last."), Passage("sink.md", "Sinks write.")])
    /// >>> [citation.path for citation in sources.cited_in("Sinks write [2], then all stops [1, 2].").known]
    /// ['sink.md', 'stop.md']
    fn cited_in(&self, py: Python<'_>, answer: &str) -> Citations {
        Citations(py.detach(|| self.0.cited_in(answer)))
    }

    fn __getnewargs__(&self) -> (Vec<Passage>,) {
        (self.passages(),)
    }

    fn __repr__(&self) -> String {
        format!("<Sources: {} passages>", self.0.passages().len())
    }
}

/// What an answer cites.
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Citations(sage_services::Citations);

#[pymethods]
impl Citations {
    /// The sources cited, in the order in which they are first, each once.
    #[getter]
    fn known(&self) -> Vec<Citation> {
        self.0.known.iter().cloned().map(Citation).collect()
    }

    /// Numbers that stand for no source: the model has made them up. Each once.
    #[getter]
    fn unknown(&self) -> Vec<u64> {
        self.0.unknown.clone()
    }

    fn __repr__(&self) -> String {
        let known: Vec<_> = self.0.known.iter().map(|citation| citation.number).collect();
        format!("<Citations of {known:?}, unknown {:?}>", self.0.unknown)
    }
}

/// A source that an answer cites. ``str`` of it is ``path:line`` or ``path:first-last``, with pages if it has some.
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Citation(sage_services::Citation);

#[pymethods]
impl Citation {
    /// Its number in the prompt, from 1.
    #[getter]
    fn number(&self) -> usize {
        self.0.number
    }

    /// The name of the document.
    #[getter]
    fn path(&self) -> &str {
        &self.0.path
    }

    /// The first line of the passage, counted from 1.
    #[getter]
    fn first_line(&self) -> usize {
        self.0.first_line
    }

    /// The last line of the passage, inclusive.
    #[getter]
    fn last_line(&self) -> usize {
        self.0.last_line
    }

    /// The first and the last page of the passage, counted from 1; ``None`` in a document without pages.
    #[getter]
    fn pages(&self) -> Option<(usize, usize)> {
        self.0.pages
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Citation [{}] {}>", self.0.number, self.0)
    }
}
