//! Scores of two vectors, exactly.
//!
//! One pair of vectors has one score on one machine. Machines with other instructions add in another order, so that
//! the last bits may differ between them.

use super::Metric;
use super::kernel::Kernel;

/// The score of `row` for a query of the same length. Higher is better, never NaN: a sum that overflows both ways
/// counts as the worst.
#[inline(always)]
pub(super) fn score(kernel: impl Kernel, metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    let score = match metric {
        // Rounding may leave the range of a cosine, and must not order what is equally close.
        Metric::Cosine => kernel.dot(query, row).clamp(-1.0, 1.0),
        Metric::InnerProduct => kernel.dot(query, row),
        Metric::Euclidean => -kernel.squared_distance(query, row).sqrt(),
    };
    // The sum makes 0 of −0, which would order as less.
    score.max(f32::NEG_INFINITY) + 0.0
}

#[cfg(test)]
mod tests {
    use super::super::kernel::{Instructions, Portable, Task};
    use super::*;

    struct Sums(u16);

    impl Task for Sums {
        type Output = (f32, f32);

        fn run(self, kernel: impl Kernel) -> (f32, f32) {
            let (ones, threes) = (vec![1.0; self.0.into()], vec![3.0; self.0.into()]);
            (kernel.dot(&ones, &threes), kernel.squared_distance(&ones, &threes))
        }
    }

    #[test]
    fn every_length_is_summed_whole() {
        for instructions in [Instructions::Portable(Portable), Instructions::detect()] {
            for length in 0..140 {
                let expected = (3.0 * f32::from(length), 4.0 * f32::from(length));
                assert_eq!(instructions.run(Sums(length)), expected);
            }
        }
    }

    #[test]
    fn a_sum_that_overflows_both_ways_is_the_worst_score() {
        let (query, row) = ([f32::MAX, f32::MAX], [f32::MAX, -f32::MAX]);
        assert_eq!(score(Portable, Metric::InnerProduct, &query, &row), f32::NEG_INFINITY);
    }
}
