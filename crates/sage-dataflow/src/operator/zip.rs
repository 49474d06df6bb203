//! `zip`: pairs the i-th record of one stream with the i-th of the other.
//!
//! Both inputs are read as they come, so that neither can block the other. The records by which one is ahead wait here:
//! at most one of the two queues holds any.

use std::collections::VecDeque;
use std::convert::Infallible;

use super::connect::In2;
use crate::chain::{Fault, Flags, Outlet, Signal, Stage, Stop};
use crate::guarded::opaque;

/// How many records one stream may be ahead of the other, unless the user says otherwise.
pub(crate) const DEFAULT_AHEAD: usize = 100_000_000;

/// Why a `zip` failed the job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// One stream is further ahead of the other than the limit allows.
    #[error("the {side} stream is more than {limit} records ahead of the other; see `max_ahead`")]
    Ahead {
        /// Which stream, `left` or `right`.
        side: &'static str,
        /// How many records one stream may be ahead.
        limit: usize,
    },
}

/// `zip`.
pub struct Zip<A, B> {
    left: Side<A>,
    right: Side<B>,
    pub(crate) max_ahead: usize,
}
opaque!(Zip<A, B>);

/// What one stream is ahead.
struct Side<T> {
    ahead: VecDeque<T>,
    ended: bool,
}

impl<T> Side<T> {
    fn new() -> Self {
        Self { ahead: VecDeque::new(), ended: false }
    }

    /// Whether nothing will ever come from here.
    fn is_over(&self) -> bool {
        self.ended && self.ahead.is_empty()
    }

    fn keep(&mut self, record: T, side: &'static str, limit: usize) -> Result<(), Fault> {
        if self.ahead.len() >= limit {
            return Err(ZipError::Ahead { side, limit }.into());
        }
        self.ahead.push_back(record);
        Ok(())
    }
}

impl<A, B> Zip<A, B> {
    pub(crate) fn new(max_ahead: usize) -> Self {
        Self { left: Side::new(), right: Side::new(), max_ahead }
    }

    /// Ends the chain, and what is before it, when no pair can come any more.
    fn unless_over(&self) -> Result<(), Fault> {
        if self.left.is_over() || self.right.is_over() { Err(Stop::Satisfied.into()) } else { Ok(()) }
    }
}

impl<A, B> Clone for Zip<A, B> {
    fn clone(&self) -> Self {
        Self::new(self.max_ahead)
    }
}

impl<A: Send + 'static, B: Send + 'static> Stage for Zip<A, B> {
    type In = In2<A, B>;
    type Out = (A, B);
    type Side = Infallible;
    const FLAGS: Flags = Flags::ANY;

    #[inline(always)]
    fn process(&mut self, record: In2<A, B>, out: &mut impl Outlet<(A, B), Infallible>) -> Result<(), Fault> {
        match record {
            In2::A(left) => match self.right.ahead.pop_front() {
                Some(right) => out.emit((left, right))?,
                None => self.left.keep(left, "left", self.max_ahead)?,
            },
            In2::B(right) => match self.left.ahead.pop_front() {
                Some(left) => out.emit((left, right))?,
                None => self.right.keep(right, "right", self.max_ahead)?,
            },
        }
        self.unless_over()
    }

    fn signal(&mut self, signal: Signal, _out: &mut impl Outlet<(A, B), Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::InputEnded(0) => self.left.ended = true,
            Signal::InputEnded(_) => self.right.ended = true,
            _ => return Ok(()),
        }
        self.unless_over()
    }
}
