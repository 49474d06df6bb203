//! The router in front of a count by key: it counts what it can itself, and sends on how many of each key there were.
//!
//! Where keys repeat, few records are sent in place of many. Where they do not, that costs more than it spares; it is
//! found out when the table is full, and records then pass as they come for a while.

use std::sync::Arc;

use super::metrics::Counter;
use super::router::{Lanes, lane_of};
use crate::chain::{Fault, Position, Push, Signal, Stop, TaskContext};
use crate::guarded::{Guarded, opaque};
use crate::ids::NodeId;
use crate::key::{Ahead, KeySelector};
use crate::table::Table;

/// How many keys are counted here before their numbers are sent on.
const MOST_KEYS: usize = 1 << 17;
/// How often a key has to come, on average, for counting here to be worth it.
const WORTH_RECORDS: usize = 2;
/// How many records pass uncounted after that was not so: many enough that the trial costs little.
const PASSING_RECORDS: usize = 8 * MOST_KEYS;

/// Counts the records of each key, and sends the numbers to the lanes of the keys.
pub(crate) struct Combining<T, S: KeySelector<T>> {
    lanes: Lanes<(S::Key, u64)>,
    key: Guarded<S>,
    /// The operator that adds the numbers up: the key function is its user's code.
    node: NodeId,
    counts: Table<S::Key, u64>,
    ahead: Ahead<S::Held>,
    /// How many records the table has counted.
    counted: usize,
    /// How many records are to pass.
    passing: usize,
    /// How many records came, and who is told: to be counted here is to be taken by the count.
    records: u64,
    taken: Arc<Counter>,
}
opaque!([T, S: KeySelector<T>] Combining<T, S>);

impl<T: Send, S: KeySelector<T>> Combining<T, S> {
    /// Counts for the operator at `node`, whose records `taken` counts.
    pub(crate) fn new(lanes: Lanes<(S::Key, u64)>, key: S, node: NodeId, taken: Arc<Counter>) -> Self {
        let (key, counts, ahead) = (Guarded::new(key, Some(node)), Table::default(), Ahead::new());
        Self { lanes, key, node, counts, ahead, counted: 0, passing: 0, records: 0, taken }
    }

    fn is_full(&self) -> bool {
        self.counts.len() >= MOST_KEYS
    }

    /// Sends on all that was counted.
    fn send_counts(&mut self) -> Result<(), Fault> {
        let Self { lanes, key, counts, ahead, counted, passing, .. } = self;
        ahead.rest().for_each(|held| *key.state(counts, held, || 0) += 1);
        *ahead = Ahead::new();
        if std::mem::take(counted) < WORTH_RECORDS * counts.len() {
            *passing = PASSING_RECORDS;
        }
        for count in counts.drain() {
            match lanes.send(lane_of(&count.0, lanes.len()), count) {
                Err(Fault::Stop(Stop::Attend)) => lanes.attend()?,
                sent => sent?,
            }
        }
        Ok(())
    }
}

impl<T: Send, S: KeySelector<T>> Push<T> for Combining<T, S> {
    /// A full table is emptied once the chain's loop has been left.
    #[inline(always)]
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        let Self { lanes, key, counts, ahead, counted, passing, records, .. } = self;
        *records += 1;
        if *passing > 0 {
            *passing -= 1;
            let key = key.take_key(record);
            return lanes.send(lane_of(&key, lanes.len()), (key, 1));
        }
        *counted += 1;
        ahead.take(&mut **key, record, counts, |count| *count += 1);
        if self.is_full() { Err(Stop::Attend.into()) } else { Ok(()) }
    }

    fn open(&mut self, _at: &mut Position) -> Result<(), Fault> {
        self.lanes.open();
        Ok(())
    }

    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        if self.is_full() {
            at.enter(self.node);
            self.send_counts()?;
        }
        self.lanes.attend()
    }

    fn wanted(&self, outside: bool) -> bool {
        self.lanes.wanted(outside)
    }

    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        if signal == Signal::Finish {
            at.enter(self.node);
            // The lanes end also where nobody wants more.
            return self.send_counts().and(self.lanes.signal(signal));
        }
        self.lanes.signal(signal)
    }

    fn publish(&mut self) {
        self.taken.publish(self.records);
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.lanes.close(cx);
    }
}
