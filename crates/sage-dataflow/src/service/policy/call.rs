//! A call's way through the layers of its policy.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::runtime::RuntimeFlavor;
use tokio::task::block_in_place;

use super::answer::{Answer, Reached};
use super::batch::Waiting;
use super::calling::{Attempt, WithDeadline, earlier, inherited};
use super::closing::Ending;
use super::concurrency::{self, Permit};
use super::failure::{Failed, Failure};
use super::job_time::JobTime;
use super::journal::Outgoing;
use super::key::CallKey;
use super::layers::Layers;
use super::limiter;
use super::method::{Declared, Method, Usage};
use super::outage::{Probe, Released};
use super::patience::Patience;
use super::refusal::Refusal;
use super::reservation::{Ask, Reservation};
use super::retry_budget;
use super::sending::Batches;
use super::state::{PolicyState, count};
use super::store::StoreError;
use super::time::Time;
use super::turn::turn;
use super::within::within;
use crate::runtime::is_inside_async;
use crate::service::call_error::CallError;
use crate::service::handle::InsideRuntime;
use crate::service::state::ServiceState;
use crate::sync::Arc;

/// What a call takes along on its way.
pub(super) struct Way<'a> {
    pub(super) layers: &'a Layers,
    /// Its number in the run: calls wait in the order in which they came, however often they are made again.
    pub(super) number: u64,
    /// Whether the thread that polls the call may block.
    pub(super) may_block: bool,
    /// Its place in the journal.
    pub(super) place: Option<Arc<Outgoing>>,
}

impl Way<'_> {
    fn key(&self) -> Option<CallKey> {
        self.place.as_ref().map(|place| place.key())
    }
}

/// What an attempt came to.
///
/// Failures are boxed, here and further out: an answer that is passed on from layer to layer is small then.
type Attempted<R> = Result<R, Box<Failure>>;

impl<Q: Clone + Send + Sync + 'static, R: Send + 'static> Method<Q, R> {
    /// Makes a call. Dropping the returned future ends it.
    ///
    /// # Errors
    /// [`CallError::Failed`] with the service's error; [`CallError::TimedOut`], [`CallError::PastDeadline`] and
    /// [`CallError::Refused`] where the policy ends it; [`CallError::Ended`] when the job is cancelled meanwhile;
    /// [`CallError::NotServing`] outside a run.
    pub async fn call(&self, request: Q) -> Result<R, CallError> {
        let layers = self.layers()?;
        self.made(&layers, request, false).await.map_err(|error| *error)
    }

    /// Makes a call from a thread that may block, such as an operator's.
    ///
    /// # Errors
    /// Those of [`call`](Self::call); [`CallError::Runtime`] on a thread of an async runtime, which must not block.
    pub fn call_blocking(&self, request: Q) -> Result<R, CallError> {
        let layers = self.layers()?;
        if is_inside_async() {
            return Err(CallError::Runtime { service: self.service(), source: Arc::new(InsideRuntime) });
        }
        let runtime = layers.time.runtime();
        // On a runtime of one thread, a service that blocks would keep that thread from what it waits for.
        let may_block = runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        runtime.block_on(self.made(&layers, request, may_block)).map_err(|error| *error)
    }

    /// Erases the kept answers that have a [tag](crate::Keep::tag), in memory, on disk and in the journal: their bytes
    /// are overwritten. Returns how many there were. The answer of a call that is being made is kept nevertheless.
    ///
    /// # Errors
    /// [`CallError::Store`] if a file cannot be read or written; [`CallError::NotServing`] outside a run.
    pub fn erase(&self, tag: &str) -> Result<u64, CallError> {
        let layers = self.layers()?;
        let Some(keep) = &self.declared.keep else { return Ok(0) };
        let shelf = keep.shelf(&self.declared, &layers);
        shelf.and_then(|shelf| shelf.erase(tag)).map_err(|error| self.store(Arc::new(error)))
    }

    /// When a call that is made now is too late.
    pub(super) fn deadline(&self, layers: &Layers) -> Option<Instant> {
        let own = self.call.deadline.map(|deadline| layers.time.now() + deadline);
        earlier(own, inherited())
    }

    /// What becomes of an answer that could not be kept, or read.
    pub(super) fn store(&self, source: Arc<StoreError>) -> CallError {
        CallError::Store { service: self.service(), source }
    }

    fn service(&self) -> String {
        self.declared.service.clone()
    }

    fn layers(&self) -> Result<Arc<Layers>, CallError> {
        let failed = |error| CallError::Runtime { service: self.service(), source: Arc::new(error) };
        let layers = self.declared.state.layers().map_err(failed)?;
        layers.ok_or_else(|| CallError::NotServing { service: self.service(), state: self.declared.handle.state() })
    }

    async fn made(&self, layers: &Layers, request: Q, may_block: bool) -> Result<R, Box<CallError>> {
        let state = &*self.declared.state;
        let number = state.begins();
        let began = PolicyState::is_timed(number).then(Instant::now);
        let call = async {
            let way = Way { layers, number, may_block, place: None };
            match &self.declared.keep {
                Some(keep) => keep.answer(self, way, request).await,
                None => self.through_outages(&way, request).await.map_err(Failed::told),
            }
        };
        let ended = state.closing.or(Ending::Cancelled, call).await;
        let ended = ended.unwrap_or_else(|| Err(Box::new(Failure::Ended.told(&self.declared.service, 1))));
        let ended = ended.map_err(|error| self.of_lost(error));
        if let Some(began) = began {
            state.took(began.elapsed());
        }
        if ended.is_err() {
            count(&state.counts.failed);
        }
        ended
    }

    /// A call that waited when its service was lost ended with that, and not with its job.
    fn of_lost(&self, error: Box<CallError>) -> Box<CallError> {
        let Declared { state, handle, .. } = &*self.declared;
        let is_lost = || state.closing.ending() == Ending::Stopping && handle.state() == ServiceState::Lost;
        match *error {
            CallError::Ended { service } if is_lost() => {
                Box::new(CallError::NotServing { service, state: ServiceState::Lost })
            }
            _ => error,
        }
    }

    /// The layers of outages and of restarts, if calls are to be made again: most are not, and make one future less.
    pub(super) async fn through_outages(&self, way: &Way<'_>, request: Q) -> Result<R, Failed> {
        let policy = &self.declared.state.policy;
        match policy.outage {
            None if policy.make_again == 0 => self.by_deadline(way, request).await,
            None => Box::pin(self.through_restarts(way, request)).await,
            Some(at_most) => Box::pin(self.through_outage(way, request, at_most)).await,
        }
    }

    /// The layer of outages: calls that meet one are held, for `at_most` so long, and made again when it is over.
    async fn through_outage(&self, way: &Way<'_>, request: Q, at_most: Duration) -> Result<R, Failed> {
        let layers = way.layers;
        let state = &*self.declared.state;
        let hold =
            async |probe| state.closing.or(Ending::Stopping, state.outage.hold(probe, &layers.time, at_most)).await;
        let ended_with_job = || Failed::of(Failure::Ended, &self.declared.service, 1);
        let mut probe: Option<Probe> = None;
        let mut last = None;
        loop {
            if last.is_some() || state.outage.is_on() {
                match hold(probe.take()).await {
                    Some(Released::Over) => {}
                    Some(Released::Probe(next)) => {
                        probe = Some(next);
                        if let Some(circuit) = &layers.circuit {
                            let opens = circuit.opened_again(&layers.time);
                            state.closing.or(Ending::Stopping, opens).await.ok_or_else(ended_with_job)?;
                        }
                    }
                    Some(Released::TooLong) => {
                        let gone = || Failure::Refused(Refusal::Outage { longer_than: at_most });
                        return Err(last.unwrap_or_else(|| Failed::of(gone(), &self.declared.service, 1)));
                    }
                    None => return Err(ended_with_job()),
                }
            }
            let ended = self.through_restarts(way, request.clone()).await;
            match (ended, probe.take()) {
                (Err(failed @ Failed { is_outage: true, .. }), tried) => {
                    probe = state.outage.met(tried, layers.time.now());
                    last = Some(failed);
                }
                (ended, tried) => {
                    tried.into_iter().for_each(Probe::ends_it);
                    return ended;
                }
            }
        }
    }

    /// A fallback may have fallbacks itself.
    fn made_boxed(
        &self,
        request: Q,
        may_block: bool,
    ) -> Pin<Box<dyn Future<Output = Result<R, Box<CallError>>> + Send + '_>> {
        Box::pin(async move {
            let layers = self.layers()?;
            self.made(&layers, request, may_block).await
        })
    }

    /// The layer of the deadline. A call inside another has that one's, if it is earlier.
    pub(super) async fn by_deadline(&self, way: &Way<'_>, request: Q) -> Result<R, Failed> {
        let (time, deadline) = (&way.layers.time, self.deadline(way.layers));
        match within(time, deadline, self.with_fallbacks(way, request, deadline)).await {
            Some(ended) => ended,
            None => Err(Failed::of(Failure::PastDeadline(None), &self.declared.service, 1)),
        }
    }

    /// The layer of fallbacks.
    async fn with_fallbacks(&self, way: &Way<'_>, request: Q, deadline: Option<Instant>) -> Result<R, Failed> {
        let Declared { service, state, fallbacks, .. } = &*self.declared;
        let kept = (!fallbacks.is_empty()).then(|| request.clone());
        let (failure, attempts) = match self.retried(way, request, deadline).await {
            Ok(reply) => return Ok(reply),
            Err(failed) => failed,
        };
        let may_fall_back = failure.may_fall_back();
        let mut failed = Failed::of(*failure, service, attempts);
        let Some(request) = kept.filter(|_| may_fall_back) else { return Err(failed) };
        for other in fallbacks {
            count(&state.counts.fallbacks);
            // Its policy is whole; its deadline is within this one.
            let call = WithDeadline { deadline, future: other.made_boxed(request.clone(), way.may_block) };
            match call.await {
                Ok(reply) => return Ok(reply),
                Err(error) => failed.error = error,
            }
        }
        Err(failed)
    }

    /// The layer of retries.
    async fn retried(&self, way: &Way<'_>, request: Q, deadline: Option<Instant>) -> Result<R, (Box<Failure>, u32)> {
        let Some(retry) = &self.call.retry else {
            let first = Attempt::new(1, deadline, way.key());
            return self.attempt(way, request, &first).await.map_err(|failure| (failure, 1));
        };
        let Layers { time, retries, .. } = way.layers;
        let closing = &self.declared.state.closing;
        let (mut number, mut failures, mut patience) = (1, 0, Patience::default());
        loop {
            let attempt = Attempt::new(number, deadline, way.key());
            let failure = match self.attempt(way, request.clone(), &attempt).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            let is_throttled = failure.is_throttled();
            // One that may fall back is made there soon.
            if is_throttled && retry.attempts > 1 && self.declared.fallbacks.is_empty() {
                patience.throttled(way.layers.throttles(), self.declared.handle.inside() > 0, time.now());
            } else {
                failures += 1;
            }
            if failures + patience.failures() >= retry.attempts || !failure.may_retry(retry) {
                return Err((failure, number));
            }
            let next = match retries.schedule(retry, number, failure.retry_after(), time.now(), deadline) {
                Ok(next) => next,
                Err(retry_budget::Refusal::BudgetSpent) => return Err((failure, number)),
                Err(retry_budget::Refusal::PastDeadline { .. }) => {
                    return Err((Failure::PastDeadline(failure.into_answered()).into(), number));
                }
            };
            // One that was told how long to wait does so at the limiter, where no newer call goes before it.
            let waits_there = is_throttled && failure.retry_after().is_some();
            if !waits_there && closing.or(Ending::Stopping, time.sleep_until(next)).await.is_none() {
                return Err((Failure::Ended.into(), number));
            }
            number += 1;
        }
    }

    /// One attempt.
    async fn attempt(&self, way: &Way<'_>, request: Q, attempt: &Attempt) -> Attempted<R> {
        let state = &*self.declared.state;
        count(&state.counts.attempts);
        if attempt.number == 1 {
            way.layers.retries.called();
        }
        let attempted = self.broken(way, request, attempt).await;
        if let Err(failure) = &attempted {
            match **failure {
                Failure::TimedOut { .. } => count(&state.counts.timed_out),
                Failure::Refused(_) => count(&state.counts.refused),
                _ => {}
            }
            failure.in_words().into_iter().for_each(|why| state.met(why));
        }
        attempted
    }

    /// The layer of the breaker.
    async fn broken(&self, way: &Way<'_>, request: Q, attempt: &Attempt) -> Attempted<R> {
        let Layers { time, circuit, .. } = way.layers;
        let Some(circuit) = circuit else { return self.limited(way, request, attempt).await };
        let passed = circuit.pass(|| time.now()).map_err(Failure::from)?;
        let attempted = self.limited(way, request, attempt).await;
        match attempted.as_ref().map_err(|failure| failure.verdict()) {
            Ok(_) => passed.ended(|| time.now(), None),
            Err(verdict @ Some(_)) => passed.ended(|| time.now(), verdict),
            // Nobody knows how it would have ended.
            Err(None) => {}
        }
        attempted
    }

    /// The layers of rate and cost, and of concurrency.
    async fn limited(&self, way: &Way<'_>, request: Q, attempt: &Attempt) -> Attempted<R> {
        let (Layers { time, limiter, slots, .. }, Declared { state, handle, price, usage, tally, .. }) =
            (way.layers, &*self.declared);
        let (mut reserved, mut permit);
        loop {
            let mut has_waited = false;
            (reserved, permit) = (None, None);
            if let Some(limiter) = limiter.get() {
                let ask = Ask::new(self.declared.cost(&request), price.as_ref().map_or(0.0, |price| price(&request)));
                let entered = limiter.enter(time.now(), ask, attempt.deadline, way.number).map_err(Failure::from)?;
                reserved = Some(match entered {
                    limiter::Entered::Passed(reserved) => reserved,
                    limiter::Entered::Waits(turn) => {
                        has_waited = true;
                        let granted = state.closing.or(Ending::Stopping, turn.granted(time)).await;
                        granted.ok_or(Failure::Ended)?.map_err(Failure::from)?
                    }
                });
            }
            // What the service calls of itself is part of a call that has its permit: to wait for another could be for
            // ever.
            if let Some(slots) = slots.as_ref().filter(|_| !handle.is_within()) {
                permit = Some(match slots.enter(way.number).map_err(Failure::from)? {
                    concurrency::Entered::Passed(permit) => permit,
                    concurrency::Entered::Waits(turn) => {
                        has_waited = true;
                        state.closing.or(Ending::Stopping, turn.granted()).await.ok_or(Failure::Ended)?
                    }
                });
            }
            // The service may have asked for a pause meanwhile.
            if !has_waited || limiter.get().is_none_or(|limiter| !limiter.is_paused(time.now())) {
                break;
            }
        }
        if state.restart.is_on() {
            state.closing.or(Ending::Stopping, state.restart.over()).await.ok_or(Failure::Ended)?;
        }
        if let Some(place) = &way.place {
            place.begins().map_err(|error| Failure::Call(self.store(Arc::new(error)).into()))?;
        }
        reserved.iter_mut().for_each(Reservation::begin);
        let attempted = self.answered(time, request, attempt, way.may_block, &mut permit).await;
        match &attempted {
            Ok(reply) => {
                permit.iter_mut().for_each(Permit::succeeded);
                way.layers.answers();
                tally.iter().for_each(|tally| state.tallies.count(tally(reply)));
                let used = usage.as_ref().and_then(|usage| usage(reply));
                if let (Some(reserved), Some(Usage { cost, spent })) = (reserved, used) {
                    reserved.settle(time.now(), Ask::new(cost, spent));
                }
            }
            Err(failure) => {
                if failure.is_throttled() {
                    permit.iter_mut().for_each(Permit::throttled);
                }
                if let Some(reserved) = reserved.filter(|_| failure.cost_nothing()) {
                    reserved.settle(time.now(), Ask::default());
                }
                if let Some(delay) = failure.retry_after() {
                    way.layers.pause(delay);
                }
            }
        }
        attempted
    }

    /// The layers of the batch and of the timeout, and the service itself. A permit stays with code that cannot be
    /// stopped.
    async fn answered(
        &self,
        time: &JobTime,
        request: Q,
        attempt: &Attempt,
        may_block: bool,
        permit: &mut Option<Permit>,
    ) -> Attempted<R> {
        let Declared { state, handle, answer, .. } = &*self.declared;
        // A batch has its own timeout.
        let timeout = self.call.timeout;
        let end = timeout.map(|timeout| time.now() + timeout);
        let inside = |permit: &Apart| Attempt { permit: permit.0.clone(), ..attempt.ending(end) };
        match answer {
            Answer::One(answer) => {
                // Its future may have code of it run on another thread, which then keeps its `Calling`.
                let apart = Apart(permit.take().map(Arc::new));
                let attempted = self.timed(time, end, answer.answer(request, inside(&apart))).await;
                *permit = apart.back();
                attempted
            }
            Answer::Blocking(answer) if may_block && end.is_none() && attempt.deadline.is_none() => {
                // The service may block itself, on what other services answer.
                self.judged(block_in_place(|| answer(request, attempt.clone())))
            }
            Answer::Blocking(answer) => {
                handle.note_caller().map_err(|error| Failure::Call(error.into()))?;
                let apart = Apart(permit.take().map(Arc::new));
                let (answer, attempt, kept) = (answer.clone(), inside(&apart), apart.0.clone());
                let ended = time.runtime().spawn_blocking(move || (answer(request, attempt), kept));
                let ended = async {
                    let ended = ended.await.map_err(|error| match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => CallError::Ended { service: self.service() },
                    });
                    let (reached, kept) = ended?;
                    drop(kept);
                    reached
                };
                let attempted = self.timed(time, end, ended).await;
                *permit = apart.back();
                attempted
            }
            Answer::Many(many) => {
                handle.note_caller().map_err(|error| Failure::Call(error.into()))?;
                let (giver, turn) = turn();
                let cost = self.declared.cost(&request);
                let &Attempt { number, deadline, .. } = attempt;
                let joined = many.queue.join(Waiting { request, attempt: number, deadline, answer: giver }, cost);
                let batches = Batches { many, state, time };
                joined.full.into_iter().flatten().for_each(|full| batches.send(full));
                joined.opened.into_iter().for_each(|number| batches.open(number));
                match state.closing.or(Ending::Stopping, turn).await {
                    Some(Some(answered)) => answered.map_err(|failure| Box::new(Failure::from(failure))),
                    Some(None) | None => Err(Failure::Ended.into()),
                }
            }
        }
    }

    async fn timed(
        &self,
        time: &JobTime,
        end: Option<Instant>,
        answer: impl Future<Output = Reached<R>>,
    ) -> Attempted<R> {
        if let Some(reached) = within(time, end, answer).await {
            let attempted = self.judged(reached);
            let is_again = attempted.as_ref().is_err_and(|failure| failure.is_again());
            // The service may have been begun anew because of this very attempt.
            if !is_again || end.is_none_or(|end| time.now() < end) {
                return attempted;
            }
        }
        let timeout = self.call.timeout.unwrap_or_default();
        Err(Failure::TimedOut { timeout, may_retry: true }.into())
    }

    fn judged(&self, reached: Reached<R>) -> Attempted<R> {
        let judged = |error| Failure::judged(error, &self.declared.state.policy).into();
        reached.map_err(Failure::Call)?.map_err(judged)
    }
}

/// A call whose code runs on another thread, where it cannot be stopped. When its caller leaves, by a timeout, a
/// deadline or a cancel, the permit stays with the code, and another call may go instead, if the policy allows it.
struct Apart(Option<Arc<Permit>>);

impl Apart {
    /// The permit, if the code has ended.
    fn back(mut self) -> Option<Permit> {
        match Arc::try_unwrap(self.0.take()?) {
            Ok(permit) => Some(permit),
            Err(with_code) => {
                self.0 = Some(with_code);
                None
            }
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let stuck = self.0.take().filter(|permit| Arc::strong_count(permit) > 1);
        stuck.into_iter().for_each(|permit| _ = permit.replace());
    }
}
