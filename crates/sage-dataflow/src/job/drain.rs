//! The whole shutdown of a job, top to bottom.
//!
//! It is the same for every ending: the end of input, a failure, a signal, a cancel, a time limit. What differs is only how
//! soon the tasks are told to end. Each step has a deadline; what misses it is named in the report and left behind, and
//! the next step begins.

use std::time::{Duration, Instant};

use super::control::Control;
use super::dispatcher::{Dispatcher, GRACE, hook_cause};
use super::plan::{TaskRecord, TaskState};
use super::reason::StopReason;
use super::report::{Cause, CauseKind, Leftover, Origin, Outcome};
use super::state::JobState;
use crate::backend::{Backend, ServiceAction, ServicePlan, Stuck, TaskId, Unit};
use crate::service::{Hook, HookEnd, HookFailure, ServiceId, ServiceState};

impl<B: Backend> Dispatcher<B> {
    /// Brings the job to its end.
    pub(super) fn shut_down(&mut self) {
        let began = self.backend.now();

        // 1. The tasks end: by themselves, or because they are told to.
        let mut asked = None;
        while self.running_tasks().next().is_some() {
            self.take_task_event(&mut asked);
        }
        let tasks_over = self.backend.now();
        let asked = asked.unwrap_or(tasks_over).max(began);
        self.phases.run = asked - began;
        self.phases.drain = tasks_over - asked;

        self.fail_if_incomplete();

        // 2. No task is left that could call a service, or it is abandoned. Nothing starts from here on.
        self.limit = None;
        let reason = self.reason.get_or_insert(StopReason::EndOfInput).clone();
        self.registry.no_more_starts();
        self.drop_waiting_tasks();
        self.advance(JobState::Stopping);

        // 3. The services stop and are cleaned, each after all that use it.
        loop {
            for index in 0..self.services.len() {
                self.stop_service_if_due(index, &reason);
            }
            if self.services.iter().all(|service| is_over(service.entry.state())) {
                break;
            }
            self.take_event();
        }

        // 4. The async runtime ends, and with it the last threads.
        let threads = self.runtime.close(self.deadlines.cancel);
        if threads > 0 {
            let message = format!("{threads} of its threads did not end within {:?}", self.deadlines.cancel);
            self.left.push(Leftover { what: "the async runtime".to_owned(), why: message.clone() });
            let message = format!("the async runtime: {message}");
            self.attach(Cause { origin: Origin::Job, kind: CauseKind::Timeout, message, error: None });
        }
        self.registry.end();
        self.phases.stop = self.backend.now() - tasks_over;
        self.advance(JobState::Ended);
    }

    /// Tells the tasks to end. They are watched by `take_task_event`.
    pub(super) fn wind_down(&mut self, control: Control) {
        let reason = self.reason.clone().unwrap_or(StopReason::EndOfInput);
        let now = self.backend.now();
        let begins = matches!(self.state, JobState::Running | JobState::Paused);
        let done = self.winding_down.is_some_and(|(already, _)| already >= control);
        if done || !(begins || self.state == JobState::Draining) {
            return;
        }
        let within = if control == Control::Drain { self.deadlines.drain } else { self.deadlines.cancel };
        self.winding_down = Some((control, now + within));
        self.backend.control(control, &reason, Some(now + within));
        // Last: whoever sees a job that drains may rely on its tasks having been told.
        if begins {
            self.advance(JobState::Draining);
        }
    }

    /// Waits for one event while tasks run; escalates from drain to cancel to abandonment as deadlines pass.
    fn take_task_event(&mut self, asked: &mut Option<Instant>) {
        self.take_event();
        let Some((control, deadline)) = self.winding_down else { return };
        let now = self.backend.now();
        asked.get_or_insert(now);
        if now < deadline || self.running_tasks().next().is_none() {
            return;
        }
        match control {
            Control::Cancel => self.abandon_tasks(),
            _ => {
                let message = format!("the drain's deadline of {:?} has passed", self.deadlines.drain);
                let cause = Cause { origin: Origin::Job, kind: CauseKind::Timeout, message, error: None };
                self.stop(Outcome::TimedOut, StopReason::TimeLimit, Some(cause));
            }
        }
    }

    /// Sees to it that no job succeeds that has lost records: an operator can stop its task without giving a cause.
    fn fail_if_incomplete(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        let is_incomplete =
            |task: &&TaskRecord| matches!(&task.state, TaskState::Ended(outcome) if !outcome.is_complete());
        let Some(task) = self.plan.tasks.iter().find(is_incomplete) else { return };
        let origin = Origin::Task { name: task.name.clone(), replica: task.replica };
        let message = "an operator stopped it before the end of its input, without an error".to_owned();
        self.fail(Cause { origin, kind: CauseKind::Error, message, error: None });
    }

    /// Gives up the tasks that still run, saying where each is.
    fn abandon_tasks(&mut self) {
        for index in 0..self.plan.tasks.len() {
            let task = &mut self.plan.tasks[index];
            if !task.is_running() {
                continue;
            }
            task.state = TaskState::Abandoned;
            let (name, replica, records, chain) = (task.name.clone(), task.replica, task.cursor.records(), task.chain);
            let chain = self.plan.chain_operators(chain);
            let message = format!(
                "did not come back within {:?} of the cancel, from `{chain}`, in the batch after record {records}; \
                 its thread is left",
                self.deadlines.cancel
            );
            self.left.push(Leftover { what: format!("task `{name}`"), why: message.clone() });
            let message = self.with_place(message, Stuck::Task(TaskId(index)));
            let origin = Origin::Task { name, replica };
            let cause = Cause { origin, kind: CauseKind::Timeout, message, error: None };
            self.fail(cause);
        }
    }

    /// What is said of something that is stuck, and where it is if that can be told.
    fn with_place(&self, message: String, stuck: Stuck) -> String {
        placed(message, self.backend.where_stuck(stuck))
    }

    /// Drops what was built and never started, before the services its functions may hold handles of.
    fn drop_waiting_tasks(&mut self) {
        for task in &mut self.plan.tasks {
            if matches!(task.state, TaskState::Waiting(_)) {
                let state = std::mem::replace(&mut task.state, TaskState::Ended(super::task::TaskOutcome::never_ran()));
                // A user's `Drop` may panic; nothing of the task has run, so there is nothing to report.
                drop(super::task::guard(move || drop(state)));
            }
        }
    }

    /// Takes a service one step further towards its end, if all that use it are at theirs.
    fn stop_service_if_due(&mut self, index: usize, reason: &StopReason) {
        let record = &self.services[index];
        let entry = record.entry.clone();
        let now = self.backend.now();
        let in_use = || {
            self.services.iter().any(|other| {
                let uses = other.entry.after.contains(&entry.name)
                    || self.registry.observed().contains(&(other.entry.id, entry.id));
                uses && !is_over(other.entry.state())
            })
        };
        let action = match entry.state() {
            ServiceState::Ready if !in_use() => {
                entry.advance(ServiceState::Stopping);
                let deadline = now + entry.timeouts.stop;
                // The wait for calls inside ends itself; only a `stop` that does not come back is given up.
                self.services[index].deadline = Some(deadline + GRACE);
                self.services[index].running = Some(Hook::Stop);
                ServiceAction::Shutdown { reason: reason.clone(), deadline, cleanup: entry.timeouts.cleanup }
            }
            ServiceState::Initialising if record.running.is_none() && !in_use() => {
                entry.advance(ServiceState::Cleaning);
                self.clean_alone(index, reason)
            }
            _ => return,
        };
        self.services[index].began = Some(now);
        self.log_service(&entry);
        self.spawn_service(index, action);
    }

    /// `cleanup` on a thread of its own, for a service whose earlier hook failed or is stuck.
    fn clean_alone(&mut self, index: usize, reason: &StopReason) -> ServiceAction {
        let record = &mut self.services[index];
        let deadline = self.backend.now() + record.entry.timeouts.cleanup;
        (record.deadline, record.running) = (Some(deadline), Some(Hook::Cleanup));
        ServiceAction::Cleanup { reason: reason.clone(), deadline, free: record.stuck.is_none() }
    }

    fn spawn_service(&mut self, index: usize, action: ServiceAction) {
        let entry = self.services[index].entry.clone();
        if let Err(error) = self.backend.spawn(Unit::Service(ServicePlan { entry: entry.clone(), action })) {
            // The local backend runs such hooks on this thread; another backend may have no way to.
            let why = format!("its hooks could not be run: {error}");
            self.leave(index, why);
            self.end_service(index, ServiceState::CleanupFailed);
        }
    }

    pub(super) fn on_stop_ended(&mut self, service: ServiceId, end: HookEnd, calls_inside: u64) {
        let index = service.0 as usize;
        let now = self.backend.now();
        let record = &mut self.services[index];
        if record.running != Some(Hook::Stop) {
            return;
        }
        record.running = Some(Hook::Cleanup);
        // Done already where the hooks run on a thread of this process.
        record.entry.advance(ServiceState::Cleaning);
        let grace = if record.entry.instance.ends_itself() { GRACE } else { Duration::ZERO };
        record.deadline = Some(now + record.entry.timeouts.cleanup + grace);
        let entry = record.entry.clone();
        self.log_service(&entry);
        if let Err(failure) = end {
            self.services[index].overdue |= failure.timed_out;
            self.hook_failed(index, &failure);
        }
        if calls_inside > 0 {
            self.services[index].stuck = Some(Hook::Stop);
            let calls = if calls_inside == 1 { "call was" } else { "calls were" };
            let message = format!("{calls_inside} {calls} still inside; its value is not freed under them");
            self.leave(index, message.clone());
            let place = entry.calls_probe.as_ref().and_then(|probe| probe());
            let message = placed(message, place);
            let origin = Origin::Service { name: entry.name.clone(), hook: Hook::Stop };
            self.attach(Cause { origin, kind: CauseKind::Timeout, message, error: None });
        }
    }

    pub(super) fn on_cleanup_ended(&mut self, service: ServiceId, end: HookEnd) {
        let index = service.0 as usize;
        if self.services[index].running.take_if(|hook| *hook == Hook::Cleanup).is_none() {
            return;
        }
        let abandoned = self.services[index].stuck.is_some() || self.services[index].overdue;
        let state = match end {
            Err(failure) => {
                self.hook_failed(index, &failure);
                if failure.timed_out { ServiceState::Abandoned } else { ServiceState::CleanupFailed }
            }
            Ok(()) if abandoned => ServiceState::Abandoned,
            Ok(()) => ServiceState::Cleaned,
        };
        self.end_service(index, state);
    }

    /// What a stuck `cleanup` held up has run.
    pub(super) fn on_actions_ended(&mut self, service: ServiceId, end: HookEnd) {
        let index = service.0 as usize;
        if self.services[index].running.take_if(|hook| *hook == Hook::OnCleanup).is_none() {
            return;
        }
        if let Err(failure) = end {
            self.hook_failed(index, &failure);
        }
        self.end_service(index, ServiceState::Abandoned);
    }

    /// A hook has missed its deadline: it is left where it is, and the service goes on to its next step.
    pub(super) fn on_hook_deadline(&mut self, index: usize) {
        let record = &mut self.services[index];
        record.deadline = None;
        let Some(hook) = record.running.take() else { return };
        let entry = record.entry.clone();
        let timeout = match hook {
            Hook::Constructor | Hook::Setup => entry.timeouts.setup,
            Hook::Stop => entry.timeouts.stop,
            Hook::Cleanup | Hook::OnCleanup | Hook::Drop => entry.timeouts.cleanup,
        };
        record.stuck.get_or_insert(hook);
        let message = format!("did not come back within {timeout:?}; its thread is left");
        self.leave(index, format!("its {hook} {message}"));
        let message = self.with_place(message, Stuck::Hook(entry.id, hook));
        let origin = Origin::Service { name: entry.name.clone(), hook };
        let cause = Cause { origin, kind: CauseKind::Timeout, message, error: None };
        match hook {
            // The job cannot run without the service.
            Hook::Constructor | Hook::Setup => self.fail(cause),
            Hook::Stop => {
                self.attach(cause);
                entry.advance(ServiceState::Cleaning);
                let reason = self.reason.clone().unwrap_or(StopReason::EndOfInput);
                let action = self.clean_alone(index, &reason);
                self.spawn_service(index, action);
            }
            // They do not need the value, and run in every case.
            Hook::Cleanup if entry.instance.owes_actions() => {
                self.attach(cause);
                let record = &mut self.services[index];
                record.deadline = Some(self.backend.now() + entry.timeouts.cleanup);
                record.running = Some(Hook::OnCleanup);
                self.spawn_service(index, ServiceAction::OnCleanup);
            }
            Hook::Cleanup | Hook::OnCleanup | Hook::Drop => {
                self.attach(cause);
                self.end_service(index, ServiceState::Abandoned);
            }
        }
    }

    fn hook_failed(&mut self, index: usize, failure: &HookFailure) {
        let cause = hook_cause(&self.services[index].entry, failure);
        self.leave(index, format!("its {} failed: {}", failure.hook, cause.message));
        self.attach(cause);
        failure.also.iter().for_each(|failure| self.hook_failed(index, failure));
    }

    /// Something that went wrong while the job ended: it decides no outcome, but it is told.
    fn attach(&mut self, cause: Cause) {
        tracing::error!(%cause, "failure while stopping");
        self.log.error(format_args!("{cause}"));
        self.causes.push(cause);
    }

    pub(super) fn leave(&mut self, index: usize, why: String) {
        self.left.push(Leftover { what: format!("service `{}`", self.services[index].entry.name), why });
    }

    fn end_service(&mut self, index: usize, state: ServiceState) {
        let now = self.backend.now();
        let record = &mut self.services[index];
        record.deadline = None;
        record.cleanup = record.began.map(|began| now - began);
        record.entry.advance(state);
        let entry = record.entry.clone();
        self.log_service(&entry);
    }
}

/// A message, and where what it is about is, if that can be told.
fn placed(message: String, place: Option<String>) -> String {
    match place {
        Some(place) => format!("{message}, here:\n{place}"),
        None => message,
    }
}

/// Whether nothing more will happen to a service: it has ended, or it was never started.
fn is_over(state: ServiceState) -> bool {
    state.is_terminal() || state == ServiceState::Registered
}
