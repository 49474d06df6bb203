//! The caller's side of a job: [`JobHandle`], and the errors of a job that did not end well.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::cause::{LINE_CHARS, Short};
use super::changes::ChangeLog;
use super::figures::Figures;
use super::rendezvous::Rendezvous;
use super::report::{JobReport, Outcome};
use super::signals::{self, SignalWatch};
use super::state::JobState;
use super::view::JobView;
use crate::backend::EventSender;
use crate::control::{StopReason, WorksFor};
use crate::graph::JobGraph;
use crate::guarded::chain_of;
use crate::service::Registry;
use crate::submit_error::SubmitError;
use crate::sync::FOREVER;

/// What a job's dispatcher and its handle share.
pub(crate) struct JobShared {
    id: String,
    /// The process that runs it. One that is forked from it has none of its threads.
    process: u32,
    changes: Arc<ChangeLog>,
    events: EventSender,
    figures: Arc<Figures>,
    registry: Arc<Registry>,
    job: WorksFor,
    log_dir: Option<PathBuf>,
    /// `None` if the engine failed and there is no report.
    end: Rendezvous<Option<JobReport>>,
}

impl JobShared {
    pub(crate) fn new(
        id: String,
        events: EventSender,
        figures: Arc<Figures>,
        registry: Arc<Registry>,
        job: WorksFor,
        log_dir: Option<PathBuf>,
    ) -> Self {
        let changes = Arc::new(ChangeLog::new(figures.graph().clone(), job));
        let process = std::process::id();
        Self { id, process, changes, events, figures, registry, job, log_dir, end: Rendezvous::new() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn job(&self) -> WorksFor {
        self.job
    }

    pub(super) fn graph(&self) -> &JobGraph {
        self.figures.graph()
    }

    pub(super) fn log_dir(&self) -> Option<&Path> {
        self.log_dir.as_deref()
    }

    pub(super) fn changes(&self) -> &Arc<ChangeLog> {
        &self.changes
    }

    pub(super) fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// Whether this process was forked from the job's.
    pub(super) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    pub(super) fn events(&self) -> &EventSender {
        &self.events
    }

    pub(super) fn process(&self) -> u32 {
        self.process
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn end(&self) -> &Rendezvous<Option<JobReport>> {
        &self.end
    }
}

/// A job running in the background.
///
/// Several threads may call its methods, and every caller that waits gets the same report. Dropping the handle before
/// the job is over cancels the job, and blocks until everything is stopped and cleaned, for the sum of the phase
/// deadlines at most. So no job runs on unwatched. On a thread that the job itself waits for, dropping only cancels.
///
/// What it can be asked and told without waiting is at [`JobView`], to which it dereferences.
#[must_use = "dropping the handle cancels the job"]
pub struct JobHandle {
    view: JobView,
}

impl Deref for JobHandle {
    type Target = JobView;

    fn deref(&self) -> &JobView {
        &self.view
    }
}

impl fmt::Debug for JobHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("id", &self.id()).field("status", &self.status()).finish()
    }
}

impl JobHandle {
    pub(crate) fn new(shared: Arc<JobShared>) -> Self {
        Self { view: JobView::new(shared) }
    }

    /// Waits until the job is over, with everything stopped and cleaned. Blocks as long as the job runs.
    ///
    /// # Errors
    /// [`RunError::Job`], with the report, if the job did not succeed or is not clean. [`RunError::Forked`] in a
    /// process that was forked from the job's process. [`RunError::WaitsForItself`] on a thread that the job waits for;
    /// see [`WorksFor`].
    pub fn wait(&self) -> Result<JobReport, RunError> {
        self.check_may_wait()?;
        self.waited(self.view.shared().end().wait().flatten())
    }

    /// As [`wait`](Self::wait), but waits for `timeout` at most. Returns `None` when that has passed and the job goes
    /// on.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<JobReport, RunError>> {
        if let Err(error) = self.check_may_poll(timeout) {
            return Some(Err(error));
        }
        let report = self.view.shared().end().wait_timeout(timeout.min(FOREVER));
        report.map(|report| self.waited(report))
    }

    /// As [`wait_timeout`](Self::wait_timeout), but a signal that `watch` is for ends the wait too. Without a `timeout`
    /// the wait is not limited. Returns `None` when such a signal has come, when the timeout has passed, and sometimes
    /// for no reason.
    pub fn wait_watching(&self, watch: &SignalWatch, timeout: Option<Duration>) -> Option<Result<JobReport, RunError>> {
        if let Err(error) = self.check_may_poll(timeout.unwrap_or(FOREVER)) {
            return Some(Err(error));
        }
        let ended = || self.view.shared().end().poll(watch.waker());
        let report = ended().or_else(|| {
            watch.wait(timeout.map(|timeout| timeout.min(FOREVER)));
            ended()
        });
        report.map(|report| self.waited(report))
    }

    fn waited(&self, report: Option<JobReport>) -> Result<JobReport, RunError> {
        signals::settle();
        checked(report)
    }

    /// As [`wait`](Self::wait), without blocking the calling thread. Dropping the future stops the wait, not the job.
    pub async fn wait_async(&self) -> Result<JobReport, RunError> {
        self.check_may_wait()?;
        checked(poll_fn(|cx| self.view.shared().end().poll(cx.waker()).map_or(Poll::Pending, Poll::Ready)).await)
    }

    /// As `check_may_wait`, for a time; with none, a thread that the job waits for may look as well.
    fn check_may_poll(&self, timeout: Duration) -> Result<(), RunError> {
        match self.check_may_wait() {
            Err(RunError::WaitsForItself { .. }) if timeout.is_zero() => Ok(()),
            checked => checked,
        }
    }

    /// Whether the calling thread may wait for the job: not if the job waits for that thread.
    fn check_may_wait(&self) -> Result<(), RunError> {
        if self.view.shared().is_forked() {
            return Err(RunError::Forked);
        }
        if WorksFor::here() == Some(self.view.shared().job()) && self.status() != JobState::Ended {
            return Err(RunError::WaitsForItself { job: self.id().to_owned() });
        }
        Ok(())
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if self.view.shared().is_forked() {
            return;
        }
        self.cancel();
        // The job cannot end before the function that drops its handle has returned.
        if self.check_may_wait().is_ok() {
            self.view.shared().end().wait();
        }
    }
}

/// The report as a result.
pub(crate) fn checked(report: Option<JobReport>) -> Result<JobReport, RunError> {
    match report {
        Some(report) if report.is_success() => Ok(report),
        Some(report) => Err(RunError::Job(Box::new(JobError { report }))),
        None => Err(RunError::Engine),
    }
}

/// Why running a pipeline did not succeed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The job did not start.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The job did not succeed, or is not clean.
    #[error(transparent)]
    Job(Box<JobError>),
    /// A thread that works for the job waited for the job. A function or service of the job can end it with
    /// [`drain`](JobView::drain) or [`cancel`](JobView::cancel), which return at once.
    #[error(
        "job `{job}` would wait for itself: it cannot end before this function or service returns; \
         call `drain` or `cancel` instead, which return at once, or wait outside the job"
    )]
    WaitsForItself {
        /// The job's id.
        job: String,
    },
    /// The engine itself failed. This is a bug in the engine; please report it.
    #[error("the engine failed while it ran the job; please report this with the panic message printed before it")]
    Engine,
    /// The job belongs to the process that this one was forked from.
    #[error("the job belongs to the process that this one was forked from, and its threads run only there")]
    Forked,
}

impl fmt::Debug for RunError {
    /// Prints the report, or the error of the declaration: `main` prints this when it returns the error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit(error) => write!(f, "{}", chain_of(error)),
            Self::Job(error) => fmt::Debug::fmt(error, f),
            Self::WaitsForItself { .. } | Self::Engine | Self::Forked => fmt::Display::fmt(self, f),
        }
    }
}

impl RunError {
    /// Returns the report of the job, if it started.
    pub fn report(&self) -> Option<&JobReport> {
        match self {
            Self::Job(error) => Some(&error.report),
            Self::Submit(_) | Self::WaitsForItself { .. } | Self::Engine | Self::Forked => None,
        }
    }
}

/// A job that did not succeed, or left something behind.
///
/// Its source is the user's own error, if that was the first cause.
#[derive(Clone)]
pub struct JobError {
    /// Everything about the job.
    pub report: JobReport,
}

impl fmt::Debug for JobError {
    /// Prints the report: `main` prints this when it returns the error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.report, f)
    }
}

/// How much of what is left one line names; the report has all of it.
const MOST_NAMED: usize = 20;

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobReport { environment, outcome, left, first_cause, reason, .. } = &self.report;
        write!(f, "job `{}` {outcome}", Short(environment, LINE_CHARS))?;
        if let (Outcome::Succeeded, [first, ..]) = (outcome, left.as_slice()) {
            return write!(f, " but is not clean: {}: {}", first.what, first.why);
        }
        if let Some(cause) = first_cause {
            match cause.error {
                // The source tells what happened.
                Some(_) => write!(f, " at {}", cause.place())?,
                // Its outcome says so.
                None if *reason == StopReason::Cancel => {}
                None => write!(f, ": {cause}")?,
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<_> =
            left.iter().take(MOST_NAMED).map(|left| Short(&left.what, LINE_CHARS).to_string()).collect();
        write!(f, "; left behind: {}", names.join(", "))?;
        match left.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl std::error::Error for JobError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let error = self.report.first_cause.as_ref()?.error.as_ref()?;
        Some(error.as_ref())
    }
}
