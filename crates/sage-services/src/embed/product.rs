//! [`product`] of matrices; and the functions of single numbers between the products, in forms that the compiler turns
//! into vector instructions of any processor.

use std::f32::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};

/// A matrix that lies in a slice: where it begins, and how far its rows and columns are apart.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Part<'a> {
    pub(crate) fn rows(values: &'a [f32], row_stride: usize) -> Self {
        Self { values, row_stride, column_stride: 1 }
    }

    /// The same with rows as columns.
    pub(crate) fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn assert_holds(&self, rows: usize, columns: usize) {
        let last = (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        assert!(last < self.values.len(), "a matrix of {rows} by {columns} ends outside of its slice");
    }
}

/// Adds `factor × left × right` to `onto`, after multiplying that by `keep`. `left` has `m` rows and `k` columns,
/// `right` has `k` rows and `n` columns, and rows of `onto` are `row_stride` apart.
pub(crate) fn product(
    [m, k, n]: [usize; 3],
    factor: f32,
    left: Part<'_>,
    right: Part<'_>,
    keep: f32,
    onto: &mut [f32],
    row_stride: usize,
) {
    if m == 0 || k == 0 || n == 0 {
        return;
    }
    left.assert_holds(m, k);
    right.assert_holds(k, n);
    Part::rows(onto, row_stride).assert_holds(m, n);
    assert!(n <= row_stride, "rows of a result overlap");
    let stride = |stride: usize| isize::try_from(stride).expect("a slice is no longer than isize::MAX");
    // SAFETY: the three matrices lie within their slices, as was just asserted; the rows of the result do not overlap,
    // and it is borrowed for writing, so nothing else reads it.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            factor,
            left.values.as_ptr(),
            stride(left.row_stride),
            stride(left.column_stride),
            right.values.as_ptr(),
            stride(right.row_stride),
            stride(right.column_stride),
            keep,
            onto.as_mut_ptr(),
            stride(row_stride),
            1,
        );
    }
}

/// e to the power of `x`, for `x` of 0 or less, to about 2e-7 of it. Below -87 it is as good as 0.
fn exp(x: f32) -> f32 {
    /// Added to a small number, it leaves no room for its fraction, and has the whole number in its last bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let rounded = x * LOG2_E + ROUND;
    let r = x - (rounded - ROUND) * LN_2;
    let series = 1.0 + r * (1.0 + r * (1.0 / 2.0 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0)))));
    series * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

/// The error function, to about 3e-7: formula 7.1.26 of Abramowitz and Stegun, "Handbook of Mathematical Functions".
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let series = t * (0.254_829_6 + t * (-0.284_496_72 + t * (1.421_413_8 + t * (-1.453_152_1 + t * 1.061_405_4))));
    (1.0 - series * exp(-x * x)).copysign(x)
}

/// The Gaussian error linear unit of each number.
pub(crate) fn gelu(values: &mut [f32]) {
    for x in values {
        *x = *x * 0.5 * (1.0 + erf(*x * FRAC_1_SQRT_2));
    }
}

/// Makes shares of numbers: by their exponentials, and 1 in all.
pub(crate) fn softmax(values: &mut [f32]) {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|x| *x = exp(*x - most));
    let sum = sum(values, |x| x);
    values.iter_mut().for_each(|x| *x /= sum);
}

/// Sums up numbers in eight sums, so that they are added eight at a time.
pub(crate) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(sum, x)| *sum += of(*x));
    }
    rest.iter().fold(sums.iter().sum(), |sum, x| sum + of(*x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its power series.
    fn exact_erf(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn functions_are_as_exact_as_their_numbers() {
        for step in -3_000_i32..=3_000 {
            let x = step as f32 / 1_000.0;
            assert!((f64::from(erf(x)) - exact_erf(f64::from(x))).abs() < 1e-6, "erf({x}) is {}", erf(x));
            let power = -(step.abs() as f32) / 40.0;
            let exact = f64::from(power).exp();
            assert!((f64::from(exp(power)) / exact - 1.0).abs() < 1e-5, "exp({power}) is {}", exp(power));
        }
        assert_eq!((erf(6.0), erf(-6.0), erf(1e20), exp(0.0)), (1.0, -1.0, 1.0, 1.0));
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn shares_sum_up_however_large_their_numbers_are() {
        for far in [0.0, 1e4, -1e30] {
            let mut values: Vec<f32> = (0..19).map(|n| far + n as f32).collect();
            softmax(&mut values);
            assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_product_of_parts_is_that_of_their_matrices() {
        let values: Vec<f32> = (0..40).map(|n| n as f32).collect();
        let mut onto = vec![1.0; 8];
        // Rows of four from the first column on, times the transposed of rows of four from the second column on.
        let [left, right] = [0, 1].map(|first| Part::rows(&values[first..], 4));
        product([2, 3, 2], 2.0, left, right.transposed(), 3.0, &mut onto, 4);
        assert_eq!(onto, [19.0, 43.0, 1.0, 1.0, 67.0, 187.0, 1.0, 1.0]);
    }
}
