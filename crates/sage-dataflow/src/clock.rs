//! Processing time: the clock for a job's windows by the clock, timers and expiry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use crate::guarded::drop_guarded;
use crate::sync::lock;
use crate::time::Timestamp;

/// A job's clock: it tells the processing time. Cheap to clone; clones tell the same time.
///
/// An environment's default is [`Clock::system`], read at the start of each job. A test uses a clock that stands still
/// until the test moves it; see [`testing::clock`](crate::testing::clock).
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System { since: Instant, at: Timestamp },
    Manual(Arc<Manual>),
}

/// A clock that stands still until it is moved.
struct Manual {
    /// When it was made, for whoever counts in instants.
    since: Instant,
    at: Timestamp,
    now: AtomicI64,
    /// The jobs to rouse when it is moved.
    jobs: Mutex<Vec<Weak<dyn Rouse>>>,
    /// The calls to wake when it is moved.
    calls: Mutex<Calls>,
    /// Notified when another call waits.
    came: Condvar,
}

/// The calls that wait for a clock to be moved.
#[derive(Default)]
struct Calls {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// The place of a call that waits for a clock to be moved.
#[derive(Debug)]
pub(crate) struct Sleeper {
    clock: Clock,
    number: Option<u64>,
}

impl Sleeper {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, number: None }
    }

    /// Has the call woken when the clock is next moved, unless it is `moment` already, which is told.
    pub(crate) fn wake_at(&mut self, moment: Instant, waker: &Waker) -> bool {
        let Kind::Manual(manual) = &self.clock.0 else { return false };
        // Under the lock, so that a move comes wholly before or after.
        let mut calls = lock(&manual.calls);
        if self.clock.instant() >= moment {
            return true;
        }
        let Calls { next, wakers } = &mut *calls;
        let number = *self.number.get_or_insert_with(|| {
            *next += 1;
            *next
        });
        let before = wakers.insert(number, waker.clone());
        drop(calls);
        drop(before);
        manual.came.notify_all();
        false
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let (Kind::Manual(manual), Some(number)) = (&self.clock.0, self.number) {
            let waker = lock(&manual.calls).wakers.remove(&number);
            drop(waker);
        }
    }
}

/// Whoever waits for a time to come, and looks at the clock when it is roused.
pub(crate) trait Rouse: fmt::Debug + Send + Sync {
    fn rouse(&self);
}

impl Clock {
    /// A clock that starts at the system's time now and then runs on by itself: it never goes back, and does not follow
    /// when the system's time is set.
    pub fn system() -> Self {
        Self(Kind::System { since: Instant::now(), at: SystemTime::now().into() })
    }

    pub(crate) fn manual(now: Timestamp) -> Self {
        Self(Kind::Manual(Arc::new(Manual {
            since: Instant::now(),
            at: now,
            now: AtomicI64::new(now.millis()),
            jobs: Mutex::default(),
            calls: Mutex::default(),
            came: Condvar::new(),
        })))
    }

    /// The time now. Takes about as long as reading the system's clock, and never goes back.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System { since, at } => at.later(since.elapsed()),
            Kind::Manual(manual) => Timestamp::from_millis(manual.now.load(Ordering::SeqCst)),
        }
    }

    /// The time now, as an instant. That of a clock that stands still does so as well.
    pub(crate) fn instant(&self) -> Instant {
        match &self.0 {
            Kind::System { .. } => Instant::now(),
            Kind::Manual(manual) => {
                let passed = self.now().millis().abs_diff(manual.at.millis());
                manual.since.checked_add(Duration::from_millis(passed)).unwrap_or(manual.since)
            }
        }
    }

    /// Whether the time of this clock passes by itself.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.0, Kind::System { .. })
    }

    /// Waits until so many calls wait for this clock to be moved, for `patience` at most. Returns how many do.
    pub(crate) fn await_sleepers(&self, count: usize, patience: Duration) -> usize {
        let Kind::Manual(manual) = &self.0 else { return 0 };
        let few = |calls: &mut Calls| calls.wakers.len() < count;
        let calls = manual.came.wait_timeout_while(lock(&manual.calls), patience, few);
        calls.unwrap_or_else(PoisonError::into_inner).0.wakers.len()
    }

    /// How long a thread has to wait until it is `moment`; `None` if it is roused when it comes.
    pub(crate) fn until(&self, moment: Timestamp) -> Option<Duration> {
        match &self.0 {
            Kind::System { since, at } => {
                let (moment, at) = (moment.millis(), at.millis());
                let from_start = if moment > at { moment.abs_diff(at) } else { 0 };
                Some(Duration::from_millis(from_start).saturating_sub(since.elapsed()))
            }
            Kind::Manual(_) => (self.now() >= moment).then_some(Duration::ZERO),
        }
    }

    /// Whether `moment` has come. Reads the clock only if there is one to wait for.
    pub(crate) fn is_due(&self, moment: Option<Timestamp>) -> bool {
        moment.is_some_and(|moment| moment <= self.now())
    }

    /// Has the threads of a job roused whenever this clock is moved.
    pub(crate) fn rouses<R: Rouse + 'static>(&self, job: &Arc<R>) {
        if let Kind::Manual(manual) = &self.0 {
            let mut jobs = lock(&manual.jobs);
            jobs.retain(|job| job.strong_count() > 0);
            let job = Arc::downgrade(job);
            jobs.push(job);
        }
    }

    /// Moves a manual clock on by `duration`.
    pub(crate) fn advance(&self, duration: Duration) {
        let Kind::Manual(manual) = &self.0 else { return };
        let jobs = lock(&manual.jobs);
        let calls = {
            let mut calls = lock(&manual.calls);
            let now = self.now().later(duration);
            manual.now.store(now.millis(), Ordering::SeqCst);
            std::mem::take(&mut calls.wakers)
        };
        calls.into_values().for_each(|waker| drop_guarded(None, move || waker.wake()));
        jobs.iter().filter_map(Weak::upgrade).for_each(|job| job.rouse());
    }
}

/// Reads a clock again and again, once for each record: it tells the time of the last reading while that is less than a
/// tenth of a millisecond old.
///
/// A reading of the system's clock waits until all earlier instructions are done, so that two look-ups that miss the
/// caches, before and behind it, take twice as long as together. The counter of the processor's cycles does not wait,
/// and tells how old the last reading is.
#[derive(Debug)]
pub(crate) struct Watch {
    clock: Clock,
    /// The last reading of a clock that runs, and what the counter said before.
    last: Option<(u64, i64)>,
    counts: bool,
}

impl Watch {
    /// Cycles that take less than a tenth of a millisecond at 1 GHz, which every counter has.
    const FRESH_CYCLES: u64 = 100_000;

    pub(crate) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), last: None, counts: clock.runs() && cycles::are_steady() }
    }

    /// The time now, in milliseconds, less a tenth of a millisecond at most. Never goes back.
    #[inline]
    pub(crate) fn glance(&mut self) -> i64 {
        if self.counts
            && let Some((then, now)) = self.last
            && cycles::count().wrapping_sub(then) < Self::FRESH_CYCLES
        {
            return now;
        }
        self.read()
    }

    /// The time now, in milliseconds.
    #[inline(never)]
    pub(crate) fn read(&mut self) -> i64 {
        let then = if self.counts { cycles::count() } else { 0 };
        let now = self.clock.now().millis();
        self.last = Some((then, now));
        now
    }
}

/// The counter of the processor's cycles, where there is one that goes on at the same rate whatever the processor does.
#[cfg(target_arch = "x86_64")]
mod cycles {
    use core::arch::x86_64::{__cpuid, _rdtsc};

    /// Whether the counter always goes on at one rate: the processor says so.
    pub(super) fn are_steady() -> bool {
        const ADVANCED: u32 = 0x8000_0007;
        const INVARIANT: u32 = 1 << 8;
        __cpuid(0x8000_0000).eax >= ADVANCED && __cpuid(ADVANCED).edx & INVARIANT != 0
    }

    #[inline(always)]
    pub(super) fn count() -> u64 {
        // SAFETY: every processor of this architecture has the instruction; it reads a counter and no memory.
        unsafe { _rdtsc() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod cycles {
    pub(super) const fn are_steady() -> bool {
        false
    }

    pub(super) const fn count() -> u64 {
        0
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::System { .. } => "system",
            Kind::Manual(_) => "manual",
        };
        f.debug_struct("Clock").field("kind", &kind).field("now", &self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_clock_tells_the_systems_time_and_how_long_it_is_until_a_moment() {
        let clock = Clock::system();
        let (clocked, system) = (clock.now().millis(), Timestamp::from(SystemTime::now()).millis());
        assert!((clocked - system).abs() < 60_000, "{clocked} {system}");
        let until = clock.until(clock.now().later(Duration::from_secs(3600))).unwrap();
        assert!(until > Duration::from_secs(3500) && until <= Duration::from_secs(3600), "{until:?}");
        assert_eq!(clock.until(Timestamp::MIN), Some(Duration::ZERO));
        // A wait for that long ends at the moment, not just before it.
        let soon = clock.now().later(Duration::from_millis(2));
        std::thread::sleep(clock.until(soon).unwrap());
        assert!(clock.now() >= soon);
    }

    #[test]
    fn a_manual_clock_stands_still_until_it_is_moved() {
        let clock = Clock::manual(Timestamp::from_millis(5));
        let moment = Timestamp::from_millis(7);
        assert_eq!((clock.now().millis(), clock.until(moment)), (5, None));
        clock.advance(Duration::from_millis(2));
        assert_eq!((clock.now(), clock.until(moment)), (moment, Some(Duration::ZERO)));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
