//! `map_async` and `try_map_async`: one future per record, several of them in flight.
//!
//! What the user says of them is here; [`flight`] polls the futures. The task that takes records and sends the results
//! on is in `stream/map_async.rs`.

mod flight;
mod wakes;

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

pub(crate) use flight::Flight;

use super::Retry;
use super::map::clone_by_function;
use super::side::{DeadLetter, Leaves};
use crate::{BoxError, sync};

/// In which order the results of [`map_async`](crate::Stream::map_async) leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// In the order of the records they were made of. A slow future holds back the results of those behind it; they
    /// count towards the capacity until they leave.
    Ordered,
    /// As the futures complete: the order of the stream is given up.
    Unordered,
}

/// Why the engine, and not the function itself, failed a record of [`map_async`](crate::Stream::map_async).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AsyncError {
    /// The record took longer than its timeout.
    #[error("its future did not complete within {limit:?} and was dropped")]
    TimedOut {
        /// The timeout.
        limit: Duration,
    },
}

/// When a future began with its record; `None` while it has not.
pub(crate) type Since<U> = fn(&U) -> Option<std::time::Instant>;

/// How the futures of one operator are run.
pub(crate) struct Policy<I> {
    pub(crate) capacity: usize,
    pub(crate) order: Order,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Retry>,
    /// What keeps a record, for a further attempt or its dead letter.
    pub(crate) copy: Option<fn(&I) -> I>,
}

impl<I> Clone for Policy<I> {
    fn clone(&self) -> Self {
        Self { retry: self.retry.clone(), ..*self }
    }
}

/// The futures an operator may have in flight.
pub(crate) const MAX_CAPACITY: usize = 1 << 20;

/// Makes the future of a record.
pub trait AsyncFunction<I>: Clone + Send + 'static {
    /// What comes of a record.
    type Out: Send + 'static;
    /// The future.
    type Future: Future + Send + 'static;
    /// Makes it.
    fn call(&mut self, record: I) -> Self::Future;
    /// Tells a record from an error.
    fn result(output: <Self::Future as Future>::Output) -> Result<Self::Out, BoxError>;
    /// Whether the records that fail come out, as letters.
    const MOURNS: bool = false;
    /// What comes out for a record that failed, if it [`MOURNS`](Self::MOURNS).
    fn letter(letter: DeadLetter<I>) -> Option<Self::Out> {
        drop(letter);
        None
    }
}

/// A function whose futures give a record.
pub struct Sure<F, I> {
    function: F,
    types: PhantomData<fn(I)>,
}
clone_by_function!(Sure<I>);

impl<I, F, U> AsyncFunction<I> for Sure<F, I>
where
    I: 'static,
    F: FnMut(I) -> U + Clone + Send + 'static,
    U: Future + Send + 'static,
    U::Output: Send + 'static,
{
    type Out = U::Output;
    type Future = U;

    #[inline(always)]
    fn call(&mut self, record: I) -> U {
        (self.function)(record)
    }

    #[inline(always)]
    fn result(output: U::Output) -> Result<U::Output, BoxError> {
        Ok(output)
    }
}

/// A function whose futures give a record or an error.
pub struct Fallible<F, I, O, E> {
    function: F,
    types: PhantomData<fn(I) -> (O, E)>,
}
clone_by_function!(Fallible<I, O, E>);

impl<I, F, U, O, E> AsyncFunction<I> for Fallible<F, I, O, E>
where
    I: 'static,
    F: FnMut(I) -> U + Clone + Send + 'static,
    U: Future<Output = Result<O, E>> + Send + 'static,
    O: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Out = O;
    type Future = U;

    #[inline(always)]
    fn call(&mut self, record: I) -> U {
        (self.function)(record)
    }

    #[inline(always)]
    fn result(output: Result<O, E>) -> Result<O, BoxError> {
        output.map_err(Into::into)
    }
}

/// A function of whose records those that fail come out as dead letters, each in its turn, as if they were results.
#[derive(Clone)]
pub struct Mourned<F>(pub(crate) F);

impl<I: Send + 'static, F: AsyncFunction<I>> AsyncFunction<I> for Mourned<F> {
    type Out = Leaves<F::Out, DeadLetter<I>>;
    type Future = F::Future;
    const MOURNS: bool = true;

    #[inline(always)]
    fn call(&mut self, record: I) -> F::Future {
        self.0.call(record)
    }

    #[inline(always)]
    fn result(output: <F::Future as Future>::Output) -> Result<Self::Out, BoxError> {
        F::result(output).map(Leaves::Main)
    }

    fn letter(letter: DeadLetter<I>) -> Option<Self::Out> {
        Some(Leaves::Side(letter))
    }
}
