//! Small codes of all rows of a matrix, by which a search finds the few rows worth an exact comparison.
//!
//! Invariants:
//! 1. There is one code for each row of the matrix. It depends on the row and on the centre, which was fixed when the
//!    index was built, and on nothing else: whatever the order of changes, codes are those of an index built at once
//!    around the same centre.
//! 2. Scores come from the matrix, never from a code.
//!
//! Knows nothing of what a position means.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::cascade::Scratch;
use super::codes::{Codes, Encoder, Head, Part, Shape};
use super::kernel::{Instructions, Rows};
use super::rotation::Rotation;
use super::{BLOCK, Metric};

/// The codes of the rows of a matrix. Each change of a row of the matrix is told to it, in the same order.
///
/// A row takes `9/8 × dimensions + 41` bytes, with dimensions rounded up to a multiple of 128, where the matrix takes
/// `4 × dimensions`.
pub struct Quantised {
    pub(super) metric: Metric,
    pub(super) encoder: Encoder,
    pub(super) codes: Codes,
    pub(super) rows: usize,
    /// Rows there were when the centre was set.
    pub(super) centred_rows: usize,
    /// What searches work with, so that none has to allocate.
    pub(super) scratches: Mutex<Vec<Scratch>>,
}

/// Rows that are worth a second thread of the build.
const ROWS_PER_THREAD: usize = 5_000;

impl Quantised {
    /// Encodes all rows of `matrix`, on at most `threads` threads. Their mean is the centre.
    ///
    /// # Panics
    ///
    /// When `dimensions` is 0, or `matrix` is not made of rows of so many coordinates.
    pub fn build(matrix: &[f32], dimensions: usize, metric: Metric, threads: usize) -> Self {
        Self::around(mean(matrix, dimensions), matrix, metric, threads)
    }

    /// Encodes all rows of `matrix` around a centre.
    pub(super) fn around(centre: Vec<f32>, matrix: &[f32], metric: Metric, threads: usize) -> Self {
        let mut index = Self::empty(centre, metric);
        index.encode(matrix, threads);
        index
    }

    /// An index without rows around a centre.
    pub(super) fn empty(centre: Vec<f32>, metric: Metric) -> Self {
        let shape = Shape::new(centre.len());
        let encoder = Encoder {
            shape,
            is_euclidean: metric == Metric::Euclidean,
            centre,
            rotation: Rotation::new(shape.padded),
            instructions: Instructions::detect(),
        };
        Self { metric, encoder, codes: Codes::default(), rows: 0, centred_rows: 0, scratches: Mutex::default() }
    }

    fn encode(&mut self, matrix: &[f32], threads: usize) {
        let (shape, encoder) = (self.encoder.shape, &self.encoder);
        self.rows = matrix.len() / shape.dimensions;
        self.centred_rows = self.rows;
        let blocks = self.rows.div_ceil(BLOCK);
        self.codes.resize(blocks, shape);
        let threads = threads.min(self.rows / ROWS_PER_THREAD).max(1);
        let blocks_each = blocks.div_ceil(threads).max(1);
        let mut rest = self.codes.all();
        thread::scope(|scope| {
            let mut parts = matrix.chunks(blocks_each * BLOCK * shape.dimensions);
            let own = parts.next().map(|rows| (rows, take(&mut rest, blocks_each.min(blocks), shape)));
            for rows in parts {
                let mut part = take(&mut rest, rows.len().div_ceil(BLOCK * shape.dimensions), shape);
                scope.spawn(move || encoder.encode(rows, &mut part, 0));
            }
            if let Some((rows, mut part)) = own {
                encoder.encode(rows, &mut part, 0);
            }
        });
        self.codes.reach_anew(0..blocks, shape);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether the rows have doubled since the index was built, so that their mean may lie elsewhere. Searches stay
    /// right; an index built anew may be faster.
    pub fn is_stale(&self) -> bool {
        self.rows > 2 * self.centred_rows
    }

    /// Encodes a row that was added behind the last one.
    ///
    /// # Panics
    ///
    /// When `vector` has another number of coordinates than the index.
    pub fn push(&mut self, vector: &[f32]) {
        self.rows += 1;
        self.codes.resize(self.rows.div_ceil(BLOCK), self.encoder.shape);
        self.overwrite(self.rows - 1, vector);
    }

    /// Encodes a row that was overwritten.
    ///
    /// # Panics
    ///
    /// When there is no such row, or `vector` has another number of coordinates than the index.
    pub fn overwrite(&mut self, row: usize, vector: &[f32]) {
        assert!(row < self.rows, "row {row} is not among {} rows", self.rows);
        assert_eq!(vector.len(), self.encoder.shape.dimensions, "the vector has the dimensions of the index");
        self.encoder.encode(vector, &mut self.codes.all(), row);
        self.codes.reach_anew(row / BLOCK..row / BLOCK + 1, self.encoder.shape);
    }

    /// Drops a row whose place the last one has taken.
    ///
    /// # Panics
    ///
    /// When there is no such row.
    pub fn swap_remove(&mut self, row: usize) {
        assert!(row < self.rows, "row {row} is not among {} rows", self.rows);
        self.rows -= 1;
        if row != self.rows {
            self.codes.all().copy(self.rows, row, self.encoder.shape);
            self.codes.reach_anew(row / BLOCK..row / BLOCK + 1, self.encoder.shape);
        }
        self.codes.resize(self.rows.div_ceil(BLOCK), self.encoder.shape);
    }

    /// What goes with the heads of a block, but for its signs.
    #[inline]
    pub(super) fn heads(&self, block: usize) -> Rows<'_> {
        let Head { offset, gain, .. } = &self.codes.heads[block];
        Rows { offset, gain, error: None }
    }

    /// What goes with all signs of a block.
    #[inline]
    pub(super) fn signs(&self, block: usize) -> Rows<'_> {
        Rows { offset: &self.codes.heads[block].offset, gain: of_block(&self.codes.gain, block), error: None }
    }

    #[inline]
    pub(super) fn levels(&self, row: usize) -> &[u8] {
        let levels = self.encoder.shape.levels();
        &self.codes.levels[row * levels..][..levels]
    }

    #[inline]
    pub(super) fn fine(&self, row: usize) -> &[u8] {
        let levels = self.encoder.shape.levels();
        &self.codes.fine[row * levels..][..levels]
    }

    /// Takes what an earlier search worked with, or makes it.
    pub(super) fn scratch(&self) -> Scratch {
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, scratch: Scratch) {
        self.scratches.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}

impl fmt::Debug for Quantised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dimensions = self.encoder.shape.dimensions;
        f.debug_struct("Quantised")
            .field("metric", &self.metric)
            .field("dimensions", &dimensions)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// The numbers of the rows of one block.
#[inline(always)]
pub(super) fn of_block(numbers: &[f32], block: usize) -> &[f32; BLOCK] {
    numbers[block * BLOCK..].first_chunk().expect("codes have whole blocks")
}

fn take<'a>(rest: &mut Part<'a>, blocks: usize, shape: Shape) -> Part<'a> {
    let (part, others) = std::mem::take(rest).split(blocks, shape);
    *rest = others;
    part
}

/// The mean of all rows; zeros where there are none, or where it is too large for an `f32`.
fn mean(matrix: &[f32], dimensions: usize) -> Vec<f32> {
    assert!(dimensions > 0 && matrix.len().is_multiple_of(dimensions), "the matrix is made of whole rows");
    let mut sums = vec![0.0_f64; dimensions];
    for row in matrix.chunks_exact(dimensions) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    let rows = (matrix.len() / dimensions).max(1) as f64;
    sums.iter().map(|sum| (sum / rows) as f32).collect()
}
