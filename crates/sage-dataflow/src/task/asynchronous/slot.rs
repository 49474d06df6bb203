//! A place in flight: the future of a record, its further attempts and its timeout.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::function::{AsyncError, AsyncFunction, Policy, Since};
use super::parting::Leaving;
use super::polling::Rouser;
use super::wakes::{Queued, Wakes};
use crate::BoxError;
use crate::sync::FOREVER;

/// The slots whose futures can go on.
pub(super) struct Woken {
    pub(super) wakes: Wakes,
    pub(super) rouser: Rouser,
}

pub(super) struct SlotWaker {
    slot: u32,
    pub(super) queued: Queued,
    woken: Arc<Woken>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.wakes.put(self.slot, &self.queued) {
            self.woken.rouser.rouse();
        }
    }
}

pub(super) struct FlightSlot<I, F: AsyncFunction<I>> {
    /// Which record of the task's input it holds, from 1.
    pub(super) record: u64,
    future: Pin<Box<Option<F::Future>>>,
    pub(super) done: Option<Leaving<F::Out, I>>,
    /// Whether its record failed, and was let pass.
    pub(super) failed: bool,
    /// The record, for a further attempt or its dead letter.
    pub(super) kept: Option<I>,
    pub(super) attempt: u32,
    /// Whether no further attempt follows this one, as the job is drained.
    last: bool,
    /// Whether it waits, with `pause`, for its next attempt.
    pub(super) pausing: bool,
    pause: Option<Pin<Box<Sleep>>>,
    timeout: Option<Pin<Box<Sleep>>>,
    /// When the first future of the record began, if that is not when it was made.
    begun: Option<Instant>,
    pub(super) wake: Arc<SlotWaker>,
    waker: Waker,
}

/// Sets a timer that is made when it is first needed.
fn set(timer: &mut Option<Pin<Box<Sleep>>>, after: Duration) {
    let at = Instant::now() + after.min(FOREVER);
    match timer {
        Some(timer) => timer.as_mut().reset(at),
        None => *timer = Some(Box::pin(sleep_until(at))),
    }
}

fn has_passed(timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    timer.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_ready())
}

/// Notes when the first future of a record began.
fn note_begin<U>(begun: &mut Option<Instant>, future: Option<&U>, since: Since<U>) {
    *begun = begun.or_else(|| future.and_then(since).map(Instant::from_std));
}

impl<I, F: AsyncFunction<I>> FlightSlot<I, F> {
    pub(super) fn new(slot: u32, woken: &Arc<Woken>) -> Self {
        let wake = Arc::new(SlotWaker { slot, queued: Queued::new(), woken: woken.clone() });
        Self {
            record: 0,
            future: Box::pin(None),
            done: None,
            failed: false,
            kept: None,
            attempt: 0,
            last: false,
            pausing: false,
            pause: None,
            timeout: None,
            begun: None,
            waker: wake.clone().into(),
            wake,
        }
    }

    /// Whether there is something in it to poll.
    pub(super) fn is_running(&self) -> bool {
        self.pausing || self.future.is_some()
    }

    pub(super) fn start(&mut self, record: I, number: u64, function: &mut F, policy: &Policy<I>) {
        (self.record, self.attempt, self.last, self.failed) = (number, 1, false, false);
        self.kept = policy.copy.map(|copy| copy(&record));
        self.begun = None;
        if let Some(limit) = policy.timeout {
            set(&mut self.timeout, limit);
        }
        self.future.set(Some(function.call(record)));
    }

    /// Polls what is in it; `hurried` if further attempts are not to wait any more.
    pub(super) fn poll(
        &mut self,
        function: &mut F,
        policy: &Policy<I>,
        since: Option<Since<F::Future>>,
        hurried: bool,
        retries: &mut u64,
    ) -> Poll<Result<F::Out, BoxError>> {
        let cx = &mut Context::from_waker(&self.waker);
        loop {
            if self.pausing {
                if !hurried && !has_passed(&mut self.pause, cx) {
                    break;
                }
                (self.pausing, self.last) = (false, hurried);
                if let (Some(copy), Some(record)) = (policy.copy, &self.kept) {
                    *retries += 1;
                    self.attempt += 1;
                    self.future.set(Some(function.call(copy(record))));
                }
            }
            let Some(future) = self.future.as_mut().as_pin_mut() else { break };
            let Poll::Ready(output) = future.poll(cx) else { break };
            if let (Some(since), true) = (since, policy.retry.is_some()) {
                note_begin(&mut self.begun, self.future.as_ref().get_ref().as_ref(), since);
            }
            self.future.set(None);
            match (F::result(output), &policy.retry) {
                (Err(error), Some(retry)) if self.last || self.attempt >= retry.attempts || !retry.is_for(&*error) => {
                    return Poll::Ready(Err(retry.given_up(self.attempt, error)));
                }
                (Err(_), Some(retry)) => {
                    set(&mut self.pause, retry.wait(self.attempt));
                    self.pausing = true;
                }
                (result, _) => return Poll::Ready(result),
            }
        }
        match policy.timeout {
            Some(limit) if self.is_late(limit, since) => {
                // The record may still be needed, for its dead letter.
                self.pausing = false;
                self.future.set(None);
                Poll::Ready(Err(AsyncError::TimedOut { limit }.into()))
            }
            _ => Poll::Pending,
        }
    }

    /// Whether the record's time is over. Where it runs from a later moment than the timer was set for, the timer is
    /// set again.
    fn is_late(&mut self, limit: Duration, since: Option<Since<F::Future>>) -> bool {
        while has_passed(&mut self.timeout, &mut Context::from_waker(&self.waker)) {
            let Some(since) = since else { return true };
            note_begin(&mut self.begun, self.future.as_ref().get_ref().as_ref(), since);
            let now = Instant::now();
            // If it begins from now on, its time is not over before this has passed once more.
            let left = self.begun.map_or(limit, |begun| (begun + limit.min(FOREVER)).saturating_duration_since(now));
            if left.is_zero() {
                return true;
            }
            set(&mut self.timeout, left);
        }
        false
    }

    pub(super) fn clear(&mut self) {
        self.pausing = false;
        self.future.set(None);
        self.done = None;
        self.kept = None;
    }
}
