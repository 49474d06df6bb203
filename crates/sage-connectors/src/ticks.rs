//! [`Ticks`]: a source that is a clock.

use std::time::{Duration, Instant, SystemTime};

use sage::{BoxError, Next, Source, SourceContext};

/// The longest wait at a time, so that no sum of times can overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// One tick of [`Ticks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Its number, from 0.
    pub number: u64,
    /// When it was due, by the system's clock as set when the source opened.
    pub due: SystemTime,
}

/// Gives a [`Tick`] every interval, from the moment the job starts.
///
/// Tick `n` is due `n` intervals after the first, by a clock that cannot be set. So a late tick makes no other tick
/// late, and the ticks do not drift. An interval of zero gives ticks as fast as they are taken.
///
/// If the pipeline is slower than the interval, or was paused, the overdue ticks come at once, one after the other:
/// none is lost. With [`skip_missed`](Self::skip_missed) only the latest of them comes; its number tells how many are
/// missing.
///
/// A drain or a cancel ends a wait at once, and so does a `take` downstream that has enough; a pause interrupts it.
/// Each replica has a clock of its own.
///
/// **Guarantees.** Ticks come in order, with numbers that increase by one (that increase, with `skip_missed`), never
/// before they are due. Each run begins with tick 0.
///
/// ```
/// use std::time::Duration;
/// use sage::Environment;
/// use sage_connectors::Ticks;
///
/// let env = Environment::local("clock");
/// let numbers = env
///     .from_source(|_replica| Ticks::every(Duration::from_millis(1)).limit(3))
///     .map(|tick| tick.number)
///     .collect();
/// env.run()?;
/// assert_eq!(numbers.take(), [0, 1, 2]);
/// # Ok::<(), sage::RunError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ticks {
    interval: Duration,
    limit: Option<u64>,
    skip_missed: bool,
    next: u64,
    given: u64,
    began: Option<(Instant, SystemTime)>,
    flushed: bool,
}

impl Ticks {
    /// A tick every `interval`, without end.
    pub fn every(interval: Duration) -> Self {
        Self { interval, limit: None, skip_missed: false, next: 0, given: 0, began: None, flushed: false }
    }

    /// Ends after `ticks` ticks. Default: no limit.
    pub fn limit(mut self, ticks: u64) -> Self {
        self.limit = Some(ticks);
        self
    }

    /// Gives only the latest of the ticks that are overdue. Default: all of them.
    pub fn skip_missed(mut self) -> Self {
        self.skip_missed = true;
        self
    }

    /// How long after the first tick the one with this number is due.
    fn offset(&self, number: u64) -> Duration {
        let nanos = self.interval.as_nanos().saturating_mul(u128::from(number));
        let (secs, nanos) = (nanos / 1_000_000_000, (nanos % 1_000_000_000) as u32);
        Duration::new(u64::try_from(secs).unwrap_or(u64::MAX), nanos)
    }

    /// The tick to give `elapsed` after the first, or how long to wait for the next one.
    fn after(&self, elapsed: Duration) -> Result<u64, Duration> {
        let due = self.offset(self.next);
        if elapsed < due {
            return Err(due - elapsed);
        }
        let latest = elapsed.as_nanos().checked_div(self.interval.as_nanos());
        match latest.and_then(|latest| u64::try_from(latest).ok()) {
            Some(latest) if self.skip_missed => Ok(latest.max(self.next)),
            _ => Ok(self.next),
        }
    }
}

impl Source for Ticks {
    type Item = Tick;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        self.began = Some((Instant::now(), SystemTime::now()));
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Tick>, BoxError> {
        if self.limit.is_some_and(|limit| self.given >= limit) {
            return Ok(Next::End);
        }
        let (began, clock) = *self.began.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        match self.after(began.elapsed()) {
            Ok(number) => {
                self.next = number.saturating_add(1);
                self.given += 1;
                self.flushed = false;
                let due = clock.checked_add(self.offset(number)).unwrap_or(clock);
                Ok(Next::Record(Tick { number, due }))
            }
            // What came before is flushed before there is a wait.
            Err(left) => {
                if std::mem::replace(&mut self.flushed, true) {
                    cx.wait(left.min(LONGEST_WAIT));
                }
                Ok(Next::Idle)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_late_tick_makes_no_other_late() {
        let mut ticks = Ticks::every(10 * MS);
        assert_eq!(ticks.after(Duration::ZERO), Ok(0));
        ticks.next = 1;
        assert_eq!(ticks.after(4 * MS), Err(6 * MS));
        assert_eq!(ticks.after(37 * MS), Ok(1));
        ticks.next = 2;
        assert_eq!(ticks.after(37 * MS), Ok(2));
        ticks.next = 4;
        assert_eq!(ticks.after(37 * MS), Err(3 * MS));
    }

    #[test]
    fn missed_ticks_are_skipped_on_request() {
        let mut ticks = Ticks::every(10 * MS).skip_missed();
        ticks.next = 1;
        assert_eq!(ticks.after(37 * MS), Ok(3));
        ticks.next = 4;
        assert_eq!(ticks.after(37 * MS), Err(3 * MS));
        assert_eq!(ticks.after(40 * MS), Ok(4));
    }

    #[test]
    fn extreme_intervals_overflow_nothing() {
        let mut ticks = Ticks::every(Duration::MAX);
        ticks.next = u64::MAX;
        assert!(ticks.after(MS).is_err_and(|left| left > LONGEST_WAIT));
        let ticks = Ticks::every(Duration::ZERO).skip_missed();
        assert_eq!(ticks.after(MS), Ok(0));
    }
}
