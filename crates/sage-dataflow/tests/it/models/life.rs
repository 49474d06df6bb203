//! The life of a service under shuttle: starts, nested waits for a start, calls, an abort and the stop, in any order.

#![expect(dead_code, reason = "the engine's files are compiled whole; a model uses a part of them")]

mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};

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

#[path = "../../../src/service/life.rs"]
mod engine;
#[path = "../../../src/service/gate.rs"]
mod gate;
#[path = "../../../src/service/state.rs"]
#[expect(unreachable_pub, reason = "it is reachable where the file belongs")]
mod state;

use std::time::{Duration, Instant};

use engine::Life;
use shuttle::sync::atomic::AtomicBool;
use shuttle::thread;
use state::ServiceState as S;
use sync::{Arc, Ordering};

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// One call; fails if the value was freed.
fn call(life: &Life, freed: &AtomicBool, thread: u64) -> bool {
    let slot = life.gate().slot();
    let entered = life.gate().enter(&slot, thread);
    if let Some(pass) = entered {
        assert!(!freed.load(Ordering::SeqCst), "a call is inside a freed service");
        thread::yield_now();
        assert!(!freed.load(Ordering::SeqCst), "a service was freed under a call");
        life.gate().leave(&slot, pass);
    }
    life.gate().retire(&slot);
    entered.is_some()
}

fn stop(life: &Life, freed: &AtomicBool) {
    assert!(life.advance(S::Stopping));
    assert_eq!(life.gate().wait_empty(far()), 0);
    assert!(life.advance(S::Cleaning));
    freed.store(true, Ordering::SeqCst);
    assert!(life.advance(S::Cleaned));
}

#[test]
fn contract_07_calls_end_before_their_service_is_freed() {
    shuttle::check_random(
        || {
            let (life, freed) = (Arc::new(Life::new()), Arc::new(AtomicBool::new(false)));
            assert!(life.advance(S::Initialising) && life.advance(S::Ready));
            let callers: Vec<_> = (1..=3)
                .map(|thread| {
                    let (life, freed) = (life.clone(), freed.clone());
                    thread::spawn(move || call(&life, &freed, thread))
                })
                .collect();
            stop(&life, &freed);
            callers.into_iter().for_each(|caller| _ = caller.join().unwrap());
            assert!(!call(&life, &freed, 9), "a call got into a cleaned service");
        },
        3000,
    );
}

#[test]
fn contract_05_whoever_waits_for_a_start_returns_when_it_succeeds_fails_or_is_called_off() {
    shuttle::check_random(
        || {
            let (life, freed) = (Arc::new(Life::new()), Arc::new(AtomicBool::new(false)));
            let waiters: Vec<_> = (1..=2)
                .map(|thread| {
                    let (life, freed) = (life.clone(), freed.clone());
                    thread::spawn(move || {
                        if life.wait_started(false) == S::Ready {
                            call(&life, &freed, thread);
                        }
                    })
                })
                .collect();
            let starter = {
                let life = life.clone();
                thread::spawn(move || {
                    // Every ending of a start is tried in some schedule.
                    if shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.3) {
                        return false;
                    }
                    life.advance(S::Initialising);
                    if shuttle::rand::Rng::gen_bool(&mut shuttle::rand::thread_rng(), 0.5) {
                        return life.advance(S::Ready);
                    }
                    life.advance(S::Cleaning);
                    false
                })
            };
            let ready = starter.join().unwrap();
            life.no_start();
            if ready {
                stop(&life, &freed);
            }
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        },
        3000,
    );
}

#[test]
fn contract_01_of_several_stops_at_once_exactly_one_goes_through() {
    shuttle::check_random(
        || {
            let life = Arc::new(Life::new());
            assert!(life.advance(S::Initialising) && life.advance(S::Ready));
            let stops: Vec<_> = (0..3)
                .map(|_| {
                    let life = life.clone();
                    thread::spawn(move || u32::from(life.advance(S::Stopping)))
                })
                .collect();
            let went_through: u32 = stops.into_iter().map(|stop| stop.join().unwrap()).sum();
            assert_eq!(went_through, 1);
            assert!(!life.advance(S::Ready), "a stopping service became ready");
        },
        1000,
    );
}
