//! How much a lane takes, seen from its writer: how many blocks, records and bytes may wait, and the wait for room.

use std::collections::VecDeque;
use std::time::Duration;

use super::attending::Far;
use super::block::Block;
use super::metrics::BlockedBy;
use super::sync::{Instant, Ordering, comes_soon, fence};
use super::{RUNNING, Refused, Wait};

/// A reader that releases a block within this time is fast: what is in flight then is milliseconds of work.
const FAST_BLOCK: Duration = Duration::from_micros(200);
/// The reader's pace is measured over so many blocks.
const PACE_BLOCKS: usize = 8;
/// Blocks a lane cycles through before it reuses one, if it may have as many.
const RING_BLOCKS: usize = 64;
/// Where no more records may wait than this, the writer attends to each, so that its tally is exact.
const FEW_RECORDS: usize = 64;

/// How fast the reader releases blocks.
pub(super) struct Pace {
    /// How many it had released when last measured, and when that was.
    released: usize,
    at: Instant,
    fast: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { released: 0, at: Instant::now(), fast: false }
    }

    fn measure(&mut self, released: usize) {
        let blocks = released - self.released;
        if blocks >= PACE_BLOCKS {
            let now = Instant::now();
            self.fast = now.duration_since(self.at) / u32::try_from(blocks).unwrap_or(u32::MAX) < FAST_BLOCK;
            (self.released, self.at) = (released, now);
        }
    }
}

/// The weighing of the records of a lane.
pub(super) struct Weighing<T> {
    /// Tells what a record holds beside its own size.
    weigh: std::sync::Arc<dyn Fn(&T) -> usize + Send + Sync>,
    /// Bytes that the lane may hold, and at which a block is closed.
    most: usize,
    most_in_block: usize,
    /// Bytes in the open block, and in the closed ones that the reader has not given back: of each, and all together.
    open: usize,
    closed: VecDeque<usize>,
    waiting: usize,
    /// The number of the first of these.
    first: usize,
}

impl<T> Weighing<T> {
    /// Of a lane that may hold `most` bytes.
    pub(super) fn new(most: usize, weigh: std::sync::Arc<dyn Fn(&T) -> usize + Send + Sync>) -> Self {
        let (most_in_block, closed) = ((most / 4).max(1), VecDeque::new());
        Self { weigh, most, most_in_block, open: 0, closed, waiting: 0, first: 0 }
    }

    /// Adds a record to the bytes of the open block. Returns whether it has its share of them then.
    #[inline]
    pub(super) fn add(&mut self, record: &T) -> bool {
        // No more than all that may wait, so that sums of it do not overflow.
        let bytes = (self.weigh)(record).saturating_add(size_of::<T>()).min(self.most);
        self.open = self.open.saturating_add(bytes);
        self.is_full()
    }

    /// Takes note that the open block was closed.
    pub(super) fn close(&mut self) {
        let bytes = std::mem::take(&mut self.open);
        self.closed.push_back(bytes);
        self.waiting = self.waiting.saturating_add(bytes);
    }

    /// The bytes in all blocks that the reader has not given back.
    fn bytes(&self) -> usize {
        self.waiting.saturating_add(self.open)
    }

    pub(super) fn is_full(&self) -> bool {
        self.open >= self.most_in_block
    }

    /// Takes note of how many blocks the reader has given back. Returns how many it must have given back before another
    /// one may be filled.
    fn needed(&mut self, released: usize) -> usize {
        while self.first < released
            && let Some(bytes) = self.closed.pop_front()
        {
            self.first += 1;
            self.waiting = self.waiting.saturating_sub(bytes);
        }
        let (mut needed, mut left) = (self.first, self.waiting);
        for bytes in &self.closed {
            if left.saturating_add(self.most_in_block) <= self.most {
                break;
            }
            (needed, left) = (needed + 1, left.saturating_sub(*bytes));
        }
        needed
    }
}

impl<T, W: Wait> Far<T, W> {
    /// Waits until another block may be filled.
    pub(super) fn wait_for_bytes(&mut self) -> Result<(), Refused> {
        let released = self.lane.released.load(Ordering::Acquire);
        let Some(needed) = self.weighing.as_mut().map(|weighing| weighing.needed(released)) else { return Ok(()) };
        if let Some(weighing) = &self.weighing {
            self.lane.tally.weighed(weighing.bytes());
        }
        if needed <= released {
            return Ok(());
        }
        // Each block that is given back wakes it.
        self.lane.wake_at.store(usize::MAX, Ordering::Relaxed);
        self.lane.room.store(usize::MAX, Ordering::Relaxed);
        self.wait_for_room(BlockedBy::Bytes, |far| far.lane.released.load(Ordering::Acquire) >= needed)?;
        match self.signal.ended() {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    /// How many records may wait, and how many more that is.
    fn allowed(&self) -> (usize, usize) {
        let allowed = self.lane.progress.allowed.load(Ordering::Acquire);
        let waiting = self.tail.written().saturating_sub(self.lane.progress.taken.load(Ordering::Acquire));
        (allowed, allowed.saturating_sub(waiting))
    }

    /// Waits until another record may wait, and sets the limit of the open block to as many as may.
    pub(super) fn allow(&mut self) -> Result<(), Refused> {
        self.lane.tally.written(self.tail.written());
        loop {
            let (allowed, room) = self.allowed();
            if room == 0 {
                self.wait_to_be_allowed()?;
                continue;
            }
            // SAFETY: a block is open, and is not freed before the lane.
            let block = unsafe { &*self.tail.block };
            let limit = limit_of(block.len.load(Ordering::Relaxed), allowed, room, block.capacity);
            let mut now = block.limit.load(Ordering::Relaxed);
            // Zero stays: the next record is to wake the reader.
            while now != limit && now != 0 {
                match block.limit.compare_exchange(now, limit, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(other) => now = other,
                }
            }
            fence(Ordering::SeqCst);
            if self.lane.progress.allowed.load(Ordering::Relaxed) >= allowed {
                return Ok(());
            }
        }
    }

    fn wait_to_be_allowed(&mut self) -> Result<(), Refused> {
        if let Some(refused) = self.signal.ended() {
            return Err(refused);
        }
        let (allowed, _) = self.allowed();
        let bound = if allowed == self.lane.size.records { BlockedBy::Bytes } else { BlockedBy::Pace };
        self.brisk |= allowed > self.allowed_before;
        self.allowed_before = allowed;
        // When half of them are left, so that it is woken less often than for each.
        let wake_at = self.tail.written().saturating_sub(allowed / 2);
        self.lane.wake_at.store(wake_at, Ordering::Relaxed);
        self.wait_for_room(bound, |far| {
            let progress = &far.lane.progress;
            progress.taken.load(Ordering::Acquire) >= wake_at || progress.allowed.load(Ordering::Acquire) != allowed
        })
    }

    pub(super) fn open_block(&mut self) -> Result<(), Refused> {
        self.pace.measure(self.lane.released.load(Ordering::Acquire));
        let depth = self.lane.size.depth;
        let depth = if self.pace.fast { depth.fast } else { depth.slow };
        if self.lane.outstanding() >= (depth / 2).clamp(1, 4) {
            fence(Ordering::SeqCst);
            if self.signal.mode.load(Ordering::Relaxed) != RUNNING {
                self.signal.wake();
            }
        }
        loop {
            if let Some(refused) = self.signal.ended() {
                return Err(refused);
            }
            let released = self.lane.released.load(Ordering::Acquire);
            if self.tail.opened - released < depth {
                let reuse = self.tail.oldest_index < released
                    && self.tail.opened - self.tail.oldest_index >= depth.min(RING_BLOCKS);
                let block = if reuse { self.tail.reuse_oldest() } else { Block::allocate(self.lane.size.capacity) };
                self.link(block);
                return Ok(());
            }
            let room = depth / 2;
            self.lane.wake_at.store(usize::MAX, Ordering::Relaxed);
            self.lane.room.store(room, Ordering::Relaxed);
            self.wait_for_room(BlockedBy::Blocks, |far| far.lane.outstanding() <= room)?;
        }
    }

    fn wait_for_room(&mut self, bound: BlockedBy, has_room: impl Fn(&Self) -> bool) -> Result<(), Refused> {
        self.bound = bound;
        loop {
            if self.wait.interrupted() {
                return Err(Refused::Interrupted);
            }
            self.lane.writer_waits.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.signal.ended().is_some() || has_room(self) {
                self.lane.writer_waits.store(false, Ordering::Relaxed);
                return Ok(());
            }
            self.signal.wake();
            if !self.waits {
                // The reader unparks it all the same.
                return Err(Refused::Full);
            }
            Self::park(&mut [self]);
        }
    }

    /// Parks the thread, as all of `these` lanes were found full since it last parked. It may be unparked early.
    pub(super) fn park(these: &mut [&mut Self]) {
        let (began, bound) = (Instant::now(), these[0].bound);
        // A reader says that it has room. A quick one is allowed more and more, and does so at once each time; but the
        // blocks of a single lane take longer.
        let is_called = || these.iter().any(|far| !far.lane.writer_waits.load(Ordering::Acquire));
        let looks = bound != BlockedBy::Blocks || these.len() > 1;
        let is_brisk = looks && these.iter().any(|far| far.brisk);
        let called = is_brisk && comes_soon(is_called) || looks && is_called();
        these.iter_mut().for_each(|far| far.brisk = called);
        if !called {
            these[0].wait.blocks(bound, began);
            these[0].wait.park_blocked();
        }
        these[0].wait.was_blocked(bound, Instant::now().duration_since(began));
    }
}

/// The length at which the writer attends next.
fn limit_of(len: usize, allowed: usize, room: usize, capacity: usize) -> usize {
    let more = if allowed <= FEW_RECORDS { 1 } else { room.max(1) };
    len.saturating_add(more).min(capacity)
}
