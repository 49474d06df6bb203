//! The in-flight gate under loom: no call is inside once the closer has seen the gate empty.

#![expect(dead_code, reason = "the engine's file is compiled whole; a model uses a part of it")]

mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};

    /// A condition variable whose timed wait ends at once: every wake-up is then a second look.
    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Mutex<()>);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Mutex::new(()))
        }
        pub(crate) fn notify_all(&self) {}
        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            _timeout: std::time::Duration,
        ) -> Result<(MutexGuard<'a, T>, ()), PoisonError<(MutexGuard<'a, T>, ())>> {
            loom::thread::yield_now();
            Ok((guard, ()))
        }
    }

    /// Both fences of a pair are full ones in a model: the system's own reasoning is not modelled.
    pub(crate) fn light_fence() {
        fence(Ordering::SeqCst);
    }
    pub(crate) fn heavy_fence() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[path = "../../../src/service/gate.rs"]
mod engine;

use std::time::{Duration, Instant};

use engine::{Gate, Slot};
use loom::cell::UnsafeCell;
use loom::thread;
use sync::Arc;

struct Served {
    gate: Gate,
    /// The service's value: read by calls, written by the closer when it frees it. Loom fails on an overlap.
    value: UnsafeCell<u32>,
}

/// Loom's cells are not `Sync`; the gate is what makes this one so, and that is what is checked.
struct Shared(Served);
// SAFETY: the gate under test keeps a write from overlapping a read; loom checks that it does.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

fn call(shared: &Shared, slot: &Slot, thread: Option<u64>) -> bool {
    let gate = &shared.0.gate;
    let pass = match thread {
        Some(thread) => gate.enter(slot, thread),
        None => gate.enter_shared(slot),
    };
    let Some(pass) = pass else { return false };
    // SAFETY: inside the gate; loom fails where that is not enough.
    let value = shared.0.value.with(|value| unsafe { *value });
    assert_eq!(value, 1, "a call found a freed value");
    gate.leave(slot, pass);
    true
}

fn check(callers: &'static [Option<u64>], one_slot: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Arc::new(Shared(Served { gate: Gate::new(), value: UnsafeCell::new(1) }));
        shared.0.gate.open();
        let common = shared.0.gate.slot();
        let threads: Vec<_> = callers
            .iter()
            .map(|&thread| {
                let shared = shared.clone();
                let slot = if one_slot { common.clone() } else { shared.0.gate.slot() };
                thread::spawn(move || call(&shared, &slot, thread))
            })
            .collect();
        shared.0.gate.close();
        let far = Instant::now() + Duration::from_secs(3600);
        assert_eq!(shared.0.gate.wait_empty(far), 0);
        // SAFETY: the gate is closed and empty; loom fails where that is not enough.
        shared.0.value.with_mut(|value| unsafe { *value = 0 });
        let inside: u64 = threads.into_iter().map(|thread| u64::from(thread.join().expect("no call panics"))).sum();
        assert!(!call(&shared, &common, Some(99)), "a call got in after the gate was closed");
        assert_eq!(shared.0.gate.counts().calls, inside);
    });
}

#[test]
fn contract_11_no_call_is_inside_a_closed_and_empty_gate() {
    check(&[Some(1), Some(2)], false);
}

#[test]
fn two_threads_through_one_handle_are_both_counted() {
    check(&[Some(1), Some(2)], true);
}

#[test]
fn an_async_call_beside_a_blocking_one_is_counted() {
    check(&[Some(1), None], true);
}
