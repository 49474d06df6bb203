//! [`Live`]: the latest versions of turns that are not deleted, as rows that are searched.
//!
//! Invariant: all lists, `postings` and `vectors` correspond by position.

use std::sync::OnceLock;

use super::entry::Says;
use crate::store::Metric;
use crate::store::postings::Postings;
use crate::store::rows::Rows;
use crate::store::vectors::Vectors;

#[derive(Debug)]
pub(super) struct Live {
    pub(super) slots: Vec<u32>,
    leaves: Vec<u32>,
    pub(super) places: Vec<u64>,
    /// `i64::MAX` for those that do not expire.
    expires: Vec<i64>,
    /// Made by the first recall by words, and kept up from then on.
    postings: OnceLock<Postings>,
    vectors: Option<Vectors>,
    dimensions: usize,
}

impl Live {
    pub(super) fn new(dimensions: usize) -> Self {
        Self {
            slots: Vec::new(),
            leaves: Vec::new(),
            places: Vec::new(),
            expires: Vec::new(),
            postings: OnceLock::new(),
            vectors: (dimensions > 0).then(|| Vectors::new(dimensions, Metric::Cosine)),
            dimensions,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The vector of a version: zeros for one without; `None` for one of another length.
    pub(super) fn vector_of(&self, says: &Says<'_>) -> Option<Vec<f32>> {
        let vector = says.vector.as_ref().map_or_else(|| Some(vec![0.0; self.dimensions]), |vector| vector.vector())?;
        (vector.len() == self.dimensions).then_some(vector)
    }

    /// Adds a row, and says which.
    pub(super) fn push(
        &mut self,
        slot: u32,
        leaf: u32,
        place: u64,
        expires: Option<i64>,
        searched: &str,
        vector: Vec<f32>,
    ) -> u32 {
        let row = u32::try_from(self.slots.len()).expect("the most turns fit 32 bits");
        self.slots.push(slot);
        self.leaves.push(leaf);
        self.places.push(place);
        self.expires.push(expires.unwrap_or(i64::MAX));
        if let Some(vectors) = &mut self.vectors {
            vectors.push(vector);
        }
        if let Some(postings) = self.postings.get_mut() {
            postings.set(row, searched);
        }
        row
    }

    pub(super) fn overwrite(&mut self, row: u32, searched: &str, vector: Vec<f32>) {
        if let Some(vectors) = &mut self.vectors {
            vectors.overwrite(row as usize, vector);
        }
        if let Some(postings) = self.postings.get_mut() {
            postings.set(row, searched);
        }
    }

    /// Moves the last row to this place, whose own goes, and says which slot's it is; `None` if there is none.
    pub(super) fn swap_remove(&mut self, row: u32) -> Option<u32> {
        let at = row as usize;
        self.slots.swap_remove(at);
        self.leaves.swap_remove(at);
        self.places.swap_remove(at);
        self.expires.swap_remove(at);
        if let Some(vectors) = &mut self.vectors {
            vectors.swap_remove(at);
        }
        if let Some(postings) = self.postings.get_mut() {
            postings.swap_remove(row);
        }
        self.slots.get(at).copied()
    }

    /// Takes the words of rows that are gone out of the lists.
    pub(super) fn tidy(&mut self) {
        if let Some(postings) = self.postings.get_mut() {
            postings.tidy();
        }
    }

    pub(super) fn vector(&self, row: u32) -> Option<Vec<f32>> {
        Some(self.vectors.as_ref()?.get(row as usize))
    }

    pub(super) fn vectors(&self) -> Option<&Vectors> {
        self.vectors.as_ref()
    }

    /// The lists of words, made of what rows are searched for if there are none.
    pub(super) fn postings(&self, searched: impl Fn(u32) -> String) -> &Postings {
        self.postings.get_or_init(|| Postings::of(self.slots.iter().map(|slot| searched(*slot))))
    }

    /// The rows of these leaves that have not expired: looks at all rows, one after the other.
    pub(super) fn rows_in(&self, leaves: &[u32], now: i64) -> Rows {
        let most = leaves.iter().max().map_or(0, |leaf| *leaf as usize + 1);
        let mut is_in = vec![false; most];
        leaves.iter().for_each(|leaf| is_in[*leaf as usize] = true);
        Rows::from_fn(self.len(), |row| {
            is_in.get(self.leaves[row] as usize).copied().unwrap_or(false) && self.expires[row] > now
        })
    }
}
