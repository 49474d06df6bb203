//! [`Vectors`]: the vectors of rows, and those that are closest to a query.
//!
//! Invariant: under cosine, rows of `matrix` have length 1 to within rounding, or are zero, and `lengths` has what they
//! had before.

use std::cmp::Ordering;
use std::sync::OnceLock;

use super::rows::Rows;
use super::scan::{CacheError, Found, Quantised, exact};
use super::schema::Metric;

/// Numbers of all vectors from which on an index is built: an exact scan takes 2 ms for them.
const INDEXED: usize = 4_000_000;
/// Threads that build it.
const BUILDERS: usize = 2;

/// The vectors of rows, all of the same length.
#[derive(Debug)]
pub(crate) struct Vectors {
    dimensions: usize,
    metric: Metric,
    matrix: Vec<f32>,
    lengths: Vec<f32>,
    /// Built by the first search that is worth it, and kept up with the rows from then on.
    index: OnceLock<Quantised>,
}

impl Vectors {
    pub(crate) fn new(dimensions: usize, metric: Metric) -> Self {
        Self { dimensions, metric, matrix: Vec::new(), lengths: Vec::new(), index: OnceLock::new() }
    }

    /// Adds a row behind the last.
    pub(crate) fn push(&mut self, mut vector: Vec<f32>) {
        let length = self.prepare(&mut vector);
        self.matrix.extend_from_slice(&vector);
        self.lengths.push(length);
        if let Some(index) = self.index.get_mut() {
            index.push(&vector);
            if index.is_stale() {
                self.index.take();
            }
        }
    }

    pub(crate) fn overwrite(&mut self, row: usize, mut vector: Vec<f32>) {
        self.lengths[row] = self.prepare(&mut vector);
        self.matrix[row * self.dimensions..][..self.dimensions].copy_from_slice(&vector);
        if let Some(index) = self.index.get_mut() {
            index.overwrite(row, &vector);
        }
    }

    /// Moves the last row to this place, whose own goes.
    pub(crate) fn swap_remove(&mut self, row: usize) {
        self.lengths.swap_remove(row);
        let last = self.lengths.len() * self.dimensions;
        self.matrix.copy_within(last.., row * self.dimensions);
        self.matrix.truncate(last);
        if let Some(index) = self.index.get_mut() {
            index.swap_remove(row);
        }
    }

    /// The vector of a row; under cosine to within rounding.
    pub(crate) fn get(&self, row: usize) -> Vec<f32> {
        self.row(row).iter().map(|x| x * self.lengths[row]).collect()
    }

    /// The `k` rows that are closest, best first. `by` tells which of two that score the same comes first.
    pub(crate) fn nearest(
        &self,
        mut query: Vec<f32>,
        allowed: Option<&Rows>,
        k: usize,
        by: impl Fn(u32, u32) -> Ordering,
    ) -> Vec<Found> {
        self.prepare(&mut query);
        let allowed = allowed.map(Rows::words);
        if self.matrix.len() < INDEXED {
            exact(&query, &self.matrix, self.metric, allowed, k, by)
        } else {
            let build = || Quantised::build(&self.matrix, self.dimensions, self.metric, BUILDERS);
            self.index.get_or_init(build).search(&query, &self.matrix, allowed, k, by)
        }
    }

    /// How these rows compare with a query, exactly, best first.
    pub(crate) fn compare(&self, mut query: Vec<f32>, rows: &Rows) -> Vec<Found> {
        self.prepare(&mut query);
        exact(&query, &self.matrix, self.metric, Some(rows.words()), rows.count(), |a, b| a.cmp(&b))
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The index as bytes, if one was built.
    pub(crate) fn index_as_bytes(&self, stamp: u64) -> Option<Vec<u8>> {
        self.index.get().map(|index| index.to_bytes(stamp))
    }

    /// How many bytes it has.
    pub(crate) fn index_length(&self) -> u64 {
        Quantised::bytes_of(self.dimensions, self.lengths.len())
    }

    /// Takes up an index that was built for the same rows in the same order.
    pub(crate) fn take_up_index(&mut self, bytes: &[u8], stamp: u64) -> Result<(), CacheError> {
        self.index = Quantised::from_bytes(bytes, stamp, self.metric, self.dimensions, self.lengths.len())?.into();
        Ok(())
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.matrix[row * self.dimensions..][..self.dimensions]
    }

    fn prepare(&self, vector: &mut [f32]) -> f32 {
        if self.metric == Metric::Cosine { normalise(vector) } else { 1.0 }
    }
}

/// Divides a vector by its length, and returns that. A zero vector stays as it is.
fn normalise(vector: &mut [f32]) -> f32 {
    // In double precision the square of the largest f32 does not overflow.
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    length as f32
}
