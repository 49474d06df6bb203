//! [`JobReport`]: everything about a job that is over.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::cause::{Cause, Leftover};
use crate::control::StopReason;
use crate::metrics::{BlockedBy, Doing};
use crate::service::ServiceReport;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Every record reached its sink; after a drain, every record in flight did.
    Succeeded,
    /// User code failed, or a part of the job could not start.
    Failed,
    /// The job was cancelled, or a signal ended it.
    Cancelled,
    /// The time limit, or a drain's deadline, passed.
    TimedOut,
    /// The process that ran the job is gone.
    Lost,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed out",
            Self::Lost => "lost",
        })
    }
}

/// Whether a job has left anything behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanliness {
    /// Nothing is left: no thread, no service, no handle that the job opened.
    Clean,
    /// Something is left; [`JobReport::left`] names it.
    Unclean,
}

/// The figures of one operator, source or sink, over all its replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorReport {
    /// Its name.
    pub name: String,
    /// How many replicas it had.
    pub parallelism: usize,
    /// The records it took; for a source, the records it read.
    pub records_in: u64,
    /// The records it sent on; for a sink, the records it wrote.
    pub records_out: u64,
    /// The records it failed on: the one that failed the job, and those that an error policy skipped or that became
    /// dead letters.
    pub failed: u64,
    /// How many further attempts a [`retry`](crate::Stream::retry) made.
    pub retries: u64,
    /// How often a new instance took the place of a function that had failed, as the Python package's
    /// `fault_tolerance` does.
    #[serde(default)]
    pub restarts: u64,
    /// The records whose changes to the state of such a function were lost with it.
    #[serde(default)]
    pub state_lost: u64,
    /// The first error that did not fail the job, of one of its replicas.
    pub first_error: Option<String>,
    /// The records that came too late for their window: dropped, passed to `late_to`, or sent to the stream of
    /// `split_late`.
    #[serde(default)]
    pub late: u64,
    /// The windows of all keys that were open when a signal or the time limit ended the job, and were dropped: see
    /// [`OnSignal`](crate::OnSignal).
    #[serde(default)]
    pub dropped_windows: u64,
    /// The number of its chain. Operators of one chain share one thread per replica, and so share the three times
    /// below.
    pub chain: usize,
    /// How long its chain worked, summed over replicas.
    pub busy: Duration,
    /// How long its chain waited for room downstream, summed over replicas.
    pub blocked: Duration,
    /// The limit that held its chain back for most of that time; `None` if it did not wait.
    #[serde(default)]
    pub blocked_by: Option<BlockedBy>,
    /// How long its chain waited for records or was paused, summed over replicas.
    pub idle: Duration,
    /// The functions that it runs one after the other, if there are several, as in the Python package. Empty if it has
    /// none to show.
    #[serde(default)]
    pub functions: Vec<FunctionReport>,
}

/// The figures of one function, if several run as one operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// The records it took; `None` if unknown, because nothing is counted between two such functions.
    pub records_in: Option<u64>,
    /// The records it returned; `None` if unknown.
    pub records_out: Option<u64>,
}

/// A process in which functions of an operator ran, as in the Python package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The operator.
    pub operator: String,
    /// Which of its replicas.
    pub replica: usize,
    /// The process, and the machine it ran on.
    pub pid: u32,
    /// The machine's name; empty for the one of the job.
    pub node: String,
    /// What ends it, and what it has started, when the job's process is killed: `subreaper` for a process of the job's
    /// that adopts what workers leave, `ray` for the cluster.
    pub guard: String,
    /// The time it has used of processors.
    pub cpu: Duration,
    /// The most memory it had at a time, in bytes.
    pub peak_bytes: u64,
    /// How it ended, in words.
    pub end: String,
}

/// How long each phase of a job took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// How long services and tasks took to start.
    pub start: Duration,
    /// From the start of the tasks to the end of the last, or to the drain or cancel.
    pub run: Duration,
    /// From the drain or cancel to the end of the last task.
    pub drain: Duration,
    /// How long services took to stop and clean up.
    pub stop: Duration,
}

/// Everything about a job that is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobReport {
    /// The job's id, unique on this machine.
    pub job: String,
    /// The environment's name.
    pub environment: String,
    /// How the job ended.
    pub outcome: Outcome,
    /// Whether anything is left.
    pub cleanliness: Cleanliness,
    /// The parts that are left, by name; empty when clean.
    pub left: Vec<Leftover>,
    /// Notes of its operators and sinks, see [`CloseContext::note`](crate::CloseContext::note): for example which file
    /// holds a sink's records after a signal ended the job.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why it ended.
    pub reason: StopReason,
    /// The first cause of its end, if that was not the end of its input.
    pub first_cause: Option<Cause>,
    /// Everything else that went wrong, in the order in which the engine noticed it.
    pub attached: Vec<Cause>,
    /// When it started.
    pub started: SystemTime,
    /// How long the job took, from submission to the end of the last cleanup.
    pub elapsed: Duration,
    /// How long its phases took.
    pub phases: PhaseTimes,
    /// The records that were read but not finished, because a failure, a cancel or a deadline dropped them. Zero if the
    /// job succeeded.
    #[serde(default)]
    pub dropped: u64,
    /// Its operators, chain by chain, in the order in which records pass them.
    pub operators: Vec<OperatorReport>,
    /// Its services, in the order of their registration.
    pub services: Vec<ServiceReport>,
    /// The processes in which its functions ran, if they did not run in this one.
    #[serde(default)]
    pub workers: Vec<WorkerReport>,
}

impl JobReport {
    /// Whether the job succeeded and left nothing behind. Only then `run` and `wait` return no error.
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Succeeded && self.cleanliness == Cleanliness::Clean
    }

    /// Returns the report of the operator with this name.
    pub fn operator(&self, name: &str) -> Option<&OperatorReport> {
        self.operators.iter().find(|operator| operator.name == name)
    }

    /// Returns the report of the service with this name.
    pub fn service(&self, name: &str) -> Option<&ServiceReport> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The signal that ended the job, if one did. A program reports it to a shell with the exit code 128 plus this
    /// number.
    pub fn signal(&self) -> Option<i32> {
        match self.reason {
            StopReason::Signal(number) => Some(number),
            _ => None,
        }
    }
}

/// The figures of a job's operators and services so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobMetrics {
    /// The operators of the job, as in its [report](JobReport::operators). Their times are zero until the job is over.
    pub operators: Vec<OperatorReport>,
    /// The services of the job, as in its [report](JobReport::services).
    #[serde(default)]
    pub services: Vec<ServiceReport>,
    /// What its tasks are doing, in the order of the [graph](crate::JobGraph::tasks).
    #[serde(default)]
    pub tasks: Vec<TaskMetrics>,
    /// What waits between its chains, in the order of the [graph's edges](crate::JobGraph::edges).
    #[serde(default)]
    pub queues: Vec<QueueMetrics>,
}

/// The records that wait, or are being worked on, behind one exchange between two chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueueMetrics {
    /// The operator whose records they are.
    pub operator: String,
    /// The number of the chain that sends, from 1.
    pub from: usize,
    /// The number of the chain that receives, from 1.
    pub to: usize,
    /// How many they are: exact while tasks wait for each other, and else up to a few batches off.
    pub records: u64,
    /// How many bytes they have, as the sender last knew; zero where records are not weighed.
    pub bytes: u64,
}

/// What a task is doing at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskMetrics {
    /// Its name, that of a [`GraphTask`](crate::GraphTask).
    pub name: String,
    /// The number of its chain, from 1.
    pub chain: usize,
    /// What it is doing.
    pub doing: Doing,
    /// For how long. A wait for less than some microseconds is not told.
    pub since: Duration,
    /// The limit that holds it back, while it is [blocked](Doing::Blocked).
    pub blocked_by: Option<BlockedBy>,
    /// How long it has worked since it was started.
    #[serde(default)]
    pub busy: Duration,
    /// How long it has waited for room downstream.
    #[serde(default)]
    pub blocked: Duration,
    /// How long it has waited for records, or was paused.
    #[serde(default)]
    pub idle: Duration,
}

impl JobMetrics {
    /// Returns the figures of the operator with this name.
    pub fn operator(&self, name: &str) -> Option<&OperatorReport> {
        self.operators.iter().find(|operator| operator.name == name)
    }

    /// The figures of the service of this name.
    pub fn service(&self, name: &str) -> Option<&ServiceReport> {
        self.services.iter().find(|service| service.name == name)
    }
}
