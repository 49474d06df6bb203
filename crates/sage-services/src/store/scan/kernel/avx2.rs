//! The inner loops with AVX2 and FMA.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::BLOCK;
use super::super::codes::CHUNK_BYTES;
use super::{Kernel, Line, Rows, Sums, Table, Task, sum};

/// Proof that the processor has AVX2 and FMA: only [`Avx2::detect`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { run(self, task) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn run<T: Task>(kernel: Avx2, task: T) -> T::Output {
    task.run(kernel)
}

impl Kernel for Avx2 {
    #[inline(always)]
    fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        // SAFETY: as above.
        unsafe { sum_wide::<false>(a, b) }
    }

    #[inline(always)]
    fn squared_distance(self, a: &[f32], b: &[f32]) -> f32 {
        // SAFETY: as above.
        unsafe { sum_wide::<true>(a, b) }
    }

    #[inline(always)]
    fn look_up(self, signs: &[u8], tables: &[Table], sums: &mut Sums) {
        // SAFETY: as above.
        unsafe { look_up(signs, tables, sums) }
    }

    #[inline(always)]
    fn look_up_head(self, signs: &[u8; CHUNK_BYTES], table: &Table, bits: u32, sums: &mut Sums) -> u16 {
        // SAFETY: as above.
        unsafe { look_up_head(signs, table, bits, sums) }
    }

    #[inline(always)]
    fn compare(self, sums: &Sums, rows: Rows<'_>, line: Line, floor: f32) -> u32 {
        // SAFETY: as above.
        unsafe { compare(sums, rows, line, floor) }
    }

    #[inline(always)]
    fn dot_levels(self, levels: &[u8], query: &[i8]) -> i32 {
        // SAFETY: as above.
        unsafe { dot_levels(levels, query) }
    }

    #[inline(always)]
    fn prefetch<T>(self, numbers: &[T]) {
        const LINE: usize = 64;
        for at in (0..size_of_val(numbers)).step_by(LINE) {
            // SAFETY: the address lies within the slice, and a prefetch reads nothing that the program sees.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(numbers.as_ptr().cast::<i8>().add(at)) };
        }
    }
}

/// As [`sum`], in four registers of eight lanes, so that one addition need not wait for the one before.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn sum_wide<const SQUARES: bool>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let add = |sum: __m256, a: &[f32], b: &[f32]| {
        debug_assert!(a.len() >= LANES && b.len() >= LANES);
        // SAFETY: each slice is a chunk of at least eight numbers, and the loads need no alignment.
        let (x, y) = unsafe { (_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())) };
        if SQUARES {
            let difference = _mm256_sub_ps(x, y);
            _mm256_fmadd_ps(difference, difference, sum)
        } else {
            _mm256_fmadd_ps(x, y, sum)
        }
    };
    let mut sums = [_mm256_setzero_ps(); 4];
    let (wide_a, wide_b) = (a.chunks_exact(4 * LANES), b.chunks_exact(4 * LANES));
    let (narrow_a, narrow_b) = (wide_a.remainder().chunks_exact(LANES), wide_b.remainder().chunks_exact(LANES));
    let (rest_a, rest_b) = (narrow_a.remainder(), narrow_b.remainder());
    for (a, b) in wide_a.zip(wide_b) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum = add(*sum, &a[lane * LANES..], &b[lane * LANES..]);
        }
    }
    for (a, b) in narrow_a.zip(narrow_b) {
        sums[0] = add(sums[0], a, b);
    }
    let both = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let mut lanes = [0.0_f32; LANES];
    // SAFETY: the array has room for eight numbers.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), both) };
    lanes.iter().sum::<f32>() + sum::<SQUARES>(rest_a, rest_b)
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn look_up(signs: &[u8], tables: &[Table], sums: &mut Sums) {
    for (signs, table) in signs.as_chunks::<CHUNK_BYTES>().0.iter().zip(tables) {
        let [low, high] = look_up_chunk(signs, table);
        for (half, more) in [low, high].into_iter().enumerate() {
            let to = sums.0[half * (BLOCK / 2)..].as_mut_ptr().cast();
            // SAFETY: 16 sums of 16 bits lie at `to`, and neither access needs alignment.
            unsafe { _mm256_storeu_si256(to, _mm256_add_epi16(_mm256_loadu_si256(to), more)) };
        }
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn look_up_head(signs: &[u8; CHUNK_BYTES], table: &Table, bits: u32, sums: &mut Sums) -> u16 {
    let [mut low, mut high] = look_up_chunk(signs, table);
    for (half, own) in [low, high].into_iter().enumerate() {
        // SAFETY: there is room for 16 sums of 16 bits, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(sums.0[half * (BLOCK / 2)..].as_mut_ptr().cast(), own) };
    }
    if bits != u32::MAX {
        low = _mm256_and_si256(low, spread(bits as u16));
        high = _mm256_and_si256(high, spread((bits >> (BLOCK / 2)) as u16));
    }
    let half = _mm256_max_epu16(low, high);
    let quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    // There is an instruction for the least of eight numbers, and none for the greatest.
    let least = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi16(-1)));
    !(_mm_cvtsi128_si32(least) as u16)
}

/// All ones in the lanes that have a bit.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn spread(bits: u16) -> __m256i {
    let lanes = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, i16::MIN);
    _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(bits as i16), lanes), lanes)
}

/// What a table says of the signs of 16 rows, and of the other 16. Two groups at a time: each half of a register holds
/// one group of 16 rows, and its table.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn look_up_chunk(signs: &[u8; CHUNK_BYTES], table: &Table) -> [__m256i; 2] {
    let low_half = _mm256_set1_epi8(15);
    let (mut first, mut second) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for (bytes, entries) in signs.chunks_exact(BLOCK).zip(table.0.chunks_exact(32)) {
        // SAFETY: both are chunks of 32 bytes, and the loads need no alignment.
        let (bytes, entries) =
            unsafe { (_mm256_loadu_si256(bytes.as_ptr().cast()), _mm256_loadu_si256(entries.as_ptr().cast())) };
        let low = _mm256_and_si256(bytes, low_half);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_half);
        // 16 entries of at most 15 add up to less than 256.
        first = _mm256_add_epi8(first, _mm256_shuffle_epi8(entries, low));
        second = _mm256_add_epi8(second, _mm256_shuffle_epi8(entries, high));
        // Otherwise the compiler does all of `first` and then all of `second`, and keeps what it loaded on the stack
        // meanwhile, which takes half as long again.
        // SAFETY: there is no instruction.
        unsafe {
            asm!("/* {} {} */", inout(ymm_reg) first, inout(ymm_reg) second,
                options(pure, nomem, nostack, preserves_flags));
        }
    }
    [first, second].map(|bytes| {
        let even = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes));
        let odd = _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(bytes));
        _mm256_add_epi16(even, odd)
    })
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn compare(sums: &Sums, rows: Rows<'_>, line: Line, floor: f32) -> u32 {
    const LANES: usize = 8;
    let (factor, base) = (_mm256_set1_ps(line.factor), _mm256_set1_ps(line.base));
    let (margin, floor) = (_mm256_set1_ps(line.margin), _mm256_set1_ps(floor));
    let mut bits = 0;
    for at in (0..BLOCK).step_by(LANES) {
        let load = |numbers: &[f32; BLOCK]| {
            // SAFETY: `at` is 0, 8, 16 or 24 here, so that eight numbers lie there; the load needs no alignment.
            unsafe { _mm256_loadu_ps(numbers.as_ptr().add(at)) }
        };
        // SAFETY: eight sums of 16 bits lie there, for the same reason.
        let sums = unsafe { _mm_loadu_si128(sums.0.as_ptr().add(at).cast()) };
        let sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums));
        let scaled = _mm256_fmadd_ps(sum, factor, base);
        let mut value = _mm256_fmadd_ps(load(rows.gain), scaled, load(rows.offset));
        if let Some(error) = rows.error {
            value = _mm256_fmadd_ps(load(error), margin, value);
        }
        let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(value, floor));
        bits |= (mask as u32) << at;
    }
    bits
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn dot_levels(levels: &[u8], query: &[i8]) -> i32 {
    /// Products of two levels with the query's are at most 3,810, and eight of them fit 16 bits.
    const FITTING: usize = 8;
    let (low_half, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sum = _mm256_setzero_si256();
    for (levels, query) in levels.chunks(32 * FITTING).zip(query.chunks(64 * FITTING)) {
        let (mut first, mut second) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (bytes, query) in levels.chunks_exact(32).zip(query.chunks_exact(64)) {
            let (low, high) = query.split_at(32);
            // SAFETY: all three are chunks of 32 bytes, and the loads need no alignment.
            let (bytes, low, high) = unsafe {
                (
                    _mm256_loadu_si256(bytes.as_ptr().cast()),
                    _mm256_loadu_si256(low.as_ptr().cast()),
                    _mm256_loadu_si256(high.as_ptr().cast()),
                )
            };
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_half);
            first = _mm256_add_epi16(first, _mm256_maddubs_epi16(_mm256_and_si256(bytes, low_half), low));
            second = _mm256_add_epi16(second, _mm256_maddubs_epi16(upper, high));
        }
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(first, ones), _mm256_madd_epi16(second, ones)));
    }
    let half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b_01_00_11_10>(half));
    _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32::<0b_10_11_00_01>(quarter)))
}
