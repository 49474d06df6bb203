//! Counters that tasks publish once a batch.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How many records have passed one point of one task; written by the task, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn publish(&self, records: u64) {
        self.0.store(records, Ordering::Relaxed);
    }

    pub(crate) fn records(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Doing {
    /// It has not begun, as services start first.
    NotStarted,
    /// It works on records.
    Busy,
    /// It waits for records or completions.
    Idle,
    /// It waits for room downstream.
    Blocked,
    /// Its source waits for [`resume`](crate::JobView::resume).
    Paused,
    /// It is over.
    Ended,
}

/// What a task is doing and since when: written by the task, where it begins and ends a wait, read by anyone.
#[derive(Debug)]
pub(crate) struct Activity {
    begun: Instant,
    /// The nanoseconds from `begun` until it began to do this, times 8, and which it is.
    now: AtomicU64,
}

const BUSY: u64 = 1;
const IDLE: u64 = 2;
const ENDED: u64 = 3;
/// And which bound it is.
const BLOCKED: u64 = 4;

impl Default for Activity {
    fn default() -> Self {
        Self { begun: Instant::now(), now: AtomicU64::new(0) }
    }
}

impl Activity {
    pub(crate) fn busy(&self, since: Instant) {
        self.set(BUSY, since);
    }

    pub(crate) fn idle(&self, since: Instant) {
        self.set(IDLE, since);
    }

    pub(crate) fn blocked(&self, bound: BlockedBy, since: Instant) {
        self.set(BLOCKED + bound as u64, since);
    }

    pub(crate) fn ended(&self) {
        self.set(ENDED, Instant::now());
    }

    fn set(&self, doing: u64, since: Instant) {
        let since = since.saturating_duration_since(self.begun).as_nanos() as u64;
        self.now.store(since << 3 | doing, Ordering::Relaxed);
    }

    /// What it is doing, for how long, and the bound that holds it up.
    pub(crate) fn look(&self) -> (Doing, Duration, Option<BlockedBy>) {
        let now = self.now.load(Ordering::Relaxed);
        let (doing, bound) = match now & 7 {
            0 => (Doing::NotStarted, None),
            BUSY => (Doing::Busy, None),
            IDLE => (Doing::Idle, None),
            ENDED => (Doing::Ended, None),
            BLOCKED => (Doing::Blocked, Some(BlockedBy::Blocks)),
            bound => (Doing::Blocked, Some(if bound == BLOCKED + 1 { BlockedBy::Pace } else { BlockedBy::Bytes })),
        };
        (doing, self.begun.elapsed().saturating_sub(Duration::from_nanos(now >> 3)), bound)
    }
}

/// Which limit on the records between two tasks made a task wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockedBy {
    /// The lane was full of blocks.
    #[serde(alias = "batches")]
    Blocks,
    /// As many records waited as the next task works on in 10 ms, or twice as many as it works on at once.
    Pace,
    /// As many bytes waited as the edge may hold.
    Bytes,
}

impl BlockedBy {
    /// The former name of [`Blocks`](Self::Blocks).
    #[deprecated(since = "0.1.0", note = "use `Blocks`")]
    #[expect(non_upper_case_globals, reason = "programs write it as the variant that it was")]
    pub const Batches: Self = Self::Blocks;
}

impl fmt::Display for BlockedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocks => "blocks",
            Self::Pace => "pace",
            Self::Bytes => "bytes",
        })
    }
}

/// Where a task's time went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TaskTimes {
    pub(crate) total: Duration,
    /// Waiting for room in a lane.
    pub(crate) blocked: Blocked,
    /// Waiting for records or completions, or paused.
    pub(crate) idle: Duration,
}

/// How long a task waited for room, by what bound it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Blocked([Duration; 3]);

impl Blocked {
    pub(crate) fn note(&mut self, bound: BlockedBy, time: Duration) {
        self.0[bound as usize] += time;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(time, other)| *time += other);
    }

    pub(crate) fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// What bound it longest, if it waited at all.
    pub(crate) fn mostly(&self) -> Option<BlockedBy> {
        let all = [BlockedBy::Blocks, BlockedBy::Pace, BlockedBy::Bytes];
        let longest = all.into_iter().max_by_key(|bound| self.0[*bound as usize])?;
        (!self.total().is_zero()).then_some(longest)
    }
}
