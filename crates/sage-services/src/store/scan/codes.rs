//! What is kept of each row: signs, four bits a coordinate, and the numbers that make estimates of them.
//!
//! A row less the centre is a length (its radius) and a direction. The direction is rotated, so that its coordinates
//! are like random ones whatever the data, and then rounded, once to signs and once to 16 levels. For a code `x` of a
//! direction `u` and any direction `q`, `⟨q,x⟩ / ⟨u,x⟩` estimates `⟨q,u⟩` without bias. Its error has the spread
//! `√(1−⟨q,u⟩²) × √(|x|²/⟨u,x⟩² − 1) / √(d−1)`: all of it but the angle that is sought is known when a row is encoded.
//! The method is that of J. Gao and C. Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error
//! Bound for Approximate Nearest Neighbor Search", SIGMOD 2024 (arXiv 2405.12497), and its extension to more bits
//! (arXiv 2409.09913); here for a part of the coordinates as well.
//!
//! Signs lie in blocks of 32 rows, four coordinates to a group, for look-ups within a register: F. André, A.-M.
//! Kermarrec and N. Le Scouarnec, "Cache locality is not enough: High-Performance Nearest Neighbor Search with Product
//! Quantization Fast Scan", VLDB 2015.

use std::ops::Range;

use super::BLOCK;
use super::kernel::{Instructions, Kernel, Task, sum};
use super::rotation::Rotation;

/// Coordinates whose signs are compared at one go: as many as sum up to less than 256 in every lane.
pub(super) const CHUNK: usize = 128;
/// Coordinates in a group: its signs select one of 16 entries of a table.
pub(super) const GROUP: usize = 4;
/// Groups of a chunk.
pub(super) const GROUPS: usize = CHUNK / GROUP;
/// Bytes of a chunk's signs, of all rows of a block.
pub(super) const CHUNK_BYTES: usize = GROUPS * BLOCK / 2;
/// Most coordinates whose signs are kept, so that a sum fits 16 bits.
const MAX_SIGNS: usize = 128 * CHUNK;
/// Distance of two of the 16 levels, over the spread of a coordinate: little rounding, and few numbers of the bell
/// curve lie outside.
pub(super) const STEP: f32 = 0.4;
/// Parts into which a fine level divides a step.
pub(super) const PARTS: f32 = 16.0;
/// What is in the middle of all levels, and of all fine ones, in steps.
pub(super) const MIDDLE: f32 = 7.5;
pub(super) const FINE_MIDDLE: f32 = 127.5 / PARTS;
/// A shorter difference from the centre counts as none, as its inverse would be too large.
const MIN_RADIUS: f32 = 1e-30;

/// The lengths of the parts of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Coordinates of a row.
    pub(super) dimensions: usize,
    /// Coordinates of a rotated row: a multiple of a chunk.
    pub(super) padded: usize,
    /// Chunks of signs: the first is the head, the others are the tail.
    pub(super) chunks: usize,
}

impl Shape {
    pub(super) fn new(dimensions: usize) -> Self {
        let padded = dimensions.next_multiple_of(CHUNK);
        Self { dimensions, padded, chunks: padded.min(MAX_SIGNS) / CHUNK }
    }

    /// Bytes that a block's signs take in the tail.
    pub(super) fn tail(self) -> usize {
        (self.chunks - 1) * CHUNK_BYTES
    }

    /// Bytes that a row's levels take, and once more its fine levels.
    pub(super) fn levels(self) -> usize {
        self.padded / 2
    }
}

/// The numbers that go with the levels of a row. `offset` alone is the value of a row at the centre; see `query.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub(super) struct Factors {
    pub(super) offset: f32,
    pub(super) radius: f32,
    pub(super) gain: f32,
    pub(super) error: f32,
    /// The same two for levels and fine levels together.
    pub(super) fine_gain: f32,
    pub(super) fine_error: f32,
}

/// What of a block every search reads, side by side: signs of the first chunk, and of each row its value at the centre
/// and what a sum over those signs is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Head {
    pub(super) signs: [u8; CHUNK_BYTES],
    pub(super) offset: [f32; BLOCK],
    pub(super) gain: [f32; BLOCK],
}

impl Default for Head {
    fn default() -> Self {
        Self { signs: [0; CHUNK_BYTES], offset: [0.0; BLOCK], gain: [0.0; BLOCK] }
    }
}

/// For each block, the greatest of some numbers of its rows: so it is known what the block's signs can come to at most
/// without a look at each row.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Reach {
    pub(super) offset: Vec<f32>,
    pub(super) gain: Vec<f32>,
    pub(super) radius: Vec<f32>,
    /// Of the spread of an estimate's error over its gain, squared.
    pub(super) slant: Vec<f32>,
}

impl Reach {
    fn resize(&mut self, blocks: usize) {
        for numbers in [&mut self.offset, &mut self.gain, &mut self.radius, &mut self.slant] {
            numbers.resize(blocks, 0.0);
        }
    }

    fn set(&mut self, block: usize, head: &Head, factors: &[Factors], padded: usize) {
        let most = |numbers: &[f32; BLOCK]| numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.offset[block] = most(&head.offset);
        self.gain[block] = most(&head.gain);
        self.radius[block] = factors.iter().map(|factors| factors.radius).fold(0.0, f32::max);
        let along = |(gain, Factors { radius, .. }): (&f32, &Factors)| radius / gain;
        let slant = head.gain.iter().zip(factors).map(along).map(|along| CHUNK as f32 - along * along);
        self.slant[block] = slant.fold(0.0, f32::max) / (padded - 1) as f32;
    }
}

/// The codes of many rows, whole blocks of them. What a block has beyond the last row is never looked at.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Codes {
    pub(super) heads: Vec<Head>,
    /// What follows from each head.
    pub(super) reach: Reach,
    /// Signs of the other chunks, block by block.
    pub(super) tail: Vec<u8>,
    /// Of each row: what a sum over all signs is multiplied with, and the spread of its error.
    pub(super) gain: Vec<f32>,
    pub(super) error: Vec<f32>,
    /// Levels, row by row: of 64 coordinates, the first 32 in the low half of a byte.
    pub(super) levels: Vec<u8>,
    /// Where between two levels a coordinate lies, in sixteenths, in the same layout.
    pub(super) fine: Vec<u8>,
    pub(super) factors: Vec<Factors>,
}

impl Codes {
    /// Makes room for `blocks` blocks.
    pub(super) fn resize(&mut self, blocks: usize, shape: Shape) {
        self.heads.resize(blocks, Head::default());
        self.reach.resize(blocks);
        self.tail.resize(blocks * shape.tail(), 0);
        for numbers in [&mut self.gain, &mut self.error] {
            numbers.resize(blocks * BLOCK, 0.0);
        }
        self.levels.resize(blocks * BLOCK * shape.levels(), 0);
        self.fine.resize(blocks * BLOCK * shape.levels(), 0);
        self.factors.resize(blocks * BLOCK, Factors::default());
    }

    /// Follows changes of the heads of these blocks.
    pub(super) fn reach_anew(&mut self, blocks: Range<usize>, shape: Shape) {
        self.reach.resize(self.heads.len());
        for block in blocks {
            self.reach.set(block, &self.heads[block], &self.factors[block * BLOCK..][..BLOCK], shape.padded);
        }
    }

    /// All of it but what follows from the heads, to write to.
    pub(super) fn all(&mut self) -> Part<'_> {
        Part {
            heads: &mut self.heads,
            tail: &mut self.tail,
            gain: &mut self.gain,
            error: &mut self.error,
            levels: &mut self.levels,
            fine: &mut self.fine,
            factors: &mut self.factors,
        }
    }
}

/// Some blocks of [`Codes`], to write to.
#[derive(Default)]
pub(super) struct Part<'a> {
    heads: &'a mut [Head],
    tail: &'a mut [u8],
    gain: &'a mut [f32],
    error: &'a mut [f32],
    levels: &'a mut [u8],
    fine: &'a mut [u8],
    factors: &'a mut [Factors],
}

impl<'a> Part<'a> {
    /// The first `blocks` blocks, and the others.
    pub(super) fn split(self, blocks: usize, shape: Shape) -> (Part<'a>, Part<'a>) {
        let (heads, heads_rest) = self.heads.split_at_mut(blocks);
        let (tail, tail_rest) = self.tail.split_at_mut(blocks * shape.tail());
        let (gain, gain_rest) = self.gain.split_at_mut(blocks * BLOCK);
        let (error, error_rest) = self.error.split_at_mut(blocks * BLOCK);
        let (levels, levels_rest) = self.levels.split_at_mut(blocks * BLOCK * shape.levels());
        let (fine, fine_rest) = self.fine.split_at_mut(blocks * BLOCK * shape.levels());
        let (factors, factors_rest) = self.factors.split_at_mut(blocks * BLOCK);
        let rest = Part {
            heads: heads_rest,
            tail: tail_rest,
            gain: gain_rest,
            error: error_rest,
            levels: levels_rest,
            fine: fine_rest,
            factors: factors_rest,
        };
        (Part { heads, tail, gain, error, levels, fine, factors }, rest)
    }

    /// Where group `group` of all signs of `row` lies: its byte, and how far its four bits are shifted.
    fn signs(&mut self, row: usize, group: usize, shape: Shape) -> (&mut u8, usize) {
        let (block, lane) = (row / BLOCK, row % BLOCK);
        let within = lane % (BLOCK / 2);
        let byte = match group.checked_sub(GROUPS) {
            None => &mut self.heads[block].signs[group * (BLOCK / 2) + within],
            Some(group) => &mut self.tail[block * shape.tail() + group * (BLOCK / 2) + within],
        };
        (byte, lane / (BLOCK / 2) * 4)
    }

    /// Copies the code of one row over that of another.
    pub(super) fn copy(&mut self, from: usize, to: usize, shape: Shape) {
        for group in 0..shape.chunks * GROUPS {
            let (byte, shift) = self.signs(from, group, shape);
            let signs = *byte >> shift & 15;
            let (byte, shift) = self.signs(to, group, shape);
            *byte = *byte & !(15 << shift) | signs << shift;
        }
        let head = self.heads[from / BLOCK];
        let to_head = &mut self.heads[to / BLOCK];
        to_head.offset[to % BLOCK] = head.offset[from % BLOCK];
        to_head.gain[to % BLOCK] = head.gain[from % BLOCK];
        self.gain[to] = self.gain[from];
        self.error[to] = self.error[from];
        let levels = shape.levels();
        for bytes in [&mut *self.levels, self.fine] {
            bytes.copy_within(from * levels..(from + 1) * levels, to * levels);
        }
        self.factors[to] = self.factors[from];
    }
}

/// Makes codes of rows.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    pub(super) shape: Shape,
    /// Whether values are those of a squared distance rather than of an inner product.
    pub(super) is_euclidean: bool,
    /// What is taken off each row before it becomes a length and a direction.
    pub(super) centre: Vec<f32>,
    pub(super) rotation: Rotation,
    pub(super) instructions: Instructions,
}

impl Encoder {
    /// Encodes rows into the blocks of `part`, from its row `first` on.
    pub(super) fn encode(&self, rows: &[f32], part: &mut Part<'_>, first: usize) {
        self.instructions.run(Encode { encoder: self, rows, part, first });
    }

    #[inline(always)]
    fn encode_row(&self, vector: &[f32], direction: &mut [f32], part: &mut Part<'_>, row: usize) {
        let shape = self.shape;
        let radius = self.direction(vector, direction);
        let value_at_centre = if self.is_euclidean {
            -radius * radius
        } else {
            self.centre.iter().zip(vector).map(|(c, x)| c * (x - c)).sum()
        };
        let of_signs = |coordinates: &[f32]| {
            let along = coordinates.iter().map(|x| x.abs()).sum::<f32>();
            Factors::new(value_at_centre, radius, along, coordinates.len() as f32, shape.padded)
        };
        let (head, all) = (of_signs(&direction[..CHUNK]), of_signs(&direction[..shape.chunks * CHUNK]));
        for (group, coordinates) in direction[..shape.chunks * CHUNK].chunks_exact(GROUP).enumerate() {
            let mut signs = 0;
            for (bit, x) in coordinates.iter().enumerate() {
                signs |= u8::from(*x >= 0.0) << bit;
            }
            let (byte, shift) = part.signs(row, group, shape);
            *byte = *byte & !(15 << shift) | signs << shift;
        }
        let levels = &mut part.levels[row * shape.levels()..][..shape.levels()];
        let [coarse, fine] = round_to_levels(direction, levels, &mut part.fine[row * shape.levels()..]);
        let coarse = Factors::new(value_at_centre, radius, coarse.0, coarse.1, shape.padded);
        let fine = Factors::new(value_at_centre, radius, fine.0, fine.1, shape.padded);
        let levels = Factors { fine_gain: fine.gain, fine_error: fine.error, ..coarse };
        // Where a number is too large for its square, the row is always a candidate.
        let is_sound = [head, all, coarse, fine].iter().all(|f| f.gain.is_finite() && f.offset.is_finite());
        let [head, all, levels] =
            if is_sound { [head, all, levels] } else { [Factors { offset: f32::INFINITY, ..Factors::default() }; 3] };
        part.heads[row / BLOCK].offset[row % BLOCK] = levels.offset;
        part.heads[row / BLOCK].gain[row % BLOCK] = head.gain;
        part.gain[row] = all.gain;
        part.error[row] = all.error;
        part.factors[row] = levels;
    }

    /// Writes the rotated direction in which a vector lies from the centre, and returns its distance.
    #[inline(always)]
    pub(super) fn direction(&self, vector: &[f32], direction: &mut [f32]) -> f32 {
        let (inside, padding) = direction.split_at_mut(vector.len());
        padding.fill(0.0);
        for ((to, x), c) in inside.iter_mut().zip(vector).zip(&self.centre) {
            *to = x - c;
        }
        let radius = sum::<false>(inside, inside).sqrt();
        if radius < MIN_RADIUS {
            direction.fill(0.0);
            return 0.0;
        }
        for x in inside {
            *x /= radius;
        }
        self.rotation.apply(direction);
        radius
    }
}

/// The arguments of [`Encoder::encode`].
struct Encode<'a, 'b> {
    encoder: &'a Encoder,
    rows: &'a [f32],
    part: &'a mut Part<'b>,
    first: usize,
}

impl Task for Encode<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: impl Kernel) {
        let shape = self.encoder.shape;
        let mut direction = vec![0.0; shape.padded];
        for (row, vector) in self.rows.chunks_exact(shape.dimensions).enumerate() {
            self.encoder.encode_row(vector, &mut direction, self.part, self.first + row);
        }
    }
}

impl Factors {
    /// The numbers of a code: `along` is its inner product with the direction, `square` that with itself.
    #[inline(always)]
    fn new(offset: f32, radius: f32, along: f32, square: f32, padded: usize) -> Self {
        if radius == 0.0 {
            return Self { offset, ..Self::default() };
        }
        let gain = radius / along;
        let slant = (square / (along * along) - 1.0).max(0.0) / (padded - 1) as f32;
        Self { offset, radius, gain, error: radius * slant.sqrt(), ..Self::default() }
    }
}

/// Rounds each coordinate to one of 256 fine levels, 16 to a level, and returns the inner products of levels with the
/// coordinates and with themselves: first for levels alone, in steps from −7.5 to 7.5, then for fine ones.
#[inline(always)]
fn round_to_levels(direction: &[f32], levels: &mut [u8], fine: &mut [u8]) -> [(f32, f32); 2] {
    const LANES: usize = 32;
    let per_part = PARTS * (direction.len() as f32).sqrt() / STEP;
    let (mut along, mut square) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (mut fine_along, mut fine_square) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let mut code = |x: f32, lane: usize| {
        let code = (x * per_part + 128.0).clamp(0.0, 255.0) as i32;
        let level = (code >> 4) as f32 - MIDDLE;
        along[lane] += level * x;
        square[lane] += level * level;
        let level = code as f32 / PARTS - FINE_MIDDLE;
        fine_along[lane] += level * x;
        fine_square[lane] += level * level;
        code as u8
    };
    let bytes = levels.chunks_exact_mut(LANES).zip(fine.chunks_exact_mut(LANES));
    for (coordinates, (levels, fine)) in direction.chunks_exact(2 * LANES).zip(bytes) {
        let (low, high) = coordinates.split_at(LANES);
        for lane in 0..LANES {
            let (low, high) = (code(low[lane], lane), code(high[lane], lane));
            levels[lane] = low >> 4 | high & 0xf0;
            fine[lane] = low & 0xf | high << 4;
        }
    }
    let sum = |lanes: [f32; LANES]| lanes.iter().sum();
    [(sum(along), sum(square)), (sum(fine_along), sum(fine_square))]
}
