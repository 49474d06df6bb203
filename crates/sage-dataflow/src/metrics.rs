//! Counters that tasks publish once a batch.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many records have passed one point of one task; written by the task, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn publish(&self, records: u64) {
        self.0.store(records, Ordering::Relaxed);
    }

    pub(crate) fn records(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
