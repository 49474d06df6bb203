//! [`Recall`]: which turns are looked for, and how what is found is scored.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::contents::{Contents, Slot, State, View};
use super::error::MemoryError;
use super::times::to_micros;
use super::turn::Turn;
use crate::store::postings::Postings;
use crate::store::rows::Rows;
use crate::store::scan::Found;
use crate::store::vectors::Vectors;
use crate::store::{MAX_RESULTS, Metric};

/// What is looked for.
///
/// ```
/// use sage_services::memory::{Recall, Weights};
///
/// let recall = Recall::new("where do I live?").k(5).weights(Weights { recency: 0.3, ..Weights::default() });
/// # let _ = recall;
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recall {
    /// What turns are compared with, by words and, where the memory has an embedder, by meaning.
    pub text: String,
    /// Its vector, where the memory has no embedder that makes it.
    pub vector: Option<Vec<f32>>,
    /// How many turns are wanted, 1 to 16,384; 10 unless set.
    pub k: usize,
    /// What each part of a score counts.
    pub weights: Weights,
    /// After how much time a turn's recency is half of what it was; 30 days unless set.
    pub half_life: Duration,
    /// The lowest score that a turn may have; any unless set.
    pub min_score: Option<f32>,
    /// The moment whose memory is asked; now unless set.
    pub at: Option<Timestamp>,
}

/// What each part of a score counts: 0 or more, not all of them 0. A part is from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// The cosine between the vectors of the turn and of what is asked; 0 where it is negative, or one of them is
    /// missing.
    pub similarity: f32,
    /// The words that the turn shares with what is asked: BM25 among the turns of the scope, divided by the sum that it
    /// cannot reach.
    pub words: f32,
    /// How recently the turn was said: 1 now, a half after the [half-life](Recall::half_life), and so on.
    pub recency: f32,
    /// The turn's importance.
    pub importance: f32,
}

/// The parts of a score, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Parts {
    /// See [`Weights::similarity`].
    pub similarity: f32,
    /// See [`Weights::words`].
    pub words: f32,
    /// See [`Weights::recency`].
    pub recency: f32,
    /// See [`Weights::importance`].
    pub importance: f32,
}

/// A turn that was recalled.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recalled {
    /// The turn.
    pub turn: Turn,
    /// The sum of its parts, each times its weight. Higher is better.
    pub score: f32,
    /// What the score is made of.
    pub parts: Parts,
}

/// The fewest turns of each order, by vectors and by words, that are scored.
const CANDIDATES: usize = 100;

/// A cosine that is no more than this is 0 but for rounding.
const LEAST: f32 = 1e-6;

impl Default for Weights {
    fn default() -> Self {
        Self { similarity: 0.3, words: 1.0, recency: 0.02, importance: 0.1 }
    }
}

impl Weights {
    fn total(&self, parts: &Parts) -> f32 {
        self.similarity * parts.similarity
            + self.words * parts.words
            + self.recency * parts.recency
            + self.importance * parts.importance
    }
}

impl Recall {
    /// The ten turns that fit a text best.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            vector: None,
            k: 10,
            weights: Weights::default(),
            half_life: Duration::from_secs(30 * 86_400),
            min_score: None,
            at: None,
        }
    }

    /// Sets the vector of the text.
    #[must_use]
    pub fn vector(mut self, vector: Vec<f32>) -> Self {
        self.vector = Some(vector);
        self
    }

    /// Sets how many turns are wanted.
    #[must_use]
    pub fn k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }

    /// Sets what each part of a score counts.
    #[must_use]
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Sets after how much time a turn's recency is half of what it was.
    #[must_use]
    pub fn half_life(mut self, half_life: Duration) -> Self {
        self.half_life = half_life;
        self
    }

    /// Sets the lowest score that a turn may have.
    #[must_use]
    pub fn min_score(mut self, score: f32) -> Self {
        self.min_score = Some(score);
        self
    }

    /// Asks the memory as it was at a moment. Turns that were erased or have expired since are not in it.
    #[must_use]
    pub fn at(mut self, moment: Timestamp) -> Self {
        self.at = Some(moment);
        self
    }

    pub(super) fn check(&self) -> Result<(), MemoryError> {
        let refused = |why: &str| Err(MemoryError::BadQuery { why: why.to_owned() });
        let Weights { similarity, words, recency, importance } = self.weights;
        let weights = [similarity, words, recency, importance];
        if self.k == 0 || self.k > MAX_RESULTS {
            return Err(MemoryError::BadQuery { why: format!("{} turns; 1 to {MAX_RESULTS} are given", self.k) });
        }
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) || weights.iter().all(|w| *w == 0.0) {
            return refused("weights are 0 or more, and not all 0");
        }
        if self.half_life.is_zero() {
            return refused("a half-life of 0");
        }
        if self.min_score.is_some_and(f32::is_nan) {
            return refused("the lowest score is not a number");
        }
        Ok(())
    }

    /// The turns of these leaves that fit best. Those are scored that are among the closest by vector or the best by
    /// words; of equal ones the later turn comes first.
    pub(super) fn among(&self, contents: &Contents, leaves: &[u32], view: View) -> Vec<Recalled> {
        let looked_at = match view.at {
            None => Documents::live(contents, leaves, view),
            Some(_) => Documents::past(contents, leaves, view),
        };
        let each = self.k.saturating_mul(4).max(CANDIDATES);
        let (mut by_words, bound) = match self.weights.words {
            0.0 => (Vec::new(), 0.0),
            _ => looked_at.postings().search_among(&self.text, &looked_at.rows),
        };
        let share = if bound > 0.0 { bound.recip() } else { 0.0 };
        let later_first = |a: u32, b: u32| looked_at.place(b).cmp(&looked_at.place(a));
        by_words.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| later_first(a.row, b.row)));
        let similarity = |row| self.similarity(looked_at.vectors(), row);
        let near = match (looked_at.vectors(), &self.vector) {
            (Some(vectors), Some(query)) if self.weights.similarity > 0.0 => {
                vectors.nearest(query.clone(), Some(&looked_at.rows), each, later_first)
            }
            _ => Vec::new(),
        };
        let mut candidates: Vec<(u32, f32)> =
            by_words.iter().take(each).map(|found| (found.row, found.score)).collect();
        let chosen: std::collections::HashSet<u32> = candidates.iter().map(|(row, _)| *row).collect();
        let words_of: std::collections::HashMap<u32, f32> =
            by_words.iter().skip(each).map(|Found { row, score }| (*row, *score)).collect();
        let others = near.iter().filter(|found| found.score > LEAST && !chosen.contains(&found.row));
        candidates.extend(others.map(|found| (found.row, words_of.get(&found.row).copied().unwrap_or(0.0))));
        let now = view.at.unwrap_or(view.now);
        let mut scored: Vec<(f32, Parts, u32)> = candidates
            .into_iter()
            .map(|(row, words)| {
                let (slot, state) = looked_at.document(row);
                let recency = self.recency(slot.said, now);
                let parts =
                    Parts { similarity: similarity(row), words: words * share, recency, importance: state.importance };
                (self.weights.total(&parts), parts, row)
            })
            .filter(|(score, ..)| self.min_score.is_none_or(|min| *score >= min))
            .collect();
        scored.sort_unstable_by(|(a, _, x), (b, _, y)| b.total_cmp(a).then_with(|| later_first(*x, *y)));
        scored.truncate(self.k);
        scored
            .into_iter()
            .map(|(score, parts, row)| {
                let (slot, state) = looked_at.document(row);
                Recalled { turn: contents.turn(slot, state), score, parts }
            })
            .collect()
    }

    fn similarity(&self, vectors: Option<&Vectors>, row: u32) -> f32 {
        match (vectors, &self.vector) {
            (Some(vectors), Some(query)) if self.weights.similarity > 0.0 => vectors.cosine(row, query).clamp(0.0, 1.0),
            _ => 0.0,
        }
    }

    fn recency(&self, said: i64, now: i64) -> f32 {
        let age = now.saturating_sub(said).max(0) as f64;
        (-age / self.half_life.as_micros() as f64).exp2() as f32
    }

    pub(super) fn moment(&self) -> Option<i64> {
        self.at.map(to_micros)
    }
}

/// What a recall looks at: versions of turns, by row.
struct Documents<'a> {
    contents: &'a Contents,
    rows: Rows,
    past: Option<Past<'a>>,
}

/// Versions as they were at a moment, which no lists are kept of.
struct Past<'a> {
    documents: Vec<(&'a Slot, &'a State)>,
    postings: Postings,
    vectors: Option<Vectors>,
}

impl<'a> Documents<'a> {
    fn live(contents: &'a Contents, leaves: &[u32], view: View) -> Self {
        Self { contents, rows: contents.live.rows_in(leaves, view.now), past: None }
    }

    fn past(contents: &'a Contents, leaves: &[u32], view: View) -> Self {
        let slots = leaves.iter().flat_map(|leaf| contents.order(*leaf).values());
        let documents: Vec<_> = slots
            .filter_map(|slot| {
                let slot = contents.slot(*slot);
                view.of(slot).map(|state| (slot, state))
            })
            .collect();
        let texts = documents.iter().map(|(_, state)| state.text.as_deref().unwrap_or_default());
        let vectors = contents.live.vectors().map(|live| {
            let mut vectors = Vectors::new(live.dimensions(), Metric::Cosine);
            for (slot, state) in &documents {
                let latest = || slot.row.map_or_else(|| vec![0.0; live.dimensions()], |row| live.get(row as usize));
                vectors.push(state.vector.clone().unwrap_or_else(latest));
            }
            vectors
        });
        let (rows, postings) = (Rows::all(documents.len()), Postings::of(texts));
        Self { contents, rows, past: Some(Past { documents, postings, vectors }) }
    }

    fn postings(&self) -> &Postings {
        self.past.as_ref().map_or_else(|| self.contents.live.postings(), |past| &past.postings)
    }

    fn vectors(&self) -> Option<&Vectors> {
        self.past.as_ref().map_or_else(|| self.contents.live.vectors(), |past| past.vectors.as_ref())
    }

    fn document(&self, row: u32) -> (&'a Slot, &'a State) {
        match &self.past {
            Some(past) => past.documents[row as usize],
            None => {
                let slot = self.contents.slot(self.contents.live.slots[row as usize]);
                (slot, slot.latest())
            }
        }
    }

    fn place(&self, row: u32) -> u64 {
        self.past
            .as_ref()
            .map_or_else(|| self.contents.live.places[row as usize], |past| past.documents[row as usize].0.place)
    }
}

/// As in `0.71 = 0.3 × similarity 0.52 + 1 × words 0.55 + …` without the weights: what each part is.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { similarity, words, recency, importance } = self;
        write!(f, "similarity {similarity:.3}, words {words:.3}, recency {recency:.3}, importance {importance:.3}")
    }
}
