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
    /// The bytes in its blocks, where they are weighed, as the writer last knew.
    bytes: AtomicUsize,
}

impl Tally {
    pub(super) fn new() -> Self {
        let zero = || AtomicUsize::new(0);
        Self { written: CachePadded::new(zero()), done: CachePadded::new(zero()), bytes: zero() }
    }

    pub(super) fn written(&self, records: usize) {
        self.written.store(records, Ordering::Relaxed);
    }

    pub(super) fn weighed(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn done(&self, records: usize) {
        self.done.store(records, Ordering::Relaxed);
    }

    /// How many records wait in the lane, or are being worked on.
    pub(crate) fn waiting(&self) -> usize {
        let done = self.done.load(Ordering::Relaxed);
        self.written.load(Ordering::Relaxed).saturating_sub(done)
    }

    /// About how many bytes wait in the lane: none where its records are not weighed.
    pub(crate) fn bytes(&self) -> usize {
        if self.waiting() == 0 { 0 } else { self.bytes.load(Ordering::Relaxed) }
    }
}
