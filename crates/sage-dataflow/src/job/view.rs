//! What a job can be asked and told without waiting for it: [`JobView`].

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::changes::Changes;
use super::handle::JobShared;
use super::report::JobMetrics;
use super::state::JobState;
use crate::backend::{Command, Event};
use crate::control::StopReason;
use crate::graph::JobGraph;
use crate::service::CallError;

/// A job, for whoever watches or steers it but does not wait for it: what shows how far it is, say. Dropping a view
/// does nothing to the job.
#[derive(Clone)]
pub struct JobView {
    shared: Arc<JobShared>,
}

impl fmt::Debug for JobView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobView").field("id", &self.id()).field("status", &self.status()).finish()
    }
}

impl JobView {
    pub(super) fn new(shared: Arc<JobShared>) -> Self {
        Self { shared }
    }

    pub(super) fn shared(&self) -> &JobShared {
        &self.shared
    }

    /// Returns the job's id, unique on this machine.
    pub fn id(&self) -> &str {
        self.shared.id()
    }

    /// Asks the job to end its sources and finish the records in flight. Returns at once. The job then succeeds, or
    /// times out at [`Deadlines::drain`](crate::Deadlines::drain).
    pub fn drain(&self) {
        self.command(Command::Drain(StopReason::Drain));
    }

    /// Asks the job to drop the records in flight and clean up. Returns at once.
    pub fn cancel(&self) {
        self.command(Command::Cancel(StopReason::Cancel));
    }

    /// Asks the sources to stop reading until [`resume`](Self::resume). Records in flight are processed. Returns at
    /// once.
    pub fn pause(&self) {
        self.command(Command::Pause);
    }

    /// Asks paused sources to go on. Returns at once.
    pub fn resume(&self) {
        self.command(Command::Resume);
    }

    /// Returns the job's state.
    pub fn status(&self) -> JobState {
        self.shared.changes().job_state()
    }

    /// Every change of state of the job, its tasks and its services, from the first on, in the order in which they come
    /// about. Each `Changes` tells all of them, at the pace of whoever reads it; the job waits for none.
    ///
    /// ```
    /// use sage::{Environment, JobState, Transition};
    ///
    /// let env = Environment::local("watched");
    /// env.from_iter([1, 2]).sink(|_| {});
    /// let job = env.submit()?;
    /// let states = job.changes().filter_map(|change| match change.transition {
    ///     Transition::Job { to, .. } => Some(to),
    ///     _ => None,
    /// });
    /// let expected = [JobState::Starting, JobState::Running, JobState::Stopping, JobState::Ended];
    /// assert!(states.eq(expected));
    /// job.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn changes(&self) -> Changes {
        Changes::new(self.shared.changes().clone(), self.shared.process())
    }

    /// The folder `env_<environment>` beside the job's log files, for what its functions write, as an absolute path;
    /// `None` if it has no log files. See [`Environment::log_files`](crate::Environment::log_files).
    pub fn log_dir(&self) -> Option<&Path> {
        self.shared.log_dir()
    }

    /// What the job consists of.
    pub fn graph(&self) -> &JobGraph {
        self.shared.graph()
    }

    /// Returns the figures of its operators so far, up to their latest batches, and of its services up to now.
    pub fn metrics(&self) -> JobMetrics {
        self.shared.figures().metrics(self.status() == JobState::Paused)
    }

    /// Returns how many records have been read and are not finished: they wait between tasks, a task works on them, or
    /// they are in flight in [`map_async`](crate::Stream::map_async). A drain finishes them. The number is exact while
    /// tasks wait for each other; while records move fast, it may miss a few batches.
    pub fn unfinished(&self) -> u64 {
        self.shared.figures().unfinished()
    }

    /// Calls `health` of every service on the calling thread, and returns each service's name with the result. A
    /// service that is not serving gives [`CallError::NotServing`]. Empty once the job is over.
    pub fn health(&self) -> Vec<(String, Result<(), CallError>)> {
        let Some(runtime) = self.shared.registry().runtime() else { return Vec::new() };
        self.shared.registry().all().iter().map(|entry| (entry.name.clone(), entry.health(&runtime))).collect()
    }

    fn command(&self, command: Command) {
        self.shared.events().send(Event::Command(command));
    }
}
