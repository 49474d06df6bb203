//! Whether a reader outside a loop still wants its records.
//!
//! The tasks of a loop want records of each other for ever. So each task that also sends outside the loop says, once,
//! when its readers there want no more. When all of them have said so, the loop ends: the last one ends as satisfied,
//! and then its writers find no reader, and their writers, until all tasks of the loop have ended. A loop without
//! readers outside runs for the effects of its functions, and ends with its records.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many tasks of a loop send to somebody outside who wants more, and how many did at the start. A sink counts as
/// outside.
#[derive(Debug, Default)]
pub(crate) struct Wanting {
    left: AtomicUsize,
    all: AtomicUsize,
}

/// The part of one task in it.
#[derive(Debug)]
pub(crate) struct Circle {
    wanting: Arc<Wanting>,
    counted: Cell<bool>,
}

impl Circle {
    /// Counts the task in, if it sends to somebody `outside`. To be called for all of them before the first one runs.
    pub(crate) fn new(wanting: &Arc<Wanting>, outside: bool) -> Self {
        wanting.left.fetch_add(usize::from(outside), Ordering::SeqCst);
        wanting.all.fetch_add(usize::from(outside), Ordering::SeqCst);
        Self { wanting: wanting.clone(), counted: Cell::new(outside) }
    }

    /// Whether the loop goes on, where `wanted` says whether somebody outside still wants records of this task.
    pub(crate) fn goes_on(&self, wanted: impl FnOnce() -> bool) -> bool {
        if self.counted.get() && !wanted() {
            self.count_out();
        }
        self.wanting.left.load(Ordering::SeqCst) > 0 || self.wanting.all.load(Ordering::SeqCst) == 0
    }

    fn count_out(&self) {
        if self.counted.replace(false) {
            self.wanting.left.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Circle {
    fn drop(&mut self) {
        self.count_out();
    }
}
