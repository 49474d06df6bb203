//! The state of one service, its gate, and the threads that wait for it to start.
//!
//! Invariants:
//!  1. The state changes by legal steps only, and the gate is open exactly while it is `Ready`: both change under one
//!     lock.
//!  2. Whoever waits for a start returns when the service has left `Registered` and `Initialising`, or when the job
//!     stops starting services, as it does at the deadline of the start.
//!
//! (Checked with shuttle: `tests/it/models/life.rs`.)

use super::gate::Gate;
use super::state::ServiceState;
use super::sync::{Condvar, Mutex, PoisonError, lock};

/// The life of one service.
#[derive(Debug)]
pub(crate) struct Life {
    stage: Mutex<ServiceStage>,
    changed: Condvar,
    gate: Gate,
}

#[derive(Debug)]
struct ServiceStage {
    state: ServiceState,
    /// The job is stopping: whoever waits for the service to start waits in vain.
    no_start: bool,
}

impl Life {
    pub(crate) fn new() -> Self {
        let stage = ServiceStage { state: ServiceState::Registered, no_start: false };
        Self { stage: Mutex::new(stage), changed: Condvar::new(), gate: Gate::new() }
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) fn state(&self) -> ServiceState {
        lock(&self.stage).state
    }

    /// Moves to `next`, and says whether that was a legal step; an illegal one changes nothing.
    pub(crate) fn advance(&self, next: ServiceState) -> bool {
        let mut stage = lock(&self.stage);
        // Clause 11: nothing starts once stopping has begun.
        let too_late = stage.no_start && next == ServiceState::Initialising;
        let legal = stage.state.may_become(next) && !too_late;
        if legal {
            stage.state = next;
            match next {
                ServiceState::Ready => self.gate.open(),
                _ => self.gate.close(),
            }
            self.changed.notify_all();
        }
        legal
    }

    /// Back to `Registered`, for another run.
    pub(crate) fn reset(&self) {
        *lock(&self.stage) = ServiceStage { state: ServiceState::Registered, no_start: false };
    }

    /// Ends every wait for a start, now and later.
    pub(crate) fn no_start(&self) {
        lock(&self.stage).no_start = true;
        self.changed.notify_all();
    }

    /// Waits until the service has started or will not, unless `now` says not to wait; returns the state it is then in.
    pub(crate) fn wait_started(&self, now: bool) -> ServiceState {
        let mut stage = lock(&self.stage);
        while !now && !stage.no_start && matches!(stage.state, ServiceState::Registered | ServiceState::Initialising) {
            stage = self.changed.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
        stage.state
    }
}
