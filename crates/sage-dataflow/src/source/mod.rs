//! Sources of records: the [`Source`] trait and the built-in sources.

mod channel;
mod factory;
mod files;
mod iterators;
mod polled;
mod requests;
mod retry;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use channel::ChannelReceiver;
pub(crate) use factory::SourceFactory;
pub(crate) use factory::{OneShot, PerReplica, PerRun};
pub use files::{Line, ReadError};
pub(crate) use files::{Lines, Listing};
pub(crate) use iterators::{GeneratorSource, IterSource};
pub(crate) use polled::{Pinned, PolledSource};
pub(crate) use requests::RequestSources;
pub(crate) use retry::RetriedSource;

use crate::BoxError;
use crate::bell::{Bell, Ready};
use crate::chain::{CloseContext, OpenContext, Passed};
use crate::clock::Clock;
use crate::control::{Control, JobControl};
use crate::exchange::lane::ReaderState;
use crate::runtime::JobRuntime;
use crate::time::Timestamp;

/// A source's answer when the engine asks it for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next<T> {
    /// The next record.
    Record(T),
    /// No record just now. The engine flushes the operators downstream and asks the source again at once. So wait for a
    /// while first, with [`SourceContext::wait`].
    Idle,
    /// There are no more records.
    End,
}

/// A source of records. Each replica runs on its own thread.
///
/// When a source returns an error, the engine stops the job and names the source in the report. A source that has to
/// wait should call [`SourceContext::wait`]: a drain, a cancel, or a [`take`](crate::Stream::take) that has all its
/// records ends that wait. A source that blocks in any other call ends when the call returns, or is abandoned at the
/// deadline.
///
/// ```
/// use sage::{BoxError, Environment, Next, Source, SourceContext};
///
/// struct Countdown(u32);
///
/// impl Source for Countdown {
///     type Item = u32;
///     fn next(&mut self, _cx: &SourceContext) -> Result<Next<u32>, BoxError> {
///         if self.0 == 0 {
///             return Ok(Next::End);
///         }
///         self.0 -= 1;
///         Ok(Next::Record(self.0))
///     }
/// }
///
/// let env = Environment::local("countdown");
/// let numbers = env.from_source(|_replica| Countdown(3)).collect();
/// env.run()?;
/// assert_eq!(numbers.take(), [2, 1, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Source: Send + 'static {
    /// The records it produces.
    type Item: Send + 'static;

    /// Runs once, on the task's own thread, before the first record.
    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Produces the next record. May block.
    ///
    /// After an error it is called again only under a [`retry`](crate::Stream::retry). It then has to try the same
    /// again, such as a connection, or fail again. It must not skip a record that it could not read: the record would
    /// be lost.
    fn next(&mut self, cx: &SourceContext) -> Result<Next<Self::Item>, BoxError>;

    /// Whether it gives blocks of records, which the operator behind it takes from the source while it works on them.
    #[doc(hidden)]
    fn in_blocks(&self) -> bool {
        false
    }

    /// How many records were taken of its last block, if they come [`in_blocks`](Self::in_blocks). Called when the
    /// chain is done with the block: for the counts in the report and the pace of the task.
    #[doc(hidden)]
    fn taken(&self) -> u64 {
        1
    }

    /// Whether its records are calls of a pipeline that is a service: it ends when it is told that nobody is left who
    /// could call, and no drain ends it.
    #[doc(hidden)]
    #[inline(always)]
    fn serves(&self) -> bool {
        false
    }

    /// Returns the source's position, encoded in its own way, from which a later run can go on; `None` if it has none.
    fn position(&self) -> Option<Vec<u8>> {
        None
    }

    /// Releases what `open` acquired. Runs exactly once after `open` was called, whether or not `open` succeeded.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// A source's view of its job: its replica, the clock, and waiting that a drain or a cancel ends.
#[derive(Debug)]
pub struct SourceContext {
    /// Which replica this is, from 0.
    pub replica: usize,
    /// How many replicas there are.
    pub parallelism: usize,
    /// The name of the source.
    pub name: String,
    control: Arc<JobControl>,
    /// Where the job polls futures.
    runtime: Arc<JobRuntime>,
    passed: Arc<Passed>,
    /// When, in milliseconds of the job's clock, the chain behind the source has something to do; `i64::MAX` for never.
    due: AtomicI64,
    /// The tasks that the records go to. One that ends unparks this thread.
    readers: Vec<Arc<ReaderState>>,
    /// How many of them had ended when the task last looked whether anybody wants more.
    gone: AtomicUsize,
    /// Ends a wait for a descriptor, from the first such wait on.
    bell: OnceLock<Arc<Bell>>,
    /// See [`Source::serves`].
    serves: bool,
}

impl SourceContext {
    /// That of a replica whose records go to `readers`.
    pub(crate) fn new(cx: OpenContext, readers: Vec<Arc<ReaderState>>, serves: bool) -> Self {
        let OpenContext { replica, parallelism, name, control, passed, runtime } = cx;
        let (due, gone) = (AtomicI64::new(i64::MAX), AtomicUsize::new(0));
        Self { replica, parallelism, name, control, runtime, passed, due, readers, gone, bell: OnceLock::new(), serves }
    }

    pub(crate) fn control(&self) -> &JobControl {
        &self.control
    }

    /// Has waits end when it is `due`: the chain behind has something to do then.
    pub(crate) fn wake_at(&self, due: Timestamp) {
        self.due.store(due.millis(), Ordering::Relaxed);
    }

    /// Whether the source should stop waiting and answer [`Next::Idle`]: the job is paused, drained or cancelled, or
    /// one of its readers wants no more records. If no reader does, the source is not asked again.
    pub fn interrupted(&self) -> bool {
        let goes_on = if self.serves { self.control.serving() } else { self.control.running() };
        !goes_on || self.count_gone() != self.gone.load(Ordering::Relaxed)
    }

    /// Whether nothing more is wanted of the source: the job is drained or cancelled, or none of its readers wants more
    /// records. A pause is none of these. A change unparks the source's thread.
    pub fn is_ending(&self) -> bool {
        let is_read = self.readers.is_empty() || self.count_gone() < self.readers.len();
        self.control.load() >= Control::Drain || !is_read
    }

    /// Whether the job is being cancelled. A change unparks the source's thread.
    pub fn is_cancelled(&self) -> bool {
        self.control.load() == Control::Cancel
    }

    fn count_gone(&self) -> usize {
        self.readers.iter().filter(|reader| reader.is_gone()).count()
    }

    /// Takes note of who has ended. Comes before the look whether anybody wants more.
    pub(crate) fn look_for_readers(&self) {
        self.gone.store(self.count_gone(), Ordering::Relaxed);
    }

    /// The job's clock.
    pub fn clock(&self) -> &Clock {
        self.control.clock()
    }

    /// How long, within `limit`, the source may wait as things stand; `None` if there is something else to be done.
    fn may_wait(&self, limit: Duration) -> Option<Duration> {
        let due = Timestamp::from_millis(self.due.load(Ordering::Relaxed));
        let (clock, due) = (self.clock(), (due < Timestamp::MAX).then_some(due));
        if self.interrupted() || clock.is_due(due) {
            return None;
        }
        let until_due = due.and_then(|due| clock.until(due));
        Some(until_due.map_or(limit, |until_due| until_due.min(limit)))
    }

    /// Parks the calling thread while `pending` holds, for `limit` at most. Returns early when it is interrupted, or
    /// something behind the source is due; says whether it has not.
    fn park(&self, limit: Duration, pending: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        let due = Timestamp::from_millis(self.due.load(Ordering::Relaxed));
        let (clock, due) = (self.clock(), (due < Timestamp::MAX).then_some(due));
        let until_due = due.and_then(|due| clock.until(due)).filter(|until_due| *until_due < limit);
        crate::sync::park_for(until_due.unwrap_or(limit), || pending() && !self.interrupted() && !clock.is_due(due));
        // A pause that interrupted it may be over again.
        begun.elapsed() >= limit && !self.interrupted() && until_due.is_none() && !clock.is_due(due)
    }

    /// Waits until `ready` returns true, the job is paused, drained or cancelled, a reader wants no more records, or a
    /// window or timer behind the source is due by the clock. To end the wait, make `ready` true and then unpark the
    /// waiting thread.
    pub fn wait_until(&self, ready: impl Fn() -> bool) {
        let _ = self.park(crate::sync::FOREVER, || !ready());
    }

    /// Waits for `duration`, or until the job is paused, drained or cancelled, a reader wants no more records, or a
    /// window or timer behind the source is due by the clock. Returns whether the whole time has passed; if not, answer
    /// [`Next::Idle`].
    pub fn wait(&self, duration: Duration) -> bool {
        self.park(duration, || true)
    }

    /// Waits until `descriptor` is readable, or broken; or, as [`wait`](Self::wait) does, for `limit`, or until
    /// something else is to be done. Returns whether it is readable; if not, answer [`Next::Idle`]. The first call
    /// opens one more descriptor, which is closed when the source's task ends.
    ///
    /// # Errors
    /// That of the system, such as that it has no more descriptors.
    pub fn wait_readable(&self, descriptor: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
        self.wait_ready(descriptor, Ready::Read, limit)
    }

    /// As [`wait_readable`](Self::wait_readable), until it is writable, as a socket is when it is connected.
    ///
    /// # Errors
    /// As for [`wait_readable`](Self::wait_readable).
    pub fn wait_writable(&self, descriptor: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
        self.wait_ready(descriptor, Ready::Write, limit)
    }

    fn wait_ready(&self, descriptor: BorrowedFd<'_>, ready: Ready, limit: Duration) -> io::Result<bool> {
        let bell = match self.bell.get() {
            Some(bell) => bell,
            None => {
                let bell = Arc::new(Bell::new()?);
                self.control.hang(bell.clone());
                self.bell.get_or_init(|| bell)
            }
        };
        let begun = Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let Some(wait) = self.may_wait(left) else { return Ok(false) };
            if bell.wait(descriptor, ready, wait)? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}

impl Drop for SourceContext {
    fn drop(&mut self) {
        self.bell.get().iter().for_each(|bell| self.control.take_down(bell));
    }
}
