//! [`Layers`]: what the calls of one run share of a service's policy.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::breaker::{BreakerFigures, Circuit};
use super::cache::CacheFigures;
use super::concurrency::{ConcurrencyFigures, Slots};
use super::flight::FlightFigures;
use super::job_time::JobTime;
use super::journal::{Journal, JournalFigures, OpenJournal};
use super::limiter::Limiter;
use super::rate::RateFigures;
use super::retry_budget::{Retries, RetryFigures};
use super::settings::Policy;
use super::shelves::{self, Shelves};
use super::store::StoreError;
use super::time::Time;
use crate::clock::Clock;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock};

/// What the calls of one run share: made at the first call, and gone with the last one and the report.
pub(super) struct Layers {
    pub(super) time: JobTime,
    pub(super) retries: Retries,
    pub(super) circuit: Option<Circuit>,
    /// There is one if there is a rate or a spend, and once the service has asked its callers to wait.
    pub(super) limiter: OnceLock<Limiter>,
    pub(super) slots: Option<Arc<Slots>>,
    /// Whether the service has throttled a call. From then on, those that it answers are counted.
    has_throttled: AtomicBool,
    answered: AtomicU64,
    pub(super) shelves: Shelves,
    journal: Mutex<Option<Arc<OpenJournal>>>,
}

/// What the layers of a run have done.
#[derive(Debug, Clone, Default)]
pub(super) struct LayerFigures {
    pub(super) retries: RetryFigures,
    pub(super) breaker: Option<BreakerFigures>,
    pub(super) rate: Option<RateFigures>,
    pub(super) concurrency: Option<ConcurrencyFigures>,
    pub(super) kept: Vec<KeptFigures>,
    pub(super) journal: Option<JournalFigures>,
}

/// What was kept of a method's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptFigures {
    /// The method.
    pub method: String,
    /// Its cache.
    pub cache: CacheFigures,
    /// Equal calls that were made at the same time.
    pub flight: FlightFigures,
}

impl KeptFigures {
    fn of((method, (cache, flight)): (String, (CacheFigures, FlightFigures))) -> Self {
        Self { method, cache, flight }
    }
}

impl Layers {
    pub(super) fn new(policy: &Policy, clock: Clock, runtime: Handle) -> Self {
        let time = JobTime::new(clock, runtime);
        let Policy { retry_budget, breaker, rates, spends, concurrency, .. } = policy;
        // Other processes that call the same service are to wait otherwise.
        let seed = RandomState::new().hash_one(0);
        let is_limited = !rates.is_empty() || !spends.is_empty();
        let limiter =
            is_limited.then(|| Limiter::new(rates, spends, time.now())).map_or_else(OnceLock::new, OnceLock::from);
        let retries = Retries::new(*retry_budget, seed, time.now());
        Self {
            time,
            retries,
            circuit: breaker.map(Circuit::new),
            limiter,
            slots: concurrency.map(Slots::new),
            has_throttled: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            shelves: Mutex::default(),
            journal: Mutex::default(),
        }
    }

    pub(super) fn figures(&self) -> LayerFigures {
        let concurrency = self.slots.as_ref().map(|slots| slots.figures());
        let breaker = self.circuit.as_ref().map(Circuit::figures);
        let rate = self.limiter.get().map(Limiter::figures);
        let (journal, shelves) = (lock(&self.journal).as_ref().map(|journal| journal.figures()), lock(&self.shelves));
        let kept =
            shelves.iter().map(|(method, shelf)| (method.clone(), shelf.figures())).map(KeptFigures::of).collect();
        LayerFigures { retries: self.retries.figures(), breaker, rate, concurrency, kept, journal }
    }

    /// The service has asked its callers to wait for so long: nobody calls it before.
    pub(super) fn pause(&self, delay: Duration) {
        let now = self.time.now();
        self.limiter.get_or_init(|| Limiter::new(&[], &[], now)).pause(now, delay);
    }

    /// The service has answered a call.
    #[inline]
    pub(super) fn answers(&self) {
        if self.has_throttled.load(Ordering::Relaxed) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The service has throttled a call. Gives how many it has answered since the first one.
    pub(super) fn throttles(&self) -> u64 {
        self.has_throttled.store(true, Ordering::Relaxed);
        self.answered.load(Ordering::Relaxed)
    }

    /// The journal of this run.
    pub(super) fn journal(&self, journal: &Journal) -> Result<Arc<OpenJournal>, StoreError> {
        let mut open = lock(&self.journal);
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        let opened = shelves::open(journal)?;
        *open = Some(opened.clone());
        Ok(opened)
    }
}
