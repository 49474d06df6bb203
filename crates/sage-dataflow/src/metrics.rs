//! Counters that tasks publish once a batch, and the times they spent, summed per operator.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one replica of one operator has counted; written by its task, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct OperatorCounters {
    records_out: AtomicU64,
}

impl OperatorCounters {
    pub(crate) fn publish_out(&self, records: u64) {
        self.records_out.store(records, Ordering::Relaxed);
    }

    pub(crate) fn records_out(&self) -> u64 {
        self.records_out.load(Ordering::Relaxed)
    }
}
