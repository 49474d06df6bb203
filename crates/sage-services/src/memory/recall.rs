//! [`Recall`]: which turns are looked for, and how what is found is scored.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::contents::{Contents, Slot, State, View};
use super::error::MemoryError;
use super::times::to_micros;
use super::turn::Turn;
use crate::store::postings::Postings;
use crate::store::rows::Rows;
use crate::store::scan::{Best, Found};
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

/// What each part of a score counts: 0 or more, not all of them 0.
///
/// Unless set, words decide most, similarity helps them, and recency only says which of two equal turns comes first:
/// with these weights more is recalled than by words alone on the labelled dialogues in `benches/dialogues` and on a
/// public set (LoCoMo); more recency or similarity finds less on one of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// See [`Parts::similarity`]; 0.3 unless set.
    pub similarity: f32,
    /// See [`Parts::words`]; 1 unless set.
    pub words: f32,
    /// See [`Parts::context`]; 1 unless set.
    pub context: f32,
    /// See [`Parts::recency`]; 0.02 unless set.
    pub recency: f32,
    /// See [`Parts::importance`]; 0.1 unless set.
    pub importance: f32,
}

/// The parts of a score.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Parts {
    /// The cosine between the vectors of the turn and of what is asked, 0 to 1; 0 where it is negative, or one of them
    /// is missing.
    pub similarity: f32,
    /// The words that the turn and its role share with what is asked, 0 to 1: BM25 among the turns of the scope,
    /// divided by the sum that it cannot reach.
    pub words: f32,
    /// How well the turns around it fit, as the evidence in a conversation often answers a question that has the words:
    /// similarity and words, each times its weight, of the turn before (half of it), the one after (0.3), the second
    /// before (0.25) and the second after (0.15) in exactly the same scope.
    pub context: f32,
    /// How recently the turn was said, 0 to 1: 1 now, a half after the [half-life](Recall::half_life), and so on.
    pub recency: f32,
    /// The turn's importance, 0 to 1.
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

impl Recalled {
    /// A turn with a score: see [`Turn::new`].
    pub fn new(turn: Turn, score: f32, parts: Parts) -> Self {
        Self { turn, score, parts }
    }
}

/// The fewest turns of each order, by vectors and by words, that are scored.
const CANDIDATES: usize = 100;

/// A cosine that is no more than this is 0 but for rounding.
const LEAST: f32 = 1e-6;

impl Default for Weights {
    fn default() -> Self {
        Self { similarity: 0.3, words: 1.0, context: 1.0, recency: 0.02, importance: 0.1 }
    }
}

impl Weights {
    fn total(&self, parts: &Parts) -> f32 {
        self.similarity * parts.similarity
            + self.words * parts.words
            + self.context * parts.context
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
        let Weights { similarity, words, context, recency, importance } = self.weights;
        let weights = [similarity, words, context, recency, importance];
        if self.k == 0 || self.k > MAX_RESULTS {
            return Err(MemoryError::BadQuery { why: format!("{} turns; 1 to {MAX_RESULTS} are given", self.k) });
        }
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) || weights.iter().all(|w| *w == 0.0) {
            return refused("weights are 0 or more, and not all 0");
        }
        if words == 0.0 && similarity == 0.0 {
            return refused("without words and similarity nothing is looked for; a window gives the latest turns");
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
    /// words, or around one of these; of equal ones the later turn comes first.
    pub(super) fn among(&self, contents: &Contents, leaves: &[u32], view: View) -> Vec<Recalled> {
        let documents = match view.at {
            None => Documents::live(contents, leaves, view),
            Some(_) => Documents::past(contents, leaves, view),
        };
        let now = view.at.unwrap_or(view.now);
        let later_first = |a: u32, b: u32| documents.place(b).cmp(&documents.place(a));
        let mut fits = Fits::of(self, &documents);
        let candidates: Vec<(u32, Vec<(u32, f32)>)> =
            self.candidates(&documents, &fits).into_iter().map(|row| (row, self.around(&documents, row))).collect();
        fits.look_at(&candidates, documents.len());
        let mut scored: Vec<(f32, Parts, u32)> = Vec::new();
        for (row, around) in candidates {
            let (slot, state) = documents.document(row);
            let own = fits.parts(row);
            let context = around.into_iter().map(|(row, share)| share * self.weights.total(&fits.parts(row))).sum();
            let (importance, recency) = (state.importance, self.recency(slot.said, now));
            let parts = Parts { context, importance, recency, ..own };
            let score = self.weights.total(&parts);
            if self.min_score.is_none_or(|min| score >= min) {
                scored.push((score, parts, row));
            }
        }
        scored.sort_unstable_by(|(a, _, x), (b, _, y)| b.total_cmp(a).then_with(|| later_first(*x, *y)));
        scored.truncate(self.k);
        let recalled = |(score, parts, row)| {
            let (slot, state) = documents.document(row);
            Recalled { turn: contents.turn(slot, state), score, parts }
        };
        scored.into_iter().map(recalled).collect()
    }

    /// The rows that are scored.
    fn candidates(&self, documents: &Documents<'_>, fits: &Fits<'_>) -> BTreeSet<u32> {
        let each = self.k.saturating_mul(4).max(CANDIDATES);
        let later_first = |a: u32, b: u32| documents.place(b).cmp(&documents.place(a));
        let mut best = Best::new(each, fits.found.len(), later_first);
        fits.found.iter().for_each(|found| best.offer(found.row, found.score));
        let mut rows: BTreeSet<u32> = best.into_sorted().into_iter().map(|found| found.row).collect();
        if let (Some(vectors), Some(query)) = (fits.vectors, &self.vector) {
            let near = vectors.nearest(query.clone(), Some(&documents.rows), each, later_first);
            rows.extend(near.into_iter().filter(|found| found.score > LEAST).map(|found| found.row));
        }
        let around: Vec<u32> = rows.iter().flat_map(|row| self.around(documents, *row)).map(|(row, _)| row).collect();
        rows.extend(around);
        rows
    }

    /// The rows around one, as far as they count.
    fn around(&self, documents: &Documents<'_>, row: u32) -> Vec<(u32, f32)> {
        if self.weights.context > 0.0 { documents.around(row) } else { Vec::new() }
    }

    fn recency(&self, said: i64, now: i64) -> f32 {
        let age = now.saturating_sub(said).max(0) as f64;
        (-age / self.half_life.as_micros() as f64).exp2() as f32
    }

    pub(super) fn moment(&self) -> Option<i64> {
        self.at.map(to_micros)
    }
}

/// How well rows fit by themselves.
struct Fits<'a> {
    /// The rows that have a word, in no order, and the score that none reaches.
    found: Vec<Found>,
    bound: f32,
    /// `None` where similarity does not count.
    vectors: Option<&'a Vectors>,
    query: &'a [f32],
    /// By row, of those that are looked at.
    parts: HashMap<u32, Parts>,
}

impl<'a> Fits<'a> {
    fn of(recall: &'a Recall, documents: &'a Documents<'_>) -> Self {
        let (found, bound) = match recall.weights.words {
            0.0 => (Vec::new(), 0.0),
            _ => documents.postings().search_among(&recall.text, &documents.rows),
        };
        let counts = recall.weights.similarity > 0.0 && recall.vector.is_some();
        let query = recall.vector.as_deref().unwrap_or_default();
        Self { found, bound, vectors: documents.vectors().filter(|_| counts), query, parts: HashMap::new() }
    }

    /// Looks at rows, and at those around them.
    fn look_at(&mut self, rows: &[(u32, Vec<(u32, f32)>)], all: usize) {
        let mut looked_at = Rows::none(all);
        for (row, around) in rows {
            looked_at.insert(*row);
            around.iter().for_each(|(row, _)| looked_at.insert(*row));
        }
        let Self { found, bound, vectors, query, parts } = self;
        for found in found.iter().filter(|found| looked_at.contains(found.row)) {
            parts.entry(found.row).or_default().words = found.score / *bound;
        }
        let compared = vectors.map_or_else(Vec::new, |vectors| vectors.compare(query.to_vec(), &looked_at));
        for found in compared {
            parts.entry(found.row).or_default().similarity = found.score.clamp(0.0, 1.0);
        }
    }

    fn parts(&self, row: u32) -> Parts {
        self.parts.get(&row).copied().unwrap_or_default()
    }
}

/// How much of what the turns before and after one fit counts for it, the nearest first.
const BEFORE: [f32; 2] = [0.5, 0.25];
const AFTER: [f32; 2] = [0.3, 0.15];

/// What a recall looks at: versions of turns, by row.
struct Documents<'a> {
    contents: &'a Contents,
    rows: Rows,
    view: View,
    past: Option<Past<'a>>,
}

/// Versions as they were at a moment, which no lists are kept of. Those of a leaf lie together, in their order.
struct Past<'a> {
    documents: Vec<(&'a Slot, &'a State)>,
    postings: Postings,
    vectors: Option<Vectors>,
}

impl<'a> Documents<'a> {
    fn live(contents: &'a Contents, leaves: &[u32], view: View) -> Self {
        Self { contents, rows: contents.rows_in(leaves, view.now), view, past: None }
    }

    fn past(contents: &'a Contents, leaves: &[u32], view: View) -> Self {
        let slots = leaves.iter().flat_map(|leaf| contents.order(*leaf).values()).map(|slot| contents.slot(*slot));
        let documents: Vec<_> = slots.filter_map(|slot| Some((slot, view.of(slot)?))).collect();
        let texts = documents.iter().map(|(slot, state)| slot.searched(state));
        let vectors = contents.live.vectors().map(|live| {
            let mut vectors = Vectors::new(live.dimensions(), Metric::Cosine);
            for (slot, state) in &documents {
                let latest = || slot.row.map_or_else(|| vec![0.0; live.dimensions()], |row| live.get(row as usize));
                vectors.push(state.vector.clone().unwrap_or_else(latest));
            }
            vectors
        });
        let (rows, postings) = (Rows::all(documents.len()), Postings::of(texts));
        Self { contents, rows, view, past: Some(Past { documents, postings, vectors }) }
    }

    fn len(&self) -> usize {
        self.past.as_ref().map_or_else(|| self.contents.live.len(), |past| past.documents.len())
    }

    fn postings(&self) -> &Postings {
        self.past.as_ref().map_or_else(|| self.contents.postings(), |past| &past.postings)
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
        match &self.past {
            Some(past) => past.documents[row as usize].0.place,
            None => self.contents.live.places[row as usize],
        }
    }

    /// The rows before and after one in its leaf, with how much each counts.
    fn around(&self, row: u32) -> Vec<(u32, f32)> {
        if let Some(past) = &self.past {
            let leaf = past.documents[row as usize].0.leaf;
            let is_in = |row: &u32| past.documents.get(*row as usize).is_some_and(|(slot, _)| slot.leaf == leaf);
            let before = (0..row).rev().take_while(is_in).zip(BEFORE);
            return before.chain((row + 1..).take_while(is_in).zip(AFTER)).collect();
        }
        let slot = self.document(row).0;
        let order = self.contents.order(slot.leaf);
        let seen = |(_, slot): (&u64, &u32)| {
            let slot = self.contents.slot(*slot);
            self.view.of(slot).and(slot.row)
        };
        let before = order.range(..slot.place).rev().filter_map(seen).zip(BEFORE);
        before.chain(order.range(slot.place + 1..).filter_map(seen).zip(AFTER)).collect()
    }
}

/// As in `similarity 0.520, words 0.550, …`.
impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { similarity, words, context, recency, importance } = self;
        write!(f, "similarity {similarity:.3}, words {words:.3}, context {context:.3}, ")?;
        write!(f, "recency {recency:.3}, importance {importance:.3}")
    }
}
