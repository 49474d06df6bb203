//! Sends the batches of a method, each as a task of the job's runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::answer::Many;
use super::batch::{Batch, Sent, Waiting, send};
use super::calling::Attempt;
use super::closing::Ending;
use super::failure::BatchFailure;
use super::job_time::JobTime;
use super::state::{PolicyState, count};
use super::time::Time;
use super::verdict::Verdict;
use super::within::within;
use crate::BoxError;
use crate::guarded::guard;
use crate::sync::{Arc, Ordering};

/// Sends the batches of a method, on the job's runtime: a caller that leaves keeps no other from its answer.
pub(super) struct Batches<'a, Q, R> {
    pub(super) many: &'a Arc<Many<Q, R>>,
    pub(super) state: &'a Arc<PolicyState>,
    pub(super) time: &'a JobTime,
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Batches<'_, Q, R> {
    /// Sends a batch now.
    pub(super) fn send(&self, batch: Vec<BatchWaiting<Q, R>>) {
        let sending = sending(self.many.clone(), self.state.clone(), self.time.clone(), batch);
        drop(self.time.runtime().spawn(sending));
    }

    /// Sends the batch of this number when its window has passed, if it is not full before.
    pub(super) fn open(&self, number: u64) {
        let (many, state, time) = (self.many.clone(), self.state.clone(), self.time.clone());
        drop(self.time.runtime().spawn(async move {
            let window = many.queue.settings().window();
            if !window.is_zero() {
                let end = time.now() + window;
                let _ = state.closing.or(Ending::Stopping, time.sleep_until(end)).await;
            }
            if let Some(batch) = many.queue.take(number) {
                sending(many, state, time, batch).await;
            }
        }));
    }
}

type BatchWaiting<Q, R> = Waiting<Q, Result<R, BatchFailure>>;

/// Sends a batch until each of its requests has its answer. A cancel drops it, and its callers have left then.
async fn sending<Q: Send + Sync + 'static, R: Send + 'static>(
    many: Arc<Many<Q, R>>,
    state: Arc<PolicyState>,
    time: JobTime,
    batch: Vec<BatchWaiting<Q, R>>,
) {
    let (many, state, time) = (&*many, &*state, &time);
    let answer = |batch: Batch<Q>, number, deadline| async move {
        if state.restart.is_on() {
            state.restart.over().await;
        }
        count(&state.counts.batches);
        state.counts.batched.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let end = many.timeout.map(|timeout| time.now() + timeout);
        let attempt = Attempt::new(number, deadline, None).ending(end);
        let answered = Caught { future: (many.answer)(batch, attempt) };
        match within(time, end, answered).await {
            None => Sent::Failed(BatchFailure::TimedOut(many.timeout.unwrap_or_default())),
            Some(Err(panic)) => Sent::Failed(BatchFailure::judged(panic, &state.policy)),
            Some(Ok(Err(refused))) => Sent::Failed(BatchFailure::Call(refused)),
            Some(Ok(Ok(Err(error)))) => match BatchFailure::judged(error, &state.policy) {
                bad @ BatchFailure::Answered { verdict: Verdict::Bad, .. } => Sent::Rejected(bad),
                // The service may have been begun anew because of this very batch.
                BatchFailure::Answered { verdict: Verdict::Again, .. } if end.is_some_and(|end| time.now() >= end) => {
                    Sent::Failed(BatchFailure::TimedOut(many.timeout.unwrap_or_default()))
                }
                failed => Sent::Failed(failed),
            },
            Some(Ok(Ok(Ok(answers)))) => Sent::Answered(
                answers
                    .into_iter()
                    .map(|one| one.map_err(|error| BatchFailure::judged(error, &state.policy)))
                    .collect(),
            ),
        }
    };
    let _ = state.closing.or(Ending::Cancelled, send(batch, answer)).await;
}

pin_project! {
    /// A future of a user's on a thread of the engine's: its panic is its error.
    struct Caught<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match guard(|| this.future.poll(cx)) {
            Ok(polled) => polled.map(Ok),
            Err(what) => Poll::Ready(Err(format!("it panicked: {what}").into())),
        }
    }
}
