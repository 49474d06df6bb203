//! [`Verdict`]: what an error that a service answered with means to its policy.

use std::time::Duration;

/// What an error that a service answered with means to its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The request itself is at fault. It is not tried again, and does not count against the service.
    Bad,
    /// It may go better next time. It counts against the service.
    Passing,
    /// The service has too much to do. It may have said after how long it can be called again: nobody calls it before.
    /// It counts as no outage.
    Throttled(Option<Duration>),
    /// The service is not there.
    Outage,
}
