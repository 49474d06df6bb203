//! [`PolicyState`]: what the calls of one service share.

use std::collections::HashSet;
use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::breaker::BreakerFigures;
use super::closing::{Closing, Ending};
use super::concurrency::ConcurrencyFigures;
use super::journal::JournalFigures;
use super::layers::{KeptFigures, LayerFigures, Layers};
use super::outage::{Outage, PauseJob};
use super::rate::RateFigures;
use super::restart::Restart;
use super::retry_budget::RetryFigures;
use super::settings::Policy;
use super::store::StoreError;
use super::tally::{Tallies, TallyFigures};
use crate::clock::Rouse;
use crate::control::{Control, JobControl};
use crate::runtime::{JobRuntime, RuntimeError};
use crate::service::histogram::Histogram;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// So many calls are timed, and one of so many after them.
const ALL_OF_THE_FIRST: u64 = 1_024;
const SAMPLE_EVERY: u64 = 64;

/// So many characters of an error are reported.
const ERROR_CHARS: usize = 300;

/// What the calls of one service share.
pub(crate) struct PolicyState {
    pub(super) policy: Policy,
    pub(super) closing: Closing,
    pub(super) outage: Arc<Outage>,
    pub(super) restart: Restart,
    pub(super) counts: Counts,
    pub(super) tallies: Tallies,
    latency: Histogram,
    last_error: Mutex<Option<String>>,
    declared: Mutex<DeclaredMethods>,
    run: Mutex<OfRun>,
}

/// What is known of the methods that were declared.
#[derive(Default)]
struct DeclaredMethods {
    /// What is wrong with one.
    mistake: Option<String>,
    /// The names of those that keep answers.
    keeping: HashSet<String>,
}

/// The run in progress, or what is kept of the one before.
#[derive(Default)]
enum OfRun {
    /// There was none yet.
    #[default]
    Nothing,
    Run(Run),
    /// It is over. Its runtime is not held on to.
    Figures(Box<LayerFigures>),
}

/// The run in progress.
struct Run {
    control: Arc<JobControl>,
    bell: Arc<CancelBell>,
    runtime: Arc<JobRuntime>,
    /// Made at the first call.
    layers: Option<Arc<Layers>>,
}

/// What the calls of a run came to.
#[derive(Debug, Default)]
pub(super) struct Counts {
    calls: AtomicU64,
    pub(super) attempts: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) made_again: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) batched: AtomicU64,
}

impl Counts {
    fn all(&self) -> [&AtomicU64; 9] {
        let Self { calls, attempts, timed_out, refused, failed, fallbacks, made_again, batches, batched } = self;
        [calls, attempts, timed_out, refused, failed, fallbacks, made_again, batches, batched]
    }
}

/// Adds one. Not a read-modify-write where threads would wait for each other: every layer that is on takes turns
/// anyway.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the policy of a service has done in a run so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyReport {
    /// Calls that were begun.
    pub calls: u64,
    /// Times that a request was sent, or put into a batch.
    pub attempts: u64,
    /// Times that one was tried again, and what kept others from it.
    pub retries: RetryFigures,
    /// Attempts that took longer than they might.
    pub timed_out: u64,
    /// Calls that the policy did not let through.
    pub refused: u64,
    /// Calls that ended in an error, those refused and those whose answer [broke off](super::PolicyService::broke_off)
    /// included.
    pub failed: u64,
    /// Calls that went on to a fallback.
    pub fallbacks: u64,
    /// Batches that were sent, halves of rejected ones included.
    pub batches: u64,
    /// Requests that were sent in them.
    pub batched: u64,
    /// What its breaker did; `None` if there is none.
    pub breaker: Option<BreakerFigures>,
    /// What its rates and spends did; `None` if there are none, and the service has asked for no pause.
    pub rate: Option<RateFigures>,
    /// What its limit of concurrency did; `None` if there is none.
    pub concurrency: Option<ConcurrencyFigures>,
    /// The methods whose answers were kept.
    pub kept: Vec<KeptFigures>,
    /// Its journal; `None` if there is none, or nothing was asked of it.
    pub journal: Option<JournalFigures>,
    /// Times that the service was not there, where calls are held for that.
    pub outages: u64,
    /// Calls that were held until it was there again.
    pub held: u64,
    /// Times that a call was made again, as the service was begun anew while it was at it.
    #[serde(default)]
    pub made_again: u64,
    /// What its methods [read](super::MethodBuilder::tally) from answers, summed up.
    #[serde(default)]
    pub tallies: Vec<TallyFigures>,
    /// Why the last attempt that failed did so, with its causes: its first 300 characters. `None` before the first. An
    /// attempt that the policy let not through is none.
    #[serde(default)]
    pub last_error: Option<String>,
    /// The time of a call with all its waits, of the first 1,024 and one in 64 after them: half of the calls took no
    /// longer. `None` before the first.
    pub p50: Option<Duration>,
    /// 99 of a hundred took no longer.
    pub p99: Option<Duration>,
}

impl OfRun {
    fn figures(&self) -> LayerFigures {
        match self {
            Self::Run(Run { layers: Some(layers), .. }) => layers.figures(),
            Self::Nothing | Self::Run(_) => LayerFigures::default(),
            Self::Figures(figures) => (**figures).clone(),
        }
    }
}

impl PolicyState {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            closing: Closing::new(),
            outage: Outage::new(),
            restart: Restart::new(),
            counts: Counts::default(),
            tallies: Tallies::default(),
            latency: Histogram::new(),
            last_error: Mutex::default(),
            declared: Mutex::default(),
            run: Mutex::default(),
        }
    }

    /// What is wrong with the settings.
    pub(crate) fn mistake(&self) -> Option<String> {
        self.policy.mistake().or_else(|| lock(&self.declared).mistake.clone())
    }

    /// A method is declared, perhaps with settings that cannot be.
    pub(super) fn declare(&self, mistake: Option<String>) {
        let mut declared = lock(&self.declared);
        declared.mistake = declared.mistake.take().or(mistake);
    }

    /// A method is declared that keeps answers.
    pub(super) fn declare_keeping(&self, method: &str) {
        let is_first = lock(&self.declared).keeping.insert(method.to_owned());
        self.declare((!is_first).then(|| StoreError::SameName { method: method.to_owned() }.to_string()));
    }

    /// Another run is to begin.
    pub(crate) fn reset(&self) {
        self.closing.reset();
        self.outage.reset(None);
        self.restart.ends();
        let before = std::mem::take(&mut *lock(&self.run));
        drop(before);
        self.latency.clear();
        self.tallies.clear();
        *lock(&self.last_error) = None;
        self.counts.all().iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// A run begins.
    pub(crate) fn begin(self: &Arc<Self>, control: &Arc<JobControl>, runtime: &Arc<JobRuntime>, pause: &PauseJob) {
        let bell = Arc::new(CancelBell { control: Arc::downgrade(control), calls: self.clone() });
        control.hang(bell.clone());
        self.outage.reset(Some(pause.clone()));
        let run = Run { control: control.clone(), bell, runtime: runtime.clone(), layers: None };
        *lock(&self.run) = OfRun::Run(run);
    }

    /// The service stops, or the job is over.
    pub(crate) fn stops(&self) {
        self.closing.advance(Ending::Stopping);
    }

    /// The run is over.
    pub(crate) fn end(&self) {
        self.closing.advance(Ending::Cancelled);
        self.outage.end();
        let mut run = lock(&self.run);
        let figures = OfRun::Figures(Box::new(run.figures()));
        let before = std::mem::replace(&mut *run, figures);
        drop(run);
        if let OfRun::Run(run) = before {
            run.control.take_down(&run.bell);
        }
    }

    /// What the calls of the run in progress share; `None` if there is no run.
    pub(super) fn layers(&self) -> Result<Option<Arc<Layers>>, RuntimeError> {
        let mut run = lock(&self.run);
        let OfRun::Run(Run { control, runtime, layers, .. }) = &mut *run else { return Ok(None) };
        if let Some(layers) = layers {
            return Ok(Some(layers.clone()));
        }
        let made = Arc::new(Layers::new(&self.policy, control.clock().clone(), runtime.handle()?));
        *layers = Some(made.clone());
        Ok(Some(made))
    }

    /// Counts a call, and gives it its number in the run.
    pub(super) fn begins(&self) -> u64 {
        self.counts.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the call of this number is to be timed.
    pub(super) fn is_timed(number: u64) -> bool {
        number < ALL_OF_THE_FIRST || number.is_multiple_of(SAMPLE_EVERY)
    }

    pub(super) fn took(&self, time: Duration) {
        self.latency.record(time);
    }

    /// An attempt failed, for this reason.
    pub(super) fn met(&self, mut text: String) {
        if let Some((end, _)) = text.char_indices().nth(ERROR_CHARS) {
            text.truncate(end);
            text.push('…');
        }
        *lock(&self.last_error) = Some(text);
    }

    pub(crate) fn report(&self) -> PolicyReport {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (counts, outage) = (&self.counts, self.outage.figures());
        let LayerFigures { retries, breaker, rate, concurrency, kept, journal } = lock(&self.run).figures();
        PolicyReport {
            calls: of(&counts.calls),
            attempts: of(&counts.attempts),
            retries,
            breaker,
            timed_out: of(&counts.timed_out),
            refused: of(&counts.refused),
            failed: of(&counts.failed),
            fallbacks: of(&counts.fallbacks),
            batches: of(&counts.batches),
            batched: of(&counts.batched),
            rate,
            concurrency,
            kept,
            journal,
            outages: outage.outages,
            held: outage.held,
            made_again: of(&counts.made_again),
            tallies: self.tallies.figures(),
            last_error: lock(&self.last_error).clone(),
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
        }
    }
}

impl fmt::Debug for PolicyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyState").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Rung when the word that steers the job has changed.
#[derive(Debug)]
struct CancelBell {
    /// Which has this bell.
    control: Weak<JobControl>,
    calls: Arc<PolicyState>,
}

impl Rouse for CancelBell {
    fn rouse(&self) {
        if self.control.upgrade().is_some_and(|control| control.load() == Control::Cancel) {
            self.calls.closing.advance(Ending::Cancelled);
        }
    }
}
