//! The exact scan behind a search: compares a query with every row of a matrix and keeps the best.
//!
//! Invariant: the order of candidates is total (score, then id), so the result does not depend on the order of rows.
//!
//! Knows nothing of locks and payloads.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// A row found. The *worse* of two candidates is the greater, so that the top of a heap is the next to be evicted and
/// its sorted order is best first.
pub(crate) struct Candidate<'a> {
    /// Cosine, −1 to 1.
    pub(crate) score: f32,
    pub(crate) id: &'a Arc<str>,
    pub(crate) row: usize,
}

/// Returns the `k` rows closest to `query`, best first. `query` and the rows of `matrix` have length 1, none of them
/// holds a NaN, and `ids` has one element for each row.
pub(crate) fn nearest<'a>(query: &[f32], matrix: &[f32], ids: &'a [Arc<str>], k: usize) -> Vec<Candidate<'a>> {
    debug_assert_eq!(matrix.len(), ids.len() * query.len(), "the matrix has one row for each id");
    let mut best = BinaryHeap::with_capacity(k.min(ids.len()) + 1);
    for (row, (vector, id)) in matrix.chunks_exact(query.len()).zip(ids).enumerate() {
        // Rounding may leave the range of a cosine, and must not order what is equally close.
        let candidate = Candidate { score: dot(query, vector).clamp(-1.0, 1.0), id, row };
        if best.len() < k {
            best.push(candidate);
        } else if let Some(mut worst) = best.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }
    best.into_sorted_vec()
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

/// Sums in 16 independent lanes, which the compiler turns into vector instructions; it may not reorder a single running
/// sum.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_length_is_summed_whole() {
        for length in 0..70 {
            let ones = vec![1.0; length];
            assert_eq!(dot(&ones, &ones), length as f32);
        }
    }

    proptest! {
        /// Rows along the axes make equal scores common and exact.
        #[test]
        fn the_order_of_rows_does_not_matter(axes in prop::collection::vec(0_usize..4, 1..40), k in 1_usize..50) {
            let search = |order: &[usize]| {
                let ids: Vec<Arc<str>> = order.iter().map(|row| format!("{row:02}").into()).collect();
                let matrix: Vec<f32> = order.iter().flat_map(|&row| (0..4).map(move |axis| (axis, row)))
                    .map(|(axis, row)| if axes[row] == axis { 1.0 } else { 0.0 }).collect();
                let found = nearest(&[0.8, 0.6, 0.0, 0.0], &matrix, &ids, k);
                found.iter().map(|found| found.id.to_string()).collect::<Vec<_>>()
            };
            let mut order: Vec<usize> = (0..axes.len()).collect();
            let forward = search(&order);
            order.reverse();
            prop_assert_eq!(&forward, &search(&order));
            order.sort_by_key(|&row| (axes[row].min(2), row));
            let expected: Vec<String> = order.iter().take(k).map(|row| format!("{row:02}")).collect();
            prop_assert_eq!(forward, expected);
        }
    }
}
