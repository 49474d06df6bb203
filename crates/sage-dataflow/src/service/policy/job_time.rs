//! [`JobTime`]: the time of a job's clock, for its policies.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use super::time::Time;
use crate::clock::{Clock, Sleeper};

/// The time of a job's clock.
#[derive(Debug, Clone)]
pub(super) struct JobTime {
    clock: Clock,
    /// Where timers run.
    runtime: Handle,
}

impl JobTime {
    pub(super) fn new(clock: Clock, runtime: Handle) -> Self {
        Self { clock, runtime }
    }

    /// The job's async runtime.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Time for JobTime {
    type Sleep = JobSleep;

    #[inline]
    fn now(&self) -> Instant {
        self.clock.instant()
    }

    fn sleep_until(&self, moment: Instant) -> JobSleep {
        JobSleep { time: self.clone(), moment, timer: None, sleeper: Sleeper::new(self.clock.clone()) }
    }
}

pin_project! {
    /// Waits until a job's clock tells a moment.
    pub(super) struct JobSleep {
        time: JobTime,
        moment: Instant,
        #[pin]
        timer: Option<tokio::time::Sleep>,
        sleeper: Sleeper,
    }
}

impl Future for JobSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if !this.time.clock.runs() {
            return if this.sleeper.wake_at(*this.moment, cx.waker()) { Poll::Ready(()) } else { Poll::Pending };
        }
        if this.timer.is_none() {
            // A timer is made where it is known which runtime is to run it.
            let _inside = this.time.runtime.enter();
            this.timer.set(Some(tokio::time::sleep_until((*this.moment).into())));
        }
        ready!(this.timer.as_pin_mut().expect("it has just been made").poll(cx));
        Poll::Ready(())
    }
}
