//! One dispatcher per job: starts services and tasks, waits for what happens, and hands over to `drain`.
//!
//! It is an event loop over its backend's events and knows no thread and no clock but the backend's, so that a fake
//! backend drives it through any order of events. All states of the job, its tasks and its services change here and
//! in `drain`, on one thread.
//!
//! Invariants:
//!  1. The first event that decides the outcome decides it; every later one is attached.
//!  2. A service is attempted at most once, after all it depends on are ready.
//!  3. Tasks start only when every service is ready.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::handle::JobShared;
use super::log::SessionLog;
use super::plan::{Deadlines, Plan, TaskRecord, TaskState, operator_reports};
use super::report::{Cause, CauseKind, Cleanliness, JobReport, Leftover, Origin, Outcome, PhaseTimes, ServiceReport};
use super::state::JobState;
use super::turns::Turns;
use crate::backend::{Backend, Command, Event, ServiceAction, ServicePlan, TaskId, Unit};
use crate::chain::{During, Failure, LeftBehind};
use crate::control::{Control, StopReason};
use crate::guarded::{What, guard};
use crate::runtime::JobRuntime;
use crate::service::{Hook, HookEnd, HookFailure, Registry, ServiceEntry, ServiceId, ServiceState, Tally, order};
use crate::task::TaskOutcome;

/// One service as the dispatcher tracks it; its state is in its entry.
pub(super) struct ServiceRecord {
    pub(super) entry: Arc<ServiceEntry>,
    /// When the hook that runs now will be given up.
    pub(super) deadline: Option<Instant>,
    /// A hook that did not come back.
    pub(super) stuck: Option<Hook>,
    /// A hook was cut off at its deadline.
    pub(super) overdue: bool,
    /// The hook that runs now, as far as the events tell; what is given up does not run any more.
    pub(super) running: Option<Hook>,
    pub(super) began: Option<Instant>,
    pub(super) setup: Option<Duration>,
    pub(super) cleanup: Option<Duration>,
    /// What its gate had counted before this job.
    before: Tally,
    /// Calls that were inside when it was given up.
    pub(super) calls_inside: u64,
}

/// Who runs a job.
pub(crate) struct Dispatcher<B> {
    pub(super) backend: B,
    pub(super) environment: String,
    pub(super) deadlines: Deadlines,
    pub(super) time_limit: Option<Duration>,
    pub(super) plan: Plan,
    pub(super) services: Vec<ServiceRecord>,
    pub(super) turns: Turns,
    /// How many services run their constructor or `setup`.
    starting: usize,
    /// The deadlines of the services' hooks.
    hook_deadlines: BTreeSet<(Instant, usize)>,
    pub(super) registry: Arc<Registry>,
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
    notes: Vec<String>,
    pub(super) phases: PhaseTimes,
    pub(super) limit: Option<Instant>,
    /// What the tasks were told, and by when they are to have obeyed.
    pub(super) winding_down: Option<(Control, Instant)>,
    /// So many tasks from the first on do not run any more.
    ended_tasks: usize,
    /// What is dropped on another thread, and by when that is to be done.
    pub(super) discarding: Option<Instant>,
    /// Users' values that came with events nobody waited for.
    pub(super) strays: Vec<Box<dyn Any + Send>>,
    /// A user's probe did not come back: none is asked any more.
    pub(super) is_probe_stuck: bool,
}

impl<B: Backend> Dispatcher<B> {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from parts that are made there")]
    pub(crate) fn new(
        backend: B,
        environment: String,
        deadlines: Deadlines,
        time_limit: Option<Duration>,
        plan: Plan,
        registry: Arc<Registry>,
        runtime: Arc<JobRuntime>,
        shared: Arc<JobShared>,
        log: SessionLog,
    ) -> Self {
        let services = plan.services.iter().cloned().map(ServiceRecord::new).collect();
        let turns = Turns::new(order::declared(&plan.services));
        Self {
            backend,
            environment,
            deadlines,
            time_limit,
            plan,
            services,
            turns,
            starting: 0,
            hook_deadlines: BTreeSet::new(),
            registry,
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
        }
    }

    pub(crate) fn shared(&self) -> Arc<JobShared> {
        self.shared.clone()
    }

    /// Runs the job to its end, once.
    pub(crate) fn run(&mut self) -> JobReport {
        let span = guard(|| tracing::info_span!("job", environment = self.environment, id = self.shared.id()));
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
        self.state = next;
        self.shared.publish(next);
        self.trace(|| tracing::debug!(state = %next, "job"));
        self.log.dispatcher(format_args!("job {next}"));
    }

    fn start_services(&mut self) {
        loop {
            while self.reason.is_none()
                && let Some(index) = self.turns.next()
            {
                self.start_service(index);
            }
            if self.starting == 0 || self.reason.is_some() {
                return;
            }
            self.take_event();
        }
    }

    /// Sets the hook that a service runs now, if any, and when it will be given up.
    pub(super) fn runs(&mut self, index: usize, hook: Option<Hook>, deadline: Option<Instant>) {
        let record = &mut self.services[index];
        let starts = |hook: Option<Hook>| usize::from(hook == Some(Hook::Setup));
        self.starting = self.starting + starts(hook) - starts(record.running);
        record.running = hook;
        if let Some(before) = std::mem::replace(&mut record.deadline, deadline) {
            self.hook_deadlines.remove(&(before, index));
        }
        self.hook_deadlines.extend(deadline.map(|deadline| (deadline, index)));
    }

    pub(super) fn start_service(&mut self, index: usize) {
        let now = self.backend.now();
        let entry = self.services[index].entry.clone();
        if !entry.advance(ServiceState::Initialising) {
            return;
        }
        let deadline = now + entry.timeouts.setup;
        let given_up = if entry.instance.ends_itself() { deadline + GRACE } else { deadline };
        self.services[index].began = Some(now);
        self.runs(index, Some(Hook::Setup), Some(given_up));
        self.log_service(&entry);
        let action = ServiceAction::Start { deadline };
        if let Err(error) = self.backend.spawn(Unit::Service(ServicePlan { entry: entry.clone(), action })) {
            let origin = Origin::Service { name: entry.name.clone(), hook: Hook::Setup };
            let message = format!("no thread could be started for it: {error}");
            self.fail(Cause { origin, kind: CauseKind::Spawn, message, error: None });
            self.runs(index, None, None);
        }
    }

    fn start_tasks(&mut self) {
        self.advance(JobState::Running);
        for index in 0..self.plan.tasks.len() {
            let Some(plan) = self.plan.tasks[index].start(TaskId(index)) else { continue };
            let name = plan.name.clone();
            if let Err(error) = self.backend.spawn(Unit::Task(plan)) {
                let message = format!("no thread could be started for task `{name}`: {error}");
                self.plan.tasks[index].state = TaskState::Ended(TaskOutcome::never_ran());
                self.fail(Cause { origin: Origin::Job, kind: CauseKind::Spawn, message, error: None });
                return;
            }
        }
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
        let hooks = self.hook_deadlines.first().map(|(deadline, _)| *deadline);
        hooks
            .into_iter()
            .chain(self.limit)
            .chain(self.discarding)
            .chain(self.winding_down.filter(|_| self.state == JobState::Draining).map(|(_, by)| by))
            .min()
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

    fn on_task_ended(&mut self, task: TaskId, outcome: TaskOutcome) {
        let record = &mut self.plan.tasks[task.0];
        if !record.is_running() {
            if !outcome.failures.is_empty() {
                self.strays.push(Box::new(outcome));
            }
            return;
        }
        let name = record.name.clone();
        let failures = outcome.failures.clone();
        let complete = outcome.is_complete();
        self.notes.extend(outcome.notes.iter().cloned());
        record.state = TaskState::Ended(outcome);
        self.trace(|| tracing::debug!(task = name, complete, "task ended"));
        self.log.dispatcher(format_args!("task {name} ended"));
        for failure in failures {
            if let Some(left) = failure.left_behind() {
                self.left_behind(task, &failure, left);
                continue;
            }
            let cause = self.cause_of(task, &failure);
            if failure.during == During::Close {
                self.left.push(Leftover { what: format!("task `{name}`"), why: cause.to_string() });
            }
            self.fail(cause);
        }
    }

    /// Something of a task has not ended with it.
    fn left_behind(&mut self, task: TaskId, failure: &Failure, left: &LeftBehind) {
        let TaskRecord { name, replica, .. } = &self.plan.tasks[task.0];
        let (name, replica) = (name.clone(), *replica);
        let operator = failure.operator.and_then(|node| self.plan.operator_name(node));
        let message = match operator {
            Some(operator) => format!("of `{operator}`: {left}"),
            None => left.to_string(),
        };
        self.left.push(Leftover { what: format!("task `{name}`"), why: message.clone() });
        self.attach(Cause { origin: Origin::Task { name, replica }, kind: CauseKind::Timeout, message, error: None });
    }

    fn cause_of(&self, task: TaskId, failure: &Failure) -> Cause {
        let TaskRecord { name, replica, chain, .. } = &self.plan.tasks[task.0];
        let (replica, parallelism) = (*replica, self.plan.parallelism(*chain));
        if failure.operator.is_none() && failure.during == During::Drop {
            return what_cause(Origin::Task { name: name.clone(), replica }, &failure.what);
        }
        let name = failure.operator.and_then(|node| self.plan.operator_name(node));
        let (record, phase) = match failure.during {
            // A source fails to read the record after the last one it gave.
            During::Record if failure.operator.is_some_and(|node| self.plan.is_source(node)) => {
                (Some(failure.record + 1), None)
            }
            During::Record => (Some(failure.record), None),
            During::Open => (None, Some("opening")),
            During::Finish => (None, Some("finishing")),
            During::Close => (None, Some("closing")),
            During::Drop => (None, Some("being dropped")),
        };
        let name = name.unwrap_or_else(|| "engine".to_owned());
        let origin = Origin::Operator { name, replica, parallelism, record, phase: phase.map(str::to_owned) };
        what_cause(origin, &failure.what)
    }

    fn on_start_ended(&mut self, service: ServiceId, end: HookEnd) {
        let now = self.backend.now();
        let index = service.0 as usize;
        let record = &mut self.services[index];
        // Inline, a service may have been started for a nested call, and not by the dispatcher.
        let is_nested = record.began.is_none();
        if record.running != Some(Hook::Setup) && !is_nested {
            self.stray(end);
            return;
        }
        record.setup = record.began.map(|began| now - began);
        let entry = record.entry.clone();
        self.runs(index, None, None);
        match end {
            // Clause 11: a service that is set up too late never gets to serve.
            Ok(()) if self.reason.is_none() => {
                entry.advance(ServiceState::Ready);
                self.turns.is_ready(index);
                self.log_service(&entry);
            }
            Ok(()) => self.turns.is_due(index),
            Err(failure) => {
                let cause = hook_cause(&entry, &failure);
                self.turns.is_due(index);
                if failure.timed_out {
                    self.services[index].overdue = true;
                    self.leave(index, format!("its {} failed: {}", failure.hook, cause.message));
                }
                self.fail(cause);
            }
        }
    }

    fn on_deadline(&mut self) {
        let now = self.backend.now();
        while let Some(&(deadline, index)) = self.hook_deadlines.first()
            && deadline <= now
        {
            self.on_hook_deadline(index);
        }
        if self.discarding.take_if(|deadline| *deadline <= now).is_some() {
            self.on_discard_deadline();
        }
        if self.limit.is_some_and(|limit| limit <= now) {
            self.limit = None;
            let limit = self.time_limit.unwrap_or_default();
            let cause = Cause {
                origin: Origin::Job,
                kind: CauseKind::Timeout,
                message: format!("the time limit of {limit:?} has passed"),
                error: None,
            };
            self.stop(Outcome::TimedOut, StopReason::TimeLimit, Some(cause));
        }
    }

    fn on_command(&mut self, command: Command) {
        let stopped = |message: &str| {
            let message = message.to_owned();
            Some(Cause { origin: Origin::Job, kind: CauseKind::Stopped, message, error: None })
        };
        match command {
            Command::Pause if self.state == JobState::Running => {
                if self.backend.pause(true) {
                    self.advance(JobState::Paused);
                }
            }
            Command::Resume if self.state == JobState::Paused => {
                if self.backend.pause(false) {
                    self.advance(JobState::Running);
                }
            }
            Command::Pause | Command::Resume => {}
            // Every record has been dealt with; asking for the end again changes nothing.
            Command::Drain(_) | Command::Cancel(_) if self.state == JobState::Stopping => {}
            Command::Drain(reason @ StopReason::Signal(_)) => {
                let cause = stopped(&format!("stopped: {reason}"));
                self.stop_with(Outcome::Cancelled, reason, cause, Control::Drain);
            }
            Command::Drain(reason) => {
                if self.reason.is_none() {
                    self.reason = Some(reason);
                    self.wind_down(Control::Drain);
                }
            }
            Command::Cancel(reason) => {
                let cause = stopped(&format!("stopped: {reason}"));
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
        let services = self
            .services
            .iter()
            .map(|record| {
                let tally = record.entry.gate().tally();
                ServiceReport {
                    name: record.entry.name.clone(),
                    state: record.entry.state(),
                    calls: tally.calls - record.before.calls + record.calls_inside,
                    errors: tally.errors - record.before.errors,
                    p50: record.entry.latency.quantile(0.5),
                    p99: record.entry.latency.quantile(0.99),
                    setup: record.setup,
                    cleanup: record.cleanup,
                }
            })
            .collect();
        let mut causes = std::mem::take(&mut self.causes).into_iter();
        let report = JobReport {
            job: self.shared.id().to_owned(),
            environment: self.environment.clone(),
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
            dropped: if self.outcome.is_none() { 0 } else { self.plan.unfinished.records() },
            operators: operator_reports(&self.plan.operators, &self.plan.tasks),
            services,
        };
        self.log.dispatcher(format_args!("{report}"));
        self.trace(|| tracing::info!(outcome = %report.outcome, clean = report.left.is_empty(), "job over"));
        report
    }

    pub(super) fn log_service(&mut self, entry: &ServiceEntry) {
        let state = entry.state();
        self.trace(|| tracing::debug!(service = entry.name, %state, "service"));
        self.log.dispatcher(format_args!("service {} {state}", entry.name));
    }

    /// Tells those who listen to the program's events, which is a user's code as well.
    pub(super) fn trace(&self, tell: impl FnOnce()) {
        // What panics there is not the job's affair.
        drop(guard(|| self.span.in_scope(tell)));
    }

    /// Whether a task runs. They have all been started, and none is again, so that those that have ended are looked at
    /// once.
    pub(super) fn is_any_running(&mut self) -> bool {
        while self.plan.tasks.get(self.ended_tasks).is_some_and(|task| !task.is_running()) {
            self.ended_tasks += 1;
        }
        self.ended_tasks < self.plan.tasks.len()
    }
}

impl ServiceRecord {
    fn new(entry: Arc<ServiceEntry>) -> Self {
        let before = entry.gate().tally();
        Self {
            entry,
            deadline: None,
            stuck: None,
            overdue: false,
            running: None,
            began: None,
            setup: None,
            cleanup: None,
            before,
            calls_inside: 0,
        }
    }
}

/// How much longer than its deadline the dispatcher waits for what ends itself at its deadline, so that it can tell
/// how it came out.
pub(super) const GRACE: Duration = Duration::from_millis(100);

pub(super) fn hook_cause(entry: &ServiceEntry, failure: &HookFailure) -> Cause {
    let origin = Origin::Service { name: entry.name.clone(), hook: failure.hook };
    let cause = what_cause(origin, &failure.what);
    if failure.timed_out { Cause { kind: CauseKind::Timeout, ..cause } } else { cause }
}

pub(super) fn what_cause(origin: Origin, what: &What) -> Cause {
    match what {
        What::Error { error, text } => {
            Cause { origin, kind: CauseKind::Error, message: text.clone(), error: Some(error.clone()) }
        }
        What::Panic(message) => Cause { origin, kind: CauseKind::Panic, message: message.clone(), error: None },
    }
}

#[cfg(test)]
mod tests;
