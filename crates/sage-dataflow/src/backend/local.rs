//! One thread per task and per running hook.
//!
//! A thread's last act is to send its event. It may do more after that, such as dropping a user's thread-local values,
//! but that holds up no event: `settle` waits for its end, and threads that have ended are joined now and then. A
//! thread that never sends its event is never waited for: the dispatcher reports its task or hook as abandoned.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use foldhash::fast::RandomState;

use super::{Backend, Event, Ground, ServiceAction, Unit, UnitId};
use crate::control::{Control, StopReason};
use crate::guarded::{Guarded, guard};
use crate::service::{Hook, Within};
use crate::sync::lock;
use crate::thread::{OwnThread, ProbeHangs, ask};

/// Runs each unit on a thread of its own.
pub(crate) struct LocalBackend {
    ground: Ground,
    threads: HashMap<UnitId, OwnThread, RandomState>,
    /// Those whose event was taken.
    ending: Vec<(UnitId, OwnThread)>,
}

/// How many threads may have sent their last event before it is looked which of them have ended.
const MOST_ENDING: usize = 32;

/// The hook that names the unit which runs `hook`.
fn unit_of(hook: Hook) -> Hook {
    match hook {
        Hook::Constructor | Hook::Setup => Hook::Setup,
        Hook::Stop | Hook::Cleanup | Hook::Drop => Hook::Cleanup,
        Hook::OnCleanup => Hook::OnCleanup,
    }
}

impl LocalBackend {
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground, threads: HashMap::default(), ending: Vec::new() }
    }

    /// A thread has sent its last event.
    fn ends(&mut self, key: UnitId) {
        self.ending.extend(self.threads.remove(&key).map(|thread| (key, thread)));
        if self.ending.len() >= MOST_ENDING {
            self.ending.retain_mut(|(_, thread)| !thread.try_join());
        }
    }
}

impl Backend for LocalBackend {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn spawn(&mut self, unit: Unit) -> io::Result<()> {
        let events = self.ground.events.clone();
        match unit {
            Unit::Task(plan) => {
                let (id, control, job) = (plan.id, self.ground.control.clone(), self.ground.job);
                let (name, service) = (plan.name.clone(), plan.service);
                // Where no thread is to be had, the chain is dropped on this one.
                let runner = Guarded::new(self.ground.runner(plan), None);
                let threads = self.ground.threads.clone();
                let thread = OwnThread::spawn_with(&name, threads.stack_bytes, move || {
                    job.enter();
                    control.register();
                    let begun = threads.begin();
                    let _within = service.map(Within::enter);
                    let outcome = runner.into_inner().run();
                    drop(begun);
                    events.send(Event::TaskEnded { task: id, outcome: Box::new(outcome) });
                })?;
                self.threads.insert(UnitId::Task(id), thread);
            }
            Unit::Service(plan) => {
                let id = plan.entry.id;
                let key = match plan.action {
                    ServiceAction::Start { .. } => UnitId::Hook(id, Hook::Setup),
                    ServiceAction::Shutdown { .. } | ServiceAction::Cleanup { .. } => UnitId::Hook(id, Hook::Cleanup),
                    ServiceAction::OnCleanup => UnitId::Hook(id, Hook::OnCleanup),
                };
                let (runtime, job) = (self.ground.runtime.clone(), self.ground.job);
                let threads = self.ground.threads.clone();
                let stack_bytes = threads.stack_bytes;
                // Kept here as well: where no thread is to be had, a cleanup still runs, on this one.
                let (entry, action) = (plan.entry.clone(), plan.action.clone());
                let thread = OwnThread::spawn_with(&format!("svc {}", entry.name), stack_bytes, {
                    let events = events.clone();
                    move || {
                        job.enter();
                        plan.run(&runtime, &events, threads.begin());
                    }
                });
                match (thread, action) {
                    (Ok(thread), _) => {
                        self.threads.insert(key, thread);
                    }
                    (Err(error), ServiceAction::Start { .. }) => return Err(error),
                    (Err(error), action) => {
                        let told = "no thread for the service's hooks: running them here";
                        drop(guard(|| tracing::warn!(service = entry.name, %error, "{told}")));
                        let begun = self.ground.threads.begin();
                        super::ServicePlan { entry, action }.run(&self.ground.runtime, &events, begun);
                    }
                }
            }
            Unit::Discard(values) => {
                let (kept, sender) = (Arc::new(Mutex::new(values)), events.clone());
                let values = kept.clone();
                let thread = OwnThread::spawn("sage-discard", move || {
                    let values = std::mem::take(&mut *lock(&values));
                    super::discard(values, &sender);
                });
                match thread {
                    Ok(thread) => _ = self.threads.insert(UnitId::Discard, thread),
                    // As for hooks.
                    Err(_) => super::discard(std::mem::take(&mut *lock(&kept)), &events),
                }
            }
        }
        Ok(())
    }

    fn control(&mut self, control: Control, reason: &StopReason, deadline: Option<Instant>) {
        self.ground.control.advance(control, reason.clone(), deadline);
    }

    fn pause(&mut self, pause: bool) -> bool {
        self.ground.control.pause(pause)
    }

    fn next_event(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let event = self.ground.receive(deadline)?;
        match &event {
            Event::TaskEnded { task, .. } => self.ends(UnitId::Task(*task)),
            Event::StartEnded { service, .. } => self.ends(UnitId::Hook(*service, Hook::Setup)),
            Event::CleanupEnded { service, .. } => self.ends(UnitId::Hook(*service, Hook::Cleanup)),
            Event::OnCleanupEnded { service, .. } => self.ends(UnitId::Hook(*service, Hook::OnCleanup)),
            Event::Discarded { .. } => self.ends(UnitId::Discard),
            Event::StopEnded { .. } | Event::Command(_) | Event::Roused => {}
        }
        Some(event)
    }

    fn where_stuck(&self, unit: UnitId) -> Result<Option<String>, ProbeHangs> {
        let Some(probe) = self.ground.stuck_probe.clone() else { return Ok(None) };
        let key = match unit {
            UnitId::Hook(id, hook) => UnitId::Hook(id, unit_of(hook)),
            other => other,
        };
        let Some(thread) = self.threads.get(&key).map(OwnThread::pthread) else { return Ok(None) };
        ask(move || (probe.0)(thread))
    }

    fn settle(&mut self, deadline: Instant) -> Vec<UnitId> {
        let ending = std::mem::take(&mut self.ending).into_iter();
        ending.filter_map(|(key, mut thread)| (!thread.join_by(deadline)).then_some(key)).collect()
    }
}
