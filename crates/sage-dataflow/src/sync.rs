//! The synchronisation primitives of the lock-free parts.
//!
//! `exchange::lane`, `service::gate` and `job::control` name their primitives as `super::sync::…`, so
//! that the model-checking tests can compile the very same files against loom or shuttle.

pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
pub(crate) use std::thread::{self, Thread};
use std::time::Duration;
pub(crate) use std::time::Instant;

pub(crate) use crate::bell::Bell;

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

/// Has the cache fetch a line to be written to: the one that lies `AHEAD` bytes behind `slots[index]`. A hint: any
/// address will do.
#[inline(always)]
pub(crate) fn fetch_to_write<T, const AHEAD: usize>(slots: *const T, index: usize) {
    // The compiler's own prefetch would fetch it to be read, as it does not count on this instruction. Processors that
    // do not have it do nothing there.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, and of a wrong address it does nothing.
    unsafe {
        use std::arch::asm;
        // An instruction can scale by the size of a number or a pointer.
        if size_of::<T>() == 8 {
            asm!(
                "prefetchw [{} + {} * 8 + {}]", in(reg) slots.addr(), in(reg) index, const AHEAD,
                options(nomem, nostack, preserves_flags),
            );
        } else {
            asm!(
                "prefetchw [{} + {} + {}]", in(reg) slots.addr(), in(reg) index * size_of::<T>(), const AHEAD,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let (_, _) = (slots, index);
}

/// The cheap one of a pair of fences: orders what its thread does before it with what it does after it, as seen by a
/// thread that runs [`heavy_fence`]. Two threads that both run this one are not ordered.
#[inline(always)]
pub(crate) fn light_fence() {
    if HEAVY_FENCES.load(Ordering::Relaxed) {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The dear one of a pair of fences: makes every other thread of the process that runs at the moment run a full fence,
/// by membarrier(2). Some microseconds.
pub(crate) fn heavy_fence() {
    use libc::{MEMBARRIER_CMD_GLOBAL, MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED};
    fence(Ordering::SeqCst);
    if !HEAVY_FENCES.load(Ordering::SeqCst) || membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        return;
    }
    // A child of fork(2) may have to ask again; where a sandbox has come in between, the slow one may be left.
    let again = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) && membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    if !again && !membarrier(MEMBARRIER_CMD_GLOBAL) {
        // Nothing is left but to give the other processors' stores, which take nanoseconds, time to be seen.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the system knows heavy fences, and the process has asked for them. While it is false, light fences are full
/// ones. It is set before anyone relies on it, and never taken back.
static HEAVY_FENCES: AtomicBool = AtomicBool::new(false);

/// Asks the system for heavy fences, once in a process. Linux has them since 4.14; a sandbox may forbid them.
pub(crate) fn enable_heavy_fences() {
    static ASKED: OnceLock<()> = OnceLock::new();
    ASKED.get_or_init(|| {
        let enabled = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        HEAVY_FENCES.store(enabled, Ordering::SeqCst);
    });
}

fn membarrier(command: libc::c_int) -> bool {
    #[cfg(test)]
    tests::ASKED.fetch_add(u64::from(command == libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED), Ordering::Relaxed);
    // SAFETY: the call takes numbers only, and changes no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Drops a record of a user's that nobody took. Its panic keeps no other record from being dropped.
pub(crate) fn drop_record(drop: impl FnOnce()) {
    crate::guarded::drop_guarded(None, drop);
}

/// How often a thread looks again before it parks.
const SPINS: usize = 64;

/// How often it then lets others run and looks again, before it parks. Waking a thread that has parked takes tens of
/// microseconds on a virtual machine, which is most of what a small job takes.
const YIELDS: usize = 50;

/// Looks for a short while whether something has come, for which it is not worth to park.
#[inline]
pub(crate) fn comes_soon(mut has_come: impl FnMut() -> bool) -> bool {
    for _ in 0..SPINS {
        if has_come() {
            return true;
        }
        std::hint::spin_loop();
    }
    for _ in 0..YIELDS {
        if has_come() {
            return true;
        }
        thread::yield_now();
    }
    false
}

/// A hundred years: what a longer duration from a user is taken as, so that a clock can be moved on by it.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Parks the calling thread while `pending` holds, for `interval` at most.
pub(crate) fn park_for(interval: Duration, pending: impl Fn() -> bool) {
    pause_for(interval, pending, park_within);
}

/// As [`park_for`], by a wait of another kind: `pause`, for so long at most.
pub(crate) fn pause_for(interval: Duration, pending: impl Fn() -> bool, pause: impl Fn(Option<Duration>)) {
    let deadline = Instant::now() + interval.min(FOREVER);
    while pending() {
        match deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => pause(Some(left)),
            _ => return,
        }
    }
}

/// Parks the calling thread until it is unparked, for `limit` at most.
pub(crate) fn park_within(limit: Option<Duration>) {
    match limit {
        Some(limit) => thread::park_timeout(limit),
        None => thread::park(),
    }
}

/// Locks, taking over the data of a thread that panicked: every critical section of this crate leaves
/// its data valid at each step, and user code never runs inside one.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// How many fences the system was asked for.
    pub(super) static ASKED: AtomicU64 = AtomicU64::new(0);

    /// For how long the two threads race.
    const RACE: Duration = Duration::from_millis(300);

    /// Two threads that each store and then look: with the pair of fences between, one of them sees the other's store.
    /// What a gate and its callers rely on. Without the heavy fence both look too early now and then, where several
    /// processors are free; so it is also counted.
    #[test]
    fn contract_11_of_two_fences_one_light_and_one_heavy_neither_is_passed_by_both() {
        const MISSED: u32 = 1 << 31;
        enable_heavy_fences();
        // On cache lines of their own, as the words of a gate are.
        let [called, closed, seen, turn] = [0; 4].map(|_| crossbeam_utils::CachePadded::new(AtomicU32::new(0)));
        let (both, rounds) = (Barrier::new(2), std::cell::Cell::new(0_u64));
        let both_missed = thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                for round in 1.. {
                    let mut looks = 0;
                    while turn.load(Ordering::Acquire) < round {
                        looks += 1;
                        if looks % 1000 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
                    }
                    if turn.load(Ordering::Relaxed) == MISSED {
                        return;
                    }
                    called.store(round, Ordering::Relaxed);
                    light_fence();
                    let found = closed.load(Ordering::Relaxed) == round;
                    seen.store(if found { round } else { round | MISSED }, Ordering::Release);
                }
            });
            both.wait();
            let end = Instant::now() + RACE;
            let both_missed = (1..MISSED)
                .take_while(|_| Instant::now() < end)
                .inspect(|_| rounds.set(rounds.get() + 1))
                .filter(|&round| {
                    turn.store(round, Ordering::Release);
                    // So that the two come to their stores at various distances from each other.
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                    closed.store(round, Ordering::Relaxed);
                    heavy_fence();
                    let found = called.load(Ordering::Relaxed) == round;
                    let other = loop {
                        match seen.load(Ordering::Acquire) {
                            told if told & !MISSED == round => break told == round,
                            _ => thread::yield_now(),
                        }
                    };
                    !found && !other
                })
                .count();
            turn.store(MISSED, Ordering::Release);
            both_missed
        });
        assert_eq!(both_missed, 0, "of {} rounds", rounds.get());
        let asked = ASKED.load(Ordering::Relaxed);
        assert!(!HEAVY_FENCES.load(Ordering::SeqCst) || asked >= rounds.get(), "{asked} of {} fences", rounds.get());
    }

    /// A call that came in while its service closed is seen by whoever waits for it, for the gate asks for the heavy
    /// one.
    #[test]
    fn contract_11_a_service_that_stops_asks_for_a_heavy_fence() {
        struct Plain;
        impl crate::Service for Plain {}
        let env = crate::Environment::local("fences").inline();
        env.register_service("plain", || Plain).build();
        env.from_iter([1]).sink(|_| {});
        let before = ASKED.load(Ordering::Relaxed);
        env.run().unwrap();
        assert!(!HEAVY_FENCES.load(Ordering::SeqCst) || ASKED.load(Ordering::Relaxed) > before);
    }
}
