//! A hash table whose entries can be fetched into the cache ahead of a look-up.
//!
//! Where a table outgrows the cache, most of a look-up is the wait for its entry. Who has several keys at hand fetches
//! the entries of all of them first, so that the waits overlap.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::hash_table::{Entry, HashTable, OccupiedEntry, VacantEntry};

use crate::guarded::opaque;

/// From how many bytes on a look-up is worth being announced: about what the caches of one processor hold. A sum of
/// 32,768 keys in 1 MiB took 7 % longer with its keys announced, one of 131,072 keys in 4 MiB 20 % less, one of
/// 2,000,000 30 % less.
const LARGE_BYTES: usize = 1 << 20;

/// The entries of a table end at a multiple of so many bytes, whatever the allocator: `hashbrown` looks at 16 of the
/// bytes behind them at once.
const ALIGNED_BYTES: usize = 16;

/// What a cache fetches at once, and so many of it in a row that it does not go on by itself.
const LINE_BYTES: usize = 64;
const FETCHED_LINES: usize = 8;

/// Entries of a hash table, which are found by their hashes.
pub(crate) struct Entries<T> {
    entries: HashTable<T>,
    /// The address behind the first entry: the others lie before it, and a byte for each lies from here on. So it is
    /// in `hashbrown` today; with another layout a fetch would be of no use, and of no harm.
    start: usize,
}

/// A place for an entry that is not there yet.
pub(crate) struct Vacant<'t, T> {
    entry: VacantEntry<'t, T>,
    start: &'t mut usize,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { entries: HashTable::new(), start: 0 }
    }
}

impl<T> Entries<T> {
    /// Has the cache fetch the entry with a hash.
    #[inline(always)]
    pub(crate) fn fetch(&self, hash: u64) {
        let bucket = hash as usize & self.entries.num_buckets().wrapping_sub(1);
        let end = self.start.wrapping_sub(bucket.wrapping_mul(size_of::<T>()));
        fetch(self.start.wrapping_add(bucket));
        fetch(end.wrapping_sub(size_of::<T>()));
        // It may lie on two lines, unless it is small. A fetch too many is not free.
        if !ALIGNED_BYTES.is_multiple_of(size_of::<T>().max(1)) {
            fetch(end.wrapping_sub(1));
        }
    }

    /// Begins to look up the entry with a hash, which is returned: a large table's is fetched. Also where it is looked
    /// up at once: the wait for it and that for the byte that leads to it overlap.
    #[inline(always)]
    pub(crate) fn begin(&self, hash: u64) -> u64 {
        if self.is_large() {
            self.fetch(hash);
        }
        hash
    }

    /// The entry with this hash for which `is_it` holds.
    #[inline(always)]
    pub(crate) fn find(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<OccupiedEntry<'_, T>> {
        self.entries.find_entry(hash, is_it).ok()
    }

    /// The entry with this hash for which `is_it` holds, or a place for one. `hash_of` says the hashes of others.
    #[inline(always)]
    pub(crate) fn entry(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Result<OccupiedEntry<'_, T>, Vacant<'_, T>> {
        let Self { entries, start } = self;
        match entries.entry(hash, is_it, hash_of) {
            Entry::Occupied(entry) => Ok(entry),
            Entry::Vacant(entry) => Err(Vacant { entry, start }),
        }
    }

    /// Puts in an entry that is not there yet.
    pub(crate) fn insert_new(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        if let Err(vacant) = self.entry(hash, |_| false, hash_of) {
            vacant.insert(entry);
        }
    }

    /// Whether it is so large that a look-up waits for memory.
    #[inline(always)]
    pub(crate) fn is_large(&self) -> bool {
        self.entries.num_buckets() * size_of::<T>() > LARGE_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<'t, T> Vacant<'t, T> {
    /// Puts the entry in, and finds out where the entries lie then. What it is made of is written where it is to lie:
    /// were it put together elsewhere, to be copied in wider pieces, it would be waited for.
    #[inline(always)]
    pub(crate) fn insert(self, entry: T) -> OccupiedEntry<'t, T> {
        let occupied = self.entry.insert(entry);
        *self.start = std::ptr::from_ref(occupied.get()).addr() + (occupied.bucket_index() + 1) * size_of::<T>();
        occupied
    }
}

/// Keys and their values.
pub struct Table<K, V> {
    entries: Entries<(K, V)>,
    hash: RandomState,
}
opaque!(Table<K, V>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { entries: Entries::default(), hash: RandomState::default() }
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// An empty one, in which keys have the same hashes.
    pub(crate) fn afresh(&self) -> Self {
        Self { entries: Entries::default(), hash: self.hash.clone() }
    }

    /// Takes it away, and leaves an empty one in which keys have the same hashes.
    pub(crate) fn take(&mut self) -> Self {
        let empty = self.afresh();
        std::mem::replace(self, empty)
    }

    /// The hash of a key, by which the other methods find it.
    #[inline(always)]
    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hash.hash_one(key)
    }

    /// Has the cache fetch the entry of a key.
    #[inline(always)]
    pub(crate) fn fetch(&self, hash: u64) {
        self.entries.fetch(hash);
    }

    /// The value of the key that `held` stands for, as `is_key` says; `new` makes key and value if there are none.
    #[inline(always)]
    pub(crate) fn find_or_insert<H>(
        &mut self,
        hash: u64,
        held: &mut H,
        mut is_key: impl FnMut(&H, &K) -> bool,
        new: impl FnOnce(&mut H) -> (K, V),
    ) -> &mut V {
        let Self { entries, hash: hasher } = self;
        let entry = match entries.entry(hash, |(key, _)| is_key(held, key), |(key, _)| hasher.hash_one(key)) {
            Ok(entry) => entry,
            Err(vacant) => vacant.insert(new(held)),
        };
        &mut entry.into_mut().1
    }

    /// Begins to look a key up, as [`Entries::begin`]. Returns its hash.
    #[inline(always)]
    pub(crate) fn begin<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.entries.begin(self.hash(key))
    }

    /// The key with this hash for which `is_key` holds, and its value.
    pub(crate) fn get(&self, hash: u64, mut is_key: impl FnMut(&K) -> bool) -> Option<(&K, &V)> {
        let entry = self.entries.entries.find(hash, |(key, _)| is_key(key))?;
        Some((&entry.0, &entry.1))
    }

    /// The value of a key with this hash, made by `new` if there is none.
    #[inline(always)]
    pub(crate) fn value(&mut self, hash: u64, key: K, new: impl FnOnce() -> V) -> &mut V {
        let is_key = |key: &Option<K>, known: &K| key.as_ref() == Some(known);
        let new = |key: &mut Option<K>| (key.take().expect("it was not taken yet"), new());
        self.find_or_insert(hash, &mut Some(key), is_key, new)
    }

    /// Takes out the key with this hash for which `is_key` holds, and its value.
    pub(crate) fn remove(&mut self, hash: u64, mut is_key: impl FnMut(&K) -> bool) -> Option<(K, V)> {
        let entry = self.entries.find(hash, |(key, _)| is_key(key))?;
        Some(entry.remove().0)
    }

    /// Takes out the key with this hash for which `is_key` holds, if `is_over` says so of its value.
    #[inline(always)]
    pub(crate) fn remove_if(
        &mut self,
        hash: u64,
        mut is_key: impl FnMut(&K) -> bool,
        is_over: impl FnOnce(&mut V) -> bool,
    ) {
        if let Some(mut entry) = self.entries.find(hash, |(key, _)| is_key(key))
            && is_over(&mut entry.get_mut().1)
        {
            entry.remove();
        }
    }

    /// Keeps those entries alone for which `stays` holds.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&V) -> bool) {
        self.entries.entries.retain(|(_, value)| stays(value));
    }

    /// Whether it is so large that a look-up waits for memory.
    #[inline(always)]
    pub(crate) fn is_large(&self) -> bool {
        self.entries.is_large()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Makes room for so many more entries.
    pub(crate) fn reserve(&mut self, more: usize) {
        let Self { entries, hash } = self;
        entries.entries.reserve(more, |(key, _)| hash.hash_one(key));
    }

    /// Gives back the room that no entry is in.
    pub(crate) fn shrink(&mut self) {
        let Self { entries, hash } = self;
        entries.entries.shrink_to_fit(|(key, _)| hash.hash_one(key));
    }

    /// How many entries it has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.entries.capacity()
    }

    /// The keys and their values, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// As [`iter`](Self::iter); the values may be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub(crate) fn clear(&mut self) {
        self.entries.entries.clear();
    }

    /// Takes all entries out, in no particular order. Their room is kept.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.entries.entries.drain()
    }
}

impl<K, V> IntoIterator for Table<K, V> {
    type Item = (K, V);
    type IntoIter = hashbrown::hash_table::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.entries.into_iter()
    }
}

/// Has the cache fetch the first lines of a slice, so that the waits for them overlap, whatever is done with each
/// element.
#[inline(always)]
pub(crate) fn fetch_all<T>(slice: &[T]) {
    let start = slice.as_ptr().addr();
    (start..start + size_of_val(slice)).step_by(LINE_BYTES).take(FETCHED_LINES).for_each(fetch);
}

/// Has the cache fetch what lies at an address. A hint: any address will do.
#[inline(always)]
fn fetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing that a program can see, and of a wrong address it does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
