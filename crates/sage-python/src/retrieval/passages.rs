//! Passages of documents.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::records::Record;
use super::rows::{fields, fields_of};
use super::vector::coordinates;

/// A piece of a document, which names its document, its lines and the headings above it.
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(Clone, PartialEq)]
pub(crate) struct Passage(pub(super) sage_services::Passage);

type Parts<'a> =
    (&'a str, &'a str, usize, usize, usize, &'a str, (usize, usize), Option<(usize, usize)>, Bound<'a, PyDict>);

#[pymethods]
impl Passage {
    /// Lines count from 1 and ``last_line`` is inclusive; ``index`` is the position among the passages of the document,
    /// from 0. ``bytes`` are the first byte in the document's text and the one behind the last; unless given, ``text``
    /// is all of it. ``metadata`` is what is known of its row, as JSON.
    #[new]
    #[pyo3(signature = (
        path, text, first_line=1, last_line=1, index=0, heading="", bytes=None, pages=None, metadata=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a passage, most with a default")]
    fn new(
        path: &str,
        text: String,
        first_line: usize,
        last_line: usize,
        index: usize,
        heading: &str,
        bytes: Option<(usize, usize)>,
        pages: Option<(usize, usize)>,
        metadata: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        if first_line < 1 || last_line < first_line {
            return Err(PyValueError::new_err(format!(
                "there are no lines {first_line} to {last_line}: lines count from 1, first to last"
            )));
        }
        if let Some((first, last)) = pages.filter(|(first, last)| *first < 1 || last < first) {
            return Err(PyValueError::new_err(format!(
                "there are no pages {first} to {last}: pages count from 1, first to last"
            )));
        }
        let (start, end) = bytes.unwrap_or((0, text.len()));
        let (bytes, heading, metadata) = (start..end, heading.into(), Arc::new(fields_of(metadata)?));
        let whole = sage_services::Passage::new(path, text);
        Ok(Self(sage_services::Passage { index, first_line, last_line, bytes, pages, heading, metadata, ..whole }))
    }

    /// The name of the document.
    #[getter]
    fn path(&self) -> &str {
        &self.0.path
    }

    /// Its lines, joined by line feeds.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// The first line, counted from 1.
    #[getter]
    fn first_line(&self) -> usize {
        self.0.first_line
    }

    /// The last line, inclusive.
    #[getter]
    fn last_line(&self) -> usize {
        self.0.last_line
    }

    /// Where it lies in the text of the document: its first byte, and the one behind its last.
    #[getter]
    fn bytes(&self) -> (usize, usize) {
        (self.0.bytes.start, self.0.bytes.end)
    }

    /// The first and the last page, counted from 1; ``None`` in a document without pages.
    #[getter]
    fn pages(&self) -> Option<(usize, usize)> {
        self.0.pages
    }

    /// The position among the passages of the document, from 0.
    #[getter]
    fn index(&self) -> usize {
        self.0.index
    }

    /// The titles of the sections around it, outermost first, joined by " > "; empty without headings.
    #[getter]
    fn heading(&self) -> &str {
        &self.0.heading
    }

    /// What is known of the row of a table, or of the line of JSON, that it belongs to: each time a new mapping, empty
    /// in a document without rows.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        fields(py, &self.0.metadata)
    }

    /// An id for a store: unique for the path of a document, sorted like the passages of a document.
    #[getter]
    fn id(&self) -> String {
        self.0.id()
    }

    /// The text to embed: the heading, then the text.
    ///
    /// >>> [passage] = Chunker().chunks("guide.md", "# Stops\n\nIn order.")
    /// >>> passage.text_with_heading()
    /// 'Stops\n# Stops\n\nIn order.'
    fn text_with_heading(&self) -> String {
        self.0.text_with_heading()
    }

    /// A record of it, for a store: its ``id`` and text, and as metadata its ``path``, ``index``, ``first_line``,
    /// ``last_line`` and ``heading``. A ``Hit`` of it has it as its ``passage``.
    ///
    /// >>> [passage] = Chunker().chunks("guide.md", "# Stops\n\nIn order.")
    /// >>> passage.record([0.6, 0.8]).metadata["heading"]
    /// 'Stops'
    fn record(&self, vector: &Bound<'_, PyAny>) -> PyResult<Record> {
        Ok(Record(self.0.record(coordinates(vector)?.to_vec())))
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.0.path, self.0.index, &self.0.text).hash(&mut hasher);
        hasher.finish()
    }

    fn __getnewargs__<'a>(&'a self, py: Python<'a>) -> PyResult<Parts<'a>> {
        let sage_services::Passage { path, index, first_line, last_line, heading, text, .. } = &self.0;
        let metadata = self.metadata(py)?;
        Ok((path, text, *first_line, *last_line, *index, heading, self.bytes(), self.pages(), metadata))
    }

    fn __repr__(&self) -> String {
        format!("<Passage {}:{}-{}>", self.0.path, self.0.first_line, self.0.last_line)
    }
}
