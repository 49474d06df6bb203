//! [`Best`]: the best rows of those that are offered.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Keeps the `k` rows with the highest scores; of equal scores, those with the lower ids, so that it does not depend on
/// the order in which they are offered.
#[derive(Debug)]
pub(super) struct Best<'a> {
    ids: &'a [Arc<str>],
    k: usize,
    heap: BinaryHeap<Candidate<'a>>,
}

impl<'a> Best<'a> {
    pub(super) fn new(k: usize, ids: &'a [Arc<str>]) -> Self {
        Self { ids, k, heap: BinaryHeap::with_capacity(k.min(ids.len()) + 1) }
    }

    pub(super) fn offer(&mut self, row: u32, score: f32) {
        let candidate = Candidate { score, id: &self.ids[row as usize], row };
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    /// Rows and scores, best first.
    pub(super) fn into_rows(self) -> Vec<(u32, f32)> {
        self.heap.into_sorted_vec().into_iter().map(|candidate| (candidate.row, candidate.score)).collect()
    }
}

/// The *worse* of two is the greater, so that the top of a heap is the next to go.
#[derive(Debug)]
struct Candidate<'a> {
    score: f32,
    id: &'a Arc<str>,
    row: u32,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then_with(|| self.id.cmp(other.id))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}
