//! Keeps the best of many rows.
//!
//! Invariant: the order of rows is total (score, then the caller's order), so the result does not depend on the order
//! in which rows are offered.

use std::cmp::Ordering;

/// A row found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Position of the row in the matrix, from 0.
    pub row: u32,
    /// Higher is better.
    pub score: f32,
}

/// The best `k` of the rows offered so far. `order` tells which of two rows with equal scores comes first.
///
/// Rows gather until there are twice as many as asked for; then the worse half goes. That takes constant time a row.
pub(crate) struct Best<O> {
    k: usize,
    found: Vec<Found>,
    floor: f32,
    order: O,
}

impl<O: Fn(u32, u32) -> Ordering> Best<O> {
    /// Makes room for the best `k` of at most `rows` rows; `k` is 1 or more.
    pub(crate) fn new(k: usize, rows: usize, order: O) -> Self {
        let k = k.min(rows).max(1);
        Self { k, found: Vec::with_capacity((2 * k).min(rows + 1)), floor: f32::NEG_INFINITY, order }
    }

    /// Takes a row into account. The score is not NaN.
    #[inline(always)]
    pub(crate) fn offer(&mut self, row: u32, score: f32) {
        if score < self.floor {
            return;
        }
        self.found.push(Found { row, score });
        if self.found.len() >= 2 * self.k {
            self.prune();
        }
    }

    /// The most rows that it keeps.
    pub(super) fn limit(&self) -> usize {
        self.k
    }

    /// A score below which no row can be among the best. It rises now and then; [`prune`](Self::prune) raises it to
    /// the score of the `k`th row.
    pub(super) fn floor(&self) -> f32 {
        self.floor
    }

    /// Drops all but the best `k`.
    pub(super) fn prune(&mut self) {
        let Self { k, found, floor, order } = self;
        if found.len() >= *k {
            found.select_nth_unstable_by(*k - 1, |a, b| better_first(a, b, order));
            found.truncate(*k);
            *floor = found[*k - 1].score;
        }
    }

    /// The best rows, in no order, once [`prune`](Self::prune) was called.
    pub(super) fn found(&self) -> &[Found] {
        &self.found
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.found.clear();
        self.floor = f32::NEG_INFINITY;
    }

    /// The best rows, best first.
    pub(crate) fn into_sorted(mut self) -> Vec<Found> {
        self.prune();
        let Self { mut found, order, .. } = self;
        found.sort_unstable_by(|a, b| better_first(a, b, &order));
        found
    }
}

fn better_first(a: &Found, b: &Found, order: &impl Fn(u32, u32) -> Ordering) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| order(a.row, b.row))
}
