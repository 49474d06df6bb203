//! The sending end of a chain: one router per [`Partitioning`](super::Partitioning), each a [`Push`] that chooses a
//! lane.
//!
//! A replica that has ended takes no more records; a router stops its chain when all of them have.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;

use super::lane::{Dealer, Pushed, Refused, Writer};
use crate::chain::{Fault, Position, Push, Signal, Stop, TaskContext};
use crate::exchange::Waiting;
use crate::guarded::{Guarded, opaque};
use crate::ids::NodeId;
use crate::key::KeySelector;

/// The seed of the partitioning hash. Fixed, so that a key goes to the same replica in every run and process.
const PARTITION_SEED: u64 = 0x5A6E_0001;

type LaneWriter<T> = Writer<T, Waiting>;

/// The lanes of one producer.
pub struct Lanes<T> {
    all: Vec<LaneWriter<T>>,
    in_loop: bool,
}
opaque!(Lanes<T>);

impl<T: Send> Lanes<T> {
    /// The lanes `all`, which lie in a loop or do not.
    pub(crate) fn new(all: Vec<LaneWriter<T>>, in_loop: bool) -> Self {
        Self { all, in_loop }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn open(&mut self) {
        self.all.iter_mut().for_each(LaneWriter::open);
    }

    pub(super) fn close(&mut self, cx: &mut TaskContext) {
        self.all.iter_mut().for_each(|lane| cx.add_blocked(lane.wait_mut().take_blocked()));
    }

    #[inline(always)]
    pub(super) fn send(&mut self, lane: usize, record: T) -> Result<(), Fault> {
        passed(self.all[lane].push(record))
    }

    /// A lane whose reader has ended swallows its records, as long as another wants them.
    pub(super) fn attend(&mut self) -> Result<(), Fault> {
        self.each(LaneWriter::attend)
    }

    /// Passes a signal on to every lane, as far as lanes carry it.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        match (signal, signal.between()) {
            (Signal::Finish, _) => self.each(LaneWriter::finish),
            (_, Some(between)) => self.each(|lane| lane.put(between)),
            (_, None) => Ok(()),
        }
    }

    /// Acts on every lane, also when one has refused or no reader is left: a chain that is satisfied still finishes,
    /// and what it then emits needs room in all of them.
    #[inline(always)]
    fn each(&mut self, act: impl Fn(&mut LaneWriter<T>) -> Result<(), Refused>) -> Result<(), Fault> {
        let (mut gone, mut broken) = (false, None);
        for lane in &mut self.all {
            match act(lane) {
                Ok(()) => {}
                Err(Refused::ReaderGone) => gone = true,
                Err(refused) => broken = broken.or(Some(refused)),
            }
        }
        match broken {
            Some(refused) => Err(stopped(refused)),
            None if gone && !self.wanted(false) => Err(stopped(Refused::ReaderGone)),
            None => Ok(()),
        }
    }

    pub(super) fn wanted(&self, outside: bool) -> bool {
        !(outside && self.in_loop || self.all.iter().all(LaneWriter::reader_gone))
    }
}

#[inline(always)]
fn passed(pushed: Pushed) -> Result<(), Fault> {
    match pushed {
        Pushed::Done => Ok(()),
        Pushed::Attend => Err(Stop::Attend.into()),
    }
}

#[cold]
fn stopped(refused: Refused) -> Fault {
    match refused {
        Refused::Interrupted => Stop::Cancelled.into(),
        Refused::ReaderGone => Stop::Satisfied.into(),
        Refused::Overrun => Overrun.into(),
        Refused::Full => Stop::Attend.into(),
    }
}

/// A record was sent before there was room for it, and is lost.
#[derive(Debug, thiserror::Error)]
#[error("a record was sent on after an earlier one had been refused, and is lost; this is a mistake in the engine")]
struct Overrun;

/// The methods of [`Push`] that are the same for every router over `self.lanes`.
macro_rules! lanes_end_of_chain {
    () => {
        fn open(&mut self, _at: &mut Position) -> Result<(), Fault> {
            self.lanes.open();
            Ok(())
        }
        fn attend(&mut self, _at: &mut Position) -> Result<(), Fault> {
            self.lanes.attend()
        }
        fn wanted(&self, outside: bool) -> bool {
            self.lanes.wanted(outside)
        }
        fn close(&mut self, cx: &mut TaskContext) {
            self.lanes.close(cx);
        }
        fn signal(&mut self, signal: Signal, _at: &mut Position) -> Result<(), Fault> {
            self.lanes.signal(signal)
        }
    };
}

/// Each record to the next lane, but for those that have no room. Also the router to a single lane, which lies apart,
/// so that its chain can keep it in registers.
pub struct RoundRobin<T> {
    single: Option<LaneWriter<T>>,
    lanes: Lanes<T>,
    dealer: Dealer,
}
opaque!(RoundRobin<T>);

impl<T: Send> RoundRobin<T> {
    /// Starts at lane `first`, so that the replicas of a chain do not all begin with the same one.
    pub(crate) fn new(mut lanes: Lanes<T>, first: usize) -> Self {
        let dealer = Dealer::new(lanes.all.len(), first);
        let single = if lanes.all.len() == 1 { lanes.all.pop() } else { None };
        Self { single, lanes, dealer }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut LaneWriter<T>> {
        self.single.iter_mut().chain(&mut self.lanes.all)
    }
}

impl<T: Send> Push<T> for RoundRobin<T> {
    #[inline(always)]
    fn push(&mut self, record: T, _at: &mut Position) -> Result<(), Fault> {
        if let Some(lane) = &mut self.single {
            return passed(lane.push(record));
        }
        // So that the loop has its registers for a single lane: what several cost is little beside their replicas.
        std::hint::cold_path();
        passed(self.dealer.push(&mut self.lanes.all, record))
    }

    fn open(&mut self, _at: &mut Position) -> Result<(), Fault> {
        self.each().for_each(LaneWriter::open);
        Ok(())
    }

    #[inline(always)]
    fn attend(&mut self, _at: &mut Position) -> Result<(), Fault> {
        match &mut self.single {
            Some(lane) => lane.attend(),
            None => self.dealer.attend(&mut self.lanes.all),
        }
        .map_err(stopped)
    }

    fn wanted(&self, outside: bool) -> bool {
        match &self.single {
            Some(lane) => !(outside && self.lanes.in_loop || lane.reader_gone()),
            None => self.lanes.wanted(outside),
        }
    }

    fn signal(&mut self, signal: Signal, _at: &mut Position) -> Result<(), Fault> {
        let Some(lane) = &mut self.single else { return self.lanes.signal(signal) };
        let passed = match (signal, signal.between()) {
            (Signal::Finish, _) => lane.finish(),
            (_, Some(between)) => lane.put(between),
            (_, None) => Ok(()),
        };
        passed.map_err(stopped)
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.each().for_each(|lane| cx.add_blocked(lane.wait_mut().take_blocked()));
    }
}

/// Equal keys to the same lane.
pub struct ByKey<T, S> {
    lanes: Lanes<T>,
    key: Guarded<S>,
    hash: FixedState,
    /// The keyed operator: the key function is its user's code.
    node: NodeId,
}
opaque!(ByKey<T, S>);

impl<T, S> ByKey<T, S> {
    pub(crate) fn new(lanes: Lanes<T>, key: S, node: NodeId) -> Self {
        let key = Guarded::new(key, Some(node));
        Self { lanes, key, node, hash: FixedState::with_seed(PARTITION_SEED) }
    }
}

impl<T: Send, S: KeySelector<T>> Push<T> for ByKey<T, S> {
    #[inline(always)]
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        if self.lanes.all.len() == 1 {
            return self.lanes.send(0, record);
        }
        let hash = self.hash.hash_one(S::lookup(&self.key.select(&record)));
        let lane = scaled(hash, self.lanes.all.len());
        self.lanes.send(lane, record)
    }
    lanes_end_of_chain!();
}

/// The lane of so many to which [`ByKey`] sends a record of this key.
#[inline(always)]
pub(crate) fn lane_of(key: &impl Hash, lanes: usize) -> usize {
    scaled(FixedState::with_seed(PARTITION_SEED).hash_one(key), lanes)
}

#[inline(always)]
fn scaled(hash: u64, lanes: usize) -> usize {
    ((u128::from(hash) * lanes as u128) >> 64) as usize
}

/// Each record to the lane a function chooses.
pub(crate) struct Chosen<T, F> {
    lanes: Lanes<T>,
    choose: F,
    /// The operator in whose name the function runs.
    node: NodeId,
}

impl<T, F> Chosen<T, F> {
    pub(crate) fn new(lanes: Lanes<T>, choose: F, node: NodeId) -> Self {
        Self { lanes, choose, node }
    }
}

/// A partitioner chose a replica that is not there.
#[derive(Debug, thiserror::Error)]
#[error("the partitioner chose replica {chosen}; there are {replicas} replicas, from 0")]
struct NoSuchReplica {
    chosen: usize,
    replicas: usize,
}

impl<T: Send, F: FnMut(&T, usize) -> usize + Send> Push<T> for Chosen<T, F> {
    #[inline(always)]
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        let replicas = self.lanes.all.len();
        let chosen = (self.choose)(&record, replicas);
        if chosen >= replicas {
            return Err(NoSuchReplica { chosen, replicas }.into());
        }
        self.lanes.send(chosen, record)
    }
    lanes_end_of_chain!();
}

/// Every record to every lane.
pub(crate) struct Broadcast<T> {
    lanes: Lanes<T>,
    copy: fn(&T) -> T,
}

impl<T> Broadcast<T> {
    pub(crate) fn new(lanes: Lanes<T>) -> Self
    where
        T: Clone,
    {
        Self::copied(lanes, T::clone)
    }

    /// With `copy` in the place of `Clone`.
    pub(crate) fn copied(lanes: Lanes<T>, copy: fn(&T) -> T) -> Self {
        Self { lanes, copy }
    }
}

impl<T: Send> Push<T> for Broadcast<T> {
    #[inline(always)]
    fn push(&mut self, record: T, _at: &mut Position) -> Result<(), Fault> {
        let last = self.lanes.all.len() - 1;
        let mut attend = Pushed::Done;
        for lane in 0..last {
            if self.lanes.all[lane].push((self.copy)(&record)) == Pushed::Attend {
                attend = Pushed::Attend;
            }
        }
        self.lanes.send(last, record).and(passed(attend))
    }
    lanes_end_of_chain!();
}

/// Every record to each of several routers: the end of a stream that `tee` splits.
pub(crate) struct Tee<R> {
    branches: Vec<(R, bool)>,
}

impl<R> Tee<R> {
    pub(crate) fn new(branches: Vec<R>) -> Self {
        Self { branches: branches.into_iter().map(|branch| (branch, true)).collect() }
    }

    /// Does something with each branch that still wants records, also when another has failed.
    fn each(&mut self, mut act: impl FnMut(&mut R) -> Result<(), Fault>) -> Result<(), Fault> {
        let (mut open, mut failed) = (false, Ok(()));
        for (branch, wanted) in self.branches.iter_mut().filter(|(_, wanted)| *wanted) {
            match act(branch) {
                Ok(()) => open = true,
                Err(Fault::Stop(Stop::Satisfied)) => *wanted = false,
                fault => failed = failed.and(fault),
            }
        }
        failed.and(if open { Ok(()) } else { Err(Stop::Satisfied.into()) })
    }
}

impl<T: Clone + Send, R: Push<T>> Push<T> for Tee<R> {
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        let mut attend = false;
        for (branch, _) in self.branches.iter_mut().filter(|(_, wanted)| *wanted) {
            match branch.push(record.clone(), at) {
                Ok(()) => {}
                Err(Fault::Stop(Stop::Attend)) => attend = true,
                Err(fault) => return Err(fault),
            }
        }
        if attend { Err(Stop::Attend.into()) } else { Ok(()) }
    }

    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.each(|branch| branch.attend(at))
    }

    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.branches.iter_mut().try_for_each(|(branch, _)| branch.open(at))
    }

    fn wanted(&self, outside: bool) -> bool {
        self.branches.iter().any(|(branch, wanted)| *wanted && branch.wanted(outside))
    }

    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        if signal != Signal::Finish {
            return self.each(|branch| branch.signal(signal, at));
        }
        let mut finished = Ok(());
        for (branch, _) in &mut self.branches {
            finished = finished.and(branch.signal(signal, at));
        }
        finished
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.branches.iter_mut().for_each(|(branch, _)| branch.close(cx));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::control::JobControl;
    use crate::exchange::lane::{Depth, Inbox, ReaderState, Size, lane};

    /// A chain that is satisfied still finishes, and its operators may emit then: windows that had not come out.
    #[test]
    fn every_lane_has_room_again_when_no_reader_is_left() {
        let control = Arc::new(JobControl::new(crate::clock::Clock::system()));
        let mut inboxes = Vec::new();
        let all = (0..3).map(|_| {
            let signal = Arc::new(ReaderState::new());
            let wait = Waiting::new(control.clone(), Arc::default());
            let (writer, reader) = lane(Size::blocks(1, Depth { slow: 2, fast: 2 }), signal.clone(), wait);
            inboxes.push(Inbox::new(vec![reader], signal, Duration::from_millis(1)));
            writer
        });
        let mut lanes = Lanes::new(all.collect(), false);
        lanes.all.iter_mut().for_each(LaneWriter::open);
        let record = Arc::new(());
        // Each of them fills its block.
        (0..3).for_each(|lane| assert_eq!(lanes.all[lane].push(record.clone()), Pushed::Attend));
        inboxes.into_iter().for_each(|mut inbox| inbox.satisfied());
        for _ in 0..3 {
            assert!(matches!(lanes.attend(), Err(Fault::Stop(Stop::Satisfied))));
            (0..3).for_each(|lane| drop(lanes.send(lane, record.clone())));
        }
        drop(lanes);
        assert_eq!(Arc::strong_count(&record), 1);
    }
}
