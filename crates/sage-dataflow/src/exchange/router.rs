//! The sending end of a chain: one router per [`Partitioning`](super::Partitioning), each a [`Push`] that chooses a lane.
//!
//! A replica that has ended takes no more records; a router stops its chain when all of them have.

use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;

use foldhash::fast::FixedState;

use super::lane::{Refused, Writer};
use crate::graph::NodeId;
use crate::job::task::{Push, Stop, TaskContext};

/// The seed of the partitioning hash. Fixed, so that a key goes to the same replica in every run and process.
const PARTITION_SEED: u64 = 0x5A6E_0001;

/// Sends one record to one lane; a lane whose reader has ended swallows it.
#[inline]
fn send<T: Send>(lane: &mut Writer<T>, record: T, cx: &mut TaskContext) -> Result<(), Refused> {
    lane.push(record, cx)
}

#[cold]
fn refused<T: Send>(lanes: &[Writer<T>], why: Refused) -> Result<(), Stop> {
    match why {
        Refused::Interrupted => Err(Stop::Cancelled),
        Refused::ReaderGone if lanes.iter().all(Writer::reader_gone) => Err(Stop::Satisfied),
        Refused::ReaderGone => Ok(()),
    }
}

fn finish_all<T: Send>(lanes: &mut [Writer<T>]) -> Result<(), Stop> {
    lanes.iter_mut().for_each(Writer::finish);
    Ok(())
}

/// The methods of [`Push`] that are the same for every router over `self.lanes`.
macro_rules! lanes_end_of_chain {
    () => {
        fn open(&mut self, _cx: &mut TaskContext) -> Result<(), Stop> {
            Ok(())
        }
        fn publish(&mut self) {}
        fn flush(&mut self, _cx: &mut TaskContext) -> Result<(), Stop> {
            Ok(())
        }
        fn finish(&mut self, _cx: &mut TaskContext) -> Result<(), Stop> {
            finish_all(&mut self.lanes)
        }
        fn close(&mut self, _cx: &mut TaskContext) {}
    };
}

/// Each record to the next lane; also the router to a single lane.
pub struct RoundRobin<T> {
    lanes: Vec<Writer<T>>,
    next: usize,
}

impl<T> RoundRobin<T> {
    /// Starts at lane `first`, so that the replicas of a chain do not all begin with the same one.
    pub(crate) fn new(lanes: Vec<Writer<T>>, first: usize) -> Self {
        let next = first % lanes.len();
        Self { lanes, next }
    }
}

impl<T: Send> Push<T> for RoundRobin<T> {
    #[inline]
    fn push(&mut self, record: T, cx: &mut TaskContext) -> Result<(), Stop> {
        let lane = self.next;
        self.next = if lane + 1 == self.lanes.len() { 0 } else { lane + 1 };
        match send(&mut self.lanes[lane], record, cx) {
            Ok(()) => Ok(()),
            Err(why) => refused(&self.lanes, why),
        }
    }
    lanes_end_of_chain!();
}

/// Equal keys to the same lane.
pub struct ByKey<T, K, F> {
    lanes: Vec<Writer<T>>,
    key: F,
    hash: FixedState,
    /// The keyed operator: the key function is its user's code.
    node: NodeId,
    keys: PhantomData<fn() -> K>,
}

impl<T, K, F> ByKey<T, K, F> {
    pub(crate) fn new(lanes: Vec<Writer<T>>, key: F, node: NodeId) -> Self {
        Self { lanes, key, node, hash: FixedState::with_seed(PARTITION_SEED), keys: PhantomData }
    }
}

impl<T, K, F> Push<T> for ByKey<T, K, F>
where
    T: Send,
    K: Hash,
    F: FnMut(&T) -> K + Send,
{
    #[inline]
    fn push(&mut self, record: T, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.enter(self.node);
        let hash = self.hash.hash_one((self.key)(&record));
        let lane = ((u128::from(hash) * self.lanes.len() as u128) >> 64) as usize;
        match send(&mut self.lanes[lane], record, cx) {
            Ok(()) => Ok(()),
            Err(why) => refused(&self.lanes, why),
        }
    }
    lanes_end_of_chain!();
}

/// Every record to every lane.
pub(crate) struct Broadcast<T> {
    lanes: Vec<Writer<T>>,
}

impl<T> Broadcast<T> {
    pub(crate) fn new(lanes: Vec<Writer<T>>) -> Self {
        Self { lanes }
    }
}

impl<T: Clone + Send> Push<T> for Broadcast<T> {
    #[inline]
    fn push(&mut self, record: T, cx: &mut TaskContext) -> Result<(), Stop> {
        let last = self.lanes.len() - 1;
        for lane in 0..last {
            if let Err(why) = send(&mut self.lanes[lane], record.clone(), cx) {
                refused(&self.lanes, why)?;
            }
        }
        match send(&mut self.lanes[last], record, cx) {
            Ok(()) => Ok(()),
            Err(why) => refused(&self.lanes, why),
        }
    }
    lanes_end_of_chain!();
}

/// Every record to each of several routers: the end of a forked stream.
pub(crate) struct Tee<R> {
    branches: Vec<(R, bool)>,
}

impl<R> Tee<R> {
    pub(crate) fn new(branches: Vec<R>) -> Self {
        Self { branches: branches.into_iter().map(|branch| (branch, true)).collect() }
    }
}

impl<T: Clone + Send, R: Push<T>> Push<T> for Tee<R> {
    fn push(&mut self, record: T, cx: &mut TaskContext) -> Result<(), Stop> {
        let mut open = false;
        for (branch, wanted) in self.branches.iter_mut().filter(|(_, wanted)| *wanted) {
            match branch.push(record.clone(), cx) {
                Ok(()) => open = true,
                Err(Stop::Satisfied) => *wanted = false,
                Err(stop) => return Err(stop),
            }
        }
        if open { Ok(()) } else { Err(Stop::Satisfied) }
    }

    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        self.branches.iter_mut().try_for_each(|(branch, _)| branch.open(cx))
    }

    fn publish(&mut self) {}

    fn flush(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        self.branches.iter_mut().try_for_each(|(branch, _)| branch.flush(cx))
    }

    fn finish(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        self.branches.iter_mut().try_for_each(|(branch, _)| branch.finish(cx))
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.branches.iter_mut().for_each(|(branch, _)| branch.close(cx));
    }
}
