//! The whole shutdown of a job, top to bottom.
//!
//! It is the same for every ending: the end of input, a failure, a signal, a cancel, a time limit. They differ only in
//! how soon the tasks are told to end. Each step has a deadline. A part that misses it is named in the report and left
//! behind, and the next step begins.

use std::any::Any;
use std::time::Instant;

use super::cause::{Cause, CauseKind, Leftover, Origin};
use super::dispatcher::Dispatcher;
use super::report::Outcome;
use super::state::{JobState, TaskState};
use crate::backend::{Backend, Unit, UnitId};
use crate::control::{Control, StopReason};
use crate::guarded::What;
use crate::service::{HookEnd, ServiceState};
use crate::thread::{PROBE_TIMEOUT, ProbeHangs};

impl Dispatcher {
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
        self.shared.registry().no_more_starts();
        self.drop_waiting_tasks();
        self.log_tasks();
        self.advance(JobState::Stopping);

        // 3. The services stop and are cleaned, each after all that use it.
        let started = self.supervisor.count(|state| state != ServiceState::Registered);
        self.log.dispatcher(format_args!("services to clean: {started}"));
        self.stop_services(&reason);
        let cleaned = self.supervisor.count(|state| state == ServiceState::Cleaned);
        self.log.dispatcher(format_args!("services cleaned: {cleaned} of {started}"));
        self.discard_strays();

        // 4. The async runtime ends, and with it the last threads.
        let threads = self.runtime.close(self.deadlines.cancel);
        if threads > 0 {
            let message = format!("{threads} of its threads did not end within {:?}", self.deadlines.cancel);
            self.left.push(Leftover { what: "the async runtime".to_owned(), why: message.clone() });
            self.attach(Cause::timeout(Origin::Job, format!("the async runtime: {message}")));
        }
        self.settle_threads();
        self.shared.registry().end();
        self.phases.stop = self.backend.now() - tasks_over;
        self.advance(JobState::Ended);
    }

    fn log_tasks(&mut self) {
        let ends = [TaskState::Finished, TaskState::Cancelled, TaskState::Failed, TaskState::Abandoned];
        let count = |end| self.tasks.iter().filter(|task| task.stage.state() == end).count();
        let counted = ends.map(|end| (count(end), end)).into_iter().filter(|(count, _)| *count > 0);
        let counted: Vec<_> = counted.map(|(count, end)| format!("{count} {end}")).collect();
        self.log.dispatcher(format_args!("tasks ended: {}", counted.join(", ")));
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
        self.settle_serving(None);
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
                self.stop(Outcome::TimedOut, StopReason::TimeLimit, Some(Cause::timeout(Origin::Job, message)));
            }
        }
    }

    /// What is said of something that is stuck, and where it is if a user's probe can tell.
    pub(super) fn with_place(
        &mut self,
        message: String,
        probe: impl FnOnce(&dyn Backend) -> Result<Option<String>, ProbeHangs>,
    ) -> String {
        if self.is_probe_stuck {
            return message;
        }
        match probe(&*self.backend) {
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
                UnitId::Task(task) => {
                    let (what, origin) = self.origin_of(task);
                    (format!("the thread of {what}"), origin)
                }
                UnitId::Hook(service, hook) => {
                    let name = self.supervisor.name(service).to_owned();
                    (format!("a thread of service `{name}`"), Origin::Service { name, hook })
                }
                UnitId::Discard => ("the thread that drops unused values".to_owned(), Origin::Job),
            };
            let message = format!(
                "it did not end within {:?} after its work, perhaps in the `Drop` of a thread-local value; it is left",
                self.deadlines.cancel
            );
            self.left.push(Leftover { what, why: message.clone() });
            self.attach(Cause::timeout(origin, message));
        }
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
    pub(super) fn discard(&mut self, values: Vec<Box<dyn Any + Send>>) {
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
            self.attach(Cause::new(Origin::Job, CauseKind::Panic, message));
        }
    }

    pub(super) fn on_discard_deadline(&mut self) {
        let message = format!("did not end within {:?}; its thread is left", self.deadlines.cancel);
        self.left.push(Leftover { what: "the `Drop` of a value that was not used".to_owned(), why: message.clone() });
        let message = format!("the `Drop` of a value that was not used {message}");
        self.attach(Cause::timeout(Origin::Job, message));
    }

    /// Something that went wrong while the job ended: it decides no outcome, but it is told.
    pub(super) fn attach(&mut self, cause: Cause) {
        self.trace(|| tracing::error!(%cause, "failure while stopping"));
        self.log.error(format_args!("{cause}"));
        self.causes.push(cause);
    }
}
