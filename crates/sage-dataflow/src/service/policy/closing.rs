//! [`Closing`]: ends the waits of calls when their service stops or their job is cancelled.
//!
//! Invariant: a wait that begins after the word has changed sees it, and one that began before is woken: both look at
//! the word under the lock under which it is changed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::sync::{AtomicU8, Mutex, Ordering, lock};
use super::turn::wake;

/// How far the end of a service's calls has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Ending {
    /// Not begun.
    Not,
    /// The service stops: what has reached it may end, and nothing else begins.
    Stopping,
    /// The job is cancelled: every call ends now.
    Cancelled,
}

/// The end of a service's calls.
#[derive(Debug)]
pub(super) struct Closing {
    word: AtomicU8,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Closing {
    pub(super) fn new() -> Self {
        Self { word: AtomicU8::new(Ending::Not as u8), waiting: Mutex::default() }
    }

    pub(super) fn ending(&self) -> Ending {
        match self.word.load(Ordering::Acquire) {
            0 => Ending::Not,
            1 => Ending::Stopping,
            _ => Ending::Cancelled,
        }
    }

    /// Another run begins.
    pub(super) fn reset(&self) {
        self.word.store(Ending::Not as u8, Ordering::Release);
    }

    /// The end has come so far; a step back is ignored. Wakes every wait.
    pub(super) fn advance(&self, ending: Ending) {
        let wakers = {
            let mut waiting = lock(&self.waiting);
            if self.ending() >= ending {
                return;
            }
            self.word.store(ending as u8, Ordering::Release);
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_values().for_each(wake);
    }

    /// Waits for `wait`, unless the end comes as far as `until` before: then `None`. The wait is dropped with it.
    pub(super) fn or<F: Future>(&self, until: Ending, wait: F) -> Or<'_, F> {
        Or { until, place: Place { closing: self, number: None }, wait }
    }
}

/// The place of a wait among those to be woken.
struct Place<'a> {
    closing: &'a Closing,
    number: Option<u64>,
}

impl Place<'_> {
    /// Sees to it that a change wakes `waker`; false if it has come.
    fn take(&mut self, until: Ending, waker: &Waker) -> bool {
        let mut waiting = lock(&self.closing.waiting);
        if self.closing.ending() >= until {
            return false;
        }
        let Waiting { next, wakers } = &mut *waiting;
        let number = *self.number.get_or_insert_with(|| {
            *next += 1;
            *next
        });
        let replaced = match wakers.get_mut(&number) {
            Some(known) if known.will_wake(waker) => None,
            Some(known) => Some(std::mem::replace(known, waker.clone())),
            None => wakers.insert(number, waker.clone()),
        };
        drop(waiting);
        drop(replaced);
        true
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = lock(&self.closing.waiting).wakers.remove(&number);
            drop(waker);
        }
    }
}

pin_project! {
    /// See [`Closing::or`].
    pub(super) struct Or<'a, F> {
        until: Ending,
        place: Place<'a>,
        #[pin]
        wait: F,
    }
}

impl<F: Future> Future for Or<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.place.closing.ending() >= *this.until {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = this.wait.poll(cx) {
            return Poll::Ready(Some(output));
        }
        if this.place.take(*this.until, cx.waker()) { Poll::Pending } else { Poll::Ready(None) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wait_ends_when_the_end_has_come_far_enough() {
        let (closing, woken) = (Closing::new(), Arc::new(Woken(AtomicU32::new(0))));
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut waits = [Ending::Stopping, Ending::Cancelled]
            .map(|until| Box::pin(closing.or(until, std::future::pending::<()>())));
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut cx).is_pending()));
        closing.advance(Ending::Stopping);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        let [stopping, cancelled] = &mut waits;
        assert_eq!(stopping.as_mut().poll(&mut cx), Poll::Ready(None));
        assert_eq!(cancelled.as_mut().poll(&mut cx), Poll::Pending);
        closing.advance(Ending::Cancelled);
        assert_eq!(cancelled.as_mut().poll(&mut cx), Poll::Ready(None));
        closing.advance(Ending::Stopping);
        assert_eq!(closing.ending(), Ending::Cancelled);
    }

    #[test]
    fn a_wait_that_is_dropped_is_woken_no_more() {
        let (closing, woken) = (Closing::new(), Arc::new(Woken(AtomicU32::new(0))));
        let waker = Waker::from(woken.clone());
        let mut wait = Box::pin(closing.or(Ending::Cancelled, std::future::pending::<()>()));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(wait);
        closing.advance(Ending::Cancelled);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_there_already_is_given_until_the_end() {
        let closing = Closing::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Box::pin(closing.or(Ending::Stopping, async { 7 })).as_mut().poll(&mut cx), Poll::Ready(Some(7)));
        closing.advance(Ending::Stopping);
        assert_eq!(Box::pin(closing.or(Ending::Stopping, async { 7 })).as_mut().poll(&mut cx), Poll::Ready(None));
        assert_eq!(Box::pin(closing.or(Ending::Cancelled, async { 7 })).as_mut().poll(&mut cx), Poll::Ready(Some(7)));
    }
}
