//! [`Restart`]: the service is begun anew, and attempts wait until it is there again.
//!
//! Invariant: whoever waits is woken when it is over: both look at the word under the lock under which it is changed.

use super::sync::{AtomicBool, Mutex, Ordering, lock};
use super::turn::{Giver, turn};

/// Whether a service is begun anew at the moment, and the attempts that wait for it.
pub(super) struct Restart {
    /// For a look without the lock.
    is_on: AtomicBool,
    /// Who is told the end by being dropped.
    waiting: Mutex<Vec<Giver<()>>>,
}

impl Restart {
    pub(super) fn new() -> Self {
        Self { is_on: AtomicBool::new(false), waiting: Mutex::default() }
    }

    /// Whether it is: one load.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub(super) fn begins(&self) {
        let _waiting = lock(&self.waiting);
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// The service is there again, or never will be.
    pub(super) fn ends(&self) {
        let told = {
            let mut waiting = lock(&self.waiting);
            self.is_on.store(false, Ordering::Relaxed);
            std::mem::take(&mut *waiting)
        };
        drop(told);
    }

    /// Waits until it is over.
    pub(super) async fn over(&self) {
        loop {
            let turn = {
                let mut waiting = lock(&self.waiting);
                if !self.is_on() {
                    return;
                }
                let (giver, turn) = turn();
                waiting.push(giver);
                turn
            };
            let _told: Option<()> = turn.await;
        }
    }
}
