//! [`SignalWatch`]: a wait that a signal ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::dispositions::{bit, here, signals_of};
use super::{NUDGES, ProcessSignals, SIGNALS};

/// Makes signals end [`JobHandle::wait_watching`](crate::JobHandle::wait_watching), until it is dropped. For a host
/// such as an interpreter, whose handlers only note that a signal came, and whose first thread acts on it between two
/// waits.
///
/// It misses no signal, not even one that comes before the wait begins or that another thread takes. The engine's
/// handler replaces the host's and calls it. SIGINT and SIGTERM are watched in any case while a job
/// [listens](crate::SignalPolicy) to them. Only one thread of a process may have watches at a time; it may have one
/// inside another.
#[derive(Debug)]
pub struct SignalWatch {
    process: &'static ProcessSignals,
    /// Those that were taken over.
    signals: u64,
    waker: Waker,
    /// How many waits there have been.
    waits: AtomicUsize,
}

/// Wakes who watches.
struct WatchWaker(&'static ProcessSignals);

impl Wake for WatchWaker {
    fn wake(self: Arc<Self>) {
        self.0.host.post();
    }
}

impl SignalWatch {
    /// Watches the signals with these numbers. It passes over ignored signals, SIGINT, SIGTERM, SIGURG, and numbers
    /// that are not a signal's.
    pub fn new(signals: impl IntoIterator<Item = i32>) -> Self {
        let process = here();
        process.watches.fetch_add(1, Ordering::SeqCst);
        let signals = signals.into_iter().filter(|signal| (1..=64).contains(signal));
        let taken = signals.filter(|signal| !SIGNALS.contains(signal) && *signal != libc::SIGURG);
        let set = taken.fold(0, |set, signal| match set & bit(signal) == 0 && process.take(signal, libc::SA_RESTART) {
            true => set | bit(signal),
            false => set,
        });
        Self { process, signals: set, waker: Waker::from(Arc::new(WatchWaker(process))), waits: AtomicUsize::new(0) }
    }

    /// Returns the signals that have come since the last call, each once, in the order of their numbers.
    pub fn came(&self) -> Vec<i32> {
        signals_of(self.process.came.swap(0, Ordering::SeqCst)).collect()
    }

    /// Whether a job got its third SIGINT or SIGTERM, which is left to the host. Stop waiting for the job then.
    pub fn gave_up(&self) -> bool {
        self.process.gave_up.load(Ordering::SeqCst)
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Waits until a signal has come, `waker` was woken, or `timeout` has passed. May return early.
    ///
    /// The first waits are short. Another thread may have begun with the host's function just before the signal was
    /// taken over, and gone on with it after the host has looked what it left: nothing tells of that.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let short = NUDGES.get(self.waits.fetch_add(1, Ordering::Relaxed)).filter(|_| self.signals != 0);
        match timeout.into_iter().chain(short.copied()).min() {
            None => self.process.host.wait(),
            Some(timeout) => drop(self.process.host.wait_for(timeout)),
        }
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        // A forked process has them back already.
        if self.process.is_this() {
            signals_of(self.signals).for_each(|signal| self.process.give_back(signal));
            self.process.watches.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
