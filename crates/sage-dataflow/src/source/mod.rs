//! Where records come from: the [`Source`] trait, its built-in forms, and the task that drives one.

mod files;
mod iterators;
mod retry;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) use files::Lines;
pub use files::{Line, ReadError};
pub(crate) use iterators::{GeneratorSource, IterSource};
pub(crate) use retry::RetriedSource;

use crate::BoxError;
use crate::clock::Clock;
use crate::exchange::lane::Signal;
use crate::graph::NodeId;
use crate::graph::wiring::BuildContext;
use crate::guarded::Guarded;
use crate::job::control::{Control, JobControl};
use crate::job::task::{CloseContext, Fault, Position, Push, Step, Stop, Task, TaskContext};
use crate::metrics::Counter;
use crate::operator::policy::Passed;
use crate::time::Timestamp;

/// What a source answers when it is asked for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next<T> {
    /// The next record.
    Record(T),
    /// No record just now. Whatever is buffered downstream is flushed and the source is asked again at once: wait for a
    /// while first, with [`SourceContext::wait`].
    Idle,
    /// There are no more records.
    End,
}

/// A source of records, driven on its own thread.
///
/// A source reports what went wrong as an error; the engine stops the job and names the source. A source
/// that waits for the outside world should wait with [`SourceContext::wait`], so that a drain, a cancel, and a
/// [`take`](crate::Stream::take) that has what it wanted end the wait; one that blocks elsewhere ends when its call
/// returns, or is abandoned at the deadline.
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
    /// Called again after an error only under a [`retry`](crate::Stream::retry): then it tries the same again, such as
    /// a connection, or fails again. It must not go on behind what it could not read, which would be lost.
    fn next(&mut self, cx: &SourceContext) -> Result<Next<Self::Item>, BoxError>;

    /// Whether what it gives are blocks of records, which the operator behind it takes from the source while it works
    /// on them.
    #[doc(hidden)]
    fn in_blocks(&self) -> bool {
        false
    }

    /// How many records were taken of the block that it gave last, if those come [`in_blocks`](Self::in_blocks). Asked
    /// when the chain is done with it: for the counts of the report and the pace of the task.
    #[doc(hidden)]
    fn taken(&self) -> u64 {
        1
    }

    /// Where the source stands, in a form of its own, for a later run to go on from; `None` where it cannot tell.
    fn position(&self) -> Option<Vec<u8>> {
        None
    }

    /// Releases what `open` acquired. Runs exactly once after `open` was attempted, whatever happened since.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// What the engine tells a source.
#[derive(Debug)]
pub struct SourceContext {
    /// Which replica this is, from 0.
    pub replica: usize,
    /// How many replicas there are.
    pub parallelism: usize,
    control: Arc<JobControl>,
    passed: Arc<Passed>,
    /// When, in milliseconds of the job's clock, the chain behind the source has something to do; `i64::MAX` for never.
    due: AtomicI64,
    /// The tasks that the records go to. One that ends unparks this thread.
    readers: Vec<Arc<Signal>>,
    /// How many of them had ended when the task last looked whether anybody wants more.
    gone: AtomicUsize,
}

impl SourceContext {
    fn new(node: NodeId, cx: &mut BuildContext<'_>) -> Self {
        Self {
            replica: cx.replica,
            parallelism: cx.parallelism,
            control: cx.control(),
            passed: cx.passed(node),
            due: AtomicI64::new(i64::MAX),
            readers: cx.readers(),
            gone: AtomicUsize::new(0),
        }
    }

    /// Whether the source should return from a wait, and answer [`Next::Idle`]: the job is paused, drained or
    /// cancelled, or one of those who read its records wants no more. Where nobody does, the source is not asked again.
    pub fn interrupted(&self) -> bool {
        !self.control.running() || self.count_gone() != self.gone.load(Ordering::Relaxed)
    }

    fn count_gone(&self) -> usize {
        self.readers.iter().filter(|reader| reader.is_gone()).count()
    }

    /// Takes note of who has ended. Comes before the look whether anybody wants more.
    fn look_for_readers(&self) {
        self.gone.store(self.count_gone(), Ordering::Relaxed);
    }

    /// The clock of the job's processing time.
    pub fn clock(&self) -> &Clock {
        self.control.clock()
    }

    /// Parks the calling thread while `pending` holds, for `limit` at most. Returns early when it is interrupted, or
    /// something behind the source is due; says whether it has not.
    fn park(&self, limit: Duration, pending: impl Fn() -> bool) -> bool {
        let due = Timestamp::from_millis(self.due.load(Ordering::Relaxed));
        let (clock, due) = (self.clock(), (due < Timestamp::MAX).then_some(due));
        let until_due = due.and_then(|due| clock.until(due)).filter(|until_due| *until_due < limit);
        crate::sync::park_for(until_due.unwrap_or(limit), || pending() && !self.interrupted() && !clock.is_due(due));
        !self.interrupted() && until_due.is_none() && !clock.is_due(due)
    }

    /// Waits until `ready` says so, the job is paused, drained or cancelled, a reader wants no more, or a window or
    /// timer behind the source is due by the clock. Whoever makes it ready unparks the calling thread then.
    pub fn wait_until(&self, ready: impl Fn() -> bool) {
        let _ = self.park(crate::sync::FOREVER, || !ready());
    }

    /// Waits for `duration`, or until the job is paused, drained or cancelled, a reader wants no more, or a window or
    /// timer behind the source is due by the clock: answer [`Next::Idle`] then. Returns whether the whole time has
    /// passed.
    pub fn wait(&self, duration: Duration) -> bool {
        self.park(duration, || true)
    }
}

/// Batches are this long at most, in records: how often the counters are published and the clock is read.
const MAX_BATCH_RECORDS: u64 = 4096;
const FIRST_BATCH_RECORDS: u64 = 64;
/// How many records a loop over quick ones is unrolled to.
const STRIDE_RECORDS: u64 = 8;
/// A batch that takes longer than this makes the next one smaller.
const LONG_BATCH: Duration = Duration::from_millis(2);

/// A chain that begins with a source.
pub(crate) struct SourceTask<S, N> {
    /// The source and the rest of its chain.
    chain: (Guarded<S>, N),
    node: NodeId,
    context: SourceContext,
    taken: Arc<Counter>,
    batch_records: u64,
    opened: bool,
}

impl<S: Source, N: Push<S::Item>> SourceTask<S, N> {
    pub(crate) fn new(source: S, next: N, node: NodeId, cx: &mut BuildContext<'_>) -> Self {
        let context = SourceContext::new(node, cx);
        let chain = (Guarded::new(source, Some(node)), next);
        Self { chain, node, context, taken: cx.taken(), batch_records: FIRST_BATCH_RECORDS, opened: false }
    }

    /// Fits the batch to the source's pace, so that a slow one is flushed and counted often.
    fn pace(&mut self, took: Duration) {
        self.batch_records = if took > LONG_BATCH {
            (self.batch_records / 4).max(1)
        } else {
            (self.batch_records * 2).min(MAX_BATCH_RECORDS)
        };
    }
}

/// Some records in a row. They are counted in the position when it is left, also by a panic, so that a loop over them
/// that is unrolled counts once.
struct Stride<'a> {
    at: &'a mut Position,
    taken: u64,
}

impl Drop for Stride<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.at.count(self.taken);
    }
}

/// Takes one record from the source through its chain.
#[inline(always)]
fn one<S: Source, N: Push<S::Item>>(
    source: &mut S,
    next: &mut N,
    stride: &mut Stride<'_>,
    node: NodeId,
    context: &SourceContext,
) -> Result<Step, Fault> {
    match source.next(context).map_err(Fault::Error)? {
        Next::Record(record) if source.in_blocks() => {
            let pushed = next.push(record, stride.at);
            stride.taken += source.taken();
            pushed?;
            stride.at.enter(node);
            Ok(Step::Again)
        }
        Next::Record(record) => {
            stride.taken += 1;
            next.push(record, stride.at)?;
            stride.at.enter(node);
            Ok(Step::Again)
        }
        Next::Idle => Ok(Step::Idle),
        Next::End => Ok(Step::End),
    }
}

/// Takes up to `limit` records from the source through its chain.
#[inline(always)]
fn batch<S: Source, N: Push<S::Item>>(
    source: &mut S,
    next: &mut N,
    at: &mut Position,
    limit: u64,
    node: NodeId,
    context: &SourceContext,
) -> Result<Step, Fault> {
    at.enter(node);
    let (end, control) = (at.record() + limit, &*context.control);
    while at.record() < end && control.running() {
        match one(source, next, &mut Stride { at, taken: 0 }, node, context)? {
            Step::Again => {}
            step => return Ok(step),
        }
    }
    Ok(Step::Again)
}

/// Takes as many records as a batch may have, where those before were quick: in strides, over which the compiler
/// unrolls the loop.
#[inline(always)]
fn quick_batch<S: Source, N: Push<S::Item>>(
    source: &mut S,
    next: &mut N,
    at: &mut Position,
    node: NodeId,
    context: &SourceContext,
) -> Result<Step, Fault> {
    at.enter(node);
    let (end, control) = (at.record() + MAX_BATCH_RECORDS, &*context.control);
    while at.record() < end && control.running() {
        let mut stride = Stride { at, taken: 0 };
        // Records that were quick may turn slow at any moment.
        while stride.taken < STRIDE_RECORDS && control.running_at_a_glance() {
            match one(source, next, &mut stride, node, context)? {
                Step::Again => {}
                step => return Ok(step),
            }
        }
    }
    Ok(Step::Again)
}

impl<S: Source, N: Push<S::Item>> Task for SourceTask<S, N> {
    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        self.opened = true;
        let (node, context) = (self.node, &self.context);
        cx.run(&mut self.chain, |(source, next), at| {
            at.enter(node);
            source.open(context).map_err(Fault::Error)?;
            next.open(at)
        })
    }

    fn step(&mut self, cx: &mut TaskContext) -> Result<Step, Stop> {
        match cx.control().load() {
            Control::Run => {}
            Control::Pause => return Ok(Step::Idle),
            Control::Drain => return Ok(Step::End),
            Control::Cancel => return Err(Stop::Cancelled),
        }
        self.context.look_for_readers();
        if !self.chain.1.wanted(false) {
            return Err(Stop::Satisfied);
        }
        let due = self.chain.1.wake_at().unwrap_or(Timestamp::MAX);
        self.context.due.store(due.millis(), Ordering::Relaxed);
        let start = Instant::now();
        let (node, context, limit) = (self.node, &self.context, self.batch_records);
        // Two loops apart: in one function the compiler runs out of registers for both.
        let pumped = if limit == MAX_BATCH_RECORDS {
            cx.run(&mut self.chain, |(source, next), at| quick_batch(&mut **source, next, at, node, context))
        } else {
            cx.run(&mut self.chain, |(source, next), at| batch(&mut **source, next, at, limit, node, context))
        };
        let took = start.elapsed();
        self.pace(took);
        let step = match pumped {
            Err(Stop::Attend) => cx.run(&mut self.chain, |(_, next), at| next.attend(at)).map(|()| Step::Again)?,
            pumped => pumped?,
        };
        cx.run_in_place(|at| self.chain.1.between(at))?;
        if step == Step::Idle || took > LONG_BATCH {
            self.flush(cx)?;
        }
        // A source waits by itself; the task waits only while it is paused.
        Ok(if step == Step::Idle { Step::Again } else { step })
    }

    fn wait(&mut self, cx: &mut TaskContext) {
        while cx.control().load() == Control::Pause {
            std::thread::park();
        }
    }

    fn publish(&mut self, cx: &TaskContext) {
        self.taken.publish(cx.records());
        self.chain.1.publish();
    }

    fn flush(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.chain, |(_, next), at| next.flush(at))
    }

    fn finish(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.chain, |(_, next), at| next.finish(at))
    }

    fn close(&mut self, cx: &mut TaskContext) {
        let (source, next) = &mut self.chain;
        if self.opened {
            self.opened = false;
            cx.closing(self.node, |close| source.close(close));
        }
        next.close(cx);
    }

    fn is_source(&self) -> bool {
        true
    }
}
