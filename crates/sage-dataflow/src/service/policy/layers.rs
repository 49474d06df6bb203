//! [`Layers`]: what the calls of one run share of a service's policy.

use tokio::runtime::Handle;

use super::job_time::JobTime;
use super::limiter::Limiter;
use super::rate::RateFigures;
use super::settings::Policy;
use super::time::Time;
use crate::clock::Clock;

/// What the calls of one run share: made at the first call, and gone with the last one and the report.
pub(super) struct Layers {
    pub(super) time: JobTime,
    /// `None` if there is no rate and no spend.
    pub(super) limiter: Option<Limiter>,
}

/// What the layers of a run have done.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerFigures {
    pub(super) rate: Option<RateFigures>,
}

impl Layers {
    pub(super) fn new(policy: &Policy, clock: Clock, runtime: Handle) -> Self {
        let time = JobTime::new(clock, runtime);
        let Policy { rates, spends, .. } = policy;
        let is_limited = !rates.is_empty() || !spends.is_empty();
        let limiter = is_limited.then(|| Limiter::new(rates, spends, time.now()));
        Self { time, limiter }
    }

    pub(super) fn figures(&self) -> LayerFigures {
        LayerFigures { rate: self.limiter.as_ref().map(Limiter::figures) }
    }
}
