//! A block: the memory for records between two tasks.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ptr;

use super::between::{Numbered, PerNumbered, Watermark};
use super::sync::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// The header of a block; its slots follow it in the same allocation, so that one pointer leads to both.
#[repr(C, align(128))]
pub(super) struct Block<T> {
    pub(super) len: AtomicUsize,
    /// The length at which the writer has to attend: the capacity, or zero where the reader waits for the next record
    /// or has ended.
    pub(super) limit: AtomicUsize,
    pub(super) capacity: usize,
    pub(super) next: AtomicPtr<Block<T>>,
    /// The watermark that holds before the first record; the writer's to change while there is none.
    millis: AtomicI64,
    idle: AtomicBool,
    /// The round of each numbered signal that passes before the first record, likewise.
    rounds: PerNumbered<AtomicU64>,
    slots: [RecordSlot<T>; 0],
}

pub(super) type RecordSlot<T> = UnsafeCell<MaybeUninit<T>>;

/// What lies behind the last slot in builds with debug assertions, and is there still when the block is used again or
/// freed, unless somebody wrote past the end.
const GUARD: [u8; GUARD_BYTES] = [0xA5; GUARD_BYTES];
const GUARD_BYTES: usize = if cfg!(debug_assertions) { 16 } else { 0 };

impl<T> Block<T> {
    fn layout(capacity: usize) -> Layout {
        let slots = Layout::array::<RecordSlot<T>>(capacity).expect("a block is far smaller than the address space");
        let (layout, offset) = Layout::new::<Self>().extend(slots).expect("as above");
        debug_assert_eq!(offset, size_of::<Self>(), "the empty `slots` gives a block the alignment of its slots");
        let (layout, _) = layout.extend(Layout::new::<[u8; GUARD_BYTES]>()).expect("as above");
        layout.pad_to_align()
    }

    /// Where the guard lies.
    ///
    /// # Safety
    /// As for [`Block::slots`].
    unsafe fn guard(block: *mut Self) -> *mut [u8; GUARD_BYTES] {
        // SAFETY: the guard, whose alignment is 1, follows the slots at once, see `layout`.
        unsafe { Self::slots(block).add((*block).capacity) }.cast()
    }

    /// Fails if a record was written past the end of the block; in builds with debug assertions.
    ///
    /// # Safety
    /// As for [`Block::slots`].
    pub(super) unsafe fn check(block: *mut Self) {
        // SAFETY: the guard was written with the block, and is not part of a slot.
        debug_assert_eq!(unsafe { *Self::guard(block) }, GUARD, "a record was written past the end of its block");
    }

    pub(super) fn allocate(capacity: usize) -> *mut Self {
        let layout = Self::layout(capacity);
        // SAFETY: the layout has at least the size of the header.
        let block = unsafe { alloc(layout) }.cast::<Self>();
        if block.is_null() {
            handle_alloc_error(layout);
        }
        let header = Self {
            len: AtomicUsize::new(0),
            limit: AtomicUsize::new(capacity),
            capacity,
            next: AtomicPtr::new(ptr::null_mut()),
            millis: AtomicI64::new(Watermark::NONE.millis),
            idle: AtomicBool::new(Watermark::NONE.idle),
            rounds: Default::default(),
            slots: [],
        };
        // SAFETY: the allocation has room for the header and `capacity` slots behind it.
        unsafe {
            block.write(header);
            for index in 0..capacity {
                Self::slots(block).add(index).write(RecordSlot::new(MaybeUninit::uninit()));
            }
            Self::guard(block).write(GUARD);
        }
        block
    }

    /// The first slot of a block.
    ///
    /// # Safety
    /// `block` came from [`Block::allocate`] and was not freed.
    #[inline(always)]
    pub(super) unsafe fn slots(block: *mut Self) -> *mut RecordSlot<T> {
        // SAFETY: the slots begin where the header ends, see `layout`.
        unsafe { block.add(1) }.cast()
    }

    /// Sets the watermark that holds before the first record. The writer's, while there is no record.
    pub(super) fn set_watermark(&self, watermark: Watermark) {
        self.millis.store(watermark.millis, Ordering::Release);
        self.idle.store(watermark.idle, Ordering::Release);
    }

    /// The watermark that holds before the first record, for a reader that has just read a length of `len`. Final if
    /// that is not zero; and then a record has come, so that nothing is idle.
    pub(super) fn watermark(&self, len: usize) -> Watermark {
        let idle = len == 0 && self.idle.load(Ordering::Acquire);
        Watermark { millis: self.millis.load(Ordering::Acquire), idle }
    }

    /// Sets the round of a signal that passes before the first record. The writer's, while there is no record.
    pub(super) fn set_round(&self, signal: Numbered, round: u64) {
        self.rounds[signal as usize].store(round, Ordering::Release);
    }

    /// The round of a signal that passes before the first record, for a reader that has just read the length; as for
    /// the watermark.
    pub(super) fn round(&self, signal: Numbered) -> u64 {
        self.rounds[signal as usize].load(Ordering::Acquire)
    }

    /// Frees a block; what its slots hold is forgotten.
    ///
    /// # Safety
    /// As for [`Block::slots`], and nobody uses the block any more.
    pub(super) unsafe fn free(block: *mut Self) {
        // SAFETY: the caller's promise; `allocate` made the header and the slots, with this layout.
        unsafe {
            Self::check(block);
            let capacity = (*block).capacity;
            for index in 0..capacity {
                Self::slots(block).add(index).drop_in_place();
            }
            block.drop_in_place();
            dealloc(block.cast(), Self::layout(capacity));
        }
    }
}
