//! How the end of a chain waits for room in its lanes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::Wait;
use crate::control::{Control, JobControl};
use crate::metrics::{Activity, Blocked, BlockedBy};

/// How the end of a chain waits for room in its lanes.
#[derive(Debug)]
pub(crate) struct Waiting {
    control: Arc<JobControl>,
    /// What the task of the chain is doing.
    activity: Arc<Activity>,
    blocked: Blocked,
}

impl Waiting {
    pub(crate) fn new(control: Arc<JobControl>, activity: Arc<Activity>) -> Self {
        Self { control, activity, blocked: Blocked::default() }
    }

    pub(crate) fn take_blocked(&mut self) -> Blocked {
        std::mem::take(&mut self.blocked)
    }
}

impl Wait for Waiting {
    fn interrupted(&self) -> bool {
        self.control.load() == Control::Cancel
    }

    fn park_blocked(&mut self) {
        std::thread::park();
        self.activity.busy(Instant::now());
    }

    fn blocks(&mut self, bound: BlockedBy, since: Instant) {
        self.activity.blocked(bound, since);
    }

    fn was_blocked(&mut self, bound: BlockedBy, time: Duration) {
        self.blocked.note(bound, time);
        self.activity.was_blocked(time);
    }
}
