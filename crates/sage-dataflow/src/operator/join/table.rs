//! The rows of the right side of a join by key.

use std::hash::Hash;

use super::gathered::Dealing;
use super::slabs::{Records, in_huge_pages};
use crate::chain::Fault;
use crate::key::KeySelector;

/// Right records by key: a hash table of keys, each with its first row, and lists of the further ones.
///
/// The rows of a key hang on that key alone, so that a key with many makes no other slow. A table has parts, which are
/// filled one after the other: the rows of one lie together. It can be cleared and filled again, and then asks for no
/// memory that it has.
///
/// Places count from 1; 0 is none.
pub(super) struct Table<K, B> {
    /// For each bucket the last one of its keys.
    heads: Vec<u32>,
    /// How many parts there are, and how many buckets each has, as powers of two.
    part_bits: u32,
    bits: u32,
    entries: Vec<Entry<K, B>>,
    /// For each entry the last one of its further rows. Shorter, or empty, where entries at the end have none.
    lasts: Vec<u32>,
    others: Vec<Other<B>>,
    /// For each entry whether a left record has met it, if that is asked.
    met: Vec<bool>,
}

/// A key and its first row.
struct Entry<K, B> {
    key: K,
    row: B,
    /// The entry before it in its bucket.
    next: u32,
    /// A part of the key's hash: most other keys of the bucket have another.
    tag: u32,
}

/// A further row of a key.
struct Other<B> {
    row: B,
    /// The one before it of the same key.
    next: u32,
    /// Where that key is.
    entry: u32,
}

/// The rows that a left record meets.
pub(super) struct Matches<'t, B> {
    pub(super) first: &'t B,
    pub(super) others: Others<'t, B>,
}

/// The rows of a key but the first.
pub(super) struct Others<'t, B> {
    all: &'t [Other<B>],
    at: u32,
}

impl<'t, B> Iterator for Others<'t, B> {
    type Item = &'t B;

    #[inline(always)]
    fn next(&mut self) -> Option<&'t B> {
        let other = self.all.get((self.at as usize).wrapping_sub(1))?;
        self.at = other.next;
        Some(&other.row)
    }
}

impl<K, B> Table<K, B> {
    /// The most rows of a table.
    pub(super) const MOST_ROWS: usize = u32::MAX as usize - 1;

    /// A table of one part, with buckets for so many keys.
    pub(super) fn new(keys: usize) -> Self {
        let (entries, lasts, others, met) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut table = Self { heads: Vec::new(), part_bits: 0, bits: 0, entries, lasts, others, met };
        table.make_buckets(0, keys);
        table
    }

    /// Makes empty buckets: so many that most have a key or none.
    fn make_buckets(&mut self, part_bits: u32, keys: usize) {
        self.part_bits = part_bits;
        self.bits = (2 * keys).max(2).next_power_of_two().trailing_zeros();
        let buckets = 1 << (part_bits + self.bits);
        self.heads = Vec::with_capacity(buckets);
        in_huge_pages(self.heads.spare_capacity_mut());
        self.heads.resize(buckets, 0);
    }

    /// Divides a table that has the rows of the first part into so many parts, as a power of two, and makes room for
    /// the other ones: a hash gives each about as many keys. At most so many rows are to come.
    pub(super) fn divide(&mut self, part_bits: u32, rows: usize, dealing: &Dealing)
    where
        K: Hash,
    {
        let keys = self.entries.len() + self.entries.len() / 16;
        self.make_buckets(part_bits, keys);
        let mut entries = std::mem::take(&mut self.entries);
        for (entry, place) in entries.iter_mut().zip(1..) {
            let bucket = self.bucket(dealing.hash_of(&entry.key));
            entry.next = std::mem::replace(&mut self.heads[bucket], place);
        }
        entries.reserve_exact(rows.min(keys << part_bits));
        in_huge_pages(entries.spare_capacity_mut());
        self.entries = entries;
    }

    /// What a row takes whose key has no other, in bytes.
    pub(super) const fn row_bytes() -> usize {
        size_of::<Entry<K, B>>() + 3 * size_of::<u32>()
    }

    /// Adds rows.
    pub(super) fn fill<R: KeySelector<B, Key = K>>(&mut self, rows: Records<'_, B>, dealing: &Dealing, key: &mut R) {
        rows.for_each(|row| self.insert(row, dealing, key));
    }

    /// From here on it is known which of the rows so far were met.
    pub(super) fn mark(&mut self) {
        self.met.resize(self.entries.len(), false);
    }

    /// Takes all rows out.
    pub(super) fn clear(&mut self) {
        self.heads.fill(0);
        self.entries.clear();
        self.lasts.clear();
        self.others.clear();
        self.met.clear();
    }

    /// The bucket of a hash. Within a part its upper bits alone would not do: those of all keys there are alike.
    #[inline(always)]
    fn bucket(&self, hash: u64) -> usize {
        let within = (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - self.bits)) as usize;
        (Dealing::part(hash, self.part_bits) << self.bits) + within
    }

    #[inline(always)]
    fn insert<R: KeySelector<B, Key = K>>(&mut self, row: B, dealing: &Dealing, key: &mut R) {
        let selected = key.select(&row);
        let hash = dealing.hash::<B, R>(&selected);
        let (bucket, tag) = (self.bucket(hash), hash as u32);
        let next = self.heads[bucket];
        if let Some(entry) = self.entry::<R, B>(next, tag, &selected) {
            drop(selected);
            return self.add(entry, row);
        }
        let key = R::into_key(selected);
        self.entries.push(Entry { key, row, next, tag });
        self.heads[bucket] = self.entries.len() as u32;
    }

    /// Where among the entries a key is, if it is in this list.
    #[inline(always)]
    fn entry<S: KeySelector<A, Key = K>, A>(&self, mut at: u32, tag: u32, key: &S::Selected<'_>) -> Option<usize> {
        loop {
            let index = (at as usize).wrapping_sub(1);
            let entry = self.entries.get(index)?;
            if entry.tag == tag && S::is(key, &entry.key) {
                return Some(index);
            }
            at = entry.next;
        }
    }

    /// Adds a further row to a key.
    #[inline(never)]
    fn add(&mut self, entry: usize, row: B) {
        if self.lasts.len() <= entry {
            self.lasts.resize(self.entries.len(), 0);
        }
        let last = &mut self.lasts[entry];
        self.others.push(Other { row, next: *last, entry: entry as u32 });
        *last = self.others.len() as u32;
    }

    /// The rows of a left record's key, marked as met if `mark` says so.
    #[inline(always)]
    pub(super) fn find<S: KeySelector<A, Key = K>, A>(
        &mut self,
        hash: u64,
        key: &S::Selected<'_>,
        mark: bool,
    ) -> Option<Matches<'_, B>> {
        let entry = self.entry::<S, A>(self.heads[self.bucket(hash)], hash as u32, key)?;
        if mark {
            self.met[entry] = true;
        }
        let at = self.lasts.get(entry).copied().unwrap_or_default();
        Some(Matches { first: &self.entries[entry].row, others: Others { all: &self.others, at } })
    }

    /// Takes all rows out, and hands on those that no left record has met.
    pub(super) fn drain_alone(&mut self, mut take: impl FnMut(K, B) -> Result<(), Fault>) -> Result<(), Fault>
    where
        K: Clone,
    {
        for other in self.others.drain(..) {
            let entry = other.entry as usize;
            if !self.met[entry] {
                take(self.entries[entry].key.clone(), other.row)?;
            }
        }
        let unmet = self.entries.drain(..).zip(&self.met).filter(|(_, met)| !**met);
        unmet.map(|(entry, _)| entry).try_for_each(|entry| take(entry.key, entry.row))
    }
}
