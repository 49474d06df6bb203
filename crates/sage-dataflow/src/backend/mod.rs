//! Backends: where tasks and service hooks run. The dispatcher spawns units on a backend, steers them and waits for
//! events.
//!
//! [`local`] runs each unit on a thread of its own, [`inline`] everything on the calling thread; the dispatcher's tests
//! use a deterministic fake. The dispatcher knows no thread and no clock but the backend's.

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod inline;
pub(crate) mod local;
pub(crate) mod room;

use std::any::Any;
use std::os::unix::thread::RawPthread;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::chain::Cursor;
use crate::control::{Control, JobControl, StopReason, WorksFor};
use crate::guarded::{What, guard, take_dropped};
use crate::runtime::JobRuntime;
use crate::service::{Hook, HookEnd, ServiceEntry, ServiceId, ServiceState, both};
use crate::task::{Runner, Task, TaskOutcome};
use crate::thread::ProbeHangs;

/// Names a task within its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskId(pub(crate) usize);

/// What a backend is asked to run.
pub(crate) enum Unit {
    Task(TaskPlan),
    Service(ServicePlan),
    /// Drops users' values.
    Discard(Vec<Box<dyn Any + Send>>),
}

/// A task to run.
pub(crate) struct TaskPlan {
    pub(crate) id: TaskId,
    /// For the thread's name and messages.
    pub(crate) name: String,
    pub(crate) body: TaskBody,
    pub(crate) cursor: Arc<Cursor>,
    /// The service that its pipeline is, if it is one.
    pub(crate) service: Option<ServiceId>,
}

/// What a task consists of.
///
/// A Rust closure cannot leave its process; what can (Python functions, named native operators) will be a second form.
#[non_exhaustive]
pub(crate) enum TaskBody {
    InProcess(Box<dyn Task>),
}

/// A part of a service's life to run.
pub(crate) struct ServicePlan {
    pub(crate) entry: Arc<ServiceEntry>,
    pub(crate) action: ServiceAction,
}

/// Which part.
#[derive(Debug, Clone)]
pub(crate) enum ServiceAction {
    /// Constructor and `setup`.
    Start { deadline: Instant },
    /// `stop`, the last calls, `cleanup`, drop.
    Shutdown { reason: StopReason, deadline: Instant, cleanup: Duration },
    /// `cleanup`; the drop too, unless a stuck hook may be using the value.
    Cleanup { reason: StopReason, deadline: Instant, free: bool },
    /// What was registered with `on_cleanup`, as `cleanup` is stuck.
    OnCleanup,
}

/// What a backend reports, and what a job is asked from outside.
#[derive(Debug)]
pub(crate) enum Event {
    TaskEnded {
        task: TaskId,
        /// Boxed: a queue makes room for thirty events at once.
        outcome: Box<TaskOutcome>,
    },
    StartEnded {
        service: ServiceId,
        end: HookEnd,
    },
    StopEnded {
        service: ServiceId,
        end: HookEnd,
        calls_inside: u64,
    },
    CleanupEnded {
        service: ServiceId,
        end: HookEnd,
    },
    OnCleanupEnded {
        service: ServiceId,
        end: HookEnd,
    },
    /// Of [`Unit::Discard`]: the panics there were.
    Discarded {
        panics: Vec<What>,
    },
    Command(Command),
    /// On the inline backend: a task has something to do that came from outside.
    Roused,
}

/// What a job is asked from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Drain(StopReason),
    Cancel(StopReason),
    Pause,
    Resume,
    /// A service is not there, or is again, for which the sources are to wait.
    Outage(bool),
}

/// Sends events to a job's dispatcher; of no effect once that has ended.
#[derive(Debug, Clone)]
pub(crate) struct EventSender(Sender<Event>);

impl EventSender {
    pub(crate) fn send(&self, event: Event) {
        // The job has ended and nobody asks any more.
        let _ = self.0.send(event);
    }
}

/// The dispatcher's queue.
pub(crate) fn event_queue() -> (EventSender, Receiver<Event>) {
    let (sender, receiver) = mpsc::channel();
    (EventSender(sender), receiver)
}

/// Runs the units of one job.
pub(crate) trait Backend {
    /// The backend's clock.
    fn now(&self) -> Instant;
    /// Starts a unit; its end will be an event.
    fn spawn(&mut self, unit: Unit) -> io::Result<()>;
    /// Steers all tasks.
    fn control(&mut self, control: Control, reason: &StopReason, deadline: Option<Instant>);
    /// Pauses or resumes all sources; says whether that changed anything.
    fn pause(&mut self, pause: bool) -> bool;
    /// Waits for an event, until `deadline`; `None` when it has passed.
    fn next_event(&mut self, deadline: Option<Instant>) -> Option<Event>;
    /// Where a unit that missed its deadline is stuck, in words, if that can be told.
    fn where_stuck(&self, _unit: UnitId) -> Result<Option<String>, ProbeHangs> {
        Ok(None)
    }
    /// Waits until the threads of all units that have ended are gone, until `deadline` at most. Returns the units whose
    /// threads are not: they have run to their end, and do something since, such as dropping a thread-local value.
    fn settle(&mut self, _deadline: Instant) -> Vec<UnitId> {
        Vec::new()
    }
}

/// Names a unit that runs; one that runs hooks of a service by one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum UnitId {
    Task(TaskId),
    Hook(ServiceId, Hook),
    Discard,
}

/// Drops users' values, each under a guard of its own, and reports.
pub(crate) fn discard(values: Vec<Box<dyn Any + Send>>, events: &EventSender) {
    let mut panics = Vec::new();
    for value in values {
        panics.extend(guard(move || drop(value)).err());
        panics.extend(take_dropped().into_iter().map(|(_, what)| what));
    }
    events.send(Event::Discarded { panics });
}

/// Tells where a thread is.
#[derive(Clone)]
pub(crate) struct StuckProbe(pub(crate) Arc<dyn Fn(RawPthread) -> Option<String> + Send + Sync>);

impl fmt::Debug for StuckProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StuckProbe")
    }
}

/// What the local and the inline backend run units with.
pub(crate) struct Ground {
    pub(crate) control: Arc<JobControl>,
    pub(crate) runtime: Arc<JobRuntime>,
    pub(crate) events: EventSender,
    pub(crate) queue: Receiver<Event>,
    pub(crate) stuck_probe: Option<StuckProbe>,
    /// What its threads are marked with.
    pub(crate) job: WorksFor,
    pub(crate) threads: Threads,
}

/// How threads are made, and what the host has done around everything that runs on one.
#[derive(Clone, Default)]
pub(crate) struct Threads {
    pub(crate) stack_bytes: Option<usize>,
    pub(crate) begin: Option<Arc<dyn Fn() -> Box<dyn Any> + Send + Sync>>,
}

impl Threads {
    /// What is to be dropped when the calling thread has nothing more to do.
    fn begin(&self) -> Begun {
        Begun(self.begin.as_ref().and_then(|begin| guard(|| begin()).inspect_err(log).ok()))
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("stack_bytes", &self.stack_bytes).finish_non_exhaustive()
    }
}

/// What the host has begun on this thread.
#[derive(Default)]
pub(crate) struct Begun(Option<Box<dyn Any>>);

impl Drop for Begun {
    fn drop(&mut self) {
        let begun = self.0.take();
        drop(guard(move || drop(begun)).inspect_err(log));
    }
}

fn log(what: &What) {
    // Who takes it down is a user's as well.
    drop(guard(|| tracing::error!(panic = %what, "what the host does around a thread has panicked")));
}

impl Ground {
    fn runner(&self, plan: TaskPlan) -> Runner {
        let TaskBody::InProcess(task) = plan.body;
        Runner::new(task, self.control.clone(), plan.cursor)
    }

    fn receive(&self, deadline: Option<Instant>) -> Option<Event> {
        let Some(deadline) = deadline else { return self.queue.recv().ok() };
        self.queue.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }
}

impl ServicePlan {
    /// Runs on the calling thread, reporting each step. `begun` is what the host has begun on it, and ends before the
    /// last report: whoever gets that waits for the thread.
    pub(crate) fn run(self, runtime: &JobRuntime, events: &EventSender, begun: Begun) {
        let Self { entry, action } = self;
        let service = entry.id;
        let _within = crate::service::Within::enter(service);
        match action {
            ServiceAction::Start { deadline } => {
                let end = entry.instance.start(deadline, runtime);
                drop(begun);
                events.send(Event::StartEnded { service, end });
            }
            ServiceAction::Shutdown { reason, deadline, cleanup } => {
                let end = entry.instance.stop(&reason, deadline, runtime);
                let calls_inside = entry.gate().wait_empty(deadline);
                // Here, so that `cleanup` finds the state it is in; too late if this `stop` was given up.
                entry.advance(ServiceState::Cleaning);
                events.send(Event::StopEnded { service, end, calls_inside });
                Self::clean(&entry, &reason, Instant::now() + cleanup, calls_inside == 0, runtime, events, begun);
            }
            ServiceAction::Cleanup { reason, deadline, free } => {
                Self::clean(&entry, &reason, deadline, free, runtime, events, begun);
            }
            ServiceAction::OnCleanup => {
                let end = entry.instance.run_actions();
                drop(begun);
                events.send(Event::OnCleanupEnded { service, end });
            }
        }
    }

    fn clean(
        entry: &ServiceEntry,
        reason: &StopReason,
        deadline: Instant,
        free: bool,
        runtime: &JobRuntime,
        events: &EventSender,
        begun: Begun,
    ) {
        let Some(mut end) = entry.instance.cleanup(reason, deadline, runtime) else { return };
        if free {
            end = both(end, entry.instance.free());
        }
        drop(begun);
        events.send(Event::CleanupEnded { service: entry.id, end });
    }
}
