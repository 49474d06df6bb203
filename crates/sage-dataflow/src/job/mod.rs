//! One execution of a pipeline: its tasks, its dispatcher, its shutdown and its report.

pub(crate) mod control;
pub(crate) mod dispatcher;
mod drain;
mod handle;
mod log;
pub(crate) mod plan;
pub(crate) mod polling;
pub(crate) mod reason;
mod rendezvous;
mod report;
pub(crate) mod signals;
mod state;
pub(crate) mod task;
mod turns;
mod works_for;

pub use handle::{JobError, JobHandle, RunError};
pub(crate) use handle::{JobShared, checked};
pub use log::LogError;
pub(crate) use log::SessionLog;
pub use plan::Deadlines;
pub use reason::StopReason;
pub use report::{
    Cause, CauseKind, Cleanliness, FunctionReport, JobMetrics, JobReport, Leftover, OperatorReport, Origin, Outcome,
    PhaseTimes, ServiceReport,
};
pub use signals::{SignalPolicy, SignalWatch};
pub use state::JobState;
pub use works_for::WorksFor;

use crate::sync;
