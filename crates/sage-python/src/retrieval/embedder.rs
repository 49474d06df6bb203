//! The embedder, and what is made with its knowledge of words: reranking and answers.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use sage_services::{Embedder as _, Extractor, LexicalEmbedder};

use super::arguments::{filled, kind, whole};
use super::models::{passages, queries};
use super::records::Hit;
use super::vector::Vector;

/// A quotation that answers a question, and where it stands. ``str`` of it is both, on two lines.
///
/// >>> print(Answer("They stop in reverse order.", "stop.md", 3, 4, 0.5))
/// They stop in reverse order.
///   stop.md:3-4
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Answer(sage_services::Answer);

type Parts<'a> = (&'a str, &'a str, usize, usize, f32, Option<(usize, usize)>);

#[pymethods]
impl Answer {
    /// For answers that were found by something else than an ``Embedder``.
    #[new]
    #[pyo3(signature = (text, path, first_line, last_line, coverage, pages=None))]
    fn new(
        text: String,
        path: &str,
        first_line: usize,
        last_line: usize,
        coverage: f32,
        pages: Option<(usize, usize)>,
    ) -> Self {
        Self(sage_services::Answer { text, path: path.into(), first_line, last_line, pages, coverage })
    }

    /// One or two neighbouring sentences.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// The name of the document.
    #[getter]
    fn path(&self) -> &str {
        &self.0.path
    }

    /// The first line of the quotation, counted from 1.
    #[getter]
    fn first_line(&self) -> usize {
        self.0.first_line
    }

    /// The last line of the quotation, inclusive.
    #[getter]
    fn last_line(&self) -> usize {
        self.0.last_line
    }

    /// The share of the question's words found in the quotation or in the titles above it, weighted by their rarity: 0
    /// to 1.
    #[getter]
    fn coverage(&self) -> f32 {
        self.0.coverage
    }

    /// The first and the last page of the passage quoted, counted from 1; ``None`` in a document without pages.
    #[getter]
    fn pages(&self) -> Option<(usize, usize)> {
        self.0.pages
    }

    fn __getnewargs__(&self) -> Parts<'_> {
        let sage_services::Answer { text, path, first_line, last_line, pages, coverage } = &self.0;
        (text, path, *first_line, *last_line, *coverage, *pages)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Answer {:?} at {}:{}>", self.0.text, self.0.path, self.0.first_line)
    }
}

/// A service: turns text into vectors by hashing its words, without a model, a download or a network.
///
/// It finds shared words, up to their endings, not shared meaning. Equal text gives an equal vector on every machine;
/// only questions depend on which passages were embedded before. A vector has length 1, or is all zeros when no word
/// counts. Threads share an embedder, and their calls run at the same time.
///
/// >>> embedder = Embedder()
/// >>> store = VectorStore(embedder=embedder)
/// >>> passages = Chunker().chunks("stop.md", "Tasks stop first. Services stop in the reverse order of their start.")
/// >>> vectors = embedder.embed_passages([passage.text_with_heading() for passage in passages])
/// >>> store.upsert_batch(passage.record(vector) for passage, vector in zip(passages, vectors))
/// >>> question = "In what order do services stop?"
/// >>> hits = embedder.rerank(question, store.search(embedder.embed_query(question), 50), 5)
/// >>> embedder.answer(question, hits).text
/// 'Services stop in the reverse order of their start.'
///
/// Every method raises ``ValueError`` for a text that is blank, and ``UnicodeEncodeError``, a kind of it, for one with
/// a lone surrogate.
#[pyclass(frozen, subclass, module = "sage.services")]
pub(crate) struct Embedder(LexicalEmbedder);

#[pymethods]
impl Embedder {
    /// An embedder of vectors with ``dimensions`` coordinates, 16 to 65,536; 1,024 unless given.
    #[new]
    #[pyo3(signature = (dimensions=None), text_signature = "(dimensions=1024)")]
    fn new(py: Python<'_>, dimensions: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let dimensions = dimensions
            .map_or(Ok(LexicalEmbedder::DEFAULT_DIMENSIONS), |given| whole("dimensions", given, 16..=65_536))?;
        Ok(Self(py.detach(|| LexicalEmbedder::new(dimensions))))
    }

    /// The number of coordinates of every vector.
    #[getter]
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    /// Tells it from all other embedders: vectors of two can be compared if their ids are equal.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// The number of passages embedded so far.
    ///
    /// >>> embedder = Embedder()
    /// >>> vector = embedder.embed_passage("Services stop in the reverse order.")
    /// >>> embedder.passages()
    /// 1
    fn passages(&self) -> u32 {
        self.0.passages()
    }

    /// Embeds a text to be compared with others of its kind.
    ///
    /// >>> embedder = Embedder(64)
    /// >>> embedder.embed("weak tea") == embedder.embed("weak tea"), len(embedder.embed("weak tea"))
    /// (True, 64)
    fn embed(&self, py: Python<'_>, text: &str) -> PyResult<Vector> {
        let text = filled("text", text)?;
        Ok(Vector(py.detach(|| self.0.embed(text)).into()))
    }

    /// Embeds a passage to be found by questions, and counts its words, so that they know the rare ones.
    ///
    /// >>> embedder = Embedder()
    /// >>> vector = embedder.embed_passage("Services stop in the reverse order.")
    /// >>> embedder.rarity("stop") > embedder.rarity("tea")
    /// True
    fn embed_passage(&self, py: Python<'_>, text: &str) -> PyResult<Vector> {
        let text = filled("text", text)?;
        Ok(Vector(py.detach(|| self.0.embed_passage(text)).into()))
    }

    /// Embeds passages, in their order, as ``embed_passage`` does.
    ///
    /// >>> [len(vector) for vector in Embedder(64).embed_passages(["weak tea", "Services stop."])]
    /// [64, 64]
    fn embed_passages(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        passages(py, &self.0, texts)
    }

    /// Counts the words of a passage that was embedded before, perhaps by another process, so that questions know the
    /// rare ones.
    ///
    /// >>> embedder = Embedder()
    /// >>> embedder.learn("Services stop in the reverse order.")
    /// >>> embedder.passages(), embedder.embed_query("tea").is_zero()
    /// (1, True)
    fn learn(&self, py: Python<'_>, text: &str) -> PyResult<()> {
        let text = filled("text", text)?;
        py.detach(|| self.0.learn(text));
        Ok(())
    }

    /// Embeds questions, in their order, as ``embed_query`` does.
    ///
    /// >>> embedder = Embedder()
    /// >>> vectors = embedder.embed_passages(["Services stop."])
    /// >>> [vector.is_zero() for vector in embedder.embed_queries(["When do services stop?", "Weak tea?"])]
    /// [False, True]
    fn embed_queries(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vector>> {
        queries(py, &self.0, texts)
    }

    /// Embeds a question: rare words weigh more, and words that no passage holds nothing.
    ///
    /// >>> embedder = Embedder()
    /// >>> vector = embedder.embed_passage("Services stop in the reverse order.")
    /// >>> embedder.embed_query("stop").is_zero(), embedder.embed_query("tea").is_zero()
    /// (False, True)
    fn embed_query(&self, py: Python<'_>, text: &str) -> PyResult<Vector> {
        let text = filled("text", text)?;
        Ok(Vector(py.detach(|| self.0.embed_query(text)).into()))
    }

    /// How rare a word is, as a natural logarithm: 0 when no passage holds it, small when most do, 1 before the first
    /// passage.
    ///
    /// >>> embedder = Embedder()
    /// >>> before = embedder.rarity("stop")
    /// >>> vector = embedder.embed_passage("Services stop in the reverse order.")
    /// >>> before, embedder.rarity("tea")
    /// (1.0, 0.0)
    fn rarity(&self, py: Python<'_>, word: &str) -> PyResult<f32> {
        let word = filled("word", word)?;
        Ok(py.detach(|| self.0.rarity(word)))
    }

    /// Reorders hits by the words that their texts and headings share with ``question``, and keeps the best ``keep``
    /// (1 or more, 5 unless given), with new scores from 0 to 1.
    ///
    /// >>> embedder, texts = Embedder(), ["Services stop.", "Tasks stop first.", "Tea is hot."]
    /// >>> hits = [Hit(str(number), 0.0, text) for number, text in enumerate(texts)]
    /// >>> [hit.text for hit in embedder.rerank("What do tasks do first?", hits, 1)]
    /// ['Tasks stop first.']
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
        let ranked = py.detach(|| sage_services::rerank(&self.0, question, hits, keep));
        Ok(ranked.into_iter().map(Hit).collect())
    }

    /// The sentence that answers ``question`` best, or two neighbours, quoted from hits, best first.
    ///
    /// ``None`` when no sentence holds enough of the question's words: ``min_coverage``, 0 to 1, of their weight. An
    /// answer is cut at ``max_chars`` characters, 480 unless given.
    ///
    /// >>> embedder = Embedder()
    /// >>> text = "Tasks stop first. Services stop in reverse order."
    /// >>> vector = embedder.embed_passage(text)
    /// >>> embedder.answer("What is it that stops first?", [Hit("stop.md", 1.0, text)]).text
    /// 'Tasks stop first. Services stop in reverse order.'
    #[pyo3(
        signature = (question, hits, min_coverage=0.4, max_chars=None),
        text_signature = "($self, question, hits, min_coverage=0.4, max_chars=480)"
    )]
    fn answer(
        &self,
        py: Python<'_>,
        question: &str,
        hits: &Bound<'_, PyAny>,
        min_coverage: f32,
        max_chars: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Answer>> {
        let question = filled("question", question)?;
        if !(0.0..=1.0).contains(&min_coverage) {
            return Err(PyValueError::new_err(format!("`min_coverage` is 0 to 1, not {min_coverage}")));
        }
        let max_chars = max_chars.map_or(Ok(480), |given| whole("max_chars", given, 1..=usize::MAX))?;
        let hits = found(hits)?;
        let extractor = Extractor::new(min_coverage, max_chars);
        let answer = py.detach(|| extractor.answer(&self.0, question, &hits));
        Ok(answer.map(Answer))
    }

    fn __repr__(&self) -> String {
        format!("<Embedder of {} dimensions, {} passages>", self.0.dimensions(), self.0.passages())
    }
}

/// The hits of a list.
pub(super) fn found(hits: &Bound<'_, PyAny>) -> PyResult<Vec<sage_services::store::Hit>> {
    let wrong = |what: String| PyTypeError::new_err(format!("`hits` is a list of hits, not {what}"));
    let items = hits.try_iter().map_err(|_| wrong(kind(hits)))?;
    items
        .enumerate()
        .map(|(index, item)| {
            let item = item?;
            let hit = item.cast::<Hit>().map_err(|_| wrong(format!("of {}, as number {index} is", kind(&item))))?;
            Ok(hit.get().0.clone())
        })
        .collect()
}
