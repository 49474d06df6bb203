//! How the engine stops an operator that goes on emitting when no more records are wanted.
//!
//! `Emit::emit` returns an error then, and the operator has to pass it on. If it does not, or if it catches a panic
//! from downstream, each further `emit` of the same call is refused, and the call ends as if the error had been passed
//! on.
//!
//! Before each record, an operator's way out checks whether the job is cancelled. After a refusal it checks a word that
//! always says so. So a record that goes through costs nothing more.

use std::sync::atomic::{AtomicU8, Ordering};

use super::fault::{Fault, Stop};
use crate::control::{CANCELLED, Control, JobControl};

/// An operator caught a panic of what is behind it.
#[derive(Debug, thiserror::Error)]
#[error("it panicked, or the `Clone` of its records did; an operator upstream caught the panic")]
struct Caught;

/// What an operator was refused with, until its call ends.
#[derive(Default)]
pub(crate) struct Refusal(Option<Fault>);

impl Refusal {
    /// How a call ends in which the operator was refused, whatever it has made of that. One that was refused for
    /// nothing that is kept has caught a panic.
    #[cold]
    pub(super) fn settle(&mut self, done: Result<(), Fault>) -> Result<(), Fault> {
        match (self.0.take(), done) {
            (Some(fault), _) => Err(fault),
            (None, Ok(()) | Err(Fault::Stop(Stop::Failed))) => Err(Caught.into()),
            (None, fault) => fault,
        }
    }

    /// Keeps what an `emit` came to, and returns what the operator is told.
    #[cold]
    fn keep(&mut self, fault: Fault) -> Fault {
        self.0 = Some(fault);
        self.again()
    }

    /// What the operator is told when it emits all the same.
    #[cold]
    fn again(&self) -> Fault {
        match self.0 {
            Some(Fault::Stop(stop)) => stop.into(),
            Some(Fault::Error(_)) | None => Stop::Failed.into(),
        }
    }
}

/// Whether a call of an operator may emit.
pub(super) struct Leave<'a> {
    word: &'a AtomicU8,
    refusal: &'a mut Refusal,
}

impl<'a> Leave<'a> {
    /// A call of an operator begins.
    #[inline(always)]
    pub(super) fn new(control: &'a JobControl, refusal: &'a mut Refusal) -> Self {
        Self { word: control.word(), refusal }
    }

    /// Looks before each record that is emitted.
    #[inline(always)]
    pub(super) fn look(&mut self) -> Result<(), Fault> {
        if self.is_cancelled() { Err(self.denied()) } else { Ok(()) }
    }

    /// Whether the job is cancelled, or something was refused.
    #[inline(always)]
    pub(super) fn is_cancelled(&self) -> bool {
        self.word.load(Ordering::Relaxed) == Control::Cancel as u8
    }

    #[inline(always)]
    fn denied(&mut self) -> Fault {
        if self.is_refused() { self.refusal.again() } else { self.refuse(Stop::Cancelled.into()) }
    }

    /// Refuses all that comes in this call.
    #[inline(always)]
    pub(super) fn refuse(&mut self, fault: Fault) -> Fault {
        self.word = &CANCELLED;
        self.refusal.keep(fault)
    }

    /// Whether something was refused.
    #[inline(always)]
    pub(super) fn is_refused(&self) -> bool {
        std::ptr::eq(self.word, &raw const CANCELLED)
    }

    /// Refuses all that comes if it is dropped by a panic. To be forgotten when there was none.
    #[inline(always)]
    pub(super) fn unless_it_panics(&mut self) -> Unwinding<'_, 'a> {
        Unwinding(&mut self.word)
    }
}

/// See [`Leave::unless_it_panics`].
pub(super) struct Unwinding<'b, 'a>(&'b mut &'a AtomicU8);

impl Drop for Unwinding<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.0 = &CANCELLED;
    }
}
