//! A chain that begins with a source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Stepped, Task};
use crate::chain::{Fault, Position, Push, Signal, Stop, TaskContext};
use crate::control::Control;
use crate::guarded::Guarded;
use crate::ids::NodeId;
use crate::metrics::Counter;
use crate::source::{Next, Source, SourceContext};
use crate::time::Timestamp;

/// Batches are this long at most, in records: how often the counters are published and the clock is read.
const MAX_BATCH_RECORDS: u64 = 4096;
/// The first batch has this many records at most. A batch that is no longer looks at the clock after each of them, and
/// ends once it is a long one: before the pace of a source is known, and where it is a slow one.
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
    pub(crate) fn new(source: S, next: N, node: NodeId, context: SourceContext, taken: Arc<Counter>) -> Self {
        let chain = (Guarded::new(source, Some(node)), next);
        Self { chain, node, context, taken, batch_records: FIRST_BATCH_RECORDS, opened: false }
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
) -> Result<Stepped, Fault> {
    match source.next(context).map_err(Fault::Error)? {
        Next::Record(record) if source.in_blocks() => {
            let pushed = next.push(record, stride.at);
            stride.taken += source.taken();
            pushed?;
            stride.at.enter(node);
            Ok(Stepped::Again)
        }
        Next::Record(record) => {
            stride.taken += 1;
            next.push(record, stride.at)?;
            stride.at.enter(node);
            Ok(Stepped::Again)
        }
        Next::Idle => Ok(Stepped::Idle),
        Next::End => Ok(Stepped::End),
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
) -> Result<Stepped, Fault> {
    at.enter(node);
    let (end, control) = (at.record() + limit, context.control());
    let begun = (limit <= FIRST_BATCH_RECORDS).then(Instant::now);
    let serves = source.serves();
    let goes_on = || if serves { control.serving() } else { control.running() };
    while at.record() < end && goes_on() && begun.is_none_or(|begun| begun.elapsed() <= LONG_BATCH) {
        match one(source, next, &mut Stride { at, taken: 0 }, node, context)? {
            Stepped::Again => {}
            step => return Ok(step),
        }
    }
    Ok(Stepped::Again)
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
) -> Result<Stepped, Fault> {
    at.enter(node);
    let (end, control) = (at.record() + MAX_BATCH_RECORDS, context.control());
    while at.record() < end && control.running() {
        let mut stride = Stride { at, taken: 0 };
        // Records that were quick may turn slow at any moment.
        while stride.taken < STRIDE_RECORDS && control.running_at_a_glance() {
            match one(source, next, &mut stride, node, context)? {
                Stepped::Again => {}
                step => return Ok(step),
            }
        }
    }
    Ok(Stepped::Again)
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

    fn step(&mut self, cx: &mut TaskContext) -> Result<Stepped, Stop> {
        match cx.control().load() {
            Control::Run => {}
            Control::Drain if self.chain.0.serves() => {}
            Control::Pause => return self.signal(Signal::Settle, cx).map(|()| Stepped::Idle),
            Control::Drain => return Ok(Stepped::End),
            Control::Cancel => return Err(Stop::Cancelled),
        }
        self.context.look_for_readers();
        if !self.chain.1.wanted(false) {
            return Err(Stop::Satisfied);
        }
        let due = self.chain.1.wake_at().unwrap_or(Timestamp::MAX);
        self.context.wake_at(due);
        let start = Instant::now();
        let (node, context, limit) = (self.node, &self.context, self.batch_records);
        // Two loops apart: in one function the compiler runs out of registers for both.
        let pumped = if limit == MAX_BATCH_RECORDS && !self.chain.0.serves() {
            cx.run(&mut self.chain, |(source, next), at| quick_batch(&mut **source, next, at, node, context))
        } else {
            cx.run(&mut self.chain, |(source, next), at| batch(&mut **source, next, at, limit, node, context))
        };
        let took = start.elapsed();
        self.pace(took);
        let step = match pumped {
            Err(Stop::Attend) => {
                // It may have to wait for long.
                self.publish(cx);
                cx.run(&mut self.chain, |(_, next), at| next.attend(at)).map(|()| Stepped::Again)?
            }
            pumped => pumped?,
        };
        cx.run_in_place(|at| self.chain.1.signal(Signal::Time, at))?;
        if step == Stepped::Idle || took > LONG_BATCH {
            self.signal(Signal::Settle, cx)?;
            self.signal(Signal::Flush, cx)?;
        }
        // A source waits by itself; the task waits only while it is paused.
        Ok(if step == Stepped::Idle { Stepped::Again } else { step })
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

    /// Apart from `step`, whose loops have the registers to themselves then.
    #[inline(never)]
    fn signal(&mut self, signal: Signal, cx: &mut TaskContext) -> Result<(), Stop> {
        #[cfg(test)]
        if signal == Signal::Finish {
            cx.run(&mut self.chain, |(_, next), at| next.signal(Signal::Trace(1), at))?;
        }
        cx.run(&mut self.chain, |(_, next), at| next.signal(signal, at))
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
