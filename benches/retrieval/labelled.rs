//! Questions about this repository's documents, and where each is answered.
//!
//! `questions.json` says so by quotations, which stay right while lines move. Each is found once in its document, but
//! for white space. When a document changes, its quotations change with it: the test `labelled` says which.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// A question, and all places that answer it.
#[derive(Debug, Clone)]
pub(crate) struct Labelled {
    pub(crate) question: String,
    pub(crate) kind: Kind,
    pub(crate) places: Vec<Place>,
}

/// How a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// In other words than the document's.
    Paraphrase,
    /// In the document's words.
    Words,
}

/// Lines of a document, counted from 1, both inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Below the root of the repository.
    pub(crate) path: String,
    pub(crate) first_line: usize,
    pub(crate) last_line: usize,
    pub(crate) quote: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    question: String,
    kind: Kind,
    relevant: Vec<Quotation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quotation {
    path: String,
    quote: String,
}

/// Reads the questions, and finds the quotations in the documents below `root`. Fails with every quotation that is not
/// found exactly once.
pub(crate) fn labelled(root: &Path) -> Result<Vec<Labelled>, String> {
    let path = root.join("benches/retrieval/questions.json");
    let json = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let entries: Vec<Entry> = serde_json::from_str(&json).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut documents: HashMap<String, String> = HashMap::new();
    let mut wrong = Vec::new();
    let mut questions = Vec::new();
    for Entry { question, kind, relevant } in entries {
        let mut places = Vec::new();
        for Quotation { path, quote } in relevant {
            let document = documents
                .entry(path.clone())
                .or_insert_with(|| fs::read_to_string(root.join(&path)).unwrap_or_default());
            match lines_of(document, &quote).as_slice() {
                &[(first_line, last_line)] => places.push(Place { path, first_line, last_line, quote }),
                found => wrong.push(format!("{path} has {} times: {quote}", found.len())),
            }
        }
        questions.push(Labelled { question, kind, places });
    }
    if wrong.is_empty() { Ok(questions) } else { Err(wrong.join("\n")) }
}

/// The lines on which a quotation begins and ends, each time that it is in a document.
fn lines_of(document: &str, quote: &str) -> Vec<(usize, usize)> {
    let words: Vec<(&str, usize)> = document
        .lines()
        .zip(1..)
        .flat_map(|(line, number)| line.split_whitespace().map(move |word| (word, number)))
        .collect();
    let wanted: Vec<&str> = quote.split_whitespace().collect();
    let last = wanted.len().saturating_sub(1);
    let is_found = |window: &&[(&str, usize)]| {
        window.iter().zip(&wanted).enumerate().all(|(at, ((word, _), wanted))| match at {
            // A quotation may begin and end within a word, such as at a bracket.
            _ if at == 0 && at == last => word.contains(wanted),
            0 => word.ends_with(wanted),
            _ if at == last => word.starts_with(wanted),
            _ => word == wanted,
        })
    };
    let windows = words.windows(wanted.len().max(1)).filter(is_found);
    windows.map(|window| (window[0].1, window[window.len() - 1].1)).collect()
}

/// Which place a passage covers, by its number; `None` if it covers none.
pub(crate) fn place_of(places: &[Place], path: &str, first_line: usize, last_line: usize) -> Option<usize> {
    places.iter().position(|place| place.path == path && place.first_line <= last_line && first_line <= place.last_line)
}
