//! The life of a job, as a table: which state may follow which; and that of a task.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobState {
    /// Accepted; nothing has started.
    Created,
    /// Services, then tasks, are starting.
    Starting,
    /// Records are processed.
    Running,
    /// Sources wait; records in flight are processed.
    Paused,
    /// Tasks are ending, by a drain or a cancel.
    Draining,
    /// Every task has ended or is abandoned; services are stopped and cleaned.
    Stopping,
    /// The job is over, and its report is ready.
    Ended,
}

impl JobState {
    /// Whether `next` may follow.
    pub(crate) fn may_become(self, next: Self) -> bool {
        use JobState as S;
        match self {
            S::Created => matches!(next, S::Starting),
            S::Starting => matches!(next, S::Running | S::Stopping),
            S::Running => matches!(next, S::Paused | S::Draining | S::Stopping),
            S::Paused => matches!(next, S::Running | S::Draining | S::Stopping),
            S::Draining => matches!(next, S::Stopping),
            S::Stopping => matches!(next, S::Ended),
            S::Ended => false,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        })
    }
}

/// Where a task is in its life: created, then running, then at one of the ends; or never run, and cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskState {
    /// Built; it has not started.
    Created,
    /// Records are processed.
    Running,
    /// It has processed its input to the end.
    Finished,
    /// It ended early because it was told to, or because a task before or behind it did; or it never ran.
    Cancelled,
    /// An operator failed.
    Failed,
    /// It did not come back by its deadline; its thread is left behind.
    Abandoned,
}

impl TaskState {
    /// Whether the task has come to its end.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Created | Self::Running)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        })
    }
}
