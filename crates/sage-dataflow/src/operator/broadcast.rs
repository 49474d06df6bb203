//! Operators with a broadcast state: every replica keeps a copy of it, brings that up to date with the records of one
//! stream, and reads it for each record of the other.

use std::convert::Infallible;
use std::marker::PhantomData;

use super::connect::In2;
use super::map::{Output, Through};
use crate::chain::{Fault, Flags, Outlet, Stage};
use crate::key::KeySelector;
use crate::table::Table;

/// What is done with a record `I`, by the broadcast state `B`.
pub(crate) trait WithBroadcast<B, I, O>: Clone + Send + 'static {
    fn call(&mut self, broadcast: &B, record: I, output: &mut Output<'_, O>);
}

/// Calls a function.
#[derive(Clone)]
pub(crate) struct ByBroadcast<F>(pub(crate) F);

impl<B, I, O, F> WithBroadcast<B, I, O> for ByBroadcast<F>
where
    F: FnMut(&B, I, &mut Output<'_, O>) + Clone + Send + 'static,
{
    #[inline(always)]
    fn call(&mut self, broadcast: &B, record: I, output: &mut Output<'_, O>) {
        (self.0)(broadcast, record, output);
    }
}

/// Calls a function, which gets the state of the record's key as well.
pub(crate) struct ByBroadcastAndKey<S: KeySelector<I>, F, I, A> {
    key: S,
    initial: A,
    function: F,
    states: Table<S::Key, A>,
}

impl<S: KeySelector<I>, F, I, A> ByBroadcastAndKey<S, F, I, A> {
    pub(crate) fn new(key: S, initial: A, function: F) -> Self {
        Self { key, initial, function, states: Table::default() }
    }
}

impl<S: KeySelector<I>, F: Clone, I, A: Clone> Clone for ByBroadcastAndKey<S, F, I, A> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.initial.clone(), self.function.clone())
    }
}

impl<B, I, O, S, F, A> WithBroadcast<B, I, O> for ByBroadcastAndKey<S, F, I, A>
where
    S: KeySelector<I>,
    F: FnMut(&B, &mut A, I, &mut Output<'_, O>) + Clone + Send + 'static,
    I: Send + 'static,
    A: Clone + Send + 'static,
{
    fn call(&mut self, broadcast: &B, record: I, output: &mut Output<'_, O>) {
        let state = self.key.state_of(&mut self.states, &record, || self.initial.clone());
        (self.function)(broadcast, state, record, output);
    }
}

/// The copy of one replica, what brings it up to date, and what reads it.
pub(crate) struct Broadcasting<B, U, F, I, R, O> {
    state: B,
    update: U,
    function: F,
    types: PhantomData<fn(I, R) -> O>,
}

impl<B, U, F, I, R, O> Broadcasting<B, U, F, I, R, O> {
    pub(crate) fn new(state: B, update: U, function: F) -> Self {
        Self { state, update, function, types: PhantomData }
    }
}

impl<B: Clone, U: Clone, F: Clone, I, R, O> Clone for Broadcasting<B, U, F, I, R, O> {
    fn clone(&self) -> Self {
        Self::new(self.state.clone(), self.update.clone(), self.function.clone())
    }
}

impl<B, U, F, I, R, O> Stage for Broadcasting<B, U, F, I, R, O>
where
    B: Clone + Send + 'static,
    U: FnMut(&mut B, R) + Clone + Send + 'static,
    F: WithBroadcast<B, I, O>,
    I: Send + 'static,
    R: Send + 'static,
    O: Send + 'static,
{
    type In = In2<I, R>;
    type Out = O;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ANY;

    #[inline(always)]
    fn process(&mut self, record: In2<I, R>, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        let Self { state, update, function, .. } = self;
        match record {
            In2::A(record) => {
                let mut way = Through(out);
                let mut output = Output::over(&mut way);
                function.call(state, record, &mut output);
                output.end()
            }
            In2::B(record) => {
                update(state, record);
                Ok(())
            }
        }
    }
}
