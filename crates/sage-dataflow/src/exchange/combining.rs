//! The router in front of a count or a sum by key: it adds up what it can itself, and sends on the sum of each key.
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
use crate::summand::Summand;
use crate::table::Table;

/// Of how many keys there are sums here before they are sent on.
const MOST_KEYS: usize = 1 << 17;
/// How often a key has to come, on average, for adding up here to be worth it.
const WORTH_RECORDS: u64 = 2;
/// How many records pass after that was not so: many enough that the trial costs little.
const PASSING_RECORDS: u64 = 8 * MOST_KEYS as u64;

/// Adds up the records of each key, and sends the sums to the lanes of the keys.
pub(crate) struct Combining<T, S: KeySelector<T>, M: Summand<T>> {
    lanes: Lanes<(S::Key, M::Sum)>,
    key: Guarded<S>,
    summand: Guarded<M>,
    /// The operator that adds the sums up: the functions are its user's code.
    node: NodeId,
    sums: Table<S::Key, M::Sum>,
    ahead: Ahead<S::Held, M::Amount>,
    /// How many records came, and who is told: to be in a sum here is to be taken by the operator.
    records: u64,
    taken: Arc<Counter>,
    /// Up to which of them records pass. All that came later are in the sums.
    passing: u64,
}
opaque!([T, S: KeySelector<T>, M: Summand<T>] Combining<T, S, M>);

impl<T: Send, S: KeySelector<T>, M: Summand<T>> Combining<T, S, M> {
    /// Adds up for the operator at `node`, whose records `taken` counts.
    pub(crate) fn new(lanes: Lanes<(S::Key, M::Sum)>, key: S, summand: M, node: NodeId, taken: Arc<Counter>) -> Self {
        let (key, summand) = (Guarded::new(key, Some(node)), Guarded::new(summand, Some(node)));
        let (sums, ahead) = (Table::default(), Ahead::new());
        Self { lanes, key, summand, node, sums, ahead, records: 0, taken, passing: 0 }
    }

    fn is_full(&self) -> bool {
        self.sums.len() >= MOST_KEYS
    }

    /// Sends all sums on.
    fn send_sums(&mut self) -> Result<(), Fault> {
        let Self { lanes, key, sums, ahead, records, passing, .. } = self;
        ahead.look_up(&mut **key, sums, M::add)?;
        // None, where the input ends while records pass.
        let summed = records.saturating_sub(std::mem::replace(passing, *records));
        if summed < WORTH_RECORDS * sums.len() as u64 {
            *passing += PASSING_RECORDS;
        }
        for sum in sums.drain() {
            match lanes.send(lane_of(&sum.0, lanes.len()), sum) {
                Err(Fault::Stop(Stop::Attend)) => lanes.attend()?,
                sent => sent?,
            }
        }
        Ok(())
    }
}

impl<T: Send, S: KeySelector<T>, M: Summand<T>> Push<T> for Combining<T, S, M> {
    /// A full table is emptied once the chain's loop has been left.
    #[inline(always)]
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        let Self { lanes, key, summand, sums, ahead, records, passing, .. } = self;
        *records += 1;
        let amount = summand.of(&record);
        if *records <= *passing {
            let (key, mut sum) = (key.take_key(record), M::Sum::default());
            M::add(&mut sum, amount)?;
            return lanes.send(lane_of(&key, lanes.len()), (key, sum));
        }
        ahead.take(&mut **key, record, amount, sums, M::add)?;
        if ahead.is_empty() && self.is_full() { Err(Stop::Attend.into()) } else { Ok(()) }
    }

    fn open(&mut self, _at: &mut Position) -> Result<(), Fault> {
        self.lanes.open();
        Ok(())
    }

    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        if self.is_full() {
            at.enter(self.node);
            self.send_sums()?;
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
            return self.send_sums().and(self.lanes.signal(signal));
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
