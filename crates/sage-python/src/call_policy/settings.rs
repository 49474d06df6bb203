//! The settings of a policy, as the Python package gives them: see `CallPolicy` in `python/sage/_call_policies.py`.

use std::collections::HashMap;
use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use pyo3::prelude::*;
use sage::{BoxError, Breaker, CallPolicy, Concurrency, Policy, Rate, RetryBudget, Spend, Verdict};

use super::keep::{JournalOf, Keeping};
use crate::error::Raised;
use crate::object::Object;
use crate::policies::Attempts;
use crate::spec::Seconds;
use crate::thread::attach;

/// What other settings some calls have.
#[derive(FromPyObject)]
pub(crate) struct Changes {
    timeout: Option<Seconds>,
    pub(crate) deadline: Option<Seconds>,
    retry: Option<Attempts>,
    sample: Option<u64>,
}

impl Changes {
    pub(crate) fn make(&self, call: &mut CallPolicy) {
        self.timeout.iter().for_each(|timeout| _ = call.timeout(timeout.0));
        self.deadline.iter().for_each(|deadline| _ = call.deadline(deadline.0));
        self.retry.iter().for_each(|retry| _ = call.retry(retry.retry()));
        self.sample.iter().for_each(|sample| _ = call.sample(*sample));
    }
}

/// How many calls, or how much cost, may go within a time.
#[derive(FromPyObject)]
struct RateOf {
    calls: Option<u64>,
    cost: Option<u64>,
    per: Seconds,
    burst: Option<u64>,
}

impl RateOf {
    fn rate(&self) -> Rate {
        let rate = match (self.calls, self.cost) {
            (Some(calls), _) => Rate::calls(calls, self.per.0),
            (None, cost) => Rate::cost(cost.unwrap_or_default(), self.per.0),
        };
        self.burst.map_or(rate, |burst| rate.burst(burst))
    }
}

/// How much may be spent within a time.
#[derive(FromPyObject)]
struct SpendOf {
    amount: f64,
    per: Seconds,
    waits: bool,
}

impl SpendOf {
    fn spend(&self) -> Spend {
        let spend = Spend::at_most(self.amount, self.per.0);
        if self.waits { spend.waiting() } else { spend }
    }
}

/// How many calls may be under way at once.
#[derive(FromPyObject)]
struct ConcurrencyOf {
    calls: usize,
    queue: Option<usize>,
    adaptive: Option<usize>,
    replacements: usize,
}

impl ConcurrencyOf {
    fn concurrency(&self) -> Concurrency {
        let mut concurrency = Concurrency::at_most(self.calls).replacements(self.replacements);
        if let Some(calls) = self.queue {
            concurrency = concurrency.queue(calls);
        }
        self.adaptive.map_or(concurrency, |least| concurrency.adaptive(least))
    }
}

/// After which failures calls are refused for a while.
#[derive(FromPyObject)]
struct BreakerOf {
    failures: Option<usize>,
    share: f64,
    of_last: usize,
    at_least: Option<usize>,
    open_for: Seconds,
    probes: u32,
}

impl BreakerOf {
    fn breaker(&self) -> Breaker {
        let breaker = match self.failures {
            Some(failures) => Breaker::after_consecutive(failures),
            None => Breaker::after_share(self.share).of_last(self.of_last),
        };
        let breaker = breaker.open_for(self.open_for.0).probes(self.probes);
        self.at_least.map_or(breaker, |least| breaker.at_least(least))
    }
}

/// A function of a program's for all methods, or one for some of them each.
#[derive(FromPyObject)]
pub(crate) enum ByMethod {
    Each(HashMap<String, Object>),
    All(Object),
}

impl ByMethod {
    pub(super) fn of(&self, method: &str) -> Option<&Object> {
        match self {
            Self::Each(methods) => methods.get(method),
            Self::All(says) => Some(says),
        }
    }
}

/// The policy of a service.
#[derive(FromPyObject)]
pub(crate) struct Settings {
    pub(crate) call: Changes,
    /// For how long the job is paused while the service is not there.
    outage: Option<Seconds>,
    /// Other services, which are called when this one fails.
    pub(crate) fallback: Vec<String>,
    rate: Vec<RateOf>,
    concurrency: Option<ConcurrencyOf>,
    breaker: Option<BreakerOf>,
    /// How many retries may be made for each call.
    retry_budget: Option<f64>,
    /// Says of the arguments of a call what it costs.
    pub(crate) cost: Option<ByMethod>,
    spend: Vec<SpendOf>,
    /// Says of the arguments of a call what is spent on it.
    pub(crate) price: Option<ByMethod>,
    /// Says of an answer what it did cost.
    pub(crate) usage: Option<ByMethod>,
    version: Option<String>,
    journal: Option<JournalOf>,
    /// How the answers of these methods are kept.
    pub(crate) keep: HashMap<String, Keeping>,
    /// Says of an exception what it means: a word, and the seconds that the service asked to be left alone.
    judge: Object,
    /// How often a call is made again that was inside when the service's process was lost.
    make_again: u32,
}

impl Settings {
    pub(crate) fn policy(&self) -> Policy {
        let mut policy = Policy::new();
        if let Some(timeout) = self.call.timeout {
            policy = policy.timeout(timeout.0);
        }
        if let Some(deadline) = self.call.deadline {
            policy = policy.deadline(deadline.0);
        }
        if let Some(retry) = &self.call.retry {
            policy = policy.retry(retry.retry());
        }
        if let Some(at_most) = self.outage {
            policy = policy.pause_on_outage(at_most.0);
        }
        policy = policy.make_again(self.make_again);
        for spend in &self.spend {
            policy = policy.spend(spend.spend());
        }
        if let Some(version) = &self.version {
            policy = policy.version(version);
        }
        if let Some(journal) = &self.journal {
            policy = policy.journal(journal.journal());
        }
        for rate in &self.rate {
            policy = policy.rate(rate.rate());
        }
        if let Some(concurrency) = &self.concurrency {
            policy = policy.concurrency(concurrency.concurrency());
        }
        if let Some(breaker) = &self.breaker {
            policy = policy.breaker(breaker.breaker());
        }
        if let Some(share) = self.retry_budget {
            policy = policy.retry_budget(RetryBudget::share(share));
        }
        let judge = self.judge.clone();
        policy.judge(move |error| raised_in(&**error).map_or(Verdict::Bad, |raised| verdict(&judge, raised)))
    }
}

/// The exception that an error of a service is, or has behind it.
pub(crate) fn raised_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Raised> {
    sources(error).find_map(|error| error.downcast_ref())
}

/// An error, and those behind it.
pub(super) fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn behind<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    }
    successors(Some(error), behind)
}

fn verdict(judge: &Object, raised: &Raised) -> Verdict {
    attach(|py| {
        let told = judge.call1(py, (raised.exception.value(py),)).and_then(|told| told.extract(py));
        let (word, after): (String, Option<Seconds>) = match told {
            Ok(told) => told,
            Err(error) => {
                error.write_unraisable(py, Some(judge.bind(py)));
                return Verdict::Bad;
            }
        };
        let after = after.map(|after| after.0);
        match word.as_str() {
            "passing" => Verdict::Passing(after),
            "throttled" => Verdict::Throttled(after),
            "denied" => Verdict::Denied,
            "outage" => Verdict::Outage,
            "again" => Verdict::Again,
            _ => Verdict::Bad,
        }
    })
}

/// An exception that is the answer to one request of a batch. The engine keeps what is behind it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InBatch(#[source] pub(crate) Raised);

impl InBatch {
    pub(crate) fn error(self) -> BoxError {
        self.into()
    }
}

/// A time in seconds, as messages have it.
pub(crate) fn said(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}
