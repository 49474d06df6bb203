//! How records get from task to task: bounded lanes of record blocks, and the partitioning, which chooses a lane for
//! each record.
//!
//! Knows nothing of operators, of services, or of who runs a chain.

#[cfg(test)]
mod allowances;
mod circle;
mod combining;
#[cfg(test)]
mod deals;
mod feedback;
pub(crate) mod lane;
#[cfg(test)]
mod pushes;
mod rounds;
mod router;
mod waiting;
mod weight;

use serde::{Deserialize, Serialize};

use crate::{between, metrics, sync};

pub(crate) use circle::{Circle, Wanting};
pub(crate) use combining::Combining;
pub use feedback::FeedbackError;
pub(crate) use feedback::{FedBack, Gauge};
pub(crate) use rounds::{Returned, Rounds};
pub(crate) use router::{Broadcast, ByKey, Chosen, Lanes, RoundRobin, Tee, lane_of};
pub(crate) use waiting::Waiting;
pub(crate) use weight::{Weigh, Weights};

/// How the records of a stream are spread over the replicas of the operator after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Partitioning {
    /// Replica *i* sends to replica *i*.
    Forward,
    /// Each record to the next replica in turn that has room. Order is kept in each lane only: from one replica to one
    /// other.
    RoundRobin,
    /// Records with equal keys to the same replica, by a stable hash. Order is kept per key.
    Hash,
    /// Each record to the replica that a user's function chooses.
    Custom,
    /// Every record to every replica.
    Broadcast,
    /// Every record to the only replica.
    Gather,
}

impl std::fmt::Display for Partitioning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::RoundRobin => "round robin",
            Self::Hash => "hash",
            Self::Custom => "custom",
            Self::Broadcast => "broadcast",
            Self::Gather => "gather",
        })
    }
}
