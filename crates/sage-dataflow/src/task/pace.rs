//! How long a task works, not counting its waits for other tasks.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static EXCUSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Says that the calling thread has waited so long for others, for a lock that one of them had: taking fewer records at
/// a time would not spare it that, so the time is not part of its pace.
#[doc(hidden)]
#[inline]
pub fn excuse(time: Duration) {
    EXCUSED.set(EXCUSED.get() + time);
}

/// How long the calling thread was [excused](excuse) so far.
#[doc(hidden)]
#[inline]
pub fn excused() -> Duration {
    EXCUSED.get()
}

/// Measures how long a task works.
pub(crate) struct Work {
    began: Instant,
    excused: Duration,
}

impl Work {
    #[inline(always)]
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), excused: excused() }
    }

    /// Without what it was excused for.
    pub(crate) fn time(&self) -> Duration {
        self.began.elapsed().saturating_sub(excused() - self.excused)
    }
}
