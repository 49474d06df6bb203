//! [`Postings`]: which words the texts have, for a search by words.
//!
//! The score is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009) with its
//! customary parameters. Words are those of `terms.rs`, so they are the same for every step of retrieval.
//!
//! Texts are numbered as they come, and a number is not used again; rows move, so they are looked up. A text that is
//! gone keeps its places in the lists of its words until half of all are gone: then the lists are made anew.
//!
//! Invariants: `row_of` and `number_of` are the inverse of each other; `terms` leads to each of `lists`; the numbers of
//! a list increase.

use std::cmp::Ordering;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::store::rows::Rows;
use crate::store::scan::{Best, Found};
use crate::terms::for_each_term;

/// How soon another occurrence of a word stops counting.
const K1: f32 = 1.2;
/// How much a long text is marked down, 0 to 1.
const B: f32 = 0.75;
/// A text that is gone has no row.
const GONE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(crate) struct Postings {
    terms: HashMap<Box<str>, u32, RandomState>,
    lists: Vec<Vec<Posting>>,
    /// The terms of the text that is being added.
    added: Vec<u32>,
    row_of: Vec<u32>,
    number_of: Vec<u32>,
    /// By number: the words of a text.
    lengths: Vec<u32>,
    /// All words of the texts that are there.
    words: u64,
    gone: usize,
}

/// That a text has a word, and how often.
#[derive(Debug, Clone, Copy)]
struct Posting {
    number: u32,
    times: u32,
}

impl Postings {
    /// Those of the texts of the rows, in their order.
    pub(crate) fn of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut postings = Self::default();
        for (row, text) in (0..).zip(texts) {
            postings.set(row, text.as_ref());
        }
        postings
    }

    /// Adds the text of a row behind the last, or replaces that of an existing one.
    pub(crate) fn set(&mut self, row: u32, text: &str) {
        let number = u32::try_from(self.row_of.len()).expect("texts are counted in 32 bits");
        match self.number_of.get_mut(row as usize) {
            Some(old) => {
                let old = std::mem::replace(old, number);
                self.forget(old);
            }
            None => self.number_of.push(number),
        }
        let Self { terms, lists, added, .. } = self;
        added.clear();
        for_each_term(text, |term, is_stop_word| {
            if !is_stop_word {
                let term = terms.get(term).copied().unwrap_or_else(|| {
                    let new = u32::try_from(lists.len()).expect("there are fewer words than that");
                    terms.insert(term.into(), new);
                    lists.push(Vec::new());
                    new
                });
                added.push(term);
            }
        });
        added.sort_unstable();
        for same in added.chunk_by(|a, b| a == b) {
            lists[same[0] as usize].push(Posting { number, times: same.len() as u32 });
        }
        let length = added.len() as u32;
        self.row_of.push(row);
        self.lengths.push(length);
        self.words += u64::from(length);
        self.tidy_if_due();
    }

    /// Moves the last row to this place, whose own goes.
    pub(crate) fn swap_remove(&mut self, row: u32) {
        let number = self.number_of.swap_remove(row as usize);
        if let Some(&moved) = self.number_of.get(row as usize) {
            self.row_of[moved as usize] = row;
        }
        self.forget(number);
        self.tidy_if_due();
    }

    fn forget(&mut self, number: u32) {
        self.row_of[number as usize] = GONE;
        self.words -= u64::from(self.lengths[number as usize]);
        self.gone += 1;
    }

    fn tidy_if_due(&mut self) {
        if self.gone > self.number_of.len().max(1_000) {
            self.tidy();
        }
    }

    /// Takes the texts that are gone out of the lists, and numbers the others anew, in their order.
    pub(crate) fn tidy(&mut self) {
        let mut next = 0;
        let renumbered: Vec<u32> = self
            .row_of
            .iter()
            .map(|&row| {
                let number = if row == GONE { GONE } else { next };
                next += u32::from(row != GONE);
                number
            })
            .collect();
        for list in &mut self.lists {
            list.retain_mut(|posting| {
                posting.number = renumbered[posting.number as usize];
                posting.number != GONE
            });
            list.shrink_to_fit();
        }
        // A word that no text has any more is gone itself.
        let mut lists = Vec::new();
        self.terms.retain(|_, term| {
            let list = std::mem::take(&mut self.lists[*term as usize]);
            *term = lists.len() as u32;
            let is_had = !list.is_empty();
            lists.extend(is_had.then_some(list));
            is_had
        });
        self.lists = lists;
        let is_there = |number: &usize| renumbered[*number] != GONE;
        self.lengths = (0..self.lengths.len()).filter(is_there).map(|number| self.lengths[number]).collect();
        self.row_of = (0..self.row_of.len()).filter(is_there).map(|number| self.row_of[number]).collect();
        self.number_of.iter_mut().for_each(|number| *number = renumbered[*number as usize]);
        self.gone = 0;
    }

    /// Offers all rows that have a word of `text`, and are allowed, with their scores. How rare a word is says the
    /// number of all rows that have it.
    pub(crate) fn search(&self, text: &str, allowed: Option<&Rows>, best: &mut Best<impl Fn(u32, u32) -> Ordering>) {
        let everything = Population { rows: self.number_of.len(), words: self.words };
        let mut scores = Scores::new(self.row_of.len());
        for (term, times_asked) in asked(text) {
            let Some(list) = self.list(&term) else { continue };
            let having = if self.gone == 0 { list.len() } else { list.iter().filter(|at| self.is_there(at)).count() };
            let rarity = everything.rarity(having) * times_asked as f32;
            for posting in list.iter().filter(|at| self.is_there(at)) {
                scores.add(posting.number, rarity * self.weight(posting, &everything));
            }
        }
        for number in scores.found {
            let row = self.row_of[number as usize];
            if allowed.is_none_or(|allowed| allowed.contains(row)) {
                best.offer(row, scores.sums[number as usize]);
            }
        }
    }

    /// The rows of `among` that have a word of `text`, in no order, with their scores as if there were no other rows,
    /// and the sum that no score reaches.
    pub(crate) fn search_among(&self, text: &str, among: &Rows) -> (Vec<Found>, f32) {
        let words = among.iter().map(|row| u64::from(self.lengths[self.number_of[row as usize] as usize])).sum();
        let population = Population { rows: among.count(), words };
        let is_among = |posting: &&Posting| {
            let row = self.row_of[posting.number as usize];
            row != GONE && among.contains(row)
        };
        let mut scores = Scores::new(self.row_of.len());
        let mut bound = 0.0;
        let mut list_among: Vec<&Posting> = Vec::new();
        for (term, times_asked) in asked(text) {
            list_among.clear();
            list_among.extend(self.list(&term).unwrap_or_default().iter().filter(is_among));
            if list_among.is_empty() {
                continue;
            }
            let rarity = population.rarity(list_among.len()) * times_asked as f32;
            bound += rarity * (K1 + 1.0);
            for posting in &list_among {
                scores.add(posting.number, rarity * self.weight(posting, &population));
            }
        }
        let Scores { sums, found } = scores;
        let found =
            found.into_iter().map(|number| Found { row: self.row_of[number as usize], score: sums[number as usize] });
        (found.collect(), bound)
    }

    fn list(&self, term: &str) -> Option<&[Posting]> {
        self.terms.get(term).map(|term| &*self.lists[*term as usize])
    }

    fn is_there(&self, posting: &Posting) -> bool {
        self.row_of[posting.number as usize] != GONE
    }

    /// How much the occurrences of a word in a text count.
    fn weight(&self, posting: &Posting, population: &Population) -> f32 {
        let length = self.lengths[posting.number as usize] as f32 / population.mean_length();
        let times = posting.times as f32;
        times * (K1 + 1.0) / (times + K1 * (1.0 - B + B * length))
    }
}

/// The words that are asked for, and how often each, in an order of their own: floating sums depend on it, and that of
/// a map is random.
fn asked(text: &str) -> Vec<(Box<str>, u32)> {
    let mut asked: HashMap<Box<str>, u32> = HashMap::new();
    for_each_term(text, |term, is_stop_word| {
        if !is_stop_word {
            *asked.entry(term.into()).or_default() += 1;
        }
    });
    let mut asked: Vec<_> = asked.into_iter().collect();
    asked.sort_unstable();
    asked
}

/// The texts among which a word is rare or not.
struct Population {
    rows: usize,
    words: u64,
}

impl Population {
    fn mean_length(&self) -> f32 {
        self.words as f32 / (self.rows as f32).max(1.0)
    }

    fn rarity(&self, having: usize) -> f32 {
        (1.0 + (self.rows as f32 - having as f32 + 0.5) / (having as f32 + 0.5)).ln()
    }
}

/// Scores by the numbers of texts.
struct Scores {
    sums: Vec<f32>,
    found: Vec<u32>,
}

impl Scores {
    fn new(numbers: usize) -> Self {
        Self { sums: vec![0.0; numbers], found: Vec::new() }
    }

    fn add(&mut self, number: u32, score: f32) {
        let sum = &mut self.sums[number as usize];
        if *sum == 0.0 {
            self.found.push(number);
        }
        *sum += score;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(postings: &Postings, asked: &str) -> Vec<Found> {
        let mut best = Best::new(100, postings.number_of.len(), |a: u32, b: u32| a.cmp(&b));
        postings.search(asked, None, &mut best);
        best.into_sorted()
    }

    proptest! {
        /// After any changes, and with texts that are gone in the lists or not.
        #[test]
        fn scores_are_those_of_postings_made_anew(
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, "[a-d]( [a-d]){0,4}"), 1..60),
            tidies: bool,
        ) {
            let (mut postings, mut texts) = (Postings::default(), Vec::<String>::new());
            for (at, what, text) in changes {
                let row = if texts.is_empty() { 0 } else { at.index(texts.len()) };
                if what == 0 && !texts.is_empty() {
                    texts.swap_remove(row);
                    postings.swap_remove(row as u32);
                } else {
                    let row = if what == 1 { row } else { texts.len() };
                    postings.set(row as u32, &text);
                    if row < texts.len() { texts[row] = text } else { texts.push(text) }
                }
                if tidies {
                    postings.tidy();
                }
            }
            let mut anew = Postings::default();
            (0..).zip(&texts).for_each(|(row, text)| anew.set(row, text));
            // "a" alone is a stop word.
            for asked in ["b", "c d", "b b x"] {
                prop_assert_eq!(scores(&postings, asked), scores(&anew, asked));
            }
        }
    }
}
