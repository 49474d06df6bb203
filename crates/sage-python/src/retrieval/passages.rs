//! Passages, and the chunker that cuts documents into them.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sage_services::Format;

use super::arguments::whole;
use super::records::Record;
use super::vector::coordinates;

/// A piece of a document, which names its document, its lines and the headings above it.
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(Clone, PartialEq)]
pub(crate) struct Passage(pub(super) sage_services::Passage);

type Parts<'a> = (&'a str, &'a str, usize, usize, usize, &'a str, (usize, usize), Option<(usize, usize)>);

#[pymethods]
impl Passage {
    /// Lines count from 1 and ``last_line`` is inclusive; ``index`` is the position among the passages of the document,
    /// from 0. ``bytes`` are the first byte in the document's text and the one behind the last; unless given, ``text``
    /// is all of it.
    #[new]
    #[pyo3(signature = (path, text, first_line=1, last_line=1, index=0, heading="", bytes=None, pages=None))]
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
        let heading = heading.into();
        let whole = sage_services::Passage::new(path, text);
        Ok(Self(sage_services::Passage { index, first_line, last_line, bytes: start..end, pages, heading, ..whole }))
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

    fn __getnewargs__(&self) -> Parts<'_> {
        let sage_services::Passage { path, index, first_line, last_line, heading, text, .. } = &self.0;
        (path, text, *first_line, *last_line, *index, heading, self.bytes(), self.pages())
    }

    fn __repr__(&self) -> String {
        format!("<Passage {}:{}-{}>", self.0.path, self.0.first_line, self.0.last_line)
    }
}

/// Cuts documents into passages, so that every line that is not blank is in at least one of them.
///
/// In Markdown and HTML a heading begins a passage, and fenced code stays together where it fits.
///
/// >>> [passage.first_line for passage in Chunker().chunks("guide.md", "# Stops\n\nIn order.\n\n# Starts\n\nToo.")]
/// [1, 5]
#[pyclass(frozen, module = "sage.services")]
pub(crate) struct Chunker {
    chunker: sage_services::Chunker,
    /// What it was made of.
    given: (usize, usize, usize),
}

#[pymethods]
impl Chunker {
    /// Passages end soon after ``target_chars`` characters and have at most ``max_chars``. Where a section is cut for
    /// its length, up to ``overlap_chars`` characters are repeated. ``ValueError`` unless 0 < ``target_chars`` ≤
    /// ``max_chars`` and ``overlap_chars`` < ``target_chars``.
    #[new]
    #[pyo3(
        signature = (target_chars=None, max_chars=None, overlap_chars=None),
        text_signature = "(target_chars=700, max_chars=1000, overlap_chars=120)"
    )]
    fn new(
        target_chars: Option<&Bound<'_, PyAny>>,
        max_chars: Option<&Bound<'_, PyAny>>,
        overlap_chars: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let given = |name, value: Option<&Bound<'_, PyAny>>, unless, from| {
            value.map_or(Ok(unless), |value| whole(name, value, from..=usize::MAX))
        };
        let target = given("target_chars", target_chars, 700, 1)?;
        let max = given("max_chars", max_chars, 1_000, 1)?;
        let overlap = given("overlap_chars", overlap_chars, 120, 0)?;
        if target > max || overlap >= target {
            return Err(PyValueError::new_err(format!(
                "`target_chars` is at most `max_chars` and more than `overlap_chars`: \
                 {target}, {max} and {overlap} do not fit"
            )));
        }
        Ok(Self { chunker: sage_services::Chunker::new(target, max, overlap), given: (target, max, overlap) })
    }

    fn __getnewargs__(&self) -> (usize, usize, usize) {
        self.given
    }

    /// Cuts a document into passages, in order; none when every line is blank.
    ///
    /// ``path`` is the document's name; ``format`` is ``"markdown"``, ``"html"`` or ``"text"``, and follows from the
    /// path's extension unless given.
    ///
    /// >>> passages = Chunker().chunks("guide.md", "# Stops\n\nIn order.\n\n# Starts\n\nToo.")
    /// >>> [(passage.first_line, passage.last_line, passage.heading) for passage in passages]
    /// [(1, 3, 'Stops'), (5, 7, 'Starts')]
    #[pyo3(signature = (path, text, format=None))]
    fn chunks(&self, py: Python<'_>, path: &str, text: &str, format: Option<&str>) -> PyResult<Vec<Passage>> {
        let format = match format {
            None => Format::of(path),
            Some("markdown") => Format::Markdown,
            Some("html") => Format::Html,
            Some("text") => Format::Text,
            Some(other) => {
                return Err(PyValueError::new_err(format!("`format` is markdown, html or text, not {other:?}")));
            }
        };
        Ok(py.detach(|| self.chunker.chunks(path, format, text).into_iter().map(Passage).collect()))
    }
}
