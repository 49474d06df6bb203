//! Aggregates of a window: a fold, a reduction, a count, or the records themselves. Knows nothing of when windows
//! begin, fire and end.

use super::function::FoldFunction;
use crate::BoxError;
use crate::chain::{CloseContext, Fault, OpenContext};
use crate::guarded::opaque;
use crate::time::Window;

/// An aggregate of a window's records. Only the engine implements it.
pub trait Aggregate<K, T>: Clone + Send + 'static {
    /// The state that is kept while the window is open.
    type State: Send + 'static;
    /// The result.
    type Out: Send + 'static;

    /// Whether two states can be made one. Where they cannot, a window that may merge keeps its records.
    #[doc(hidden)]
    const MERGES: bool;

    #[doc(hidden)]
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let _ = cx;
        Ok(())
    }
    #[doc(hidden)]
    fn start(&self) -> Self::State;
    #[doc(hidden)]
    fn add(&mut self, state: &mut Self::State, value: &T) -> Result<(), Fault>;
    /// As `add`, for the last window that a record is in.
    #[doc(hidden)]
    fn take(&mut self, state: &mut Self::State, value: T) -> Result<(), Fault>;
    #[doc(hidden)]
    fn merge(&mut self, state: &mut Self::State, other: Self::State);

    /// Whether the state of a pane can go into that of a window, and out of it again.
    #[doc(hidden)]
    const PANES: bool = false;
    #[doc(hidden)]
    fn enter(&mut self, window: &mut Self::State, pane: &Self::State) {
        let _ = (window, pane);
        unreachable!("without panes, no pane enters");
    }
    /// Whether the window has no record left.
    #[doc(hidden)]
    fn leave(&mut self, window: &mut Self::State, pane: &Self::State) -> bool {
        let _ = (window, pane);
        unreachable!("without panes, no pane leaves");
    }

    /// The result, of a window that may fire again.
    #[doc(hidden)]
    fn look(&mut self, key: &K, window: Window, state: &Self::State) -> Self::Out;
    #[doc(hidden)]
    fn finish(&mut self, key: &K, window: Window, state: Self::State) -> Self::Out {
        self.look(key, window, &state)
    }
    #[doc(hidden)]
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// Folds the records into an accumulator.
#[derive(Clone)]
pub struct Folded<A, F> {
    pub(crate) initial: A,
    pub(crate) function: F,
}
opaque!(Folded<A, F>);

impl<K, T, A, F> Aggregate<K, T> for Folded<A, F>
where
    A: Clone + Send + 'static,
    F: for<'a> FoldFunction<A, &'a T>,
{
    type State = A;
    type Out = A;
    const MERGES: bool = false;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        FoldFunction::<A, &T>::open(&mut self.function, cx).map_err(Fault::Error)
    }

    #[inline(always)]
    fn start(&self) -> A {
        self.initial.clone()
    }
    #[inline(always)]
    fn add(&mut self, state: &mut A, value: &T) -> Result<(), Fault> {
        self.function.fold(state, value).map_err(Fault::Error)
    }
    #[inline(always)]
    fn take(&mut self, state: &mut A, value: T) -> Result<(), Fault> {
        self.function.fold(state, &value).map_err(Fault::Error)
    }
    fn merge(&mut self, _state: &mut A, _other: A) {
        unreachable!("accumulators of a fold are not merged: the records are kept");
    }
    fn look(&mut self, _key: &K, _window: Window, state: &A) -> A {
        state.clone()
    }
    fn finish(&mut self, _key: &K, _window: Window, state: A) -> A {
        state
    }
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        FoldFunction::<A, &T>::close(&mut self.function, cx)
    }
}

/// Reduces the records to one.
#[derive(Clone)]
pub struct Reduced<F> {
    pub(crate) function: F,
}
opaque!(Reduced<F>);

impl<F> Reduced<F> {
    #[inline(always)]
    fn reduce<T>(&mut self, state: &mut Option<T>, value: T)
    where
        F: FnMut(T, T) -> T,
    {
        *state = Some(match state.take() {
            Some(reduced) => (self.function)(reduced, value),
            None => value,
        });
    }
}

impl<K, T, F> Aggregate<K, T> for Reduced<F>
where
    T: Clone + Send + 'static,
    F: FnMut(T, T) -> T + Clone + Send + 'static,
{
    type State = Option<T>;
    type Out = T;
    const MERGES: bool = true;

    #[inline(always)]
    fn start(&self) -> Option<T> {
        None
    }
    #[inline(always)]
    fn add(&mut self, state: &mut Option<T>, value: &T) -> Result<(), Fault> {
        self.reduce(state, value.clone());
        Ok(())
    }
    #[inline(always)]
    fn take(&mut self, state: &mut Option<T>, value: T) -> Result<(), Fault> {
        self.reduce(state, value);
        Ok(())
    }
    fn merge(&mut self, state: &mut Option<T>, other: Option<T>) {
        if let Some(value) = other {
            self.reduce(state, value);
        }
    }
    fn look(&mut self, key: &K, window: Window, state: &Option<T>) -> T {
        self.finish(key, window, state.clone())
    }
    fn finish(&mut self, _key: &K, _window: Window, state: Option<T>) -> T {
        state.expect("a window is made for a record")
    }
}

/// Counts the records.
#[derive(Debug, Clone)]
pub struct Counted;

impl<K, T> Aggregate<K, T> for Counted {
    type State = u64;
    type Out = u64;
    const MERGES: bool = true;
    const PANES: bool = true;

    #[inline(always)]
    fn start(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn add(&mut self, state: &mut u64, _value: &T) -> Result<(), Fault> {
        *state += 1;
        Ok(())
    }
    #[inline(always)]
    fn take(&mut self, state: &mut u64, _value: T) -> Result<(), Fault> {
        *state += 1;
        Ok(())
    }
    fn merge(&mut self, state: &mut u64, other: u64) {
        *state += other;
    }
    #[inline(always)]
    fn enter(&mut self, window: &mut u64, pane: &u64) {
        *window += pane;
    }
    #[inline(always)]
    fn leave(&mut self, window: &mut u64, pane: &u64) -> bool {
        *window -= pane;
        *window == 0
    }
    fn look(&mut self, _key: &K, _window: Window, state: &u64) -> u64 {
        *state
    }
}

/// Keeps the records for a function that sees them all.
#[derive(Clone)]
pub struct Applied<F> {
    pub(crate) function: F,
}
opaque!(Applied<F>);

impl<K, T, O, F> Aggregate<K, T> for Applied<F>
where
    T: Clone + Send + 'static,
    O: Send + 'static,
    F: FnMut(&K, Window, &[T]) -> O + Clone + Send + 'static,
{
    type State = Vec<T>;
    type Out = O;
    const MERGES: bool = true;

    fn start(&self) -> Vec<T> {
        Vec::new()
    }
    #[inline(always)]
    fn add(&mut self, state: &mut Vec<T>, value: &T) -> Result<(), Fault> {
        state.push(value.clone());
        Ok(())
    }
    #[inline(always)]
    fn take(&mut self, state: &mut Vec<T>, value: T) -> Result<(), Fault> {
        state.push(value);
        Ok(())
    }
    fn merge(&mut self, state: &mut Vec<T>, mut other: Vec<T>) {
        state.append(&mut other);
    }
    fn look(&mut self, key: &K, window: Window, state: &Vec<T>) -> O {
        (self.function)(key, window, state)
    }
}
