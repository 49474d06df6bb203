//! The receiving half of a lane. The invariants are those of the [lane](super).

use std::marker::PhantomData;
use std::ptr;

use super::between::{Numbered, PerNumbered, Watermark};
use super::block::Block;
use super::sync::{Arc, Ordering, fence};
use super::{FINISHED, Lane, OPEN, Tally};

/// The receiving half of a lane.
pub(crate) struct Reader<T> {
    block: *mut Block<T>,
    read: usize,
    released: usize,
    /// How many records were taken, and how many of them the writer knows of.
    taken: usize,
    told: usize,
    /// How many records may wait; `usize::MAX` for as many as the blocks hold.
    allowed: usize,
    /// The watermark that was last found and heeded.
    watermark: Watermark,
    /// The round of each signal that was last found and heeded.
    rounds: PerNumbered<u64>,
    lane: Arc<Lane<T>>,
    /// Which input of its task this is a lane of.
    pub(super) input: usize,
    /// Whether it lies in a loop, whose probes pass through it.
    in_loop: bool,
    /// Whether a loop begins with it: event time does not come back through a loop.
    from_head: bool,
}

// SAFETY: as for `Writer`.
unsafe impl<T: Send> Send for Reader<T> {}

/// What a reader finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A watermark that holds from here on; to be answered by [`Reader::heed`].
    Watermark(Watermark),
    /// A signal that passes here, in its round; to be answered by [`Reader::pass`].
    Signalled(Numbered, u64),
    /// Records to take, and whether they are the rest of a block that gets no more.
    Records { count: usize, full: bool },
    /// Nothing now; more may come.
    Nothing,
    /// The writer finished and every record was taken.
    Finished,
    /// The writer ended without finishing.
    Aborted,
}

impl<T> Reader<T> {
    pub(super) fn new(lane: Arc<Lane<T>>) -> Self {
        let allowed = lane.size.records;
        Self {
            lane,
            block: ptr::null_mut(),
            read: 0,
            released: 0,
            taken: 0,
            told: 0,
            allowed,
            watermark: Watermark::NONE,
            rounds: Default::default(),
            input: 0,
            in_loop: false,
            from_head: false,
        }
    }

    /// Says which input of its task this is a lane of; it is 0 unless said.
    pub(crate) fn of_input(mut self, input: usize) -> Self {
        self.input = input;
        self
    }

    /// Says that this lane lies in a loop, and whether at its head.
    pub(crate) fn in_loop(mut self, in_loop: bool, from_head: bool) -> Self {
        (self.in_loop, self.from_head) = (in_loop, from_head);
        self
    }

    /// The count of its lane.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        self.lane.tally.clone()
    }

    /// The watermark that was last heeded; `None` if nobody is to wait for one.
    pub(super) fn watermark(&self) -> Option<Watermark> {
        (!self.from_head).then_some(self.watermark)
    }

    /// The round of a signal that has passed here; `None` if it is not awaited here.
    pub(super) fn round(&self, signal: Numbered) -> Option<u64> {
        if self.from_head && !signal.goes_round() {
            return None;
        }
        Some(if signal.passes(self.in_loop) { self.rounds[signal as usize] } else { 0 })
    }

    /// Takes note of a signal that was found.
    pub(super) fn pass(&mut self, signal: Numbered, round: u64) {
        self.rounds[signal as usize] = round;
    }

    /// Takes note of a watermark that was found.
    pub(super) fn heed(&mut self, watermark: Watermark) {
        self.watermark = watermark;
    }

    /// Looks for records, moving on to the next block where this one is used up.
    pub(super) fn look(&mut self) -> Found {
        // Read first: what was written before the end is seen by the look that follows.
        let ending = self.lane.ending.load(Ordering::Acquire);
        match self.available() {
            // Nothing is added while the writer waits.
            Some(Found::Records { count, full }) => {
                return Found::Records { count, full: full || ending != OPEN || self.writer_waits() };
            }
            Some(found) => return found,
            None => {}
        }
        match ending {
            OPEN => Found::Nothing,
            FINISHED => Found::Finished,
            _ => Found::Aborted,
        }
    }

    /// Whether a look would find the rest of a full block, or an end, or all that is allowed. Reads only what the
    /// writer writes once a block: a reader that waits for full blocks must not keep taking the cache line of the
    /// length from the writer.
    pub(super) fn has_full(&self) -> bool {
        self.lane.opened.load(Ordering::Acquire) > self.released + 1
            || self.lane.ending.load(Ordering::Acquire) != OPEN
            || (self.writer_waits() && self.has_any())
    }

    /// Whether there is a record in the reader's block.
    fn has_any(&self) -> bool {
        // SAFETY: the reader's block is not reused before `released` passes it, nor freed before the lane.
        match unsafe { self.block.as_ref() } {
            Some(block) => block.len.load(Ordering::Acquire) > self.read,
            None => true,
        }
    }

    fn writer_waits(&self) -> bool {
        self.lane.writer_waits.load(Ordering::Acquire)
    }

    /// Whether the writer is told how many records may wait.
    fn is_counted(&self) -> bool {
        self.allowed != usize::MAX
    }

    /// How many records the lane can hold before the reader need not be asked.
    pub(super) fn slow_records(&self) -> usize {
        if self.lane.size.is_unbounded() { 0 } else { self.lane.size.slow_records() }
    }

    /// Allows so many records to wait, or as many as the blocks hold where that is no more.
    pub(super) fn allow(&mut self, records: usize) {
        let size = &self.lane.size;
        if size.is_unbounded() {
            return;
        }
        let records = if records >= size.slow_records() { usize::MAX } else { records };
        let allowed = records.min(size.records);
        let before = std::mem::replace(&mut self.allowed, allowed);
        if allowed == before {
            return;
        }
        self.told = self.taken;
        self.lane.progress.taken.store(self.taken, Ordering::Release);
        self.lane.progress.allowed.store(allowed, Ordering::Release);
        fence(Ordering::SeqCst);
        if allowed < before {
            self.with_newest(|block| {
                let limit = block.limit.load(Ordering::Relaxed);
                if limit > 1 {
                    // Where that fails, the writer has set it, and then finds what is allowed now.
                    let _ = block.limit.compare_exchange(limit, 1, Ordering::Release, Ordering::Relaxed);
                }
            });
        }
        if self.writer_waits() {
            self.unpark_writer();
        }
    }

    /// Of how many records the writer learns at a time that they were taken, at most: while it waits, the next ones are
    /// on their way.
    pub(super) fn run(&self) -> usize {
        if self.is_counted() { (self.allowed / 4).max(1) } else { usize::MAX }
    }

    /// Tells the writer how many records were taken.
    fn tell(&mut self, taken: usize) {
        if self.told == taken {
            return;
        }
        self.told = taken;
        self.lane.progress.taken.store(taken, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.writer_waits() && taken >= self.lane.wake_at.load(Ordering::Relaxed) {
            self.unpark_writer();
        }
    }

    fn available(&mut self) -> Option<Found> {
        if self.block.is_null() {
            self.block = self.lane.first.load(Ordering::Acquire);
            if self.block.is_null() {
                return None;
            }
        }
        loop {
            // SAFETY: the reader's block is not reused before `released` passes it, nor freed before the lane.
            let block = unsafe { &*self.block };
            let len = block.len.load(Ordering::Acquire);
            if self.read == 0 {
                let watermark = block.watermark(len);
                if watermark != self.watermark {
                    return Some(Found::Watermark(watermark));
                }
                for &signal in Numbered::ALL {
                    let round = block.round(signal);
                    if round != self.rounds[signal as usize] {
                        return Some(Found::Signalled(signal, round));
                    }
                }
            }
            if len > self.read {
                let full = len == self.lane.size.capacity || !block.next.load(Ordering::Relaxed).is_null();
                return Some(Found::Records { count: len - self.read, full });
            }
            let next = block.next.load(Ordering::Acquire);
            if next.is_null() {
                return None;
            }
            // Closed, perhaps since the length was read: now it is final.
            if self.read < self.lane.size.capacity && block.len.load(Ordering::Acquire) > self.read {
                continue;
            }
            self.block = next;
            self.read = 0;
            self.release();
        }
    }

    fn release(&mut self) {
        self.released += 1;
        self.lane.released.store(self.released, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.lane.writer_waits.load(Ordering::Relaxed)
            && self.lane.outstanding() <= self.lane.room.load(Ordering::Relaxed)
        {
            self.unpark_writer();
        }
    }

    /// Sets the limit of the newest block, so that the next record in it makes the writer look at the mode.
    pub(super) fn call_writer(&self) {
        self.with_newest(|block| block.limit.store(0, Ordering::Release));
    }

    fn with_newest(&self, act: impl FnOnce(&Block<T>)) {
        let mut newest = self.block;
        if newest.is_null() {
            newest = self.lane.first.load(Ordering::Acquire);
        }
        while !newest.is_null() {
            // SAFETY: the reader's block and those after it are not reused before `released` passes them.
            let block = unsafe { &*newest };
            newest = block.next.load(Ordering::Acquire);
            if newest.is_null() {
                act(block);
                return;
            }
        }
    }

    pub(super) fn unpark_writer(&self) {
        self.lane.writer_waits.store(false, Ordering::Relaxed);
        if let Some(writer) = self.lane.writer.get() {
            writer.unpark();
        }
    }

    /// Hands up to `count` records to `taker`, one at a time, until it refuses one. A record is the
    /// taker's from the moment it is handed over, also when it panics.
    ///
    /// # Safety
    /// `count` is at most what the last [`Reader::look`] found.
    #[inline(always)]
    pub(super) unsafe fn take<X: Taker<T>>(&mut self, count: usize, taker: &mut X) -> Result<(), X::Refusal> {
        if self.is_counted() {
            // The first is worked on from here on, and waits no more.
            self.tell(self.taken + 1);
        }
        // SAFETY: as promised.
        let taken = unsafe { self.hand(count, taker) };
        self.lane.tally.done(self.taken);
        if self.is_counted() {
            self.tell(self.taken);
        }
        taken
    }

    /// # Safety
    /// As for [`Reader::take`].
    #[inline(always)]
    unsafe fn hand<X: Taker<T>>(&mut self, count: usize, taker: &mut X) -> Result<(), X::Refusal> {
        /// Says how far the reader got when the loop is left, by its end, a refusal or a panic.
        struct HowFar<'a, T, X: Taker<T>> {
            next: usize,
            read: &'a mut usize,
            taken: &'a mut usize,
            taker: &'a mut X,
            records: PhantomData<fn(T)>,
        }
        impl<T, X: Taker<T>> Drop for HowFar<'_, T, X> {
            #[inline(always)]
            fn drop(&mut self) {
                let count = self.next - *self.read;
                self.taker.took(count);
                *self.taken += count;
                *self.read = self.next;
            }
        }
        // SAFETY: `look` found records, so the reader has a block.
        let slots = unsafe { Block::slots(self.block) };
        let (next, read, taken) = (self.read, &mut self.read, &mut self.taken);
        let mut progress = HowFar { next, read, taken, taker, records: PhantomData };
        let end = progress.next + count;
        while progress.next < end {
            let mut group_end = end;
            let looks_ahead = progress.taker.looks_ahead();
            if looks_ahead > 0 {
                group_end = end.min(progress.next + looks_ahead);
                for shown in progress.next..group_end {
                    progress.taker.look()?;
                    // SAFETY: as for the records that are taken below, which these are.
                    let record = unsafe { (*slots.add(shown)).with(|slot| (*slot).assume_init_ref()) };
                    progress.taker.ahead(record, shown - progress.next);
                }
            }
            while progress.next < group_end {
                progress.taker.look()?;
                // SAFETY: the slots up to `count` further on are below `len` and were not read before.
                let record = unsafe { (*slots.add(progress.next)).with(|slot| (*slot).assume_init_read()) };
                progress.next += 1;
                progress.taker.take(record)?;
            }
        }
        Ok(())
    }
}

/// Who is handed the records of a run.
pub(crate) trait Taker<T> {
    /// Why it takes no more.
    type Refusal;
    /// Looks whether it is to go on, before each record that it is shown or handed.
    fn look(&mut self) -> Result<(), Self::Refusal>;
    /// How many records it wants to be shown before it is handed the first of them, at most.
    fn looks_ahead(&mut self) -> usize {
        0
    }
    /// Is shown a record that is handed over after `before` others, each once, in their order.
    fn ahead(&mut self, record: &T, before: usize) {
        let (_, _) = (record, before);
    }
    /// Takes a record.
    fn take(&mut self, record: T) -> Result<(), Self::Refusal>;
    /// Is told at the end of a run, also after a refusal or a panic, how many records it was handed.
    fn took(&mut self, count: usize);
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        let read = self.read;
        self.lane.tally.done(self.taken);
        // SAFETY: read by the lane's `Drop` alone, after this half is gone.
        self.lane.read.with_mut(|cell| unsafe { *cell = read });
    }
}
