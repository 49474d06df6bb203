//! The word with which a job steers its tasks, and the threads to wake when the word changes.
//!
//! Invariants: the word only moves `Run ⇄ Pause → Drain → Cancel`, never back; a thread is woken after every change
//! made later than its registration, so a wait that checks the word and then parks misses nothing. The same holds for
//! a bell and a wait in poll(2).

mod reason;
mod works_for;

use std::sync::Arc;
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::clock::{Clock, Rouse};
use super::sync::{AtomicU8, Bell, Mutex, Ordering, Thread, lock, thread};
pub use reason::StopReason;
pub use works_for::WorksFor;

/// What the tasks of a job are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Control {
    /// Work.
    Run,
    /// Sources wait; what is in flight is processed.
    Pause,
    /// Sources end; what is in flight is finished.
    Drain,
    /// Everything ends; what is in flight is dropped.
    Cancel,
}

/// Steers the tasks of one job.
#[derive(Debug)]
pub(crate) struct JobControl {
    /// On a cache line of its own: every task reads it for every record.
    word: CachePadded<AtomicU8>,
    inner: Mutex<Steering>,
    clock: Clock,
}

/// The word of a job that is being cancelled, for whoever is to find one.
pub(crate) static CANCELLED: AtomicU8 = AtomicU8::new(Control::Cancel as u8);

#[derive(Debug)]
struct Steering {
    threads: Vec<Thread>,
    /// Those of sources that wait otherwise than parked: for a descriptor, or for a channel.
    bells: Vec<Arc<dyn Rouse>>,
    reason: StopReason,
    deadline: Option<Instant>,
}

impl Steering {
    /// Wakes every thread.
    fn wake(&self) {
        self.threads.iter().for_each(Thread::unpark);
        self.bells.iter().for_each(|bell| bell.rouse());
    }
}

impl JobControl {
    pub(crate) fn new(clock: Clock) -> Self {
        let inner = Steering { threads: Vec::new(), bells: Vec::new(), reason: StopReason::EndOfInput, deadline: None };
        Self { word: CachePadded::new(AtomicU8::new(Control::Run as u8)), inner: Mutex::new(inner), clock }
    }

    #[inline(always)]
    pub(crate) fn load(&self) -> Control {
        match self.word.load(Ordering::Relaxed) {
            0 => Control::Run,
            1 => Control::Pause,
            2 => Control::Drain,
            _ => Control::Cancel,
        }
    }

    /// The word itself, for a loop that looks whether it says [`Control::Cancel`].
    #[inline(always)]
    pub(crate) fn word(&self) -> &AtomicU8 {
        &self.word
    }

    /// Whether a source may go on reading: one load, cheap enough for every record.
    #[inline(always)]
    pub(crate) fn running(&self) -> bool {
        self.word.load(Ordering::Relaxed) == Control::Run as u8
    }

    /// Whether the source of a pipeline that serves may go on: a drain does not end it.
    #[inline]
    pub(crate) fn serving(&self) -> bool {
        matches!(self.load(), Control::Run | Control::Drain)
    }

    /// As [`running`](Self::running), for a loop that also calls that now and then. It costs nothing where a record is
    /// dealt with by arithmetic alone, which calls nothing and writes no memory: the compiler may then look once for
    /// several records, as it is told that the word cannot have changed meanwhile. So a record of that kind that takes
    /// long is followed by up to as many as the loop takes without calling `running`. A load of an atomic is never left
    /// out, and costs such loops a fifth.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    pub(crate) fn running_at_a_glance(&self) -> bool {
        let word: u8;
        // SAFETY: it is a relaxed load of the word, which lives as long as `self`. Done fewer times than it says here,
        // as `pure` allows, it gives a value that the word had before.
        unsafe {
            std::arch::asm!(
                "mov {word}, byte ptr [{at}]",
                word = out(reg_byte) word,
                at = in(reg) self.word.as_ptr(),
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        word == Control::Run as u8
    }

    /// As [`running`](Self::running).
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    #[inline(always)]
    pub(crate) fn running_at_a_glance(&self) -> bool {
        self.running()
    }

    /// The job's clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Adds the calling thread to those woken by a change.
    pub(crate) fn register(&self) {
        lock(&self.inner).threads.push(thread::current());
    }

    /// Adds a bell to those rung by a change, until it is taken out.
    pub(crate) fn hang(&self, bell: Arc<dyn Rouse>) {
        lock(&self.inner).bells.push(bell);
    }

    /// Takes a bell out, so that its descriptor is closed with what the caller has of it.
    pub(crate) fn take_down<B: Rouse>(&self, bell: &Arc<B>) {
        lock(&self.inner).bells.retain(|other| !std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(bell)));
    }

    /// Rings the bells: a task has ended, whose records a source may still wait to make.
    pub(crate) fn ring(&self) {
        lock(&self.inner).bells.iter().for_each(|bell| bell.rouse());
    }

    /// Moves on to `control`, for `reason`, to be done by `deadline`; a step back is ignored.
    pub(crate) fn advance(&self, control: Control, reason: StopReason, deadline: Option<Instant>) {
        debug_assert!(control >= Control::Drain, "pausing has its own method");
        let mut inner = lock(&self.inner);
        if self.load() >= control {
            return;
        }
        inner.reason = reason;
        inner.deadline = deadline;
        self.word.store(control as u8, Ordering::SeqCst);
        inner.wake();
    }

    /// Pauses or resumes; says whether that changed anything.
    pub(crate) fn pause(&self, pause: bool) -> bool {
        let (from, to) = if pause { (Control::Run, Control::Pause) } else { (Control::Pause, Control::Run) };
        let inner = lock(&self.inner);
        if self.load() != from {
            return false;
        }
        self.word.store(to as u8, Ordering::SeqCst);
        inner.wake();
        true
    }

    /// Why the tasks end, as far as it is known.
    pub(crate) fn reason(&self) -> StopReason {
        lock(&self.inner).reason.clone()
    }

    /// By when the tasks are to have ended.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        lock(&self.inner).deadline
    }
}

impl Rouse for Bell {
    fn rouse(&self) {
        self.ring();
    }
}

impl Rouse for JobControl {
    /// Wakes every thread, to look at the clock.
    fn rouse(&self) {
        lock(&self.inner).wake();
    }
}
