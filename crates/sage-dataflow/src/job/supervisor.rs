//! The life of the services of a job, as its dispatcher leads it: each is started when all it uses are ready, and
//! stopped and cleaned when nothing uses it any more. A hook that misses its deadline is left where it is, and its
//! service goes on to the next step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cause::{Cause, CauseKind, Leftover, Origin};
use super::changes::Noted;
use super::dispatcher::Dispatcher;
use super::turns::Turns;
use crate::backend::{ServiceAction, ServicePlan, Unit, UnitId};
use crate::control::StopReason;
use crate::service::{Hook, HookEnd, HookFailure, ServiceEntry, ServiceId, ServiceState, order};
use crate::sync::lock;
use crate::thread::ask;

/// How much longer than its deadline the dispatcher waits for what ends itself at its deadline, so that it can tell
/// how it came out.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// The services of a job, and what is going on with each.
pub(super) struct Supervisor {
    services: Vec<ServiceRecord>,
    turns: Turns,
    /// How many run their constructor or `setup`.
    starting: usize,
    /// By when which one's hook is given up.
    deadlines: BTreeSet<(Instant, usize)>,
}

/// One service as the dispatcher tracks it; its state and its figures are in its entry.
struct ServiceRecord {
    entry: Arc<ServiceEntry>,
    /// The state that was told last.
    told: ServiceState,
    /// When the hook that runs now will be given up.
    deadline: Option<Instant>,
    /// A hook that did not come back.
    stuck: Option<Hook>,
    /// A hook was cut off at its deadline.
    overdue: bool,
    /// The hook that runs now, as far as the events tell; what is given up does not run any more.
    running: Option<Hook>,
    began: Option<Instant>,
}

impl Supervisor {
    pub(super) fn new(services: &[Arc<ServiceEntry>]) -> Self {
        let record = |entry: &Arc<ServiceEntry>| ServiceRecord {
            entry: entry.clone(),
            told: ServiceState::Registered,
            deadline: None,
            stuck: None,
            overdue: false,
            running: None,
            began: None,
        };
        Self {
            services: services.iter().map(record).collect(),
            turns: Turns::new(order::declared(services)),
            starting: 0,
            deadlines: BTreeSet::new(),
        }
    }

    /// When the next hook will be given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// How many services are in such a state.
    pub(super) fn count(&self, is: impl Fn(ServiceState) -> bool) -> usize {
        self.services.iter().filter(|record| is(record.entry.state())).count()
    }

    pub(super) fn name(&self, service: ServiceId) -> &str {
        &self.services[service.0 as usize].entry.name
    }

    /// Sets the hook that a service runs now, if any, and when it will be given up.
    fn runs(&mut self, index: usize, hook: Option<Hook>, deadline: Option<Instant>) {
        let record = &mut self.services[index];
        let starts = |hook: Option<Hook>| usize::from(hook == Some(Hook::Setup));
        self.starting = self.starting + starts(hook) - starts(record.running);
        record.running = hook;
        if let Some(before) = std::mem::replace(&mut record.deadline, deadline) {
            self.deadlines.remove(&(before, index));
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, index)));
    }
}

impl Dispatcher {
    /// Starts every service, until all are ready or the job is to stop.
    pub(super) fn start_services(&mut self) {
        loop {
            while self.reason.is_none()
                && let Some(index) = self.supervisor.turns.next()
            {
                self.start_service(index);
            }
            if self.supervisor.starting == 0 || self.reason.is_some() {
                return;
            }
            self.take_event();
        }
    }

    fn start_service(&mut self, index: usize) {
        let now = self.backend.now();
        if !self.service_becomes(index, ServiceState::Initialising) {
            return;
        }
        let record = &mut self.supervisor.services[index];
        let entry = record.entry.clone();
        let deadline = now + entry.timeouts.setup;
        record.began = Some(now);
        self.supervisor.runs(index, Some(Hook::Setup), Some(deadline + grace(&entry)));
        let action = ServiceAction::Start { deadline };
        if let Err(error) = self.backend.spawn(Unit::Service(ServicePlan { entry: entry.clone(), action })) {
            let origin = Origin::Service { name: entry.name.clone(), hook: Hook::Setup };
            self.fail(Cause::new(origin, CauseKind::Spawn, format!("no thread could be started for it: {error}")));
            self.supervisor.runs(index, None, None);
        }
    }

    pub(super) fn on_start_ended(&mut self, service: ServiceId, end: HookEnd) {
        let now = self.backend.now();
        let index = service.0 as usize;
        let record = &self.supervisor.services[index];
        let entry = record.entry.clone();
        match (record.began, record.running) {
            (Some(began), Some(Hook::Setup)) => entry.measure(|run| run.setup = Some(now - began)),
            (Some(_), _) => return self.stray(end),
            // Inline, a service may have been started for a nested call, and not by the dispatcher.
            (None, _) => {
                self.tell_service(index, ServiceState::Initialising);
                self.tell_service(index, entry.state());
            }
        }
        self.supervisor.runs(index, None, None);
        match end {
            // Clause 11: a service that is set up too late never gets to serve.
            Ok(()) if self.reason.is_none() => {
                self.service_becomes(index, ServiceState::Ready);
                self.supervisor.turns.is_ready(index);
            }
            Ok(()) => self.supervisor.turns.is_due(index),
            Err(failure) => {
                let cause = Cause::of_hook(&entry, &failure);
                self.supervisor.turns.is_due(index);
                self.supervisor.services[index].overdue |= failure.timed_out;
                if failure.timed_out && !failure.is_gone {
                    self.leave(index, format!("its {} failed: {}", failure.hook, cause.message));
                }
                self.fail(cause);
            }
        }
    }

    /// Stops and cleans every service that was started, each after all that use it.
    pub(super) fn stop_services(&mut self, reason: &StopReason) {
        // None has come to its end; one that is lost has still to let go of what it has here.
        let is_live = |record: &ServiceRecord| record.entry.state() != ServiceState::Registered;
        self.supervisor.turns.stop(self.supervisor.services.iter().map(is_live).collect());
        loop {
            let known = self.supervisor.turns.observed();
            self.supervisor.turns.observe(self.shared.registry().observed_since(known));
            while let Some(index) = self.supervisor.turns.next() {
                self.stop_service_if_due(index, reason);
            }
            if self.supervisor.turns.are_over() {
                return;
            }
            self.take_event();
        }
    }

    /// Takes a service one step further towards its end; all that use it are at theirs.
    fn stop_service_if_due(&mut self, index: usize, reason: &StopReason) {
        let record = &self.supervisor.services[index];
        let timeouts = record.entry.timeouts;
        let now = self.backend.now();
        let grace = grace(&record.entry).max(GRACE);
        let state = record.entry.state();
        let action = match state {
            ServiceState::Ready | ServiceState::Lost if record.running.is_none() && record.stuck.is_none() => {
                self.service_becomes(index, if state == ServiceState::Lost { state } else { ServiceState::Stopping });
                let deadline = now + timeouts.stop;
                // The wait for calls inside ends itself; only a `stop` that does not come back is given up.
                self.supervisor.runs(index, Some(Hook::Stop), Some(deadline + grace));
                ServiceAction::Shutdown { reason: reason.clone(), deadline, cleanup: timeouts.cleanup }
            }
            ServiceState::Initialising | ServiceState::Lost if record.running.is_none() => {
                self.clean_alone(index, reason)
            }
            _ => return,
        };
        self.supervisor.services[index].began = Some(now);
        self.spawn_service(index, action);
    }

    /// `cleanup` on a thread of its own, for a service whose earlier hook failed or is stuck.
    fn clean_alone(&mut self, index: usize, reason: &StopReason) -> ServiceAction {
        self.service_becomes(index, ServiceState::Cleaning);
        let record = &self.supervisor.services[index];
        let deadline = self.backend.now() + record.entry.timeouts.cleanup;
        let grace = grace(&record.entry);
        let action = ServiceAction::Cleanup { reason: reason.clone(), deadline, free: record.stuck.is_none() };
        self.supervisor.runs(index, Some(Hook::Cleanup), Some(deadline + grace));
        action
    }

    fn spawn_service(&mut self, index: usize, action: ServiceAction) {
        let entry = self.supervisor.services[index].entry.clone();
        if let Err(error) = self.backend.spawn(Unit::Service(ServicePlan { entry, action })) {
            // The local backend runs such hooks on this thread; another backend may have no way to.
            self.leave(index, format!("its hooks could not be run: {error}"));
            self.end_service(index, ServiceState::CleanupFailed);
        }
    }

    pub(super) fn on_stop_ended(&mut self, service: ServiceId, end: HookEnd, calls_inside: u64) {
        let index = service.0 as usize;
        let now = self.backend.now();
        let record = &self.supervisor.services[index];
        if record.running != Some(Hook::Stop) {
            self.stray(end);
            return;
        }
        let entry = record.entry.clone();
        entry.measure(|run| run.calls_inside = calls_inside);
        self.supervisor.runs(index, Some(Hook::Cleanup), Some(now + entry.timeouts.cleanup + grace(&entry)));
        // Done already where the hooks run on a thread of this process.
        self.service_becomes(index, ServiceState::Cleaning);
        if let Err(failure) = end {
            self.supervisor.services[index].overdue |= failure.timed_out;
            self.hook_failed(index, &failure);
        }
        if calls_inside > 0 {
            self.supervisor.services[index].stuck = Some(Hook::Stop);
            let calls = if calls_inside == 1 { "call was" } else { "calls were" };
            let message = format!("{calls_inside} {calls} still inside; its value is not freed under them");
            self.leave(index, message.clone());
            let probe = lock(&entry.calls_probe).clone();
            let message = self.with_place(message, |_| probe.map_or(Ok(None), |probe| ask(move || probe())));
            self.attach(Cause::timeout(Origin::Service { name: entry.name.clone(), hook: Hook::Stop }, message));
        }
    }

    pub(super) fn on_cleanup_ended(&mut self, service: ServiceId, end: HookEnd) {
        let index = service.0 as usize;
        let record = &self.supervisor.services[index];
        if record.running != Some(Hook::Cleanup) {
            self.stray(end);
            return;
        }
        let abandoned = record.stuck.is_some() || record.overdue;
        let is_lost = record.entry.state() == ServiceState::Lost;
        let state = match end {
            Err(failure) => {
                self.hook_failed(index, &failure);
                if failure.timed_out { ServiceState::Abandoned } else { ServiceState::CleanupFailed }
            }
            Ok(()) if abandoned => ServiceState::Abandoned,
            Ok(()) => ServiceState::Cleaned,
        };
        self.end_service(index, if is_lost { ServiceState::Lost } else { state });
    }

    /// What a stuck `cleanup` held up has run.
    pub(super) fn on_actions_ended(&mut self, service: ServiceId, end: HookEnd) {
        let index = service.0 as usize;
        if self.supervisor.services[index].running != Some(Hook::OnCleanup) {
            self.stray(end);
            return;
        }
        if let Err(failure) = end {
            self.hook_failed(index, &failure);
        }
        self.end_service(index, ServiceState::Abandoned);
    }

    /// Gives up the hooks that have missed their deadlines.
    pub(super) fn give_up_hooks(&mut self, now: Instant) {
        while let Some(&(deadline, index)) = self.supervisor.deadlines.first()
            && deadline <= now
        {
            self.on_hook_deadline(index);
        }
    }

    fn on_hook_deadline(&mut self, index: usize) {
        let hook = self.supervisor.services[index].running;
        self.supervisor.runs(index, None, None);
        let Some(hook) = hook else { return };
        let record = &mut self.supervisor.services[index];
        let entry = record.entry.clone();
        let timeout = match hook {
            Hook::Constructor | Hook::Setup => entry.timeouts.setup,
            Hook::Stop => entry.timeouts.stop,
            Hook::Cleanup | Hook::OnCleanup | Hook::Drop => entry.timeouts.cleanup,
        };
        record.stuck.get_or_insert(hook);
        let message = format!("did not come back within {timeout:?}; its thread is left");
        self.leave(index, format!("its {hook} {message}"));
        let message = self.with_place(message, |backend| backend.where_stuck(UnitId::Hook(entry.id, hook)));
        let cause = Cause::timeout(Origin::Service { name: entry.name.clone(), hook }, message);
        match hook {
            // The job cannot run without the service.
            Hook::Constructor | Hook::Setup => {
                self.supervisor.turns.is_due(index);
                self.fail(cause);
            }
            Hook::Stop => {
                self.attach(cause);
                let reason = self.reason.clone().unwrap_or(StopReason::EndOfInput);
                let action = self.clean_alone(index, &reason);
                self.spawn_service(index, action);
            }
            // They do not need the value, and run in every case.
            Hook::Cleanup if entry.instance.owes_actions() => {
                self.attach(cause);
                let deadline = self.backend.now() + entry.timeouts.cleanup;
                self.supervisor.runs(index, Some(Hook::OnCleanup), Some(deadline));
                self.spawn_service(index, ServiceAction::OnCleanup);
            }
            Hook::Cleanup | Hook::OnCleanup | Hook::Drop => {
                self.attach(cause);
                self.end_service(index, ServiceState::Abandoned);
            }
        }
    }

    fn hook_failed(&mut self, index: usize, failure: &HookFailure) {
        let cause = Cause::of_hook(&self.supervisor.services[index].entry, failure);
        if !failure.is_gone {
            self.leave(index, format!("its {} failed: {}", failure.hook, cause.message));
        }
        self.attach(cause);
        failure.also.iter().for_each(|failure| self.hook_failed(index, failure));
    }

    fn leave(&mut self, index: usize, why: String) {
        let what = format!("service `{}`", self.supervisor.services[index].entry.name);
        self.left.push(Leftover { what, why });
    }

    fn end_service(&mut self, index: usize, state: ServiceState) {
        let now = self.backend.now();
        self.supervisor.runs(index, None, None);
        let record = &self.supervisor.services[index];
        record.entry.measure(|run| run.cleanup = record.began.map(|began| now - began));
        self.service_becomes(index, state);
        self.supervisor.turns.is_over(index);
    }

    /// Moves a service on to `state`, and says whether it was not there already and may come there.
    fn service_becomes(&mut self, index: usize, state: ServiceState) -> bool {
        let entry = &self.supervisor.services[index].entry;
        let advanced = entry.advance(state);
        if entry.state() == state {
            self.tell_service(index, state);
        }
        advanced
    }

    /// Tells of the state of a service, once.
    fn tell_service(&mut self, index: usize, state: ServiceState) {
        let record = &mut self.supervisor.services[index];
        let before = std::mem::replace(&mut record.told, state);
        if before == state {
            return;
        }
        let entry = record.entry.clone();
        self.shared.changes().note(Noted::Service(index, before, state));
        self.trace(|| tracing::debug!(service = entry.name, %state, "service"));
        self.log.dispatcher(format_args!("service {} {state}", entry.name));
    }
}

/// How much longer than its deadline a hook of a service takes at most before it is given up.
fn grace(entry: &ServiceEntry) -> Duration {
    if entry.instance.ends_itself() { GRACE } else { entry.timeouts.grace }
}
