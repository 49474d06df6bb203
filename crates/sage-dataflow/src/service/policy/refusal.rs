//! [`Refusal`]: why a policy did not let a call reach its service.

use std::fmt;
use std::time::Duration;

/// Why a policy did not let a call reach its service.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// As many calls as may wait for others to end did so.
    QueueFull {
        /// How many waited.
        waiting: usize,
    },
    /// The breaker is open, as calls before had failed.
    BreakerOpen {
        /// After how long it lets a call through again; `None` if that depends on calls that are under way.
        reopens_in: Option<Duration>,
    },
    /// The call alone costs more than may ever be spent at once.
    CostTooLarge {
        /// What the call would cost.
        cost: u64,
        /// The most that may be spent at once.
        most: u64,
    },
    /// The limit of what may be spent within a time is reached.
    Spent {
        /// After how long something may be spent again.
        reopens_in: Duration,
    },
    /// The call alone spends more than may ever be spent within the time of a limit.
    PriceTooLarge {
        /// What would be spent on the call.
        amount: f64,
        /// The most that may be spent.
        limit: f64,
    },
    /// The service was not there for longer than its calls are held.
    Outage {
        /// How long they are held at most.
        longer_than: Duration,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull { waiting } => write!(f, "{waiting} calls wait already, and no more may"),
            Self::BreakerOpen { reopens_in } => {
                f.write_str("its breaker is open, as calls have failed")?;
                reopens_in.map_or(Ok(()), |wait| write!(f, "; the next may pass in {wait:.1?}"))
            }
            Self::CostTooLarge { cost, most } => {
                write!(f, "the call costs {cost}, and at most {most} may be spent at once")
            }
            Self::PriceTooLarge { amount, limit } => {
                write!(f, "{amount} would be spent on the call, and at most {limit} may be")
            }
            Self::Outage { longer_than } => write!(f, "it was not there for longer than {longer_than:.1?}"),
            Self::Spent { reopens_in } => {
                write!(f, "what may be spent is spent; something may be again in {reopens_in:.1?}")
            }
        }
    }
}
