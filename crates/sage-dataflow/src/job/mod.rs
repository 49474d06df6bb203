//! One execution of a pipeline: its tasks, its dispatcher, its shutdown and its report.

mod cause;
mod changes;
pub(crate) mod dispatcher;
mod drain;
mod figures;
mod handle;
mod log;
pub(crate) mod plan;
mod rendezvous;
mod report;
mod report_text;
mod serving;
pub(crate) mod signals;
pub(crate) mod start;
mod state;
mod supervisor;
mod tasks;
mod turns;
mod view;

pub use cause::{Cause, CauseKind, Leftover, Origin};
pub use changes::{Changes, StateChange, Transition};
pub(crate) use handle::checked;
pub use handle::{JobError, JobHandle, RunError};
pub use plan::Deadlines;
pub use report::{
    Cleanliness, FunctionReport, JobMetrics, JobReport, OperatorReport, Outcome, PhaseTimes, QueueMetrics, TaskMetrics,
    WorkerReport,
};
pub use signals::{SignalPolicy, SignalWatch};
pub use start::PreparedJob;
pub use state::{JobState, TaskState};
pub use view::JobView;

use crate::{sync, thread};
