//! The contexts with which the engine opens, finishes and closes operators, sources and sinks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fault::Stop;
use super::policy::Passed;
use crate::bell::Bell;
use crate::clock::Clock;
use crate::control::{Control, JobControl, StopReason};
use crate::runtime::JobRuntime;
use crate::sync::{lock, park_for};

/// The argument of `open`: an operator's or sink's replica, its name, and the job's clock.
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
    /// Where the job polls futures.
    pub(crate) runtime: Arc<JobRuntime>,
}

impl OpenContext {
    /// The job's clock.
    pub fn clock(&self) -> &Clock {
        self.control.clock()
    }

    /// Returns a flag that tells whether the job is being cancelled, for the whole life of the operator or sink.
    pub fn cancelling(&self) -> Cancelling {
        Cancelling(self.control.clone())
    }

    /// Waits for `duration` before something that failed is tried again, as a retry does: on the task's own thread,
    /// while it works on a record. Returns whether the whole time has passed; if not, the job is drained, and the next
    /// attempt should be the last. Returns [`Stop::Cancelled`] once the job is being cancelled.
    pub fn pause(&self, duration: Duration) -> Result<bool, Stop> {
        park_for(duration, || self.control.load() < Control::Drain);
        match self.control.load() {
            Control::Cancel => Err(Stop::Cancelled),
            control => Ok(control < Control::Drain),
        }
    }
}

/// Tells an operator or sink whether its job is being cancelled. A call that takes long should look now and then, and
/// return soon after the cancel; the rest of its work is dropped.
#[derive(Debug, Clone)]
pub struct Cancelling(Arc<JobControl>);

impl Cancelling {
    /// Whether the job is being cancelled. Once true, it stays true.
    pub fn has_begun(&self) -> bool {
        self.0.load() == Control::Cancel
    }

    /// A descriptor that becomes readable whenever the job asks something else of its tasks, such as to cancel: for an
    /// operator that waits in poll(2) for what the engine knows nothing of. Look at [`has_begun`](Self::has_begun)
    /// after this call and after each [`JobBell::silence`], before the wait: then no cancel is missed.
    ///
    /// # Errors
    /// If the system gives no descriptor.
    pub fn bell(&self) -> io::Result<JobBell> {
        let bell = Arc::new(Bell::new()?);
        self.0.hang(bell.clone());
        Ok(JobBell { bell, control: self.0.clone() })
    }
}

/// A descriptor that a job makes readable, until this is dropped: see [`Cancelling::bell`].
#[derive(Debug)]
pub struct JobBell {
    bell: Arc<Bell>,
    control: Arc<JobControl>,
}

impl JobBell {
    /// Makes it unreadable until the job asks for something else again.
    pub fn silence(&self) {
        self.bell.silence();
    }
}

impl AsFd for JobBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for JobBell {
    fn drop(&mut self) {
        self.control.take_down(&self.bell);
    }
}

/// The argument of `close`: why the task ends, and until when `close` may take.
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

    /// Adds a note to the report, as one of its [`notes`](crate::JobReport::notes): for example where to find the
    /// output of a job that was stopped.
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

    /// The moment at which the engine will abandon the task, as it stands now: a cancel sets another. `None` while
    /// nothing limits the run.
    pub fn deadline(&self) -> Option<Instant> {
        self.control.deadline()
    }

    /// Waits until `limit`, until the thread is unparked, or until a drain or a cancel sets another deadline. May
    /// return early: check again what you wait for.
    pub fn wait(&self, limit: Instant) {
        std::thread::park_timeout(limit.saturating_duration_since(Instant::now()));
    }
}

/// The error that `close` of an operator, source or sink returns when a part of it has not ended in time, such as a
/// thread it started.
///
/// The rest of the job goes on, and this error alone does not make it fail. But the job is not clean, and its report
/// lists this error's text among the leftovers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LeftBehind(pub String);

/// The argument of [`Sink::finish`](crate::Sink::finish): why the task ends, until when, and whether the job is being
/// cancelled.
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

    /// The moment at which the engine will abandon the task, as it stands now: a cancel sets another. `None` while
    /// nothing limits the run.
    pub fn deadline(&self) -> Option<Instant> {
        self.control.deadline()
    }

    /// Whether the job is being cancelled by now. A hook that waits should look now and then, and return an error once
    /// this is true.
    pub fn is_cancelled(&self) -> bool {
        self.control.load() == Control::Cancel
    }
}
