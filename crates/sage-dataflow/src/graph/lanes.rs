//! The lanes of an edge: how large they are, and their ends for each replica on both sides.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::control::JobControl;
use crate::exchange::lane::{Depth, Reader, ReaderState, Size, Tally, Writer, lane};
use crate::exchange::{Waiting, Weigh, Weights};
use crate::metrics::Activity;

/// Makes the lanes of an edge.
pub(crate) type ConnectEdge = dyn Fn(&EdgePlan<'_>) -> EdgeEnds + Send;

/// The sizes of a run's lanes.
#[derive(Debug, Clone)]
pub(crate) struct LaneOptions {
    /// Records per block; `None` for as many as fill 32 KiB, 64 to 4096.
    pub(crate) block_records: Option<usize>,
    /// Blocks in flight in a lane; `None` for 8, and more while they move fast.
    pub(crate) queue_blocks: Option<usize>,
    /// Bytes in all the lanes of an edge.
    pub(crate) queue_bytes: usize,
    /// Lanes are unbounded: nobody could make room while a task waits.
    pub(crate) inline: bool,
    pub(crate) flush_interval: Duration,
}

const BLOCK_BYTES: usize = 32 << 10;
/// Blocks in flight in a lane, unless the user says otherwise.
const SLOW_BLOCKS: usize = 8;
/// Blocks in flight in all the lanes of one producer, while they move fast: 2 MiB, so that they outgrow the cache of
/// a processor and its neighbour's blocks come back through the cache they share.
const FAST_BLOCKS: usize = 64;

impl LaneOptions {
    /// The size of each lane of records `T`, of which a producer has `lanes`, and an edge `all`. Records that are not
    /// weighed are all of the same size.
    fn size<T>(&self, lanes: usize, all: usize, weighed: bool) -> Size {
        let share = (self.queue_bytes / all.max(1)).max(1);
        let bytes = size_of::<T>().max(1);
        let records = (share / bytes).max(1);
        let fitting = (BLOCK_BYTES / bytes).clamp(64, 4096).min((records / 4).max(1));
        let capacity = self.block_records.unwrap_or(fitting);
        let depth = match self.queue_blocks {
            _ if self.inline => return Size::blocks(capacity, Depth::UNBOUNDED),
            Some(blocks) => Depth { slow: blocks, fast: blocks },
            None => Depth { slow: SLOW_BLOCKS, fast: (FAST_BLOCKS / lanes.max(1)).max(SLOW_BLOCKS) },
        };
        let bound = !weighed && records < capacity.saturating_mul(depth.fast);
        Size { records: if bound { records } else { usize::MAX }, bytes: share, ..Size::blocks(capacity, depth) }
    }
}

/// What is asked of an edge.
pub(crate) struct EdgePlan<'a> {
    pub(super) producers: usize,
    pub(super) signals: &'a [Arc<ReaderState>],
    /// Producer *i* has one lane, to consumer *i*.
    pub(super) one_to_one: bool,
    /// It leads back to the head of a loop.
    pub(super) feeds: bool,
    pub(super) options: &'a LaneOptions,
    pub(crate) weights: &'a Weights,
    pub(super) control: &'a Arc<JobControl>,
    /// Of the tasks that send, one for each producer.
    pub(super) activities: &'a [Arc<Activity>],
}

/// The two ends of an edge's lanes, erased: `Vec<Vec<Writer<T, Waiting>>>` by producer, `Vec<Vec<Reader<T>>>` by
/// consumer.
pub(crate) struct EdgeEnds {
    pub(super) writers: Box<dyn Any>,
    pub(super) readers: Box<dyn Any>,
    pub(super) tallies: Vec<Arc<Tally>>,
}

/// Makes the lanes of an edge of records `T`.
pub(crate) fn connect<T: Send + 'static>(plan: &EdgePlan<'_>) -> EdgeEnds {
    connect_weighed(plan, plan.weights.of::<T>())
}

/// As [`connect`], with records that are weighed so.
pub(crate) fn connect_weighed<T: Send + 'static>(plan: &EdgePlan<'_>, weigh: Option<Weigh<T>>) -> EdgeEnds {
    let mut writers: Vec<Vec<Writer<T, Waiting>>> = Vec::new();
    let mut readers: Vec<Vec<Reader<T>>> = plan.signals.iter().map(|_| Vec::new()).collect();
    let lanes = if plan.one_to_one { 1 } else { plan.signals.len() };
    let size = plan.options.size::<T>(lanes, plan.producers * lanes, weigh.is_some());
    let size = if plan.feeds { Size::blocks(size.capacity, Depth::UNBOUNDED) } else { size };
    let mut tallies = Vec::new();
    for producer in 0..plan.producers {
        let mut row = Vec::new();
        for (consumer, signal) in plan.signals.iter().enumerate() {
            if plan.one_to_one && consumer != producer {
                continue;
            }
            let wait = Waiting::new(plan.control.clone(), plan.activities[producer].clone());
            let (writer, reader) = lane(size, signal.clone(), wait);
            let writer = match &weigh {
                Some(weigh) if size.bytes < usize::MAX => writer.weighing(weigh.clone()),
                _ => writer,
            };
            tallies.push(reader.tally());
            row.push(writer);
            readers[consumer].push(reader);
        }
        writers.push(row);
    }
    EdgeEnds { writers: Box::new(writers), readers: Box::new(readers), tallies }
}
