//! How long the records of an async task are in flight: its pace, by which the tasks before it are allowed records.

use std::time::{Duration, Instant};

/// How long the records of a task are in flight.
pub(super) struct FlightPace {
    /// When it was last measured, and how many were in flight from then on.
    at: Instant,
    in_flight: usize,
    /// Time in flight, summed over the records, since one was last finished.
    spent: Duration,
    /// How many records were finished so far.
    finished: u64,
}

impl FlightPace {
    pub(super) fn new() -> Self {
        Self { at: Instant::now(), in_flight: 0, spent: Duration::ZERO, finished: 0 }
    }

    /// Adds the time up to `now`.
    pub(super) fn pass(&mut self, now: Instant) {
        let passed = now.duration_since(self.at);
        self.spent += passed.saturating_mul(u32::try_from(self.in_flight).unwrap_or(u32::MAX));
        self.at = now;
    }

    /// Learns how things stand after a step that began at `began`. Returns how many records were finished since the
    /// last time that there were any, and how long they took a task that has up to `most` of them in flight.
    pub(super) fn step(
        &mut self,
        began: Instant,
        taken: u64,
        in_flight: usize,
        most: usize,
    ) -> Option<(usize, Duration)> {
        let now = Instant::now();
        self.in_flight = in_flight;
        self.at = now;
        let finished = taken - in_flight as u64;
        let count = finished - std::mem::replace(&mut self.finished, finished);
        if count == 0 {
            return None;
        }
        let in_turn = std::mem::take(&mut self.spent) / u32::try_from(most).unwrap_or(u32::MAX).max(1);
        Some((usize::try_from(count).unwrap_or(usize::MAX), in_turn.max(now.duration_since(began))))
    }
}
