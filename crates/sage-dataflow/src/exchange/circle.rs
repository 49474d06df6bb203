//! Whether anybody outside a loop still wants what goes round in it.
//!
//! The tasks of a loop want records of each other for ever. So each that sends to somebody outside tells, once, when
//! nobody there wants more, and when all have told, the loop ends: whoever told last ends as satisfied, and that ends
//! the others, as its writers find nobody who wants more, and all of them are its writers, or theirs. A loop that
//! nobody outside reads is run for what its functions do, and ends with its records.

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
