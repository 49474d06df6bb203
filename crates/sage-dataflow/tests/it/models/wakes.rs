//! The list of woken slots under shuttle: a task that parks when it is not roused misses no wake, and a poll sees what
//! was done before the wake.

mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[path = "../../../src/task/asynchronous/wakes.rs"]
mod engine;

use engine::{Queued, Wakes};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::thread::{self, Thread};
use sync::Arc;

struct Slot {
    queued: Queued,
    /// How far the slot's future may go; without an order of its own.
    steps: AtomicU32,
}

struct Shared {
    wakes: Wakes,
    slots: [Slot; 2],
}

fn wake(shared: &Shared, task: &Thread, slot: usize) {
    shared.slots[slot].steps.fetch_add(1, Ordering::Relaxed);
    if shared.wakes.put(slot as u32, &shared.slots[slot].queued) {
        task.unpark();
    }
}

/// Wakes the slots as `wakers` say, one thread for each, until all the steps were seen. Shuttle fails when the task
/// parks for ever.
fn check(wakers: &'static [&'static [usize]]) {
    shuttle::check_random(
        move || {
            let slot = || Slot { queued: Queued::new(), steps: AtomicU32::new(0) };
            let shared = Arc::new(Shared { wakes: Wakes::new(), slots: [slot(), slot()] });
            let task = thread::current();
            let threads: Vec<_> = wakers
                .iter()
                .map(|slots| {
                    let (shared, task) = (shared.clone(), task.clone());
                    thread::spawn(move || slots.iter().for_each(|&slot| wake(&shared, &task, slot)))
                })
                .collect();
            let wakes: usize = wakers.iter().map(|slots| slots.len()).sum();
            let mut seen = [0; 2];
            while (seen[0] + seen[1]) as usize != wakes {
                let mut list = Vec::new();
                shared.wakes.take(&mut list);
                for slot in list {
                    let slot = slot as usize;
                    shared.slots[slot].queued.take_back();
                    seen[slot] = shared.slots[slot].steps.load(Ordering::Relaxed);
                }
                if (seen[0] + seen[1]) as usize != wakes && !shared.wakes.is_roused() {
                    thread::park();
                }
            }
            threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        },
        2000,
    );
}

#[test]
fn a_wake_during_a_poll_is_seen() {
    check(&[&[0, 0, 0]]);
}

#[test]
fn wakes_of_several_threads_are_seen() {
    check(&[&[0, 1], &[0]]);
    check(&[&[0, 1, 0], &[1, 1], &[0]]);
}
