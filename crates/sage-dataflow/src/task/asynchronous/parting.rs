//! Where the results of an async operator go: on along its chain, or to the dead letters.

use crate::chain::{DeadLetter, Fault, Position, Push, Signal, Stop, TaskContext, sent, signalled, still};
use crate::time::Timestamp;

/// The rest of a chain, and the way of dead letters if there is one. Either may end before the other.
pub(super) struct Parting<N, I> {
    next: N,
    letters: Option<Box<dyn Push<DeadLetter<I>>>>,
    is_open: bool,
    takes_letters: bool,
}

/// A result, or what its record became.
pub(super) type Leaving<T, I> = Result<T, Box<DeadLetter<I>>>;

impl<N, I> Parting<N, I> {
    pub(super) fn new(next: N, letters: Option<Box<dyn Push<DeadLetter<I>>>>) -> Self {
        let takes_letters = letters.is_some();
        Self { next, letters, is_open: true, takes_letters }
    }

    fn unless_over(&self) -> Result<(), Fault> {
        if self.is_open || self.takes_letters { Ok(()) } else { Err(Stop::Satisfied.into()) }
    }
}

impl<T, N: Push<T>, I> Push<Leaving<T, I>> for Parting<N, I> {
    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        let Some(letters) = &mut self.letters else { return self.next.open(at) };
        letters.open(at)?;
        still(self.next.open(at), &mut self.is_open)
    }

    #[inline(always)]
    fn push(&mut self, record: Leaving<T, I>, at: &mut Position) -> Result<(), Fault> {
        match (record, &mut self.letters) {
            (Ok(record), None) => return self.next.push(record, at),
            (Ok(record), Some(_)) if self.is_open => still(sent(&mut self.next, record, at), &mut self.is_open)?,
            (Err(letter), Some(letters)) if self.takes_letters => {
                still(sent(&mut **letters, *letter, at), &mut self.takes_letters)?;
            }
            _ => {}
        }
        self.unless_over()
    }

    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.next.attend(at)
    }

    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        let Some(letters) = &mut self.letters else { return self.next.signal(signal, at) };
        let passed = signalled(&mut self.next, signal, at, &mut self.is_open);
        passed.and(signalled(&mut **letters, signal, at, &mut self.takes_letters))
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if let Some(letters) = &mut self.letters {
            letters.close(cx);
        }
        self.next.close(cx);
    }

    fn wanted(&self, outside: bool) -> bool {
        let letters = self.letters.as_ref().filter(|_| self.takes_letters);
        (self.is_open && self.next.wanted(outside)) || letters.is_some_and(|letters| letters.wanted(outside))
    }

    fn publish(&mut self) {
        self.next.publish();
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.next.wake_at()
    }
}
