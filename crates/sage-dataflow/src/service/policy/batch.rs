//! Dynamic batching: requests of any caller go to the service together.
//!
//! Invariants: every request is in one batch, which whoever filled it or opened it sends; a batch is taken once. A
//! caller that has left is not in a batch that is sent later.

use std::fmt;
use std::ops::{Deref, Range};
use std::time::{Duration, Instant};

use super::sync::{Mutex, lock};
use super::turn::Giver;

/// How requests of all callers are put together to batches: up to so many, or so much cost, or so long after the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batching {
    requests: usize,
    cost: u64,
    within: Duration,
}

impl Batching {
    /// Batches of at most `requests`: 1 or more. A batch leaves when it is full, or 10 ms after its first request came.
    pub const fn of(requests: usize) -> Self {
        Self { requests, cost: u64::MAX, within: Duration::from_millis(10) }
    }

    /// A batch costs at most `cost`, in the units of the method's cost: 1 or more. A request that costs more goes
    /// alone. Default: no limit.
    pub const fn cost(mut self, cost: u64) -> Self {
        self.cost = cost;
        self
    }

    /// A batch that is not full leaves so long after its first request came. Zero: at once, with what has come
    /// meanwhile. Default: 10 ms.
    pub const fn within(mut self, window: Duration) -> Self {
        self.within = window;
        self
    }

    /// How long a batch waits for more requests.
    pub(super) fn window(&self) -> Duration {
        self.within
    }

    pub(super) fn mistake(&self) -> Option<String> {
        let zero = |what: &str| Some(format!("a batch has at least one {what}"));
        match self {
            Self { requests: 0, .. } => zero("request"),
            Self { cost: 0, .. } => zero("unit of cost"),
            _ => None,
        }
    }
}

/// The requests that go to a service together. It derefs to a slice. Cloning it copies no request.
pub struct Batch<Q> {
    all: std::sync::Arc<[Q]>,
    range: Range<usize>,
}

impl<Q> Clone for Batch<Q> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), range: self.range.clone() }
    }
}

impl<Q> Deref for Batch<Q> {
    type Target = [Q];

    fn deref(&self) -> &[Q] {
        &self.all[self.range.clone()]
    }
}

impl<Q: fmt::Debug> fmt::Debug for Batch<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&**self).finish()
    }
}

/// A request that waits for its batch to be answered.
pub(super) struct Waiting<Q, A> {
    pub(super) request: Q,
    pub(super) attempt: u32,
    pub(super) deadline: Option<Instant>,
    pub(super) answer: Giver<A>,
}

/// What a request that joins a batch has to do for it.
pub(super) struct Joined<Q, A> {
    /// To be sent now.
    pub(super) full: [Option<Vec<Waiting<Q, A>>>; 2],
    /// To be taken when its window has passed.
    pub(super) opened: Option<u64>,
}

/// The batch that gathers at the moment.
pub(super) struct Queue<Q, A> {
    settings: Batching,
    open: Mutex<Open<Q, A>>,
}

struct Open<Q, A> {
    number: u64,
    cost: u64,
    waiting: Vec<Waiting<Q, A>>,
}

impl<Q, A> Open<Q, A> {
    fn take(&mut self) -> Option<Vec<Waiting<Q, A>>> {
        self.number += 1;
        self.cost = 0;
        Some(std::mem::take(&mut self.waiting)).filter(|waiting| !waiting.is_empty())
    }
}

impl<Q, A> Queue<Q, A> {
    pub(super) fn new(settings: Batching) -> Self {
        Self { settings, open: Mutex::new(Open { number: 0, cost: 0, waiting: Vec::new() }) }
    }

    pub(super) fn settings(&self) -> &Batching {
        &self.settings
    }

    /// How many requests gather at the moment.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.open).waiting.len()
    }

    pub(super) fn join(&self, waiting: Waiting<Q, A>, cost: u64) -> Joined<Q, A> {
        let Batching { requests, cost: most, .. } = self.settings;
        let mut open = lock(&self.open);
        let before = if open.cost.saturating_add(cost) > most { open.take() } else { None };
        open.cost = open.cost.saturating_add(cost);
        open.waiting.push(waiting);
        let is_full = open.waiting.len() >= requests || open.cost >= most;
        let opened = (!is_full && open.waiting.len() == 1).then_some(open.number);
        let now = if is_full { open.take() } else { None };
        Joined { full: [before, now], opened }
    }

    /// The batch of this number, if it still gathers.
    pub(super) fn take(&self, number: u64) -> Option<Vec<Waiting<Q, A>>> {
        let mut open = lock(&self.open);
        if open.number == number { open.take() } else { None }
    }
}

/// How one sending of a batch came out.
pub(super) enum Sent<R, E> {
    /// It was answered, request by request.
    Answered(Vec<Result<R, E>>),
    /// It was rejected, which one of its requests may be the reason for.
    Rejected(E),
    /// It failed as a whole.
    Failed(E),
}

/// A service gave another number of answers than it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it gave {answers} answers to a batch of {requests} requests")]
pub struct WrongCount {
    /// How many requests the batch had.
    pub requests: usize,
    /// How many answers came.
    pub answers: usize,
}

/// Sends a batch, and gives every request its answer. A batch that is rejected is cut in halves, until it is known
/// which request is at fault.
pub(super) async fn send<Q, R, E, F>(
    waiting: Vec<Waiting<Q, Result<R, E>>>,
    answer: impl Fn(Batch<Q>, u32, Option<Instant>) -> F,
) where
    E: Clone + From<WrongCount>,
    F: Future<Output = Sent<R, E>>,
{
    let mut requests = Vec::with_capacity(waiting.len());
    let mut places = Vec::with_capacity(waiting.len());
    let mut deadline = None;
    let mut attempt = None;
    for one in waiting.into_iter().filter(|one| !one.answer.is_left()) {
        // Without a deadline when one of them has none.
        deadline = match (places.is_empty(), deadline, one.deadline) {
            (true, _, own) => own,
            (false, Some(others), Some(own)) => Some(own.max(others)),
            (false, ..) => None,
        };
        attempt.get_or_insert(one.attempt);
        requests.push(one.request);
        places.push(Some(one.answer));
    }
    let all: std::sync::Arc<[Q]> = requests.into();
    let give = |place: &mut Option<Giver<Result<R, E>>>, answer| {
        if let Some(Err(unwanted)) = place.take().map(|giver| giver.give(answer)) {
            super::sync::drop_record(move || drop(unwanted));
        }
    };
    let mut open: Vec<Range<usize>> = std::iter::once(0..all.len()).collect();
    while let Some(range) = open.pop().filter(|range| !range.is_empty()) {
        let batch = Batch { all: all.clone(), range: range.clone() };
        match answer(batch, attempt.unwrap_or(1), deadline).await {
            Sent::Answered(answers) if answers.len() == range.len() => {
                places[range].iter_mut().zip(answers).for_each(|(place, answer)| give(place, answer));
            }
            Sent::Answered(answers) => {
                let error = E::from(WrongCount { requests: range.len(), answers: answers.len() });
                places[range].iter_mut().for_each(|place| give(place, Err(error.clone())));
            }
            Sent::Rejected(_) if range.len() > 1 => {
                let middle = range.start + range.len() / 2;
                open.extend([middle..range.end, range.start..middle]);
            }
            Sent::Rejected(error) | Sent::Failed(error) => {
                places[range].iter_mut().for_each(|place| give(place, Err(error.clone())));
            }
        }
    }
}
