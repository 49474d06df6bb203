//! A piece of a document, and where it stands there.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::load::Row;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Name of the document, as it was given to [`Chunker::chunks`](super::Chunker::chunks).
    pub path: Arc<str>,
    /// Position among the passages of the document, from 0.
    pub index: usize,
    /// First line, counted from 1.
    pub first_line: usize,
    /// Last line, inclusive.
    pub last_line: usize,
    /// Where the passage lies in the text of its document. Lines of HTML are counted as a whole, with their markup.
    pub bytes: Range<usize>,
    /// First and last page, counted from 1; `None` in a document without pages.
    pub pages: Option<(usize, usize)>,
    /// Titles of the sections around the passage, outermost first, joined by " > "; empty without headings.
    pub heading: Arc<str>,
    /// The lines, joined by line feeds; neither the first nor the last is blank.
    pub text: String,
    /// What is known of the row that the passage belongs to; empty in a document without rows.
    pub metadata: Arc<Map<String, Value>>,
}

impl Passage {
    /// Makes a passage of a whole text.
    pub fn new(path: impl Into<Arc<str>>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            path: path.into(),
            index: 0,
            first_line: 1,
            last_line: text.lines().count().max(1),
            bytes: 0..text.len(),
            pages: None,
            heading: Arc::default(),
            text,
            metadata: Arc::default(),
        }
    }

    /// Returns an id for the store: unique for a document's path, sorted like the passages of a document.
    pub fn id(&self) -> String {
        format!("{}#{:06}", self.path, self.index)
    }

    /// Returns the text to embed: the titles of the sections around the passage, if any, then the passage.
    ///
    /// A paragraph often does not repeat the words of its title.
    pub fn text_with_heading(&self) -> String {
        if self.heading.is_empty() { self.text.clone() } else { format!("{}\n{}", self.heading, self.text) }
    }

    /// Sets the pages, given the bytes where they begin.
    pub(super) fn find_pages(&mut self, pages: &[usize]) {
        let page_of = |byte| pages.partition_point(|&start| start <= byte).max(1);
        if !pages.is_empty() {
            self.pages = Some((page_of(self.bytes.start), page_of(self.bytes.end - 1)));
        }
    }

    /// Tells a passage that was cut from the text of a row alone where that row lies.
    pub(super) fn belongs_to(&mut self, row: &Row) {
        self.bytes = row.bytes.start + self.bytes.start..row.bytes.start + self.bytes.end;
        (self.first_line, self.last_line) = (row.first_line, row.last_line);
        self.metadata = Arc::clone(&row.metadata);
    }
}

/// Has passages begin and end with lines of `text`, of which they name the right ones.
pub(super) fn whole_lines(passages: &mut [Passage], text: &str) {
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    for passage in passages {
        let start = passage.first_line.checked_sub(2).map_or(0, |before| ends[before] + 1);
        passage.bytes = start..ends.get(passage.last_line - 1).copied().unwrap_or(text.len());
    }
}
