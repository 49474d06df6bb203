//! The sending end of a chain: one router per [`Partitioning`](super::Partitioning), each a [`Push`] that chooses a lane.
//!
//! A replica that has ended takes no more records; a router stops its chain when all of them have.

use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;

use foldhash::fast::FixedState;

use super::lane::{Refused, Writer};
use crate::graph::NodeId;
use crate::job::task::{Fault, Position, Push, Stop, TaskContext, Waiting};

/// The seed of the partitioning hash. Fixed, so that a key goes to the same replica in every run and process.
const PARTITION_SEED: u64 = 0x5A6E_0001;

type Lane<T> = Writer<T, Waiting>;

/// The lanes of one producer.
pub struct Lanes<T> {
    all: Vec<Lane<T>>,
}

impl<T: Send> Lanes<T> {
    pub(crate) fn new(all: Vec<Lane<T>>) -> Self {
        Self { all }
    }

    #[inline(always)]
    fn send(&mut self, lane: usize, record: T) -> Result<(), Fault> {
        match self.all[lane].push(record) {
            Ok(()) => Ok(()),
            Err(refused) => self.refused(refused),
        }
    }

    /// A lane whose reader has ended swallows its records, as long as another wants them.
    #[cold]
    fn refused(&self, refused: Refused) -> Result<(), Fault> {
        match refused {
            Refused::Interrupted => Err(Stop::Cancelled.into()),
            Refused::ReaderGone if self.wanted() => Ok(()),
            Refused::ReaderGone => Err(Stop::Satisfied.into()),
        }
    }

    fn wanted(&self) -> bool {
        !self.all.iter().all(Lane::reader_gone)
    }
}

/// The methods of [`Push`] that are the same for every router over `self.lanes`.
macro_rules! lanes_end_of_chain {
    () => {
        fn open(&mut self, _at: &mut Position) -> Result<(), Fault> {
            self.lanes.all.iter().for_each(Lane::wake_me);
            Ok(())
        }
        fn wanted(&self) -> bool {
            self.lanes.wanted()
        }
        fn publish(&mut self) {}
        fn flush(&mut self, _at: &mut Position) -> Result<(), Fault> {
            Ok(())
        }
        fn finish(&mut self, _at: &mut Position) -> Result<(), Fault> {
            self.lanes.all.iter_mut().for_each(Lane::finish);
            Ok(())
        }
        fn close(&mut self, cx: &mut TaskContext) {
            self.lanes.all.iter_mut().for_each(|lane| cx.add_blocked(lane.wait_mut().take_blocked()));
        }
    };
}

/// Each record to the next lane; also the router to a single lane, which lies apart, so that its chain can keep it in
/// registers.
pub struct RoundRobin<T> {
    single: Option<Lane<T>>,
    lanes: Lanes<T>,
    next: usize,
}

impl<T: Send> RoundRobin<T> {
    /// Starts at lane `first`, so that the replicas of a chain do not all begin with the same one.
    pub(crate) fn new(mut lanes: Lanes<T>, first: usize) -> Self {
        let next = first % lanes.all.len();
        let single = if lanes.all.len() == 1 { lanes.all.pop() } else { None };
        Self { single, lanes, next }
    }

    #[cold]
    fn refused(refused: Refused) -> Result<(), Fault> {
        match refused {
            Refused::Interrupted => Err(Stop::Cancelled.into()),
            Refused::ReaderGone => Err(Stop::Satisfied.into()),
        }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Lane<T>> {
        self.single.iter_mut().chain(&mut self.lanes.all)
    }
}

impl<T: Send> Push<T> for RoundRobin<T> {
    #[inline(always)]
    fn push(&mut self, record: T, _at: &mut Position) -> Result<(), Fault> {
        if let Some(lane) = &mut self.single {
            return lane.push(record).or_else(Self::refused);
        }
        let lane = self.next;
        self.next = if lane + 1 == self.lanes.all.len() { 0 } else { lane + 1 };
        self.lanes.send(lane, record)
    }

    fn open(&mut self, _at: &mut Position) -> Result<(), Fault> {
        self.each().for_each(|lane| lane.wake_me());
        Ok(())
    }

    fn wanted(&self) -> bool {
        self.single.as_ref().map_or_else(|| self.lanes.wanted(), |lane| !lane.reader_gone())
    }

    fn publish(&mut self) {}

    fn flush(&mut self, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }

    fn finish(&mut self, _at: &mut Position) -> Result<(), Fault> {
        self.each().for_each(Lane::finish);
        Ok(())
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.each().for_each(|lane| cx.add_blocked(lane.wait_mut().take_blocked()));
    }
}

/// Equal keys to the same lane.
pub struct ByKey<T, K, F> {
    lanes: Lanes<T>,
    key: F,
    hash: FixedState,
    /// The keyed operator: the key function is its user's code.
    node: NodeId,
    keys: PhantomData<fn() -> K>,
}

impl<T, K, F> ByKey<T, K, F> {
    pub(crate) fn new(lanes: Lanes<T>, key: F, node: NodeId) -> Self {
        Self { lanes, key, node, hash: FixedState::with_seed(PARTITION_SEED), keys: PhantomData }
    }
}

impl<T, K, F> Push<T> for ByKey<T, K, F>
where
    T: Send,
    K: Hash,
    F: FnMut(&T) -> K + Send,
{
    #[inline(always)]
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        if self.lanes.all.len() == 1 {
            return self.lanes.send(0, record);
        }
        let hash = self.hash.hash_one((self.key)(&record));
        let lane = ((u128::from(hash) * self.lanes.all.len() as u128) >> 64) as usize;
        self.lanes.send(lane, record)
    }
    lanes_end_of_chain!();
}

/// Every record to every lane.
pub(crate) struct Broadcast<T> {
    lanes: Lanes<T>,
}

impl<T> Broadcast<T> {
    pub(crate) fn new(lanes: Lanes<T>) -> Self {
        Self { lanes }
    }
}

impl<T: Clone + Send> Push<T> for Broadcast<T> {
    #[inline(always)]
    fn push(&mut self, record: T, _at: &mut Position) -> Result<(), Fault> {
        let last = self.lanes.all.len() - 1;
        for lane in 0..last {
            self.lanes.send(lane, record.clone())?;
        }
        self.lanes.send(last, record)
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
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        let mut open = false;
        for (branch, wanted) in self.branches.iter_mut().filter(|(_, wanted)| *wanted) {
            match branch.push(record.clone(), at) {
                Ok(()) => open = true,
                Err(Fault::Stop(Stop::Satisfied)) => *wanted = false,
                Err(fault) => return Err(fault),
            }
        }
        if open { Ok(()) } else { Err(Stop::Satisfied.into()) }
    }

    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.branches.iter_mut().try_for_each(|(branch, _)| branch.open(at))
    }

    fn wanted(&self) -> bool {
        self.branches.iter().any(|(branch, wanted)| *wanted && branch.wanted())
    }

    fn publish(&mut self) {}

    fn flush(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.branches.iter_mut().try_for_each(|(branch, _)| branch.flush(at))
    }

    fn finish(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.branches.iter_mut().try_for_each(|(branch, _)| branch.finish(at))
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.branches.iter_mut().for_each(|(branch, _)| branch.close(cx));
    }
}
