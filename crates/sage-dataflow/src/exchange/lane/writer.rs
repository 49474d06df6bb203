//! The sending half of a lane. The invariants are those of the [lane](super).

use std::collections::VecDeque;
use std::ptr;
use std::time::Duration;

use super::between::{Between, Numbered, PerNumbered, Watermark};
use super::block::{Block, RecordSlot};
use super::metrics::BlockedBy;
use super::sync::{Arc, Instant, Ordering, SPINS, YIELDS, fence, publish_fence, thread};
use super::{ABORTED, ANY, FINISHED, Lane, Pushed, RUNNING, ReaderState, Refused, Wait};

/// A reader that releases a block within this time is fast: what is in flight then is milliseconds of work.
const FAST_BLOCK: Duration = Duration::from_micros(200);
/// The reader's pace is measured over so many blocks.
const PACE_BLOCKS: usize = 8;
/// Blocks a lane cycles through before it reuses one, if it may have as many.
const RING_BLOCKS: usize = 64;
/// Where no more records may wait than this, the writer attends to each, so that its tally is exact.
const FEW_RECORDS: usize = 64;

/// The sending half of a lane. Call [`Writer::open`] before the first push.
///
/// What a push needs lies in the writer itself, everything else behind a pointer: no address of a writer is ever
/// taken, so that one on the stack may be kept in registers while its chain's loop runs.
///
/// Invariant: `slots` are those of a block with room for one record at least, and `len` says where. The push that fills
/// a block leaves it at once, for the spare one, which drops what is pushed into it; only [`Writer::attend`] and its
/// like lead back to the lane. So nobody's mistake makes a push write past the end of a block.
pub(crate) struct Writer<T, W: Wait> {
    /// Those of the open block, or of the spare one; the header lies right before them.
    slots: *mut RecordSlot<T>,
    len: usize,
    far: Box<Far<T, W>>,
}

/// The part of a writer that is touched once a block.
struct Far<T, W> {
    tail: Tail<T>,
    weighing: Option<Weighing<T>>,
    /// How many records were allowed when it last waited, and whether it is worth some looks before the thread parks:
    /// that wait was short, or more are allowed since.
    allowed_before: usize,
    brisk: bool,
    pace: Pace,
    /// Set once the lane takes no more records.
    refused: Option<Refused>,
    /// A block of one slot, this half's own. What is pushed into it is dropped by that push: once the lane has refused,
    /// or if its last block is full and was not attended to. A record that was lost so stays in its length.
    spare: *mut Block<T>,
    /// The watermark that was last written.
    watermark: Watermark,
    /// The round of each signal that was last written.
    rounds: PerNumbered<u64>,
    signal: Arc<ReaderState>,
    lane: Arc<Lane<T>>,
    wait: W,
}

/// How fast the reader releases blocks.
struct Pace {
    /// How many it had released when last measured, and when that was.
    released: usize,
    at: Instant,
    fast: bool,
}

impl Pace {
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
struct Weighing<T> {
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
    fn is_full(&self) -> bool {
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

struct Tail<T> {
    block: *mut Block<T>,
    oldest: *mut Block<T>,
    oldest_index: usize,
    opened: usize,
    /// Records in the blocks before the open one.
    closed: usize,
    finished: bool,
}

// SAFETY: the pointer is to a block of the lane, which this half shares under the lane's invariants.
unsafe impl<T: Send, W: Wait + Send> Send for Writer<T, W> {}

impl<T, W: Wait> Writer<T, W> {
    pub(super) fn new(lane: Arc<Lane<T>>, signal: Arc<ReaderState>, wait: W) -> Self {
        let (block, oldest) = (ptr::null_mut(), ptr::null_mut());
        let tail = Tail { block, oldest, oldest_index: 0, opened: 0, closed: 0, finished: false };
        let pace = Pace { released: 0, at: Instant::now(), fast: false };
        let spare = Block::allocate(1);
        // SAFETY: nobody else knows of the block.
        unsafe { &*spare }.limit.store(0, Ordering::Relaxed);
        let (watermark, refused) = (Watermark::NONE, None);
        let (allowed_before, brisk) = (0, true);
        let weighing = None;
        let far = Far {
            tail,
            weighing,
            allowed_before,
            brisk,
            pace,
            refused,
            spare,
            watermark,
            rounds: Default::default(),
            signal,
            lane,
            wait,
        };
        // SAFETY: the block was allocated above.
        Self { slots: unsafe { Block::slots(spare) }, len: 0, far: Box::new(far) }
    }

    /// Has the records weighed: `weigh` tells what each holds beside its own size.
    pub(crate) fn weighing(mut self, weigh: std::sync::Arc<dyn Fn(&T) -> usize + Send + Sync>) -> Self {
        let most = self.far.lane.size.bytes;
        let (most_in_block, closed) = ((most / 4).max(1), VecDeque::new());
        self.far.weighing = Some(Weighing { weigh, most, most_in_block, open: 0, closed, waiting: 0, first: 0 });
        self
    }

    /// Opens the first block, and has the calling thread, which is the one that will write, woken when the reader
    /// ends.
    pub(crate) fn open(&mut self) {
        self.far.lane.writer.get_or_init(thread::current);
        if self.far.tail.block.is_null() {
            let block = Block::allocate(self.far.lane.size.capacity);
            self.far.link(block);
            self.reopen(block);
        }
    }

    /// Appends a record.
    #[inline(always)]
    pub(crate) fn push(&mut self, record: T) -> Pushed {
        // What holds nothing is of one size, and is counted.
        let is_heavy = std::mem::needs_drop::<T>() && self.far.weighing.is_some() && self.weigh(&record);
        // SAFETY: the header lies right before the slots, which is where `Block::slots` came from.
        let header = unsafe { &*self.slots.cast::<Block<T>>().sub(1) };
        // SAFETY: the block has room at `len` (the writer's invariant), and that slot is the writer's (invariant 2).
        unsafe { (*self.slots.add(self.len)).with_mut(|slot| (*slot).write(record)) };
        self.len += 1;
        header.len.store(self.len, Ordering::Release);
        publish_fence();
        if self.len < header.limit.load(Ordering::Relaxed) && !is_heavy {
            return Pushed::Done;
        }
        if self.len >= header.capacity {
            self.leave();
        }
        Pushed::Attend
    }

    /// Adds a record to the bytes of the open block. Returns whether it has its share of them then.
    #[inline]
    fn weigh(&mut self, record: &T) -> bool {
        let Some(weighing) = &mut self.far.weighing else { return false };
        // No more than all that may wait, so that sums of it do not overflow.
        let bytes = (weighing.weigh)(record).saturating_add(size_of::<T>()).min(weighing.most);
        weighing.open = weighing.open.saturating_add(bytes);
        weighing.is_full()
    }

    /// Leaves a block that has no more room. Calls nothing, unless it has a record to drop.
    #[inline(always)]
    fn leave(&mut self) {
        // SAFETY: the spare block is freed with `far`.
        let spare = unsafe { Block::slots(self.far.spare) };
        let lost = std::mem::replace(&mut self.slots, spare) == spare;
        self.len = 0;
        if std::mem::needs_drop::<T>() && lost {
            // SAFETY: the push has just written the record there, and the spare block is nobody else's.
            unsafe { (*spare).with_mut(|slot| (*slot).assume_init_drop()) };
        }
    }

    /// Does what the last push asked for, if it did: wakes the reader, and waits for room where the block is full.
    /// A lane that has refused can be pushed to all the same; it drops what it is given.
    #[inline(always)]
    pub(crate) fn attend(&mut self) -> Result<(), Refused> {
        // SAFETY: as in `push`.
        let header = unsafe { &*self.slots.cast::<Block<T>>().sub(1) };
        let is_heavy = std::mem::needs_drop::<T>() && self.far.is_heavy();
        if self.len < header.limit.load(Ordering::Relaxed) && !is_heavy {
            return Ok(());
        }
        let (open, attended) = self.far.attend();
        self.reopen(open);
        attended
    }

    /// Puts a watermark or a signal behind all that was written. May wait for room, as [`Writer::attend`] does; the
    /// last push was attended to.
    pub(crate) fn put(&mut self, between: Between) -> Result<(), Refused> {
        let (open, put) = self.far.put(between);
        self.reopen(open);
        put
    }

    /// Goes on in the block `open`, or without one.
    #[inline(always)]
    fn reopen(&mut self, open: *mut Block<T>) {
        // SAFETY: the open block is the lane's or `far`'s, and is not freed before either.
        let (slots, len, capacity) =
            unsafe { (Block::slots(open), (*open).len.load(Ordering::Relaxed), (*open).capacity) };
        (self.slots, self.len) = (slots, len);
        if len >= capacity {
            // SAFETY: as above.
            (self.slots, self.len) = (unsafe { Block::slots(self.far.spare) }, 0);
        }
    }

    /// Ends the lane: the reader will see the end after the last record. One that has lost a record is broken off.
    pub(crate) fn finish(&mut self) -> Result<(), Refused> {
        match self.far.refused {
            None | Some(Refused::ReaderGone) if !self.far.has_lost() => {
                self.far.end(FINISHED);
                Ok(())
            }
            refused => Err(refused.unwrap_or(Refused::Overrun)),
        }
    }

    /// Whether the reading task has ended well, and wants no more records.
    pub(crate) fn reader_gone(&self) -> bool {
        self.far.signal.is_gone()
    }

    /// By which the reader says what it waits for, and that it has ended. When it has, the thread that opened the lane
    /// is unparked.
    pub(crate) fn signal(&self) -> &Arc<ReaderState> {
        &self.far.signal
    }

    /// How this writer waits.
    pub(crate) fn wait_mut(&mut self) -> &mut W {
        &mut self.far.wait
    }
}

impl<T, W: Wait> Far<T, W> {
    fn end(&mut self, ending: u8) {
        if !self.tail.finished {
            self.tail.finished = true;
            self.lane.ending.store(ending, Ordering::Release);
            fence(Ordering::SeqCst);
            self.signal.wake();
        }
    }

    /// Attends to the open block. Returns the block that is open then.
    #[cold]
    #[inline(never)]
    fn attend(&mut self) -> (*mut Block<T>, Result<(), Refused>) {
        if let Some(refused) = self.refused {
            return (self.spare, Err(refused));
        }
        let attended = self.try_attend();
        self.open_after(attended)
    }

    /// The block that is open after an attempt at the lane's; one that failed is the last.
    fn open_after(&mut self, attempt: Result<(), Refused>) -> (*mut Block<T>, Result<(), Refused>) {
        match attempt {
            Ok(()) => (self.tail.block, Ok(())),
            Err(refused) => {
                self.refused = Some(refused);
                (self.spare, Err(refused))
            }
        }
    }

    /// Puts a watermark or a signal behind what was written. Returns the block that is open then.
    #[cold]
    #[inline(never)]
    fn put(&mut self, between: Between) -> (*mut Block<T>, Result<(), Refused>) {
        if let Some(refused) = self.refused {
            return (self.spare, Err(refused));
        }
        let put = self.try_put(between);
        self.open_after(put)
    }

    /// Whether a record was dropped that the lane might have taken: it was pushed before the one before it was attended
    /// to.
    fn has_lost(&self) -> bool {
        // SAFETY: the spare block is freed with this.
        self.refused.is_none() && unsafe { &*self.spare }.len.load(Ordering::Relaxed) > 0
    }

    /// Whether the lane goes on: its reader is there, and everything that was pushed is in it.
    fn usable(&self) -> Result<(), Refused> {
        match self.signal.ended() {
            Some(refused) => Err(refused),
            None if self.tail.block.is_null() || self.has_lost() => Err(Refused::Overrun),
            None => Ok(()),
        }
    }

    fn try_put(&mut self, between: Between) -> Result<(), Refused> {
        self.usable()?;
        // SAFETY: a block is open, and is not freed before the lane.
        let block = unsafe { &*self.tail.block };
        let empty = block.len.load(Ordering::Relaxed) == 0;
        // A record has ended idleness by itself.
        self.watermark.idle &= empty;
        match between {
            Between::Watermark(watermark) if watermark == self.watermark => return Ok(()),
            Between::Watermark(watermark) => self.watermark = watermark,
            Between::Numbered(signal, round) => self.rounds[signal as usize] = round,
        }
        if !empty {
            self.open_block()?;
        } else {
            match between {
                Between::Watermark(watermark) => block.set_watermark(watermark),
                Between::Numbered(signal, round) => block.set_round(signal, round),
            }
        }
        self.wake_for_news();
        Ok(())
    }

    /// Wakes a reader that waits for a record, for what is in the header of the open block.
    fn wake_for_news(&self) {
        fence(Ordering::SeqCst);
        if self.signal.mode.load(Ordering::Relaxed) == ANY {
            self.signal.wake();
        }
    }

    fn try_attend(&mut self) -> Result<(), Refused> {
        self.usable()?;
        // SAFETY: a block is open, and is not freed before the lane.
        let block = unsafe { &*self.tail.block };
        if block.limit.load(Ordering::Relaxed) == 0 {
            // Lifted before the wake, by an exchange: a limit that is set anew meanwhile either stays, for the next
            // record, or came with a mode that the wake sees.
            block.limit.swap(block.capacity, Ordering::AcqRel);
            self.signal.wake();
        }
        if block.len.load(Ordering::Relaxed) >= block.capacity || self.is_heavy() {
            self.watermark.idle = false;
            self.open_block()?;
        }
        self.wait_for_bytes()?;
        self.allow()
    }

    /// Whether the open block has its share of bytes.
    #[inline(always)]
    fn is_heavy(&self) -> bool {
        self.weighing.as_ref().is_some_and(Weighing::is_full)
    }

    /// Waits until another block may be filled.
    fn wait_for_bytes(&mut self) -> Result<(), Refused> {
        let released = self.lane.released.load(Ordering::Acquire);
        let Some(needed) = self.weighing.as_mut().map(|weighing| weighing.needed(released)) else { return Ok(()) };
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
    fn allow(&mut self) -> Result<(), Refused> {
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

    fn open_block(&mut self) -> Result<(), Refused> {
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

    /// Makes `block` the open one.
    fn link(&mut self, block: *mut Block<T>) {
        // SAFETY: nobody else knows of the block yet.
        let fresh = unsafe { &*block };
        fresh.set_watermark(self.watermark);
        Numbered::ALL.iter().for_each(|&signal| fresh.set_round(signal, self.rounds[signal as usize]));
        // One more may wait, as it might before a watermark closed the block before this.
        fresh.limit.store(1, Ordering::Relaxed);
        if self.tail.block.is_null() {
            self.tail.oldest = block;
            self.lane.first.store(block, Ordering::Release);
        } else {
            self.tail.closed = self.tail.written();
            if let Some(weighing) = &mut self.weighing {
                let bytes = std::mem::take(&mut weighing.open);
                weighing.closed.push_back(bytes);
                weighing.waiting = weighing.waiting.saturating_add(bytes);
            }
            // SAFETY: the current block stays the writer's or the reader's until the lane is dropped.
            unsafe { &*self.tail.block }.next.store(block, Ordering::Release);
        }
        self.tail.opened += 1;
        self.lane.opened.store(self.tail.opened, Ordering::Release);
        self.tail.block = block;
        fence(Ordering::SeqCst);
        if self.signal.mode.load(Ordering::Relaxed) >= ANY {
            // SAFETY: as above.
            unsafe { &*block }.limit.store(0, Ordering::Relaxed);
        }
    }

    fn wait_for_room(&mut self, bound: BlockedBy, has_room: impl Fn(&Self) -> bool) -> Result<(), Refused> {
        let began = Instant::now();
        let waited = self.wait_at(bound, has_room);
        self.wait.was_blocked(bound, Instant::now().duration_since(began));
        waited
    }

    fn wait_at(&mut self, bound: BlockedBy, has_room: impl Fn(&Self) -> bool) -> Result<(), Refused> {
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
            if bound == BlockedBy::Blocks || !self.is_called() {
                self.wait.park_blocked();
            }
        }
    }

    /// Whether the reader called within a short while: a quick one is allowed more and more, and each time calls at
    /// once.
    fn is_called(&mut self) -> bool {
        let waits = || self.lane.writer_waits.load(Ordering::Acquire);
        if self.brisk {
            for _ in 0..SPINS {
                if !waits() {
                    return true;
                }
                std::hint::spin_loop();
            }
            for () in std::iter::repeat_n((), YIELDS) {
                if !waits() {
                    return true;
                }
                thread::yield_now();
            }
        }
        self.brisk = !waits();
        self.brisk
    }
}

/// The length at which the writer attends next.
fn limit_of(len: usize, allowed: usize, room: usize, capacity: usize) -> usize {
    let more = if allowed <= FEW_RECORDS { 1 } else { room.max(1) };
    len.saturating_add(more).min(capacity)
}

impl<T> Tail<T> {
    /// How many records were written.
    fn written(&self) -> usize {
        // SAFETY: the open block, if there is one, is not freed before the lane.
        let open = unsafe { self.block.as_ref() };
        self.closed + open.map_or(0, |block| block.len.load(Ordering::Relaxed))
    }

    fn reuse_oldest(&mut self) -> *mut Block<T> {
        let block = self.oldest;
        // SAFETY: the reader released this block and will not touch it again (invariant 1).
        let reused = unsafe {
            Block::check(block);
            &*block
        };
        self.oldest = reused.next.load(Ordering::Acquire);
        self.oldest_index += 1;
        reused.next.store(ptr::null_mut(), Ordering::Relaxed);
        reused.len.store(0, Ordering::Relaxed);
        block
    }
}

impl<T, W> Drop for Far<T, W> {
    fn drop(&mut self) {
        // SAFETY: the block is this half's own, and every push into it has dropped its record.
        unsafe { Block::free(self.spare) };
        self.lane.tally.written(self.tail.written());
        let oldest = (self.tail.oldest, self.tail.oldest_index);
        // SAFETY: read by the lane's `Drop` alone, after this half is gone.
        self.lane.oldest.with_mut(|cell| unsafe { *cell = oldest });
        if !self.tail.finished {
            self.lane.ending.store(ABORTED, Ordering::Release);
            fence(Ordering::SeqCst);
            self.signal.wake();
        }
    }
}
