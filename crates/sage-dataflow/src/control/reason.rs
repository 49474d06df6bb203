//! Why a job stops. Every hook gets the reason, and the report keeps it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a job, or a part of it, stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// Every source has ended and every record has reached its sink.
    EndOfInput,
    /// The caller asked for a drain.
    Drain,
    /// The caller asked for a cancel, or dropped the job's handle.
    Cancel,
    /// An operator, a source, a sink or a service failed.
    Failure,
    /// The signal of this number (2 is SIGINT, 15 SIGTERM).
    Signal(i32),
    /// The environment's time limit, or a drain's deadline, has passed.
    TimeLimit,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOfInput => f.write_str("end of input"),
            Self::Drain => f.write_str("drain requested"),
            Self::Cancel => f.write_str("cancel requested"),
            Self::Failure => f.write_str("failure"),
            Self::Signal(libc::SIGINT) => f.write_str("SIGINT"),
            Self::Signal(libc::SIGTERM) => f.write_str("SIGTERM"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::TimeLimit => f.write_str("time limit"),
        }
    }
}
