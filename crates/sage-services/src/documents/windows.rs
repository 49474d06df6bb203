//! Cuts a document into passages of so many tokens, at any token or at sentences.
//!
//! Both cut a text into units, one after the other without a gap: tokens, or sentences. A passage is units in a row.
//!
//! Invariants:
//! 1. All that is not white space is in a passage: a unit goes to where the next one begins, whatever the tokenizer
//!    leaves out.
//! 2. A passage has at most `max_tokens` tokens, and something that is not white space.
//! 3. The text of a passage is the document's text at its bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::layout::{Format, LineKind, Trail, classify};
use super::passage::Passage;
use super::sentences::sentence_starts;

type Spans = dyn Fn(&str) -> Vec<Range<usize>> + Send + Sync;

/// How many tokens passages have, and what a token is.
#[derive(Clone)]
pub(super) struct Window {
    max_tokens: usize,
    overlap_tokens: usize,
    tokenizer: Arc<str>,
    spans: Arc<Spans>,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_tokens, overlap_tokens, tokenizer, .. } = self;
        write!(f, "up to {max_tokens} {tokenizer}, {overlap_tokens} again")
    }
}

impl Window {
    pub(super) fn new(max_tokens: usize, overlap_tokens: usize) -> Self {
        assert!(overlap_tokens < max_tokens, "passages must overlap by less than they have");
        Self { max_tokens, overlap_tokens, tokenizer: Arc::from("words"), spans: Arc::new(words) }
    }

    pub(super) fn set_tokenizer(&mut self, name: Arc<str>, spans: Arc<Spans>) {
        (self.tokenizer, self.spans) = (name, spans);
    }

    /// Where the tokens of a text begin.
    fn starts(&self, text: &str) -> Vec<usize> {
        let starts: Vec<usize> = (self.spans)(text).into_iter().map(|span| span.start).collect();
        let is_in_order = starts.is_sorted() && starts.iter().all(|&start| text.is_char_boundary(start));
        assert!(is_in_order, "a tokenizer gives the bytes of tokens in order; `{}` does not", self.tokenizer);
        starts
    }
}

fn words(text: &str) -> Vec<Range<usize>> {
    let start = |word: &str| word.as_ptr().addr() - text.as_ptr().addr();
    text.split_whitespace().map(|word| start(word)..start(word) + word.len()).collect()
}

/// A piece of a text, from its first byte to where the next one begins.
struct Unit {
    start: usize,
    tokens: usize,
}

pub(super) fn by_tokens(window: &Window, path: Arc<str>, format: Format, text: &str) -> Vec<Passage> {
    let units: Vec<Unit> = window.starts(text).into_iter().map(|start| Unit { start, tokens: 1 }).collect();
    passages(window, path, format, text, units)
}

pub(super) fn by_sentences(window: &Window, path: Arc<str>, format: Format, text: &str) -> Vec<Passage> {
    let tokens = window.starts(text);
    let sentences = sentence_starts(format, text);
    let mut units = Vec::with_capacity(sentences.len());
    let mut first = 0;
    for (index, &start) in sentences.iter().enumerate() {
        // What stands before the first sentence belongs to it.
        let last = sentences.get(index + 1).map_or(tokens.len(), |&next| tokens.partition_point(|&token| token < next));
        units.push(Unit { start, tokens: (last - first).min(window.max_tokens) });
        for piece in (first..last).step_by(window.max_tokens).skip(1) {
            units.push(Unit { start: tokens[piece], tokens: (last - piece).min(window.max_tokens) });
        }
        first = last;
    }
    passages(window, path, format, text, units)
}

fn passages(window: &Window, path: Arc<str>, format: Format, text: &str, mut units: Vec<Unit>) -> Vec<Passage> {
    match units.first_mut() {
        Some(first) => first.start = 0,
        None => units.push(Unit { start: 0, tokens: 0 }),
    }
    let line_feeds: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |byte| line_feeds.partition_point(|&at| at < byte) + 1;
    let mut headings = headings(format, text).into_iter().peekable();
    let mut heading = Arc::default();
    let mut passages = Vec::new();
    for range in packed(window, &units) {
        let start = units[range.start].start;
        let piece = &text[start..units.get(range.end).map_or(text.len(), |unit| unit.start)];
        let trimmed = piece.trim_start();
        let start = start + piece.len() - trimmed.len();
        let trimmed = trimmed.trim_end();
        if trimmed.is_empty() {
            continue;
        }
        while let Some((_, below)) = headings.next_if(|(at, _)| *at <= start) {
            heading = below;
        }
        let bytes = start..start + trimmed.len();
        passages.push(Passage {
            index: passages.len(),
            first_line: line(bytes.start),
            last_line: line(bytes.end - 1),
            bytes,
            heading: Arc::clone(&heading),
            ..Passage::new(Arc::clone(&path), trimmed)
        });
    }
    passages
}

/// The units of each passage: as many as fit, begun by the last of those before, if these and one more fit.
fn packed(window: &Window, units: &[Unit]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut tokens = 0;
    while end < units.len() {
        while let Some(next) = units.get(end).filter(|next| tokens + next.tokens <= window.max_tokens) {
            tokens += next.tokens;
            end += 1;
        }
        ranges.push(start..end);
        let Some(next) = units.get(end) else { break };
        let begun = start;
        (start, tokens) = (end, 0);
        while let Some(before) = units[begun + 1..start].last()
            && tokens + before.tokens <= window.overlap_tokens
            && tokens + before.tokens + next.tokens <= window.max_tokens
        {
            tokens += before.tokens;
            start -= 1;
        }
    }
    ranges
}

/// The titles above what follows a heading, by the byte where that begins.
fn headings(format: Format, text: &str) -> Vec<(usize, Arc<str>)> {
    let mut trail = Trail::default();
    let lines = classify(format, text, usize::MAX);
    let mut headings = Vec::new();
    for line in &lines {
        if let LineKind::Heading { level } = line.kind {
            trail.enter(level, line.title());
            headings.push((line.bytes().start, trail.heading()));
        }
    }
    headings
}
