//! A lane: the bounded channel of record blocks from one task to one other task.
//!
//! The writer appends records to a block and publishes the block's length after each one, so that the
//! reader can take what is there at any moment: a full block while records come fast, a single record
//! while they come slowly. There is no flush for the writer to forget, and none for a source that is
//! stuck inside a user's iterator to delay.
//!
//! Ownership and invariants:
//!  1. One writer, one reader. Blocks form a list `oldest … reader's … writer's`; a block before the
//!     reader's is the writer's again (`released` counts them) and is reused, so a lane allocates at
//!     most `depth` blocks however long it lives.
//!  2. A slot below a block's `len` belongs to the reader, one at or above it to the writer.
//!  3. `ending` is stored after the last record. A writer dropped without [`Writer::finish`] ends the lane as
//!     `Aborted`: a reader never mistakes a failed producer for the end of its input.
//!  4. Whoever drops the last half of a lane drops the records nobody read.
//!
//! Waking. The reader announces what it waits for in [`Signal::mode`]. `FULL` (records come fast) asks to be
//! woken when half the lane's blocks are full, and is always a timed wait; `ANY` asks to be woken by the
//! next record. The writer's check of `mode` after each record has no store-load fence, which would cost more
//! than all the rest of a push. The reader makes up for it: having set `ANY` it first waits for one timed
//! interval, looks again, and only then waits without limit. A push whose check missed the new mode was
//! finished before that interval began, so the second look sees its record: a retired store reaches
//! the cache in nanoseconds, the interval is a thousand times that. The loom model puts the fence in
//! (`publish_fence`) and checks everything else.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use super::sync::{
    Arc, AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, OnceLock, Ordering, SPINS, Thread, UnsafeCell, fence, park_for,
    publish_fence, thread,
};
use crossbeam_utils::CachePadded;

/// The reader is at work: it looks for records by itself.
const RUNNING: u8 = 0;
/// The reader waits, for a limited time, for half a lane of full blocks.
const FULL: u8 = 1;
/// The reader waits for any record.
const ANY: u8 = 2;
/// The reader has ended well; it wants no more records.
const GONE: u8 = 3;
/// The reader has ended without finishing: its job is failing or cancelled.
const BROKEN: u8 = 4;

const OPEN: u8 = 0;
const FINISHED: u8 = 1;
const ABORTED: u8 = 2;

/// The records a reader must have taken in one go to count its stream as fast.
const FAST_RECORDS: usize = 32;

/// What a blocked end of a lane asks of the task it runs in.
pub(crate) trait Wait {
    /// Whether the wait is to be given up: the job is being cancelled.
    fn interrupted(&self) -> bool;
    /// Parks the calling thread until it is unparked.
    fn park_blocked(&mut self);
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The reader wants no more records.
    ReaderGone,
    /// The job is being cancelled, or the reader has ended without finishing.
    Interrupted,
}

/// How the reading task says what it waits for; one for all the lanes it reads.
#[derive(Debug)]
pub(crate) struct Signal {
    mode: CachePadded<AtomicU8>,
    reader: OnceLock<Thread>,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self { mode: CachePadded::new(AtomicU8::new(RUNNING)), reader: OnceLock::new() }
    }

    /// Whether the reader has ended, and how.
    fn ended(&self) -> Option<Refused> {
        match self.mode.load(Ordering::Relaxed) {
            GONE => Some(Refused::ReaderGone),
            BROKEN => Some(Refused::Interrupted),
            _ => None,
        }
    }

    fn wake(&self) {
        let woken = self.mode.compare_exchange(ANY, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            || self.mode.compare_exchange(FULL, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if woken && let Some(reader) = self.reader.get() {
            reader.unpark();
        }
    }
}

struct Block<T> {
    next: AtomicPtr<Block<T>>,
    len: AtomicUsize,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

impl<T> Block<T> {
    fn allocate(capacity: usize) -> *mut Self {
        let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
        Box::into_raw(Box::new(Self { next: AtomicPtr::new(ptr::null_mut()), len: AtomicUsize::new(0), slots }))
    }
}

struct Lane<T> {
    capacity: usize,
    /// Blocks at most, or `usize::MAX` on the inline backend, where nobody could make room.
    depth: usize,
    first: AtomicPtr<Block<T>>,
    opened: CachePadded<AtomicUsize>,
    released: CachePadded<AtomicUsize>,
    ending: AtomicU8,
    writer_waits: AtomicBool,
    writer: OnceLock<Thread>,
    /// Where the writer and the reader stood when they were dropped; read by `Drop` alone.
    oldest: UnsafeCell<(*mut Block<T>, usize)>,
    read: UnsafeCell<usize>,
}

// SAFETY: the raw pointers are to blocks the lane owns; invariants 1 and 2 give each slot one owner at a time,
// handed over by `len`, `next`, `first` and `released` with release/acquire pairs. `oldest` and `read` are written
// once by their side and read after both sides are gone.
unsafe impl<T: Send> Send for Lane<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Lane<T> {}

impl<T> Lane<T> {
    fn outstanding(&self) -> usize {
        self.opened.load(Ordering::Acquire) - self.released.load(Ordering::Acquire)
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        let released = self.released.load(Ordering::Acquire);
        // SAFETY: both sides are gone; `&mut self` is the only access left.
        let (mut block, mut index) = self.oldest.with(|oldest| unsafe { *oldest });
        // SAFETY: as above.
        let read = self.read.with(|read| unsafe { *read });
        while !block.is_null() {
            // SAFETY: every block of the list came from `Box::into_raw` and is freed here once.
            let owned = unsafe { Box::from_raw(block) };
            let start = match index {
                i if i < released => owned.slots.len(),
                i if i == released => read,
                _ => 0,
            };
            for slot in owned.slots.iter().take(owned.len.load(Ordering::Acquire)).skip(start) {
                // SAFETY: slots below `len` that the reader had not reached hold records.
                slot.with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            }
            block = owned.next.load(Ordering::Acquire);
            index += 1;
        }
    }
}

/// Makes a lane of blocks of `capacity` records, `depth` blocks at most (2 or more).
///
/// The writer waits for room as `wait` says.
pub(crate) fn lane<T: Send, W: Wait>(
    capacity: usize,
    depth: usize,
    signal: Arc<Signal>,
    wait: W,
) -> (Writer<T, W>, Reader<T>) {
    assert!(capacity >= 1, "a block holds at least one record");
    assert!(depth >= 2, "the reader gives a block back when the next one is open, so two are needed");
    let lane = Arc::new(Lane {
        capacity,
        depth,
        first: AtomicPtr::new(ptr::null_mut()),
        opened: CachePadded::new(AtomicUsize::new(0)),
        released: CachePadded::new(AtomicUsize::new(0)),
        ending: AtomicU8::new(OPEN),
        writer_waits: AtomicBool::new(false),
        writer: OnceLock::new(),
        oldest: UnsafeCell::new((ptr::null_mut(), 0)),
        read: UnsafeCell::new(0),
    });
    let tail = Tail { block: ptr::null_mut(), oldest: ptr::null_mut(), oldest_index: 0, opened: 0, finished: false };
    let writer = Writer {
        slots: ptr::null(),
        published: ptr::null(),
        len: capacity,
        capacity,
        mode: &raw const *signal.mode,
        far: Box::new(Far { tail, signal, lane: lane.clone(), wait }),
    };
    (writer, Reader { lane, block: ptr::null_mut(), read: 0, released: 0 })
}

/// The sending half of a lane.
///
/// What a push needs lies in the writer itself, everything else behind a pointer: no address of a writer is ever
/// taken, so that one on the stack may be kept in registers while its chain's loop runs.
pub(crate) struct Writer<T, W: Wait> {
    slots: *const UnsafeCell<MaybeUninit<T>>,
    /// The open block's `len`.
    published: *const AtomicUsize,
    len: usize,
    capacity: usize,
    mode: *const AtomicU8,
    far: Box<Far<T, W>>,
}

/// The part of a writer that is touched once a block.
struct Far<T, W> {
    tail: Tail<T>,
    signal: Arc<Signal>,
    lane: Arc<Lane<T>>,
    wait: W,
}

struct Tail<T> {
    block: *mut Block<T>,
    oldest: *mut Block<T>,
    oldest_index: usize,
    opened: usize,
    finished: bool,
}

// SAFETY: the pointers are to blocks of the lane, which this half shares under the lane's invariants, and to the signal,
// which it owns a share of.
unsafe impl<T: Send, W: Wait + Send> Send for Writer<T, W> {}

impl<T, W: Wait> Writer<T, W> {
    /// Appends a record, waiting while the lane is full.
    #[inline(always)]
    pub(crate) fn push(&mut self, record: T) -> Result<(), Refused> {
        if self.len == self.capacity {
            let block = self.far.open_block()?;
            // SAFETY: `open_block` returns a valid block, which is not freed before the lane.
            let block = unsafe { &*block };
            (self.slots, self.published, self.len) = (block.slots.as_ptr(), &raw const block.len, 0);
        }
        debug_assert!(!self.slots.is_null() && self.len < self.capacity, "a block is open");
        // SAFETY: a block is open and `len < capacity`; the slot at `len` is the writer's (invariant 2).
        unsafe { (*self.slots.add(self.len)).with_mut(|slot| (*slot).write(record)) };
        self.len += 1;
        // SAFETY: `published` is in the open block.
        unsafe { &*self.published }.store(self.len, Ordering::Release);
        publish_fence();
        // SAFETY: `far.signal` keeps the mode alive.
        if unsafe { &*self.mode }.load(Ordering::Relaxed) >= ANY { self.far.rouse() } else { Ok(()) }
    }

    /// Ends the lane: the reader will see the end after the last record.
    pub(crate) fn finish(&mut self) {
        self.far.end(FINISHED);
    }

    /// Has the calling thread, which is the one that will write, woken when the reader ends.
    pub(crate) fn wake_me(&self) {
        self.far.lane.writer.get_or_init(thread::current);
    }

    /// Whether the reading task has ended well, and wants no more records.
    pub(crate) fn reader_gone(&self) -> bool {
        self.far.signal.ended() == Some(Refused::ReaderGone)
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

    #[cold]
    #[inline(never)]
    fn rouse(&mut self) -> Result<(), Refused> {
        match self.signal.ended() {
            Some(refused) => Err(refused),
            None => {
                self.signal.wake();
                Ok(())
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn open_block(&mut self) -> Result<*const Block<T>, Refused> {
        let wake_at = (self.lane.depth / 2).clamp(1, 4);
        if self.lane.outstanding() >= wake_at {
            fence(Ordering::SeqCst);
            if self.signal.mode.load(Ordering::Relaxed) != RUNNING {
                self.signal.wake();
            }
        }
        let block = loop {
            if let Some(refused) = self.signal.ended() {
                return Err(refused);
            }
            if self.tail.oldest_index < self.lane.released.load(Ordering::Acquire) {
                break self.tail.reuse_oldest();
            }
            if self.tail.opened - self.tail.oldest_index < self.lane.depth {
                break Block::allocate(self.lane.capacity);
            }
            self.wait_for_room()?;
        };
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
        Ok(block)
    }

    fn wait_for_room(&mut self) -> Result<(), Refused> {
        self.lane.writer.get_or_init(thread::current);
        loop {
            if self.wait.interrupted() {
                return Err(Refused::Interrupted);
            }
            self.lane.writer_waits.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.signal.ended().is_some() || self.lane.outstanding() <= self.lane.depth / 2 {
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
        let reused = unsafe { &*block };
        self.oldest = reused.next.load(Ordering::Acquire);
        self.oldest_index += 1;
        reused.next.store(ptr::null_mut(), Ordering::Relaxed);
        reused.len.store(0, Ordering::Relaxed);
        block
    }
}

impl<T, W> Drop for Far<T, W> {
    fn drop(&mut self) {
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

/// The receiving half of a lane.
pub(crate) struct Reader<T> {
    block: *mut Block<T>,
    read: usize,
    released: usize,
    lane: Arc<Lane<T>>,
}

// SAFETY: as for `Writer`.
unsafe impl<T: Send> Send for Reader<T> {}

/// What a reader finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Records to take, and whether they are the rest of a full block.
    Records { count: usize, full: bool },
    /// Nothing now; more may come.
    Nothing,
    /// The writer finished and every record was taken.
    Finished,
    /// The writer ended without finishing.
    Aborted,
}

impl<T> Reader<T> {
    /// Looks for records, moving on to the next block where this one is used up.
    pub(crate) fn look(&mut self) -> Found {
        // Read first: what was written before the end is seen by the look that follows.
        let ending = self.lane.ending.load(Ordering::Acquire);
        if let Some((count, full)) = self.available() {
            return Found::Records { count, full: full || ending != OPEN };
        }
        match ending {
            OPEN => Found::Nothing,
            FINISHED => Found::Finished,
            _ => Found::Aborted,
        }
    }

    /// Whether a look would find the rest of a full block, or an end. Reads only what the writer writes once a block: a
    /// reader that waits for full blocks must not keep taking the cache line of the length from the writer.
    fn has_full(&self) -> bool {
        self.lane.opened.load(Ordering::Acquire) > self.released + 1 || self.lane.ending.load(Ordering::Acquire) != OPEN
    }

    fn available(&mut self) -> Option<(usize, bool)> {
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
            if len > self.read {
                return Some((len - self.read, len == self.lane.capacity));
            }
            if self.read < self.lane.capacity {
                return None;
            }
            let next = block.next.load(Ordering::Acquire);
            if next.is_null() {
                return None;
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
        if self.lane.writer_waits.load(Ordering::Relaxed) && self.lane.outstanding() <= self.lane.depth / 2 {
            self.unpark_writer();
        }
    }

    fn unpark_writer(&self) {
        self.lane.writer_waits.store(false, Ordering::Relaxed);
        if let Some(writer) = self.lane.writer.get() {
            writer.unpark();
        }
    }

    /// Hands up to `count` records to `take`, one at a time, and stops at its first error. A record is the
    /// taker's from the moment it is handed over, also when `take` panics.
    ///
    /// # Safety
    /// `count` is at most what the last [`Reader::look`] found.
    #[inline]
    pub(crate) unsafe fn take<E>(&mut self, count: usize, mut take: impl FnMut(T) -> Result<(), E>) -> Result<(), E> {
        /// Says how far the reader got when the loop is left, by its end, an error or a panic.
        struct Progress<'a> {
            next: usize,
            read: &'a mut usize,
        }
        impl Drop for Progress<'_> {
            #[inline(always)]
            fn drop(&mut self) {
                *self.read = self.next;
            }
        }
        // SAFETY: `look` found records, so the reader has a block.
        let slots = unsafe { &*self.block }.slots.as_ptr();
        let mut progress = Progress { next: self.read, read: &mut self.read };
        let end = progress.next + count;
        while progress.next < end {
            // SAFETY: the slots up to `count` further on are below `len` and were not read before.
            let record = unsafe { (*slots.add(progress.next)).with(|slot| (*slot).assume_init_read()) };
            progress.next += 1;
            take(record)?;
        }
        Ok(())
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        let read = self.read;
        // SAFETY: read by the lane's `Drop` alone, after this half is gone.
        self.lane.read.with_mut(|cell| unsafe { *cell = read });
    }
}

/// The input of one task: every lane that leads to it.
pub(crate) struct Inbox<T> {
    lanes: VecDeque<Reader<T>>,
    signal: Arc<Signal>,
    /// How long records may wait for their block to fill; zero on the inline backend, where nobody waits.
    flush_interval: Duration,
    /// Whether partial blocks are taken at once: the stream is slow, or has just begun.
    eager: bool,
    /// Set when a timed wait for fuller lanes has run out: take what there is. Counts what that gave.
    overdue: Option<usize>,
    satisfied: bool,
}

/// What one look at all the lanes of a task gave.
pub(crate) enum Polled {
    /// Records were handed over.
    Taken,
    /// Nothing to take yet.
    Nothing,
    /// Every lane is finished and empty.
    Finished,
    /// A writer ended without finishing.
    Aborted,
}

impl<T> Inbox<T> {
    pub(crate) fn new(lanes: Vec<Reader<T>>, signal: Arc<Signal>, flush_interval: Duration) -> Self {
        Self { lanes: lanes.into(), signal, flush_interval, eager: true, overdue: None, satisfied: false }
    }

    /// Says that the reader ends because it wants no more records, not because it failed.
    pub(crate) fn satisfied(&mut self) {
        self.satisfied = true;
    }

    /// Takes one run of records, from the lanes in turn.
    #[inline]
    pub(crate) fn poll<E>(&mut self, take: impl FnMut(T) -> Result<(), E>) -> Result<Polled, E> {
        let partial = self.eager || self.overdue.is_some() || self.flush_interval.is_zero();
        let mut looked = 0;
        while looked < self.lanes.len() {
            if !partial && !self.lanes[0].has_full() {
                self.lanes.rotate_left(1);
                looked += 1;
                continue;
            }
            match self.lanes[0].look() {
                Found::Records { count, full } if full || partial => {
                    self.pace(count, full);
                    // SAFETY: `count` is what this look found.
                    let taken = unsafe { self.lanes[0].take(count, take) };
                    self.lanes.rotate_left(1);
                    return taken.map(|()| Polled::Taken);
                }
                Found::Records { .. } | Found::Nothing => {
                    self.lanes.rotate_left(1);
                    looked += 1;
                }
                Found::Finished => {
                    self.lanes.pop_front();
                }
                Found::Aborted => return Ok(Polled::Aborted),
            }
        }
        if self.lanes.is_empty() {
            return Ok(Polled::Finished);
        }
        if let Some(gathered) = self.overdue.take() {
            self.eager = gathered < FAST_RECORDS;
        }
        Ok(Polled::Nothing)
    }

    fn pace(&mut self, count: usize, full: bool) {
        match &mut self.overdue {
            Some(gathered) => *gathered += count,
            None => self.eager = !full && count < FAST_RECORDS,
        }
    }

    fn ready(&mut self) -> bool {
        let partial = self.eager;
        self.lanes.iter_mut().any(|lane| match partial {
            true => lane.look() != Found::Nothing,
            false => lane.has_full(),
        })
    }

    /// Waits until a look may find something or the thread is unparked for another reason. Returns at
    /// once when `interrupted` says so.
    pub(crate) fn wait(&mut self, interrupted: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if self.ready() {
                return;
            }
            std::hint::spin_loop();
        }
        self.signal.reader.get_or_init(thread::current);
        let mode = if self.eager { ANY } else { FULL };
        self.signal.mode.store(mode, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !self.ready() {
            let signal = &self.signal;
            let waiting = || signal.mode.load(Ordering::Acquire) == mode && !interrupted();
            park_for(self.flush_interval, waiting);
            if waiting() && !self.ready() {
                match mode {
                    ANY => thread::park(),
                    _ => self.overdue = Some(0),
                }
            }
        }
        self.signal.mode.store(RUNNING, Ordering::Relaxed);
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.signal.mode.store(if self.satisfied { GONE } else { BROKEN }, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        for lane in &self.lanes {
            lane.unpark_writer();
        }
    }
}
