//! A backend without threads: a script says when each unit ends and how, and the clock jumps from event to event.

use std::io;
use std::time::{Duration, Instant};

use super::{Backend, Command, Event, ServiceAction, TaskId, Unit};
use crate::chain::{During, Failure};
use crate::control::{Control, StopReason};
use crate::guarded::What;
use crate::metrics::TaskTimes;
use crate::service::{Hook, HookEnd, HookFailure, ServiceId};
use crate::task::{Ending, TaskOutcome};

/// How a scripted hook or task comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Good,
    Fails,
    Panics,
    Hangs,
}

/// How one hook behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scripted {
    pub(crate) act: Act,
    pub(crate) takes: Duration,
}

/// How one service behaves.
#[derive(Debug, Clone)]
pub(crate) struct ServiceScript {
    pub(crate) after: Vec<usize>,
    pub(crate) start: Scripted,
    pub(crate) stop: Scripted,
    pub(crate) cleanup: Scripted,
    /// Calls that are still inside at the end of `stop`.
    pub(crate) calls_inside: u64,
}

/// How one task behaves: by itself, and once it is told to end.
#[derive(Debug, Clone)]
pub(crate) struct TaskScript {
    pub(crate) alone: Scripted,
    pub(crate) on_drain: Scripted,
    pub(crate) on_cancel: Scripted,
}

/// What the dispatcher did, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Did {
    StartService(usize),
    Shutdown(usize, StopReason),
    Cleanup(usize, StopReason),
    StartTask(usize),
    Told(Control),
    Paused(bool),
}

/// What happened to units, as the script has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    Started(usize, bool),
    Cleaned(usize),
    TaskEnded(usize),
}

/// The backend, and what it saw.
#[derive(Debug)]
pub(crate) struct FakeBackend {
    services: Vec<ServiceScript>,
    tasks: Vec<TaskScript>,
    now: Instant,
    due: Vec<(Instant, u64, Event)>,
    sequence: u64,
    control: Control,
    pub(crate) log: std::sync::Arc<std::sync::Mutex<Vec<(Duration, Result<Did, Happened>)>>>,
    began: Instant,
}

impl FakeBackend {
    pub(crate) fn new(
        services: Vec<ServiceScript>,
        tasks: Vec<TaskScript>,
        commands: Vec<(Duration, Command)>,
    ) -> Self {
        let now = Instant::now();
        let mut fake = Self {
            services,
            tasks,
            now,
            due: Vec::new(),
            sequence: 0,
            control: Control::Run,
            log: std::sync::Arc::default(),
            began: now,
        };
        for (at, command) in commands {
            fake.after(at, Event::Command(command));
        }
        fake
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.due.push((self.now + delay, self.sequence, event));
    }

    fn log(&self, entry: Result<Did, Happened>) {
        self.log.lock().unwrap().push((self.now - self.began, entry));
    }

    fn hook(&mut self, script: Scripted, hook: Hook, event: impl FnOnce(HookEnd) -> Event) -> bool {
        let failure = |what| HookFailure { hook, what, timed_out: false, is_gone: false, also: Vec::new() };
        let end = match script.act {
            Act::Hangs => return false,
            Act::Good => Ok(()),
            Act::Fails => Err(failure(What::error("scripted".into()))),
            Act::Panics => Err(failure(What::Panic("scripted".to_owned()))),
        };
        self.after(script.takes, event(end));
        true
    }

    fn task(&mut self, index: usize, script: Scripted) {
        let ending = match (script.act, self.control) {
            (Act::Hangs, _) => return,
            (Act::Good, Control::Cancel) => Ending::Cancelled,
            (Act::Good, _) => Ending::Finished,
            (Act::Fails | Act::Panics, _) => Ending::Failed,
        };
        let what = match script.act {
            Act::Panics => What::Panic("scripted".to_owned()),
            _ => What::error("scripted".into()),
        };
        let failure = Failure { operator: None, record: 1, during: During::Record, what };
        let failures = if ending == Ending::Failed { vec![failure] } else { Vec::new() };
        let outcome = TaskOutcome { ending, failures, notes: Vec::new(), times: TaskTimes::default() };
        self.after(script.takes, Event::TaskEnded { task: TaskId(index), outcome: Box::new(outcome) });
    }
}

impl Backend for FakeBackend {
    fn now(&self) -> Instant {
        self.now
    }

    fn spawn(&mut self, unit: Unit) -> io::Result<()> {
        match unit {
            Unit::Discard(_) => self.after(Duration::ZERO, Event::Discarded { panics: Vec::new() }),
            Unit::Task(plan) => {
                self.log(Ok(Did::StartTask(plan.id.0)));
                let script = self.tasks[plan.id.0].alone;
                self.task(plan.id.0, script);
            }
            Unit::Service(plan) => {
                let service = plan.entry.id;
                let index = service.0 as usize;
                let script = self.services[index].clone();
                match plan.action {
                    ServiceAction::Start { .. } => {
                        self.log(Ok(Did::StartService(index)));
                        self.hook(script.start, Hook::Setup, |end| Event::StartEnded { service, end });
                    }
                    ServiceAction::Shutdown { reason, .. } => {
                        self.log(Ok(Did::Shutdown(index, reason)));
                        let calls_inside = script.calls_inside;
                        let stopped = |end| Event::StopEnded { service, end, calls_inside };
                        if self.hook(script.stop, Hook::Stop, stopped) {
                            let takes = script.stop.takes + script.cleanup.takes;
                            let cleanup = Scripted { takes, ..script.cleanup };
                            self.hook(cleanup, Hook::Cleanup, |end| Event::CleanupEnded { service, end });
                        }
                    }
                    ServiceAction::OnCleanup => unreachable!("no scripted service registers actions"),
                    ServiceAction::Cleanup { reason, .. } => {
                        self.log(Ok(Did::Cleanup(index, reason)));
                        self.hook(script.cleanup, Hook::Cleanup, |end| Event::CleanupEnded { service, end });
                    }
                }
            }
        }
        Ok(())
    }

    fn control(&mut self, control: Control, _reason: &StopReason, _deadline: Option<Instant>) {
        self.control = control;
        self.log(Ok(Did::Told(control)));
        for index in 0..self.tasks.len() {
            // A task that has ended, or that ends first by itself, is heard of once: later words are ignored.
            let script =
                if control == Control::Drain { self.tasks[index].on_drain } else { self.tasks[index].on_cancel };
            self.task(index, script);
        }
    }

    fn pause(&mut self, pause: bool) -> bool {
        self.log(Ok(Did::Paused(pause)));
        true
    }

    fn next_event(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let next = (0..self.due.len()).min_by_key(|&at| (self.due[at].0, self.due[at].1));
        match next {
            Some(next) if deadline.is_none_or(|deadline| self.due[next].0 <= deadline) => {
                let (at, _, event) = self.due.remove(next);
                self.now = self.now.max(at);
                match &event {
                    Event::StartEnded { service: ServiceId(id), end } => {
                        self.log(Err(Happened::Started(*id as usize, end.is_ok())));
                    }
                    Event::CleanupEnded { service: ServiceId(id), .. } => {
                        self.log(Err(Happened::Cleaned(*id as usize)));
                    }
                    Event::TaskEnded { task, .. } => self.log(Err(Happened::TaskEnded(task.0))),
                    _ => {}
                }
                Some(event)
            }
            _ => {
                self.now = deadline.expect("a job that waits for nothing has a deadline");
                None
            }
        }
    }
}
