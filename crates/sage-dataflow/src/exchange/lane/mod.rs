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
//!     most [`Depth::fast`] blocks however long it lives.
//!  2. A slot below a block's `len` belongs to the reader, one at or above it to the writer.
//!  3. `ending` is stored after the last record. A writer dropped without [`Writer::finish`] ends the lane as
//!     `Aborted`: a reader never mistakes a failed producer for the end of its input.
//!  4. A watermark lies in the header of a block, and holds before the block's first record. The writer changes it
//!     while the block is empty, and closes one that is not, at whatever length it has: a block with a `next` is
//!     closed, and its length final. A closed block is never empty.
//!  5. Whoever drops the last half of a lane drops the records nobody read.
//!
//! A push is a store of the record, a store of the length, and one comparison with the block's `limit`. Beside them it
//! has the cache fetch the memory for later records, which the reader's processor had last. It calls nothing that could
//! wait: it answers [`Pushed::Attend`] when the block is full or the reader asked for attention, and [`Writer::attend`]
//! does the rest, once the chain's loop has been left. So the loop keeps its state in registers.
//! A writer that is not attended to is harmless: the push that fills a block leaves it, and until a block is opened
//! every further one drops its record, which breaks the lane off ([`Refused::Overrun`]).
//!
//! Room. A lane holds as many blocks as its [`Depth`] says, and while its reader is not known to be quick, as many
//! records as the reader allows (`allowance.rs`): `written - taken`, which the writer looks at when it attends. The
//! `limit` of the open block says when that is, so an allowance costs nothing per record. A reader that allows fewer
//! lowers the limit after `allowed`; the writer looks at `allowed` again after it has set the limit: one of them sees
//! the other's.
//!
//! Where records are weighed, a push adds up their bytes, and a block that has its share of them is closed like a full
//! one; the next one is opened to once the bytes in blocks that the reader has not given back leave room for it. So
//! what waits is at most what may, and one record.
//!
//! Waking. The reader announces what it waits for in [`ReaderState::mode`]. `FULL` (records come fast) asks to be
//! woken when half the lane's blocks are full, and is always a timed wait; `ANY` asks to be woken by the
//! next record. For `ANY`, and when it has ended, the reader also sets the `limit` of the newest block of each of its
//! lanes to zero. A writer that opens a block looks at the mode itself, behind a fence, and sets the new block's limit
//! accordingly; so either the reader finds the new block, or its writer finds the mode.
//! The writer's look at the limit has no store-load fence, which would cost more than all the rest of a push. The
//! reader makes up for it: having set the limit it first waits for one timed interval, looks again, and only
//! then waits without limit. A push whose look missed the new limit was finished before that interval began, so the
//! second look sees its record: a retired store reaches the cache in nanoseconds, the interval is a thousand times
//! that. The loom model puts the fence in (`publish_fence`) and checks everything else.

pub(super) mod allowance;
mod attending;
mod block;
mod dealer;
mod inbox;
mod reader;
mod room;
mod tally;
mod writer;

use std::ptr;
use std::time::Duration;

use block::Block;
use crossbeam_utils::CachePadded;
use sync::{
    Arc, AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Bell, OnceLock, Ordering, Thread, UnsafeCell, drop_record,
};

use super::metrics::BlockedBy;
use super::{between, metrics, sync};
pub(crate) use dealer::Dealer;
pub(crate) use inbox::{Inbox, Polled};
pub(crate) use reader::{Reader, Taker};
pub(crate) use tally::Tally;
pub(crate) use writer::Writer;

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

/// What a blocked end of a lane asks of the task it runs in.
pub(crate) trait Wait {
    /// Whether the wait is to be given up: the job is being cancelled.
    fn interrupted(&self) -> bool;
    /// Parks the calling thread until it is unparked.
    fn park_blocked(&mut self);
    /// Is told that the thread is about to park, which bound it waits at, and since when.
    fn blocks(&mut self, bound: BlockedBy, since: sync::Instant) {
        let (_, _) = (bound, since);
    }
    /// Is told how long a wait was, and which bound it waited at.
    fn was_blocked(&mut self, bound: BlockedBy, time: Duration) {
        let (_, _) = (bound, time);
    }
}

/// What is to be done after a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// Nothing.
    Done,
    /// [`Writer::attend`], before the next push.
    Attend,
}

/// Why a lane takes no more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The reader wants no more records.
    ReaderGone,
    /// The job is being cancelled, or the reader has ended without finishing.
    Interrupted,
    /// A push came before the one that had filled a block was attended to, and its record is lost.
    Overrun,
    /// There is no room now, and it was not to be waited for. The only one after which the lane goes on.
    Full,
}

/// How the reading task says what it waits for; one for all the lanes it reads.
#[derive(Debug)]
pub(crate) struct ReaderState {
    mode: CachePadded<AtomicU8>,
    reader: OnceLock<Thread>,
    /// Ends its waits in poll(2), from the first of them on.
    bell: OnceLock<Arc<Bell>>,
}

impl ReaderState {
    pub(crate) fn new() -> Self {
        let (reader, bell) = (OnceLock::new(), OnceLock::new());
        Self { mode: CachePadded::new(AtomicU8::new(RUNNING)), reader, bell }
    }

    /// Whether the reader has ended, and how.
    fn ended(&self) -> Option<Refused> {
        match self.mode.load(Ordering::Relaxed) {
            GONE => Some(Refused::ReaderGone),
            BROKEN => Some(Refused::Interrupted),
            _ => None,
        }
    }

    /// Whether the reader has ended well, and wants no more records.
    pub(crate) fn is_gone(&self) -> bool {
        self.ended() == Some(Refused::ReaderGone)
    }

    fn wake(&self) {
        let woken = self.mode.compare_exchange(ANY, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            || self.mode.compare_exchange(FULL, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if woken {
            self.reader.get().iter().for_each(|reader| reader.unpark());
            self.bell.get().iter().for_each(|bell| bell.ring());
        }
    }
}

/// How many blocks a lane may have in flight, each 2 at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    /// While its reader releases a block more seldom than every 0.2 ms.
    pub(crate) slow: usize,
    /// While it releases them faster; `slow` at least. More blocks in flight hide the time it takes to wake a thread,
    /// and let a block's memory leave the reader's own cache before it is written to again: writing to it there costs
    /// several times as much.
    pub(crate) fast: usize,
}

impl Depth {
    /// For the inline backend, where nobody could make room.
    pub(crate) const UNBOUNDED: Self = Self { slow: usize::MAX, fast: usize::MAX };
}

/// How much a lane may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Records per block.
    pub(crate) capacity: usize,
    pub(crate) depth: Depth,
    /// Records in the whole lane, one at least: what their bytes allow. `usize::MAX` for as many as the blocks hold.
    pub(crate) records: usize,
    /// Bytes in the whole lane, where its records are weighed.
    pub(crate) bytes: usize,
}

impl Size {
    /// Of so many blocks, whatever the bytes of their records.
    pub(crate) fn blocks(capacity: usize, depth: Depth) -> Self {
        Self { capacity, depth, records: usize::MAX, bytes: usize::MAX }
    }

    /// From how many records on the blocks are bound enough.
    fn slow_records(&self) -> usize {
        self.capacity.saturating_mul(self.depth.slow)
    }

    /// Whether it grows as needed.
    fn is_unbounded(&self) -> bool {
        self.depth == Depth::UNBOUNDED
    }
}

/// What the reader lets the writer know of its progress.
struct Progress {
    /// How many records it has taken; kept up to date while a number is allowed.
    taken: AtomicUsize,
    /// How many records may wait; `usize::MAX` for as many as the blocks hold.
    allowed: AtomicUsize,
}

struct Lane<T> {
    size: Size,
    /// At how many blocks in flight a writer that waits wants to be woken, and once how many records are taken.
    room: AtomicUsize,
    wake_at: AtomicUsize,
    progress: CachePadded<Progress>,
    tally: Arc<Tally>,
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
            // SAFETY: every block of the list came from `Block::allocate` and is freed below, once.
            let (slots, len, next) = unsafe {
                ((Block::slots(block)), (*block).len.load(Ordering::Acquire), (*block).next.load(Ordering::Acquire))
            };
            let start = match index {
                i if i < released => len,
                i if i == released => read,
                _ => 0,
            };
            let left = if std::mem::needs_drop::<T>() { start..len } else { 0..0 };
            for index in left {
                // SAFETY: slots below `len` that the reader had not reached hold records.
                drop_record(|| unsafe { (*slots.add(index)).with_mut(|slot| (*slot).assume_init_drop()) });
            }
            // SAFETY: as above.
            unsafe { Block::free(block) };
            block = next;
            index += 1;
        }
    }
}

/// Makes a lane that may hold so much.
///
/// The writer waits for room as `wait` says.
pub(crate) fn lane<T: Send, W: Wait>(size: Size, signal: Arc<ReaderState>, wait: W) -> (Writer<T, W>, Reader<T>) {
    let Size { capacity, depth, records, .. } = size;
    assert!(capacity >= 1, "a block holds at least one record");
    assert!(records >= 1, "a record larger than all that may wait passes alone");
    assert!(
        2 <= depth.slow && depth.slow <= depth.fast,
        "the reader gives a block back when the next one is open, so two are needed"
    );
    let lane = Arc::new(Lane {
        size,
        room: AtomicUsize::new(0),
        wake_at: AtomicUsize::new(0),
        progress: CachePadded::new(Progress { taken: AtomicUsize::new(0), allowed: AtomicUsize::new(records) }),
        tally: Arc::new(Tally::new()),
        first: AtomicPtr::new(ptr::null_mut()),
        opened: CachePadded::new(AtomicUsize::new(0)),
        released: CachePadded::new(AtomicUsize::new(0)),
        ending: AtomicU8::new(OPEN),
        writer_waits: AtomicBool::new(false),
        writer: OnceLock::new(),
        oldest: UnsafeCell::new((ptr::null_mut(), 0)),
        read: UnsafeCell::new(0),
    });
    (Writer::new(lane.clone(), signal, wait), Reader::new(lane))
}
