//! The inner loops of all searches, once for every processor and once for those with AVX2.
//!
//! A [`Kernel`] is a value that only a processor with its instructions has, so that calling it is safe. Its functions
//! become part of the loop around them where that is in a [`Task`].
//!
//! Both kernels agree on whole numbers. Sums of fractions may differ in the last bits, as they are added in another
//! order.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::slice;

use super::BLOCK;
use super::codes::{CHUNK_BYTES, GROUPS};

/// For each group of coordinates of a chunk, the sum that each of 16 combinations of signs gives, at most 15.
///
/// Loads that cross a line of the cache take twice as long, hence the alignment, here and below.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Table(pub(super) [u8; GROUPS * 16]);

/// For each row of a block, what tables say of its signs.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [u16; BLOCK]);

/// How values of rows follow from sums: `offset + gain × (factor × sum + base) + error × margin`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) factor: f32,
    pub(super) base: f32,
    pub(super) margin: f32,
}

/// What is kept of the rows of a block beside their signs.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) offset: &'a [f32; BLOCK],
    pub(super) gain: &'a [f32; BLOCK],
    /// None where there is no margin.
    pub(super) error: Option<&'a [f32; BLOCK]>,
}

impl Line {
    /// What no value is above of a block whose highest sum, offset and gain are given.
    #[inline(always)]
    pub(super) fn most(self, sum: u16, offset: f32, gain: f32) -> f32 {
        offset + gain * (self.factor * f32::from(sum) + self.base).max(0.0)
    }

    /// The line that lies so far above it, times the gain.
    #[inline(always)]
    pub(super) fn plus(self, margin: f32) -> Self {
        Self { base: self.base + margin, ..self }
    }

    #[inline(always)]
    pub(super) fn value(self, sum: u16, offset: f32, gain: f32, error: f32) -> f32 {
        offset + gain * (self.factor * f32::from(sum) + self.base) + error * self.margin
    }
}

/// Instructions, and the inner loops that use them.
pub(super) trait Kernel: Copy {
    /// The inner product of two vectors.
    fn dot(self, a: &[f32], b: &[f32]) -> f32;

    /// The squared Euclidean distance of two vectors.
    fn squared_distance(self, a: &[f32], b: &[f32]) -> f32;

    /// Adds up, for each row of a block, what the tables say of its signs. `signs` has one chunk for each table.
    fn look_up(self, signs: &[u8], tables: &[Table], sums: &mut Sums);

    /// The same with one table, in place of what `sums` were; returns the highest of the rows that have a bit.
    fn look_up_head(self, signs: &[u8; CHUNK_BYTES], table: &Table, bits: u32, sums: &mut Sums) -> u16;

    /// A bit for each row of the block whose value is at least `floor`.
    fn compare(self, sums: &Sums, rows: Rows<'_>, line: Line, floor: f32) -> u32;

    /// The inner product of a row's levels (0 to 15, two to a byte) with those of a query, each −127 to 127.
    fn dot_levels(self, levels: &[u8], query: &[i8]) -> i32;

    /// Asks for numbers that will be read soon.
    fn prefetch<T>(self, numbers: &[T]);
}

/// What every processor can do. The compiler makes vector instructions of the simpler loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Portable;

/// The kernels there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
}

impl Instructions {
    /// The best that this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = avx2::Avx2::detect() {
            return Self::Avx2(avx2);
        }
        Self::Portable(Portable)
    }

    /// Runs a task, compiled for these instructions.
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        match self {
            Self::Portable(kernel) => task.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.run(task),
        }
    }
}

/// What a kernel can run. Implementations are `#[inline(always)]`: only so are they compiled for its instructions.
pub(super) trait Task {
    type Output;

    fn run(self, kernel: impl Kernel) -> Self::Output;
}

impl Kernel for Portable {
    fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        sum::<false>(a, b)
    }

    fn squared_distance(self, a: &[f32], b: &[f32]) -> f32 {
        sum::<true>(a, b)
    }

    fn look_up(self, signs: &[u8], tables: &[Table], sums: &mut Sums) {
        for (signs, table) in signs.chunks_exact(CHUNK_BYTES).zip(tables) {
            for (bytes, entries) in signs.chunks_exact(BLOCK / 2).zip(table.0.chunks_exact(16)) {
                for (lane, byte) in bytes.iter().enumerate() {
                    sums.0[lane] += u16::from(entries[usize::from(byte & 15)]);
                    sums.0[lane + BLOCK / 2] += u16::from(entries[usize::from(byte >> 4)]);
                }
            }
        }
    }

    fn look_up_head(self, signs: &[u8; CHUNK_BYTES], table: &Table, bits: u32, sums: &mut Sums) -> u16 {
        *sums = Sums([0; BLOCK]);
        self.look_up(signs, slice::from_ref(table), sums);
        (0..BLOCK).filter(|lane| bits >> lane & 1 != 0).map(|lane| sums.0[lane]).max().unwrap_or(0)
    }

    fn compare(self, sums: &Sums, rows: Rows<'_>, line: Line, floor: f32) -> u32 {
        let mut bits = 0;
        for lane in 0..BLOCK {
            let error = rows.error.map_or(0.0, |error| error[lane]);
            let value = line.value(sums.0[lane], rows.offset[lane], rows.gain[lane], error);
            bits |= u32::from(value >= floor) << lane;
        }
        bits
    }

    fn dot_levels(self, levels: &[u8], query: &[i8]) -> i32 {
        let mut sum = 0;
        for (bytes, query) in levels.chunks_exact(32).zip(query.chunks_exact(64)) {
            let (low, high) = query.split_at(32);
            for lane in 0..32 {
                sum += i32::from(bytes[lane] & 15) * i32::from(low[lane]);
                sum += i32::from(bytes[lane] >> 4) * i32::from(high[lane]);
            }
        }
        sum
    }

    fn prefetch<T>(self, _: &[T]) {}
}

/// Sums products, or squares of differences. It sums in 16 independent lanes, which the compiler turns into vector
/// instructions; it may not reorder a single running sum.
#[inline(always)]
pub(super) fn sum<const SQUARES: bool>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let term = |x: f32, y: f32| if SQUARES { (x - y) * (x - y) } else { x * y };
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&x, &y)| term(x, y)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane], y[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}
