//! `count` of a stream by key: of its records, or of numbers of them that were counted before an exchange.
//!
//! Apart from the other operators that gather: counting runs none of the user's functions but the key's, so it may be
//! put off until the table's entries are in the cache.

use std::convert::Infallible;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::chain::{Fault, Flags, Outlet, Signal, Stage};
use crate::key::{Ahead, KeySelector, Noted};
use crate::table::Table;

/// Counts the records of each key: emits pairs of key and number.
pub(crate) struct CountByKey<S: KeySelector<I>, I> {
    key: S,
    counts: Table<S::Key, u64>,
    ahead: Ahead<S::Held>,
}

impl<S: KeySelector<I>, I> CountByKey<S, I> {
    pub(crate) fn new(key: S) -> Self {
        Self { key, counts: Table::default(), ahead: Ahead::new() }
    }
}

impl<S: KeySelector<I>, I> Clone for CountByKey<S, I> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone())
    }
}

impl<S: KeySelector<I>, I: Send + 'static> Stage for CountByKey<S, I> {
    type In = I;
    type Out = (S::Key, u64);
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        let Self { key, counts, ahead } = self;
        ahead.take(key, record, counts, |count| *count += 1);
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        let Self { key, counts, ahead } = self;
        ahead.rest().for_each(|held| *key.state(counts, held, || 0) += 1);
        *ahead = Ahead::new();
        std::mem::take(counts).into_iter().try_for_each(|count| out.emit(count))
    }
}

/// Adds up numbers of records of each key. Has a way out by the side, for dead letters, of which there are none.
pub(crate) struct AddByKey<K, D> {
    counts: Table<K, u64>,
    noted: Noted<()>,
    letters: PhantomData<fn() -> D>,
}

impl<K, D> AddByKey<K, D> {
    pub(crate) fn new() -> Self {
        Self { counts: Table::default(), noted: Noted::new(), letters: PhantomData }
    }
}

impl<K: Hash + Eq + Send + 'static, D: Send + 'static> Stage for AddByKey<K, D> {
    type In = (K, u64);
    type Out = (K, u64);
    type Side = D;
    const FLAGS: Flags = Flags { side: true, ..Flags::GATHERS };

    #[inline(always)]
    fn process(&mut self, (key, count): (K, u64), _out: &mut impl Outlet<(K, u64), D>) -> Result<(), Fault> {
        let hash = self.noted.pop().map_or_else(|| self.counts.hash(&key), |(hash, ())| hash);
        let is_key = |key: &Option<K>, known: &K| key.as_ref() == Some(known);
        let new = |key: &mut Option<K>| (key.take().expect("it was not taken yet"), 0);
        *self.counts.find_or_insert(hash, &mut Some(key), is_key, new) += count;
        Ok(())
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.noted.restart(&self.counts)
    }

    #[inline(always)]
    fn ahead(&mut self, (key, _): &(K, u64)) {
        let hash = self.counts.hash(key);
        self.counts.fetch(hash);
        self.noted.push(hash, ());
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<(K, u64), D>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        std::mem::take(&mut self.counts).into_iter().try_for_each(|count| out.emit(count))
    }
}
