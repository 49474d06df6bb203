//! `count` and `sum` of a stream by key: of its records, or of sums of them that were made before an exchange.
//!
//! Apart from the other operators that gather: of the user's functions only those of the key and of what is summed run
//! here, so a record may be put off until the table's entry is in the cache.

use std::convert::Infallible;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::chain::{Fault, Flags, Outlet, Signal, Stage};
use crate::key::{Ahead, KeySelector, Noted};
use crate::summand::{Number, Summand, add};
use crate::table::Table;

/// Sums up the records of each key: emits pairs of key and sum.
pub(crate) struct SumByKey<S: KeySelector<I>, M: Summand<I>, I> {
    key: S,
    summand: M,
    sums: Table<S::Key, M::Sum>,
    ahead: Ahead<S::Held, M::Amount>,
}

impl<S: KeySelector<I>, M: Summand<I>, I> SumByKey<S, M, I> {
    pub(crate) fn new(key: S, summand: M) -> Self {
        Self { key, summand, sums: Table::default(), ahead: Ahead::new() }
    }
}

impl<S: KeySelector<I>, M: Summand<I>, I> Clone for SumByKey<S, M, I> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.summand.clone())
    }
}

impl<S: KeySelector<I>, M: Summand<I>, I: Send + 'static> Stage for SumByKey<S, M, I> {
    type In = I;
    type Out = (S::Key, M::Sum);
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        let Self { key, summand, sums, ahead } = self;
        let amount = summand.of(&record);
        Ok(ahead.take(key, record, amount, sums, M::add)?)
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        let Self { key, sums, ahead, .. } = self;
        ahead.look_up(key, sums, M::add)?;
        std::mem::take(sums).into_iter().try_for_each(|sum| out.emit(sum))
    }
}

/// Adds up the sums of each key that replicas before an exchange have made. Has a way out by the side, for dead
/// letters, of which there are none.
pub(crate) struct AddByKey<K, V, D> {
    sums: Table<K, V>,
    noted: Noted<()>,
    letters: PhantomData<fn() -> D>,
}

impl<K, V, D> AddByKey<K, V, D> {
    pub(crate) fn new() -> Self {
        Self { sums: Table::default(), noted: Noted::new(), letters: PhantomData }
    }
}

impl<K: Hash + Eq + Send + 'static, V: Number, D: Send + 'static> Stage for AddByKey<K, V, D> {
    type In = (K, V);
    type Out = (K, V);
    type Side = D;
    const FLAGS: Flags = Flags { side: true, ..Flags::GATHERS };

    #[inline(always)]
    fn process(&mut self, (key, sum): (K, V), _out: &mut impl Outlet<(K, V), D>) -> Result<(), Fault> {
        let hash = self.noted.pop().map_or_else(|| self.sums.hash(&key), |(hash, ())| hash);
        Ok(add(self.sums.value(hash, key, V::default), sum)?)
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.noted.restart(self.sums.is_large())
    }

    #[inline(always)]
    fn ahead(&mut self, (key, _): &(K, V)) {
        self.noted.push(self.sums.begin(key), ());
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<(K, V), D>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        std::mem::take(&mut self.sums).into_iter().try_for_each(|sum| out.emit(sum))
    }
}
