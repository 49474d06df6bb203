//! The meeting point of the thread that runs a job and the threads that wait for it.
//!
//! Invariants: the result is set once and stays; a waiter that has it knows that the job's thread has ended, because it
//! joined that thread or waited on the lock under which another did. (Checked with shuttle: `tests/it/models.rs`.)

use std::panic::catch_unwind;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::sync::{Condvar, Mutex, PoisonError, lock};
use super::thread::OwnThread;

/// The meeting place of one job with its waiters.
#[derive(Debug)]
pub(crate) struct Rendezvous<R> {
    result: Mutex<Pending<R>>,
    done: Condvar,
    runner: Mutex<Option<OwnThread>>,
}

#[derive(Debug)]
struct Pending<R> {
    result: Option<R>,
    wakers: Vec<Waker>,
}

impl<R: Clone> Rendezvous<R> {
    pub(crate) fn new() -> Self {
        let pending = Pending { result: None, wakers: Vec::new() };
        Self { result: Mutex::new(pending), done: Condvar::new(), runner: Mutex::new(None) }
    }

    /// Says which thread will set the result.
    pub(crate) fn set_runner(&self, runner: OwnThread) {
        *lock(&self.runner) = Some(runner);
    }

    /// Sets the result: the last thing the job's thread does.
    pub(crate) fn finish(&self, result: R) {
        let wakers = {
            let mut pending = lock(&self.result);
            pending.result.get_or_insert(result);
            std::mem::take(&mut pending.wakers)
        };
        // Not under the lock, which a waiter that wakes would only wait for.
        self.done.notify_all();
        for waker in wakers {
            // It is the code of whoever waits; one that panics keeps no other from being woken.
            if let Err(payload) = catch_unwind(move || waker.wake()) {
                // Its `Drop` might panic again.
                std::mem::forget(payload);
            }
        }
    }

    /// Waits for the end of the job's thread. `None` if that ended without a result.
    pub(crate) fn wait(&self) -> Option<R> {
        self.join();
        lock(&self.result).result.clone()
    }

    /// As [`Rendezvous::wait`], for `timeout` at most; `None` when that has passed.
    pub(crate) fn wait_timeout(&self, timeout: Duration) -> Option<R> {
        let deadline = Instant::now() + timeout;
        let mut pending = lock(&self.result);
        while pending.result.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            pending = self.done.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(pending);
        self.wait()
    }

    /// The result if it is there; else `waker` is woken when it is.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<R> {
        {
            let mut pending = lock(&self.result);
            if pending.result.is_none() {
                pending.wakers.retain(|other| !other.will_wake(waker));
                pending.wakers.push(waker.clone());
                return None;
            }
        }
        self.wait()
    }

    fn join(&self) {
        // Held while joining, so that every other waiter waits for the thread's end as well.
        let mut runner = lock(&self.runner);
        if let Some(runner) = runner.take() {
            // A thread that panicked has set no result, and that is what its waiters see.
            runner.join();
        }
    }
}
