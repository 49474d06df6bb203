//! One thread per task and per running hook.
//!
//! A thread's last act is to send its event; the backend joins it when the event is taken. A thread that never sends is
//! never joined: the dispatcher reports what ran on it as abandoned.

use std::collections::HashMap;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::{Backend, Event, Ground, ServiceAction, Stuck, TaskId, Unit};
use crate::job::control::Control;
use crate::job::reason::StopReason;
use crate::service::{Hook, ServiceId};

/// Runs each unit on a thread of its own.
pub(crate) struct LocalBackend {
    ground: Ground,
    threads: HashMap<UnitKey, JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum UnitKey {
    Task(TaskId),
    Start(ServiceId),
    Shutdown(ServiceId),
    OnCleanup(ServiceId),
}

/// Linux keeps 15 bytes of a thread's name.
fn thread_name(prefix: &str, name: &str) -> String {
    // A name with a NUL byte is refused by the system.
    format!("{prefix}{}", name.replace('\0', " "))
}

impl LocalBackend {
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground, threads: HashMap::new() }
    }

    fn join(&mut self, key: UnitKey) {
        if let Some(thread) = self.threads.remove(&key) {
            // User code runs under a guard; what is left to panic is the engine, and its event has been sent.
            drop(thread.join());
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
                let (id, control) = (plan.id, self.ground.control.clone());
                let builder = Builder::new().name(thread_name("", &plan.name));
                let runner = self.ground.runner(plan);
                let thread = builder.spawn(move || {
                    control.register();
                    let outcome = runner.run();
                    events.send(Event::TaskEnded { task: id, outcome });
                })?;
                self.threads.insert(UnitKey::Task(id), thread);
            }
            Unit::Service(plan) => {
                let id = plan.entry.id;
                let key = match plan.action {
                    ServiceAction::Start { .. } => UnitKey::Start(id),
                    ServiceAction::Shutdown { .. } | ServiceAction::Cleanup { .. } => UnitKey::Shutdown(id),
                    ServiceAction::OnCleanup => UnitKey::OnCleanup(id),
                };
                let builder = Builder::new().name(thread_name("svc ", &plan.entry.name));
                let runtime = self.ground.runtime.clone();
                // Kept here as well: where no thread is to be had, a cleanup still runs, on this one.
                let (entry, action) = (plan.entry.clone(), plan.action.clone());
                let thread = builder.spawn({
                    let events = events.clone();
                    move || plan.run(&runtime, &events)
                });
                match (thread, action) {
                    (Ok(thread), _) => {
                        self.threads.insert(key, thread);
                    }
                    (Err(error), ServiceAction::Start { .. }) => return Err(error),
                    (Err(error), action) => {
                        tracing::warn!(service = entry.name, %error, "no thread for the service's hooks: running them here");
                        super::ServicePlan { entry, action }.run(&self.ground.runtime, &events);
                    }
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
            Event::TaskEnded { task, .. } => self.join(UnitKey::Task(*task)),
            Event::StartEnded { service, .. } => self.join(UnitKey::Start(*service)),
            Event::CleanupEnded { service, .. } => self.join(UnitKey::Shutdown(*service)),
            Event::OnCleanupEnded { service, .. } => self.join(UnitKey::OnCleanup(*service)),
            Event::StopEnded { .. } | Event::Command(_) | Event::Roused => {}
        }
        Some(event)
    }

    fn where_stuck(&self, stuck: Stuck) -> Option<String> {
        let probe = self.ground.stuck_probe.as_ref()?;
        let key = match stuck {
            Stuck::Task(id) => UnitKey::Task(id),
            Stuck::Hook(id, Hook::Constructor | Hook::Setup) => UnitKey::Start(id),
            Stuck::Hook(id, Hook::Stop | Hook::Cleanup | Hook::Drop) => UnitKey::Shutdown(id),
            Stuck::Hook(id, Hook::OnCleanup) => UnitKey::OnCleanup(id),
        };
        (probe.0)(self.threads.get(&key)?.as_pthread_t())
    }
}
