//! How many records are in a lane, readable from outside. A tally outlives its lane and holds no record.

use super::CachePadded;
use super::sync::{AtomicUsize, Ordering};

/// Counts what went into a lane and what came out.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Exact whenever the writer waits, and at its end.
    written: CachePadded<AtomicUsize>,
    /// Taken by the reader and worked on; what a task keeps in flight counts as that.
    done: CachePadded<AtomicUsize>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { written: CachePadded::new(AtomicUsize::new(0)), done: CachePadded::new(AtomicUsize::new(0)) }
    }

    pub(super) fn written(&self, records: usize) {
        self.written.store(records, Ordering::Relaxed);
    }

    pub(super) fn done(&self, records: usize) {
        self.done.store(records, Ordering::Relaxed);
    }

    /// How many records wait in the lane, or are being worked on.
    pub(crate) fn waiting(&self) -> usize {
        let done = self.done.load(Ordering::Relaxed);
        self.written.load(Ordering::Relaxed).saturating_sub(done)
    }
}
