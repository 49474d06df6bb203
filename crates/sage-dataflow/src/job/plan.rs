//! The plan of one run: its tasks, and how long each phase may take.

use std::sync::Arc;
use std::time::Duration;

use super::state::TaskState;
use crate::backend::TaskBody;
use crate::chain::Cursor;
use crate::metrics::Activity;
use crate::sync::FOREVER;
use crate::task::{Ending, Task, TaskOutcome};

/// How long each phase of a job may take. The run itself has no limit, unless
/// [`Environment::time_limit`](crate::Environment::time_limit) sets one.
///
/// A hook that misses its deadline does not keep the job from ending: the report calls its service abandoned. Stopping
/// all services takes at most the sum of `stop` and `cleanup` along the longest chain of dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the constructor and `setup` of each service, together. Default: 60 s.
    pub setup: Duration,
    /// For a drain, from the request until the last task has ended. When it passes, the job is cancelled. Default: 30
    /// s.
    pub drain: Duration,
    /// For a cancel, from the request until the last task has ended. When it passes, the tasks that still run are
    /// abandoned. Default: 10 s.
    pub cancel: Duration,
    /// For `stop` of each service and the end of its running calls. Default: 10 s.
    pub stop: Duration,
    /// For `cleanup` of each service. Default: 10 s.
    pub cleanup: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { setup: seconds(60), drain: seconds(30), cancel: seconds(10), stop: seconds(10), cleanup: seconds(10) }
    }
}

impl Deadlines {
    /// Each no longer than a clock can be moved on by.
    pub(crate) fn bounded(self) -> Self {
        let Self { setup, drain, cancel, stop, cleanup } = self;
        let [setup, drain, cancel, stop, cleanup] = [setup, drain, cancel, stop, cleanup].map(|it| it.min(FOREVER));
        Self { setup, drain, cancel, stop, cleanup }
    }
}

/// One task as the dispatcher tracks it.
pub(crate) struct TaskRecord {
    pub(crate) cursor: Arc<Cursor>,
    pub(crate) stage: TaskStage,
}

pub(crate) enum TaskStage {
    Waiting(TaskBody),
    Running,
    Ended(TaskOutcome),
    Abandoned,
}

impl TaskStage {
    pub(crate) fn state(&self) -> TaskState {
        match self {
            Self::Waiting(_) => TaskState::Created,
            Self::Running => TaskState::Running,
            Self::Ended(outcome) => match outcome.ending {
                Ending::Finished => TaskState::Finished,
                Ending::Cancelled => TaskState::Cancelled,
                Ending::Failed => TaskState::Failed,
            },
            Self::Abandoned => TaskState::Abandoned,
        }
    }
}

impl TaskRecord {
    pub(crate) fn new(task: Box<dyn Task>, activity: Arc<Activity>) -> Self {
        Self { cursor: Arc::new(Cursor::new(activity)), stage: TaskStage::Waiting(TaskBody::InProcess(task)) }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.stage, TaskStage::Running)
    }
}
