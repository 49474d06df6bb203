//! Runs everything on the calling thread, for debugging: a breakpoint or a panic is in one stack, and the order of
//! events is the same in every run.
//!
//! Tasks take turns; those that read an inbox run it dry before a source makes another batch. Lanes are unbounded here,
//! because no task could make room while another waits, and no deadline can interrupt a hook.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::{Backend, Begun, Event, Ground, TaskId, Unit};
use crate::control::{Control, StopReason};
use crate::task::{Runner, Stepped};

/// Runs every unit on the thread that waits for events.
pub(crate) struct InlineBackend {
    ground: Ground,
    tasks: VecDeque<(TaskId, Runner)>,
}

impl InlineBackend {
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground, tasks: VecDeque::new() }
    }

    /// Gives every task its turn, a batch at a time, the downstream ones until they find nothing. Returns whether
    /// anything was done.
    fn round(&mut self) -> bool {
        let mut worked = false;
        let mut index = 0;
        while index < self.tasks.len() {
            let (id, runner) = &mut self.tasks[index];
            match runner.turn() {
                Some(Stepped::Idle) => index += 1,
                Some(Stepped::Again | Stepped::End) => {
                    worked = true;
                    if runner.is_source() {
                        index += 1;
                    }
                }
                None => {
                    worked = true;
                    let id = *id;
                    if let Some((_, runner)) = self.tasks.remove(index) {
                        let outcome = runner.end();
                        self.ground.events.send(Event::TaskEnded { task: id, outcome: Box::new(outcome) });
                    }
                }
            }
        }
        worked
    }
}

impl Backend for InlineBackend {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn spawn(&mut self, unit: Unit) -> io::Result<()> {
        match unit {
            Unit::Task(plan) => self.tasks.push_back((plan.id, self.ground.runner(plan))),
            Unit::Service(plan) => plan.run(&self.ground.runtime, &self.ground.events, Begun::default()),
            Unit::Discard(values) => super::discard(values, &self.ground.events),
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
        loop {
            // However many tasks were roused: all have their turn.
            while let Ok(event) = self.ground.queue.try_recv() {
                if !matches!(event, Event::Roused) {
                    return Some(event);
                }
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return None;
            }
            if !self.round() {
                match self.ground.receive(deadline) {
                    Some(Event::Roused) => {}
                    event => return event,
                }
            }
        }
    }
}
