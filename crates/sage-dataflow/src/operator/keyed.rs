//! Operators with a state for each key that emit at once: map and flat_map with state, distinct.

use std::convert::Infallible;
use std::marker::PhantomData;

use super::map::{Output, Through};
use super::states::Keeps;
use crate::chain::{Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::key::{KeySelector, Noted};
use crate::time::Timestamp;

/// What an operator does with a record and the state of its key.
pub(crate) trait StateFunction<I, A, O>: Clone + Send + 'static {
    /// What it promises of itself.
    const FLAGS: Flags;

    fn call(&mut self, state: &mut A, record: I, out: &mut impl Emit<O>) -> Result<(), Fault>;
}

/// `map_with_state`: one record for each.
#[derive(Clone)]
pub(crate) struct MapWithState<F>(pub(crate) F);

impl<I, A, O, F: FnMut(&mut A, I) -> O + Clone + Send + 'static> StateFunction<I, A, O> for MapWithState<F> {
    const FLAGS: Flags = Flags::ONE_TO_ONE;

    #[inline(always)]
    fn call(&mut self, state: &mut A, record: I, out: &mut impl Emit<O>) -> Result<(), Fault> {
        out.emit((self.0)(state, record))
    }
}

/// `flat_map_with_state`: what the function pushes.
#[derive(Clone)]
pub(crate) struct FlatMapWithState<F>(pub(crate) F);

impl<I, A, O, F> StateFunction<I, A, O> for FlatMapWithState<F>
where
    F: FnMut(&mut A, I, &mut Output<'_, O>) + Clone + Send + 'static,
{
    const FLAGS: Flags = Flags::ANY;

    #[inline(always)]
    fn call(&mut self, state: &mut A, record: I, out: &mut impl Emit<O>) -> Result<(), Fault> {
        let mut way = Through(out);
        let mut output = Output::over(&mut way);
        (self.0)(state, record, &mut output);
        output.end()
    }
}

/// `distinct`: the first record of each key. The state is whether there was one.
#[derive(Clone)]
pub(crate) struct Distinct;

impl<I> StateFunction<I, bool, I> for Distinct {
    const FLAGS: Flags = Flags::AT_MOST_ONE;

    #[inline(always)]
    fn call(&mut self, seen: &mut bool, record: I, out: &mut impl Emit<I>) -> Result<(), Fault> {
        if std::mem::replace(seen, true) { Ok(()) } else { out.emit(record) }
    }
}

/// Calls a function with each record and the state of its key.
pub(crate) struct WithState<S: KeySelector<I>, F, I, A, O, B> {
    key: S,
    initial: A,
    function: F,
    states: B,
    noted: Noted<S::Noted>,
    /// When a record happened, where that counts.
    time: fn(&I) -> Timestamp,
    types: PhantomData<fn(I) -> O>,
}

impl<S: KeySelector<I>, F, I, A, O, B> WithState<S, F, I, A, O, B> {
    pub(crate) fn new(key: S, initial: A, function: F, states: B, time: fn(&I) -> Timestamp) -> Self {
        Self { key, initial, function, states, noted: Noted::new(), time, types: PhantomData }
    }
}

impl<S: KeySelector<I>, F: Clone, I, A: Clone, O, B: Keeps<S::Key, A>> Clone for WithState<S, F, I, A, O, B> {
    fn clone(&self) -> Self {
        let (key, initial, function) = (self.key.clone(), self.initial.clone(), self.function.clone());
        Self::new(key, initial, function, self.states.afresh(), self.time)
    }
}

impl<S, F, I, A, O, B> Stage for WithState<S, F, I, A, O, B>
where
    S: KeySelector<I>,
    F: StateFunction<I, A, O>,
    I: Send + 'static,
    A: Clone + Send + 'static,
    O: Send + 'static,
    B: Keeps<S::Key, A>,
{
    type In = I;
    type Out = O;
    type Side = Infallible;
    const FLAGS: Flags = F::FLAGS;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.states.open(cx.clock());
        Ok(())
    }

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        let Self { key, initial, function, states, noted, time, .. } = self;
        let (hash, key) = noted.select(key, &record, |key| states.begin(key));
        let state = states.state::<S, I>(hash, key, || time(&record), || initial.clone());
        function.call(state, record, out)
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.noted.restart(self.states.is_large())
    }

    #[inline(always)]
    fn ahead(&mut self, record: &I) {
        self.noted.note(&mut self.key, record, |key| self.states.begin(key));
    }

    fn signal(&mut self, signal: Signal, _out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::Time => self.states.free(),
            Signal::Watermark(watermark) => self.states.advance(Timestamp::from_millis(watermark.millis)),
            _ => {}
        }
        Ok(())
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.states.wake_at()
    }
}
