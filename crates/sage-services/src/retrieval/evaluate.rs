//! Tells how good retrieval and answers are, against what a person has marked as right.
//!
//! The first four functions judge the order in which ids were found, the others the text of an answer. Every result is
//! 0 to 1, and higher is better. Each function judges one question: take the mean over all questions, and leave out
//! those to which nothing is relevant.
//!
//! An id that is found again counts at its first place only, so that two passages of one document do not count twice.
//!
//! ```
//! use std::collections::HashSet;
//!
//! use sage_services::evaluate::{recall_at, token_f1};
//!
//! let relevant = HashSet::from(["stop.md", "drain.md"]);
//! assert_eq!(recall_at(&["sink.md", "stop.md"], &relevant, 10), 0.5);
//! assert_eq!(token_f1("In reverse order.", "the reverse order"), 0.8);
//! ```

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Returns the share of the relevant ids among the first `k` found; 0 if nothing is relevant.
///
/// `|first k ∩ relevant| / |relevant|`: Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008,
/// section 8.3.
pub fn recall_at<I: Eq + Hash>(found: &[I], relevant: &HashSet<I>, k: usize) -> f64 {
    share(hits(found, relevant, k), relevant.len())
}

/// Returns the share of the first `k` places that hold a relevant id; a place that is left empty holds none. 0 if `k`
/// is 0.
///
/// `|first k ∩ relevant| / k`: Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section
/// 8.4.
pub fn precision_at<I: Eq + Hash>(found: &[I], relevant: &HashSet<I>, k: usize) -> f64 {
    share(hits(found, relevant, k), k)
}

/// Returns 1 divided by the place of the first relevant id, counted from 1; 0 if none is found. Its mean over questions
/// is known as MRR.
///
/// Voorhees, "The TREC-8 Question Answering Track Report", 1999.
pub fn reciprocal_rank<I: Eq + Hash>(found: &[I], relevant: &HashSet<I>) -> f64 {
    found.iter().position(|id| relevant.contains(id)).map_or(0.0, |index| 1.0 / (index + 1) as f64)
}

/// Returns the normalised discounted cumulative gain of the first `k` found: what they gain, as a share of what the
/// best order gains. `gains` says how relevant an id is; one that is not in it gains nothing. 0 if nothing gains.
///
/// An id at place `i`, counted from 1, gains `gain / log2(i + 1)`: Järvelin and Kekäläinen, "Cumulated Gain-Based
/// Evaluation of IR Techniques", 2002, with the discount that is customary since.
///
/// # Panics
///
/// When a gain is negative or not finite.
pub fn ndcg_at<I: Eq + Hash>(found: &[I], gains: &HashMap<I, f64>, k: usize) -> f64 {
    assert!(gains.values().all(|gain| gain.is_finite() && *gain >= 0.0), "a gain is a number from 0");
    let mut seen = HashSet::new();
    let first = |id| seen.insert(id).then(|| gains.get(id).copied()).flatten().unwrap_or(0.0);
    let gained = discounted(found.iter().take(k).map(first));
    let mut best: Vec<f64> = gains.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let possible = discounted(best.into_iter().take(k));
    // Rounding must not make a perfect order more than perfect.
    if possible > 0.0 { (gained / possible).min(1.0) } else { 0.0 }
}

fn discounted(gains: impl Iterator<Item = f64>) -> f64 {
    gains.enumerate().map(|(index, gain)| gain / (index as f64 + 2.0).log2()).sum()
}

/// How many different relevant ids are among the first `k` found.
fn hits<I: Eq + Hash>(found: &[I], relevant: &HashSet<I>, k: usize) -> usize {
    found.iter().take(k).filter(|id| relevant.contains(id)).collect::<HashSet<_>>().len()
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Returns 1 if both texts have the same words, else 0. Case, ASCII punctuation, the articles "a", "an" and "the", and
/// white space are left out of account.
///
/// Rajpurkar and others, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016, section 6.1.
pub fn exact_match(answer: &str, reference: &str) -> f64 {
    f64::from(u8::from(squad_words(answer) == squad_words(reference)))
}

/// Returns the harmonic mean of precision and recall of the answer's words, as [`exact_match`] sees them: a word counts
/// as often as it is in both texts. 1 if both texts have no words, 0 if one has none.
///
/// Rajpurkar and others, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016, section 6.1.
pub fn token_f1(answer: &str, reference: &str) -> f64 {
    let (answer, reference) = (squad_words(answer), squad_words(reference));
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &reference {
        *left.entry(word).or_default() += 1;
    }
    let mut shared = 0;
    for word in &answer {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    f1(shared, answer.len(), reference.len())
}

/// Returns the harmonic mean of precision and recall of the longest sequence of words that both texts have in this
/// order, with others between them or not. Words are runs of letters and digits, in lower case. 1 if both texts have no
/// words, 0 if one has none.
///
/// Takes time in proportion to the product of the texts' lengths.
///
/// ROUGE-L: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, section 3.1, with β = 1.
pub fn rouge_l(answer: &str, reference: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let (answer, reference) = (words(answer), words(reference));
    f1(longest_common_subsequence(&answer, &reference), answer.len(), reference.len())
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // By how much of `b` is looked at: the length for as much of `a` as the loop has seen.
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (index, other) in b.iter().enumerate() {
            let above = lengths[index + 1];
            lengths[index + 1] = if word == other { diagonal + 1 } else { above.max(lengths[index]) };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

/// `2 · P · R / (P + R)` with `P = shared / answer` and `R = shared / reference`.
fn f1(shared: usize, answer: usize, reference: usize) -> f64 {
    if answer + reference == 0 { 1.0 } else { 2.0 * shared as f64 / (answer + reference) as f64 }
}

fn squad_words(text: &str) -> Vec<String> {
    let bare: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    bare.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the")).map(str::to_owned).collect()
}
