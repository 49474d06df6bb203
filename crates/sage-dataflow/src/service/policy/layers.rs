//! [`Layers`]: what the calls of one run share of a service's policy.

use std::hash::{BuildHasher, RandomState};

use tokio::runtime::Handle;

use super::breaker::{BreakerFigures, Circuit};
use super::concurrency::{ConcurrencyFigures, Slots};
use super::job_time::JobTime;
use super::limiter::Limiter;
use super::rate::RateFigures;
use super::retry_budget::{Retries, RetryFigures};
use super::settings::Policy;
use super::time::Time;
use crate::clock::Clock;
use crate::sync::Arc;

/// What the calls of one run share: made at the first call, and gone with the last one and the report.
pub(super) struct Layers {
    pub(super) time: JobTime,
    pub(super) retries: Retries,
    pub(super) circuit: Option<Circuit>,
    /// `None` if there is no rate and no spend.
    pub(super) limiter: Option<Limiter>,
    pub(super) slots: Option<Arc<Slots>>,
}

/// What the layers of a run have done.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerFigures {
    pub(super) retries: RetryFigures,
    pub(super) breaker: Option<BreakerFigures>,
    pub(super) rate: Option<RateFigures>,
    pub(super) concurrency: Option<ConcurrencyFigures>,
}

impl Layers {
    pub(super) fn new(policy: &Policy, clock: Clock, runtime: Handle) -> Self {
        let time = JobTime::new(clock, runtime);
        let Policy { retry_budget, breaker, rates, spends, concurrency, .. } = policy;
        // Other processes that call the same service are to wait otherwise.
        let seed = RandomState::new().hash_one(0);
        let is_limited = !rates.is_empty() || !spends.is_empty();
        let limiter = is_limited.then(|| Limiter::new(rates, spends, time.now()));
        let retries = Retries::new(*retry_budget, seed, time.now());
        Self { time, retries, circuit: breaker.map(Circuit::new), limiter, slots: concurrency.map(Slots::new) }
    }

    pub(super) fn figures(&self) -> LayerFigures {
        let concurrency = self.slots.as_ref().map(|slots| slots.figures());
        let breaker = self.circuit.as_ref().map(Circuit::figures);
        let rate = self.limiter.as_ref().map(Limiter::figures);
        LayerFigures { retries: self.retries.figures(), breaker, rate, concurrency }
    }
}
