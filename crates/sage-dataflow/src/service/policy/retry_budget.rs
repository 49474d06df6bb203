//! [`RetryBudget`]: how many calls of a service may be retries; [`Retries`], which schedules them.
//!
//! A retry counts when it is scheduled, not when it is made: many that wait at the same time cannot spend the same. It
//! is made after a random part of its backoff, so that calls that failed together do not come again together; or after
//! the delay that the service asked for.
//!
//! Knows nothing of calls, and of what errors mean.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::limiter::LONGEST_DELAY;
use super::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::Retry;

/// A retry, in the units in which calls earn parts of one.
const RETRY: u64 = 1_000_000;

/// What calls may have earned at most: so many retries.
const MOST_EARNED: u64 = 100 * RETRY;

/// For so many seconds, what a service may retry anyway adds up.
const SAVED_SECONDS: u64 = 10;

/// The largest share of calls, and the largest number of retries a second.
const LARGEST: u32 = 1_000;

/// How many calls of a service may be retries. Once they are used up, calls that fail are not tried again: where all
/// fail, retries would only multiply what the service has to do.
///
/// ```
/// use sage::RetryBudget;
///
/// // One call in ten may be a retry, and one a second anyway.
/// let budget = RetryBudget::share(0.1).at_least(1);
/// # let _ = budget;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// `None` for no limit.
    share: Option<f64>,
    floor: u32,
}

impl RetryBudget {
    /// Allows so many retries for each call: from 0 to 1,000; 0.2 for one in five calls. Up to 100 add up while there
    /// is nothing to retry.
    pub const fn share(share: f64) -> Self {
        Self { share: Some(share), floor: 1 }
    }

    /// Allows so many retries a second besides, for a service with few calls: from 0 to 1,000. Those of ten seconds add
    /// up. Default: 1.
    pub const fn at_least(mut self, retries_a_second: u32) -> Self {
        self.floor = retries_a_second;
        self
    }

    /// Allows all retries.
    pub const fn unlimited() -> Self {
        Self { share: None, floor: 0 }
    }

    pub(super) fn mistake(&self) -> Option<String> {
        let Self { share: Some(share), floor } = *self else { return None };
        if !(0.0..=f64::from(LARGEST)).contains(&share) {
            Some(format!("a budget of retries is a share of calls from 0 to {LARGEST}, not {share}"))
        } else if floor > LARGEST {
            Some(format!("a budget allows up to {LARGEST} retries a second besides, not {floor}"))
        } else {
            let is_none = floor == 0 && earned_by_call(share) == 0;
            is_none.then(|| "a budget of no retries: leave out the retry instead".to_owned())
        }
    }
}

impl Default for RetryBudget {
    /// A fifth of the calls, and one a second.
    fn default() -> Self {
        Self::share(0.2)
    }
}

fn earned_by_call(share: f64) -> u64 {
    (share * RETRY as f64).round() as u64
}

/// Why a call is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    BudgetSpent,
    /// It would be tried again after this wait, which is past its deadline.
    PastDeadline {
        wait: Duration,
    },
}

/// Figures of the retries of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RetryFigures {
    /// The retries that were scheduled.
    pub scheduled: u64,
    /// Those of them for which the service asked for a delay.
    pub delayed: u64,
    /// The retries that were not made, as the budget was spent.
    pub over_budget: u64,
    /// The retries that were not made, as they would have come too late.
    pub too_late: u64,
}

/// Schedules retries.
pub(super) struct Retries {
    /// What a call earns; `None` if there is no limit.
    by_call: Option<u64>,
    earned: AtomicU64,
    /// What may be retried anyway.
    floor: Option<Mutex<Bucket>>,
    /// Where the random numbers are.
    random: AtomicU64,
    scheduled: AtomicU64,
    delayed: AtomicU64,
    over_budget: AtomicU64,
    too_late: AtomicU64,
}

impl Retries {
    /// The same `seed` gives the same waits.
    pub(super) fn new(budget: RetryBudget, seed: u64, now: Instant) -> Self {
        let floor = u64::from(budget.floor);
        let bucket = || Mutex::new(Bucket::new(floor, Duration::from_secs(1), floor * SAVED_SECONDS, now));
        let [earned, scheduled, delayed, over_budget, too_late] = [const { AtomicU64::new(0) }; 5];
        Self {
            by_call: budget.share.map(earned_by_call),
            earned,
            floor: (floor > 0).then(bucket),
            random: AtomicU64::new(seed),
            scheduled,
            delayed,
            over_budget,
            too_late,
        }
    }

    /// A call is made, which is no retry.
    #[inline]
    pub(super) fn called(&self) {
        // Several at once may earn a little more than the most.
        if let Some(by_call) = self.by_call
            && self.earned.load(Ordering::Relaxed) < MOST_EARNED
        {
            self.earned.fetch_add(by_call, Ordering::Relaxed);
        }
    }

    /// When to try a call again that has failed `failures` times, 1 or more: after the delay that the service has
    /// `asked` for, or a random part of the backoff. The retry counts from now on.
    pub(super) fn schedule(
        &self,
        retry: &Retry,
        failures: u32,
        asked: Option<Duration>,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<Instant, Refusal> {
        let wait = match asked {
            Some(asked) => asked.min(LONGEST_DELAY),
            None => self.part_of(retry.wait(failures)),
        };
        let moment = now.checked_add(wait);
        if moment.is_none_or(|moment| deadline.is_some_and(|deadline| moment > deadline)) {
            self.too_late.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::PastDeadline { wait });
        }
        if !self.spend(now) {
            self.over_budget.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::BudgetSpent);
        }
        self.scheduled.fetch_add(1, Ordering::Relaxed);
        self.delayed.fetch_add(u64::from(asked.is_some()), Ordering::Relaxed);
        Ok(moment.expect("else it is too late"))
    }

    /// Takes a retry from what calls have earned, or else from what there is anyway.
    fn spend(&self, now: Instant) -> bool {
        if self.by_call.is_none() {
            return true;
        }
        let take = |earned: u64| earned.checked_sub(RETRY);
        if self.earned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return true;
        }
        self.floor.as_ref().is_some_and(|floor| {
            let mut floor = lock(floor);
            floor.refill(now);
            let has = floor.has(1);
            if has {
                floor.take(1);
            }
            has
        })
    }

    /// A random part of a wait, from half to all of it: so the waits of a backoff that doubles do grow.
    fn part_of(&self, wait: Duration) -> Duration {
        let half = wait / 2;
        let nanos = u64::try_from((wait - half).as_nanos()).unwrap_or(u64::MAX);
        let part = (u128::from(self.random()) * (u128::from(nanos) + 1)) >> 64;
        half + Duration::from_nanos(u64::try_from(part).expect("a part is no more than the whole"))
    }

    /// The next random number, by splitmix64.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn figures(&self) -> RetryFigures {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RetryFigures {
            scheduled: of(&self.scheduled),
            delayed: of(&self.delayed),
            over_budget: of(&self.over_budget),
            too_late: of(&self.too_late),
        }
    }
}
