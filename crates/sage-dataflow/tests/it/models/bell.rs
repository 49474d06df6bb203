//! The engine's bell as a checker sees it: descriptors that stay readable until they are silenced, and poll(2).

use std::time::Duration;

use super::sync::{Arc, Condvar, Mutex, PoisonError, lock};

/// How often each descriptor has rung since it was silenced.
#[derive(Debug)]
pub(crate) struct System {
    counts: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl System {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { counts: Mutex::new(Vec::new()), changed: Condvar::new() })
    }
}

/// One of its descriptors.
#[derive(Debug)]
pub(crate) struct Bell {
    system: Arc<System>,
    number: usize,
}

impl Bell {
    pub(crate) fn new(system: &Arc<System>) -> Self {
        let mut counts = lock(&system.counts);
        counts.push(0);
        Self { system: system.clone(), number: counts.len() - 1 }
    }

    pub(crate) fn ring(&self) {
        lock(&self.system.counts)[self.number] += 1;
        self.system.changed.notify_all();
    }

    pub(crate) fn silence(&self) {
        lock(&self.system.counts)[self.number] = 0;
    }

    /// As the engine's own; a timed wait ends at once.
    pub(crate) fn wait(&self, descriptor: &Self, limit: Option<Duration>) -> bool {
        let mut counts = lock(&self.system.counts);
        while limit.is_none() && counts[self.number] == 0 && counts[descriptor.number] == 0 {
            counts = self.system.changed.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        let (rung, ready) = (counts[self.number] > 0, counts[descriptor.number] > 0);
        drop(counts);
        if rung {
            self.silence();
        }
        ready
    }
}
