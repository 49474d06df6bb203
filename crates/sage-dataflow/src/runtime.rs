//! The async runtime of a job: its own, or one that its host lends it; and whether the calling thread may block.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio::task::coop;

use crate::BoxError;
use crate::control::WorksFor;
use crate::guarded::guard;
use crate::sync::lock;
use crate::thread::{OsThread, OwnThread};

/// An async hook did not end by its deadline and was dropped.
#[derive(Debug, thiserror::Error)]
#[error("the hook did not end by its deadline and was dropped")]
pub(crate) struct HookTimedOut;

/// The tokio runtime of one job. Its own is started when something first needs it and shut down with the job; one that
/// is lent is left as it is.
#[derive(Debug, Default)]
pub(crate) struct JobRuntime {
    state: Mutex<RuntimeState>,
    threads: Arc<RuntimeThreads>,
    /// What its own threads are marked with.
    job: Option<WorksFor>,
}

#[derive(Debug, Default)]
enum RuntimeState {
    #[default]
    Unused,
    Running(Runtime),
    Lent(Handle),
    Closed,
}

/// The threads of the runtime that have started and not ended, those of blocking tasks included.
#[derive(Debug, Default)]
struct RuntimeThreads(Mutex<Alive>);

#[derive(Debug, Default)]
struct Alive {
    running: usize,
    /// Those that have done their last work, and may still be ending.
    ending: Vec<OsThread>,
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    #[error("the job has ended, and its async runtime with it")]
    Closed,
    #[error("the job's async runtime could not be started")]
    Start(#[source] std::io::Error),
}

/// Threads of a job's runtime: its work is waiting, not computing.
const RUNTIME_THREADS: usize = 2;

impl JobRuntime {
    /// That of the host, if it lends one.
    pub(crate) fn new(lent: Option<Handle>, job: WorksFor) -> Self {
        let state = Mutex::new(lent.map_or(RuntimeState::Unused, RuntimeState::Lent));
        Self { state, threads: Arc::default(), job: Some(job) }
    }

    pub(crate) fn handle(&self) -> Result<Handle, RuntimeError> {
        let mut state = lock(&self.state);
        match &*state {
            RuntimeState::Running(runtime) => Ok(runtime.handle().clone()),
            RuntimeState::Lent(handle) => Ok(handle.clone()),
            RuntimeState::Closed => Err(RuntimeError::Closed),
            RuntimeState::Unused => {
                try_threads().map_err(RuntimeError::Start)?;
                let (started, stopped, job) = (self.threads.clone(), self.threads.clone(), self.job);
                let runtime = Builder::new_multi_thread()
                    .worker_threads(RUNTIME_THREADS)
                    .thread_name("sage-async")
                    .on_thread_start(move || {
                        job.into_iter().for_each(WorksFor::enter);
                        lock(&started.0).running += 1;
                    })
                    .on_thread_stop(move || stopped.leave())
                    .enable_all()
                    .build()
                    .map_err(RuntimeError::Start)?;
                let handle = runtime.handle().clone();
                *state = RuntimeState::Running(runtime);
                Ok(handle)
            }
        }
    }

    /// Drives a future on the calling thread, until `deadline` at most.
    pub(crate) fn drive(
        &self,
        deadline: Instant,
        future: impl Future<Output = Result<(), BoxError>>,
    ) -> Result<(), BoxError> {
        let handle = self.handle()?;
        handle.block_on(async {
            // The timer is made inside the runtime it needs.
            match tokio::time::timeout_at(deadline.into(), future).await {
                Ok(result) => result,
                Err(_elapsed) => Err(HookTimedOut.into()),
            }
        })
    }

    /// Shuts the job's own runtime down, waiting for its threads for `timeout` at most. Returns how many are left.
    pub(crate) fn close(&self, timeout: Duration) -> usize {
        let state = std::mem::replace(&mut *lock(&self.state), RuntimeState::Closed);
        let RuntimeState::Running(runtime) = state else { return 0 };
        // tokio joins its threads, however long a user's thread-local values take to be dropped: on a thread of its
        // own.
        let deadline = Instant::now() + timeout;
        let runtime = Arc::new(Mutex::new(Some(runtime)));
        let closed = runtime.clone();
        let shut_down = move || {
            if let Some(runtime) = lock(&closed).take() {
                runtime.shutdown_timeout(timeout);
            }
        };
        match OwnThread::spawn("sage-async", shut_down) {
            Ok(mut thread) => match thread.join_by(deadline + GRACE) {
                true => self.threads.left(deadline),
                false => self.threads.left(deadline).max(1),
            },
            Err(_) => {
                let runtime = lock(&runtime).take();
                runtime.into_iter().for_each(|runtime| runtime.shutdown_timeout(timeout));
                self.threads.left(deadline)
            }
        }
    }
}

/// How much longer than what it waits for tokio may take.
const GRACE: Duration = Duration::from_millis(100);

impl RuntimeThreads {
    fn leave(&self) {
        let mut alive = lock(&self.0);
        alive.running -= 1;
        alive.ending.retain(|thread| thread.is_alive());
        alive.ending.push(OsThread::current());
    }

    /// How many have not ended, once those that were waited for are gone.
    fn left(&self, deadline: Instant) -> usize {
        let mut alive = lock(&self.0);
        let ending = std::mem::take(&mut alive.ending);
        alive.running + {
            let limit = (deadline + GRACE).saturating_duration_since(Instant::now());
            ending.into_iter().filter(|thread| !thread.await_end(limit)).count()
        }
    }
}

thread_local! {
    /// Whether the calling thread polls futures of the engine's.
    static POLLS: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread polls futures that use a runtime, until this is dropped.
pub(crate) struct Polls<'a> {
    before: bool,
    _entered: EnterGuard<'a>,
}

/// Has the futures that the calling thread polls use a runtime.
pub(crate) fn enter(handle: &Handle) -> Polls<'_> {
    Polls { before: POLLS.replace(true), _entered: handle.enter() }
}

impl Drop for Polls<'_> {
    fn drop(&mut self) {
        POLLS.set(self.before);
    }
}

/// Unparks the thread that polls something, and notes that it did, so that a wait that looks first misses no wake.
#[derive(Debug)]
pub(crate) struct Woken {
    thread: Thread,
    since: AtomicBool,
}

impl Woken {
    /// For the calling thread.
    pub(crate) fn here() -> Arc<Self> {
        Arc::new(Self { thread: std::thread::current(), since: AtomicBool::new(false) })
    }

    /// Says that a poll begins: what wakes from here on counts.
    pub(crate) fn take_back(&self) {
        self.since.store(false, Ordering::Release);
    }

    /// Whether it was woken since the last poll began.
    pub(crate) fn is_woken(&self) -> bool {
        self.since.load(Ordering::Acquire)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.since.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

/// Whether the calling thread runs async tasks at this moment, so that blocking it would stop them. Where tokio has set
/// the thread aside for work that blocks (`spawn_blocking`, `block_in_place`), or it is merely inside `Handle::enter`,
/// it does not.
pub(crate) fn is_inside_async() -> bool {
    let Ok(handle) = Handle::try_current() else { return false };
    // While it polls a task, tokio counts how much that does, and while it blocks, it does not. Asking that is silent;
    // but a task may have itself taken out of the count.
    POLLS.get() || is_counted() || guard(|| handle.block_on(async {})).is_err()
}

/// Whether tokio counts what the calling thread does: the budget runs out when it is asked for often enough. It is
/// given back.
fn is_counted() -> bool {
    /// More than tokio gives a task.
    const MORE_THAN_ANY_BUDGET: usize = 1024;
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = Vec::new();
    for _ in 0..MORE_THAN_ANY_BUDGET {
        match coop::poll_proceed(&mut cx) {
            Poll::Ready(unit) => taken.push(unit),
            Poll::Pending => {
                // Each gives back what there was before it: the first one comes last.
                while taken.pop().is_some() {}
                return true;
            }
        }
    }
    false
}
/// Whether there are as many threads to be had as the runtime has: one that gets none while it is built panics, and
/// leaves behind the descriptors that it has opened.
fn try_threads() -> io::Result<()> {
    let (held, ends) = mpsc::channel::<()>();
    let (ends, mut tried, mut refused) = (Arc::new(Mutex::new(ends)), Vec::new(), None);
    for _ in 0..RUNTIME_THREADS {
        let ends = ends.clone();
        // It ends when nobody holds it any more.
        match OwnThread::spawn("sage-async", move || _ = lock(&ends).recv()) {
            Ok(thread) => tried.push(thread),
            Err(error) => refused = Some(error),
        }
    }
    drop(held);
    tried.into_iter().for_each(OwnThread::join);
    refused.map_or(Ok(()), Err)
}
