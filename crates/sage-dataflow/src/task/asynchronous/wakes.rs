//! The list through which wakers tell a task which of its slots to poll.
//!
//! Invariants:
//!  1. A slot is on the list once at most: its `queued` mark is set before it is put there, and taken back before it is
//!     polled. A wake that comes during the poll puts it there again; one that finds the mark comes before a poll that
//!     sees all that was done before the wake.
//!  2. `roused` is set after a slot was put on the list, and taken back before the list is taken. So a task that finds
//!     `roused` not set and waits has seen every slot, or is woken by whoever puts the next one there.
//!
//! Knows nothing of futures and of how a task is woken. Models check this file as it is.

use super::sync::{AtomicBool, Mutex, Ordering, lock};

/// The slots of one task that were woken.
pub(crate) struct Wakes {
    list: Mutex<Vec<u32>>,
    roused: AtomicBool,
}

/// The mark of a slot that is on the list.
pub(crate) struct Queued(AtomicBool);

impl Queued {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Says that the slot, which was on the list, is polled now.
    pub(crate) fn take_back(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}

impl Wakes {
    pub(crate) fn new() -> Self {
        Self { list: Mutex::new(Vec::new()), roused: AtomicBool::new(false) }
    }

    /// Puts a slot on the list. Returns whether the task is to be woken: nobody has done so since it last looked.
    #[must_use]
    pub(crate) fn put(&self, slot: u32, queued: &Queued) -> bool {
        if queued.0.swap(true, Ordering::AcqRel) {
            return false;
        }
        lock(&self.list).push(slot);
        !self.roused.swap(true, Ordering::AcqRel)
    }

    /// Whether a slot was put on the list since the task last looked.
    pub(crate) fn is_roused(&self) -> bool {
        self.roused.load(Ordering::Acquire)
    }

    /// Takes the whole list, in exchange for an empty one.
    pub(crate) fn take(&self, empty: &mut Vec<u32>) {
        debug_assert!(empty.is_empty(), "a list is worked off before the next one is taken");
        self.roused.swap(false, Ordering::AcqRel);
        std::mem::swap(&mut *lock(&self.list), empty);
    }
}
