//! A semaphore that a signal handler may post.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A POSIX semaphore, which needs no descriptor. Never destroyed, as a handler may post it at any time.
pub(super) struct Semaphore(UnsafeCell<MaybeUninit<libc::sem_t>>);

// SAFETY: a POSIX semaphore is made to be shared between threads and handlers of signals.
unsafe impl Sync for Semaphore {}
// SAFETY: as above; it does not move once it is initialised.
unsafe impl Send for Semaphore {}

impl Semaphore {
    /// One that is to be initialised where it stays.
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// To be called once, before anything else.
    pub(super) fn init(&mut self) {
        // SAFETY: nobody else has it yet.
        let made = unsafe { libc::sem_init(self.0.get_mut().as_mut_ptr(), 0, 0) };
        assert_eq!(made, 0, "a process-private semaphore of value 0 can always be made");
    }

    /// May be called in a handler of signals.
    pub(super) fn post(&self) {
        // SAFETY: initialised before anybody has it.
        unsafe { libc::sem_post((*self.0.get()).as_mut_ptr()) };
    }

    /// Waits until it is posted, or a signal came.
    pub(super) fn wait(&self) {
        // SAFETY: as above.
        unsafe { libc::sem_wait((*self.0.get()).as_mut_ptr()) };
    }

    /// As `wait`, for `timeout` at most; says whether it was posted.
    pub(super) fn wait_for(&self, timeout: Duration) -> bool {
        let until = (SystemTime::now() + timeout).duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = libc::timespec { tv_sec: until.as_secs().cast_signed(), tv_nsec: until.subsec_nanos().into() };
        // SAFETY: as above.
        unsafe { libc::sem_timedwait((*self.0.get()).as_mut_ptr(), &until) == 0 }
    }
}
