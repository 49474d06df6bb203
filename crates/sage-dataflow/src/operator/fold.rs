//! Operators that gather a whole stream: fold, reduce and count. They emit at the end of input.

use std::marker::PhantomData;

use super::{Emit, Operator, Promise};
use crate::job::task::Fault;

/// `fold` over a whole stream: emits one accumulator.
pub struct Fold<F, I, A> {
    state: A,
    initial: A,
    function: F,
    types: PhantomData<fn(I)>,
}

impl<F, I, A: Clone> Fold<F, I, A> {
    pub(crate) fn new(initial: A, function: F) -> Self {
        Self { state: initial.clone(), initial, function, types: PhantomData }
    }
}

impl<F: Clone, I, A: Clone> Clone for Fold<F, I, A> {
    fn clone(&self) -> Self {
        Self::new(self.initial.clone(), self.function.clone())
    }
}

impl<F, I, A> Operator for Fold<F, I, A>
where
    F: FnMut(&mut A, I) + Send + 'static,
    I: Send + 'static,
    A: Clone + Send + 'static,
{
    type In = I;
    type Out = A;
    const GATHERS: Promise = Promise(true);

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Emit<A>) -> Result<(), Fault> {
        (self.function)(&mut self.state, record);
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<A>) -> Result<(), Fault> {
        out.emit(std::mem::replace(&mut self.state, self.initial.clone()))
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
    const GATHERS: Promise = Promise(true);

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
    const GATHERS: Promise = Promise(true);

    #[inline(always)]
    fn process(&mut self, _record: I, _out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.records += 1;
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(self.records)
    }
}
