//! Operators over a whole stream: fold, reduce and count. They emit at the end of input.

use std::convert::Infallible;
use std::marker::PhantomData;

use super::function::FoldFunction;
use crate::BoxError;
use crate::chain::{CloseContext, Fault, Flags, OpenContext, Outlet, Signal, Stage};

/// `fold` over a whole stream: emits one accumulator.
pub(crate) struct Fold<F, I, A> {
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

impl<F, I, A> Stage for Fold<F, I, A>
where
    F: FoldFunction<A, I>,
    I: Send + 'static,
    A: Clone + Send + 'static,
{
    type In = I;
    type Out = A;
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.function.open(cx).map_err(Fault::Error)
    }

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<A, Infallible>) -> Result<(), Fault> {
        self.function.fold(&mut self.state, record).map_err(Fault::Error)
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        out.emit(std::mem::replace(&mut self.state, self.initial.clone()))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.function.close(cx)
    }
}

/// `reduce` over a whole stream: emits one record, or none for an empty stream.
pub(crate) struct Reduce<F, I> {
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

impl<F, I> Stage for Reduce<F, I>
where
    F: FnMut(I, I) -> I + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = I;
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<I, Infallible>) -> Result<(), Fault> {
        self.state = Some(match self.state.take() {
            Some(state) => (self.function)(state, record),
            None => record,
        });
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        match self.state.take() {
            Some(state) => out.emit(state),
            None => Ok(()),
        }
    }
}

/// `count` of a whole stream: emits one number.
pub(crate) struct Count<I> {
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

impl<I: Send + 'static> Stage for Count<I> {
    type In = I;
    type Out = u64;
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    #[inline(always)]
    fn process(&mut self, _record: I, _out: &mut impl Outlet<u64, Infallible>) -> Result<(), Fault> {
        self.records += 1;
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        out.emit(self.records)
    }
}
