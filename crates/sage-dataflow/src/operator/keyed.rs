//! Operators with a state for each key: fold, reduce, aggregate, map with state, distinct, top_k.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::convert::Infallible;
use std::marker::PhantomData;

use foldhash::fast::RandomState;

use super::Output;
use super::function::FoldFunction;
use super::states::Keeps;
use crate::BoxError;
use crate::chain::{CloseContext, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::key::KeySelector;
use crate::time::Timestamp;

/// The state of each key.
pub(super) type States<K, V> = HashMap<K, V, RandomState>;

/// The state of a record's key, made by `$new` if the key is new.
///
/// Looked up by reference first: nearly every key is there already, and need not be owned then. A macro, as the
/// borrow checker does not accept a function that returns one of two borrows of a table.
macro_rules! state_of {
    ($states:expr, $selector:ty, $key:expr, $record:expr, $new:expr) => {{
        let key = $key.select(&$record);
        match <$selector>::find(&mut $states, &key) {
            Some(state) => state,
            None => $states.entry(<$selector>::into_key(key)).or_insert_with($new),
        }
    }};
}

pub(super) use state_of;

/// `fold` per key: emits a pair of key and accumulator for each key.
pub(crate) struct KeyedFold<S: KeySelector<I>, F, I, A> {
    key: S,
    initial: A,
    function: F,
    states: States<S::Key, A>,
}

impl<S: KeySelector<I>, F, I, A> KeyedFold<S, F, I, A> {
    pub(crate) fn new(key: S, initial: A, function: F) -> Self {
        Self { key, initial, function, states: HashMap::default() }
    }
}

impl<S: KeySelector<I>, F: Clone, I, A: Clone> Clone for KeyedFold<S, F, I, A> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.initial.clone(), self.function.clone())
    }
}

impl<S, F, I, A> Stage for KeyedFold<S, F, I, A>
where
    S: KeySelector<I>,
    F: FoldFunction<A, I>,
    I: Send + 'static,
    A: Clone + Send + 'static,
{
    type In = I;
    type Out = (S::Key, A);
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.function.open(cx).map_err(Fault::Error)
    }

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        let state = state_of!(self.states, S, self.key, record, || self.initial.clone());
        self.function.fold(state, record).map_err(Fault::Error)
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        for pair in std::mem::take(&mut self.states) {
            out.emit(pair)?;
        }
        Ok(())
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.function.close(cx)
    }
}

/// `aggregate` per key: a fold whose accumulators are turned into results at the end.
pub(crate) struct KeyedAggregate<S: KeySelector<I>, F, G, I, A, R> {
    fold: KeyedFold<S, F, I, A>,
    result: G,
    results: PhantomData<fn() -> R>,
}

impl<S: KeySelector<I>, F, G, I, A, R> KeyedAggregate<S, F, G, I, A, R> {
    pub(crate) fn new(key: S, initial: A, function: F, result: G) -> Self {
        Self { fold: KeyedFold::new(key, initial, function), result, results: PhantomData }
    }
}

impl<S: KeySelector<I>, F: Clone, G: Clone, I, A: Clone, R> Clone for KeyedAggregate<S, F, G, I, A, R> {
    fn clone(&self) -> Self {
        Self { fold: self.fold.clone(), result: self.result.clone(), results: PhantomData }
    }
}

impl<S, F, G, I, A, R> Stage for KeyedAggregate<S, F, G, I, A, R>
where
    S: KeySelector<I>,
    F: FnMut(&mut A, I) + Send + 'static,
    G: FnMut(A) -> R + Send + 'static,
    I: Send + 'static,
    A: Clone + Send + 'static,
    R: Send + 'static,
{
    type In = I;
    type Out = (S::Key, R);
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        let _ = out;
        let state = state_of!(self.fold.states, S, self.fold.key, record, || self.fold.initial.clone());
        (self.fold.function)(state, record);
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        for (key, state) in std::mem::take(&mut self.fold.states) {
            out.emit((key, (self.result)(state)))?;
        }
        Ok(())
    }
}

/// `reduce` per key: emits a pair of key and record for each key.
pub(crate) struct KeyedReduce<S: KeySelector<I>, F, I> {
    key: S,
    function: F,
    states: States<S::Key, Option<I>>,
}

impl<S: KeySelector<I>, F, I> KeyedReduce<S, F, I> {
    pub(crate) fn new(key: S, function: F) -> Self {
        Self { key, function, states: HashMap::default() }
    }
}

impl<S: KeySelector<I>, F: Clone, I> Clone for KeyedReduce<S, F, I> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.function.clone())
    }
}

impl<S, F, I> Stage for KeyedReduce<S, F, I>
where
    S: KeySelector<I>,
    F: FnMut(I, I) -> I + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = (S::Key, I);
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        let state = state_of!(self.states, S, self.key, record, || None);
        *state = Some(match state.take() {
            Some(reduced) => (self.function)(reduced, record),
            None => record,
        });
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        for (key, state) in std::mem::take(&mut self.states) {
            if let Some(record) = state {
                out.emit((key, record))?;
            }
        }
        Ok(())
    }
}

/// `map_with_state`: a function of each record and the state of its key.
pub(crate) struct KeyedMap<S, F, I, A, O, B> {
    key: S,
    initial: A,
    function: F,
    states: B,
    types: PhantomData<fn(I) -> O>,
}

impl<S, F, I, A, O, B> KeyedMap<S, F, I, A, O, B> {
    pub(crate) fn new(key: S, initial: A, function: F, states: B) -> Self {
        Self { key, initial, function, states, types: PhantomData }
    }
}

impl<S: KeySelector<I>, F: Clone, I, A: Clone, O, B: Keeps<S::Key, A>> Clone for KeyedMap<S, F, I, A, O, B> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.initial.clone(), self.function.clone(), self.states.afresh())
    }
}

impl<S, F, I, A, O, B> Stage for KeyedMap<S, F, I, A, O, B>
where
    B: Keeps<S::Key, A>,
    S: KeySelector<I>,
    F: FnMut(&mut A, I) -> O + Send + 'static,
    I: Send + 'static,
    A: Clone + Send + 'static,
    O: Send + 'static,
{
    type In = I;
    type Out = O;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ONE_TO_ONE;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.states.open(cx.clock());
        Ok(())
    }

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        let Self { key, initial, function, states, .. } = self;
        let result = states.with(key, record, || initial.clone(), |state, record| function(state, record));
        out.emit(result)
    }

    fn signal(&mut self, signal: Signal, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal == Signal::Time {
            self.states.free();
        }
        Ok(())
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.states.wake_at()
    }
}

/// `flat_map_with_state`: what a function pushes for each record, given the state of its key.
pub(crate) struct KeyedFlatMap<S, F, I, A, O, B> {
    key: S,
    initial: A,
    function: F,
    states: B,
    types: PhantomData<fn(I) -> O>,
}

impl<S, F, I, A, O, B> KeyedFlatMap<S, F, I, A, O, B> {
    pub(crate) fn new(key: S, initial: A, function: F, states: B) -> Self {
        Self { key, initial, function, states, types: PhantomData }
    }
}

impl<S: KeySelector<I>, F: Clone, I, A: Clone, O, B: Keeps<S::Key, A>> Clone for KeyedFlatMap<S, F, I, A, O, B> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.initial.clone(), self.function.clone(), self.states.afresh())
    }
}

impl<S, F, I, A, O, B> Stage for KeyedFlatMap<S, F, I, A, O, B>
where
    B: Keeps<S::Key, A>,
    S: KeySelector<I>,
    F: FnMut(&mut A, I, &mut Output<'_, O>) + Send + 'static,
    I: Send + 'static,
    A: Clone + Send + 'static,
    O: Send + 'static,
{
    type In = I;
    type Out = O;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ANY;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.states.open(cx.clock());
        Ok(())
    }

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        let Self { key, initial, function, states, .. } = self;
        let act = |state: &mut A, record| Output::over(out, |output| function(state, record, output));
        states.with(key, record, || initial.clone(), act)
    }

    fn signal(&mut self, signal: Signal, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal == Signal::Time {
            self.states.free();
        }
        Ok(())
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.states.wake_at()
    }
}

/// `distinct`: the first record of each key.
pub(crate) struct Distinct<S, I, B> {
    key: S,
    seen: B,
    records: PhantomData<fn(I)>,
}

impl<S, I, B> Distinct<S, I, B> {
    pub(crate) fn new(key: S, seen: B) -> Self {
        Self { key, seen, records: PhantomData }
    }
}

impl<S: KeySelector<I>, I, B: Keeps<S::Key, bool>> Clone for Distinct<S, I, B> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.seen.afresh())
    }
}

impl<S: KeySelector<I>, I: Send + 'static, B: Keeps<S::Key, bool>> Stage for Distinct<S, I, B> {
    type In = I;
    type Out = I;
    type Side = Infallible;
    const FLAGS: Flags = Flags::AT_MOST_ONE;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.seen.open(cx.clock());
        Ok(())
    }

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<I, Infallible>) -> Result<(), Fault> {
        let first = |seen: &mut bool, record| (!std::mem::replace(seen, true)).then_some(record);
        match self.seen.with(&mut self.key, record, || false, first) {
            Some(record) => out.emit(record),
            None => Ok(()),
        }
    }

    fn signal(&mut self, signal: Signal, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal == Signal::Time {
            self.seen.free();
        }
        Ok(())
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.seen.wake_at()
    }
}

/// `top_k`: the records of each key with the largest ranks.
pub(crate) struct TopK<S: KeySelector<I>, F, I, R> {
    key: S,
    most: usize,
    rank: F,
    taken: u64,
    states: States<S::Key, Top<I, R>>,
}

/// Some records, the one with the smallest rank on top; of equal ranks the later is the smaller.
type Top<I, R> = BinaryHeap<Reverse<Ranked<I, R>>>;

struct Ranked<I, R> {
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

impl<S: KeySelector<I>, F, I, R: Ord> TopK<S, F, I, R> {
    pub(crate) fn new(key: S, most: usize, rank: F) -> Self {
        Self { key, most, rank, taken: 0, states: HashMap::default() }
    }
}

impl<S: KeySelector<I>, F: Clone, I, R: Ord> Clone for TopK<S, F, I, R> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.most, self.rank.clone())
    }
}

impl<S, F, I, R> Stage for TopK<S, F, I, R>
where
    S: KeySelector<I>,
    F: FnMut(&I) -> R + Send + 'static,
    I: Send + 'static,
    R: Ord + Send + 'static,
{
    type In = I;
    type Out = (S::Key, Vec<I>);
    type Side = Infallible;
    const FLAGS: Flags = Flags::GATHERS;

    #[inline(always)]
    fn process(&mut self, record: I, _out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        let rank = (self.rank)(&record);
        self.taken += 1;
        let order = u64::MAX - self.taken;
        let top = state_of!(self.states, S, self.key, record, BinaryHeap::new);
        if top.len() < self.most {
            top.push(Reverse(Ranked { rank, order, record }));
        } else if let Some(mut smallest) = top.peek_mut()
            && rank > smallest.0.rank
        {
            *smallest = Reverse(Ranked { rank, order, record });
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return Ok(());
        }
        for (key, top) in std::mem::take(&mut self.states) {
            let largest_first = top.into_sorted_vec();
            out.emit((key, largest_first.into_iter().map(|Reverse(ranked)| ranked.record).collect()))?;
        }
        Ok(())
    }
}
