//! The chunker, which cuts documents into passages.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use sage_services::Format;

use super::arguments::whole;
use super::files::{DocumentText, format_of};
use super::passages::Passage;

/// Cuts documents into passages, so that all text that is not white space is in at least one of them.
///
/// ``Chunker()`` makes passages of whole lines of one section, up to a number of characters: in Markdown and HTML a
/// heading begins a passage, and fenced code stays together where it fits. ``Chunker.by_sentences`` makes them of whole
/// sentences, and ``Chunker.by_tokens`` of so many tokens, wherever they end.
///
/// >>> [passage.first_line for passage in Chunker().chunks("guide.md", "# Stops\n\nIn order.\n\n# Starts\n\nToo.")]
/// [1, 5]
#[pyclass(frozen, module = "sage.services")]
pub(crate) struct Chunker {
    chunker: sage_services::Chunker,
    made_of: MadeOf,
}

/// How it was made, for pickling.
#[derive(Clone, Copy)]
enum MadeOf {
    Sections(usize, usize, usize),
    Sentences(usize, usize),
    Tokens(usize, usize),
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
        let made_of = MadeOf::Sections(target, max, overlap);
        Ok(Self { chunker: sage_services::Chunker::new(target, max, overlap), made_of })
    }

    /// A chunker whose passages are as many whole sentences as have at most ``max_tokens`` words, and repeat the last
    /// sentences of the passage before, up to ``overlap_tokens`` words. Headings, rows of tables and blocks of code
    /// count as sentences; one that is longer is cut between two words. ``ValueError`` unless ``overlap_tokens`` <
    /// ``max_tokens``.
    ///
    /// >>> passages = Chunker.by_sentences(6, 3).chunks("a.txt", "It stops. It starts. It goes on again.")
    /// >>> [passage.text for passage in passages]
    /// ['It stops. It starts.', 'It starts. It goes on again.']
    #[staticmethod]
    #[pyo3(signature = (max_tokens, overlap_tokens=None), text_signature = "(max_tokens, overlap_tokens=0)")]
    fn by_sentences(max_tokens: &Bound<'_, PyAny>, overlap_tokens: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (most, again) = window(max_tokens, overlap_tokens)?;
        let chunker = sage_services::Chunker::by_sentences(most, again);
        Ok(Self { chunker, made_of: MadeOf::Sentences(most, again) })
    }

    /// A chunker whose passages have ``max_tokens`` words, and repeat the last ``overlap_tokens`` of the passage
    /// before. ``ValueError`` unless ``overlap_tokens`` < ``max_tokens``.
    ///
    /// >>> [passage.text for passage in Chunker.by_tokens(3, 1).chunks("a.txt", "It stops. It starts. It goes on.")]
    /// ['It stops. It', 'It starts. It', 'It goes on.']
    #[staticmethod]
    #[pyo3(signature = (max_tokens, overlap_tokens=None), text_signature = "(max_tokens, overlap_tokens=0)")]
    fn by_tokens(max_tokens: &Bound<'_, PyAny>, overlap_tokens: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (most, again) = window(max_tokens, overlap_tokens)?;
        let chunker = sage_services::Chunker::by_tokens(most, again);
        Ok(Self { chunker, made_of: MadeOf::Tokens(most, again) })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let class = py.get_type::<Self>();
        Ok(match self.made_of {
            MadeOf::Sections(target, max, overlap) => (class.into_any(), (target, max, overlap).into_pyobject(py)?),
            MadeOf::Sentences(max, overlap) => (class.getattr("by_sentences")?, (max, overlap).into_pyobject(py)?),
            MadeOf::Tokens(max, overlap) => (class.getattr("by_tokens")?, (max, overlap).into_pyobject(py)?),
        })
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
        let format = format.map_or(Ok(Format::of(path)), format_of)?;
        Ok(py.detach(|| self.chunker.chunks(path, format, text).into_iter().map(Passage).collect()))
    }

    /// Cuts what ``read_document`` has read: no passage has text of two rows, and each knows its pages. The lines of a
    /// row's passages are those of the row in its file.
    ///
    /// >>> document = DocumentText("sink\n\nservice", rows=[Row((0, 5), 2, 2), Row((6, 13), 3, 3)])
    /// >>> [(passage.text, passage.first_line) for passage in Chunker().chunk_document("stops.csv", document)]
    /// [('sink', 2), ('service', 3)]
    fn chunk_document(&self, py: Python<'_>, path: &str, document: &DocumentText) -> Vec<Passage> {
        py.detach(|| self.chunker.chunk_document(path, &document.0).into_iter().map(Passage).collect())
    }

    fn __repr__(&self) -> String {
        format!("<Chunker: {}>", self.chunker.id())
    }
}

/// How many tokens a passage has, and how many of them again.
fn window(max_tokens: &Bound<'_, PyAny>, overlap_tokens: Option<&Bound<'_, PyAny>>) -> PyResult<(usize, usize)> {
    let most = whole("max_tokens", max_tokens, 1..=usize::MAX)?;
    let again = overlap_tokens.map_or(Ok(0), |given| whole("overlap_tokens", given, 0..=usize::MAX))?;
    if again >= most {
        return Err(PyValueError::new_err(format!(
            "`overlap_tokens` is less than `max_tokens`: {again} and {most} do not fit"
        )));
    }
    Ok((most, again))
}
