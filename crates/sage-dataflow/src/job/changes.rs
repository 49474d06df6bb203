//! The changes of state of a job, its tasks and its services, in the order in which they come about.
//!
//! The dispatcher notes each in a log. Readers go through it from the first one on, each at its own pace, and wait at
//! its end.
//!
//! Invariants:
//!  1. Nobody keeps the dispatcher waiting: under the lock a reader copies one entry, and runs no code of a user's.
//!  2. The log is bounded. A task and a service go through few states, each once; a job can be paused and resumed for
//!     ever, and of these changes the oldest are let go of. A reader that had not come to them is told how many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::state::{JobState, TaskState};
use crate::control::WorksFor;
use crate::graph::JobGraph;
use crate::service::ServiceState;
use crate::sync::{Condvar, FOREVER, Mutex, PoisonError, lock};

/// One change of state; see [`JobView::changes`](crate::JobView::changes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StateChange {
    /// When it came about, by the system's clock.
    pub at: SystemTime,
    /// What has changed.
    #[serde(flatten)]
    pub transition: Transition,
}

/// What has changed from one state to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transition {
    /// The job.
    Job {
        /// The state it was in.
        from: JobState,
        /// The state it is in.
        to: JobState,
    },
    /// A task.
    Task {
        /// Its name, that of a [`GraphTask`](crate::GraphTask).
        name: String,
        /// The state it was in.
        from: TaskState,
        /// The state it is in.
        to: TaskState,
    },
    /// A service.
    Service {
        /// Its name.
        name: String,
        /// The state it was in.
        from: ServiceState,
        /// The state it is in.
        to: ServiceState,
    },
}

/// A change as the log has it: tasks and services by number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Noted {
    Job(JobState, JobState),
    Task(usize, TaskState, TaskState),
    Service(usize, ServiceState, ServiceState),
}

/// How many changes the log keeps besides those that the tasks and the services go through.
const MOST_OF_THE_JOB: usize = 1024;
/// From created to running to an end.
const MOST_OF_A_TASK: usize = 2;
/// From registered to initialising, ready, stopping, cleaning and an end.
const MOST_OF_A_SERVICE: usize = 5;

/// The changes of one job.
#[derive(Debug)]
pub(super) struct ChangeLog {
    graph: Arc<JobGraph>,
    job: WorksFor,
    log: Mutex<Log>,
    grown: Condvar,
}

#[derive(Debug)]
struct Log {
    state: JobState,
    /// The latest changes.
    kept: VecDeque<(SystemTime, Noted)>,
    /// How many there were before those.
    let_go: usize,
    /// How many readers wait.
    waiting: usize,
    /// Nothing more will be noted.
    is_over: bool,
}

impl ChangeLog {
    pub(super) fn new(graph: Arc<JobGraph>, job: WorksFor) -> Self {
        let kept = VecDeque::new();
        let log = Log { state: JobState::Created, kept, let_go: 0, waiting: 0, is_over: false };
        Self { graph, job, log: Mutex::new(log), grown: Condvar::new() }
    }

    /// The state of the job.
    pub(super) fn job_state(&self) -> JobState {
        lock(&self.log).state
    }

    /// A change has come about.
    pub(super) fn note(&self, change: Noted) {
        let JobGraph { tasks, services, .. } = &*self.graph;
        let mut log = lock(&self.log);
        if let Noted::Job(_, to) = change {
            log.state = to;
        }
        if log.kept.len() >= MOST_OF_A_TASK * tasks.len() + MOST_OF_A_SERVICE * services.len() + MOST_OF_THE_JOB {
            log.kept.pop_front();
            log.let_go += 1;
        }
        log.kept.push_back((SystemTime::now(), change));
        self.wake(&log);
    }

    /// The job is over.
    pub(super) fn close(&self) {
        let mut log = lock(&self.log);
        log.is_over = true;
        self.wake(&log);
    }

    fn wake(&self, log: &Log) {
        if log.waiting > 0 {
            self.grown.notify_all();
        }
    }

    /// The change of this number, or of the first after it that is kept, and its number. Waits for it until `deadline`.
    fn read(&self, number: usize, deadline: Option<Instant>) -> Option<(usize, StateChange)> {
        let mut log = lock(&self.log);
        loop {
            let number = number.max(log.let_go);
            if let Some(&(at, change)) = log.kept.get(number - log.let_go) {
                drop(log);
                return Some((number, StateChange { at, transition: self.named(change) }));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if log.is_over || left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            log.waiting += 1;
            let waited = self.grown.wait_timeout(log, left.unwrap_or(FOREVER));
            log = waited.unwrap_or_else(PoisonError::into_inner).0;
            log.waiting -= 1;
        }
    }

    fn named(&self, change: Noted) -> Transition {
        match change {
            Noted::Job(from, to) => Transition::Job { from, to },
            Noted::Task(task, from, to) => Transition::Task { name: self.graph.tasks[task].name.clone(), from, to },
            Noted::Service(service, from, to) => {
                Transition::Service { name: self.graph.services[service].name.clone(), from, to }
            }
        }
    }
}

/// The changes of state of a job, from its first one on: see [`JobView::changes`](crate::JobView::changes).
///
/// As an iterator it blocks until the next change has come about, and ends when the job has. On a thread that the job
/// waits for, see [`WorksFor`], and in a process that was forked from the job's it does not wait: it ends where the
/// changes do that have come about. A clone goes on where it was cloned.
#[derive(Debug, Clone)]
pub struct Changes {
    log: Arc<ChangeLog>,
    process: u32,
    /// How many were read or missed.
    passed: usize,
    missed: u64,
}

impl Changes {
    pub(super) fn new(log: Arc<ChangeLog>, process: u32) -> Self {
        Self { log, process, passed: 0, missed: 0 }
    }

    /// The next change, waited for as long as `timeout` at most; `None` when that has passed or the job has ended.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<StateChange> {
        self.read(Some(Instant::now() + timeout.min(FOREVER)))
    }

    /// How many changes were let go of before they were read here: 0 unless the job was paused and resumed some
    /// hundred times meanwhile.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn read(&mut self, deadline: Option<Instant>) -> Option<StateChange> {
        let waits_for_itself = WorksFor::here() == Some(self.log.job) || self.process != std::process::id();
        let deadline = if waits_for_itself { Some(Instant::now()) } else { deadline };
        let (number, change) = self.log.read(self.passed, deadline)?;
        self.missed += (number - self.passed) as u64;
        self.passed = number + 1;
        Some(change)
    }
}

impl Iterator for Changes {
    type Item = StateChange;

    fn next(&mut self) -> Option<StateChange> {
        self.read(None)
    }
}
