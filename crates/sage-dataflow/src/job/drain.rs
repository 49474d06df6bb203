//! The whole shutdown of a job, top to bottom.
//!
//! It is the same for every ending: the end of input, a failure, a signal, a cancel, a time limit. They differ only in
//! how soon the tasks are told to end. Each step has a deadline. A part that misses it is named in the report and left
//! behind, and the next step begins.

use std::any::Any;
use std::time::{Duration, Instant};

use super::dispatcher::{Dispatcher, GRACE, hook_cause};
use super::plan::{TaskRecord, TaskState};
use super::report::{Cause, CauseKind, Leftover, Origin, Outcome};
use super::state::JobState;
use crate::backend::{Backend, ServiceAction, ServicePlan, Stuck, TaskId, Unit};
use crate::control::{Control, StopReason};
use crate::guarded::What;
use crate::service::{Hook, HookEnd, HookFailure, ServiceId, ServiceState};
use crate::sync::lock;
use crate::thread::{PROBE_TIMEOUT, ProbeHangs, ask};

impl<B: Backend> Dispatcher<B> {
    /// Brings the job to its end.
    pub(super) fn shut_down(&mut self) {
        let began = self.backend.now();

        // 1. The tasks end: by themselves, or because they are told to.
        let mut asked = None;
        while self.is_any_running() {
            self.take_task_event(&mut asked);
        }
        let tasks_over = self.backend.now();
        let asked = asked.unwrap_or(tasks_over).max(began);
        self.phases.run = asked - began;
        self.phases.drain = tasks_over - asked;

        self.settle_threads();
        self.fail_if_incomplete();

        // 2. No task is left that could call a service, or it is abandoned. Nothing starts from here on.
        self.limit = None;
        let reason = self.reason.get_or_insert(StopReason::EndOfInput).clone();
        self.registry.no_more_starts();
        self.drop_waiting_tasks();
        self.advance(JobState::Stopping);

        // 3. The services stop and are cleaned, each after all that use it.
        self.turns.stop(self.services.iter().map(|service| !is_over(service.entry.state())).collect());
        loop {
            self.turns.observe(self.registry.observed_since(self.turns.observed()));
            while let Some(index) = self.turns.next() {
                self.stop_service_if_due(index, &reason);
            }
            if self.turns.are_over() {
                break;
            }
            self.take_event();
        }
        self.discard_strays();

        // 4. The async runtime ends, and with it the last threads.
        let threads = self.runtime.close(self.deadlines.cancel);
        if threads > 0 {
            let message = format!("{threads} of its threads did not end within {:?}", self.deadlines.cancel);
            self.left.push(Leftover { what: "the async runtime".to_owned(), why: message.clone() });
            let message = format!("the async runtime: {message}");
            self.attach(Cause { origin: Origin::Job, kind: CauseKind::Timeout, message, error: None });
        }
        self.settle_threads();
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
        if now < deadline || !self.is_any_running() {
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
            let message = self.with_place(message, |backend| backend.where_stuck(Stuck::Task(TaskId(index))));
            let origin = Origin::Task { name, replica };
            let cause = Cause { origin, kind: CauseKind::Timeout, message, error: None };
            self.fail(cause);
        }
    }

    /// What is said of something that is stuck, and where it is if a user's probe can tell.
    fn with_place(&mut self, message: String, probe: impl FnOnce(&B) -> Result<Option<String>, ProbeHangs>) -> String {
        if self.is_probe_stuck {
            return message;
        }
        match probe(&self.backend) {
            Ok(Some(place)) => format!("{message}, here:\n{place}"),
            Ok(None) => message,
            Err(ProbeHangs) => {
                self.is_probe_stuck = true;
                let why = format!("did not come back within {PROBE_TIMEOUT:?}; its thread is left");
                self.left.push(Leftover { what: "the probe that tells where something is stuck".to_owned(), why });
                message
            }
        }
    }

    /// Waits for the threads of the units that have ended. One that is not gone by then runs something that the engine
    /// has not called.
    fn settle_threads(&mut self) {
        let deadline = Instant::now() + self.deadlines.cancel;
        for stuck in self.backend.settle(deadline) {
            let (what, origin) = match stuck {
                Stuck::Task(task) => {
                    let TaskRecord { name, replica, .. } = &self.plan.tasks[task.0];
                    (format!("the thread of task `{name}`"), Origin::Task { name: name.clone(), replica: *replica })
                }
                Stuck::Hook(service, hook) => {
                    let name = self.services[service.0 as usize].entry.name.clone();
                    (format!("a thread of service `{name}`"), Origin::Service { name, hook })
                }
                Stuck::Discard => ("the thread that drops unused values".to_owned(), Origin::Job),
            };
            let message = format!(
                "it did not end within {:?} after its work, perhaps in the `Drop` of a thread-local value; it is left",
                self.deadlines.cancel
            );
            self.left.push(Leftover { what, why: message.clone() });
            self.attach(Cause { origin, kind: CauseKind::Timeout, message, error: None });
        }
    }

    /// Drops what was built and never started, before the services its functions may hold handles of.
    fn drop_waiting_tasks(&mut self) {
        let mut waiting: Vec<Box<dyn Any + Send>> = Vec::new();
        for task in &mut self.plan.tasks {
            if matches!(task.state, TaskState::Waiting(_)) {
                let never_ran = TaskState::Ended(crate::task::TaskOutcome::never_ran());
                waiting.push(Box::new(std::mem::replace(&mut task.state, never_ran)));
            }
        }
        self.discard(waiting);
    }

    /// Keeps the error of a hook nobody waited for.
    pub(super) fn stray(&mut self, end: HookEnd) {
        if let Err(failure) = end {
            self.strays.push(Box::new(failure));
        }
    }

    /// Drops what came with events nobody waited for, such as the error of a hook that was given up and failed later.
    fn discard_strays(&mut self) {
        while let Some(event) = self.backend.next_event(Some(self.backend.now())) {
            self.on_event(event);
        }
        let strays = std::mem::take(&mut self.strays);
        self.discard(strays);
    }

    /// Drops users' values on a thread of their own, and waits for it.
    fn discard(&mut self, values: Vec<Box<dyn Any + Send>>) {
        if values.is_empty() || self.backend.spawn(Unit::Discard(values)).is_err() {
            return;
        }
        self.discarding = Some(self.backend.now() + self.deadlines.cancel);
        while self.discarding.is_some() {
            self.take_event();
        }
    }

    pub(super) fn on_discarded(&mut self, panics: Vec<What>) {
        self.discarding = None;
        for what in panics {
            let message = format!("a value that was not used panicked when it was dropped: {what}");
            self.attach(Cause { origin: Origin::Job, kind: CauseKind::Panic, message, error: None });
        }
    }

    pub(super) fn on_discard_deadline(&mut self) {
        let message = format!("did not end within {:?}; its thread is left", self.deadlines.cancel);
        self.left.push(Leftover { what: "the `Drop` of a value that was not used".to_owned(), why: message.clone() });
        let message = format!("the `Drop` of a value that was not used {message}");
        self.attach(Cause { origin: Origin::Job, kind: CauseKind::Timeout, message, error: None });
    }

    /// Takes a service one step further towards its end; all that use it are at theirs.
    fn stop_service_if_due(&mut self, index: usize, reason: &StopReason) {
        let record = &self.services[index];
        let entry = record.entry.clone();
        let now = self.backend.now();
        let action = match entry.state() {
            ServiceState::Ready => {
                entry.advance(ServiceState::Stopping);
                let deadline = now + entry.timeouts.stop;
                // The wait for calls inside ends itself; only a `stop` that does not come back is given up.
                self.runs(index, Some(Hook::Stop), Some(deadline + GRACE));
                ServiceAction::Shutdown { reason: reason.clone(), deadline, cleanup: entry.timeouts.cleanup }
            }
            ServiceState::Initialising if record.running.is_none() => {
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
        let deadline = self.backend.now() + self.services[index].entry.timeouts.cleanup;
        self.runs(index, Some(Hook::Cleanup), Some(deadline));
        ServiceAction::Cleanup { reason: reason.clone(), deadline, free: self.services[index].stuck.is_none() }
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
            self.stray(end);
            return;
        }
        record.calls_inside = calls_inside;
        let entry = record.entry.clone();
        // Done already where the hooks run on a thread of this process.
        entry.advance(ServiceState::Cleaning);
        let grace = if entry.instance.ends_itself() { GRACE } else { Duration::ZERO };
        self.runs(index, Some(Hook::Cleanup), Some(now + entry.timeouts.cleanup + grace));
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
            let probe = lock(&entry.calls_probe).clone();
            let message = self.with_place(message, |_| probe.map_or(Ok(None), |probe| ask(move || probe())));
            let origin = Origin::Service { name: entry.name.clone(), hook: Hook::Stop };
            self.attach(Cause { origin, kind: CauseKind::Timeout, message, error: None });
        }
    }

    pub(super) fn on_cleanup_ended(&mut self, service: ServiceId, end: HookEnd) {
        let index = service.0 as usize;
        if self.services[index].running != Some(Hook::Cleanup) {
            self.stray(end);
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
        if self.services[index].running != Some(Hook::OnCleanup) {
            self.stray(end);
            return;
        }
        if let Err(failure) = end {
            self.hook_failed(index, &failure);
        }
        self.end_service(index, ServiceState::Abandoned);
    }

    /// A hook has missed its deadline: it is left where it is, and the service goes on to its next step.
    pub(super) fn on_hook_deadline(&mut self, index: usize) {
        let hook = self.services[index].running;
        self.runs(index, None, None);
        let Some(hook) = hook else { return };
        let record = &mut self.services[index];
        let entry = record.entry.clone();
        let timeout = match hook {
            Hook::Constructor | Hook::Setup => entry.timeouts.setup,
            Hook::Stop => entry.timeouts.stop,
            Hook::Cleanup | Hook::OnCleanup | Hook::Drop => entry.timeouts.cleanup,
        };
        record.stuck.get_or_insert(hook);
        let message = format!("did not come back within {timeout:?}; its thread is left");
        self.leave(index, format!("its {hook} {message}"));
        let message = self.with_place(message, |backend| backend.where_stuck(Stuck::Hook(entry.id, hook)));
        let origin = Origin::Service { name: entry.name.clone(), hook };
        let cause = Cause { origin, kind: CauseKind::Timeout, message, error: None };
        match hook {
            // The job cannot run without the service.
            Hook::Constructor | Hook::Setup => {
                self.turns.is_due(index);
                self.fail(cause);
            }
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
                self.runs(index, Some(Hook::OnCleanup), Some(self.backend.now() + entry.timeouts.cleanup));
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
    pub(super) fn attach(&mut self, cause: Cause) {
        self.trace(|| tracing::error!(%cause, "failure while stopping"));
        self.log.error(format_args!("{cause}"));
        self.causes.push(cause);
    }

    pub(super) fn leave(&mut self, index: usize, why: String) {
        self.left.push(Leftover { what: format!("service `{}`", self.services[index].entry.name), why });
    }

    fn end_service(&mut self, index: usize, state: ServiceState) {
        let now = self.backend.now();
        self.runs(index, None, None);
        let record = &mut self.services[index];
        record.cleanup = record.began.map(|began| now - began);
        record.entry.advance(state);
        let entry = record.entry.clone();
        self.turns.is_over(index);
        self.log_service(&entry);
    }
}

/// Whether nothing more will happen to a service: it has ended, or it was never started.
fn is_over(state: ServiceState) -> bool {
    state.is_terminal() || state == ServiceState::Registered
}
