//! Operators that gather: fold, reduce and count, over a whole stream or per key. They emit at the end of input.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::marker::PhantomData;

use foldhash::fast::RandomState;

use super::{Emit, Operator};
use crate::job::task::Fault;

/// `fold` over a whole stream: emits one accumulator.
pub struct Fold<F, I, A> {
    state: Option<A>,
    function: F,
    types: PhantomData<fn(I)>,
}

impl<F, I, A> Fold<F, I, A> {
    pub(crate) fn new(initial: A, function: F) -> Self {
        Self { state: Some(initial), function, types: PhantomData }
    }
}

impl<F: Clone, I, A: Clone> Clone for Fold<F, I, A> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), function: self.function.clone(), types: PhantomData }
    }
}

impl<F, I, A> Operator for Fold<F, I, A>
where
    F: FnMut(&mut A, I) + Send + 'static,
    I: Send + 'static,
    A: Send + 'static,
{
    type In = I;
    type Out = A;

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Emit<A>) -> Result<(), Fault> {
        if let Some(state) = &mut self.state {
            (self.function)(state, record);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<A>) -> Result<(), Fault> {
        match self.state.take() {
            Some(state) => out.emit(state),
            None => Ok(()),
        }
    }
}

/// `reduce` over a whole stream: emits one record, or none for an empty stream.
pub struct Reduce<F, I> {
    state: Option<I>,
    function: F,
}

impl<F, I> Reduce<F, I> {
    pub(crate) fn new(function: F) -> Self {
        Self { state: None, function }
    }
}

impl<F: Clone, I> Clone for Reduce<F, I> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<F, I> Operator for Reduce<F, I>
where
    F: FnMut(I, I) -> I + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = I;

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Emit<I>) -> Result<(), Fault> {
        self.state = Some(match self.state.take() {
            Some(state) => (self.function)(state, record),
            None => record,
        });
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<I>) -> Result<(), Fault> {
        match self.state.take() {
            Some(state) => out.emit(state),
            None => Ok(()),
        }
    }
}

/// `count` of a whole stream: emits one number.
pub struct Count<I> {
    records: u64,
    types: PhantomData<fn(I)>,
}

impl<I> Count<I> {
    pub(crate) fn new() -> Self {
        Self { records: 0, types: PhantomData }
    }
}

impl<I> Clone for Count<I> {
    fn clone(&self) -> Self {
        Self { records: self.records, types: PhantomData }
    }
}

impl<I: Send + 'static> Operator for Count<I> {
    type In = I;
    type Out = u64;

    #[inline(always)]
    fn process(&mut self, _record: I, _out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.records += 1;
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(self.records)
    }
}

/// `fold` per key: emits a pair of key and accumulator for each key.
pub struct KeyedFold<KF, F, I, K, A> {
    key: KF,
    initial: A,
    function: F,
    states: HashMap<K, A, RandomState>,
    types: PhantomData<fn(I)>,
}

impl<KF, F, I, K, A> KeyedFold<KF, F, I, K, A> {
    pub(crate) fn new(key: KF, initial: A, function: F) -> Self {
        Self { key, initial, function, states: HashMap::default(), types: PhantomData }
    }
}

impl<KF: Clone, F: Clone, I, K, A: Clone> Clone for KeyedFold<KF, F, I, K, A> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.initial.clone(), self.function.clone())
    }
}

impl<KF, F, I, K, A> Operator for KeyedFold<KF, F, I, K, A>
where
    KF: FnMut(&I) -> K + Send + 'static,
    F: FnMut(&mut A, I) + Send + 'static,
    I: Send + 'static,
    K: Hash + Eq + Send + 'static,
    A: Clone + Send + 'static,
{
    type In = I;
    type Out = (K, A);

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Emit<(K, A)>) -> Result<(), Fault> {
        let key = (self.key)(&record);
        let state = self.states.entry(key).or_insert_with(|| self.initial.clone());
        (self.function)(state, record);
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<(K, A)>) -> Result<(), Fault> {
        for pair in std::mem::take(&mut self.states) {
            out.emit(pair)?;
        }
        Ok(())
    }
}

/// `reduce` per key: emits a pair of key and record for each key.
pub struct KeyedReduce<KF, F, I, K> {
    key: KF,
    function: F,
    states: HashMap<K, Option<I>, RandomState>,
}

impl<KF, F, I, K> KeyedReduce<KF, F, I, K> {
    pub(crate) fn new(key: KF, function: F) -> Self {
        Self { key, function, states: HashMap::default() }
    }
}

impl<KF: Clone, F: Clone, I, K> Clone for KeyedReduce<KF, F, I, K> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.function.clone())
    }
}

impl<KF, F, I, K> Operator for KeyedReduce<KF, F, I, K>
where
    KF: FnMut(&I) -> K + Send + 'static,
    F: FnMut(I, I) -> I + Send + 'static,
    I: Send + 'static,
    K: Hash + Eq + Send + 'static,
{
    type In = I;
    type Out = (K, I);

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Emit<(K, I)>) -> Result<(), Fault> {
        match self.states.entry((self.key)(&record)) {
            Entry::Occupied(mut entry) => {
                let reduced = match entry.get_mut().take() {
                    Some(state) => (self.function)(state, record),
                    None => record,
                };
                *entry.get_mut() = Some(reduced);
            }
            Entry::Vacant(entry) => {
                entry.insert(Some(record));
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<(K, I)>) -> Result<(), Fault> {
        for (key, state) in std::mem::take(&mut self.states) {
            if let Some(record) = state {
                out.emit((key, record))?;
            }
        }
        Ok(())
    }
}
