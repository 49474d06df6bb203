//! [`Layers`]: what the calls of one run share of a service's policy.

use tokio::runtime::Handle;

use super::job_time::JobTime;
use super::limiter::Limiter;
use super::settings::Policy;
use super::time::Time;
use crate::clock::Clock;

/// What the calls of one run share: made at the first call, and gone with the last one and the report.
pub(super) struct Layers {
    pub(super) time: JobTime,
    /// `None` if there is no rate and no spend.
    pub(super) limiter: Option<Limiter>,
}

impl Layers {
    pub(super) fn new(policy: &Policy, clock: Clock, runtime: Handle) -> Self {
        let time = JobTime::new(clock, runtime);
        let Policy { rates, spends, .. } = policy;
        let is_limited = !rates.is_empty() || !spends.is_empty();
        let limiter = is_limited.then(|| Limiter::new(rates, spends, time.now()));
        Self { time, limiter }
    }
}
