//! The threads that call services for callers that do not wait for the end of the call, or not for long.
//!
//! A job has up to [`MOST_THREADS`] of them, made when one is needed. Calls beyond that wait for their turn, up to so
//! many as the program says; those who would add one more wait until there is room, except for these threads
//! themselves, which make the room.
//!
//! Invariants:
//!  1. Whoever adds a call sees to it that a thread will take it: for each call in the queue there is one that looks
//!     for it, or was woken or started for it, or all threads there may be are inside calls. All of this changes under
//!     one lock.
//!  2. Nobody holds the lock while attached and waiting, or runs Python code under it.
//!  3. The threads end when no service lives any more, or when the job's owner closes them. Those that are inside a
//!     call by then are left alone, and end when it returns; no thread waits for them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use sage::{OsThread, WorksFor};

use crate::thread::{Scope, lock};

/// How many calls of a job are under way at once on threads of their own.
pub(crate) const MOST_THREADS: usize = 64;

/// How long to look for what is about to come before going to sleep, which takes about as long.
const SPIN: Duration = Duration::from_micros(30);

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    /// A thread makes it.
    Taken,
    /// As many calls wait as there may be: see [`Workers::wait_for_room`].
    Full,
    /// No thread can be had.
    NoThread,
    /// The job is cancelled or over.
    Over,
}

/// What a thread is to do.
pub(crate) trait Work: Send + Sync {
    /// Does it; calls [`leaving`] when the program's code has returned. The thread is not attached, neither before nor
    /// after.
    fn run(&self);
    /// It will not be done, as the job is over.
    fn refuse(&self);
    /// Whether it has not begun and somebody wants it.
    fn is_wanted(&self) -> bool;
    /// The number of the service it calls.
    fn service(&self) -> usize;
}

/// The threads of a job.
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// For those who wait for room in the queue.
    room: Condvar,
    most_queued: usize,
    /// What the threads are marked with; set by the first service.
    job: OnceLock<WorksFor>,
    scope: Arc<Scope>,
    /// The length of the queue, for a thread that looks without the lock.
    queued: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<dyn Work>>,
    /// Threads that look at the queue all the time: one at most.
    spinning: usize,
    /// Threads that sleep.
    parked: usize,
    /// Of those that slept, how many were woken for a call in the queue and have not come for it yet.
    woken: usize,
    /// Likewise for threads that were started.
    starting: usize,
    services: usize,
    /// Calls under way that need no thread all the time.
    reserved: usize,
    is_cancelled: bool,
    is_closed: bool,
    threads: Vec<Thread>,
}

struct Thread {
    inside: Arc<Inside>,
    handle: JoinHandle<()>,
}

#[derive(Default)]
struct Inside {
    /// The numbers of the services whose code a thread runs: one, or that of a call and those of the calls it has made
    /// itself.
    services: Mutex<Vec<usize>>,
    /// Which thread that is.
    thread: OnceLock<OsThread>,
}

impl Workers {
    /// With so many calls that wait for a thread, at most.
    pub(crate) fn new(most_queued: usize, scope: Arc<Scope>) -> Arc<Self> {
        let (state, queued) = (Mutex::default(), AtomicUsize::new(0));
        let job = OnceLock::new();
        let shared = Shared { state, wake: Condvar::new(), room: Condvar::new(), most_queued, job, scope, queued };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// How many calls may wait for a thread.
    pub(crate) fn most_queued(&self) -> usize {
        self.shared.most_queued
    }

    /// A service lives from now on, which the calling thread has made for its job.
    pub(crate) fn hold(&self) {
        if let Some(job) = WorksFor::here() {
            self.shared.job.get_or_init(|| job);
        }
        lock(&self.shared.state).services += 1;
    }

    /// A service was freed.
    pub(crate) fn release(&self) {
        let mut state = lock(&self.shared.state);
        state.services -= 1;
        if state.services == 0 {
            self.shared.wake.notify_all();
        }
    }

    /// Has a thread run this, if there is room for it.
    pub(crate) fn begin(&self, work: Arc<dyn Work>) -> Begun {
        let mut unwanted = VecDeque::new();
        let mut state = lock(&self.shared.state);
        if state.is_closed {
            return Begun::Over;
        }
        if state.queue.len() >= self.shared.most_queued {
            let queue = std::mem::take(&mut state.queue);
            (state.queue, unwanted) = queue.into_iter().partition(|work| work.is_wanted());
            self.shared.queued.store(state.queue.len(), Ordering::Release);
        }
        let begun = if state.queue.len() < self.shared.most_queued {
            self.add(state, work)
        } else {
            let is_cancelled = state.is_cancelled;
            drop(state);
            if is_cancelled { Begun::Over } else { Begun::Full }
        };
        if !unwanted.is_empty() {
            self.shared.room.notify_all();
        }
        // Not under the lock: they may have the program's objects.
        drop(unwanted);
        begun
    }

    /// As `begin`, however many wait: of those whose callers are few, or have reserved a place.
    pub(crate) fn begin_always(&self, work: Arc<dyn Work>) -> Begun {
        let state = lock(&self.shared.state);
        if state.is_closed { Begun::Over } else { self.add(state, work) }
    }

    /// Reserves a place for a call that is under way, and needs a thread now and then.
    pub(crate) fn reserve(&self) -> Result<Reserved, Begun> {
        let mut state = lock(&self.shared.state);
        if state.is_closed || state.is_cancelled {
            return Err(Begun::Over);
        }
        if state.waiting() >= self.shared.most_queued {
            return Err(Begun::Full);
        }
        state.reserved += 1;
        Ok(Reserved(self.shared.clone()))
    }

    /// Waits until there may be room for a call, for `limit` at most. The calling thread is not attached.
    pub(crate) fn wait_for_room(&self, limit: Duration) {
        let is_full =
            |state: &mut State| state.waiting() >= self.shared.most_queued && !state.is_closed && !state.is_cancelled;
        drop(self.shared.room.wait_timeout_while(lock(&self.shared.state), limit, is_full));
    }

    /// Nobody waits for room any more, as the job is cancelled.
    pub(crate) fn cancel(&self) {
        lock(&self.shared.state).is_cancelled = true;
        self.shared.room.notify_all();
    }

    fn add(&self, mut state: MutexGuard<'_, State>, work: Arc<dyn Work>) -> Begun {
        state.queue.push_back(work);
        self.shared.queued.store(state.queue.len(), Ordering::Release);
        if state.queue.len() <= state.spinning + state.woken + state.starting {
            return Begun::Taken;
        }
        if state.parked > 0 {
            state.parked -= 1;
            state.woken += 1;
            drop(state);
            self.shared.wake.notify_one();
            return Begun::Taken;
        }
        if state.threads.len() == MOST_THREADS {
            state.threads.retain(|thread| !thread.handle.is_finished());
        }
        if state.threads.len() < MOST_THREADS {
            let inside = Arc::new(Inside::default());
            let (shared, its_own) = (self.shared.clone(), inside.clone());
            let run = move || shared.run(its_own);
            let builder = Builder::new().name("sage-call".to_owned()).stack_size(self.shared.scope.stack_bytes);
            match builder.spawn(run) {
                Ok(handle) => {
                    state.starting += 1;
                    state.threads.push(Thread { inside, handle });
                }
                // Another thread comes to it when it has ended its call.
                Err(_) if !state.threads.is_empty() => {}
                Err(_) => {
                    state.queue.pop_back();
                    self.shared.queued.store(state.queue.len(), Ordering::Release);
                    return Begun::NoThread;
                }
            }
        }
        Begun::Taken
    }

    /// The threads that are inside a service, by its number.
    pub(crate) fn inside(&self, service: usize) -> Vec<RawPthread> {
        let state = lock(&self.shared.state);
        let inside = state.threads.iter().filter(|thread| lock(&thread.inside.services).contains(&service));
        inside.map(|thread| thread.handle.as_pthread_t()).collect()
    }

    /// Ends the threads, and waits for those that are not inside a call. The calling thread is not attached.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.is_closed = true;
        let queue = std::mem::take(&mut state.queue);
        let threads = std::mem::take(&mut state.threads);
        self.shared.queued.store(0, Ordering::Release);
        self.shared.wake.notify_all();
        self.shared.room.notify_all();
        drop(state);
        queue.iter().for_each(|work| work.refuse());
        for Thread { inside, handle } in threads {
            if lock(&inside.services).is_empty() {
                // A worker does not panic: what it runs catches Python's exceptions.
                let _ended = handle.join();
                inside.thread.get().into_iter().for_each(|thread| _ = thread.await_end(OsThread::LINGER));
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closed = true;
        self.shared.wake.notify_all();
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.queue.len() + self.reserved
    }
}

/// A place among the calls that may be under way: see [`Workers::reserve`].
pub(crate) struct Reserved(Arc<Shared>);

impl Drop for Reserved {
    fn drop(&mut self) {
        lock(&self.0.state).reserved -= 1;
        self.0.room.notify_all();
    }
}

impl Shared {
    /// What one thread does.
    fn run(&self, inside: Arc<Inside>) {
        inside.thread.get_or_init(OsThread::current);
        INSIDE.set(Some(inside.clone()));
        self.job.get().into_iter().for_each(|job| job.enter());
        let _within = self.scope.enter();
        lock(&self.state).starting -= 1;
        while let Some(work) = self.next(&inside) {
            work.run();
        }
    }

    /// The next call; `None` when the thread is to end.
    fn next(&self, inside: &Inside) -> Option<Arc<dyn Work>> {
        let mut state = lock(&self.state);
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(work) = state.queue.pop_front() {
                self.queued.store(state.queue.len(), Ordering::Release);
                if state.queue.len() + 1 == self.most_queued {
                    self.room.notify_all();
                }
                let mut services = lock(&inside.services);
                services.clear();
                services.push(work.service());
                return Some(work);
            }
            if state.services == 0 {
                return None;
            }
            if state.spinning == 0 && may_spin() {
                state.spinning += 1;
                drop(state);
                let found = spin_until(|| self.queued.load(Ordering::Acquire) > 0);
                state = lock(&self.state);
                state.spinning -= 1;
                if found || !state.queue.is_empty() {
                    continue;
                }
            }
            state.parked += 1;
            let sleeps = |state: &mut State| state.woken == 0 && !state.is_closed && state.services > 0;
            state = self.wake.wait_while(state, sleeps).unwrap_or_else(PoisonError::into_inner);
            // Whoever wakes a thread has counted it out already.
            if state.woken > 0 {
                state.woken -= 1;
            } else {
                state.parked -= 1;
            }
        }
    }
}

thread_local! {
    /// Of this thread, if it is one of these.
    static INSIDE: RefCell<Option<Arc<Inside>>> = const { RefCell::new(None) };
}

/// Whether this is one of these threads.
pub(crate) fn is_worker() -> bool {
    INSIDE.with_borrow(Option::is_some)
}

/// This thread, which is inside a call, makes another one itself.
pub(crate) fn entering(service: usize) {
    INSIDE.with_borrow(|inside| {
        if let Some(inside) = inside {
            lock(&inside.services).push(service);
        }
    });
}

/// The program's code has returned to this thread. If it was not inside another call, it comes back for the next one,
/// and the end of the job waits for it from now on.
pub(crate) fn leaving() {
    INSIDE.with_borrow(|inside| {
        if let Some(inside) = inside {
            lock(&inside.services).pop();
        }
    });
}

/// On one core, whoever spins only keeps the others from coming.
fn may_spin() -> bool {
    static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from)) > 1
}

/// Looks for something for a moment; says whether it came.
pub(crate) fn spin_until(came: impl Fn() -> bool) -> bool {
    if !may_spin() {
        return came();
    }
    let until = Instant::now() + SPIN;
    while !came() {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
        if Instant::now() > until {
            return came();
        }
        // Whoever is to come may need this core: on a busy machine this makes several times as many calls.
        std::thread::yield_now();
    }
    true
}
