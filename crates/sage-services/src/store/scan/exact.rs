//! The exact scan: compares a query with every row.

use std::cmp::Ordering;

use super::best::Best;
use super::kernel::{Instructions, Kernel, Task};
use super::score::score;
use super::{Allowed, Found, Metric};

/// Returns the `k` rows that score highest, best first: all that are allowed where `k` is more.
///
/// `query` and the rows of `matrix` hold finite numbers, and have length 1 under [`Metric::Cosine`]. `allowed` has a
/// bit for each row, that of row 0 lowest in the first word; bits after the last row are ignored, and so are rows
/// without a bit. `order` tells which of two rows with equal scores comes first.
///
/// # Panics
///
/// When `query` is empty, or `matrix` is not made of rows as long as it.
pub fn exact(
    query: &[f32],
    matrix: &[f32],
    metric: Metric,
    allowed: Option<&[u64]>,
    k: usize,
    order: impl Fn(u32, u32) -> Ordering,
) -> Vec<Found> {
    let allowed = Allowed::new(allowed, matrix.len() / query.len());
    Instructions::detect().run(Scan { query, matrix, metric, allowed, k, order })
}

/// The arguments of [`exact`].
pub(super) struct Scan<'a, O> {
    pub(super) query: &'a [f32],
    pub(super) matrix: &'a [f32],
    pub(super) metric: Metric,
    pub(super) allowed: Allowed<'a>,
    pub(super) k: usize,
    pub(super) order: O,
}

impl<O: Fn(u32, u32) -> Ordering> Task for Scan<'_, O> {
    type Output = Vec<Found>;

    #[inline(always)]
    fn run(self, kernel: impl Kernel) -> Vec<Found> {
        let Self { query, matrix, metric, allowed, k, order } = self;
        let dimensions = query.len();
        assert!(matrix.len().is_multiple_of(dimensions), "each row of the matrix is as long as the query");
        if k == 0 {
            return Vec::new();
        }
        let mut best = Best::new(k, matrix.len() / dimensions, order);
        allowed.for_each(|row| {
            let vector = &matrix[row as usize * dimensions..][..dimensions];
            best.offer(row, score(kernel, metric, query, vector));
        });
        best.into_sorted()
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::Portable;
    use super::*;
    use proptest::prelude::*;

    /// Whole numbers, so that a sum is the same in any order, and equal scores are common.
    fn number() -> impl Strategy<Value = f32> {
        (-2_i8..=2).prop_map(f32::from)
    }

    fn simple(query: &[f32], matrix: &[f32], metric: Metric, allowed: Option<&[u64]>, k: usize) -> Vec<Found> {
        let is_allowed =
            |row: usize| allowed.is_none_or(|bits| bits.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1));
        let score = |row: &[f32]| {
            let dot: f32 = query.iter().zip(row).map(|(x, y)| x * y).sum();
            let squares: f32 = query.iter().zip(row).map(|(x, y)| (x - y) * (x - y)).sum();
            if metric == Metric::Euclidean { 0.0 - squares.sqrt() } else { dot + 0.0 }
        };
        let rows = matrix.chunks_exact(query.len()).enumerate().filter(|(row, _)| is_allowed(*row));
        let mut found: Vec<Found> = rows.map(|(row, vector)| Found { row: row as u32, score: score(vector) }).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.row.cmp(&a.row)));
        found.truncate(k);
        found
    }

    proptest! {
        /// The order for ties is the reverse of the rows', so that it cannot be met by chance.
        #[test]
        fn a_scan_finds_what_sorting_all_rows_finds(
            rows in 0_usize..150,
            numbers in prop::collection::vec(number(), 150 * 3 + 3),
            bits in prop::option::of(prop::collection::vec(any::<u64>(), 0..4)),
            metric in prop::sample::select(vec![Metric::InnerProduct, Metric::Euclidean]),
            k in 0_usize..160,
        ) {
            let (query, matrix) = numbers.split_at(3);
            let matrix = &matrix[..rows * 3];
            let order = |a: u32, b: u32| b.cmp(&a);
            let expected = simple(query, matrix, metric, bits.as_deref(), k);
            prop_assert_eq!(&exact(query, matrix, metric, bits.as_deref(), k, order), &expected);
            let allowed = Allowed::new(bits.as_deref(), rows);
            let scan = Scan { query, matrix, metric, allowed, k, order };
            prop_assert_eq!(&Instructions::Portable(Portable).run(scan), &expected);
        }

        /// Rows along the axes make equal scores common and exact.
        #[test]
        fn the_order_of_rows_does_not_matter(axes in prop::collection::vec(0_usize..4, 1..40), k in 1_usize..50) {
            let search = |ids: &[usize]| {
                let on_axis = |id: &usize| [0, 1, 2, 3].map(|axis| f32::from(u8::from(axes[*id] == axis)));
                let matrix: Vec<f32> = ids.iter().flat_map(on_axis).collect();
                let by_id = |a: u32, b: u32| ids[a as usize].cmp(&ids[b as usize]);
                let found = exact(&[0.8, 0.6, 0.0, 0.0], &matrix, Metric::Cosine, None, k, by_id);
                found.iter().map(|found| ids[found.row as usize]).collect::<Vec<_>>()
            };
            let mut ids: Vec<usize> = (0..axes.len()).collect();
            let forward = search(&ids);
            ids.reverse();
            prop_assert_eq!(&forward, &search(&ids));
            ids.sort_by_key(|&id| (axes[id].min(2), id));
            ids.truncate(k);
            prop_assert_eq!(forward, ids);
        }
    }
}
