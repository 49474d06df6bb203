//! The sending half of a lane. The invariants are those of the [lane](super). What it does once a block is in
//! `attending.rs`, how much it may write in `room.rs`.

use std::ptr;

use super::attending::Far;
use super::between::Between;
use super::block::{Block, RecordSlot};
use super::room::Weighing;
use super::sync::{Arc, Ordering, fetch_to_write, publish_fence, thread};
use super::{FINISHED, Lane, Pushed, ReaderState, Refused, Wait};

/// So far ahead of a record the memory for later ones is fetched: eight lines. Twice as far made no difference.
const AHEAD_BYTES: usize = 512;
const LINE_BYTES: usize = 64;
/// So many lines are fetched at a push, at most. Those of a larger record are written in a row, and overlap by
/// themselves.
const MOST_LINES: usize = 8;

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
    /// Whether records are weighed.
    weighs: bool,
    far: Box<Far<T, W>>,
}

// SAFETY: the pointer is to a block of the lane, which this half shares under the lane's invariants.
unsafe impl<T: Send, W: Wait + Send> Send for Writer<T, W> {}

impl<T, W: Wait> Writer<T, W> {
    pub(super) fn new(lane: Arc<Lane<T>>, signal: Arc<ReaderState>, wait: W) -> Self {
        let far = Box::new(Far::new(lane, signal, wait));
        // SAFETY: the spare block is freed with `far`.
        Self { slots: unsafe { Block::slots(far.spare) }, len: 0, weighs: false, far }
    }

    /// Has the records weighed: `weigh` tells what each holds beside its own size.
    pub(crate) fn weighing(mut self, weigh: std::sync::Arc<dyn Fn(&T) -> usize + Send + Sync>) -> Self {
        self.far.weighing = Some(Weighing::new(self.far.lane.size.bytes, weigh));
        self.weighs = true;
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
        // SAFETY: the header lies right before the slots, which is where `Block::slots` came from.
        let header = unsafe { &*self.slots.cast::<Block<T>>().sub(1) };
        // SAFETY: the block has room at `len` (the writer's invariant), and that slot is the writer's (invariant 2).
        let record = unsafe { (*self.slots.add(self.len)).with_mut(|slot| ptr::from_mut((*slot).write(record))) };
        // What holds nothing is of one size, and is counted.
        let is_heavy = std::mem::needs_drop::<T>() && self.weighs && Self::weigh(&mut self.far, record);
        self.fetch_ahead();
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

    /// Has the cache fetch the memory for records to come. The reader's processor has it from the last time it was in
    /// use, and a store waits until it is here: that is hundreds of nanoseconds where the two share no cache, and a
    /// processor holds only some dozens of stores back, which are few records. An address behind the block will do.
    #[inline(always)]
    fn fetch_ahead(&self) {
        for line in 0..size_of::<T>().div_ceil(LINE_BYTES).min(MOST_LINES) {
            fetch_to_write::<_, AHEAD_BYTES>(self.slots.wrapping_byte_add(line * LINE_BYTES), self.len);
        }
    }

    /// Adds a record, which lies in its slot, to the bytes of the open block. Returns whether it has its share of them
    /// then. There, and not on its way: a record whose address is taken cannot be moved in registers, nor can a writer.
    #[inline(never)]
    fn weigh(far: &mut Far<T, W>, record: *mut T) -> bool {
        /// Drops a record that is not counted yet, if to weigh it panics.
        struct Uncounted<T>(*mut T);
        impl<T> Drop for Uncounted<T> {
            fn drop(&mut self) {
                // SAFETY: the slot holds a record, and is not below the block's length.
                unsafe { self.0.drop_in_place() };
            }
        }
        let uncounted = Uncounted(record);
        // SAFETY: `push` has just written it, and nobody else knows of it.
        let record = unsafe { &*record };
        let is_heavy = far.weighing.as_mut().is_some_and(|weighing| weighing.add(record));
        std::mem::forget(uncounted);
        is_heavy
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

    /// As [`attend`](Self::attend), but where that would wait, it returns [`Refused::Full`]: the lane is still to be
    /// attended to then. The thread is unparked when there is room.
    pub(crate) fn attend_now(&mut self) -> Result<(), Refused> {
        let (open, attended) = self.far.attend_now();
        self.reopen(open);
        attended
    }

    /// Parks the thread, as all of `these` lanes were found full since it last parked. It may be unparked early.
    pub(super) fn park_for_any(these: &mut [Self]) {
        Far::park(&mut these.iter_mut().map(|lane| &mut *lane.far).collect::<Vec<_>>());
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
