//! The arithmetic of windows of one length: where they lie, and how long one still takes late records. It is right at
//! both ends of time too.
//!
//! A window may begin before the first timestamp and end after the last, and a length may be longer than all of time.
//! So starts and lengths are `i128` here, in milliseconds, and nothing overflows: the longest `Duration` has less than
//! 2^75. An end is compared with watermarks, and is an `i64`: one after the last timestamp counts as the end of time,
//! which a watermark reaches only at the end of input.

use std::time::Duration;

use crate::time::{Timestamp, Window, clamped, whole_millis};

/// Windows of one length, of which one begins at each multiple of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    size: i128,
    every: i128,
    /// The step, if there are times that far apart from the epoch.
    short_step: Option<i64>,
    /// From the first to the last of the windows that have a time in them, if it is no later than `rest` after the
    /// start of the last; otherwise there is one less.
    reach: i128,
    rest: i128,
}

impl Grid {
    /// Both in whole milliseconds. What is shorter than one counts as one: it was refused when it was declared.
    pub(crate) fn new(size: Duration, every: Duration) -> Self {
        let (size, every) = (whole_millis(size).max(1), whole_millis(every).max(1));
        let reach = (size - 1) / every * every;
        Self { size, every, short_step: i64::try_from(every).ok(), reach, rest: size - 1 - reach }
    }

    /// Whether a time is in one window only.
    #[inline]
    pub(crate) fn is_tumbling(&self) -> bool {
        self.reach == 0
    }

    /// How long the windows are.
    #[inline]
    pub(crate) fn size(&self) -> i128 {
        self.size
    }

    /// How far apart the windows begin.
    #[inline]
    pub(crate) fn every(&self) -> i128 {
        self.every
    }

    /// Where the first and the last window begin that have `time` in them.
    #[inline]
    pub(crate) fn around(&self, time: i64) -> (i128, i128) {
        let last = match self.short_step {
            Some(every) => i128::from(time.div_euclid(every)) * i128::from(every),
            None if time < 0 => -self.every,
            None => 0,
        };
        let into = i128::from(time) - last;
        let reach = if into <= self.rest { self.reach } else { self.reach - self.every };
        (last - reach, last)
    }

    /// Where the windows begin that have `time` in them and end after `expiry`, the earliest first.
    pub(crate) fn open(self, time: i64, expiry: i64) -> impl Iterator<Item = i128> {
        let (first, last) = self.around(time);
        let starts = std::iter::successors(Some(first), move |start| Some(start + self.every));
        starts.take_while(move |start| *start <= last).skip_while(move |start| self.end(*start) <= expiry)
    }

    /// When the window ends that begins at `start`.
    #[inline]
    pub(crate) fn end(&self, start: i128) -> i64 {
        clamped(start + self.size)
    }

    /// The first and the last moment of the window that begins at `start`.
    #[inline]
    pub(crate) fn moments(&self, start: i128) -> (i64, i64) {
        (clamped(start), clamped(start + self.size - 1))
    }

    /// In how many windows a time is at most, if they can be counted in numbers of 64 bits.
    pub(crate) fn most_windows(&self) -> Option<usize> {
        self.short_step.and_then(|_| usize::try_from(self.reach / self.every + 1).ok())
    }

    /// The number of the window that begins at `start`: so many steps from the epoch.
    pub(crate) fn number(&self, start: i128) -> Option<i64> {
        i64::try_from(start.div_euclid(self.every)).ok()
    }

    /// Where the window with this number begins.
    pub(crate) fn start(&self, number: i64) -> i128 {
        i128::from(number) * self.every
    }

    /// The number of the first window that ends after `watermark`, which no window does at the end of input.
    pub(crate) fn first_behind(&self, watermark: i64) -> Option<i64> {
        self.start_behind(watermark).and_then(|start| self.number(start))
    }

    /// Where the first window begins that ends after `watermark`, which no window does at the end of input.
    pub(crate) fn start_behind(&self, watermark: i64) -> Option<i128> {
        let number = (i128::from(watermark) - self.size).div_euclid(self.every) + 1;
        (watermark < i64::MAX).then_some(number * self.every)
    }

    /// The first and the last moment around `time` that are in the same windows.
    pub(crate) fn alike(&self, time: i64) -> (i64, i64) {
        let (_, last) = self.around(time);
        if i128::from(time) - last <= self.rest {
            (clamped(last), clamped(last + self.rest))
        } else {
            (clamped(last + self.rest + 1), clamped(last + self.every - 1))
        }
    }

    pub(crate) fn window(&self, start: i128) -> Window {
        let (start, end) = (clamped(start), self.end(start));
        Window { start: Timestamp::from_millis(start), end: Timestamp::from_millis(end) }
    }
}

/// How long after its end a window still takes records.
#[derive(Debug, Clone, Copy)]
pub struct Lateness(i128);

impl Lateness {
    pub(crate) fn new(lateness: Duration) -> Self {
        Self(whole_millis(lateness))
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Windows that end at this moment or before take no more records at `watermark`; at the end of input, none does.
    pub(crate) fn expiry(self, watermark: i64) -> i64 {
        if watermark == i64::MAX { i64::MAX } else { clamped(i128::from(watermark) - self.0) }
    }

    /// The watermark at which a window with this end takes no more records.
    pub(crate) fn after(self, end: i64) -> i64 {
        clamped(i128::from(end) + self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Times at both ends, around the epoch, and anywhere.
    fn time() -> impl Strategy<Value = i64> {
        let near = -3..=3_i64;
        prop_oneof![
            near.clone().prop_map(|offset| i64::MAX.saturating_add(offset)),
            near.clone().prop_map(|offset| i64::MIN.saturating_add(offset)),
            near,
            any::<i64>(),
        ]
    }

    fn length() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (1..20_u64).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_secs),
            Just(Duration::MAX),
        ]
    }

    proptest! {
        #[test]
        fn a_time_is_in_the_windows_around_it_and_in_no_other(
            time in time(),
            every in length(),
            times in 1..6_u32,
            more in length(),
        ) {
            let size = every.saturating_mul(times).saturating_add(more.min(every));
            let (grid, time) = (Grid::new(size, every), i128::from(time));
            let (size, every) = (size.as_millis() as i128, every.as_millis().max(1) as i128);
            let (first, last) = grid.around(time as i64);
            prop_assert_eq!((first.rem_euclid(every), last.rem_euclid(every)), (0, 0));
            prop_assert!(first <= last && last <= time && time < last + every);
            prop_assert!(time < first + size && first - every + size <= time);
            prop_assert_eq!(grid.open(time as i64, i64::MIN).count() as i128, (last - first) / every + 1);
            prop_assert!(grid.most_windows().is_none_or(|most| (last - first) / every < most as i128));
            if let Some(number) = grid.number(last) {
                prop_assert_eq!(grid.start(number), last);
            }
        }

        #[test]
        fn moments_alike_are_those_around_that_have_the_same_windows(
            time in time(),
            every in length(),
            times in 1..6_u32,
            more in length(),
        ) {
            let grid = Grid::new(every.saturating_mul(times).saturating_add(more.min(every)), every);
            let (from, to) = grid.alike(time);
            prop_assert!(from <= time && time <= to);
            prop_assert_eq!((grid.around(from), grid.around(to)), (grid.around(time), grid.around(time)));
            prop_assert!(from == i64::MIN || grid.around(from - 1) != grid.around(time));
            prop_assert!(to == i64::MAX || grid.around(to + 1) != grid.around(time));
        }

        #[test]
        fn the_first_window_behind_a_watermark_ends_after_it_and_the_one_before_does_not(
            watermark in time(),
            every in length(),
            times in 1..6_u32,
        ) {
            let grid = Grid::new(every.saturating_mul(times), every);
            if let Some(number) = grid.first_behind(watermark) {
                // An end beyond time counts as its end.
                prop_assert!(grid.end(grid.start(number)) > watermark || watermark == i64::MAX);
                prop_assert!(grid.end(grid.start(number) - grid.every()) <= watermark);
            }
        }

        #[test]
        fn a_window_expires_when_the_watermark_is_its_lateness_past_its_end(
            end in time(),
            watermark in time(),
            lateness in length(),
        ) {
            prop_assume!(end > i64::MIN && watermark < i64::MAX);
            let (kept, lateness) = (Lateness::new(lateness), lateness.as_millis() as i128);
            let expired = i128::from(end) + lateness <= i128::from(watermark);
            prop_assert_eq!(end <= kept.expiry(watermark), expired);
            prop_assert_eq!(kept.after(end) <= watermark, expired);
        }
    }
}
