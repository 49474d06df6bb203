//! [`Alarm`]: the thread that erases turns at the moment they expire.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::inner::Inner;

/// How long nothing is erased once something was, so that writes find time between waits for the disk however many
/// turns expire one after the other. Nobody sees those that wait.
const REST: Duration = Duration::from_millis(100);

const LEAST: Duration = Duration::from_millis(1);

/// The thread of one memory that is open. Dropped, it has ended.
#[derive(Debug)]
pub(super) struct Alarm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread waits for.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Something may expire sooner than when the thread looked last.
    is_rung: bool,
    is_over: bool,
}

impl Alarm {
    pub(super) fn start(inner: Arc<Inner>) -> std::io::Result<Self> {
        let shared = Arc::clone(inner.alarm());
        shared.lock().is_over = false;
        let waits = Arc::clone(&shared);
        let thread = thread::Builder::new().name("sage-memory".to_owned()).spawn(move || waits.run(&inner))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has logged whatever made it panic.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Has the thread look at what expires next.
    pub(super) fn ring(&self) {
        self.lock().is_rung = true;
        self.changed.notify_one();
    }

    fn run(&self, inner: &Inner) {
        let mut rests_until = Instant::now();
        loop {
            let rests = rests_until.saturating_duration_since(Instant::now());
            // A clock that stands still, of a test, is looked at a thousand times a second.
            let wait =
                inner.until_next_expires().map(|wait| if wait.is_zero() { rests } else { wait.max(rests).max(LEAST) });
            let mut state = self.lock();
            if !state.is_rung && !state.is_over {
                state = match wait {
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(Duration::ZERO) => state,
                    Some(wait) => self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                };
            }
            if state.is_over {
                return;
            }
            let is_rung = std::mem::take(&mut state.is_rung);
            drop(state);
            // It may also have been woken for no reason.
            if is_rung || !inner.until_next_expires().is_some_and(|wait| wait.is_zero()) {
                continue;
            }
            if let Err(error) = inner.expire() {
                tracing::warn!(error = &error as &dyn std::error::Error, "turns that have expired stay in the file");
            }
            rests_until = Instant::now() + REST;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
