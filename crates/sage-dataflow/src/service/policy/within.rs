//! [`within`]: gives a future until a moment to end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

use super::time::Time;

/// Waits for `future` until `moment` at most: `None` if that has come first. The timer is made when the future first
/// has to wait.
pub(super) fn within<T: Time, F: Future>(time: &T, moment: Option<Instant>, future: F) -> Within<'_, T, F> {
    Within { time, moment, sleep: None, future }
}

pin_project! {
    /// See [`within`].
    pub(super) struct Within<'a, T: Time, F> {
        time: &'a T,
        moment: Option<Instant>,
        #[pin]
        sleep: Option<T::Sleep>,
        #[pin]
        future: F,
    }
}

impl<T: Time, F: Future> Future for Within<'_, T, F> {
    type Output = Option<F::Output>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(moment) = *this.moment else { return Poll::Pending };
        if this.sleep.is_none() {
            this.sleep.set(Some(this.time.sleep_until(moment)));
        }
        this.sleep.as_pin_mut().expect("it has just been made").poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::Waker;
    use std::time::Duration;

    use super::super::time::tests::ManualTime;
    use super::*;

    #[test]
    fn a_future_that_is_ready_needs_no_timer_and_one_that_is_not_ends_at_its_moment() {
        let (time, mut cx) = (ManualTime::new(), Context::from_waker(Waker::noop()));
        let soon = time.now() + Duration::from_secs(1);
        let mut ended = Box::pin(within(&time, Some(soon), ready(7)));
        assert_eq!((ended.as_mut().poll(&mut cx), time.next()), (Poll::Ready(Some(7)), None));
        let mut cut = Box::pin(within(&time, Some(soon), pending::<u8>()));
        assert_eq!((cut.as_mut().poll(&mut cx), time.next()), (Poll::Pending, Some(soon)));
        time.advance(Duration::from_secs(1));
        assert_eq!(cut.as_mut().poll(&mut cx), Poll::Ready(None));
        let mut endless = Box::pin(within(&time, None, pending::<u8>()));
        assert_eq!((endless.as_mut().poll(&mut cx), time.next()), (Poll::Pending, None));
    }
}
