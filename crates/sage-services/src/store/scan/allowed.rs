//! Which rows a search may find.

use super::BLOCK;

/// A bit for each row, or none where all are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed<'a> {
    bits: Option<&'a [u64]>,
    rows: usize,
}

const WORD: usize = u64::BITS as usize;
const BLOCKS_PER_WORD: usize = WORD / BLOCK;

impl<'a> Allowed<'a> {
    pub(super) fn new(bits: Option<&'a [u64]>, rows: usize) -> Self {
        assert!(u32::try_from(rows).is_ok(), "positions of rows are 32 bits wide");
        Self { bits, rows }
    }

    /// The 64 bits of the rows from `64 × word` on; those of rows that do not exist are 0.
    #[inline(always)]
    fn word(self, word: usize) -> u64 {
        let left = self.rows.saturating_sub(word * WORD);
        let exist = if left >= WORD { u64::MAX } else { (1 << left) - 1 };
        exist & self.bits.map_or(u64::MAX, |bits| bits.get(word).copied().unwrap_or(0))
    }

    /// The bits of the rows of one block.
    #[inline(always)]
    pub(super) fn block(self, block: usize) -> u32 {
        let left = self.rows.saturating_sub(block * BLOCK);
        let exist = if left >= BLOCK { u32::MAX } else { (1 << left) - 1 };
        let word = |bits: &[u64]| bits.get(block / BLOCKS_PER_WORD).copied().unwrap_or(0);
        exist & self.bits.map_or(u32::MAX, |bits| (word(bits) >> (block % BLOCKS_PER_WORD * BLOCK)) as u32)
    }

    /// Number of rows that are allowed.
    pub(super) fn count(self) -> usize {
        match self.bits {
            None => self.rows,
            Some(_) => (0..self.rows.div_ceil(WORD)).map(|word| self.word(word).count_ones() as usize).sum(),
        }
    }

    /// Calls `act` with every row that is allowed, in their order.
    #[inline(always)]
    pub(super) fn for_each(self, mut act: impl FnMut(u32)) {
        for word in 0..self.rows.div_ceil(WORD) {
            let mut bits = self.word(word);
            while bits != 0 {
                act((word * WORD) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }
}
