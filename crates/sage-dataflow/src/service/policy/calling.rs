//! [`Calling`]: what an answer is called with; and the deadline of the call that a thread works on, which travels
//! inward to the calls that it makes.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::concurrency::Permit;
use super::key::CallKey;
use crate::service::handle::ServiceRef;
use crate::sync::Arc;

/// What is known of one attempt of a call.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) deadline: Option<Instant>,
    /// When it is past its timeout.
    pub(super) end: Option<Instant>,
    /// Stays with code that goes on when nobody waits for it any more.
    #[expect(dead_code, reason = "it is held, and not looked at")]
    pub(super) permit: Option<Arc<Permit>>,
    /// The call's place in the journal.
    pub(super) key: Option<CallKey>,
}

impl Attempt {
    pub(super) fn new(number: u32, deadline: Option<Instant>, key: Option<CallKey>) -> Self {
        Self { number, deadline, end: None, permit: None, key }
    }

    /// The same, but its caller waits no longer than until `end`.
    pub(super) fn ending(&self, end: Option<Instant>) -> Self {
        Self { deadline: earlier(self.deadline, end), end, ..self.clone() }
    }
}

/// The earlier of two moments that there may be.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The service, and the call that it is to answer. It derefs to the service.
pub struct Calling<S> {
    service: ServiceRef<S>,
    attempt: Attempt,
}

impl<S> Calling<S> {
    pub(super) fn new(service: ServiceRef<S>, attempt: Attempt) -> Self {
        Self { service, attempt }
    }

    /// The number of this attempt: 1 for the first. That of a batch is that of its first request.
    pub fn attempt(&self) -> u32 {
        self.attempt.number
    }

    /// The moment after which nobody waits for the answer any more. That of a batch is the last of its requests'.
    pub fn deadline(&self) -> Option<Instant> {
        self.attempt.deadline
    }

    /// When this attempt is past its timeout; `None` if it has none.
    pub fn timeout(&self) -> Option<Instant> {
        self.attempt.end
    }

    /// Answers on the calling thread, where another one polls the answer's future: the calls that `work` makes to other
    /// services are this service's, and have this call's deadline.
    pub fn on_this_thread<R>(&self, work: impl FnOnce(&S) -> R) -> R {
        let (_within, _under) = (self.service.within(), Under::enter(self.attempt.deadline));
        work(&self.service)
    }

    /// The same for every attempt of a call, and for that of a later run that makes the call again: for providers that
    /// take such a key. 32 hexadecimal digits. `None` for a method that keeps no journal, and for a batch.
    pub fn idempotency_key(&self) -> Option<String> {
        self.attempt.key.map(|key| key.to_string())
    }
}

impl<S> Deref for Calling<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.service
    }
}

impl<S> fmt::Debug for Calling<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").field("service", &self.service).field("attempt", &self.attempt.number).finish()
    }
}

thread_local! {
    /// The deadline of the call that the thread works on.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The deadline of the call that the calling thread works on.
pub(super) fn inherited() -> Option<Instant> {
    DEADLINE.get()
}

/// Gives the calls that `work` begins a deadline, unless theirs is earlier: that of the call which they are a part of,
/// where the thread alone does not tell it, as in a host with an event loop of its own.
pub fn with_deadline<R>(deadline: Option<Instant>, work: impl FnOnce() -> R) -> R {
    let _under = Under::enter(earlier(inherited(), deadline));
    work()
}

/// The calling thread works on a call with this deadline, until this is dropped.
pub(super) struct Under(Option<Instant>);

impl Under {
    pub(super) fn enter(deadline: Option<Instant>) -> Self {
        Self(DEADLINE.replace(deadline))
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        DEADLINE.set(self.0);
    }
}

pin_project! {
    /// A future that is polled under the deadline of its call.
    pub(super) struct WithDeadline<F> {
        pub(super) deadline: Option<Instant>,
        #[pin]
        pub(super) future: F,
    }
}

impl<F: Future> Future for WithDeadline<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _under = Under::enter(*this.deadline);
        this.future.poll(cx)
    }
}
