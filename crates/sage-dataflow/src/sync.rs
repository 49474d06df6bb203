//! The synchronisation primitives the lock-free parts are written against.
//!
//! `exchange::lane`, `service::gate` and `job::control` name their primitives as `super::sync::…`, so
//! that the model-checking tests can compile the very same files against loom or shuttle.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
pub(crate) use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// An `UnsafeCell` with loom's closure interface.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A fence the models need and real machines do not; `lane` explains why at its use.
#[inline(always)]
pub(crate) fn publish_fence() {}

/// How often a reader of a lane looks again before it parks.
pub(crate) const SPINS: usize = 64;

/// A hundred years: what a longer duration from a user is taken as, so that a clock can be moved on by it.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Parks the calling thread while `pending` holds, for `interval` at most.
pub(crate) fn park_for(interval: Duration, pending: impl Fn() -> bool) {
    let deadline = Instant::now() + interval.min(FOREVER);
    while pending() {
        match deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            _ => return,
        }
    }
}

/// Locks, taking over the data of a thread that panicked: every critical section of this crate leaves
/// its data valid at each step, and user code never runs inside one.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
