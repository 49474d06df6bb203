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
    /// The nanoseconds from `begun` until it was started, and how many of those since it has waited, in waits that are
    /// over: for records, and for room.
    started: AtomicU64,
    idle: AtomicU64,
    blocked: AtomicU64,
}

/// What a task is doing.
pub(crate) struct Look {
    pub(crate) doing: Doing,
    /// For how long.
    pub(crate) since: Duration,
    /// The bound that holds it up.
    pub(crate) bound: Option<BlockedBy>,
    /// What it has done since it was started.
    pub(crate) busy: Duration,
    pub(crate) blocked: Duration,
    pub(crate) idle: Duration,
}

const BUSY: u64 = 1;
const IDLE: u64 = 2;
const ENDED: u64 = 3;
/// And which bound it is.
const BLOCKED: u64 = 4;

impl Default for Activity {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { begun: Instant::now(), now: zero(), started: zero(), idle: zero(), blocked: zero() }
    }
}

impl Activity {
    /// Its task is started.
    pub(crate) fn starts(&self, at: Instant) {
        self.started.store(self.nanos(at), Ordering::Relaxed);
        self.busy(at);
    }

    pub(crate) fn busy(&self, since: Instant) {
        self.set(BUSY, since);
    }

    /// It was idle for so long. Only its task's thread calls this, and the next.
    pub(crate) fn was_idle(&self, time: Duration) {
        add(&self.idle, time);
    }

    /// It waited for room for so long.
    pub(crate) fn was_blocked(&self, time: Duration) {
        add(&self.blocked, time);
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
        self.now.store(self.nanos(since) << 3 | doing, Ordering::Relaxed);
    }

    fn nanos(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.begun).as_nanos() as u64
    }

    /// What it is doing, and has done so far.
    pub(crate) fn look(&self) -> Look {
        let now = self.now.load(Ordering::Relaxed);
        let read = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        let (mut idle, mut blocked) = (read(&self.idle), read(&self.blocked));
        let (doing, bound) = match now & 7 {
            0 => (Doing::NotStarted, None),
            BUSY => (Doing::Busy, None),
            IDLE => (Doing::Idle, None),
            ENDED => (Doing::Ended, None),
            BLOCKED => (Doing::Blocked, Some(BlockedBy::Blocks)),
            bound => (Doing::Blocked, Some(if bound == BLOCKED + 1 { BlockedBy::Pace } else { BlockedBy::Bytes })),
        };
        let (at, from) = (self.begun.elapsed(), Duration::from_nanos(now >> 3));
        let since = at.saturating_sub(from);
        match doing {
            Doing::Idle => idle += since,
            Doing::Blocked => blocked += since,
            _ => {}
        }
        let total = match doing {
            Doing::NotStarted => Duration::ZERO,
            Doing::Ended => from.saturating_sub(read(&self.started)),
            _ => at.saturating_sub(read(&self.started)),
        };
        Look { doing, since, bound, busy: total.saturating_sub(idle + blocked), blocked, idle }
    }
}

/// Adds to what one thread alone adds to.
fn add(sum: &AtomicU64, time: Duration) {
    sum.store(sum.load(Ordering::Relaxed) + time.as_nanos() as u64, Ordering::Relaxed);
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
