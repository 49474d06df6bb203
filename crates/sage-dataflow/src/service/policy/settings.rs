//! [`Policy`]: what is declared of the calls of a service.

use std::fmt;
use std::time::Duration;

use super::breaker::Breaker;
use super::concurrency::Concurrency;
use super::journal::Journal;
use super::rate::Rate;
use super::retry_budget::RetryBudget;
use super::spend::Spend;
use super::verdict::{Judge, Verdict, usual};
use crate::BoxError;
use crate::guarded::guard;
use crate::retry::Retry;
use crate::sync::{Arc, FOREVER};

/// What is done for every caller of a service. Each part is off unless it is asked for.
///
/// A call goes through the parts in this order: what is kept of a method, pause, restart, deadline, fallback, retry,
/// breaker, rate and spend, concurrency, batch, timeout.
///
/// ```
/// use std::time::Duration;
/// use sage::{Policy, Retry};
///
/// let policy = Policy::new()
///     .timeout(Duration::from_secs(20)) // each attempt
///     .retry(Retry::up_to(4))
///     .deadline(Duration::from_secs(60)); // the whole call
/// # let _ = policy;
/// ```
#[derive(Clone)]
pub struct Policy {
    pub(super) call: CallPolicy,
    pub(super) retry_budget: RetryBudget,
    pub(super) breaker: Option<Breaker>,
    pub(super) rates: Vec<Rate>,
    pub(super) spends: Vec<Spend>,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) outage: Option<Duration>,
    pub(super) make_again: u32,
    pub(super) version: Option<String>,
    pub(super) journal: Option<Journal>,
    pub(super) judge: Arc<Judge>,
}

/// The parts of a [`Policy`] that may be others for some calls: see
/// [`Method::with_policy`](super::Method::with_policy).
#[derive(Clone, Default)]
pub struct CallPolicy {
    pub(super) timeout: Option<Duration>,
    pub(super) deadline: Option<Duration>,
    pub(super) retry: Option<Retry>,
    pub(super) sample: u64,
}

impl CallPolicy {
    /// How long one attempt may take, from when it is sent. Then it counts as failed.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = Some(timeout.min(FOREVER));
        self
    }

    /// How long a call may take with all its waits and attempts. A call that another service makes to answer a call
    /// has that one's deadline, if it is earlier.
    pub fn deadline(&mut self, deadline: Duration) -> &mut Self {
        self.deadline = Some(deadline.min(FOREVER));
        self
    }

    /// How often a call is tried again. Before that it waits for a random part of the retry's wait, from half of it on,
    /// so that calls that failed together do not come again together; or for as long as the service asked for, 120
    /// seconds at most. It has its place among the waiting calls by when it first came.
    ///
    /// An attempt that is [throttled](Verdict::Throttled) does not count as one while the service answers other calls,
    /// or works on some, for two minutes at most: where there are too many callers, each is throttled now and then. It
    /// does count for a method with a [fallback](super::MethodBuilder::fallback), which may have time.
    pub fn retry(&mut self, retry: Retry) -> &mut Self {
        self.retry = Some(retry);
        self
    }

    /// Tells apart equal calls that are to have an answer each, where answers are kept: the first, second and so on of
    /// a model's. Default: 0.
    pub fn sample(&mut self, sample: u64) -> &mut Self {
        self.sample = sample;
        self
    }

    fn mistake(&self) -> Option<String> {
        let zero = |time: Option<Duration>, what: &str| {
            time.filter(Duration::is_zero).map(|_| format!("a {what} of zero lets no call succeed"))
        };
        zero(self.timeout, "timeout")
            .or_else(|| zero(self.deadline, "deadline"))
            .or_else(|| self.retry.as_ref().and_then(Retry::mistake))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// A policy that asks for nothing: calls reach the service as they are.
    pub fn new() -> Self {
        Self {
            call: CallPolicy::default(),
            retry_budget: RetryBudget::unlimited(),
            breaker: None,
            rates: Vec::new(),
            spends: Vec::new(),
            concurrency: None,
            outage: None,
            make_again: 0,
            version: None,
            journal: None,
            judge: Arc::new(usual),
        }
    }

    /// See [`CallPolicy::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.call.timeout(timeout);
        self
    }

    /// See [`CallPolicy::deadline`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.call.deadline(deadline);
        self
    }

    /// See [`CallPolicy::retry`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.call.retry(retry);
        self
    }

    /// Allows only so many calls to be retries, of all callers together, those that were throttled included. Default:
    /// no limit.
    pub fn retry_budget(mut self, budget: RetryBudget) -> Self {
        self.retry_budget = budget;
        self
    }

    /// Refuses calls for a while after too many have failed. Each attempt counts.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Keeps the calls within a rate. They wait for their turn, in the order in which they came. There may be several
    /// rates, of calls and of cost; see [`MethodBuilder::cost`](super::MethodBuilder::cost). Each attempt counts. When
    /// the service says after how long it can be called again, nobody calls it before.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rates.push(rate);
        self
    }

    /// Keeps what is spent within a limit. There may be several; see
    /// [`MethodBuilder::price`](super::MethodBuilder::price).
    pub fn spend(mut self, spend: Spend) -> Self {
        self.spends.push(spend);
        self
    }

    /// Lets so many calls be under way at once; others wait for their turn, in the order in which they came. A call in
    /// a batch is under way from when it joins the batch.
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    /// Pauses the job while the service is not there ([`Verdict::Outage`]): its sources wait, and so do the calls that
    /// met the outage, when their attempts are used up. One of them at a time is made again after a wait, which is one
    /// second at first and doubles up to 30; when it comes out otherwise, the job goes on, and the others are made
    /// again as well, with attempts and deadline anew. After `at_most` the calls fail after all; [`Duration::MAX`] is
    /// no limit. A drain meanwhile ends by its own deadline. Default: calls fail at once.
    pub fn pause_on_outage(mut self, at_most: Duration) -> Self {
        self.outage = Some(at_most.min(FOREVER));
        self
    }

    /// Makes a call again that the service could not end, as it was begun anew meanwhile ([`Verdict::Again`]): with
    /// attempts and deadline anew, and so many times at most. Then it fails by a [`MadeAgain`](super::MadeAgain).
    /// Default: 0.
    pub fn make_again(mut self, at_most: u32) -> Self {
        self.make_again = at_most;
        self
    }

    /// Declares the version of the service, as far as its answers depend on it: its code, its model, its prompts.
    /// Answers are [kept](super::MethodBuilder::keep) for a version, and for no other.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Gives the service the journal of a run, in which methods keep their answers: see [`Keep::journal`](super::Keep).
    /// Several services may have the same.
    pub fn journal(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Says what an error that the service answers with means. It gets the error as it was returned, and may downcast
    /// it. Default: see [`ServiceError`](super::ServiceError); a [`Fatal`](crate::Fatal) is [`Verdict::Bad`], a refused
    /// or broken connection [`Verdict::Outage`], and anything else [`Verdict::Passing`].
    pub fn judge(mut self, judge: impl Fn(&BoxError) -> Verdict + Send + Sync + 'static) -> Self {
        self.judge = Arc::new(judge);
        self
    }

    /// What an error that the service answered with means.
    #[cold]
    pub(super) fn judged(&self, error: BoxError) -> (BoxError, Verdict) {
        match guard(|| (self.judge)(&error)) {
            Ok(Verdict::Again) if self.make_again == 0 => (error, Verdict::Passing(None)),
            Ok(verdict) => (error, verdict),
            Err(panic) => (format!("the policy's `judge` panicked: {panic}").into(), Verdict::Bad),
        }
    }

    /// What is wrong with these settings.
    pub(crate) fn mistake(&self) -> Option<String> {
        let zero = self.outage.filter(Duration::is_zero);
        let breaker = || self.breaker.as_ref().and_then(Breaker::mistake);
        let rates = || self.rates.iter().find_map(Rate::mistake);
        let spends = || self.spends.iter().find_map(Spend::mistake);
        let concurrency = || self.concurrency.as_ref().and_then(Concurrency::mistake);
        self.call
            .mistake()
            .or_else(|| self.retry_budget.mistake())
            .or_else(breaker)
            .or_else(rates)
            .or_else(spends)
            .or_else(concurrency)
            .or_else(|| self.journal.as_ref().and_then(Journal::mistake))
            .or_else(|| zero.map(|_| "a pause of at most zero is none; leave it out".to_owned()))
    }
}

impl fmt::Debug for CallPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeout, deadline, retry, sample } = self;
        let mut shown = f.debug_struct("CallPolicy");
        shown.field("timeout", timeout).field("deadline", deadline).field("retry", retry);
        shown.field("sample", sample).finish()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, retry_budget, breaker, rates, spends, concurrency, .. } = self;
        let Self { outage, make_again, version, journal, judge: _, .. } = self;
        let mut shown = f.debug_struct("Policy");
        shown.field("call", call).field("retry_budget", retry_budget).field("breaker", breaker);
        shown.field("rates", rates).field("spends", spends);
        shown.field("concurrency", concurrency).field("outage", outage);
        shown.field("make_again", make_again).field("version", version).field("journal", journal);
        shown.finish_non_exhaustive()
    }
}
