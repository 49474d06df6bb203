//! The sending half of a lane. The invariants are those of the [lane](super).

use std::ptr;
use std::time::Duration;

use super::block::{Block, Slot};
use super::sync::{Arc, Instant, Ordering, fence, publish_fence, thread};
use super::{ABORTED, ANY, Depth, FINISHED, Lane, Mark, Pushed, RUNNING, Refused, Signal, Wait};

/// A reader that releases a block within this time is fast: what is in flight then is milliseconds of work.
const FAST_BLOCK: Duration = Duration::from_micros(200);
/// The reader's pace is measured over so many blocks.
const PACE_BLOCKS: usize = 8;
/// Blocks a lane cycles through before it reuses one, if it may have as many.
const RING_BLOCKS: usize = 64;

/// The sending half of a lane. Call [`Writer::open`] before the first push.
///
/// What a push needs lies in the writer itself, everything else behind a pointer: no address of a writer is ever
/// taken, so that one on the stack may be kept in registers while its chain's loop runs.
///
/// Invariant: `slots` are those of a block with room for one record at least, and `len` says where. The push that fills a
/// block leaves it at once, for the spare one, which drops what is pushed into it; only [`Writer::attend`] and its like
/// lead back to the lane. So nobody's mistake makes a push write past the end of a block.
pub(crate) struct Writer<T, W: Wait> {
    /// Those of the open block, or of the spare one; the header lies right before them.
    slots: *mut Slot<T>,
    len: usize,
    far: Box<Far<T, W>>,
}

/// The part of a writer that is touched once a block.
struct Far<T, W> {
    tail: Tail<T>,
    depth: Depth,
    pace: Pace,
    /// Set once the lane takes no more records.
    refused: Option<Refused>,
    /// A block of one slot, this half's own. What is pushed into it is dropped by that push: once the lane has refused, or
    /// if its last block is full and was not attended to. A record that was lost so stays in its length.
    spare: *mut Block<T>,
    /// The watermark that was last written.
    mark: Mark,
    /// The probe that was last written.
    round: u64,
    signal: Arc<Signal>,
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

struct Tail<T> {
    block: *mut Block<T>,
    oldest: *mut Block<T>,
    oldest_index: usize,
    opened: usize,
    finished: bool,
}

// SAFETY: the pointer is to a block of the lane, which this half shares under the lane's invariants.
unsafe impl<T: Send, W: Wait + Send> Send for Writer<T, W> {}

impl<T, W: Wait> Writer<T, W> {
    pub(super) fn new(lane: Arc<Lane<T>>, depth: Depth, signal: Arc<Signal>, wait: W) -> Self {
        let tail =
            Tail { block: ptr::null_mut(), oldest: ptr::null_mut(), oldest_index: 0, opened: 0, finished: false };
        let pace = Pace { released: 0, at: Instant::now(), fast: false };
        let spare = Block::allocate(1);
        // SAFETY: nobody else knows of the block.
        unsafe { &*spare }.limit.store(0, Ordering::Relaxed);
        let far = Far { tail, depth, pace, refused: None, spare, mark: Mark::NONE, round: 0, signal, lane, wait };
        // SAFETY: the block was allocated above.
        Self { slots: unsafe { Block::slots(spare) }, len: 0, far: Box::new(far) }
    }

    /// Opens the first block, and has the calling thread, which is the one that will write, woken when the reader
    /// ends.
    pub(crate) fn open(&mut self) {
        self.far.lane.writer.get_or_init(thread::current);
        if self.far.tail.block.is_null() {
            let block = Block::allocate(self.far.lane.capacity);
            self.far.link(block);
            self.reopen(block);
        }
    }

    /// Appends a record.
    #[inline(always)]
    pub(crate) fn push(&mut self, record: T) -> Pushed {
        // SAFETY: the header lies right before the slots, which is where `Block::slots` came from.
        let header = unsafe { &*self.slots.cast::<Block<T>>().sub(1) };
        // SAFETY: the block has room at `len` (the writer's invariant), and that slot is the writer's (invariant 2).
        unsafe { (*self.slots.add(self.len)).with_mut(|slot| (*slot).write(record)) };
        self.len += 1;
        header.len.store(self.len, Ordering::Release);
        publish_fence();
        if self.len < header.limit.load(Ordering::Relaxed) {
            return Pushed::Done;
        }
        if self.len >= header.capacity {
            self.leave();
        }
        Pushed::Attend
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
        if self.len < header.limit.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (open, attended) = self.far.attend();
        self.reopen(open);
        attended
    }

    /// Says that `mark` holds from here on. May wait for room, as [`Writer::attend`] does; the last push was attended
    /// to.
    #[inline(always)]
    pub(crate) fn watermark(&mut self, mark: Mark) -> Result<(), Refused> {
        let (open, marked) = self.far.watermark(mark);
        self.reopen(open);
        marked
    }

    /// Sends a probe, behind all that was written; see `feedback.rs`. May wait for room, as [`Writer::watermark`] does.
    pub(crate) fn probe(&mut self, round: u64) -> Result<(), Refused> {
        let (open, probed) = self.far.probe(round);
        self.reopen(open);
        probed
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

    /// By which the reader says what it waits for, and that it has ended. When it has, the thread that opened the lane is
    /// unparked.
    pub(crate) fn signal(&self) -> &Arc<Signal> {
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

    /// Puts a watermark behind what was written. Returns the block that is open then.
    #[cold]
    #[inline(never)]
    fn watermark(&mut self, mark: Mark) -> (*mut Block<T>, Result<(), Refused>) {
        if let Some(refused) = self.refused {
            return (self.spare, Err(refused));
        }
        let marked = self.try_watermark(mark);
        self.open_after(marked)
    }

    /// Whether a record was dropped that the lane might have taken: it was pushed before the one before it was attended to.
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

    fn try_watermark(&mut self, mark: Mark) -> Result<(), Refused> {
        self.usable()?;
        // SAFETY: a block is open, and is not freed before the lane.
        let block = unsafe { &*self.tail.block };
        let empty = block.len.load(Ordering::Relaxed) == 0;
        let before = std::mem::replace(&mut self.mark, mark);
        // A record has ended idleness by itself.
        if mark == (Mark { idle: before.idle && empty, ..before }) {
            return Ok(());
        }
        if empty {
            block.set_mark(mark);
        } else {
            self.open_block()?;
        }
        self.wake_for_news();
        Ok(())
    }

    /// Puts a probe behind what was written. Returns the block that is open then.
    #[cold]
    #[inline(never)]
    fn probe(&mut self, round: u64) -> (*mut Block<T>, Result<(), Refused>) {
        if let Some(refused) = self.refused {
            return (self.spare, Err(refused));
        }
        let probed = self.try_probe(round);
        self.open_after(probed)
    }

    fn try_probe(&mut self, round: u64) -> Result<(), Refused> {
        self.usable()?;
        // SAFETY: a block is open, and is not freed before the lane.
        let block = unsafe { &*self.tail.block };
        let empty = block.len.load(Ordering::Relaxed) == 0;
        self.round = round;
        if empty {
            block.set_round(round);
        } else {
            // A record has ended idleness by itself.
            self.mark.idle = false;
            self.open_block()?;
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
        if block.len.load(Ordering::Relaxed) < block.capacity {
            return Ok(());
        }
        self.mark.idle = false;
        self.open_block()
    }

    fn open_block(&mut self) -> Result<(), Refused> {
        self.pace.measure(self.lane.released.load(Ordering::Acquire));
        let depth = if self.pace.fast { self.depth.fast } else { self.depth.slow };
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
                let block = if reuse { self.tail.reuse_oldest() } else { Block::allocate(self.lane.capacity) };
                self.link(block);
                return Ok(());
            }
            self.wait_for_room(depth / 2)?;
        }
    }

    /// Makes `block` the open one.
    fn link(&mut self, block: *mut Block<T>) {
        // SAFETY: nobody else knows of the block yet.
        let fresh = unsafe { &*block };
        fresh.set_mark(self.mark);
        fresh.set_round(self.round);
        if self.tail.block.is_null() {
            self.tail.oldest = block;
            self.lane.first.store(block, Ordering::Release);
        } else {
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

    fn wait_for_room(&mut self, room: usize) -> Result<(), Refused> {
        self.lane.room.store(room, Ordering::Relaxed);
        loop {
            if self.wait.interrupted() {
                return Err(Refused::Interrupted);
            }
            self.lane.writer_waits.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.signal.ended().is_some() || self.lane.outstanding() <= room {
                self.lane.writer_waits.store(false, Ordering::Relaxed);
                return Ok(());
            }
            self.signal.wake();
            self.wait.park_blocked();
        }
    }
}

impl<T> Tail<T> {
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
        reused.limit.store(reused.capacity, Ordering::Relaxed);
        reused.len.store(0, Ordering::Relaxed);
        block
    }
}

impl<T, W> Drop for Far<T, W> {
    fn drop(&mut self) {
        // SAFETY: the block is this half's own, and every push into it has dropped its record.
        unsafe { Block::free(self.spare) };
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
