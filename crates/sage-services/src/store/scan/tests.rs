//! What an index promises, tested on generated rows.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::cascade::Cascade;
use super::codes::{CHUNK, CHUNK_BYTES, Factors};
use super::kernel::{Instructions, Kernel, Portable, Sums, Table, Task};
use super::*;

/// Numbers without a pattern, equal for equal seeds.
struct Random(u64);

impl Random {
    /// −1 to 1.
    fn number(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn direction(&mut self, dimensions: usize) -> Vec<f32> {
        // The sum of some numbers is near enough to the bell curve.
        let mut vector: Vec<f32> = (0..dimensions).map(|_| (0..4).map(|_| self.number()).sum()).collect();
        normalise(&mut vector);
        vector
    }

    /// `rows` vectors around `clusters` directions; without clusters, in all directions.
    fn rows(&mut self, rows: usize, dimensions: usize, clusters: &[Vec<f32>], spread: f32) -> Vec<f32> {
        let mut matrix = Vec::with_capacity(rows * dimensions);
        for _ in 0..rows {
            let mut vector = self.direction(dimensions);
            if !clusters.is_empty() {
                let centre = &clusters[self.below(clusters.len())];
                vector.iter_mut().zip(centre).for_each(|(x, c)| *x = *x * spread + c);
            }
            matrix.extend(vector);
        }
        matrix
    }
}

fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
}

fn by_row(a: u32, b: u32) -> Ordering {
    a.cmp(&b)
}

/// Searches in codes, whatever the number of rows.
fn in_codes(
    index: &Quantised,
    query: &[f32],
    matrix: &[f32],
    allowed: Option<&[u64]>,
    k: usize,
    order: impl Fn(u32, u32) -> Ordering,
) -> Option<Vec<Found>> {
    let allowed = Allowed::new(allowed, index.len());
    index.encoder.instructions.run(Cascade { index, query, matrix, allowed, count: allowed.count(), k, order })
}

const ROWS: usize = 4_000;
const QUERIES: usize = 20;
const K: usize = 10;

/// The part of the true results that searches find, over rows of one kind, with every kernel.
fn recall(dimensions: usize, metric: Metric, clusters: usize, spread: f32, share: usize) -> f64 {
    let mut random = Random(7);
    let centres: Vec<Vec<f32>> = (0..clusters).map(|_| random.direction(dimensions)).collect();
    let mut matrix = random.rows(ROWS, dimensions, &centres, spread);
    let mut queries = random.rows(QUERIES, dimensions, &centres, spread);
    if metric == Metric::Cosine {
        matrix.chunks_exact_mut(dimensions).chain(queries.chunks_exact_mut(dimensions)).for_each(normalise);
    }
    let bits: Vec<u64> =
        (0..ROWS.div_ceil(64)).map(|_| (0..64).map(|bit| u64::from(random.below(share) == 0) << bit).sum()).collect();
    let allowed = (share > 1).then_some(bits.as_slice());
    let mut index = Quantised::build(&matrix, dimensions, metric, 2);
    let mut shares = Vec::new();
    for instructions in [Instructions::detect(), Instructions::Portable(Portable)] {
        index.encoder.instructions = instructions;
        let mut hits = 0;
        for query in queries.chunks_exact(dimensions) {
            let expected = exact(query, &matrix, metric, allowed, K, by_row);
            let found = in_codes(&index, query, &matrix, allowed, K, by_row).expect("nothing overflows");
            assert_eq!(found.len(), expected.len());
            hits += expected.iter().filter(|row| found.iter().any(|found| found.row == row.row)).count();
        }
        shares.push(hits as f64 / (QUERIES * K) as f64);
    }
    assert!((shares[0] - shares[1]).abs() < 0.011, "kernels differ: {shares:?}");
    shares.into_iter().fold(1.0, f64::min)
}

/// Looks a head up: the highest sum of the rows that have a bit, and all sums.
struct Highest<'a> {
    signs: &'a [u8; CHUNK_BYTES],
    table: &'a Table,
    bits: u32,
}

impl Task for Highest<'_> {
    type Output = (u16, [u16; BLOCK]);

    #[inline(always)]
    fn run(self, kernel: impl Kernel) -> Self::Output {
        let mut sums = Sums([7; BLOCK]);
        (kernel.look_up_head(self.signs, self.table, self.bits, &mut sums), sums.0)
    }
}

#[test]
fn kernels_agree_on_the_highest_sum_of_the_rows_that_are_allowed() {
    let mut random = Random(5);
    for bits in [u32::MAX, 0, 1, 1 << 31, 0x0001_8000, 0x5a5a_0ff0] {
        let signs = std::array::from_fn(|_| random.below(256) as u8);
        let table = Table(std::array::from_fn(|_| random.below(16) as u8));
        let with = |instructions: Instructions| instructions.run(Highest { signs: &signs, table: &table, bits });
        let (highest, sums) = with(Instructions::Portable(Portable));
        let allowed = (0..BLOCK).filter(|lane| bits >> lane & 1 == 1).map(|lane| sums[lane]);
        assert_eq!(highest, allowed.max().unwrap_or(0));
        assert_eq!(with(Instructions::detect()), (highest, sums), "{bits:#x}");
    }
}

#[test]
fn searches_find_99_of_100_rows_among_clusters_and_among_random_vectors() {
    for (clusters, spread) in [(60, 0.1), (60, 0.4), (60, 1.0), (3, 0.3), (0, 1.0)] {
        let found = recall(96, Metric::Cosine, clusters, spread, 1);
        assert!(found >= 0.99, "{clusters} clusters with a spread of {spread}: {found}");
    }
}

#[test]
fn searches_by_inner_product_and_distance_find_99_of_100_rows() {
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        for (dimensions, clusters) in [(384, 60), (100, 0), (3, 0)] {
            let found = recall(dimensions, metric, clusters, 0.7, 1);
            assert!(found >= 0.99, "{metric:?}, {dimensions} dimensions, {clusters} clusters: {found}");
        }
    }
}

#[test]
fn searches_among_some_rows_find_99_of_100_of_them() {
    for share in [2, 10, 100] {
        let found = recall(96, Metric::Cosine, 60, 0.5, share);
        assert!(found >= 0.99, "every {share}th row: {found}");
    }
}

#[test]
fn there_are_as_many_results_as_rows_allow() {
    let mut random = Random(3);
    for dimensions in [1, 2, 5, 129] {
        let matrix = random.rows(400, dimensions, &[], 1.0);
        for metric in [Metric::Cosine, Metric::InnerProduct, Metric::Euclidean] {
            let index = Quantised::build(&matrix, dimensions, metric, 1);
            let query = random.direction(dimensions);
            for k in [0, 1, 7, 399, 400, 401, usize::MAX] {
                let found = index.search(&query, &matrix, None, k, by_row);
                assert_eq!(found.len(), k.min(400), "{dimensions} dimensions, {metric:?}, k = {k}");
                let some = index.search(&query, &matrix, Some(&[0, 0b1011 << 20, 1]), k, by_row);
                assert_eq!(some.len(), k.min(4));
            }
            let found = in_codes(&index, &query, &matrix, None, 5, by_row).expect("nothing overflows");
            assert_eq!(found.len(), 5, "{dimensions} dimensions, {metric:?}");
        }
    }
}

#[test]
fn equal_rows_come_in_the_order_given() {
    let matrix = [0.6, 0.8].repeat(2_000);
    let index = Quantised::build(&matrix, 2, Metric::Cosine, 1);
    let found = in_codes(&index, &[1.0, 0.0], &matrix, None, 4, |a, b| b.cmp(&a)).expect("nothing overflows");
    assert_eq!(found.iter().map(|found| found.row).collect::<Vec<_>>(), [1_999, 1_998, 1_997, 1_996]);
}

#[test]
fn a_query_at_the_centre_and_numbers_that_overflow_are_answered_exactly() {
    const DIMENSIONS: usize = 300;
    let mut matrix = Random(5).rows(1_000, DIMENSIONS, &[], 1.0);
    matrix[..4].copy_from_slice(&[f32::MAX, f32::MAX, 3e30, -f32::MAX]);
    matrix[DIMENSIONS * 7] = -f32::MAX;
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let index = Quantised::build(&matrix, DIMENSIONS, metric, 1);
        for scale in [0.0, 1.0, 1e20, 1e38] {
            let query: Vec<f32> = Random(6).direction(DIMENSIONS).iter().map(|x| x * scale).collect();
            let expected = exact(&query, &matrix, metric, None, 5, by_row);
            assert_eq!(index.search(&query, &matrix, None, 5, by_row), expected, "{metric:?} × {scale}");
        }
        let centre = index.encoder.centre.clone();
        let expected = exact(&centre, &matrix, metric, None, 5, by_row);
        assert_eq!(index.search(&centre, &matrix, None, 5, by_row), expected, "{metric:?}");
    }
}

#[test]
fn rows_may_have_65_536_dimensions() {
    let matrix = Random(9).rows(40, 65_536, &[], 1.0);
    let index = Quantised::build(&matrix, 65_536, Metric::Cosine, 1);
    let found = in_codes(&index, &matrix[65_536 * 17..][..65_536], &matrix, None, 1, by_row);
    assert_eq!(found.expect("nothing overflows")[0].row, 17);
}

/// The code of one row, wherever it lies.
fn code(index: &Quantised, row: usize) -> (Vec<u8>, [f32; 3], Vec<u8>, Factors) {
    let (codes, shape) = (&index.codes, index.encoder.shape);
    let (block, lane) = (row / BLOCK, row % BLOCK);
    let tail = &codes.tail[block * shape.tail()..][..shape.tail()];
    let groups = codes.heads[block].signs.chunks_exact(16).chain(tail.chunks_exact(16));
    let signs = groups.map(|group| group[lane % 16] >> (lane / 16 * 4) & 15).collect();
    let levels = |bytes: &[u8]| bytes[row * shape.levels()..][..shape.levels()].to_vec();
    let numbers = [codes.heads[block].gain[lane], codes.gain[row], codes.error[row]];
    (signs, numbers, [levels(&codes.levels), levels(&codes.fine)].concat(), codes.factors[row])
}

/// What is known of a row's block covers the row.
fn is_within_reach(index: &Quantised, row: usize) -> bool {
    let (codes, block, lane) = (&index.codes, row / BLOCK, row % BLOCK);
    let (head, reach, Factors { radius, .. }) = (&codes.heads[block], &codes.reach, codes.factors[row]);
    let slant = (CHUNK as f32 - (radius / head.gain[lane]).powi(2)) / (index.encoder.shape.padded - 1) as f32;
    head.offset[lane] <= reach.offset[block]
        && head.gain[lane] <= reach.gain[block]
        && radius <= reach.radius[block]
        && slant <= reach.slant[block] * 1.0001
}

#[derive(Debug, Clone)]
enum Change {
    Push(u8),
    Overwrite(usize, u8),
    Remove(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u8>().prop_map(Change::Push),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, seed)| Change::Overwrite(at.index(1 << 20), seed)),
        any::<prop::sample::Index>().prop_map(|at| Change::Remove(at.index(1 << 20))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// With the second metric, a row has an offset of its own.
    #[test]
    fn changes_in_any_order_leave_the_codes_of_an_index_built_at_once(
        first in 0_usize..70,
        changes in prop::collection::vec(change(), 0..40),
        metric in prop::sample::select(vec![Metric::InnerProduct, Metric::Euclidean]),
    ) {
        const DIMENSIONS: usize = 150;
        let vector = |seed: u8| Random(u64::from(seed)).rows(1, DIMENSIONS, &[], 1.0);
        let mut matrix = Random(1_000).rows(first, DIMENSIONS, &[], 1.0);
        let mut index = Quantised::build(&matrix, DIMENSIONS, metric, 1);
        for change in changes {
            let rows = index.len();
            match change {
                Change::Push(seed) => {
                    matrix.extend(vector(seed));
                    index.push(&vector(seed));
                }
                Change::Overwrite(at, seed) if rows > 0 => {
                    matrix[at % rows * DIMENSIONS..][..DIMENSIONS].copy_from_slice(&vector(seed));
                    index.overwrite(at % rows, &vector(seed));
                }
                Change::Remove(at) if rows > 0 => {
                    matrix.copy_within((rows - 1) * DIMENSIONS.., at % rows * DIMENSIONS);
                    matrix.truncate((rows - 1) * DIMENSIONS);
                    index.swap_remove(at % rows);
                }
                _ => {}
            }
        }
        let at_once = Quantised::around(index.encoder.centre.clone(), &matrix, metric, 1);
        prop_assert_eq!(index.len(), at_once.len());
        prop_assert_eq!(index.to_bytes(0).len() as u64, Quantised::bytes_of(DIMENSIONS, index.len()));
        for row in 0..index.len() {
            prop_assert_eq!(code(&index, row), code(&at_once, row));
            prop_assert!(is_within_reach(&index, row), "row {}", row);
        }
    }
}

#[test]
fn two_threads_and_another_kernel_make_the_same_codes() {
    let matrix = Random(11).rows(12_000, 10, &[], 1.0);
    let index = Quantised::build(&matrix, 10, Metric::Euclidean, 2);
    assert_eq!(index.to_bytes(0), Quantised::build(&matrix, 10, Metric::Euclidean, 1).to_bytes(0));
    assert_eq!(index.to_bytes(0).len() as u64, Quantised::bytes_of(10, 12_000));
    let mut portable = Quantised::around(index.encoder.centre.clone(), &[], Metric::Euclidean, 1);
    portable.encoder.instructions = Instructions::Portable(Portable);
    matrix.chunks_exact(10).for_each(|row| portable.push(row));
    for row in 0..index.len() {
        assert_eq!(code(&index, row), code(&portable, row));
    }
}

#[test]
fn an_index_is_stale_once_its_rows_have_doubled() {
    let matrix = [1.0, 2.0, 3.0];
    let mut index = Quantised::build(&matrix, 1, Metric::Euclidean, 1);
    for _ in 0..3 {
        index.push(&[1.0]);
        assert!(!index.is_stale());
    }
    index.push(&[1.0]);
    assert!(index.is_stale());
}
