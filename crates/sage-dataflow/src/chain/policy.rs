//! The [`ErrorPolicy`]: what happens when an operator fails on a record, and how many such records it skipped.

use std::sync::{Arc, Mutex};

use super::fault::Fault;
use super::refusal::Refusal;
use crate::BoxError;
use crate::error::Fatal;
use crate::guarded::error_chain;
use crate::metrics::Counter;
use crate::sync::lock;

/// What the engine does when an operator or a sink returns an error on a record.
///
/// By default the error fails the job. A panic always does, because it may leave the function in a broken state. So
/// does an error while an operator opens, finishes or closes, an error of a source, and a [`Fatal`] error.
///
/// Under [`skip`](Self::skip) the outputs of a record are held until the operator is done with it, so a record that
/// fails half-way emits nothing. [`OperatorReport::failed`](crate::OperatorReport::failed) counts the skipped records,
/// with the first error beside it. To keep the records themselves, use [`dead_letters`](crate::Stream::dead_letters).
///
/// ```
/// use sage::{Environment, ErrorPolicy};
///
/// let env = Environment::local("numbers");
/// let numbers = env
///     .from_iter(["1", "two", "3"])
///     .try_map(|text| text.parse::<i32>())
///     .on_error(ErrorPolicy::skip().at_most(10))
///     .collect();
/// let report = env.run()?;
/// assert_eq!(numbers.take(), [1, 3]);
/// assert_eq!(report.operators[1].failed, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorPolicy {
    skip: bool,
    at_most: Option<u64>,
    at_most_share: Option<f64>,
}

/// A share is looked at once a chain has taken this many records, and at the end of its input.
const SHARE_AFTER_RECORDS: u64 = 1000;

impl ErrorPolicy {
    /// The first error fails the job. This is the default.
    pub const fn fail() -> Self {
        Self { skip: false, at_most: None, at_most_share: None }
    }

    /// Skips the records on which the operator fails, and counts them.
    pub const fn skip() -> Self {
        Self { skip: true, at_most: None, at_most_share: None }
    }

    /// Fails the job when one replica would skip more than `records`. Default: no limit.
    pub const fn at_most(mut self, records: u64) -> Self {
        self.at_most = Some(records);
        self
    }

    /// Fails the job when one replica skipped more than this share (0.0 to 1.0) of the records that its chain took. The
    /// share counts from the thousandth record on, and at the end of input. Default: no limit.
    pub const fn at_most_share(mut self, share: f64) -> Self {
        self.at_most_share = Some(share);
        self
    }

    /// What is wrong with it, if anything.
    pub(crate) fn mistake(&self) -> Option<String> {
        let share = self.at_most_share?;
        (!(0.0..=1.0).contains(&share)).then(|| format!("a share of errors is between 0 and 1, not {share}"))
    }
}

impl Default for ErrorPolicy {
    fn default() -> Self {
        Self::fail()
    }
}

/// More records failed than the policy allows.
#[derive(Debug, thiserror::Error)]
#[error("{skipped} records were skipped before this one, and the error policy allows {allowed}")]
pub struct BudgetExceeded {
    /// How many records this replica skipped before this one.
    pub skipped: u64,
    /// How many it may skip, as text: a number or a percentage.
    pub allowed: String,
    /// The error of this record.
    pub source: BoxError,
}

/// A larger share of the records failed than the policy allows; found at the end of input.
#[derive(Debug, thiserror::Error)]
#[error("{skipped} of {taken} records were skipped, and the error policy allows {allowed}")]
struct ShareExceeded {
    skipped: u64,
    taken: u64,
    allowed: String,
}

/// What a replica of an operator let pass; read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Records that failed and did not fail the job.
    pub(crate) skipped: Counter,
    pub(crate) retries: Counter,
    pub(crate) first: Mutex<Option<String>>,
}

impl Passed {
    /// Counts a record that failed, the `failed`th, with what its errors say.
    pub(crate) fn note(&self, failed: u64, errors: &[String]) {
        if failed == 1 {
            *lock(&self.first) = Some(errors.join(": "));
        }
        self.skipped.publish(failed);
    }
}

/// The errors of one replica of an operator.
pub(crate) struct Errors {
    policy: ErrorPolicy,
    skipped: u64,
    /// How many records the chain had taken at the last batch that failed, and how many were skipped before it: a
    /// position counts a batch at its end.
    batch: (u64, u64),
    passed: Arc<Passed>,
    /// What its operator was told by what is behind it.
    pub(super) refusal: Refusal,
}

impl Errors {
    pub(crate) fn new(policy: ErrorPolicy, passed: Arc<Passed>) -> Self {
        Self { policy, skipped: 0, batch: (0, 0), passed, refusal: Refusal::default() }
    }

    /// Whether the outputs of a record are to be held until it has succeeded.
    #[inline(always)]
    pub(crate) fn hold(&self) -> bool {
        self.policy.skip
    }

    /// Decides on an error of the operator; `taken` is how many records its chain had taken before this batch.
    #[inline(always)]
    pub(crate) fn judge(&mut self, error: BoxError, taken: u64) -> Result<(), Fault> {
        self.unforgiven(error, taken).map_or(Ok(()), |error| Err(Fault::Error(error)))
    }

    /// The error that fails the job, if it is to. Comes back in registers: a `Result` that is written through a pointer
    /// keeps those of a whole chain in memory.
    #[cold]
    #[inline(never)]
    fn unforgiven(&mut self, error: BoxError, taken: u64) -> Option<BoxError> {
        if !self.policy.skip || Fatal::is(&*error) {
            return Some(error);
        }
        if taken != self.batch.0 {
            self.batch = (taken, self.skipped);
        }
        let over = |allowed: String, skipped, source| Some(BudgetExceeded { skipped, allowed, source }.into());
        if let Some(limit) = self.policy.at_most.filter(|limit| self.skipped >= *limit) {
            return over(limit.to_string(), self.skipped, error);
        }
        if let Some(share) = self.policy.at_most_share
            && taken >= SHARE_AFTER_RECORDS
            && self.batch.1 as f64 > share * taken as f64
        {
            return over(percent(share), self.skipped, error);
        }
        self.skipped += 1;
        let errors = error_chain(&*error);
        self.passed.note(self.skipped, &errors);
        tracing::debug!(error = errors.join(": "), "record skipped");
        None
    }

    /// Looks at the share of errors once all records are in.
    pub(crate) fn finish(&self, taken: u64) -> Result<(), Fault> {
        match self.policy.at_most_share {
            Some(share) if self.policy.skip && self.skipped as f64 > share * taken as f64 => {
                let exceeded = ShareExceeded { skipped: self.skipped, taken, allowed: percent(share) };
                Err(Fault::Error(exceeded.into()))
            }
            _ => Ok(()),
        }
    }
}

fn percent(share: f64) -> String {
    format!("{} %", share * 100.0)
}
