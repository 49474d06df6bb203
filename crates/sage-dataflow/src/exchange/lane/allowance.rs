//! How many records may wait for a reader: as many as it deals with in 10 ms, and enough to keep it busy.
//!
//! A reader begins with few. Each time it has dealt quickly with all it was allowed, it is allowed twice as many. So
//! the records that wait for it are never more than it has already dealt with quickly. If it turns slow, it is allowed
//! fewer at once.

use std::time::Duration;

/// How much of the reader's work may wait.
const MOMENT: Duration = Duration::from_millis(10);
/// It is cut back when so many times that waits: what a reader is held up by now and then is not its pace.
const SLACK: f64 = 4.0;

/// How many records may wait in all the lanes of one reader.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Twice what the reader works on at once.
    least: usize,
    /// What all of its lanes can hold.
    most: usize,
    records: usize,
    /// How many were dealt with since it was last asked whether to widen it, and how long that took: many that end
    /// together, as calls do, take no time behind the first of them.
    taken: usize,
    spent: Duration,
}

impl Allowance {
    pub(crate) fn new(least: usize, most: usize) -> Self {
        Self { least, most: most.max(least), records: least, taken: 0, spent: Duration::ZERO }
    }

    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Learns how long the reader took for some records, one at least. Returns whether it is allowed another number
    /// now.
    pub(crate) fn took(&mut self, records: usize, time: Duration) -> bool {
        let allowed = self.records;
        self.taken = self.taken.saturating_add(records);
        self.spent = self.spent.saturating_add(time);
        let now = moments(allowed, records, time);
        if now > SLACK {
            self.records = ((allowed as f64 / now) as usize).max(self.least);
        } else if self.taken >= allowed && moments(allowed, self.taken, self.spent) <= 0.5 {
            self.records = allowed.saturating_mul(2).min(self.most);
        }
        if self.records != allowed || self.taken >= allowed {
            (self.taken, self.spent) = (0, Duration::ZERO);
        }
        self.records != allowed
    }
}

/// How many moments a reader takes for all it is allowed, if it takes so long for some of them.
fn moments(allowed: usize, records: usize, time: Duration) -> f64 {
    time.as_secs_f64() / MOMENT.as_secs_f64() * allowed as f64 / records as f64
}
