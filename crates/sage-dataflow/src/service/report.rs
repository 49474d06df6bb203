//! The figures of one service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::{PipelineReport, PolicyReport};
use super::state::ServiceState;

/// The figures of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Its state: in a report, the one at the end; [`ServiceState::Registered`] if it was never started.
    pub state: ServiceState,
    /// The calls it took, those that are inside included.
    pub calls: u64,
    /// The calls that are inside now: in a report, those that were when the service was given up.
    #[serde(default)]
    pub calls_inside: u64,
    /// The calls that returned an error through `try_call`, or panicked.
    pub errors: u64,
    /// The median latency of the calls that were timed, one in 64.
    pub p50: Option<Duration>,
    /// The 99th percentile of those latencies.
    pub p99: Option<Duration>,
    /// How long its constructor and `setup` took.
    pub setup: Option<Duration>,
    /// How long `stop`, the last calls, `cleanup` and drop took.
    pub cleanup: Option<Duration>,
    /// How processes of its own were lost whose place another has taken: [`ServiceHandle::replaced`].
    ///
    /// [`ServiceHandle::replaced`]: super::ServiceHandle::replaced
    #[serde(default)]
    pub lost: Vec<String>,
    /// What its policy did, if it has one.
    #[serde(default)]
    pub policy: Option<PolicyReport>,
    /// What its calls have come to, if a pipeline answers them.
    #[serde(default)]
    pub pipeline: Option<PipelineReport>,
}
