//! Orders retrieved passages by the words they share with the question, compared exactly.
//!
//! A hashed vector is small because words share coordinates. The noise of that pushes some good passages from the first
//! places into the first fifty. Comparing the words themselves brings them back, and only fifty passages have to be
//! read for it: retrieve widely, rerank, keep a few.
//!
//! The score is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009) with its
//! customary parameters, plus a part of it again for words that are neighbours in both texts. It is divided by what a
//! perfect passage would score, so that it lies between 0 and 1.
//!
//! Invariant: the result is a permutation of the passages given, or the beginning of one; passages that score the same
//! keep their order.

use super::question::Question;
use crate::documents::Passage;
use crate::embed::LexicalEmbedder;
use crate::store::Hit;
use crate::terms::for_each_term;

/// How soon another occurrence of a word stops counting.
const K1: f32 = 1.2;
/// How much a long passage is marked down, 0 to 1.
const B: f32 = 0.75;
/// Added for a pair of neighbouring words found, as a share of the rarer word's weight.
const PAIR_WORTH: f32 = 0.3;

/// Reorders `hits` by the words they share with `question` and keeps the best `keep`, with new scores from 0 to 1.
///
/// A question without a word leaves the order and the scores as they are.
///
/// ```
/// use sage_services::store::Hit;
/// use sage_services::{LexicalEmbedder, rerank};
///
/// let hits = vec![Hit::new("a", 0.5, "Sinks write records."), Hit::new("b", 0.4, "Services stop last.")];
/// let best = rerank(&LexicalEmbedder::default(), "When do services stop?", hits, 1);
/// assert_eq!(best[0].text, "Services stop last.");
/// ```
pub fn rerank(embedder: &LexicalEmbedder, question: &str, mut hits: Vec<Hit>, keep: usize) -> Vec<Hit> {
    if let Some(question) = Question::new(embedder, question) {
        let counts: Vec<Counts> = hits.iter().map(|hit| Counts::of(&question, &Passage::from(hit))).collect();
        let mean_terms = counts.iter().map(|counts| counts.terms).sum::<usize>() as f32 / counts.len().max(1) as f32;
        for (hit, counts) in hits.iter_mut().zip(&counts) {
            hit.score = counts.relevance(&question, mean_terms);
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
    }
    hits.truncate(keep);
    hits
}

/// What a passage shares with a question.
struct Counts {
    terms: usize,
    occurrences: Vec<u32>,
    /// By the later word's position, so never at 0: whether the same word stands before it as in the question.
    pairs: Vec<bool>,
}

impl Counts {
    fn of(question: &Question, passage: &Passage) -> Self {
        let len = question.weights.len();
        let mut counts = Self { terms: 0, occurrences: vec![0; len], pairs: vec![false; len] };
        for text in [&*passage.heading, &passage.text] {
            let mut previous: Option<usize> = None;
            for_each_term(text, |term, is_stop_word| {
                let position = question.position(term);
                if let Some(position) = position {
                    counts.occurrences[position] += 1;
                    counts.pairs[position] |= previous.is_some_and(|previous| previous + 1 == position);
                }
                if !is_stop_word {
                    counts.terms += 1;
                    previous = position;
                }
            });
        }
        counts
    }

    fn relevance(&self, question: &Question, mean_terms: f32) -> f32 {
        let length = K1 * (1.0 - B + B * self.terms as f32 / mean_terms.max(1.0));
        let mut gained = 0.0;
        for (position, (&occurrences, weight)) in self.occurrences.iter().zip(&question.weights).enumerate() {
            let occurrences = occurrences as f32;
            gained += weight * occurrences / (occurrences + length);
            if self.pairs[position] {
                gained += PAIR_WORTH * weight.max(question.weights[position - 1]);
            }
        }
        // A word found for ever more often gains its weight; the pairs are at most as many as the words.
        (gained / (question.total * (1.0 + PAIR_WORTH))).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(id: &str, heading: &str, text: &str) -> Hit {
        Hit::new(id, 0.5, text).with("heading", heading)
    }

    fn order(question: &str, hits: Vec<Hit>) -> Vec<String> {
        let ranked = rerank(&LexicalEmbedder::default(), question, hits, 10);
        assert!(ranked.iter().all(|hit| (0.0..=1.0).contains(&hit.score)), "{ranked:#?}");
        ranked.into_iter().map(|hit| hit.id).collect()
    }

    #[test]
    fn neighbouring_words_and_titles_count() {
        let hits = || vec![hit("apart", "", "a manager of one job"), hit("near", "", "the job manager of it")];
        assert_eq!(order("Which job manager?", hits())[0], "near");
        let hits = vec![hit("other", "Sinks", "They stop last."), hit("titled", "Services", "They stop last.")];
        assert_eq!(order("When do services stop?", hits)[0], "titled");
    }

    #[test]
    fn a_word_repeated_does_not_beat_two_words() {
        let hits =
            vec![hit("one", "", "drain drain drain drain drain"), hit("two", "", "drain before the deadline ends")];
        assert_eq!(order("drain deadline", hits)[0], "two");
    }

    #[test]
    fn passages_that_score_the_same_keep_their_order() {
        let hits = || vec![hit("b", "", "nothing here"), hit("a", "", "nothing here"), hit("c", "", "nothing here")];
        assert_eq!(order("drain", hits()).join(""), "bac");
        assert_eq!(order("?!", hits()).join(""), "bac");
        assert_eq!(order("drain", vec![]).len(), 0);
    }

    #[test]
    fn a_perfect_passage_stays_below_one() {
        let hits = vec![hit("a", "", &"drain the job ".repeat(50))];
        assert!(rerank(&LexicalEmbedder::default(), "drain job drain", hits, 1)[0].score > 0.7);
    }
}
