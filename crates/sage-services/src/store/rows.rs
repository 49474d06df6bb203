//! [`Rows`]: a set of rows, a bit for each.
//!
//! Invariant: bits behind the last row are 0.

use std::ops::{BitAnd, BitOr, Not};

/// A set of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    words: Vec<u64>,
    rows: usize,
}

impl Rows {
    pub(crate) fn none(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(64)], rows }
    }

    pub(crate) fn all(rows: usize) -> Self {
        !Self::none(rows)
    }

    pub(crate) fn from_fn(rows: usize, mut is_in: impl FnMut(usize) -> bool) -> Self {
        let word = |begin: usize| {
            (begin..rows.min(begin + 64)).enumerate().fold(0, |word, (bit, row)| word | u64::from(is_in(row)) << bit)
        };
        Self { words: (0..rows).step_by(64).map(word).collect(), rows }
    }

    pub(crate) fn insert(&mut self, row: u32) {
        self.words[row as usize / 64] |= 1 << (row % 64);
    }

    pub(crate) fn contains(&self, row: u32) -> bool {
        self.words[row as usize / 64] & 1 << (row % 64) != 0
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The bits, 64 to a word, that of row 0 lowest.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Rows in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).step_by(64).zip(&self.words).flat_map(|(begin, &word)| {
            let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
            rest.take_while(|word| *word != 0).map(move |word| begin + word.trailing_zeros())
        })
    }
}

impl BitAnd for Rows {
    type Output = Self;

    fn bitand(mut self, other: Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
        self
    }
}

impl BitOr for Rows {
    type Output = Self;

    fn bitor(mut self, other: Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self
    }
}

impl Not for Rows {
    type Output = Self;

    fn not(mut self) -> Self {
        self.words.iter_mut().for_each(|word| *word = !*word);
        if let (Some(last), 1..) = (self.words.last_mut(), self.rows % 64) {
            *last &= (1 << (self.rows % 64)) - 1;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_of_rows_are_as_lists_of_truths(rows in prop::collection::vec((any::<bool>(), any::<bool>()), 0..200)) {
            let set = |of: fn(&(bool, bool)) -> bool| Rows::from_fn(rows.len(), |row| of(&rows[row]));
            let list = |of: fn(&(bool, bool)) -> bool| -> Vec<u32> {
                (0..).zip(&rows).filter(|(_, row)| of(row)).map(|(row, _)| row).collect()
            };
            let (a, b) = (set(|row| row.0), set(|row| row.1));
            let listed = |set: Rows| {
                assert_eq!(set.count(), set.iter().count());
                assert!(set.iter().all(|row| set.contains(row)));
                set.iter().collect::<Vec<_>>()
            };
            prop_assert_eq!(listed(a.clone() & b.clone()), list(|row| row.0 && row.1));
            prop_assert_eq!(listed(a.clone() | b), list(|row| row.0 || row.1));
            prop_assert_eq!(listed(!a), list(|row| !row.0));
        }
    }
}
