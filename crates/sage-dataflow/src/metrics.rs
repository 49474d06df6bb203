//! Counters that tasks publish once a batch.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
