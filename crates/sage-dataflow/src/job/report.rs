//! [`JobReport`]: everything about a job that is over.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::SharedError;
use crate::control::StopReason;
use crate::metrics::BlockedBy;
use crate::service::{Hook, ServiceState};

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

/// A part of the job that is left behind, or may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The task or service it belongs to, for example ``service `db` ``.
    pub what: String,
    /// Why it is left.
    pub why: String,
}

/// Where something went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// In a source, an operator or a sink.
    Operator {
        /// Its name.
        name: String,
        /// Which replica of its chain, from 0.
        replica: usize,
        /// How many replicas its chain has.
        #[serde(default)]
        parallelism: usize,
        /// The number of the record in its chain's input, from 1; `None` if no record was being processed.
        record: Option<u64>,
        /// Its phase if no record was being processed: opening, finishing or closing.
        phase: Option<String>,
    },
    /// In a hook of a service.
    Service {
        /// Its name.
        name: String,
        /// The hook.
        hook: Hook,
    },
    /// In a task, at an unknown place in its chain.
    Task {
        /// Its name.
        name: String,
        /// Which replica of its chain, from 0.
        replica: usize,
    },
    /// In the job as a whole: a signal, a limit or a command.
    Job,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CauseKind {
    /// User code returned an error.
    Error,
    /// User code panicked.
    Panic,
    /// A deadline passed.
    Timeout,
    /// A thread could not be started.
    Spawn,
    /// The job was stopped from outside.
    Stopped,
}

/// One reason for the end of the job, or one thing that went wrong while it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cause {
    /// Where it arose.
    pub origin: Origin,
    /// What kind it is.
    pub kind: CauseKind,
    /// The error and its sources, the panic's message, or the engine's description.
    pub message: String,
    /// The user's own error, to downcast. It is not serialised.
    #[serde(skip)]
    pub error: Option<SharedError>,
}

impl Cause {
    /// The origin, in words.
    pub fn place(&self) -> impl fmt::Display + '_ {
        Place(&self.origin)
    }
}

struct Place<'a>(&'a Origin);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Origin::Operator { name, replica, parallelism, record, phase } => {
                write!(f, "operator `{}`", Short(name, LINE_CHARS))?;
                if *parallelism > 1 {
                    write!(f, " (replica {replica} of {parallelism}, counted from 0)")?;
                }
                match (record, phase) {
                    (Some(record), _) => write!(f, ", record {record}"),
                    (None, Some(phase)) => write!(f, ", while {phase}"),
                    (None, None) => Ok(()),
                }
            }
            Origin::Service { name, hook } => {
                write!(f, "service `{}`, in its {hook}", Short(name, LINE_CHARS))
            }
            Origin::Task { name, .. } => write!(f, "task `{}`", Short(name, LINE_CHARS)),
            Origin::Job => f.write_str("the job"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.kind) {
            (Origin::Job, _) => f.write_str(&self.message),
            (_, CauseKind::Panic) => write!(f, "{}: panicked: {}", self.place(), self.message),
            _ => write!(f, "{}: {}", self.place(), self.message),
        }
    }
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
    /// The first error that did not fail the job, of one of its replicas.
    pub first_error: Option<String>,
    /// The records that came too late for their window: dropped, passed to `late_to`, or sent to the stream of
    /// `split_late`.
    #[serde(default)]
    pub late: u64,
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

/// The figures of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Its state at the end; [`ServiceState::Registered`] if it was never started.
    pub state: ServiceState,
    /// The calls it took.
    pub calls: u64,
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

/// A chain that was blocked this long gets the reason in its row.
const TOLD_BLOCKED: Duration = Duration::from_millis(1);

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = match self.cleanliness {
            Cleanliness::Clean => "clean",
            Cleanliness::Unclean => "NOT clean",
        };
        writeln!(
            f,
            "job `{}` {} and is {clean}, after {:.1?} ({})",
            Short(&self.environment, LINE_CHARS),
            self.outcome,
            self.elapsed,
            self.reason
        )?;
        if let Some(cause) = &self.first_cause {
            writeln!(f, "  cause: {cause}")?;
        }
        for cause in &self.attached {
            writeln!(f, "  also:  {cause}")?;
        }
        for left in &self.left {
            writeln!(f, "  left:  {}: {}", Short(&left.what, LINE_CHARS), left.why)?;
        }
        for note in &self.notes {
            writeln!(f, "  note:  {note}")?;
        }
        let length = |operator: &OperatorReport| operator.name.chars().take(TABLE_CHARS).count();
        let width = self.operators.iter().map(length).max().unwrap_or(0).max(8);
        writeln!(
            f,
            "  {:width$}  {:>12} {:>12} {:>7} {:>9} {:>9} {:>9}",
            "operator", "in", "out", "failed", "busy", "blocked", "idle"
        )?;
        let mut chain = 0;
        for operator in &self.operators {
            write!(
                f,
                "  {:width$}  {:>12} {:>12} {:>7}",
                Short(&operator.name, TABLE_CHARS).to_string(),
                operator.records_in,
                operator.records_out,
                operator.failed
            )?;
            // The operators of a chain share a thread, and its times.
            if std::mem::replace(&mut chain, operator.chain) != operator.chain {
                for time in [operator.busy, operator.blocked, operator.idle] {
                    write!(f, " {:>9}", format!("{time:.1?}"))?;
                }
                if let Some(bound) = operator.blocked_by.filter(|_| operator.blocked >= TOLD_BLOCKED) {
                    write!(f, "  blocked by {bound}")?;
                }
            }
            if operator.late > 0 {
                write!(f, "  {} late", operator.late)?;
            }
            writeln!(f)?;
            for FunctionReport { name, records_in, records_out } in &operator.functions {
                let name = format!("  {}", Short(name, TABLE_CHARS));
                let [taken, given] = [records_in, records_out].map(|count| count.map_or("?".into(), |n| n.to_string()));
                writeln!(f, "  {name:width$}  {taken:>12} {given:>12}")?;
            }
        }
        if self.dropped > 0 {
            writeln!(f, "  dropped: {} that had been read", Count(self.dropped, "record"))?;
        }
        for operator in &self.operators {
            let name = Short(&operator.name, LINE_CHARS);
            if operator.retries > 0 {
                writeln!(f, "  {name}: retried {}", Count(operator.retries, "time"))?;
            }
            if let Some(error) = &operator.first_error {
                writeln!(f, "  {name}: first error that the policy let pass: {error}")?;
            }
        }
        for service in &self.services {
            let name = Short(&service.name, LINE_CHARS);
            write!(f, "  service {name}: {}, {}", service.state, Count(service.calls, "call"))?;
            if service.errors > 0 {
                write!(f, ", {}", Count(service.errors, "error"))?;
            }
            if let (Some(p50), Some(p99)) = (service.p50, service.p99) {
                write!(f, ", p50 {p50:.1?}, p99 {p99:.1?}")?;
            }
            if let Some(setup) = service.setup {
                write!(f, ", setup {setup:.1?}")?;
            }
            if let Some(cleanup) = service.cleanup {
                write!(f, ", cleanup {cleanup:.1?}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// How much of a name a table shows. A longer one makes the table no wider; the report's data has all of it.
const TABLE_CHARS: usize = 60;
/// How much of a name a line of text shows.
pub(super) const LINE_CHARS: usize = 200;

/// A name, cut where it is longer than so many characters.
pub(super) struct Short<'a>(pub(super) &'a str, pub(super) usize);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, most) = *self;
        match name.char_indices().nth(most) {
            None => f.write_str(name),
            Some(_) => {
                let (end, _) = name.char_indices().nth(most - 1).expect("there are more than that");
                write!(f, "{}…", &name[..end])
            }
        }
    }
}

/// A number of things, in words.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// The figures of a running job's operators so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMetrics {
    /// The operators of the job. Their times are zero until the job is over.
    pub operators: Vec<OperatorReport>,
}

impl JobMetrics {
    /// Returns the figures of the operator with this name.
    pub fn operator(&self, name: &str) -> Option<&OperatorReport> {
        self.operators.iter().find(|operator| operator.name == name)
    }
}
