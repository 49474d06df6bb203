//! One execution of a pipeline: its tasks, its dispatcher, its shutdown and its report.

pub(crate) mod dispatcher;
mod drain;
mod handle;
mod log;
pub(crate) mod plan;
mod rendezvous;
mod report;
pub(crate) mod signals;
pub(crate) mod start;
mod state;
mod turns;

pub(crate) use handle::checked;
pub use handle::{JobError, JobHandle, RunError};
pub use plan::Deadlines;
pub use report::{
    Cause, CauseKind, Cleanliness, FunctionReport, JobMetrics, JobReport, Leftover, OperatorReport, Origin, Outcome,
    PhaseTimes, ServiceReport,
};
pub use signals::{SignalPolicy, SignalWatch};
pub use state::JobState;

use crate::{sync, thread};
