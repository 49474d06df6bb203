//! A pipeline as a service: a call becomes a record, and the answer is what the pipeline makes of it.
//!
//! [`Served`] is what the callers, the source and the dispatcher of a pipeline share. In each run it has a [`Queue`] of
//! its own, so that what one run leaves behind, such as a record that a user has kept, does not meddle with the next.
//!
//! Knows nothing of streams and tasks.

mod asked;
mod queue;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, Waker};
use std::time::Instant;

use asked::Reply;
pub use asked::{Asked, Asker, Unanswered};
use queue::{Figures, Phase, Queue, Taken};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, AnswersOne, Boxed, Reached};
use super::calling::Attempt;
use super::closing::{Closing, Ending};
use super::method::{MethodBuilder, PolicyService};
use super::state::PolicyState;
use super::turn::turn;
use crate::BoxError;
use crate::service::Service;
use crate::service::call_error::CallError;
use crate::service::handle::{ServiceHandle, ServiceRef};
use crate::service::state::ServiceState;
use crate::sync::{self, Arc, Mutex, lock};

/// How many calls of a pipeline may be records at once, if nothing else is said.
pub(crate) const AT_ONCE: usize = 1024;

/// What the dispatcher tells a pipeline that serves.
pub trait Serves: Send + Sync {
    /// The tasks start: calls are let in from now on.
    fn opens(&self);
    /// No task is left that could call: the source ends when it has taken what waits.
    fn ends(&self);
}

/// What a record's caller tells the queue it came from.
trait Counts: Send + Sync {
    fn release(&self, is_answered: bool);
    fn answered_again(&self);
}

impl<T: Send> Counts for Queue<T> {
    fn release(&self, is_answered: bool) {
        Self::release(self, is_answered);
    }

    fn answered_again(&self) {
        Self::answered_again(self);
    }
}

/// What the calls of a pipeline have come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PipelineReport {
    /// Calls that wait to become records.
    pub waiting: u64,
    /// Calls that are records and not answered yet.
    pub inside: u64,
    /// Calls whose record was dropped without an answer.
    pub unanswered: u64,
    /// Answers to calls that had theirs.
    pub answered_again: u64,
}

/// Tells what the calls of a pipeline have come to.
pub(crate) trait Told: Send + Sync {
    fn report(&self) -> PipelineReport;
}

type Calls<Q, R> = Arc<Queue<Asked<Q, R>>>;

/// What the callers, the source and the dispatcher of a pipeline share.
pub(crate) struct Served<Q, R> {
    at_once: usize,
    /// Of the run in progress, or of the last one.
    calls: Mutex<Calls<Q, R>>,
}

impl<Q: Send + 'static, R: Send + 'static> Served<Q, R> {
    pub(crate) fn new(at_once: usize) -> Arc<Self> {
        let calls = Mutex::new(Arc::new(Queue::new(at_once)));
        Arc::new(Self { at_once, calls })
    }

    fn calls(&self) -> Calls<Q, R> {
        lock(&self.calls).clone()
    }

    /// Another run begins: its requests, for the source.
    pub(crate) fn begin(&self) -> Incoming<Q, R> {
        let calls = Arc::new(Queue::new(self.at_once));
        let before = std::mem::replace(&mut *lock(&self.calls), calls.clone());
        drop(before);
        Incoming(calls)
    }

    /// Has the pipeline answer a request: its value, its error, or the state in which it takes no requests.
    async fn call(
        &self,
        request: Q,
        deadline: Option<Instant>,
        closing: &Closing,
    ) -> Result<Result<R, BoxError>, ServiceState> {
        let calls = self.calls();
        let (giver, mut turn) = turn();
        let asked = Asked::new(request, Asker::new(giver, deadline, calls.clone()));
        let number = match calls.push(asked) {
            Ok(number) => number,
            Err((asked, phase)) => {
                drop(asked);
                return Err(if phase == Phase::Starting { ServiceState::Initialising } else { ServiceState::Stopping });
            }
        };
        let _place = Place { calls, number };
        let reply = match closing.or(Ending::Stopping, &mut turn).await {
            Some(reply) => reply,
            // It may have come just before the end.
            None => {
                poll_fn(|cx| match Pin::new(&mut turn).poll(cx) {
                    Poll::Ready(reply) => Poll::Ready(reply),
                    Poll::Pending => Poll::Ready(Some(Reply::NotTaken)),
                })
                .await
            }
        };
        match reply {
            Some(Reply::Answer(answer)) => Ok(Ok(answer)),
            Some(Reply::Error(error)) => Ok(Err(error)),
            Some(Reply::NotTaken) => Err(ServiceState::Stopping),
            None => Ok(Err(Unanswered::error())),
        }
    }
}

impl<Q: Send + 'static, R: Send + 'static> Serves for Served<Q, R> {
    fn opens(&self) {
        self.calls().open();
    }

    fn ends(&self) {
        self.calls().end();
    }
}

impl<Q: Send + 'static, R: Send + 'static> Told for Served<Q, R> {
    fn report(&self) -> PipelineReport {
        let Figures { waiting, inside, answered_again, unanswered } = self.calls().figures();
        PipelineReport { waiting: waiting as u64, inside: inside as u64, unanswered, answered_again }
    }
}

/// A caller's place in the queue: a request that still waits when the caller leaves is taken back.
struct Place<Q, R> {
    calls: Calls<Q, R>,
    number: u64,
}

impl<Q, R> Drop for Place<Q, R> {
    fn drop(&mut self) {
        drop(self.calls.take_back(self.number));
    }
}

/// The requests of a run, as its source takes them. When it is dropped, callers that wait get their error.
pub(crate) struct Incoming<Q, R>(Calls<Q, R>);

impl<Q, R> Incoming<Q, R> {
    /// The next request; `None` when there is none just now, and `waker` is woken when there is.
    pub(crate) fn take(&self, waker: &Waker) -> Poll<Option<Asked<Q, R>>> {
        match self.0.take(waker) {
            Taken::Request(asked) => {
                asked.caller().enters();
                Poll::Ready(Some(asked))
            }
            Taken::Nothing => Poll::Pending,
            Taken::End => Poll::Ready(None),
        }
    }

    /// Takes no more.
    pub(crate) fn close(&self) {
        for (_, asked) in self.0.close() {
            asked.caller().is_not_taken();
        }
    }
}

impl<Q, R> Drop for Incoming<Q, R> {
    fn drop(&mut self) {
        self.close();
    }
}

/// A pipeline, as the value of its service.
pub(crate) struct Pipeline<Q, R>(pub(crate) Arc<Served<Q, R>>);

impl<Q: Send + 'static, R: Send + 'static> Service for Pipeline<Q, R> {}

/// The answer of a pipeline.
struct Answers<Q, R> {
    service: ServiceHandle<Pipeline<Q, R>>,
    state: Arc<PolicyState>,
}

impl<Q: Send + 'static, R: Send + 'static> AnswersOne<Q, R> for Answers<Q, R> {
    fn answer(&self, request: Q, Attempt { deadline, .. }: Attempt) -> Boxed<'_, Reached<R>> {
        let Self { service, state } = self;
        Box::pin(async move {
            let served = |pipeline: ServiceRef<Pipeline<Q, R>>| async move {
                pipeline.0.call(request, deadline, &state.closing).await
            };
            let answered = service.call_async(served).await?;
            let answered =
                answered.map_err(|state| CallError::NotServing { service: service.name().to_owned(), state })?;
            if answered.is_err() {
                service.note_error();
            }
            Ok(answered)
        })
    }
}

impl<Q: Send + 'static, R: Send + 'static> PolicyService<Pipeline<Q, R>> {
    /// The one method of a pipeline.
    pub(crate) fn pipeline_method(&self) -> MethodBuilder<Q, R> {
        let answers = Answers { service: self.handle().clone(), state: self.state_of_calls().clone() };
        self.declare("call".to_owned(), Answer::One(Box::new(answers)))
    }
}
