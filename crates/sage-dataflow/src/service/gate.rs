//! The gate in front of a service: lets calls in while the service is serving, counts those inside, and tells when
//! the last one has left.
//!
//! Every handle has a [`Slot`] of its own, so that callers on different threads share no cache line. The thread that
//! calls first through a slot owns it and counts without atomic read-modify-writes; any other thread that uses the same
//! handle counts in a second pair of counters.
//!
//! Invariants:
//!  1. A caller counts itself in, *then* looks whether the gate is open; the closer closes, *then* counts. With a fence
//!     between the two steps on both sides, a caller that got in is seen by the closer. (Checked with loom:
//!     `tests/it/models/gate.rs`.)
//!  2. `left` is read before `entered`: a count of those inside may be too high for a moment, never too low.
//!  3. A caller counts itself out, *then* looks whether the gate is closed; the closer closes, *then* counts and waits.
//!     With the same fences, either the closer counts the caller out, or the caller wakes the closer.
//!
//! The fences are a pair of unequal ones: the caller's, [`light_fence`], costs nothing, and the closer's,
//! [`heavy_fence`], makes up for it.

use std::time::Instant;

use super::sync::{
    Arc, AtomicU8, AtomicU64, Condvar, Mutex, Ordering, PoisonError, fence, heavy_fence, light_fence, lock,
};

const CLOSED: u8 = 0;
const OPEN: u8 = 1;

/// Counts the calls through one handle.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    owner: AtomicU64,
    entered: AtomicU64,
    left: AtomicU64,
    shared_entered: AtomicU64,
    shared_left: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// The number of the service that last called through the handle, if any: its dependency is noted already.
    pub(crate) noted: AtomicU64,
}

/// Where no service is noted.
const NOBODY: u64 = u64::MAX;

impl Slot {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            owner: zero(),
            entered: zero(),
            left: zero(),
            shared_entered: zero(),
            shared_left: zero(),
            errors: zero(),
            noted: AtomicU64::new(NOBODY),
        }
    }

    fn inside(&self) -> u64 {
        // Invariant 2: `left` first.
        let left = self.left.load(Ordering::Acquire) + self.shared_left.load(Ordering::Acquire);
        fence(Ordering::SeqCst);
        let entered = self.entered.load(Ordering::Acquire) + self.shared_entered.load(Ordering::Acquire);
        entered.wrapping_sub(left)
    }

    /// The calls that have ended. It never goes down: an entry that is no call is taken back, and leaves no trace here.
    fn calls(&self) -> u64 {
        self.left.load(Ordering::Relaxed) + self.shared_left.load(Ordering::Relaxed)
    }
}

/// A call that got in; give it back to [`Gate::leave`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    own: bool,
    /// Roughly this call's number in its slot. It decides which calls are timed.
    pub(crate) ordinal: u64,
}

/// The gate of one service.
#[derive(Debug)]
pub(crate) struct Gate {
    state: AtomicU8,
    slots: Mutex<Slots>,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Slots {
    live: Vec<Arc<Slot>>,
    retired: CallCounts,
}

impl Slots {
    fn inside(&self) -> u64 {
        self.live.iter().map(|slot| slot.inside()).sum()
    }
}

/// What has passed a gate and come out again so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CallCounts {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU8::new(CLOSED), slots: Mutex::new(Slots::default()), emptied: Condvar::new() }
    }

    /// A slot for a new handle.
    pub(crate) fn slot(&self) -> Arc<Slot> {
        let slot = Arc::new(Slot::new());
        lock(&self.slots).live.push(slot.clone());
        slot
    }

    /// Takes a dropped handle's slot out; what it counted stays counted. A slot with a call inside stays.
    pub(crate) fn retire(&self, slot: &Arc<Slot>) {
        if slot.inside() > 0 {
            return;
        }
        let mut slots = lock(&self.slots);
        slots.retired.calls += slot.calls();
        slots.retired.errors += slot.errors.load(Ordering::Relaxed);
        slots.live.retain(|other| !Arc::ptr_eq(other, slot));
    }

    /// Lets a call in, or not, when the gate is closed. `thread` names the calling thread, and is not zero.
    #[inline(always)]
    pub(crate) fn enter(&self, slot: &Slot, thread: u64) -> Option<Pass> {
        let owner = slot.owner.load(Ordering::Relaxed);
        let own = owner == thread || (owner == 0 && Self::claim(slot, thread));
        if !own {
            return self.enter_shared(slot);
        }
        let ordinal = slot.entered.load(Ordering::Relaxed) + 1;
        slot.entered.store(ordinal, Ordering::Relaxed);
        self.look(slot, Pass { own, ordinal })
    }

    /// As [`Gate::enter`], for a call that may leave on another thread.
    #[cold]
    pub(crate) fn enter_shared(&self, slot: &Slot) -> Option<Pass> {
        let ordinal = slot.shared_entered.fetch_add(1, Ordering::Relaxed) + 1;
        self.look(slot, Pass { own: false, ordinal })
    }

    #[inline(always)]
    fn look(&self, slot: &Slot, pass: Pass) -> Option<Pass> {
        light_fence();
        if self.state.load(Ordering::Acquire) == OPEN { Some(pass) } else { self.refuse(slot, pass) }
    }

    #[cold]
    fn claim(slot: &Slot, thread: u64) -> bool {
        slot.owner.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn refuse(&self, slot: &Slot, pass: Pass) -> Option<Pass> {
        self.take_back(slot, pass);
        None
    }

    /// Counts an entry that was no call out again.
    fn take_back(&self, slot: &Slot, pass: Pass) {
        if pass.own {
            slot.entered.store(slot.entered.load(Ordering::Relaxed) - 1, Ordering::Release);
        } else {
            slot.shared_entered.fetch_sub(1, Ordering::Release);
        }
        self.look_for_closer();
    }

    /// Counts a call out.
    #[inline(always)]
    pub(crate) fn leave(&self, slot: &Slot, pass: Pass) {
        if pass.own {
            slot.left.store(slot.left.load(Ordering::Relaxed) + 1, Ordering::Release);
        } else {
            slot.shared_left.fetch_add(1, Ordering::Release);
        }
        self.look_for_closer();
    }

    /// Wakes whoever waits for the gate to be empty.
    #[inline(always)]
    fn look_for_closer(&self) {
        light_fence();
        if self.state.load(Ordering::Relaxed) != OPEN {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        drop(lock(&self.slots));
        self.emptied.notify_all();
    }

    /// Forgets who was noted as a caller: another run begins.
    pub(crate) fn forget_callers(&self) {
        lock(&self.slots).live.iter().for_each(|slot| slot.noted.store(NOBODY, Ordering::Relaxed));
    }

    /// Lets calls in from now on.
    pub(crate) fn open(&self) {
        self.state.store(OPEN, Ordering::SeqCst);
    }

    /// Lets no call in from now on.
    pub(crate) fn close(&self) {
        self.state.store(CLOSED, Ordering::SeqCst);
        heavy_fence();
    }

    /// Runs `act` inside the gate without counting it as a call; `None` when the gate is closed.
    pub(crate) fn pass<R>(&self, act: impl FnOnce() -> R) -> Option<R> {
        let slot = self.slot();
        let pass = self.enter_shared(&slot);
        let result = pass.map(|pass| {
            let result = act();
            self.take_back(&slot, pass);
            result
        });
        self.retire(&slot);
        result
    }

    /// Waits until a closed gate has nobody inside, until `deadline` at most. Returns how many still are.
    pub(crate) fn wait_empty(&self, deadline: Instant) -> u64 {
        let mut slots = lock(&self.slots);
        loop {
            let inside = slots.inside();
            let left = deadline.saturating_duration_since(Instant::now());
            if inside == 0 || left.is_zero() {
                return inside;
            }
            let waited = self.emptied.wait_timeout(slots, left);
            slots = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many are inside now.
    pub(crate) fn inside(&self) -> u64 {
        lock(&self.slots).inside()
    }

    pub(crate) fn counts(&self) -> CallCounts {
        let slots = lock(&self.slots);
        slots.live.iter().fold(slots.retired, |sum, slot| CallCounts {
            calls: sum.calls + slot.calls(),
            errors: sum.errors + slot.errors.load(Ordering::Relaxed),
        })
    }
}
