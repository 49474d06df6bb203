//! How to get a record's key: a function computes it, or it is borrowed from the record.
//!
//! A table of keys is looked up by reference, and stores a key only when it is new. So a borrowed key is copied once
//! per key, not once per record.

use std::borrow::Borrow;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::guarded::opaque;
use crate::table::Table;

/// What records can be grouped by: a type with `Hash` and `Eq`. Every such type is one.
///
/// Floating-point numbers are none, because not each is equal to itself. Group by their bits (`f64::to_bits`), or by a
/// number they are rounded to.
#[diagnostic::on_unimplemented(
    message = "records cannot be grouped by `{Self}`",
    label = "a key has to have `Hash` and `Eq`",
    note = "derive them: `#[derive(PartialEq, Eq, Hash)]`; of a float, take `.to_bits()` or round it to an integer"
)]
pub trait Key: Hash + Eq + Send + 'static {
    /// The same type. A stream whose key is none has a type that is wrong by this, so that the compiler tells of no
    /// other error.
    #[doc(hidden)]
    type Own: Hash + Eq + Send + 'static;
}

#[diagnostic::do_not_recommend]
impl<K: Hash + Eq + Send + 'static> Key for K {
    type Own = K;
}

/// Selects the key of a record. Only the engine implements it.
pub trait KeySelector<T>: Clone + Send + 'static {
    /// The owned key, as it stands in results.
    type Key: Hash + Eq + Send + 'static + Borrow<Self::Lookup>;
    /// The borrowed key, used for look-ups; it hashes and compares like the owned key.
    type Lookup: Hash + Eq + ?Sized;
    /// The key of one record, computed or borrowed.
    #[doc(hidden)]
    type Selected<'a>
    where
        T: 'a;

    #[doc(hidden)]
    fn select<'a>(&mut self, record: &'a T) -> Self::Selected<'a>;
    #[doc(hidden)]
    fn lookup<'a>(selected: &'a Self::Selected<'_>) -> &'a Self::Lookup;
    #[doc(hidden)]
    fn into_key(selected: Self::Selected<'_>) -> Self::Key;

    /// What is kept of a record's key that was selected ahead of its turn: the key, where it is computed.
    #[doc(hidden)]
    type Noted: Send + 'static;
    #[doc(hidden)]
    fn note(selected: Self::Selected<'_>) -> Self::Noted;
    /// The key of a record of which it was noted.
    #[doc(hidden)]
    fn noted<'a>(&mut self, noted: Self::Noted, record: &'a T) -> Self::Selected<'a>;
    /// What a table has for a selected key with this hash; `new` makes the key and the value if there are none.
    #[doc(hidden)]
    #[inline(always)]
    fn entry<'t, 'k, V>(
        table: &'t mut Table<Self::Key, V>,
        hash: u64,
        selected: Self::Selected<'k>,
        new: impl FnOnce(Self::Selected<'k>) -> (Self::Key, V),
    ) -> &'t mut V
    where
        T: 'k,
    {
        let is_key = |selected: &Option<Self::Selected<'k>>, key: &Self::Key| {
            selected.as_ref().is_some_and(|selected| Self::is(selected, key))
        };
        table.find_or_insert(hash, &mut Some(selected), is_key, |selected| new(selected.take().expect(HELD)))
    }

    /// What a table has for the key of a record, made by `new` if the key is new.
    #[doc(hidden)]
    #[inline(always)]
    fn state_of<'t, V>(
        &mut self,
        table: &'t mut Table<Self::Key, V>,
        record: &T,
        new: impl FnOnce() -> V,
    ) -> &'t mut V {
        let selected = self.select(record);
        let hash = table.begin(Self::lookup(&selected));
        Self::entry(table, hash, selected, |selected| (Self::into_key(selected), new()))
    }

    /// What holds the key of a record: the key, where it is computed, and otherwise what it is borrowed from.
    #[doc(hidden)]
    type Held: Send + 'static;
    /// Keeps the key of a record alone, and hashes it.
    #[doc(hidden)]
    fn hold<V>(&mut self, record: T, table: &Table<Self::Key, V>) -> (u64, Self::Held);
    /// The key of a record, which is not needed any more.
    #[doc(hidden)]
    fn take_key(&mut self, record: T) -> Self::Key;
    /// What a table has for a key that is held, made by `new` if the key is new, which is then taken out of `held`.
    #[doc(hidden)]
    fn state<'t, V>(
        &mut self,
        table: &'t mut Table<Self::Key, V>,
        held: &mut Hashed<Self::Held>,
        new: impl FnOnce() -> V,
    ) -> &'t mut V;

    /// Whether it is this owned key.
    #[doc(hidden)]
    #[inline(always)]
    fn is(selected: &Self::Selected<'_>, key: &Self::Key) -> bool {
        Self::lookup(selected) == key.borrow()
    }
}

/// How many keys are at hand before the first of them is looked up: so many waits for memory overlap.
const AHEAD: usize = 16;

/// A key that is to be looked up, with its hash.
pub(crate) type Hashed<H> = (u64, Option<H>);

/// Keys that are to be looked up, in the order in which they came, each with what is to be done with it: once there are
/// [`AHEAD`] of them, or at the end.
///
/// They stay where they are until then: to move a record that has just been written costs more than to look at it.
pub(crate) struct Ahead<H, W> {
    held: [Hashed<H>; AHEAD],
    with: [W; AHEAD],
    /// How many there are. All others hold nothing.
    len: usize,
}

impl<H, W: Copy + Default> Ahead<H, W> {
    pub(crate) fn new() -> Self {
        Self { held: [const { (0, None) }; AHEAD], with: [W::default(); AHEAD], len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the key of a record, and fetches its entry of the table. Where it is the last of a group, does with each
    /// key of it what is to be done.
    ///
    /// # Errors
    /// That of `act`.
    #[inline(always)]
    pub(crate) fn take<T, S, V, E>(
        &mut self,
        key: &mut S,
        record: T,
        with: W,
        table: &mut Table<S::Key, V>,
        act: impl Fn(&mut V, W) -> Result<(), E>,
    ) -> Result<(), E>
    where
        S: KeySelector<T, Held = H>,
        V: Default,
    {
        let (hash, held) = key.hold(record, table);
        table.fetch(hash);
        let before = std::mem::replace(&mut self.held[self.len], (hash, Some(held)));
        // It holds nothing, and the compiler need not look.
        std::mem::forget(before);
        self.with[self.len] = with;
        self.len += 1;
        if self.len == AHEAD { self.look_up(key, table, act) } else { Ok(()) }
    }

    /// Does with each key what is to be done.
    ///
    /// # Errors
    /// That of `act`.
    #[inline(never)]
    pub(crate) fn look_up<T, S, V, E>(
        &mut self,
        key: &mut S,
        table: &mut Table<S::Key, V>,
        act: impl Fn(&mut V, W) -> Result<(), E>,
    ) -> Result<(), E>
    where
        S: KeySelector<T, Held = H>,
        V: Default,
    {
        for turn in 0..std::mem::take(&mut self.len) {
            let held = &mut self.held[turn];
            act(key.state(table, held, V::default), self.with[turn])?;
            held.1 = None;
        }
        Ok(())
    }
}

/// What is known of the keys of the records that come next, with their hashes: each was looked at once, and its entry
/// is being fetched.
pub(crate) struct Noted<N> {
    keys: [Hashed<N>; AHEAD],
    /// How many were looked at, and of how many of those the record has come.
    looked: usize,
    came: usize,
}

impl<N> Noted<N> {
    pub(crate) fn new() -> Self {
        Self { keys: [const { (0, None) }; AHEAD], looked: 0, came: 0 }
    }

    /// Forgets those of records that did not come. Says how many may be noted now: none if the table is not large.
    #[inline(always)]
    pub(crate) fn restart(&mut self, is_large: bool) -> usize {
        (self.looked, self.came) = (0, 0);
        if is_large { AHEAD } else { 0 }
    }

    /// Notes the key of the record that comes after those. `begin` begins to look it up, and says its hash.
    #[inline(always)]
    pub(crate) fn note<T, S: KeySelector<T, Noted = N>>(
        &mut self,
        key: &mut S,
        record: &T,
        begin: impl FnOnce(&S::Lookup) -> u64,
    ) {
        let selected = key.select(record);
        self.push(begin(S::lookup(&selected)), S::note(selected));
    }

    /// Adds the key of the record that comes after those.
    #[inline(always)]
    pub(crate) fn push(&mut self, hash: u64, noted: N) {
        self.keys[self.looked] = (hash, Some(noted));
        self.looked += 1;
    }

    /// The key of the record whose turn has come, and its hash. If it was not noted, `begin` begins to look it up.
    #[inline(always)]
    pub(crate) fn select<'r, T, S: KeySelector<T, Noted = N>>(
        &mut self,
        key: &mut S,
        record: &'r T,
        begin: impl FnOnce(&S::Lookup) -> u64,
    ) -> (u64, S::Selected<'r>) {
        selected(self.pop(), key, record, begin)
    }

    /// What was noted of the record whose turn has come, if it was.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<(u64, N)> {
        if self.came == self.looked {
            return None;
        }
        let (hash, noted) = &mut self.keys[self.came];
        self.came += 1;
        noted.take().map(|noted| (*hash, noted))
    }
}

/// The key of a record, and its hash. If none was noted, `begin` begins to look it up.
#[inline(always)]
pub(crate) fn selected<'r, T, S: KeySelector<T>>(
    noted: Option<(u64, S::Noted)>,
    key: &mut S,
    record: &'r T,
    begin: impl FnOnce(&S::Lookup) -> u64,
) -> (u64, S::Selected<'r>) {
    match noted {
        Some((hash, noted)) => (hash, key.noted(noted, record)),
        None => {
            let selected = key.select(record);
            (begin(S::lookup(&selected)), selected)
        }
    }
}

const HELD: &str = "a key is held until it was looked up";

fn taken<K>(held: &mut Option<K>) -> K {
    held.take().expect(HELD)
}

/// The key is what a function makes of the record.
pub struct Computed<F, K> {
    function: F,
    keys: PhantomData<fn() -> K>,
}
opaque!(Computed<F, K>);

impl<F, K> Computed<F, K> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, keys: PhantomData }
    }
}

impl<F: Clone, K> Clone for Computed<F, K> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<T, F, K> KeySelector<T> for Computed<F, K>
where
    F: FnMut(&T) -> K + Clone + Send + 'static,
    K: Hash + Eq + Send + 'static,
{
    type Key = K;
    type Lookup = K;
    type Selected<'a>
        = K
    where
        T: 'a;

    #[inline(always)]
    fn select(&mut self, record: &T) -> K {
        (self.function)(record)
    }

    #[inline(always)]
    fn lookup(selected: &K) -> &K {
        selected
    }

    #[inline(always)]
    fn into_key(selected: K) -> K {
        selected
    }

    type Noted = K;

    #[inline(always)]
    fn note(selected: K) -> K {
        selected
    }

    #[inline(always)]
    fn noted(&mut self, noted: K, _record: &T) -> K {
        noted
    }

    type Held = K;

    #[inline(always)]
    fn hold<V>(&mut self, record: T, table: &Table<K, V>) -> (u64, K) {
        let key = (self.function)(&record);
        (table.hash(&key), key)
    }

    #[inline(always)]
    fn take_key(&mut self, record: T) -> K {
        (self.function)(&record)
    }

    #[inline(always)]
    fn state<'t, V>(
        &mut self,
        table: &'t mut Table<K, V>,
        (hash, held): &mut Hashed<K>,
        new: impl FnOnce() -> V,
    ) -> &'t mut V {
        table.find_or_insert(*hash, held, |held, key| held.as_ref() == Some(key), |held| (taken(held), new()))
    }
}

/// The key is a part of the record.
pub struct Borrowed<F, Q: ?Sized> {
    function: F,
    keys: PhantomData<fn(&Q)>,
}
opaque!([F, Q: ?Sized] Borrowed<F, Q>);

impl<F, Q: ?Sized> Borrowed<F, Q> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, keys: PhantomData }
    }
}

impl<F: Clone, Q: ?Sized> Clone for Borrowed<F, Q> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<T, F, Q> KeySelector<T> for Borrowed<F, Q>
where
    T: Send + 'static,
    F: FnMut(&T) -> &Q + Clone + Send + 'static,
    Q: Hash + Eq + ToOwned + ?Sized + 'static,
    Q::Owned: Hash + Eq + Send + 'static,
{
    type Key = Q::Owned;
    type Lookup = Q;
    type Selected<'a>
        = &'a Q
    where
        T: 'a;

    #[inline(always)]
    fn select<'a>(&mut self, record: &'a T) -> &'a Q {
        (self.function)(record)
    }

    #[inline(always)]
    fn lookup<'a>(selected: &'a &Q) -> &'a Q {
        selected
    }

    #[inline(always)]
    fn into_key(selected: &Q) -> Q::Owned {
        selected.to_owned()
    }

    type Noted = ();

    #[inline(always)]
    fn note(_selected: &Q) {}

    #[inline(always)]
    fn noted<'a>(&mut self, (): (), record: &'a T) -> &'a Q {
        (self.function)(record)
    }

    type Held = T;

    #[inline(always)]
    fn hold<V>(&mut self, record: T, table: &Table<Q::Owned, V>) -> (u64, T) {
        (table.hash((self.function)(&record)), record)
    }

    #[inline(always)]
    fn take_key(&mut self, record: T) -> Q::Owned {
        (self.function)(&record).to_owned()
    }

    #[inline(always)]
    fn state<'t, V>(
        &mut self,
        table: &'t mut Table<Q::Owned, V>,
        (hash, held): &mut Hashed<T>,
        new: impl FnOnce() -> V,
    ) -> &'t mut V {
        let mut key = (self.function)(held.as_ref().expect(HELD));
        table.find_or_insert(
            *hash,
            &mut key,
            |key: &&Q, known| **key == *known.borrow(),
            |key| ((*key).to_owned(), new()),
        )
    }
}

/// The key is the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole;

impl<T: Hash + Eq + Clone + Send + 'static> KeySelector<T> for Whole {
    type Key = T;
    type Lookup = T;
    type Selected<'a> = &'a T;

    #[inline(always)]
    fn select<'a>(&mut self, record: &'a T) -> &'a T {
        record
    }

    #[inline(always)]
    fn lookup<'a>(selected: &'a &T) -> &'a T {
        selected
    }

    #[inline(always)]
    fn into_key(selected: &T) -> T {
        selected.clone()
    }

    type Noted = ();

    #[inline(always)]
    fn note(_selected: &T) {}

    #[inline(always)]
    fn noted<'a>(&mut self, (): (), record: &'a T) -> &'a T {
        record
    }

    type Held = T;

    #[inline(always)]
    fn hold<V>(&mut self, record: T, table: &Table<T, V>) -> (u64, T) {
        (table.hash(&record), record)
    }

    #[inline(always)]
    fn take_key(&mut self, record: T) -> T {
        record
    }

    #[inline(always)]
    fn state<'t, V>(
        &mut self,
        table: &'t mut Table<T, V>,
        (hash, held): &mut Hashed<T>,
        new: impl FnOnce() -> V,
    ) -> &'t mut V {
        table.find_or_insert(*hash, held, |held, key| held.as_ref() == Some(key), |held| (taken(held), new()))
    }
}
