//! Numbers for the passages that a model is shown, and what the numbers in its answer stand for.
//!
//! Invariant: every number that an answer cites is either one of the sources or reported as unknown.
//!
//! Knows nothing of models: it makes and reads text.

use std::fmt::{self, Write};
use std::sync::Arc;

use crate::documents::Passage;
use crate::store::Hit;

/// The passages that a model is to answer from, numbered from 1.
///
/// ```
/// use sage_services::{Passage, Sources};
///
/// let passages = [Passage::new("stop.md", "Services stop last."), Passage::new("sink.md", "Sinks write.")];
/// let sources = Sources::new(passages);
/// assert!(sources.prompt().starts_with("[1] stop.md:1\nServices stop last.\n\n[2] sink.md:1\n"));
///
/// let citations = sources.cited_in("They stop last [1], as many say [7].");
/// assert_eq!((citations.known[0].to_string(), &citations.unknown[..]), ("stop.md:1".to_owned(), &[7][..]));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    passages: Vec<Passage>,
}

/// What an answer cites.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Citations {
    /// The sources cited, in the order in which they are first, each once.
    pub known: Vec<Citation>,
    /// Numbers that stand for no source: the model has made them up. Each once.
    pub unknown: Vec<u64>,
}

/// A source that an answer cites, and where it stands. As text it is `path:line` or `path:first-last`, with pages if it
/// has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Citation {
    /// Its number in the prompt, from 1.
    pub number: usize,
    /// Name of the document.
    pub path: Arc<str>,
    /// First line of the passage, counted from 1.
    pub first_line: usize,
    /// Last line of the passage, inclusive.
    pub last_line: usize,
    /// First and last page of the passage, counted from 1, in a document with pages.
    pub pages: Option<(usize, usize)>,
}

impl Sources {
    /// Tells a model to cite, for the prompt.
    pub const INSTRUCTION: &str = "Cite the passages that you use by their numbers, such as [1].";

    /// Numbers passages in their order.
    pub fn new(passages: impl IntoIterator<Item = Passage>) -> Self {
        Self { passages: passages.into_iter().collect() }
    }

    /// Numbers what a search has found, best first.
    pub fn of_hits(hits: &[Hit]) -> Self {
        Self::new(hits.iter().map(Passage::from))
    }

    /// The passages in the order of their numbers.
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// The text for the prompt: each passage below its number, place and headings, with a blank line behind it.
    pub fn prompt(&self) -> String {
        let mut prompt = String::new();
        for (index, passage) in self.passages.iter().enumerate() {
            let citation = Citation::of(index, passage);
            let place = format!("[{}] {citation} {}", citation.number, passage.heading);
            writeln!(prompt, "{}\n{}\n", place.trim_end(), passage.text).expect("a string takes all that is written");
        }
        prompt
    }

    /// Finds what an answer cites: numbers in brackets, such as `[1]`, `[1, 3]`, `[2-4]`, `[^1]` and `【1】`, also behind
    /// the word "source" or "passage".
    pub fn cited_in(&self, answer: &str) -> Citations {
        let mut citations = Citations::default();
        let mut rest = answer;
        while let Some(open) = rest.find(['[', '【']) {
            rest = rest[open..].trim_start_matches(['[', '【']);
            let inside = &rest[..rest.find([']', '】', '[', '【', '\n']).unwrap_or(rest.len())];
            for (first, last) in ranges(inside).into_iter().flatten() {
                self.cite(first, last, &mut citations);
            }
        }
        citations
    }

    fn cite(&self, first: u64, last: u64, citations: &mut Citations) {
        let count = self.passages.len() as u64;
        for number in first.max(1)..=last.min(count) {
            let index = usize::try_from(number - 1).expect("a number of a passage is small");
            if citations.known.iter().all(|known| known.number != index + 1) {
                citations.known.push(Citation::of(index, &self.passages[index]));
            }
        }
        for number in [first, last] {
            if !(1..=count).contains(&number) && !citations.unknown.contains(&number) {
                citations.unknown.push(number);
            }
        }
    }
}

impl Citation {
    fn of(index: usize, passage: &Passage) -> Self {
        let &Passage { first_line, last_line, pages, .. } = passage;
        Self { number: index + 1, path: Arc::clone(&passage.path), first_line, last_line, pages }
    }
}

impl fmt::Display for Citation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.first_line)?;
        if self.last_line > self.first_line {
            write!(f, "-{}", self.last_line)?;
        }
        match self.pages {
            Some((first, last)) if first == last => write!(f, " (page {first})"),
            Some((first, last)) => write!(f, " (pages {first}-{last})"),
            None => Ok(()),
        }
    }
}

/// Reads what stands in brackets as numbers and ranges of them; `None` if it is something else.
fn ranges(inside: &str) -> Option<Vec<(u64, u64)>> {
    let inside = inside.trim().trim_start_matches('^').to_lowercase();
    let words = ["sources", "source", "passages", "passage"];
    let list = words.iter().find_map(|word| inside.strip_prefix(word)).unwrap_or(&inside);
    let number = |digits: &str| {
        let digits = digits.trim().trim_start_matches('^');
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // What does not fit is no source all the same.
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let range = |part: &str| match part.split_once(['-', '–']) {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(part).map(|number| (number, number)),
    };
    list.split([',', ';']).map(range).collect()
}
