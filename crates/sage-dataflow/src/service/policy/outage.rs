//! An outage: the service is not there. Calls that meet it are held, and made again when it has ended.
//!
//! One of the held calls at a time is the probe: it is made again after a wait that doubles from one to the next. When
//! it comes out otherwise, the outage is over, and all others are made again.
//!
//! Invariants: while there is an outage and calls are held, one of them is the probe. A probe that is dropped hands
//! that on to the next, also when it was handed on to a call that leaves at this moment. The job is asked to pause
//! while there is an outage and a probe: if every held call has left, it goes on, and its next call is the probe.

use std::collections::VecDeque;
use std::mem::take;
use std::time::{Duration, Instant};

use super::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, lock};
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

/// Asks for a pause of a job while a service is not there, or for its end. The requests of several threads may come in
/// another order than they were made in.
pub(crate) type PauseJob = std::sync::Arc<dyn Fn(bool) + Send + Sync>;

#[derive(Default)]
struct Known {
    since: Option<Instant>,
    probe: Option<Instant>,
    /// Probes that have met it again.
    failed: u32,
    is_probed: bool,
    held: VecDeque<Giver<Next>>,
    /// What pauses the job of the run.
    pause: Option<PauseJob>,
    /// Whether it was asked to.
    pauses: bool,
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

    /// Another run begins, with a job of its own. No call is left of the one before.
    pub(super) fn reset(&self, pause: Option<PauseJob>) {
        let before = std::mem::replace(&mut *lock(&self.known), Known { pause, ..Known::default() });
        self.is_on.store(false, Ordering::Relaxed);
        drop(before);
    }

    /// The run is over: its job is paused no more.
    pub(super) fn end(&self) {
        let pause = lock(&self.known).pause.take();
        drop(pause);
    }

    /// A call has met the outage, which begins with that if there was none. If the call is the probe and nobody else is
    /// held, it stays the probe.
    pub(super) fn met(self: &Arc<Self>, probe: Option<Probe>, now: Instant) -> Option<Probe> {
        let mut known = lock(&self.known);
        if known.since.is_none() {
            known.since = Some(now);
            known.probe = Some(now + FIRST_WAIT);
            known.failed = 0;
            known.figures.outages += 1;
            self.is_on.store(true, Ordering::Relaxed);
        } else if probe.is_some() {
            known.failed += 1;
            known.probe = Some(now + FIRST_WAIT.saturating_mul(1 << known.failed.min(5)).min(LONGEST_WAIT));
        }
        let stays = known.is_alone();
        drop(known);
        // One that does not stay the probe hands it on.
        probe.filter(|_| stays)
    }

    /// Holds a call until the outage is over, or it has its turn as the probe, which it may be still. One that has
    /// lasted for `at_most` is given up.
    pub(super) async fn hold<T: Time>(self: &Arc<Self>, probe: Option<Probe>, time: &T, at_most: Duration) -> Released {
        let next = match probe.map_or_else(|| self.place(), |probe| Ok(Next::Probe(probe))) {
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
            probe.ends(|| Next::GiveUp);
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
            known.settle().tell_without(known);
            return Ok(Next::Probe(Probe(self.clone())));
        }
        let (giver, turn) = turn();
        known.held.push_back(giver);
        Err(turn)
    }

    /// The probe is over, and another held call becomes the probe.
    fn hand_on(self: &Arc<Self>) {
        let mut known = lock(&self.known);
        let next = if known.is_alone() { None } else { known.held.pop_front() };
        known.is_probed = next.is_some();
        known.settle().tell_without(known);
        // One that has left at this moment gives the probe back, which drops it: and so it is handed on from there.
        next.into_iter().for_each(|next| drop(next.give(Next::Probe(Probe(self.clone())))));
    }

    pub(super) fn figures(&self) -> OutageFigures {
        lock(&self.known).figures
    }
}

impl Known {
    /// Whether nobody but the probe is held. Forgets those that have left.
    fn is_alone(&mut self) -> bool {
        while self.held.pop_front_if(|held| held.is_left()).is_some() {}
        self.held.is_empty()
    }

    /// What the job is to be asked, if it has to be asked anew.
    fn settle(&mut self) -> Request {
        let pauses = self.since.is_some() && self.is_probed;
        let is_told = std::mem::replace(&mut self.pauses, pauses) == pauses;
        Request { pauses, of: self.pause.clone().filter(|_| !is_told) }
    }
}

/// Asks a job to pause, or to go on; or nothing.
struct Request {
    pauses: bool,
    of: Option<PauseJob>,
}

impl Request {
    /// Makes it once the lock is free.
    fn tell_without(self, known: MutexGuard<'_, Known>) {
        drop(known);
        self.of.into_iter().for_each(|pause| pause(self.pauses));
    }
}

impl Probe {
    /// It has found that the service is there: the outage ends.
    pub(super) fn ends_it(self) {
        self.ends(|| Next::GoOn);
    }

    fn ends(self, told: impl Fn() -> Next) {
        let mut known = lock(&self.0.known);
        self.0.is_on.store(false, Ordering::Relaxed);
        known.since = None;
        let held = take(&mut known.held);
        known.settle().tell_without(known);
        held.into_iter().for_each(|giver| drop(giver.give(told())));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.hand_on();
    }
}
