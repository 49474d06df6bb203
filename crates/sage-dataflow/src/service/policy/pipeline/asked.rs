//! [`Asked`]: a call of a pipeline, as a record that carries its caller; [`Asker`], the caller's end.
//!
//! Invariant: a caller gets one answer or one error. Whoever gives the first takes the way to the caller out under a
//! lock; when the last clone of the caller's end is dropped with it still inside, the caller is told so.

use std::fmt;
use std::time::Instant;

use super::Counts;
use crate::BoxError;
use crate::service::policy::turn::Giver;
use crate::service::policy::verdict::{ServiceError, Verdict};
use crate::sync::{Arc, Mutex, PoisonError, lock};

/// A call of a pipeline that is a service: the request, or what has become of it so far, and the caller, who waits for
/// the answer.
///
/// Steps pass the caller along with [`with`](Self::with) or [`map`](Self::map), and
/// [`answer`](crate::Stream::answer) at the end of the pipeline hands the value to it. If the record is dropped on the
/// way, because it was filtered, failed, or was lost in a cancel, the caller gets an [`Unanswered`] at once. So a step
/// that gathers records has to keep them.
///
/// See [`Environment::register_pipeline`](crate::Environment::register_pipeline).
pub struct Asked<Q, R> {
    request: Q,
    caller: Asker<R>,
}

impl<Q, R> Asked<Q, R> {
    pub(super) fn new(request: Q, caller: Asker<R>) -> Self {
        Self { request, caller }
    }

    /// The request, or what has become of it.
    pub fn request(&self) -> &Q {
        &self.request
    }

    /// The same call with another value: what has become of the request.
    pub fn with<V>(self, value: V) -> Asked<V, R> {
        Asked { request: value, caller: self.caller }
    }

    /// The same call with what `function` makes of the request.
    pub fn map<V>(self, function: impl FnOnce(Q) -> V) -> Asked<V, R> {
        let Self { request, caller } = self;
        Asked { request: function(request), caller }
    }

    /// The request and its caller, for a step that works on several records at a time.
    pub fn into_parts(self) -> (Q, Asker<R>) {
        (self.request, self.caller)
    }

    /// Ends the call with an error, which the policy judges as one that the service answered with.
    pub fn fail(self, error: impl Into<BoxError>) {
        self.caller.fail(error);
    }

    /// See [`Asker::deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        self.caller.deadline()
    }

    /// See [`Asker::is_waiting`].
    pub fn is_waiting(&self) -> bool {
        self.caller.is_waiting()
    }

    pub(crate) fn caller(&self) -> &Asker<R> {
        &self.caller
    }
}

impl<R> Asked<R, R> {
    /// Answers the call with its value.
    pub fn answer(self) {
        self.caller.answer(self.request);
    }
}

impl<Q: Clone, R> Clone for Asked<Q, R> {
    fn clone(&self) -> Self {
        Self { request: self.request.clone(), caller: self.caller.clone() }
    }
}

impl<Q: fmt::Debug, R> fmt::Debug for Asked<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("request", &self.request).finish_non_exhaustive()
    }
}

/// What a caller gets.
pub(super) enum Reply<R> {
    Answer(R),
    Error(BoxError),
    /// The source ended before it took the request.
    NotTaken,
}

/// The caller of a pipeline, who waits for one answer. When the last clone is dropped without an answer, the caller
/// gets an [`Unanswered`] at once.
pub struct Asker<R>(Arc<Caller<R>>);

struct Caller<R> {
    way: Mutex<Way<R>>,
    deadline: Option<Instant>,
    counts: Arc<dyn Counts>,
}

struct Way<R> {
    giver: Option<Giver<Reply<R>>>,
    /// Whether the source has taken the request, so that it counts as inside.
    is_inside: bool,
}

impl<R> Asker<R> {
    pub(super) fn new(giver: Giver<Reply<R>>, deadline: Option<Instant>, counts: Arc<dyn Counts>) -> Self {
        let way = Mutex::new(Way { giver: Some(giver), is_inside: false });
        Self(Arc::new(Caller { way, deadline, counts }))
    }

    /// Answers the call. It is answered once: a further answer is dropped and counted, as one is that comes when the
    /// caller has left.
    pub fn answer(&self, answer: R) {
        self.0.reply(Reply::Answer(answer));
    }

    /// Ends the call with an error, which the policy judges as one that the service answered with.
    pub fn fail(&self, error: impl Into<BoxError>) {
        self.0.reply(Reply::Error(error.into()));
    }

    /// The moment after which the caller does not wait any more, if its policy sets one.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Whether the caller waits for its answer: it has none, and has not left, as at a timeout.
    pub fn is_waiting(&self) -> bool {
        lock(&self.0.way).giver.as_ref().is_some_and(|giver| !giver.is_left())
    }

    /// The source takes the request.
    pub(crate) fn enters(&self) {
        lock(&self.0.way).is_inside = true;
    }

    /// The source has ended before it took the request.
    pub(super) fn is_not_taken(&self) {
        self.0.reply(Reply::NotTaken);
    }
}

impl<R> Caller<R> {
    fn reply(&self, reply: Reply<R>) {
        let (giver, is_inside) = {
            let mut way = lock(&self.way);
            (way.giver.take(), std::mem::take(&mut way.is_inside))
        };
        if is_inside {
            self.counts.release(true);
        }
        let refused = match giver {
            Some(giver) => giver.give(reply).err(),
            None => {
                self.counts.answered_again();
                Some(reply)
            }
        };
        // Outside of every lock: it is the user's.
        drop(refused);
    }
}

impl<R> Drop for Caller<R> {
    fn drop(&mut self) {
        let way = self.way.get_mut().unwrap_or_else(PoisonError::into_inner);
        if way.is_inside {
            self.counts.release(false);
        }
    }
}

impl<R> Clone for Asker<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R> fmt::Debug for Asker<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("is_waiting", &self.is_waiting()).finish_non_exhaustive()
    }
}

/// The error of a call whose record was dropped before it was answered: a step has filtered it or has failed with it,
/// or the pipeline has ended. It is [`Verdict::Bad`]: the same request would be dropped again.
#[derive(Debug, thiserror::Error)]
#[error(
    "the pipeline dropped the record of this call without an answer: a step has filtered it, or has failed with it"
)]
#[non_exhaustive]
pub struct Unanswered;

impl Unanswered {
    pub(super) fn error() -> BoxError {
        ServiceError::new(Verdict::Bad, Self).into()
    }
}
