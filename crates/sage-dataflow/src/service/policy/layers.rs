//! [`Layers`]: what the calls of one run share of a service's policy.

use tokio::runtime::Handle;

use super::concurrency::{ConcurrencyFigures, Slots};
use super::job_time::JobTime;
use super::limiter::Limiter;
use super::rate::RateFigures;
use super::settings::Policy;
use super::time::Time;
use crate::clock::Clock;
use crate::sync::Arc;

/// What the calls of one run share: made at the first call, and gone with the last one and the report.
pub(super) struct Layers {
    pub(super) time: JobTime,
    /// `None` if there is no rate and no spend.
    pub(super) limiter: Option<Limiter>,
    pub(super) slots: Option<Arc<Slots>>,
}

/// What the layers of a run have done.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerFigures {
    pub(super) rate: Option<RateFigures>,
    pub(super) concurrency: Option<ConcurrencyFigures>,
}

impl Layers {
    pub(super) fn new(policy: &Policy, clock: Clock, runtime: Handle) -> Self {
        let time = JobTime::new(clock, runtime);
        let Policy { rates, spends, concurrency, .. } = policy;
        let is_limited = !rates.is_empty() || !spends.is_empty();
        let limiter = is_limited.then(|| Limiter::new(rates, spends, time.now()));
        Self { time, limiter, slots: concurrency.map(Slots::new) }
    }

    pub(super) fn figures(&self) -> LayerFigures {
        let concurrency = self.slots.as_ref().map(|slots| slots.figures());
        LayerFigures { rate: self.limiter.as_ref().map(Limiter::figures), concurrency }
    }
}
