//! The engine's lanes, and the word that steers a job, compiled against shuttle, and what its models share.

#![expect(dead_code, reason = "the engine's files are compiled whole; a model uses a part of them")]
#![expect(unreachable_pub, reason = "what the engine's public traits name is public in its file")]

pub(super) mod sync {
    pub(crate) use std::sync::{OnceLock, PoisonError};
    pub(crate) use std::time::Instant;

    pub(crate) use super::bell::Bell;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(crate) use thread::Thread;

    /// Shuttle's own park may end early, which hides a wake that was lost.
    pub(crate) mod thread {
        use super::{Arc, Condvar, Mutex, PoisonError, lock};

        pub(crate) use shuttle::thread::yield_now;

        #[derive(Debug, Clone)]
        pub(crate) struct Thread(Arc<(Mutex<bool>, Condvar)>);

        shuttle::thread_local! {
            static HERE: Thread = Thread(Arc::new((Mutex::new(false), Condvar::new())));
        }

        impl Thread {
            pub(crate) fn unpark(&self) {
                *lock(&self.0.0) = true;
                self.0.1.notify_all();
            }
        }

        pub(crate) fn current() -> Thread {
            HERE.with(Thread::clone)
        }

        pub(crate) fn park() {
            let here = current();
            let mut unparked = lock(&here.0.0);
            while !*unparked {
                unparked = here.0.1.wait(unparked).unwrap_or_else(PoisonError::into_inner);
            }
            *unparked = false;
        }
    }

    /// With a method that no model calls.
    #[derive(Debug)]
    pub(crate) struct AtomicU8(shuttle::sync::atomic::AtomicU8);

    impl AtomicU8 {
        pub(crate) const fn new(value: u8) -> Self {
            Self(shuttle::sync::atomic::AtomicU8::new(value))
        }
        pub(crate) fn as_ptr(&self) -> *mut u8 {
            unreachable!("a model reads by `load`")
        }
    }

    impl std::ops::Deref for AtomicU8 {
        type Target = shuttle::sync::atomic::AtomicU8;
        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    /// Shuttle checks orders of events, not accesses.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    pub(crate) fn publish_fence() {}

    pub(crate) fn fetch_to_write<T, const AHEAD: usize>(_slots: *const T, _index: usize) {}

    pub(crate) fn drop_record(drop: impl FnOnce()) {
        drop();
    }

    /// Each further look would be like the first.
    pub(crate) fn comes_soon(mut has_come: impl FnMut() -> bool) -> bool {
        has_come()
    }

    /// Time does not pass in a model: a timed wait ends at once.
    pub(crate) fn pause_for(
        interval: std::time::Duration,
        pending: impl Fn() -> bool,
        pause: impl Fn(Option<std::time::Duration>),
    ) {
        if pending() {
            pause(Some(interval));
        }
    }

    pub(crate) fn park_within(limit: Option<std::time::Duration>) {
        match limit {
            Some(_) => thread::yield_now(),
            None => thread::park(),
        }
    }

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time does not pass in a model.
mod clock {
    #[derive(Debug)]
    pub(crate) struct Clock;

    pub(crate) trait Rouse: std::fmt::Debug + Send + Sync {
        fn rouse(&self);
    }
}

#[path = "bell.rs"]
pub(super) mod bell;
#[path = "../../../src/between.rs"]
pub(super) mod between;
#[path = "../../../src/control/mod.rs"]
#[expect(unused_imports, reason = "no model asks which job a thread works for")]
pub(super) mod control;
#[path = "../../../src/exchange/lane/mod.rs"]
pub(super) mod engine;
#[path = "../../../src/metrics.rs"]
mod metrics;

use control::{Control, JobControl, StopReason};
use engine::{Depth, Taker, Wait};
use sync::Arc;

pub(super) const TWO: Depth = Depth { slow: 2, fast: 2 };

/// Takes all it is given.
pub(super) struct Records<'a, T>(pub(super) &'a mut Vec<T>);

impl<T> Taker<T> for Records<'_, T> {
    type Refusal = std::convert::Infallible;
    fn look(&mut self) -> Result<(), Self::Refusal> {
        Ok(())
    }
    fn take(&mut self, record: T) -> Result<(), Self::Refusal> {
        self.0.push(record);
        Ok(())
    }
    fn took(&mut self, _count: usize) {}
}

/// A record that is known by its number. Who has lost none holds the last of the other half.
pub(super) type Numbered = (u32, std::sync::Arc<()>);

/// Waits for room as a task of a job does.
pub(super) struct OfJob(pub(super) Arc<JobControl>);

impl Wait for OfJob {
    fn interrupted(&self) -> bool {
        self.0.load() == Control::Cancel
    }
    fn park_blocked(&mut self) {
        sync::thread::park();
    }
}

pub(super) fn steering() -> Arc<JobControl> {
    Arc::new(JobControl::new(clock::Clock))
}

/// Asks the tasks of a job to end.
pub(super) fn stop(control: &JobControl, how: Control) {
    control.advance(how, StopReason::Drain, None);
}

/// In so many schedules of each kind.
pub(super) fn check(schedules: usize, job: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(job.clone(), schedules);
    shuttle::check_pct(job, schedules, 3);
}
