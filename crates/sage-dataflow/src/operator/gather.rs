//! Operators that gather records and emit at the end of input, over a whole stream or for each key: fold, aggregate,
//! reduce, count, top_k.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::convert::Infallible;

use super::function::FoldFunction;
use crate::BoxError;
use crate::chain::{CloseContext, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::key::{KeySelector, Noted};
use crate::table::Table;

/// Gathers records in a state, and makes a result of it.
pub(crate) trait Gather<I>: Clone + Send + 'static {
    /// What is kept until the end.
    type State: Send + 'static;
    /// The result.
    type Out: Send + 'static;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let _ = cx;
        Ok(())
    }
    fn start(&self) -> Self::State;
    fn add(&mut self, state: &mut Self::State, record: I) -> Result<(), Fault>;
    /// The result, if there is one without any record.
    fn finish(&mut self, state: Self::State) -> Option<Self::Out>;
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// Folds records into an accumulator, which is turned into the result.
#[derive(Clone)]
pub(crate) struct Folding<A, F, G> {
    pub(crate) initial: A,
    pub(crate) function: F,
    pub(crate) result: G,
}

/// A fold whose result is the accumulator.
pub(crate) fn folding<A: 'static, F>(
    initial: A,
    function: F,
) -> Folding<A, F, impl FnMut(A) -> A + Clone + Send + 'static> {
    Folding { initial, function, result: std::convert::identity }
}

/// Counts records.
pub(crate) fn counting<I>() -> impl Gather<I, State = u64, Out = u64> {
    folding(0, |records: &mut u64, _record: I| *records += 1)
}

impl<I, A, R, F, G> Gather<I> for Folding<A, F, G>
where
    A: Clone + Send + 'static,
    R: Send + 'static,
    F: FoldFunction<A, I>,
    G: FnMut(A) -> R + Clone + Send + 'static,
{
    type State = A;
    type Out = R;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.function.open(cx).map_err(Fault::Error)
    }

    #[inline(always)]
    fn start(&self) -> A {
        self.initial.clone()
    }

    #[inline(always)]
    fn add(&mut self, state: &mut A, record: I) -> Result<(), Fault> {
        self.function.fold(state, record).map_err(Fault::Error)
    }

    fn finish(&mut self, state: A) -> Option<R> {
        Some((self.result)(state))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.function.close(cx)
    }
}

/// Reduces records to one.
#[derive(Clone)]
pub(crate) struct Reducing<F>(pub(crate) F);

impl<I, F> Gather<I> for Reducing<F>
where
    I: Send + 'static,
    F: FnMut(I, I) -> I + Clone + Send + 'static,
{
    type State = Option<I>;
    type Out = I;

    fn start(&self) -> Option<I> {
        None
    }

    #[inline(always)]
    fn add(&mut self, state: &mut Option<I>, record: I) -> Result<(), Fault> {
        *state = Some(match state.take() {
            Some(reduced) => (self.0)(reduced, record),
            None => record,
        });
        Ok(())
    }

    fn finish(&mut self, state: Option<I>) -> Option<I> {
        state
    }
}

/// Keeps the records with the largest ranks.
#[derive(Clone)]
pub(crate) struct Top<F> {
    most: usize,
    rank: F,
    taken: u64,
}

impl<F> Top<F> {
    pub(crate) fn new(most: usize, rank: F) -> Self {
        Self { most, rank, taken: 0 }
    }
}

pub(crate) struct Ranked<I, R> {
    rank: R,
    /// Counts down, so that the earlier of two equal ranks is the larger.
    order: u64,
    record: I,
}

impl<I, R: Ord> Ord for Ranked<I, R> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank).then(self.order.cmp(&other.order))
    }
}

impl<I, R: Ord> PartialOrd for Ranked<I, R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<I, R: Ord> PartialEq for Ranked<I, R> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<I, R: Ord> Eq for Ranked<I, R> {}

impl<I, R, F> Gather<I> for Top<F>
where
    I: Send + 'static,
    R: Ord + Send + 'static,
    F: FnMut(&I) -> R + Clone + Send + 'static,
{
    /// The one with the smallest rank on top; of equal ranks the later is the smaller.
    type State = BinaryHeap<Reverse<Ranked<I, R>>>;
    type Out = Vec<I>;

    fn start(&self) -> Self::State {
        BinaryHeap::new()
    }

    #[inline(always)]
    fn add(&mut self, top: &mut Self::State, record: I) -> Result<(), Fault> {
        let rank = (self.rank)(&record);
        self.taken += 1;
        let order = u64::MAX - self.taken;
        if top.len() < self.most {
            top.push(Reverse(Ranked { rank, order, record }));
        } else if let Some(mut smallest) = top.peek_mut()
            && rank > smallest.0.rank
        {
            *smallest = Reverse(Ranked { rank, order, record });
        }
        Ok(())
    }

    fn finish(&mut self, top: Self::State) -> Option<Vec<I>> {
        let largest_first = top.into_sorted_vec().into_iter();
        Some(largest_first.map(|Reverse(ranked)| ranked.record).collect())
    }
}

/// Gathers a whole stream.
pub(crate) struct GatherAll<G: Gather<I>, I> {
    gather: G,
    state: G::State,
}

impl<G: Gather<I>, I> GatherAll<G, I> {
    pub(crate) fn new(gather: G) -> Self {
        Self { state: gather.start(), gather }
    }
}

impl<G: Gather<I>, I> Clone for GatherAll<G, I> {
    fn clone(&self) -> Self {
        Self::new(self.gather.clone())
    }
}

impl<G: Gather<I>, I: Send + 'static> Stage for GatherAll<G, I> {
    type In = I;
    type Out = G::Out;
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.gather.open(cx)
    }

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        self.gather.add(&mut self.state, record)
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        let state = std::mem::replace(&mut self.state, self.gather.start());
        self.gather.finish(state).map_or(Ok(()), |result| out.emit(result))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.gather.close(cx)
    }
}

/// Gathers the records of each key: emits pairs of key and result.
pub(crate) struct GatherByKey<S: KeySelector<I>, G: Gather<I>, I> {
    key: S,
    gather: G,
    states: Table<S::Key, G::State>,
    noted: Noted<S::Noted>,
}

impl<S: KeySelector<I>, G: Gather<I>, I> GatherByKey<S, G, I> {
    pub(crate) fn new(key: S, gather: G) -> Self {
        Self { key, gather, states: Table::default(), noted: Noted::new() }
    }
}

impl<S: KeySelector<I>, G: Gather<I>, I> Clone for GatherByKey<S, G, I> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.gather.clone())
    }
}

impl<S: KeySelector<I>, G: Gather<I>, I: Send + 'static> Stage for GatherByKey<S, G, I> {
    type In = I;
    type Out = (S::Key, G::Out);
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.gather.open(cx)
    }

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        let Self { key, gather, states, noted } = self;
        let (hash, key) = noted.select(key, &record, |key| states.begin(key));
        let state = S::entry(states, hash, key, |key| (S::into_key(key), gather.start()));
        gather.add(state, record)
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.noted.restart(self.states.is_large())
    }

    #[inline(always)]
    fn ahead(&mut self, record: &I) {
        self.noted.note(&mut self.key, record, |key| self.states.begin(key));
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        for (key, state) in std::mem::take(&mut self.states) {
            if let Some(result) = self.gather.finish(state) {
                out.emit((key, result))?;
            }
        }
        Ok(())
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.gather.close(cx)
    }
}
