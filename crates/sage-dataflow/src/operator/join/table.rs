//! The memory of a join: records gathered as they come, and the tables of the right side.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;

use foldhash::fast::RandomState;

use super::LOOK_EVERY;
use crate::chain::Fault;
use crate::key::KeySelector;

/// Records that were put aside, dealt to drawers by a hash of their keys.
pub(super) struct Gathered<T> {
    drawers: Vec<Drawer<T>>,
    records: usize,
}

/// Records in chunks: none is moved again while more come, and a chunk is freed as soon as it is used up.
struct Drawer<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
}

/// Drawers of each side: so many that those of one table fit into a second-level cache with it until there are tens of
/// millions of rows, and so few that where they are being filled fits into the first.
const DRAWERS: usize = 512;
/// The size of a drawer's first chunk, in records; each further one is twice as large.
const FIRST_CHUNK_RECORDS: usize = 8;
/// The largest chunk.
const CHUNK_BYTES: usize = 32 << 10;

impl<T> Gathered<T> {
    pub(super) fn new() -> Self {
        Self { drawers: (0..DRAWERS).map(|_| Drawer { full: Vec::new(), last: Vec::new() }).collect(), records: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.records
    }

    #[inline(always)]
    pub(super) fn push(&mut self, drawer: usize, record: T) {
        self.records += 1;
        let drawer = &mut self.drawers[drawer];
        if drawer.last.len() == drawer.last.capacity() {
            drawer.next_chunk();
        }
        drawer.last.push(record);
    }

    /// The records of each table, from the first table's drawers to the last one's.
    pub(super) fn into_tables(mut self, tables: usize) -> impl Iterator<Item = Vec<Vec<T>>> {
        let each = DRAWERS / tables;
        (0..tables).map(move |table| {
            let drawers = self.drawers[table * each..][..each].iter_mut();
            drawers.flat_map(|drawer| drawer.full.drain(..).chain([std::mem::take(&mut drawer.last)])).collect()
        })
    }
}

impl<T> Drawer<T> {
    #[cold]
    fn next_chunk(&mut self) {
        let most = (CHUNK_BYTES / size_of::<T>().max(1)).max(FIRST_CHUNK_RECORDS);
        let records = (2 * self.last.capacity()).clamp(FIRST_CHUNK_RECORDS, most);
        let full = std::mem::replace(&mut self.last, Vec::with_capacity(records));
        if !full.is_empty() {
            self.full.push(full);
        }
    }
}

/// How keys are dealt to drawers, and these to tables.
pub(super) struct Dealing {
    /// Another than that of the tables, whose keys it would make alike.
    hash: RandomState,
}

/// What a table should take: it fits into a second-level cache.
const TABLE_BYTES: usize = 512 << 10;

impl Dealing {
    pub(super) fn new() -> Self {
        Self { hash: RandomState::default() }
    }

    /// The drawer of a record.
    #[inline(always)]
    pub(super) fn drawer<T, S: KeySelector<T>>(&self, key: &mut S, record: &T) -> usize {
        let hash = self.hash.hash_one(S::lookup(&key.select(record)));
        (hash >> (u64::BITS - DRAWERS.trailing_zeros())) as usize
    }

    /// How many tables so many rows should have, a power of two.
    pub(super) fn tables_for(rows: usize, row_bytes: usize) -> usize {
        (rows.saturating_mul(2 * row_bytes) / TABLE_BYTES).clamp(1, DRAWERS).next_power_of_two()
    }

    /// Which of so many tables has the records of a drawer.
    #[inline(always)]
    pub(super) fn table_of(drawer: usize, tables: usize) -> usize {
        drawer / (DRAWERS / tables)
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
        rows: Vec<Vec<B>>,
        key: &mut R,
        mut look: impl FnMut() -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut table = Self { groups: HashMap::default(), others: Vec::new() };
        let all: usize = rows.iter().map(Vec::len).sum();
        let sample = all / 16;
        for (index, row) in rows.into_iter().flatten().enumerate() {
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
