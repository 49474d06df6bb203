//! A rotation that spreads the length of any vector over all coordinates: random signs and Walsh–Hadamard transforms,
//! which take `d log d` steps where a matrix takes `d²`.
//!
//! A transform takes a power of two of coordinates. Where there are others, one takes the first ones and another the
//! last ones; they overlap, and three rounds mix all.

/// The rotation of vectors with `padded` coordinates. Equal on every machine.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    padded: usize,
    /// Coordinates of one transform.
    transformed: usize,
    /// For each transform and coordinate, 1 or −1, times the scale that keeps lengths.
    signs: Vec<f32>,
}

const ROUNDS: usize = 3;

impl Rotation {
    pub(super) fn new(padded: usize) -> Self {
        let transformed = 1 << padded.ilog2();
        let transforms = if transformed == padded { ROUNDS } else { 2 * ROUNDS };
        let scale = 1.0 / (transformed as f32).sqrt();
        let mut state = 0;
        let signs = (0..transforms * transformed)
            .map(|_| if next_random(&mut state) >> 63 == 0 { scale } else { -scale })
            .collect();
        Self { padded, transformed, signs }
    }

    /// Rotates a vector of `padded` coordinates in place.
    #[inline(always)]
    pub(super) fn apply(&self, vector: &mut [f32]) {
        let last = self.padded - self.transformed;
        for (transform, signs) in self.signs.chunks_exact(self.transformed).enumerate() {
            let from = if transform % 2 == 0 { 0 } else { last };
            let part = &mut vector[from..][..self.transformed];
            for (x, sign) in part.iter_mut().zip(signs) {
                *x *= sign;
            }
            hadamard(part);
        }
    }
}

/// The unscaled Walsh–Hadamard transform of a power of two of numbers, at least eight.
#[inline(always)]
fn hadamard(numbers: &mut [f32]) {
    for eight in numbers.as_chunks_mut::<8>().0 {
        for half in [1, 2, 4] {
            let old = *eight;
            for (at, x) in eight.iter_mut().enumerate() {
                *x = if at & half == 0 { old[at] + old[at + half] } else { old[at - half] - old[at] };
            }
        }
    }
    let mut half = 8;
    while half < numbers.len() {
        for pair in numbers.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// SplitMix64: small, and the same numbers on every machine.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_stay_and_every_axis_is_spread() {
        for padded in [128, 384, 896, 1024] {
            let rotation = Rotation::new(padded);
            for axis in [0, padded / 2, padded - 1] {
                let mut vector = vec![0.0; padded];
                vector[axis] = 2.0;
                rotation.apply(&mut vector);
                let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                assert!((length - 2.0).abs() < 1e-4, "{padded} {axis}: {length}");
                let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                assert!(largest < 12.0 / (padded as f32).sqrt(), "{padded} {axis}: {largest}");
            }
        }
    }
}
