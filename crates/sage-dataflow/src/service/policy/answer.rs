//! [`Answer`]: how a service answers the requests of a method, without its types.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::batch::{Batch, Queue};
use super::calling::{Attempt, Calling, Under, WithDeadline};
use super::failure::BatchFailure;
use crate::BoxError;
use crate::service::call_error::CallError;
use crate::service::handle::{Called, ServiceHandle};
use crate::sync::Arc;

pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What reached the service, and what it answered; or why nothing did.
pub(super) type Reached<T> = Result<Result<T, BoxError>, Box<CallError>>;

/// What a service answers one request by.
pub(super) trait AnswersOne<Q, R>: Send + Sync {
    fn answer(&self, request: Q, attempt: Attempt) -> Boxed<'_, Reached<R>>;
}

pub(super) type BlockingFn<Q, R> = dyn Fn(Q, Attempt) -> Reached<R> + Send + Sync;
pub(super) type ManyFn<Q, R> =
    dyn Fn(Batch<Q>, Attempt) -> Boxed<'static, Reached<Vec<Result<R, BoxError>>>> + Send + Sync;

/// How a service answers the requests of a method.
pub(super) enum Answer<Q, R> {
    One(Box<dyn AnswersOne<Q, R>>),
    /// It blocks the thread that it runs on.
    Blocking(Arc<BlockingFn<Q, R>>),
    Many(Arc<Many<Q, R>>),
}

/// A method that answers requests together.
pub(super) struct Many<Q, R> {
    pub(super) queue: Queue<Q, Result<R, BatchFailure>>,
    pub(super) answer: Box<ManyFn<Q, R>>,
    /// How long a batch may take to be answered.
    pub(super) timeout: Option<Duration>,
}

/// An answer that is awaited.
pub(super) struct One<S, A> {
    /// A clone of it would count calls of its own.
    pub(super) service: ServiceHandle<S>,
    pub(super) answer: A,
}

impl<S, Q, R, E, F, A> AnswersOne<Q, R> for One<S, A>
where
    S: Send + Sync + 'static,
    Q: Send + 'static,
    R: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Future<Output = Result<R, E>> + Send + 'static,
    A: Fn(Calling<S>, Q) -> F + Send + Sync,
{
    fn answer(&self, request: Q, attempt: Attempt) -> Boxed<'_, Reached<R>> {
        Box::pin(reach(&self.service, attempt, move |calling| (self.answer)(calling, request)))
    }
}

/// An answer that blocks.
pub(super) fn blocking<S, Q, R, E>(
    service: ServiceHandle<S>,
    answer: impl Fn(&S, Q) -> Result<R, E> + Send + Sync + 'static,
) -> Arc<BlockingFn<Q, R>>
where
    S: Send + Sync + 'static,
    E: Into<BoxError>,
{
    Arc::new(move |request, attempt| {
        let _under = Under::enter(attempt.deadline);
        service.call_judged(|service| answer(service, request).map_err(Into::into), judged).map_err(Box::new)
    })
}

/// An answer to a batch that is awaited.
pub(super) fn many<S, Q, R, E, F>(
    service: ServiceHandle<S>,
    answer: impl Fn(Calling<S>, Batch<Q>) -> F + Send + Sync + 'static,
) -> Box<ManyFn<Q, R>>
where
    S: Send + Sync + 'static,
    Q: Send + Sync + 'static,
    R: Send + 'static,
    E: Into<BoxError> + 'static,
    F: Future<Output = Result<Vec<Result<R, BoxError>>, E>> + Send + 'static,
{
    // A clone of the handle itself would count calls of its own.
    let means = Arc::new((service, answer));
    Box::new(move |batch, attempt| {
        let means = means.clone();
        Box::pin(async move { reach(&means.0, attempt, |calling| (means.1)(calling, batch)).await })
    })
}

async fn reach<S, R, E, F>(
    service: &ServiceHandle<S>,
    attempt: Attempt,
    answer: impl FnOnce(Calling<S>) -> F,
) -> Reached<R>
where
    S: Send + Sync + 'static,
    E: Into<BoxError>,
    F: Future<Output = Result<R, E>>,
{
    let Attempt { deadline, .. } = attempt;
    let answered = service
        .call_async(|service| {
            let _under = Under::enter(deadline);
            WithDeadline { deadline, future: answer(Calling::new(service, attempt)) }
        })
        .await?;
    if answered.is_err() {
        service.note_error();
    }
    Ok(answered.map_err(Into::into))
}

fn judged<R>(answered: &Result<R, BoxError>) -> Called {
    if answered.is_err() { Called::Failed } else { Called::Returned }
}
