//! What operators, sources and sinks are told when they are opened, finished and closed.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::policy::Passed;
use crate::clock::Clock;
use crate::control::{Control, JobControl, StopReason};
use crate::sync::lock;

/// What an operator or sink is told when it is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenContext {
    /// Which replica this is, from 0.
    pub replica: usize,
    /// How many replicas there are.
    pub parallelism: usize,
    /// The name of the operator or sink.
    pub name: String,
    pub(crate) control: Arc<JobControl>,
    pub(crate) passed: Arc<Passed>,
}

impl OpenContext {
    /// The clock of the job's processing time.
    pub fn clock(&self) -> &Clock {
        self.control.clock()
    }

    /// Tells whether the job is being cancelled, for as long as the operator or sink lives.
    pub fn cancelling(&self) -> Cancelling {
        Cancelling(self.control.clone())
    }
}

/// Tells an operator or sink that works for long in one call whether its job is being cancelled: it then returns soon,
/// and what it has not done is dropped.
#[derive(Debug, Clone)]
pub struct Cancelling(Arc<JobControl>);

impl Cancelling {
    /// Whether it is, from now on.
    pub fn has_begun(&self) -> bool {
        self.0.load() == Control::Cancel
    }
}

/// What an operator or sink is told when it is closed.
#[derive(Debug, Clone)]
pub struct CloseContext {
    reason: StopReason,
    control: Arc<JobControl>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl CloseContext {
    pub(super) fn new(reason: StopReason, control: Arc<JobControl>) -> Self {
        Self { reason, control, notes: Arc::default() }
    }

    /// Has the report tell the caller something, as one of its [`notes`](crate::JobReport::notes): for example where to
    /// find what a job that was stopped has written.
    pub fn note(&self, text: impl Into<String>) {
        lock(&self.notes).push(text.into());
    }

    pub(super) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes))
    }

    /// Why the task ends.
    pub fn reason(&self) -> &StopReason {
        &self.reason
    }

    /// When the task will be given up as abandoned, as of now: a cancel sets another. `None` while nothing limits the
    /// run.
    pub fn deadline(&self) -> Option<Instant> {
        self.control.deadline()
    }

    /// Waits until `limit`, or until the thread is unparked, or a drain or a cancel sets another deadline. May return
    /// early; what it waits for is to be looked at again.
    pub fn wait(&self, limit: Instant) {
        std::thread::park_timeout(limit.saturating_duration_since(Instant::now()));
    }
}

/// What an operator, source or sink gives from `close` when something of it has not ended in time, such as a thread of
/// its own.
///
/// The rest of the job goes on. The job is then not clean, and its report tells this among what is left; it is no
/// failure otherwise.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LeftBehind(pub String);

/// What a sink is told when it is to make what it wrote final.
#[derive(Debug)]
pub struct FinishContext {
    reason: StopReason,
    control: Arc<JobControl>,
}

impl FinishContext {
    /// The context, if the task ends well as far as is known now; why it does not otherwise.
    pub(crate) fn new(control: &Arc<JobControl>) -> Result<Self, StopReason> {
        match control.reason() {
            reason @ (StopReason::EndOfInput | StopReason::Drain) => Ok(Self { reason, control: control.clone() }),
            reason => Err(reason),
        }
    }

    /// Why the task ends: [`StopReason::EndOfInput`] or [`StopReason::Drain`].
    pub fn reason(&self) -> &StopReason {
        &self.reason
    }

    /// When the task will be given up as abandoned, as of now: a cancel sets another. `None` while nothing limits the
    /// run.
    pub fn deadline(&self) -> Option<Instant> {
        self.control.deadline()
    }

    /// Whether the job is being cancelled by now. A hook that waits looks at this now and then, and ends with an error.
    pub fn is_cancelled(&self) -> bool {
        self.control.load() == Control::Cancel
    }
}
