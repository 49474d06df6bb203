//! [`Stage`]: an operator as the engine runs it.
//!
//! Built-in operators implement it, and the engine turns a user's [`Operator`](super::Operator) into one. A stage may
//! have a second way out, to another stream, and heeds the [`Signal`]s that travel along the chain.

use std::os::fd::BorrowedFd;

use super::context::{CloseContext, OpenContext};
use super::fault::Fault;
use super::signal::Signal;
use crate::BoxError;
use crate::between::Watermark;
use crate::time::Timestamp;

/// What a stage promises of itself, known when its chain is compiled. A chain relies on it for its safety.
#[derive(Debug, Clone, Copy)]
pub struct Flags {
    /// `process` emits exactly one record each time, and nothing is emitted otherwise: nothing need be counted.
    pub(crate) one_to_one: bool,
    /// One call of `process` may emit more than one record, or does something after the one it emits.
    pub(crate) many: bool,
    /// `process` emits nothing: nothing need be held back until it has succeeded.
    pub(crate) gathers: bool,
    /// It returns at once what `emit` gave it, and no user's code comes near its way out.
    pub(crate) passes_on: bool,
    /// It has a second way out.
    pub(crate) side: bool,
    /// Watermarks begin here: it lets none pass that come from before it.
    pub(crate) begins_watermarks: bool,
    /// It has windows: it counts records that come too late, and windows it drops.
    pub(crate) has_windows: bool,
}

impl Flags {
    /// Nothing is promised.
    pub(crate) const ANY: Self = Self {
        one_to_one: false,
        many: true,
        gathers: false,
        passes_on: false,
        side: false,
        begins_watermarks: false,
        has_windows: false,
    };
    /// At most one record for each.
    pub(crate) const AT_MOST_ONE: Self = Self { many: false, ..Self::ANY };
    /// One record for each.
    pub(crate) const ONE_TO_ONE: Self = Self { one_to_one: true, ..Self::AT_MOST_ONE };
    /// Records come out at a signal, and not before.
    pub(crate) const GATHERS: Self = Self { gathers: true, ..Self::ANY };
}

/// Takes the records an operator produces.
pub trait Emit<T> {
    /// Sends `record` on. An error means that no more records are wanted: pass it on with `?`. If you do not, every
    /// further `emit` in the same call is refused too, and the call ends as if you had.
    fn emit(&mut self, record: T) -> Result<(), Fault>;

    /// Returns an error once the job is being cancelled. An operator that works long without emitting calls this now
    /// and then, and passes the error on with `?`. The default returns no error.
    fn look(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

/// The ways out of a stage.
pub trait Outlet<M, S>: Emit<M> {
    /// Sends a record out by the side.
    fn emit_side(&mut self, record: S) -> Result<(), Fault>;
}

/// An operator as the engine runs it.
pub trait Stage: Send + 'static {
    /// The records it takes.
    type In: Send + 'static;
    /// The records it emits.
    type Out: Send + 'static;
    /// The records that leave by the side; [`Infallible`](std::convert::Infallible) where there is none.
    type Side: Send + 'static;

    /// What it promises.
    const FLAGS: Flags;

    /// As [`Operator::open`](super::Operator::open).
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let _ = cx;
        Ok(())
    }

    /// Takes one record and emits any number.
    fn process(&mut self, record: Self::In, out: &mut impl Outlet<Self::Out, Self::Side>) -> Result<(), Fault>;

    /// As [`Push::looks_ahead`](super::push::Push::looks_ahead).
    fn looks_ahead(&mut self) -> usize {
        0
    }

    /// As [`Push::ahead`](super::push::Push::ahead).
    fn ahead(&mut self, record: &Self::In) {
        let _ = record;
    }

    /// Heeds a signal, before it goes on; may emit, unless [`Flags::many`] says otherwise.
    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Self::Side>) -> Result<(), Fault> {
        let (_, _) = (signal, out);
        Ok(())
    }

    /// As [`Operator::close`](super::Operator::close).
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// The watermark that holds from here on, if that is news. Asked after [`Signal::Time`] and [`Signal::Finish`].
    fn watermark(&mut self) -> Option<Watermark> {
        None
    }

    /// When, by the job's clock, it is to be told [`Signal::Time`] though no record has come.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    /// As [`Operator::awaits`](super::Operator::awaits), for [`Signal::Time`].
    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How many records came too late so far.
    fn late(&self) -> u64 {
        0
    }

    /// How many windows it has dropped, because something other than the end of input ended the job.
    fn dropped_windows(&self) -> u64 {
        0
    }

    /// Whether it takes no more records. Asked when its last one was attended to.
    fn is_satisfied(&self) -> bool {
        false
    }
}
