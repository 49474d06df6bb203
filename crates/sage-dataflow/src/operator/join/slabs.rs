//! Memory for records by the megabyte, of which a join hands a small piece at a time to each of its drawers.

use std::mem::MaybeUninit;
use std::slice::IterMut;

/// Places for records, in few large allocations: so the operating system can lay them out in huge pages. A page of
/// common size that is touched for the first time costs more than all that a join does with the records in it.
pub(super) struct Slabs<T> {
    all: Vec<Box<[MaybeUninit<T>]>>,
    /// How many places of the last one are in use.
    used: usize,
}

/// Places next to each other in one slab.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chunk {
    slab: u32,
    from: u32,
    to: u32,
}

/// The first slab; each further one is twice as large as the one before.
const FIRST_BYTES: usize = 256 << 10;
/// The largest slab: so large that it has huge pages, and so small that allocators keep it for the next one who asks.
const MOST_BYTES: usize = 8 << 20;

impl<T> Slabs<T> {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), used: 0 }
    }

    /// So many places that were not handed out before.
    pub(super) fn chunk(&mut self, records: usize) -> Chunk {
        if self.all.last().is_none_or(|slab| slab.len() - self.used < records) {
            self.add_slab(records);
        }
        let from = self.used;
        self.used += records;
        let place = |place| u32::try_from(place).expect("a slab has fewer places than bytes");
        Chunk { slab: place(self.all.len() - 1), from: place(from), to: place(self.used) }
    }

    fn add_slab(&mut self, records: usize) {
        let bytes = (FIRST_BYTES << self.all.len().min(16)).min(MOST_BYTES);
        let mut slab = Box::new_uninit_slice(records.max(bytes / size_of::<T>().max(1)));
        in_huge_pages(&mut slab);
        self.all.push(slab);
        self.used = 0;
    }

    /// Puts a record into the first place of a chunk, and takes this place from the chunk. It has to have one.
    #[inline(always)]
    pub(super) fn put(&mut self, free: &mut Chunk, record: T) {
        self.all[free.slab as usize][free.from as usize].write(record);
        free.from += 1;
    }

    /// Takes the records out of a chunk.
    ///
    /// # Safety
    ///
    /// A record was put into each of its places, and none was taken since.
    pub(super) unsafe fn take(&mut self, chunk: Chunk) -> Records<'_, T> {
        Records(self.all[chunk.slab as usize][chunk.from as usize..chunk.to as usize].iter_mut())
    }
}

impl Chunk {
    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
        self.from == self.to
    }

    pub(super) fn len(self) -> usize {
        (self.to - self.from) as usize
    }

    /// The places in front of others, which are the last of it.
    pub(super) fn before(self, last: Self) -> Self {
        Self { to: last.from, ..self }
    }
}

/// Records that are taken out of where they lie; those that are not asked for are dropped.
///
/// Invariant: each place that is still to come has a record.
pub(super) struct Records<'s, T>(IterMut<'s, MaybeUninit<T>>);

impl<'s, T> Records<'s, T> {
    /// Empties a vector.
    pub(super) fn of(records: &'s mut Vec<T>) -> Self {
        let count = records.len();
        // SAFETY: none of its places counts as one with a record any more, so each is read or dropped only here.
        unsafe { records.set_len(0) };
        Self(records.spare_capacity_mut()[..count].iter_mut())
    }
}

impl<T> Iterator for Records<'_, T> {
    type Item = T;

    #[inline(always)]
    fn next(&mut self) -> Option<T> {
        // SAFETY: by the invariant it has a record, and does not come again.
        self.0.next().map(|record| unsafe { record.assume_init_read() })
    }
}

impl<T> ExactSizeIterator for Records<'_, T> {
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Drop for Records<'_, T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            self.for_each(drop);
        }
    }
}

/// Asks the operating system for huge pages where this memory is so large as to have some.
pub(super) fn in_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const HUGE: usize = 2 << 20;
        let range = memory.as_mut_ptr_range();
        let start = range.start.addr().next_multiple_of(HUGE);
        let end = range.end.addr() / HUGE * HUGE;
        if start < end {
            let start = range.start.with_addr(start).cast();
            // SAFETY: whole pages of memory that is borrowed here. What is in them stays as it is. Where that fails,
            // they are of common size.
            unsafe { libc::madvise(start, end - start.addr(), libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}
