//! A call that the job's threads work on: of `call_service_async`.
//!
//! A thread polls its future whenever that is woken, and is free for others while the call waits.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use sage::{CallError, with_deadline};

use super::answer::Answer;
use super::{Means, given};
use crate::async_call::{Call, NOT_MADE, time_left};
use crate::error::ServiceError;
use crate::thread::{attach, lock};
use crate::workers::{Begun, MOST_THREADS, Reserved, Work, Workers, entering, is_worker, leaving};

type Future = std::pin::Pin<Box<dyn std::future::Future<Output = Result<Answer, CallError>> + Send>>;

/// Whether it is to be polled.
const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const POLLED: u8 = 2;
/// It was woken while it was polled.
const AGAIN: u8 = 3;

struct Task {
    call: Arc<Call>,
    method: String,
    deadline: Option<Instant>,
    service: usize,
    workers: Arc<Workers>,
    state: AtomicU8,
    itself: Weak<Self>,
    /// Until it is over; and its place among the calls that may be under way.
    future: Mutex<Option<(Future, Reserved)>>,
}

/// Begins a call. Where as many are under way as there may be, waits for one to end, for `limit` at most.
pub(super) fn begin(
    py: Python<'_>,
    means: &Means,
    future: Future,
    method: String,
    deadline: Option<Instant>,
    limit: Option<Duration>,
    late: impl FnOnce() -> String,
) -> PyResult<Arc<Call>> {
    let (workers, service) = (means.workers.clone(), means.number);
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let reserved = loop {
        match workers.reserve() {
            Ok(reserved) => break reserved,
            Err(Begun::Over) => return Err(ServiceError::new_err(NOT_MADE)),
            Err(_) => {}
        }
        // Those who make the room wait for room.
        if limit.is_none() && is_worker() {
            return Err(ServiceError::new_err(format!(
                "{MOST_THREADS} calls of services are under way and {} wait for a thread, which is the most; this call \
                 comes from such a call and would wait for itself, so call the service without `call_service_async`",
                workers.most_queued()
            )));
        }
        match time_left(until) {
            Some(left) => py.detach(|| workers.wait_for_room(left)),
            None => return Err(PyTimeoutError::new_err(late())),
        }
        py.check_signals()?;
    };
    let call = Call::running(service);
    let future = Mutex::new(Some((future, reserved)));
    let state = AtomicU8::new(IDLE);
    let task = Arc::new_cyclic(|itself: &Weak<Task>| {
        let (call, itself) = (call.clone(), itself.clone());
        Task { call, method, deadline, service, workers, state, itself, future }
    });
    task.wake();
    Ok(call)
}

impl Task {
    fn end(&self, answer: Result<Answer, CallError>) {
        // What its callbacks do, nobody waits for.
        entering(self.service);
        attach(|py| self.call.end(py, given(py, answer, &self.method).map(Bound::unbind)));
        leaving();
        self.call.tell();
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
            IDLE => Some(QUEUED),
            POLLED => Some(AGAIN),
            _ => None,
        });
        if before == Ok(IDLE) && self.workers.begin_always(self.clone()) != Begun::Taken {
            self.refuse();
        }
    }
}

impl Work for Task {
    fn run(&self) {
        // It is in the program's code only while it is polled.
        leaving();
        let Some((mut future, mut reserved)) = lock(&self.future).take() else { return };
        let Some(itself) = self.itself.upgrade() else { return };
        let waker = Waker::from(itself);
        loop {
            self.state.store(POLLED, Ordering::Release);
            let poll = || future.as_mut().poll(&mut Context::from_waker(&waker));
            if let Poll::Ready(answer) = with_deadline(self.deadline, poll) {
                drop((future, reserved));
                self.end(answer);
                return;
            }
            // Before it may be woken and taken by another thread.
            *lock(&self.future) = Some((future, reserved));
            if self.state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
            let Some(again) = lock(&self.future).take() else { return };
            (future, reserved) = again;
        }
    }

    fn refuse(&self) {
        let future = lock(&self.future).take();
        drop(future);
        self.call.tell();
    }

    fn is_wanted(&self) -> bool {
        true
    }

    fn service(&self) -> usize {
        self.service
    }
}
