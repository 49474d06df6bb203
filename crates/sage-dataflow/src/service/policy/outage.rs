//! An outage: the service is not there. Calls that meet it are held, and made again when it has ended.
//!
//! One of the held calls at a time is the probe: it is made again after a wait that doubles from one to the next. When
//! it comes out otherwise, the outage is over, and all others are made again.
//!
//! Invariant: while there is an outage and calls are held, one of them is the probe. A probe that is dropped hands that
//! on to the next, also when it was handed on to a call that leaves at this moment.

use std::collections::VecDeque;
use std::mem::take;
use std::time::{Duration, Instant};

use super::sync::{Arc, AtomicBool, Mutex, Ordering, lock};
use super::time::Time;
use super::turn::{Giver, Turn, turn};

/// How long the first probe waits; each next one waits twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Whether a service is there, and the calls that wait until it is.
pub(super) struct Outage {
    /// For a look without the lock.
    is_on: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    since: Option<Instant>,
    probe: Option<Instant>,
    /// Probes that have met it again.
    failed: u32,
    is_probed: bool,
    held: VecDeque<Giver<Next>>,
    figures: OutageFigures,
}

/// What a held call does next.
enum Next {
    GoOn,
    GiveUp,
    Probe(Probe),
}

/// What the outages of a run were so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OutageFigures {
    pub(super) outages: u64,
    pub(super) held: u64,
}

/// What a call is to do that was held.
pub(super) enum Released {
    /// The outage is over: it is made again.
    Over,
    /// It is made again, to find out.
    Probe(Probe),
    /// The outage has lasted too long.
    TooLong,
}

/// The call that finds out whether an outage is over.
pub(super) struct Probe(Arc<Outage>);

impl Outage {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { is_on: AtomicBool::new(false), known: Mutex::default() })
    }

    /// Whether there is an outage: one load.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Another run begins. No call is left of the one before.
    pub(super) fn reset(&self) {
        let before = take(&mut *lock(&self.known));
        self.is_on.store(false, Ordering::Relaxed);
        drop(before);
    }

    /// A call has met the outage. Whether it begins with that.
    pub(super) fn met(&self, now: Instant) -> bool {
        let mut known = lock(&self.known);
        if known.since.is_some() {
            return false;
        }
        known.since = Some(now);
        known.probe = Some(now + FIRST_WAIT);
        known.failed = 0;
        known.figures.outages += 1;
        self.is_on.store(true, Ordering::Relaxed);
        true
    }

    /// Holds a call until the outage is over, or it has its turn as the probe. One that has lasted for `at_most` is
    /// given up.
    pub(super) async fn hold<T: Time>(self: &Arc<Self>, time: &T, at_most: Duration) -> Released {
        let next = match self.place() {
            Ok(next) => next,
            Err(waits) => waits.await.unwrap_or(Next::GoOn),
        };
        let probe = match next {
            Next::GoOn => return Released::Over,
            Next::GiveUp => return Released::TooLong,
            Next::Probe(probe) => probe,
        };
        let (at, end) = {
            let known = lock(&self.known);
            (known.probe, known.since.and_then(|since| since.checked_add(at_most)))
        };
        let (at, is_last) = match (at, end) {
            (Some(at), Some(end)) if end < at => (end, true),
            (Some(at), _) => (at, false),
            (None, _) => return Released::Over,
        };
        time.sleep_until(at).await;
        if is_last {
            probe.ends(Next::GiveUp);
            return Released::TooLong;
        }
        Released::Probe(probe)
    }

    fn place(self: &Arc<Self>) -> Result<Next, Turn<Next>> {
        let mut known = lock(&self.known);
        if known.since.is_none() {
            return Ok(Next::GoOn);
        }
        known.figures.held += 1;
        if !known.is_probed {
            known.is_probed = true;
            return Ok(Next::Probe(Probe(self.clone())));
        }
        let (giver, turn) = turn();
        known.held.push_back(giver);
        Err(turn)
    }

    /// The probe is over, and another held call becomes the probe; those that have left are passed over.
    fn hand_on(self: &Arc<Self>) {
        let next = {
            let mut known = lock(&self.known);
            let next = known.held.pop_front();
            known.is_probed = next.is_some();
            next
        };
        // One that has left gives the probe back, which drops it: and so it is handed on from there.
        next.into_iter().for_each(|next| drop(next.give(Next::Probe(Probe(self.clone())))));
    }

    pub(super) fn figures(&self) -> OutageFigures {
        lock(&self.known).figures
    }
}

impl Probe {
    /// It has met the outage again.
    pub(super) fn meets_it_again(self, now: Instant) {
        let mut known = lock(&self.0.known);
        known.failed += 1;
        known.probe = Some(now + FIRST_WAIT.saturating_mul(1 << known.failed.min(5)).min(LONGEST_WAIT));
        drop(known);
        // Its drop hands it on.
    }

    /// It has found that the service is there. Whether the outage ends with that.
    pub(super) fn ends_it(self) -> bool {
        self.ends(Next::GoOn)
    }

    fn ends(self, told: Next) -> bool {
        let (was_on, held) = {
            let mut known = lock(&self.0.known);
            self.0.is_on.store(false, Ordering::Relaxed);
            (known.since.take().is_some(), take(&mut known.held))
        };
        for giver in held {
            let told = if matches!(told, Next::GiveUp) { Next::GiveUp } else { Next::GoOn };
            drop(giver.give(told));
        }
        was_on
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.hand_on();
    }
}
