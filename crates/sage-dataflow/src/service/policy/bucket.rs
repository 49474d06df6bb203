//! [`Bucket`]: a token bucket in whole numbers. It drifts by nothing, however long it runs.
//!
//! Invariants: a level never exceeds the bucket's size by a whole token, whatever time passes. It may be less than
//! zero: a debt.

use std::time::{Duration, Instant};

use super::sync::FOREVER;

/// A token bucket. Its level counts tokens times the nanoseconds of the period: so a nanosecond adds a whole number.
pub(super) struct Bucket {
    /// How many tokens a period adds.
    refill: i128,
    /// In nanoseconds.
    period: i128,
    tokens: u64,
    /// The level of a full bucket. It has room for what the nanosecond adds beyond the last token, as whoever waits
    /// goes at the end of a nanosecond: else a bucket of one token would lose it each time.
    full: i128,
    level: i128,
    /// When the level was right.
    at: Instant,
}

impl Bucket {
    /// A full bucket of `size` tokens, to which `period` adds `refill`: each more than zero.
    pub(super) fn new(refill: u64, period: Duration, size: u64, now: Instant) -> Self {
        let period = nanos(period);
        let refill = i128::from(refill);
        // A hundred years of nanoseconds times the largest count is a third of what fits.
        let level = i128::from(size) * period;
        Self { refill, period, tokens: size, full: level + refill.min(period) - 1, level, at: now }
    }

    /// Adds what has come since the last time. A time before that changes nothing.
    pub(super) fn refill(&mut self, now: Instant) {
        let Some(passed) = now.checked_duration_since(self.at) else { return };
        self.at = now;
        if self.level < self.full {
            self.level = self.level.saturating_add(nanos(passed) * self.refill).min(self.full);
        }
    }

    /// How many tokens the bucket has when it is full.
    pub(super) fn size(&self) -> u64 {
        self.tokens
    }

    pub(super) fn has(&self, tokens: u64) -> bool {
        self.level >= self.units(tokens)
    }

    /// Takes tokens, also those that it has not.
    pub(super) fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(self.units(tokens));
    }

    pub(super) fn give_back(&mut self, tokens: u64) {
        self.level = self.level.saturating_add(self.units(tokens)).min(self.full);
    }

    /// When the bucket will have so many tokens, if `returned` more are given back now.
    pub(super) fn when(&self, tokens: u64, returned: u64) -> Instant {
        let missing = self.units(tokens).saturating_sub(self.level).saturating_sub(self.units(returned));
        if missing <= 0 {
            return self.at;
        }
        let wait = missing / self.refill + i128::from(missing % self.refill > 0);
        self.at + u64::try_from(wait).map_or(FOREVER, |wait| Duration::from_nanos(wait).min(FOREVER))
    }

    fn units(&self, tokens: u64) -> i128 {
        i128::from(tokens) * self.period
    }
}

fn nanos(duration: Duration) -> i128 {
    let duration = duration.min(FOREVER);
    i128::from(duration.as_secs()) * 1_000_000_000 + i128::from(duration.subsec_nanos())
}
