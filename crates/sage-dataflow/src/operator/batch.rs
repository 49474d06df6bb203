//! `batch`: gathers records in the order they come, so many at a time.

use std::convert::Infallible;
use std::time::Duration;

use crate::chain::{Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::clock::Clock;
use crate::time::Timestamp;

/// For how many records the memory of a batch is got at once. A larger batch grows.
const MAX_RESERVED_RECORDS: usize = 4096;

/// Gathers records into batches.
pub(crate) struct Batch<T> {
    size: usize,
    within: Option<Duration>,
    clock: Option<Clock>,
    open: Vec<T>,
    /// When the open batch goes on although it is not full.
    due: Option<Timestamp>,
}

impl<T> Batch<T> {
    pub(crate) fn new(size: usize, within: Option<Duration>) -> Self {
        Self { size, within, clock: None, open: Vec::new(), due: None }
    }

    /// Sends the open batch on, if it has a record.
    fn emit(&mut self, out: &mut impl Emit<Vec<T>>) -> Result<(), Fault> {
        if self.open.is_empty() {
            return Ok(());
        }
        self.due = None;
        let next = Vec::with_capacity(self.open.len().min(MAX_RESERVED_RECORDS));
        out.emit(std::mem::replace(&mut self.open, next))
    }

    /// Sends the open batch on, if its time is over.
    fn tick(&mut self, out: &mut impl Emit<Vec<T>>) -> Result<(), Fault> {
        match &self.clock {
            Some(clock) if clock.is_due(self.due) => self.emit(out),
            _ => Ok(()),
        }
    }
}

impl<T> Clone for Batch<T> {
    /// One for another replica, without records.
    fn clone(&self) -> Self {
        Self::new(self.size, self.within)
    }
}

impl<T: Send + 'static> Stage for Batch<T> {
    type In = T;
    type Out = Vec<T>;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ANY;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.clock = Some(cx.clock().clone());
        Ok(())
    }

    #[inline(always)]
    fn process(&mut self, record: T, out: &mut impl Outlet<Vec<T>, Infallible>) -> Result<(), Fault> {
        if let Some(within) = self.within {
            // The steps before may have taken long over this record.
            self.tick(out)?;
            if self.open.is_empty() {
                self.due = self.clock.as_ref().map(|clock| clock.now().later(within));
            }
        }
        self.open.push(record);
        if self.open.len() < self.size { Ok(()) } else { self.emit(out) }
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Vec<T>, Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::Time => self.tick(out),
            // A loop ends when no record is left in it, so none stays here.
            Signal::Probe(_) | Signal::Finish => self.emit(out),
            _ => Ok(()),
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.due
    }
}
