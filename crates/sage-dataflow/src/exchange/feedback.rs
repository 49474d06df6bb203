//! The end of a loop: the router that sends records back to the loop's head.
//!
//! Its lane grows, because a full loop would stand still if the lane blocked. A limit on the records between the end of
//! the loop and its head bounds the lane; one record more fails the job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::router::{Lanes, RoundRobin};
use crate::chain::{Fault, Position, Push, Signal, TaskContext};
use crate::ids::NodeId;

/// Why a loop failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedbackError {
    /// More records wait to go round than [`Feedback::limit`](crate::Feedback::limit) allows: the loop makes more
    /// records than it ends.
    #[error(
        "more than {limit} records wait to go round; \
         the loop makes more than it ends, or needs a larger `Feedback::limit`"
    )]
    Full {
        /// How many may wait.
        limit: usize,
    },
    /// An operator of the loop emitted a record to be fed back at the end of its input, when the loop had already
    /// ended.
    #[error("a record was fed back after the loop had ended; an operator in the loop emits at the end of its input")]
    Ended,
}

/// What both ends of the lanes that are fed back know of each other.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    sent: AtomicU64,
    taken: AtomicU64,
    ended: AtomicBool,
}

impl Gauge {
    /// Says how many records the head has taken.
    pub(crate) fn taken(&self, records: u64) {
        self.taken.store(records, Ordering::Relaxed);
    }

    /// Says that the loop has ended: what comes now is lost, and is to be an error.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// How many records a sender counts by itself before it tells the gauge, at most.
const SHARE: u64 = 256;

/// Sends records to the head of the loop.
pub(crate) struct FedBack<T> {
    to: RoundRobin<T>,
    gauge: Arc<Gauge>,
    limit: usize,
    /// Records sent that the gauge was not told of.
    untold: u64,
    share: u64,
    /// The loop, in whose name it fails.
    node: NodeId,
}

impl<T: Send> FedBack<T> {
    pub(crate) fn new(lanes: Lanes<T>, gauge: Arc<Gauge>, limit: usize, node: NodeId) -> Self {
        let share = (limit as u64 / 16).clamp(1, SHARE);
        Self { to: RoundRobin::new(lanes, 0), gauge, limit, untold: 0, share, node }
    }

    #[inline(never)]
    fn tell(&mut self) -> Result<(), FeedbackError> {
        let untold = std::mem::take(&mut self.untold);
        let sent = self.gauge.sent.fetch_add(untold, Ordering::Relaxed) + untold;
        let waiting = sent.saturating_sub(self.gauge.taken.load(Ordering::Relaxed));
        if waiting > self.limit as u64 { Err(FeedbackError::Full { limit: self.limit }) } else { Ok(()) }
    }
}

impl<T: Send> Push<T> for FedBack<T> {
    fn push(&mut self, record: T, at: &mut Position) -> Result<(), Fault> {
        self.untold += 1;
        if self.gauge.ended.load(Ordering::Acquire) {
            at.enter(self.node);
            return Err(FeedbackError::Ended.into());
        }
        if self.untold >= self.share {
            self.tell().inspect_err(|_| at.enter(self.node))?;
        }
        self.to.push(record, at)
    }

    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.to.open(at)
    }

    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.to.attend(at)
    }

    fn wanted(&self, outside: bool) -> bool {
        self.to.wanted(outside)
    }

    /// Event time does not go round, and only the loop's own probes do.
    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        match signal {
            Signal::Probe(_) | Signal::Finish => self.to.signal(signal, at),
            _ => Ok(()),
        }
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.to.close(cx);
    }
}
