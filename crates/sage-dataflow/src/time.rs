//! Event time: when a record happened, as the record itself says, and the windows that it is cut into.
//!
//! Time is counted in whole milliseconds since 1970-01-01 00:00 UTC, and is negative before it. Windows of a fixed
//! length are aligned to that moment, whatever the first record's time. Everything here is plain data; the operators
//! are in `operator/window.rs` and `operator/session.rs`, the arithmetic of windows in `operator/grid.rs`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment in event time: milliseconds since 1970-01-01 00:00 UTC, negative before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment, before every record.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment, after every record: the watermark at the end of input.
    pub const MAX: Self = Self(i64::MAX);

    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The moment `duration` later, in whole milliseconds; at most [`Timestamp::MAX`].
    #[must_use]
    pub fn later(self, duration: Duration) -> Self {
        Self(clamped(i128::from(self.0) + whole_millis(duration)))
    }

    /// The moment `duration` earlier, in whole milliseconds; at least [`Timestamp::MIN`].
    #[must_use]
    pub fn earlier(self, duration: Duration) -> Self {
        Self(clamped(i128::from(self.0) - whole_millis(duration)))
    }
}

impl From<SystemTime> for Timestamp {
    /// Rounds towards the past.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(clamped(whole_millis(since))),
            Err(before) => {
                let before = before.duration();
                let part = i128::from(!before.subsec_nanos().is_multiple_of(1_000_000));
                Self(clamped(-whole_millis(before) - part))
            }
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A duration in whole milliseconds, below 2^75; a part of one is dropped.
#[inline]
pub(crate) fn whole_millis(duration: Duration) -> i128 {
    duration.as_millis() as i128
}

/// The nearest moment that a timestamp can hold.
#[inline]
pub(crate) fn clamped(millis: i128) -> i64 {
    i64::try_from(millis).unwrap_or(if millis < 0 { i64::MIN } else { i64::MAX })
}

/// A record and its event time. [`Stream::with_timestamps`](crate::Stream::with_timestamps) makes a stream of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timed<T> {
    /// When the record happened.
    pub time: Timestamp,
    /// The record.
    pub value: T,
}

impl<T> Timed<T> {
    /// A record that happened at `time`.
    pub const fn new(time: Timestamp, value: T) -> Self {
        Self { time, value }
    }

    /// Replaces the record by the result of `function`; the moment stays.
    pub fn map<O>(self, function: impl FnOnce(T) -> O) -> Timed<O> {
        Timed { time: self.time, value: function(self.value) }
    }
}

/// How far out of order the records of a source may be, and when a replica that gives no records counts as idle.
///
/// A stream's watermark is the latest time seen minus the bound: no earlier record is expected. A window waits for the
/// watermark to pass its end, so a larger bound means later results and fewer late records.
///
/// ```
/// use std::time::Duration;
/// use sage::OutOfOrder;
///
/// let order = OutOfOrder::by(Duration::from_secs(5)).idle_after(Duration::from_secs(60));
/// # let _ = order;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfOrder {
    pub(crate) bound: Duration,
    pub(crate) idle_after: Option<Duration>,
}

impl OutOfOrder {
    /// Sets the bound, in whole milliseconds: a record may be this much older than the newest one before it. Zero means
    /// that records come in order.
    pub const fn by(bound: Duration) -> Self {
        Self { bound, idle_after: None }
    }

    /// Counts a replica that has given no record for `limit` as idle: windows downstream do not wait for it until its
    /// next record, which may then be late. Default: a replica never counts as idle.
    ///
    /// The engine looks at the time when it asks the replica for a batch and there is none. So a source should answer
    /// [`Next::Idle`](crate::Next::Idle) rather than block, or be separated by
    /// [`on_another_thread`](crate::Stream::on_another_thread).
    #[must_use]
    pub const fn idle_after(self, limit: Duration) -> Self {
        Self { idle_after: Some(limit), ..self }
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        self.idle_after.is_some_and(|limit| limit.is_zero()).then_some("`idle_after` is zero; it needs a time")
    }
}

/// The span of event time that a result is about: from `start` on, and before `end`.
///
/// If a window begins before [`Timestamp::MIN`] or ends after [`Timestamp::MAX`], that moment stands in its place. A
/// window that ends at [`Timestamp::MAX`] includes that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// The first moment in the window.
    pub start: Timestamp,
    /// The first moment after the window.
    pub end: Timestamp,
}

impl Window {
    /// Whether `time` is in the window.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.start <= time && time <= self.last()
    }

    /// The last moment in the window, which is the event time of its result.
    pub fn last(&self) -> Timestamp {
        if self.end == Timestamp::MAX { self.end } else { Timestamp(self.end.0.saturating_sub(1)) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start.0, self.end.0)
    }
}

/// A window's result for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Windowed<K, V> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
    /// The result.
    pub value: V,
    /// Whether the job ended before the window did, so that records of the window may be missing: see
    /// [`OnSignal::Emit`](crate::OnSignal::Emit).
    #[serde(default)]
    pub partial: bool,
}

fn too_short(duration: Duration) -> bool {
    whole_millis(duration) < 1
}

/// Windows of one length that follow each other without gaps: each record is in exactly one. They begin at multiples of
/// their length since the epoch, and before it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tumbling {
    pub(crate) size: Duration,
}

impl Tumbling {
    /// Windows of length `size`, in whole milliseconds, at least 1.
    pub const fn of(size: Duration) -> Self {
        Self { size }
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        too_short(self.size).then_some("the windows are shorter than 1 ms; give `Tumbling::of` a longer time")
    }
}

/// Windows of one length that overlap: a window begins at every multiple of `every` since the epoch, and a record is in
/// each window that contains its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sliding {
    pub(crate) size: Duration,
    pub(crate) every: Duration,
}

impl Sliding {
    /// The most windows that one record may be in. Each of them is kept, and updated for each record: windows of an
    /// hour every millisecond would be 3.6 million.
    pub const MAX_WINDOWS: u64 = 100_000;

    /// Windows of length `size`, of which one begins every `every`. Both are in whole milliseconds, at least 1. `every`
    /// is at most `size`, or records between two windows would be in none, and at least `size` divided by
    /// [`MAX_WINDOWS`](Self::MAX_WINDOWS).
    pub const fn of(size: Duration, every: Duration) -> Self {
        Self { size, every }
    }

    pub(crate) fn problem(&self) -> Option<String> {
        if too_short(self.size) || too_short(self.every) {
            let why = "the windows, or the steps between them, are shorter than 1 ms; give `Sliding::of` longer times";
            return Some(why.to_owned());
        }
        if self.every > self.size {
            return Some("the windows begin further apart than they are long: records would be in none".to_owned());
        }
        let windows = self.size.as_millis().div_ceil(self.every.as_millis());
        (windows > u128::from(Self::MAX_WINDOWS)).then(|| {
            format!(
                "each record would be in {windows} windows, and {} is the most; let them begin further apart, or make \
                 them shorter",
                Self::MAX_WINDOWS
            )
        })
    }
}

/// Windows of activity: the records of a key that follow each other in less than a gap. A session lasts from its first
/// record until one gap after its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub(crate) gap: Duration,
}

impl Session {
    /// A session ends when its key has no record for `gap`, in whole milliseconds, at least 1. Two records exactly
    /// `gap` apart are in two sessions.
    pub const fn gap(gap: Duration) -> Self {
        Self { gap }
    }
}

/// Windows of a fixed number of records of a key, in the order in which they come, whatever their times. At the end of
/// input, a key's last window is emitted with the records it has. A window goes from its earliest record to 1 ms after
/// its latest. No record is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub(crate) records: u64,
}

impl Count {
    /// Windows of `records` records each, at least 1.
    pub const fn of(records: u64) -> Self {
        Self { records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_round_towards_the_past() {
        let before = |nanos| Timestamp::from(UNIX_EPOCH - Duration::from_nanos(nanos)).millis();
        assert_eq!(before(0), 0);
        assert_eq!(before(1), -1);
        assert_eq!(before(1_000_000), -1);
        assert_eq!(before(1_000_001), -2);
        assert_eq!(Timestamp::from(UNIX_EPOCH + Duration::from_nanos(1_999_999)).millis(), 1);
    }

    #[test]
    fn times_do_not_overflow() {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        assert_eq!(Timestamp::MAX.later(year), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.earlier(year), Timestamp::MIN);
        assert_eq!(Timestamp::MIN.later(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.earlier(Duration::MAX), Timestamp::MIN);
        assert_eq!(Timestamp::MIN.later(Duration::from_millis(u64::MAX)), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.earlier(Duration::from_millis(u64::MAX)), Timestamp::MIN);
        assert_eq!(Timestamp::from_millis(-5).later(Duration::from_millis(1 << 63)).millis(), i64::MAX - 4);
        let [before, after] = [UNIX_EPOCH.checked_sub(year * 400_000_000), UNIX_EPOCH.checked_add(year * 400_000_000)];
        assert_eq!(before.map(Timestamp::from), Some(Timestamp::MIN));
        assert_eq!(after.map(Timestamp::from), Some(Timestamp::MAX));
    }

    #[test]
    fn a_window_at_the_end_of_time_has_its_last_moment_in_it() {
        let window = |start, end| Window { start: Timestamp(start), end: Timestamp(end) };
        assert!(window(i64::MAX - 1, i64::MAX).contains(Timestamp::MAX));
        assert_eq!(window(i64::MAX, i64::MAX).last(), Timestamp::MAX);
        assert!(!window(0, 5).contains(Timestamp(5)));
        assert_eq!(window(0, 5).last(), Timestamp(4));
    }
}
