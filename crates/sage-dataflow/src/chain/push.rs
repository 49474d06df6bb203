//! [`Push`]: the rest of a chain, seen from the operator before it.

use std::convert::Infallible;
use std::os::fd::BorrowedFd;

use super::fault::Fault;
use super::position::{Position, TaskContext};
use super::signal::Signal;
use crate::time::Timestamp;

/// The rest of a chain, seen from the operator before it.
pub trait Push<T>: Send {
    /// Opens every operator from here on.
    fn open(&mut self, at: &mut Position) -> Result<(), Fault>;
    /// Takes one record.
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault>;
    /// How many records it wants to be shown [`ahead`](Self::ahead) of their pushes, at most. Asked before each time.
    fn looks_ahead(&mut self) -> usize {
        0
    }
    /// Is shown a record that is pushed soon: as many as it wants to be shown one after another, and then they are
    /// pushed in this order. The pushes may end before all that were shown have come.
    fn ahead(&mut self, record: &T, at: &mut Position) {
        let (_, _) = (record, at);
    }
    /// Does what a push that ended in [`Stop::Attend`](super::Stop::Attend) asked for. To be called before the next
    /// push.
    fn attend(&mut self, at: &mut Position) -> Result<(), Fault>;
    /// Takes a signal. Leaves nothing to attend to, but after [`Signal::InputEnded`].
    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault>;
    /// Closes every operator from here on; what fails is recorded.
    fn close(&mut self, cx: &mut TaskContext);
    /// Whether anyone still wants a record: false once every reader of the chain's lanes has ended; with `outside`,
    /// every reader that is not in a loop with this task.
    fn wanted(&self, outside: bool) -> bool;
    /// Makes the counters visible; called once a batch.
    fn publish(&mut self) {}
    /// When, by the job's clock, [`Signal::Time`] is to come though no record has; `None` for when one has.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }
    /// Adds the descriptors that can be read when [`Signal::Time`] is to come though no record has.
    fn awaits<'a>(&'a self, descriptors: &mut Vec<BorrowedFd<'a>>) {
        let _ = descriptors;
    }
}

/// The way out that an operator does not have.
#[derive(Debug)]
pub struct Nowhere;

impl Push<Infallible> for Nowhere {
    fn open(&mut self, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }
    fn push(&mut self, record: Infallible, _at: &mut Position) -> Result<(), Fault> {
        match record {}
    }
    fn attend(&mut self, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }
    fn signal(&mut self, _signal: Signal, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }
    fn close(&mut self, _cx: &mut TaskContext) {}
    fn wanted(&self, _outside: bool) -> bool {
        false
    }
}

/// A way out that may not be there.
impl<T, N: Push<T>> Push<T> for Option<N> {
    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.as_mut().map_or(Ok(()), |next| next.open(at))
    }
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        self.as_mut().map_or(Ok(()), |next| next.push(record, at))
    }
    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.as_mut().map_or(Ok(()), |next| next.attend(at))
    }
    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        self.as_mut().map_or(Ok(()), |next| next.signal(signal, at))
    }
    fn close(&mut self, cx: &mut TaskContext) {
        self.iter_mut().for_each(|next| next.close(cx));
    }
    fn wanted(&self, outside: bool) -> bool {
        self.as_ref().is_some_and(|next| next.wanted(outside))
    }
}
