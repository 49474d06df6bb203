//! The records a join gathers as they come, dealt to drawers by a hash of their keys.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use super::LOOK_EVERY;
use super::slabs::{Chunk, Records, Slabs};
use crate::chain::Fault;
use crate::key::KeySelector;

/// Records that were put aside. Few are kept as they came; more lie in drawers.
///
/// Invariant: each place of a drawer's chunks has a record, but for those of the last one that are still free.
pub(super) struct Gathered<T> {
    few: Vec<T>,
    /// The drawer each of the few belongs to.
    few_drawers: Vec<u16>,
    /// The free places of each drawer's last chunk. Empty while there are no drawers.
    free: Vec<Chunk>,
    /// The chunks of each drawer.
    chunks: Vec<Vec<Chunk>>,
    slabs: Slabs<T>,
    records: usize,
}

/// Drawers of each side: so many that the table of one fits into a second-level cache until there are millions of rows,
/// and so few that where they are being filled does.
const DRAWERS: usize = 512;
/// How many records are kept without drawers.
const FEW: usize = LOOK_EVERY;
/// The size of a drawer's first chunk, in records; each further one is twice as large as the one before.
const FIRST_CHUNK: usize = 8;
/// The largest chunk, unless records are so large that it is the first.
const CHUNK_BYTES: usize = 8 << 10;

impl<T> Gathered<T> {
    /// The most records of a chunk.
    const MOST: usize = {
        let most = if size_of::<T>() == 0 { LOOK_EVERY } else { CHUNK_BYTES / size_of::<T>() };
        if most < FIRST_CHUNK {
            FIRST_CHUNK
        } else if most > LOOK_EVERY {
            LOOK_EVERY
        } else {
            most
        }
    };

    pub(super) fn new() -> Self {
        let (few, few_drawers, free, chunks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { few, few_drawers, free, chunks, slabs: Slabs::new(), records: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.records
    }

    #[inline(always)]
    pub(super) fn push(&mut self, drawer: usize, record: T) {
        self.records += 1;
        if drawer < self.free.len() { self.put(drawer, record) } else { self.push_few(drawer, record) }
    }

    #[inline(always)]
    fn put(&mut self, drawer: usize, record: T) {
        if self.free[drawer].is_empty() {
            self.next_chunk(drawer);
        }
        self.slabs.put(&mut self.free[drawer], record);
    }

    #[inline(never)]
    fn next_chunk(&mut self, drawer: usize) {
        let records = self.chunks[drawer].last().map_or(FIRST_CHUNK, |last| (2 * last.len()).min(Self::MOST));
        let chunk = self.slabs.chunk(records);
        self.chunks[drawer].push(chunk);
        self.free[drawer] = chunk;
    }

    #[inline(never)]
    fn push_few(&mut self, drawer: usize, record: T) {
        self.few.push(record);
        self.few_drawers.push(drawer as u16);
        if self.few.len() == FEW {
            self.deal();
        }
    }

    /// Puts the few into drawers.
    #[cold]
    fn deal(&mut self) {
        self.free = vec![Chunk::default(); DRAWERS];
        self.chunks = vec![Vec::new(); DRAWERS];
        for (drawer, record) in std::mem::take(&mut self.few_drawers).into_iter().zip(std::mem::take(&mut self.few)) {
            self.put(drawer.into(), record);
        }
    }

    /// Takes out the records of one of so many parts, of each chunk at a time; there are at most [`LOOK_EVERY`] in one.
    /// Nothing may be pushed any more.
    pub(super) fn take(
        &mut self,
        part: usize,
        parts: usize,
        mut visit: impl FnMut(Records<'_, T>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if parts > 1 && self.free.is_empty() {
            self.deal();
        }
        if !self.few.is_empty() {
            visit(Records::of(&mut self.few))?;
        }
        let (drawers, each) = (self.chunks.len(), DRAWERS / parts);
        for drawer in (part * each..(part + 1) * each).take_while(|drawer| drawers > *drawer) {
            let free = std::mem::take(&mut self.free[drawer]);
            if let Some(last) = self.chunks[drawer].last_mut().filter(|_| !free.is_empty()) {
                *last = last.before(free);
            }
            self.chunks[drawer].reverse();
            while let Some(chunk) = self.chunks[drawer].pop() {
                // SAFETY: by the invariant, and as it was one of the drawer's chunks until here.
                visit(unsafe { self.slabs.take(chunk) })?;
            }
        }
        Ok(())
    }
}

impl<T> Drop for Gathered<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() && !self.chunks.is_empty() {
            let _ = self.take(0, 1, |_| Ok(()));
        }
    }
}

/// How keys are dealt to drawers, and these to the parts of a table.
pub(super) struct Dealing {
    hash: RandomState,
}

/// What a part of a table should take: it fits into a second-level cache beside the records that are looked up in it.
const PART_BYTES: usize = 256 << 10;

impl Dealing {
    pub(super) fn new() -> Self {
        Self { hash: RandomState::default() }
    }

    /// The hash of a selected key.
    #[inline(always)]
    pub(super) fn hash<T, S: KeySelector<T>>(&self, selected: &S::Selected<'_>) -> u64 {
        self.hash_of(S::lookup(selected))
    }

    /// The hash of a key, owned or borrowed.
    #[inline(always)]
    pub(super) fn hash_of<K: Hash + ?Sized>(&self, key: &K) -> u64 {
        self.hash.hash_one(key)
    }

    /// The drawer of a record.
    #[inline(always)]
    pub(super) fn drawer<T, S: KeySelector<T>>(&self, key: &mut S, record: &T) -> usize {
        Self::part(self.hash::<T, S>(&key.select(record)), DRAWERS.trailing_zeros())
    }

    /// Into how many parts a table of so many rows should be divided, as a power of two.
    pub(super) fn part_bits(rows: usize, row_bytes: usize) -> u32 {
        (rows.saturating_mul(row_bytes) / PART_BYTES).clamp(1, DRAWERS).next_power_of_two().trailing_zeros()
    }

    /// The part of a hash: all those of a drawer are in one.
    #[inline(always)]
    pub(super) fn part(hash: u64, part_bits: u32) -> usize {
        (hash >> 1 >> (u64::BITS - 1 - part_bits)) as usize
    }
}
