//! [`Failure`]: why an attempt gave no answer, and what becomes of it.

use std::time::Duration;

use super::batch::WrongCount;
use super::breaker::Open;
use super::concurrency::QueueFull;
use super::limiter;
use super::refusal::Refusal;
use super::settings::Policy;
use super::verdict::Verdict;
use crate::guarded::chain_of;
use crate::retry::{RetriesExhausted, Retry};
use crate::service::call_error::CallError;
use crate::{BoxError, SharedError};

/// Why an attempt gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service answered with an error.
    Answered {
        error: SharedError,
        verdict: Verdict,
    },
    /// It did not answer in time.
    TimedOut {
        timeout: Duration,
        /// Whether it may be sent again. A batch may not.
        may_retry: bool,
    },
    Refused(Refusal),
    /// The deadline would have passed during the wait for the next attempt.
    PastDeadline(Option<SharedError>),
    /// The job was cancelled, or the service stops.
    Ended,
    /// The service could not be reached at all.
    Call(Box<CallError>),
}

impl From<limiter::Refusal> for Failure {
    fn from(refusal: limiter::Refusal) -> Self {
        use limiter::Refusal as R;
        Self::Refused(match refusal {
            R::CostTooLarge { cost, bucket } => Refusal::CostTooLarge { cost, most: bucket },
            R::Spent { reopens_in } => Refusal::Spent { reopens_in },
            R::AmountTooLarge { amount, limit } => Refusal::PriceTooLarge { amount, limit },
            R::PastDeadline { .. } => return Self::PastDeadline(None),
        })
    }
}

impl From<Open> for Failure {
    fn from(Open { reopens_in }: Open) -> Self {
        Self::Refused(Refusal::BreakerOpen { reopens_in })
    }
}

impl From<QueueFull> for Failure {
    fn from(QueueFull { waiting }: QueueFull) -> Self {
        Self::Refused(Refusal::QueueFull { waiting })
    }
}

/// What a call came to that gave no answer.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) error: Box<CallError>,
    /// The service was not there.
    pub(super) is_outage: bool,
    /// The service was begun anew meanwhile.
    pub(super) is_again: bool,
}

impl Failed {
    pub(super) fn of(failure: Failure, service: &str, attempts: u32) -> Self {
        let (is_outage, is_again) = (failure.is_outage(), failure.is_again());
        Self { error: Box::new(failure.told(service, attempts)), is_outage, is_again }
    }

    /// Whether it concerns its caller alone: others that want the same answer go on.
    pub(super) fn is_own(&self) -> bool {
        matches!(*self.error, CallError::PastDeadline { .. } | CallError::Ended { .. })
    }

    /// What the caller is told.
    pub(super) fn told(self) -> Box<CallError> {
        self.error
    }
}

impl Failure {
    /// Whether the service was not there.
    fn is_outage(&self) -> bool {
        let verdict = matches!(self, Self::Answered { verdict: Verdict::Outage, .. });
        verdict || matches!(self, Self::Refused(Refusal::BreakerOpen { .. }))
    }

    /// Whether the service was begun anew meanwhile.
    pub(super) fn is_again(&self) -> bool {
        matches!(self, Self::Answered { verdict: Verdict::Again, .. })
    }

    /// Whether another service may do better.
    pub(super) fn may_fall_back(&self) -> bool {
        match self {
            Self::Answered { verdict, .. } => !matches!(verdict, Verdict::Bad | Verdict::Again),
            Self::TimedOut { .. } | Self::Refused(_) => true,
            Self::PastDeadline(_) | Self::Ended | Self::Call(_) => false,
        }
    }

    /// What an error that the service answered with is.
    pub(super) fn judged(error: BoxError, policy: &Policy) -> Self {
        let (error, verdict) = policy.judged(error);
        Self::Answered { error: error.into(), verdict }
    }

    /// Whether the call may be tried again.
    pub(super) fn may_retry(&self, retry: &Retry) -> bool {
        match self {
            Self::Answered { error, verdict } => {
                !matches!(verdict, Verdict::Bad | Verdict::Denied | Verdict::Again) && retry.is_for(&**error)
            }
            Self::TimedOut { may_retry, .. } => *may_retry,
            _ => false,
        }
    }

    /// What it tells of the service; `None` if the service was not called, or nobody knows, as when it was begun anew.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Answered { verdict, .. } => Some(*verdict).filter(|verdict| *verdict != Verdict::Again),
            Self::TimedOut { .. } => Some(Verdict::Passing(None)),
            _ => None,
        }
    }

    /// Why the attempt failed; `None` if the policy did not let it through, or it came to no end.
    pub(super) fn in_words(&self) -> Option<String> {
        match self {
            Self::Answered { error, .. } => Some(chain_of(&**error)),
            Self::TimedOut { timeout, .. } => Some(format!("no answer within {timeout:?}")),
            Self::Call(error) => (!matches!(**error, CallError::Ended { .. })).then(|| chain_of(&**error)),
            Self::Refused(_) | Self::PastDeadline(_) | Self::Ended => None,
        }
    }

    /// Whether the service has certainly done nothing for the call.
    pub(super) fn cost_nothing(&self) -> bool {
        match self {
            Self::Answered { verdict, .. } => {
                use Verdict::{Denied, Outage, Passing, Throttled};
                // Whoever says when to come again has not done it now.
                matches!(verdict, Throttled(_) | Passing(Some(_)) | Denied | Outage)
            }
            Self::Call(_) => true,
            _ => false,
        }
    }

    /// Whether the service has too much to do.
    pub(super) fn is_throttled(&self) -> bool {
        matches!(self, Self::Answered { verdict: Verdict::Throttled(_), .. })
    }

    /// How long the service asked its callers to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { verdict: Verdict::Throttled(wait) | Verdict::Passing(wait), .. } => *wait,
            _ => None,
        }
    }

    /// What the caller is told, after so many attempts.
    pub(super) fn told(self, service: &str, attempts: u32) -> CallError {
        let service = service.to_owned();
        match self {
            Self::Answered { error, .. } if attempts > 1 => {
                let exhausted = RetriesExhausted { attempts, source: error };
                CallError::Failed { service, source: SharedError::from(BoxError::from(exhausted)) }
            }
            Self::Answered { error, .. } => CallError::Failed { service, source: error },
            Self::TimedOut { timeout, .. } => CallError::TimedOut { service, timeout, attempts },
            Self::Refused(refusal) => CallError::Refused { service, refusal },
            Self::PastDeadline(source) => CallError::PastDeadline { service, source },
            Self::Ended => CallError::Ended { service },
            Self::Call(error) => *error,
        }
    }

    /// The error of the service itself.
    pub(super) fn into_answered(self) -> Option<SharedError> {
        if let Self::Answered { error, .. } = self { Some(error) } else { None }
    }
}

/// Why a batch gave a request no answer. Every request of a batch that failed as a whole gets the same error.
#[derive(Debug, Clone)]
pub(super) enum BatchFailure {
    Answered { error: SharedError, verdict: Verdict },
    TimedOut(Duration),
    Call(Box<CallError>),
}

impl BatchFailure {
    /// What an error that the service answered with is.
    pub(super) fn judged(error: BoxError, policy: &Policy) -> Self {
        let (error, verdict) = policy.judged(error);
        Self::Answered { error: SharedError::from(error), verdict }
    }
}

impl From<WrongCount> for BatchFailure {
    fn from(count: WrongCount) -> Self {
        Self::Answered { error: SharedError::from(BoxError::from(count)), verdict: Verdict::Bad }
    }
}

impl From<BatchFailure> for Failure {
    fn from(failure: BatchFailure) -> Self {
        match failure {
            BatchFailure::Answered { error, verdict } => Self::Answered { error, verdict },
            BatchFailure::TimedOut(timeout) => Self::TimedOut { timeout, may_retry: false },
            BatchFailure::Call(error) => Self::Call(error),
        }
    }
}
