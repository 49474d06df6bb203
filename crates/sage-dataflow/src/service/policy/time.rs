//! The time of policies: that of the job's clock, which a test may hold still and move.

use std::future::Future;
use std::time::Instant;

/// Tells the time, and waits for a moment to come. Cheap to clone.
pub(super) trait Time: Clone + Send + Sync + 'static {
    /// Waits for a moment.
    type Sleep: Future<Output = ()> + Send;

    /// The time now.
    fn now(&self) -> Instant;

    /// Waits until it is `moment`. Nothing wakes before it is polled.
    fn sleep_until(&self, moment: Instant) -> Self::Sleep;
}

/// A clock for tests of one layer, which stands still until it is moved.
#[cfg(test)]
pub(super) mod tests {
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    #[derive(Clone)]
    pub(in super::super) struct ManualTime(Arc<Mutex<Hands>>);

    struct Hands {
        now: Instant,
        wakers: Vec<(Instant, Waker)>,
    }

    pub(in super::super) struct ManualSleep {
        time: ManualTime,
        until: Instant,
    }

    impl ManualTime {
        pub(in super::super) fn new() -> Self {
            Self(Arc::new(Mutex::new(Hands { now: Instant::now(), wakers: Vec::new() })))
        }

        /// Moves the clock on, and wakes whoever waited for a moment that has come.
        pub(in super::super) fn advance(&self, duration: Duration) {
            let mut hands = self.0.lock().unwrap();
            hands.now += duration;
            let now = hands.now;
            let (due, rest) = std::mem::take(&mut hands.wakers).into_iter().partition(|(until, _)| *until <= now);
            hands.wakers = rest;
            drop(hands);
            let due: Vec<(Instant, Waker)> = due;
            due.into_iter().for_each(|(_, waker)| waker.wake());
        }

        /// The first moment that somebody waits for.
        pub(in super::super) fn next(&self) -> Option<Instant> {
            self.0.lock().unwrap().wakers.iter().map(|(until, _)| *until).min()
        }
    }

    impl Time for ManualTime {
        type Sleep = ManualSleep;

        fn now(&self) -> Instant {
            self.0.lock().unwrap().now
        }

        fn sleep_until(&self, until: Instant) -> ManualSleep {
            ManualSleep { time: self.clone(), until }
        }
    }

    impl Future for ManualSleep {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            let mut hands = self.time.0.lock().unwrap();
            if hands.now >= self.until {
                return Poll::Ready(());
            }
            hands.wakers.push((self.until, cx.waker().clone()));
            Poll::Pending
        }
    }
}
