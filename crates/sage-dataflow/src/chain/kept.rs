//! Records that are kept until their operator is done with them: to try them again, or to send them on as dead letters.

use super::context::OpenContext;
use super::fault::{Fault, Stop};
use super::held::Leaves;
use super::letters::DeadLetter;
use super::push::Push;
use crate::BoxError;
use crate::error::Fatal;
use crate::guarded::{chain_of, opaque};
use crate::retry::{RetriesExhausted, Retry};

/// What becomes of the records on which an operator fails, as its chain was compiled for.
pub trait Handling<I>: Send {
    /// What keeps each record, if anything does.
    fn keeper(&mut self) -> Option<&mut Keeper<I>>;
    /// Whether something does.
    const KEEPS: bool;
    /// Whether anyone still wants its dead letters, as [`Push::wanted`].
    fn letters_wanted(&self, outside: bool) -> bool;
}

/// Nothing is kept: the error policy decides.
#[derive(Debug, Clone, Copy)]
pub struct NotKept;

impl<I> Handling<I> for NotKept {
    const KEEPS: bool = false;

    #[inline(always)]
    fn keeper(&mut self) -> Option<&mut Keeper<I>> {
        None
    }

    fn letters_wanted(&self, _outside: bool) -> bool {
        false
    }
}

/// Keeps each record while its operator works on it.
pub struct Keeper<I> {
    copy: fn(&I) -> I,
    retry: Option<Retry>,
    letters: Option<Box<dyn Push<DeadLetter<I>>>>,
    taken: u64,
    dead: u64,
    retries: u64,
}
opaque!(Keeper<I>);

impl<I: Send> Handling<I> for Keeper<I> {
    const KEEPS: bool = true;

    fn keeper(&mut self) -> Option<&mut Self> {
        Some(self)
    }

    fn letters_wanted(&self, outside: bool) -> bool {
        self.letters.as_ref().is_some_and(|letters| letters.wanted(outside))
    }
}

/// What came of a record.
pub(super) enum Worked<I, M, S> {
    /// The operator emitted this, and ended so.
    Done(Vec<Leaves<M, S>>, Result<(), Fault>),
    /// It has failed, for the error policy to decide.
    Failed(BoxError),
    /// It has failed, and the record goes away.
    Dead(DeadLetter<I>),
}

impl<I> Keeper<I> {
    pub(crate) fn new(copy: fn(&I) -> I, retry: Option<Retry>, letters: Option<Box<dyn Push<DeadLetter<I>>>>) -> Self {
        Self { copy, retry, letters, taken: 0, dead: 0, retries: 0 }
    }

    /// The way out for dead letters.
    pub(super) fn letters(&mut self) -> Option<&mut (dyn Push<DeadLetter<I>> + 'static)> {
        self.letters.as_deref_mut()
    }

    pub(super) fn has_letters(&self) -> bool {
        self.letters.is_some()
    }

    /// Has the operator `process` a record as often as it may.
    pub(super) fn work<M, S>(
        &mut self,
        mut record: I,
        cx: &OpenContext,
        mut process: impl FnMut(I) -> (Vec<Leaves<M, S>>, Result<(), Fault>),
    ) -> Worked<I, M, S> {
        self.taken += 1;
        let (mut attempts, mut last) = (1, self.retry.as_ref().map_or(1, |retry| retry.attempts));
        loop {
            let kept = (attempts < last || self.letters.is_some()).then(|| (self.copy)(&record));
            let (emitted, ended) = process(record);
            let Err(Fault::Error(error)) = ended else { return Worked::Done(emitted, ended) };
            let again = attempts < last && self.retry.as_ref().is_some_and(|retry| retry.is_for(&*error));
            record = match kept {
                Some(kept) if again => kept,
                kept => return self.given_up(kept, attempts, error, cx),
            };
            tracing::debug!(error = chain_of(&*error), attempts, "asked again");
            match self.wait(attempts, cx) {
                Ok(until) => last = until,
                Err(stop) => return Worked::Done(Vec::new(), Err(stop.into())),
            }
            attempts += 1;
        }
    }

    /// What comes of a record that has failed for good.
    #[cold]
    fn given_up<M, S>(&mut self, kept: Option<I>, attempts: u32, error: BoxError, cx: &OpenContext) -> Worked<I, M, S> {
        let error = match &self.retry {
            Some(retry) => retry.given_up(attempts, error),
            None => error,
        };
        match kept.filter(|_| self.letters.is_some() && !Fatal::is(&*error)) {
            Some(record) => Worked::Dead(self.letter(record, &error, cx)),
            None => Worked::Failed(error),
        }
    }

    /// Waits after `failures` failures on a record. Returns the number of the last attempt: the next one, if the job
    /// drains.
    #[cold]
    fn wait(&mut self, failures: u32, cx: &OpenContext) -> Result<u32, Stop> {
        self.retries += 1;
        let Some(retry) = &self.retry else { return Ok(1) };
        cx.passed.retries.publish(self.retries);
        Ok(if cx.pause(retry.wait(failures))? { retry.attempts } else { failures + 1 })
    }

    #[cold]
    fn letter(&mut self, record: I, error: &BoxError, cx: &OpenContext) -> DeadLetter<I> {
        let attempts = RetriesExhausted::attempts_of(error).unwrap_or(1);
        self.dead += 1;
        DeadLetter::new(record, self.taken, attempts, &**error, cx, self.dead)
    }
}
