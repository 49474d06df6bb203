//! The engine's lanes compiled against loom, and what its models share.

#![expect(dead_code, reason = "the engine's files are compiled whole; a model uses a part of them")]
#![expect(unreachable_pub, reason = "what the engine's public traits name is public in its file")]

pub(super) mod sync {
    pub(crate) use std::sync::{OnceLock, PoisonError};

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread::{self, Thread};

    pub(crate) use super::bell::Bell;

    /// Time does not pass in a model.
    #[derive(Clone, Copy)]
    pub(crate) struct Instant;

    impl Instant {
        pub(crate) fn now() -> Self {
            Self
        }
        pub(crate) fn duration_since(self, _earlier: Self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }

    pub(crate) fn drop_record(drop: impl FnOnce()) {
        drop();
    }

    pub(crate) fn fetch_to_write<T, const AHEAD: usize>(_slots: *const T, _index: usize) {}

    /// The fence that real machines do without; see the engine's file.
    pub(crate) fn publish_fence() {
        fence(Ordering::SeqCst);
    }

    /// Each further look would be like the first.
    pub(crate) fn comes_soon(mut has_come: impl FnMut() -> bool) -> bool {
        has_come()
    }

    /// Time does not pass in a model: a timed wait ends at once.
    pub(crate) fn pause_for(
        interval: std::time::Duration,
        _pending: impl Fn() -> bool,
        pause: impl Fn(Option<std::time::Duration>),
    ) {
        pause(Some(interval));
    }

    /// A timed wait must not yield: loom would then run the writer to its end, and the waits without limit that follow
    /// would never be tried.
    pub(crate) fn park_within(limit: Option<std::time::Duration>) {
        if limit.is_none() {
            thread::park();
        }
    }

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[path = "bell.rs"]
pub(super) mod bell;
#[path = "../../../src/between.rs"]
pub(super) mod between;
#[path = "../../../src/exchange/lane/mod.rs"]
pub(super) mod engine;
#[path = "../../../src/metrics.rs"]
mod metrics;

use engine::{Depth, Pushed, Refused, Taker, Wait, Writer};

pub(super) struct Parking;

impl Wait for Parking {
    fn interrupted(&self) -> bool {
        false
    }
    fn park_blocked(&mut self) {
        sync::thread::park();
    }
}

/// How many records were dropped.
pub(super) type Drops = std::sync::Arc<std::sync::atomic::AtomicU32>;

/// A record that tells when it is dropped.
#[derive(Debug)]
pub(super) struct Counted(pub(super) u32, pub(super) Drops);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

pub(super) fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(check);
}

pub(super) const TWO: Depth = Depth { slow: 2, fast: 2 };

/// Pushes as a task does.
pub(super) fn push(writer: &mut Writer<Counted, Parking>, record: Counted) -> Result<(), Refused> {
    match writer.push(record) {
        Pushed::Done => Ok(()),
        Pushed::Attend => writer.attend(),
    }
}

/// Takes all it is given.
pub(super) struct All<'a>(pub(super) &'a mut Vec<u32>);

impl Taker<Counted> for All<'_> {
    type Refusal = std::convert::Infallible;
    fn look(&mut self) -> Result<(), Self::Refusal> {
        Ok(())
    }
    fn take(&mut self, record: Counted) -> Result<(), Self::Refusal> {
        self.0.push(record.0);
        Ok(())
    }
    fn took(&mut self, _count: usize) {}
}
