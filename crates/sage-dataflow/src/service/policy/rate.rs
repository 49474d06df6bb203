//! [`Rate`]: how often a service may be called, and at what cost.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::sync::FOREVER;

/// How many calls, or how much cost, a service gets within a time.
///
/// It is kept by a token bucket: the rate holds in the long run, and up to a [burst](Self::burst) may go at once after
/// a quieter time. Calls beyond it wait for their turn, in the order in which they came.
///
/// ```
/// use std::time::Duration;
/// use sage::Rate;
///
/// let minute = Duration::from_secs(60);
/// let limits = [Rate::calls(300, minute), Rate::cost(20_000, minute).burst(5_000)];
/// # let _ = limits;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub(super) of: Counted,
    amount: u64,
    per: Duration,
    burst: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Calls,
    Cost,
}

impl Rate {
    /// Allows `calls` calls within `per`. Both are more than zero; a time above a hundred years counts as a hundred
    /// years.
    pub const fn calls(calls: u64, per: Duration) -> Self {
        Self { of: Counted::Calls, amount: calls, per, burst: None }
    }

    /// Allows calls that cost `cost` together within `per`. The unit is that of the service's costs, such as tokens.
    /// Both are more than zero; a time above a hundred years counts as a hundred years.
    pub const fn cost(cost: u64, per: Duration) -> Self {
        Self { of: Counted::Cost, amount: cost, per, burst: None }
    }

    /// How many calls, or how much cost, may go at once after a quieter time: 1 or more. A call that alone costs more
    /// is refused.
    ///
    /// Default: of calls, those of half a second, and at least 1, so that no minute has one more in a hundred than the
    /// rate. Of cost, that of the whole time, so that each call within the rate has room; a first or quiet such time is
    /// then followed by up to twice as much in the next.
    pub const fn burst(mut self, burst: u64) -> Self {
        self.burst = Some(burst);
        self
    }

    pub(super) fn mistake(&self) -> Option<String> {
        let what = match self.of {
            Counted::Calls => "calls",
            Counted::Cost => "cost",
        };
        if self.amount == 0 {
            Some(format!("a rate of 0 {what} lets no call pass"))
        } else if self.per.is_zero() {
            Some("a rate needs a time longer than zero".to_owned())
        } else {
            (self.burst == Some(0)).then(|| format!("a burst of 0 {what} lets no call pass"))
        }
    }

    pub(super) fn bucket(&self, now: Instant) -> Bucket {
        let per = self.per.min(FOREVER);
        let size = self.burst.unwrap_or_else(|| match self.of {
            Counted::Calls => {
                let half_second = u128::from(self.amount) * 500_000_000 / per.as_nanos();
                u64::try_from(half_second).unwrap_or(u64::MAX).max(1)
            }
            Counted::Cost => self.amount,
        });
        Bucket::new(self.amount, per, size, now)
    }
}

/// Figures of the rates and spends of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RateFigures {
    /// The calls that were let through, without those that were given back.
    pub passed: u64,
    /// How often a call had to wait before it was let through.
    pub waited: u64,
    /// The calls that wait now.
    pub waiting: usize,
    /// The calls that were let through, and were then not made.
    pub given_back: u64,
    /// The calls that were refused.
    pub refused: u64,
    /// How often the service asked for a pause.
    pub pauses: u64,
    /// What the calls that ended have cost.
    pub cost: u64,
    /// What was spent on them, in billionths of its unit.
    pub spent_billionths: u64,
}
