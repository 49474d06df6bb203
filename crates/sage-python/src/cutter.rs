//! The cutter: it ends a loop over records that has gone on for long enough, so that its results leave and the engine
//! notices requests.
//!
//! A loop looks at a mark for each record, and at no clock: see [`records`](crate::records). The mark is set by a
//! thread of the job, the cutter, which ticks while loops run, sleeps while none do, and ends with the last thread that
//! has some. It never attaches, so that nothing a program does holds it up. A loop that was there at the last tick
//! already has gone on for a tick at least, and two at most.
//!
//! A small job is over before a tick has passed, and to start a thread would be a good part of what it takes. So until
//! then its loops look at the clock themselves: the first that finds that a tick has passed since its thread had its
//! first one starts the cutter, and ends.
//!
//! Invariants:
//!  1. `run` of a loop is odd while it runs, and only its own thread changes it.
//!  2. A loop that begins while there is no cutter looks at the clock for as long as it runs.
//!  3. The cutter falls asleep only if no loop ran after it said that it sleeps; one that begins later sees that, and
//!     wakes it. Both orders are those of fences of the strongest kind on both sides.
//!  4. A mark that is set too late is one of a loop that begins just then, which gives one record at least all the
//!     same.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::PyList;
use sage::OsThread;

use crate::thread::lock;

/// Between two looks at the loops that run.
pub(crate) const TICK: Duration = Duration::from_millis(3);

/// The loops of one thread, of which one runs at a time. By default they are never cut.
#[derive(Default)]
pub(crate) struct Loop {
    /// `GO_ON`, `LOOK` or `CUT`.
    mark: AtomicU8,
    run: AtomicU64,
    /// The list that its results go to, which is alive while it runs; null where nobody need know.
    pub(crate) out: AtomicPtr<PyObject>,
    watched: Option<Watched>,
}

/// What the loop that runs is to do: go on, look at the clock, or end.
const GO_ON: u8 = 0;
const LOOK: u8 = 1;
const CUT: u8 = 2;

/// Of loops that may be cut.
struct Watched {
    shared: Arc<Shared>,
    /// When their thread had its first one.
    since: Instant,
}

/// A loop that is never cut.
pub(crate) static ENDLESS: Loop =
    Loop { mark: AtomicU8::new(GO_ON), run: AtomicU64::new(0), out: AtomicPtr::new(ptr::null_mut()), watched: None };

impl Loop {
    /// Runs one; `out` is where its results go.
    pub(crate) fn run<R>(&self, out: Option<&Bound<'_, PyList>>, run: impl FnOnce() -> R) -> R {
        self.mark.store(GO_ON, Ordering::Relaxed);
        self.out.store(out.map_or(ptr::null_mut(), |out| out.as_ptr()), Ordering::Relaxed);
        self.run.store(self.run.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if let Some(Watched { shared, .. }) = &self.watched {
            fence(Ordering::SeqCst);
            match shared.cutter.load(Ordering::Relaxed) {
                NONE => self.mark.store(LOOK, Ordering::Relaxed),
                SLEEPS => shared.wake(),
                _ => {}
            }
        }
        let result = run();
        self.run.store(self.run.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.out.store(ptr::null_mut(), Ordering::Relaxed);
        result
    }

    /// Whether the one that runs may have to end: see [`Loop::is_over`].
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.mark.load(Ordering::Relaxed) != GO_ON
    }

    /// Whether the one that runs is to end, where it is marked. Starts the cutter when it is time.
    #[cold]
    pub(crate) fn is_over(&self) -> bool {
        if self.mark.load(Ordering::Relaxed) == LOOK
            && let Some(Watched { shared, since }) = &self.watched
        {
            if since.elapsed() < TICK {
                return false;
            }
            Shared::start(shared);
            self.cut();
        }
        true
    }

    /// The one that runs is to end.
    pub(crate) fn cut(&self) {
        self.mark.store(CUT, Ordering::Relaxed);
    }

    fn runs(&self) -> Option<u64> {
        let run = self.run.load(Ordering::Relaxed);
        (run % 2 == 1).then_some(run)
    }
}

/// The thread that ends loops of one job.
#[derive(Default)]
pub(crate) struct Cutter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// `NONE`, `TICKS` or `SLEEPS`.
    cutter: AtomicU8,
}

/// What the cutter does, if there is one.
const NONE: u8 = 0;
const TICKS: u8 = 1;
const SLEEPS: u8 = 2;

#[derive(Default)]
struct State {
    /// Each with the run that the last tick has seen.
    loops: Vec<(Arc<Loop>, Option<u64>)>,
    /// Those that were started. There is one at a time; each returns how the system knows it.
    threads: Vec<JoinHandle<OsThread>>,
    is_closed: bool,
}

impl State {
    fn is_over(&self) -> bool {
        self.is_closed || self.loops.is_empty()
    }
}

impl Cutter {
    /// Watches over the loops of one more thread.
    pub(crate) fn watch(&self) -> Arc<Loop> {
        let watched = Watched { shared: self.0.clone(), since: Instant::now() };
        let watched = Arc::new(Loop { watched: Some(watched), ..Loop::default() });
        lock(&self.0.state).loops.push((watched.clone(), None));
        watched
    }

    /// The thread of these loops has ended.
    pub(crate) fn forget(&self, watched: &Arc<Loop>) {
        let mut state = lock(&self.0.state);
        state.loops.retain(|(other, _)| !Arc::ptr_eq(other, watched));
        if state.is_over() && !state.threads.is_empty() {
            drop(state);
            self.0.changed.notify_all();
        }
    }

    /// Ends the thread, and waits until it has ended.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.0.state);
        state.is_closed = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        if !threads.is_empty() {
            self.0.changed.notify_all();
        }
        for thread in threads {
            // It runs no code but ours, which does not panic.
            if let Ok(thread) = thread.join() {
                thread.await_end(OsThread::LINGER);
            }
        }
    }
}

/// It calls nothing that needs more.
const STACK_BYTES: usize = 256 << 10;

impl Drop for Cutter {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Starts the cutter, if there is none.
    fn start(this: &Arc<Self>) {
        let mut state = lock(&this.state);
        if state.is_closed || this.cutter.load(Ordering::Relaxed) != NONE {
            return;
        }
        let shared = this.clone();
        match Builder::new().name("sage-cutter".to_owned()).stack_size(STACK_BYTES).spawn(move || shared.tick()) {
            Ok(thread) => state.threads.push(thread),
            // The job does what it would do with it, only its loops end by themselves.
            Err(error) => eprintln!("sage: no thread for ending loops that take long: {error}"),
        }
        this.cutter.store(TICKS, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self) {
        // Under the lock, so that the cutter does not fall asleep between its look and this.
        let state = lock(&self.state);
        self.cutter.store(TICKS, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    /// What the thread does.
    fn tick(&self) -> OsThread {
        let mut state = lock(&self.state);
        loop {
            let ticking = self.changed.wait_timeout_while(state, TICK, |state| !state.is_over());
            state = ticking.unwrap_or_else(PoisonError::into_inner).0;
            if state.is_over() {
                self.cutter.store(NONE, Ordering::Relaxed);
                return OsThread::current();
            }
            let mut is_busy = false;
            for (watched, seen) in &mut state.loops {
                let runs = watched.runs();
                is_busy |= runs.is_some();
                if runs.is_some() && runs == *seen {
                    watched.cut();
                }
                *seen = runs;
            }
            if is_busy {
                continue;
            }
            self.cutter.store(SLEEPS, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if state.loops.iter().all(|(watched, _)| watched.runs().is_none()) {
                let asleep = |state: &mut State| !state.is_over() && self.cutter.load(Ordering::Relaxed) == SLEEPS;
                state = self.changed.wait_while(state, asleep).unwrap_or_else(PoisonError::into_inner);
            }
            self.cutter.store(TICKS, Ordering::Relaxed);
        }
    }
}
