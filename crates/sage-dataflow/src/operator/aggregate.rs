//! Aggregates of a window: a fold, a reduction, a count, or the records themselves. Knows nothing of when windows
//! begin, fire and end.

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
    fn start(&self) -> Self::State;
    #[doc(hidden)]
    fn add(&mut self, state: &mut Self::State, value: &T);
    /// As `add`, for the last window that a record is in.
    #[doc(hidden)]
    fn take(&mut self, state: &mut Self::State, value: T);
    #[doc(hidden)]
    fn merge(&mut self, state: &mut Self::State, other: Self::State);
    /// The result, of a window that may fire again.
    #[doc(hidden)]
    fn look(&mut self, key: &K, window: Window, state: &Self::State) -> Self::Out;
    #[doc(hidden)]
    fn finish(&mut self, key: &K, window: Window, state: Self::State) -> Self::Out {
        self.look(key, window, &state)
    }
}

/// Folds the records into an accumulator.
#[derive(Clone)]
pub struct Folded<A, F> {
    pub(crate) initial: A,
    pub(crate) function: F,
}

impl<K, T, A, F> Aggregate<K, T> for Folded<A, F>
where
    A: Clone + Send + 'static,
    F: FnMut(&mut A, &T) + Clone + Send + 'static,
{
    type State = A;
    type Out = A;
    const MERGES: bool = false;

    #[inline(always)]
    fn start(&self) -> A {
        self.initial.clone()
    }
    #[inline(always)]
    fn add(&mut self, state: &mut A, value: &T) {
        (self.function)(state, value);
    }
    #[inline(always)]
    fn take(&mut self, state: &mut A, value: T) {
        (self.function)(state, &value);
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
}

/// Reduces the records to one.
#[derive(Clone)]
pub struct Reduced<F> {
    pub(crate) function: F,
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
    fn add(&mut self, state: &mut Option<T>, value: &T) {
        Aggregate::<K, T>::take(self, state, value.clone());
    }
    #[inline(always)]
    fn take(&mut self, state: &mut Option<T>, value: T) {
        *state = Some(match state.take() {
            Some(reduced) => (self.function)(reduced, value),
            None => value,
        });
    }
    fn merge(&mut self, state: &mut Option<T>, other: Option<T>) {
        if let Some(value) = other {
            Aggregate::<K, T>::take(self, state, value);
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
#[derive(Clone)]
pub struct Counted;

impl<K, T> Aggregate<K, T> for Counted {
    type State = u64;
    type Out = u64;
    const MERGES: bool = true;

    #[inline(always)]
    fn start(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn add(&mut self, state: &mut u64, _value: &T) {
        *state += 1;
    }
    #[inline(always)]
    fn take(&mut self, state: &mut u64, _value: T) {
        *state += 1;
    }
    fn merge(&mut self, state: &mut u64, other: u64) {
        *state += other;
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
    fn add(&mut self, state: &mut Vec<T>, value: &T) {
        state.push(value.clone());
    }
    #[inline(always)]
    fn take(&mut self, state: &mut Vec<T>, value: T) {
        state.push(value);
    }
    fn merge(&mut self, state: &mut Vec<T>, mut other: Vec<T>) {
        state.append(&mut other);
    }
    fn look(&mut self, key: &K, window: Window, state: &Vec<T>) -> O {
        (self.function)(key, window, state)
    }
}
