//! How the end of a chain waits for room in its lanes.

use std::sync::Arc;
use std::time::Duration;

use super::lane::Wait;
use crate::control::{Control, JobControl};
use crate::metrics::{Blocked, BlockedBy};

/// How the end of a chain waits for room in its lanes.
#[derive(Debug)]
pub(crate) struct Waiting {
    control: Arc<JobControl>,
    blocked: Blocked,
}

impl Waiting {
    pub(crate) fn new(control: Arc<JobControl>) -> Self {
        Self { control, blocked: Blocked::default() }
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
    }

    fn was_blocked(&mut self, bound: BlockedBy, time: Duration) {
        self.blocked.note(bound, time);
    }
}
