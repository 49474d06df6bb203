//! Cuts a document into passages small enough to embed, retrieve and quote.
//!
//! A passage names its document, its bytes, lines and pages and the headings above it, so that an answer can be traced
//! to its source.
//!
//! Knows nothing of vectors, stores or file systems.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::html::html_text;
use super::layout::Format;
use super::load::DocumentText;
use super::passage::{Passage, whole_lines};
use super::sections::{self, Limits};
use super::windows::{self, Window};

/// Cuts documents into [`Passage`]s, so that all text that is not white space is in at least one of them.
///
/// | made by | a passage is |
/// |---|---|
/// | [`new`](Self::new) | whole lines of one section, up to a number of characters: for documents with headings |
/// | [`by_sentences`](Self::by_sentences) | whole sentences, up to a number of tokens |
/// | [`by_tokens`](Self::by_tokens) | so many tokens, wherever they end |
///
/// Only what is longer than a passage by itself is cut within: a line after a sentence or a word if it can be, a
/// sentence between two tokens.
///
/// ```
/// use sage_services::{Chunker, Format};
///
/// let passages = Chunker::default().chunks("guide.md", Format::Markdown, "# Stops\n\nIn order.\n\n# Starts\n\nToo.");
/// assert_eq!((passages[1].first_line, passages[1].last_line, &*passages[1].heading), (5, 7, "Starts"));
///
/// let passages = Chunker::by_sentences(6, 3).chunks("a.txt", Format::Text, "It stops. It starts. It goes on again.");
/// assert_eq!((&*passages[1].text, &passages[1].bytes), ("It starts. It goes on again.", &(10..38)));
/// ```
#[derive(Clone)]
pub struct Chunker(Mode);

#[derive(Clone)]
enum Mode {
    Sections(Limits),
    Sentences(Window),
    Tokens(Window),
}

impl Default for Chunker {
    /// By sections: 700 characters, at most 1,000, an overlap of up to 120.
    fn default() -> Self {
        Self::new(700, 1_000, 120)
    }
}

impl Chunker {
    /// Creates a chunker whose passages end soon after `target_chars` characters and never exceed `max_chars`. In
    /// Markdown and HTML a heading begins a passage, and fenced code stays together where it fits.
    ///
    /// Where a long section is cut, the next passage repeats whole lines from the end of the passage before, up to
    /// `overlap_chars` characters, so that a sentence across the cut is found.
    ///
    /// # Panics
    ///
    /// Unless `0 < target_chars ≤ max_chars` and `overlap_chars < target_chars`.
    pub fn new(target_chars: usize, max_chars: usize, overlap_chars: usize) -> Self {
        assert!(0 < target_chars && target_chars <= max_chars, "a passage's target must be 1 to its maximum");
        assert!(overlap_chars < target_chars, "passages must overlap by less than their target");
        Self(Mode::Sections(Limits { target: target_chars, max: max_chars, overlap: overlap_chars }))
    }

    /// Creates a chunker whose passages are as many whole sentences as have at most `max_tokens` tokens, and repeat the
    /// last sentences of the passage before, up to `overlap_tokens`.
    ///
    /// Tokens are words unless a [tokenizer](Self::tokenizer) is given. Headings, rows of tables and blocks of code
    /// count as sentences.
    ///
    /// # Panics
    ///
    /// Unless `overlap_tokens < max_tokens`.
    pub fn by_sentences(max_tokens: usize, overlap_tokens: usize) -> Self {
        Self(Mode::Sentences(Window::new(max_tokens, overlap_tokens)))
    }

    /// Creates a chunker whose passages have `max_tokens` tokens, and repeat the last `overlap_tokens` of the passage
    /// before.
    ///
    /// Tokens are words unless a [tokenizer](Self::tokenizer) is given.
    ///
    /// # Panics
    ///
    /// Unless `overlap_tokens < max_tokens`.
    pub fn by_tokens(max_tokens: usize, overlap_tokens: usize) -> Self {
        Self(Mode::Tokens(Window::new(max_tokens, overlap_tokens)))
    }

    /// Sets what the tokens of a text are: `spans` gives their bytes, in the order in which they begin. Words between
    /// white space, unless set. `name` tells it from others, for the [id](Self::id).
    ///
    /// Tokens are counted in the whole text; in a passage alone a tokenizer may see a few more or less.
    ///
    /// # Panics
    ///
    /// When the chunker goes by sections, which are measured in characters. Cutting panics when `spans` gives one that
    /// begins before another, or inside of a character.
    #[must_use]
    pub fn tokenizer(
        mut self,
        name: impl Into<Arc<str>>,
        spans: impl Fn(&str) -> Vec<Range<usize>> + Send + Sync + 'static,
    ) -> Self {
        match &mut self.0 {
            Mode::Sections(_) => panic!("a chunker by sections counts characters, not tokens"),
            Mode::Sentences(window) | Mode::Tokens(window) => window.set_tokenizer(name.into(), Arc::new(spans)),
        }
        self
    }

    /// Returns what it does in words: two chunkers with the same id cut alike.
    pub fn id(&self) -> String {
        match &self.0 {
            Mode::Sections(Limits { target, max, overlap }) => {
                format!("sections of {target} to {max}, {overlap} again")
            }
            Mode::Sentences(window) => format!("sentences of {window}"),
            Mode::Tokens(window) => format!("tokens of {window}"),
        }
    }

    /// Cuts a document into passages, in order; none when every line is blank.
    ///
    /// Lines end in a line feed, before which passages by sections drop a carriage return.
    pub fn chunks(&self, path: impl Into<Arc<str>>, format: Format, text: &str) -> Vec<Passage> {
        if format == Format::Html {
            let mut passages = self.chunks_of_lines(path.into(), format, &html_text(text));
            whole_lines(&mut passages, text);
            return passages;
        }
        self.chunks_of_lines(path.into(), format, text)
    }

    /// Cuts what a [`Loader`](crate::Loader) has read: no passage has text of two rows, and each knows its pages.
    ///
    /// The lines of a row's passages are those of the row in its file. Otherwise lines and bytes are those of the text.
    pub fn chunk_document(&self, path: impl Into<Arc<str>>, document: &DocumentText) -> Vec<Passage> {
        let path = path.into();
        if document.rows.is_empty() {
            let mut passages = self.chunks(path, document.format, &document.text);
            passages.iter_mut().for_each(|passage| passage.find_pages(&document.pages));
            return passages;
        }
        let mut passages = Vec::new();
        for row in &document.rows {
            let of_row = self.chunks(Arc::clone(&path), document.format, &document.text[row.bytes.clone()]);
            for mut passage in of_row {
                passage.index = passages.len();
                passage.belongs_to(row);
                passages.push(passage);
            }
        }
        passages
    }

    fn chunks_of_lines(&self, path: Arc<str>, format: Format, text: &str) -> Vec<Passage> {
        match &self.0 {
            Mode::Sections(limits) => sections::passages(*limits, path, format, text),
            Mode::Sentences(window) => windows::by_sentences(window, path, format, text),
            Mode::Tokens(window) => windows::by_tokens(window, path, format, text),
        }
    }
}

impl fmt::Debug for Chunker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chunker").field(&self.id()).finish()
    }
}
