//! The memory of a join: records gathered as they come, and the tables of the right side.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;

use foldhash::fast::RandomState;

use super::LOOK_EVERY;
use crate::job::task::Fault;
use crate::operator::key::KeySelector;

/// Records that were put aside, in chunks: none is moved again while more come, and a chunk is freed as soon as it is
/// used up.
pub(super) struct Gathered<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
}

/// Records of a chunk.
const CHUNK_RECORDS: usize = 1 << 14;

impl<T> Gathered<T> {
    pub(super) fn new() -> Self {
        Self { full: Vec::new(), last: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.full.len() * CHUNK_RECORDS + self.last.len()
    }

    #[inline(always)]
    pub(super) fn push(&mut self, record: T) {
        if self.last.len() == CHUNK_RECORDS {
            self.next_chunk();
        }
        self.last.push(record);
    }

    #[cold]
    fn next_chunk(&mut self) {
        self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(CHUNK_RECORDS)));
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = T> {
        self.full.into_iter().chain(std::iter::once(self.last)).flatten()
    }
}

/// How keys are dealt to parts.
pub(super) struct Parting {
    parts: usize,
    /// Another than that of the tables, whose keys it would make alike.
    hash: RandomState,
}

/// What a part's table should take: it fits into a second-level cache.
const PART_BYTES: usize = 512 << 10;
/// More parts than this would cost more to deal to than they save.
const MOST_PARTS: usize = 1024;

impl Parting {
    /// As many parts as tables for so many rows should have.
    pub(super) fn for_rows(rows: usize, row_bytes: usize) -> Self {
        let parts = (rows.saturating_mul(2 * row_bytes) / PART_BYTES).clamp(1, MOST_PARTS);
        Self { parts, hash: RandomState::default() }
    }

    /// The part of a record.
    #[inline(always)]
    pub(super) fn part<T, S: KeySelector<T>>(&self, key: &mut S, record: &T) -> usize {
        if self.parts == 1 {
            return 0;
        }
        let hash = self.hash.hash_one(S::lookup(&key.select(record)));
        ((u128::from(hash) * self.parts as u128) >> 64) as usize
    }

    /// Deals records to the parts.
    pub(super) fn deal<T, S: KeySelector<T>>(
        &self,
        records: Gathered<T>,
        key: &mut S,
        mut look: impl FnMut() -> Result<(), Fault>,
    ) -> Result<Vec<Gathered<T>>, Fault> {
        if self.parts == 1 {
            return Ok(vec![records]);
        }
        let mut parts: Vec<Gathered<T>> = (0..self.parts).map(|_| Gathered::new()).collect();
        for (index, record) in records.into_iter().enumerate() {
            if index.is_multiple_of(LOOK_EVERY) {
                look()?;
            }
            parts[self.part(key, &record)].push(record);
        }
        Ok(parts)
    }
}

/// Right records by key.
pub(super) struct Table<K, B> {
    groups: HashMap<K, Rows<B>, RandomState>,
    /// The second and later rows of keys that have several. Apart, so that a key with one row, the common case, is
    /// found with all that belongs to it in one place.
    others: Vec<Vec<B>>,
}

/// The rows of one key.
struct Rows<B> {
    first: B,
    /// Where in [`Table::others`] the others are, from 1.
    others: Option<NonZeroU32>,
    /// Whether a left record had this key.
    met: bool,
}

/// The rows that a left record meets.
pub(super) struct Matches<'t, B> {
    pub(super) first: &'t B,
    pub(super) others: &'t [B],
}

impl<K: Hash + Eq, B> Table<K, B> {
    /// Hashes the rows.
    pub(super) fn build<R: KeySelector<B, Key = K>>(
        rows: Gathered<B>,
        key: &mut R,
        mut look: impl FnMut() -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut table = Self { groups: HashMap::default(), others: Vec::new() };
        let (all, sample) = (rows.len(), rows.len() / 16);
        for (index, row) in rows.into_iter().enumerate() {
            if index.is_multiple_of(LOOK_EVERY) {
                look()?;
            }
            // Room for all of them at once, where keys turn out to have a row or two each. Few keys need little room.
            if index == sample && table.groups.len() >= sample / 2 {
                table.groups.reserve(all - index);
            }
            table.insert(row, key);
        }
        Ok(table)
    }

    #[inline(always)]
    fn insert<R: KeySelector<B, Key = K>>(&mut self, row: B, key: &mut R) {
        let selected = key.select(&row);
        if let Some(rows) = R::find(&mut self.groups, &selected) {
            drop(selected);
            return rows.add(row, &mut self.others);
        }
        let key = R::into_key(selected);
        self.groups.insert(key, Rows { first: row, others: None, met: false });
    }

    /// The rows of a left record's key, marked as met if `mark` says so.
    #[inline(always)]
    pub(super) fn find<S: KeySelector<A, Key = K>, A>(
        &mut self,
        key: &S::Selected<'_>,
        mark: bool,
    ) -> Option<Matches<'_, B>> {
        let rows = S::find(&mut self.groups, key)?;
        if mark {
            rows.met = true;
        }
        Some(Matches { first: &rows.first, others: rows.others.map_or(&[], |others| &self.others[place(others)]) })
    }

    /// Hands out the rows that no left record has met.
    pub(super) fn into_alone(self, mut take: impl FnMut(K, B) -> Result<(), Fault>) -> Result<(), Fault>
    where
        K: Clone,
    {
        let Self { groups, mut others } = self;
        for (key, rows) in groups.into_iter().filter(|(_, rows)| !rows.met) {
            for row in rows.others.map_or_else(Vec::new, |rows| std::mem::take(&mut others[place(rows)])) {
                take(key.clone(), row)?;
            }
            take(key, rows.first)?;
        }
        Ok(())
    }
}

impl<B> Rows<B> {
    #[inline(never)]
    fn add(&mut self, row: B, others: &mut Vec<Vec<B>>) {
        match self.others {
            Some(rows) => others[place(rows)].push(row),
            None => {
                others.push(vec![row]);
                let count = u32::try_from(others.len()).ok().and_then(NonZeroU32::new);
                self.others = Some(count.expect("four thousand million keys of two rows do not fit into memory"));
            }
        }
    }
}

fn place(from_one: NonZeroU32) -> usize {
    from_one.get() as usize - 1
}
