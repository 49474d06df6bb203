//! What a writer does once a block: it opens the next one, wakes the reader, and puts watermarks between records.

use std::ptr;

use super::between::{Between, Numbered, PerNumbered, Watermark};
use super::block::Block;
use super::metrics::BlockedBy;
use super::room::{Pace, Weighing};
use super::sync::{Arc, Ordering, fence};
use super::{ABORTED, ANY, Lane, ReaderState, Refused, Wait};

/// The part of a writer that is touched once a block.
pub(super) struct Far<T, W> {
    pub(super) tail: Tail<T>,
    pub(super) weighing: Option<Weighing<T>>,
    /// How many records were allowed when it last waited, and whether it is worth some looks before the thread parks:
    /// that wait was short, or more are allowed since.
    pub(super) allowed_before: usize,
    pub(super) brisk: bool,
    pub(super) pace: Pace,
    /// Whether it waits for room, and at which bound there was none when it was last looked for.
    pub(super) waits: bool,
    pub(super) bound: BlockedBy,
    /// Set once the lane takes no more records.
    pub(super) refused: Option<Refused>,
    /// A block of one slot, this half's own. What is pushed into it is dropped by that push: once the lane has refused,
    /// or if its last block is full and was not attended to. A record that was lost so stays in its length.
    pub(super) spare: *mut Block<T>,
    /// The watermark that was last written.
    pub(super) watermark: Watermark,
    /// The round of each signal that was last written.
    pub(super) rounds: PerNumbered<u64>,
    pub(super) signal: Arc<ReaderState>,
    pub(super) lane: Arc<Lane<T>>,
    pub(super) wait: W,
}

/// The blocks from the oldest that is the writer's again to the open one.
pub(super) struct Tail<T> {
    pub(super) block: *mut Block<T>,
    pub(super) oldest: *mut Block<T>,
    pub(super) oldest_index: usize,
    pub(super) opened: usize,
    /// Records in the blocks before the open one.
    pub(super) closed: usize,
    pub(super) finished: bool,
}

impl<T, W: Wait> Far<T, W> {
    pub(super) fn new(lane: Arc<Lane<T>>, signal: Arc<ReaderState>, wait: W) -> Self {
        let (block, oldest) = (ptr::null_mut(), ptr::null_mut());
        let spare = Block::allocate(1);
        // SAFETY: nobody else knows of the block.
        unsafe { &*spare }.limit.store(0, Ordering::Relaxed);
        Self {
            tail: Tail { block, oldest, oldest_index: 0, opened: 0, closed: 0, finished: false },
            weighing: None,
            allowed_before: 0,
            brisk: true,
            pace: Pace::new(),
            waits: true,
            bound: BlockedBy::Blocks,
            refused: None,
            spare,
            watermark: Watermark::NONE,
            rounds: Default::default(),
            signal,
            lane,
            wait,
        }
    }

    pub(super) fn end(&mut self, ending: u8) {
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
    pub(super) fn attend(&mut self) -> (*mut Block<T>, Result<(), Refused>) {
        if let Some(refused) = self.refused {
            return (self.spare, Err(refused));
        }
        let attended = self.try_attend();
        self.open_after(attended)
    }

    /// As [`attend`](Self::attend), but for the waits: then the lane is [full](Refused::Full).
    #[cold]
    #[inline(never)]
    pub(super) fn attend_now(&mut self) -> (*mut Block<T>, Result<(), Refused>) {
        if let Some(refused) = self.refused {
            return (self.spare, Err(refused));
        }
        self.waits = false;
        let attended = self.try_attend();
        self.waits = true;
        match attended {
            // What is pushed nevertheless is lost.
            Err(Refused::Full) => (self.spare, attended),
            _ => self.open_after(attended),
        }
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
    pub(super) fn put(&mut self, between: Between) -> (*mut Block<T>, Result<(), Refused>) {
        if let Some(refused) = self.refused {
            return (self.spare, Err(refused));
        }
        let put = self.try_put(between);
        self.open_after(put)
    }

    /// Whether a record was dropped that the lane might have taken: it was pushed before the one before it was attended
    /// to.
    pub(super) fn has_lost(&self) -> bool {
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
    pub(super) fn is_heavy(&self) -> bool {
        self.weighing.as_ref().is_some_and(Weighing::is_full)
    }

    /// Makes `block` the open one.
    pub(super) fn link(&mut self, block: *mut Block<T>) {
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
                weighing.close();
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
}

impl<T> Tail<T> {
    /// How many records were written.
    pub(super) fn written(&self) -> usize {
        // SAFETY: the open block, if there is one, is not freed before the lane.
        let open = unsafe { self.block.as_ref() };
        self.closed + open.map_or(0, |block| block.len.load(Ordering::Relaxed))
    }

    pub(super) fn reuse_oldest(&mut self) -> *mut Block<T> {
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
