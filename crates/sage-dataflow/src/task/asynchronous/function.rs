//! The user's side of `map_async`: the function that makes futures, their order, and the error of a timeout.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use crate::BoxError;
use crate::chain::{CloseContext, OpenContext};
use crate::guarded::opaque;
use crate::operator::clone_by_function;
use crate::retry::Retry;

/// The order in which the results of [`map_async`](crate::Stream::map_async) leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// In the order of the records. A slow future holds back the results behind it, which count as in flight until
    /// they leave.
    Ordered,
    /// As the futures complete. The order of the stream is lost.
    Unordered,
}

/// An error of [`map_async`](crate::Stream::map_async) that comes from the engine and not from the function.
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
    pub(crate) in_flight: usize,
    pub(crate) order: Order,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Retry>,
    /// What keeps a record, for a further attempt or its dead letter.
    pub(crate) copy: Option<fn(&I) -> I>,
    /// Whether records that fail leave as dead letters.
    pub(crate) letters: bool,
}

impl<I> Clone for Policy<I> {
    fn clone(&self) -> Self {
        Self { retry: self.retry.clone(), ..*self }
    }
}

/// The futures an operator may have in flight.
pub(crate) const MAX_IN_FLIGHT: usize = 1 << 20;

/// Makes a future of each record, as the closure of [`map_async`](crate::Stream::map_async) does. Implement it for a
/// function that needs `open` and `close`.
pub trait AsyncFunction<I>: Clone + Send + 'static {
    /// The records it emits.
    type Out: Send + 'static;
    /// The future.
    type Future: Future + Send + 'static;

    /// Runs once, on the task's own thread, before the first record. It may block.
    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Makes the future of a record.
    fn call(&mut self, record: I) -> Self::Future;

    /// Turns a future's output into a record or an error.
    fn result(output: <Self::Future as Future>::Output) -> Result<Self::Out, BoxError>;

    /// Runs once when the job is drained while futures are in flight or may follow. A future that waits to try
    /// something again should do so at once, for the last time.
    fn hurry(&mut self) {}

    /// Releases what `open` acquired, when all futures are done or dropped. Runs exactly once after `open` was called,
    /// whether or not `open` succeeded.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// A function whose futures give a record.
pub struct Sure<F, I> {
    function: F,
    types: PhantomData<fn(I)>,
}
clone_by_function!(Sure<I>);
opaque!(Sure<F, I>);

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
opaque!(Fallible<F, I, O, E>);

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
