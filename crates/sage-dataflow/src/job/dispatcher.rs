//! One dispatcher per job: starts services and tasks, waits for what happens, and hands over to `drain`.
//!
//! It is an event loop over its backend's events and knows no thread and no clock but the backend's, so that a fake
//! backend drives it through any order of events. What becomes of services is in `supervisor`, of tasks in `tasks`; all
//! states of a job change on this one thread.
//!
//! Invariants:
//!  1. The first event that decides the outcome decides it; every later one is attached.
//!  2. A service is attempted at most once, after all it depends on are ready.
//!  3. Tasks start only when every service is ready.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::cause::{Cause, CauseKind, Leftover, Origin};
use super::changes::Noted;
use super::figures::Figures;
use super::handle::JobShared;
use super::log::SessionLog;
use super::plan::{Deadlines, TaskRecord, TaskStage};
use super::report::{Cleanliness, JobReport, Outcome, PhaseTimes};
use super::serving::Serving;
use super::state::JobState;
use super::supervisor::Supervisor;
use crate::backend::{Backend, Command, Event};
use crate::control::{Control, StopReason};
use crate::guarded::guard;
use crate::runtime::JobRuntime;

/// Who runs a job.
pub(crate) struct Dispatcher {
    pub(super) backend: Box<dyn Backend + Send>,
    pub(super) deadlines: Deadlines,
    time_limit: Option<Duration>,
    pub(super) tasks: Vec<TaskRecord>,
    pub(super) figures: Arc<Figures>,
    pub(super) supervisor: Supervisor,
    pub(super) runtime: Arc<JobRuntime>,
    pub(super) shared: Arc<JobShared>,
    span: tracing::Span,
    pub(super) log: SessionLog,
    pub(super) state: JobState,
    pub(super) outcome: Option<Outcome>,
    pub(super) reason: Option<StopReason>,
    pub(super) causes: Vec<Cause>,
    pub(super) left: Vec<Leftover>,
    /// What user code wants the caller to be told.
    pub(super) notes: Vec<String>,
    pub(super) phases: PhaseTimes,
    pub(super) limit: Option<Instant>,
    /// What the tasks were told, and by when they are to have obeyed.
    pub(super) winding_down: Option<(Control, Instant)>,
    /// So many tasks from the first on do not run any more.
    pub(super) ended_tasks: usize,
    /// What is dropped on another thread, and by when that is to be done.
    pub(super) discarding: Option<Instant>,
    /// Users' values that came with events nobody waited for.
    pub(super) strays: Vec<Box<dyn Any + Send>>,
    /// A user's probe did not come back: none is asked any more.
    pub(super) is_probe_stuck: bool,
    pub(super) serving: Serving,
    pauses: Pauses,
}

/// Why the sources are to wait.
#[derive(Debug, Clone, Copy, Default)]
struct Pauses {
    /// The caller asked for it.
    asked: bool,
    /// Services that are not there, and whose policy is to wait for them. Below zero while the end of an outage has
    /// come before its beginning: two threads told them.
    outages: isize,
}

impl Dispatcher {
    pub(crate) fn new(
        backend: Box<dyn Backend + Send>,
        deadlines: Deadlines,
        time_limit: Option<Duration>,
        tasks: Vec<TaskRecord>,
        runtime: Arc<JobRuntime>,
        shared: Arc<JobShared>,
        log: SessionLog,
    ) -> Self {
        let figures = shared.figures().clone();
        Self {
            backend,
            deadlines,
            time_limit,
            supervisor: Supervisor::new(figures.services()),
            tasks,
            figures,
            runtime,
            shared,
            span: tracing::Span::none(),
            log,
            state: JobState::Created,
            outcome: None,
            reason: None,
            causes: Vec::new(),
            left: Vec::new(),
            notes: Vec::new(),
            phases: PhaseTimes::default(),
            limit: None,
            winding_down: None,
            ended_tasks: 0,
            discarding: None,
            strays: Vec::new(),
            is_probe_stuck: false,
            serving: Serving::default(),
            pauses: Pauses::default(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<JobShared> {
        &self.shared
    }

    /// Runs the job to its end, once.
    pub(crate) fn run(&mut self) -> JobReport {
        let environment = &self.figures.graph().environment;
        let span = guard(|| tracing::info_span!("job", environment, id = self.shared.id()));
        self.span = span.unwrap_or_else(|_| tracing::Span::none());
        let (started, began) = (SystemTime::now(), self.backend.now());
        self.limit = self.time_limit.map(|limit| began + limit);
        self.advance(JobState::Starting);
        self.start_services();
        if self.reason.is_none() {
            self.start_tasks();
        }
        self.phases.start = self.backend.now() - began;
        self.shut_down();
        self.report(started, began)
    }

    pub(super) fn advance(&mut self, next: JobState) {
        if self.state == next {
            return;
        }
        assert!(self.state.may_become(next), "a job that is {} cannot become {next}", self.state);
        let before = std::mem::replace(&mut self.state, next);
        self.shared.changes().note(Noted::Job(before, next));
        self.trace(|| tracing::debug!(state = %next, "job"));
        self.log.dispatcher(format_args!("job {next}"));
    }

    /// Waits for one event, or for the nearest deadline, and deals with it.
    pub(super) fn take_event(&mut self) {
        let deadline = self.nearest_deadline();
        match self.backend.next_event(deadline) {
            Some(event) => self.on_event(event),
            None => self.on_deadline(),
        }
    }

    fn nearest_deadline(&self) -> Option<Instant> {
        let obeyed = self.winding_down.filter(|_| self.state == JobState::Draining).map(|(_, by)| by);
        [self.supervisor.deadline(), self.limit, self.discarding, obeyed].into_iter().flatten().min()
    }

    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::TaskEnded { task, outcome } => self.on_task_ended(task, *outcome),
            Event::StartEnded { service, end } => self.on_start_ended(service, end),
            Event::StopEnded { service, end, calls_inside } => self.on_stop_ended(service, end, calls_inside),
            Event::CleanupEnded { service, end } => self.on_cleanup_ended(service, end),
            Event::OnCleanupEnded { service, end } => self.on_actions_ended(service, end),
            Event::Discarded { panics } => self.on_discarded(panics),
            Event::Command(command) => self.on_command(command),
            // The backend's own affair.
            Event::Roused => {}
        }
    }

    fn on_deadline(&mut self) {
        let now = self.backend.now();
        self.give_up_hooks(now);
        if self.discarding.take_if(|deadline| *deadline <= now).is_some() {
            self.on_discard_deadline();
        }
        if self.limit.is_some_and(|limit| limit <= now) {
            self.limit = None;
            let limit = self.time_limit.unwrap_or_default();
            let cause = Cause::timeout(Origin::Job, format!("the time limit of {limit:?} has passed"));
            self.stop(Outcome::TimedOut, StopReason::TimeLimit, Some(cause));
        }
    }

    /// Pauses the sources or has them go on, as is asked for.
    pub(super) fn settle_pauses(&mut self) {
        let Pauses { asked, outages } = self.pauses;
        let (from, to) = match asked || outages > 0 {
            true => (JobState::Running, JobState::Paused),
            false => (JobState::Paused, JobState::Running),
        };
        if self.state == from && self.backend.pause(to == JobState::Paused) {
            self.advance(to);
        }
    }

    fn on_command(&mut self, command: Command) {
        let stopped =
            |reason: &StopReason| Some(Cause::new(Origin::Job, CauseKind::Stopped, format!("stopped: {reason}")));
        match command {
            Command::Pause | Command::Resume => {
                self.pauses.asked = matches!(command, Command::Pause);
                self.settle_pauses();
            }
            Command::Outage(begins) => {
                self.pauses.outages += if begins { 1 } else { -1 };
                self.settle_pauses();
            }
            // Every record has been dealt with; asking for the end again changes nothing.
            Command::Drain(_) | Command::Cancel(_) if self.state == JobState::Stopping => {}
            Command::Drain(reason @ StopReason::Signal(_)) => {
                let cause = stopped(&reason);
                self.stop_with(Outcome::Cancelled, reason, cause, Control::Drain);
            }
            Command::Drain(reason) => {
                if self.reason.is_none() {
                    self.reason = Some(reason);
                    self.wind_down(Control::Drain);
                }
            }
            Command::Cancel(reason) => {
                let cause = stopped(&reason);
                self.stop_with(Outcome::Cancelled, reason, cause, Control::Cancel);
            }
        }
    }

    /// A failure: the tasks are cancelled and the services stopped.
    pub(super) fn fail(&mut self, cause: Cause) {
        self.trace(|| tracing::error!(%cause, "failure"));
        self.log.error(format_args!("{cause}"));
        self.stop(Outcome::Failed, StopReason::Failure, Some(cause));
    }

    pub(super) fn stop(&mut self, outcome: Outcome, reason: StopReason, cause: Option<Cause>) {
        self.stop_with(outcome, reason, cause, Control::Cancel);
    }

    fn stop_with(&mut self, outcome: Outcome, reason: StopReason, cause: Option<Cause>, control: Control) {
        // A stop that was asked for twice has one cause, and one that comes when all is over has none.
        let repeated = self.outcome.is_some() && cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::Stopped);
        if !repeated {
            self.causes.extend(cause);
        }
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.reason = Some(reason);
        }
        self.wind_down(control);
    }

    /// The outcome and everything the caller is to know.
    fn report(&mut self, started: SystemTime, began: Instant) -> JobReport {
        let figures = &self.figures;
        let ended = self.tasks.iter().zip(&figures.graph().tasks).filter_map(|(task, described)| match &task.stage {
            TaskStage::Ended(outcome) => Some((described.chain - 1, outcome)),
            _ => None,
        });
        let mut causes = std::mem::take(&mut self.causes).into_iter();
        let report = JobReport {
            job: self.shared.id().to_owned(),
            environment: figures.graph().environment.clone(),
            outcome: self.outcome.unwrap_or(Outcome::Succeeded),
            cleanliness: if self.left.is_empty() { Cleanliness::Clean } else { Cleanliness::Unclean },
            left: std::mem::take(&mut self.left),
            notes: std::mem::take(&mut self.notes),
            reason: self.reason.clone().unwrap_or(StopReason::EndOfInput),
            first_cause: causes.next(),
            attached: causes.collect(),
            started,
            elapsed: self.backend.now() - began,
            phases: self.phases,
            dropped: if self.outcome.is_none() { 0 } else { figures.unfinished() },
            operators: figures.operator_reports(ended),
            services: figures.services_at_end(),
            workers: Vec::new(),
        };
        self.log.dispatcher(format_args!("{report}"));
        self.trace(|| tracing::info!(outcome = %report.outcome, clean = report.left.is_empty(), "job over"));
        report
    }

    /// Tells those who listen to the program's events, which is a user's code as well.
    pub(super) fn trace(&self, tell: impl FnOnce()) {
        // What panics there is not the job's affair.
        drop(guard(|| self.span.in_scope(tell)));
    }
}

#[cfg(test)]
mod tests;
