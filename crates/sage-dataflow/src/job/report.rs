//! What the caller is told when a job is over.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::SharedError;
use crate::control::StopReason;
use crate::metrics::BlockedBy;
use crate::service::{Hook, ServiceState};

/// How a job came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Every record reached its sink, or the caller asked for a drain and what was in flight did.
    Succeeded,
    /// User code failed, or a part of the job could not be started.
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

/// Whether anything of the job is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanliness {
    /// Nothing: no thread, no service, no handle the job opened.
    Clean,
    /// Something; [`JobReport::left`] says what.
    Unclean,
}

/// Something of the job that is left behind, or may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The task or service it belongs to, for example ``service `db` ``.
    pub what: String,
    /// Why it is left.
    pub why: String,
}

/// Where a cause arose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// In a source, operator or sink.
    Operator {
        /// Its name.
        name: String,
        /// Which replica of its chain, from 0.
        replica: usize,
        /// How many replicas its chain has.
        #[serde(default)]
        parallelism: usize,
        /// The record of its chain's input that was being processed, from 1; `None` outside records.
        record: Option<u64>,
        /// What it was doing when not processing a record: opening, finishing, closing.
        phase: Option<String>,
    },
    /// In a hook of a service.
    Service {
        /// Its name.
        name: String,
        /// The hook.
        hook: Hook,
    },
    /// In a task, at a place in its chain that cannot be told.
    Task {
        /// Its name.
        name: String,
        /// Which replica of its chain, from 0.
        replica: usize,
    },
    /// In the job as a whole: a signal, a limit, a command.
    Job,
}

/// What kind of thing went wrong.
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

/// One thing that ended the job or went wrong while it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cause {
    /// Where it arose.
    pub origin: Origin,
    /// What kind it is.
    pub kind: CauseKind,
    /// What happened: the error and its sources, the panic's message, or the engine's words.
    pub message: String,
    /// The user's own error, to be downcast; not serialised.
    #[serde(skip)]
    pub error: Option<SharedError>,
}

impl Cause {
    /// Where it arose, in words.
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

/// What one operator, source or sink did, over all its replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorReport {
    /// Its name.
    pub name: String,
    /// How many replicas it had.
    pub parallelism: usize,
    /// Records it took; those a source read.
    pub records_in: u64,
    /// Records it sent on; those a sink wrote.
    pub records_out: u64,
    /// Records it failed on: the one that failed the job, and those that an error policy or dead letters let pass.
    pub failed: u64,
    /// How often it was asked again for a record, under [`retry`](crate::Stream::retry).
    pub retries: u64,
    /// The first error of one of its replicas that did not fail the job.
    pub first_error: Option<String>,
    /// Records that came too late for their window and were dropped, handed to `late_to` or set apart by `split_late`.
    #[serde(default)]
    pub late: u64,
    /// The chain it ran in: operators of one chain share one thread per replica, and so the three times below.
    pub chain: usize,
    /// Time its chain worked, summed over replicas.
    pub busy: Duration,
    /// Time its chain waited for room downstream, summed over replicas.
    pub blocked: Duration,
    /// Which bound on what waits behind it held its chain back for most of that time; `None` if it did not wait.
    #[serde(default)]
    pub blocked_by: Option<BlockedBy>,
    /// Time its chain waited for records or was paused, summed over replicas.
    pub idle: Duration,
    /// The functions that it runs one after the other, where it is several: those of the Python package. Empty where
    /// nothing is known of them.
    #[serde(default)]
    pub functions: Vec<FunctionReport>,
}

/// What one of several functions that run as one operator did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// Records it took; `None` where that is not known, as between two such functions nothing is counted.
    pub records_in: Option<u64>,
    /// Records it gave; `None` likewise.
    pub records_out: Option<u64>,
}

/// What one service did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Its state at the end; [`ServiceState::Registered`] if it was never started.
    pub state: ServiceState,
    /// Calls that were let in.
    pub calls: u64,
    /// Calls that returned an error through `try_call`, or panicked.
    pub errors: u64,
    /// The median latency of the calls that were timed, one in 64.
    pub p50: Option<Duration>,
    /// The 99th percentile of the same.
    pub p99: Option<Duration>,
    /// How long its constructor and `setup` took.
    pub setup: Option<Duration>,
    /// How long `stop`, the last calls, `cleanup` and drop took.
    pub cleanup: Option<Duration>,
}

/// How long each phase of a job took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// Starting services and tasks.
    pub start: Duration,
    /// From the start of the tasks to the end of the last, or to the drain or cancel.
    pub run: Duration,
    /// From the drain or cancel to the end of the last task.
    pub drain: Duration,
    /// Stopping and cleaning services.
    pub stop: Duration,
}

/// Everything about a job that is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobReport {
    /// The job's id, unique on this machine.
    pub job: String,
    /// The environment's name.
    pub environment: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Whether anything is left.
    pub cleanliness: Cleanliness,
    /// What is left, by name; empty when clean.
    pub left: Vec<Leftover>,
    /// What its operators and sinks have to say besides, see [`CloseContext::note`](crate::CloseContext::note): for
    /// example which file has what a sink wrote before a signal ended the job.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why it ended.
    pub reason: StopReason,
    /// What first ended it, when that was not the end of its input.
    pub first_cause: Option<Cause>,
    /// What else went wrong, in the order in which it came to light.
    pub attached: Vec<Cause>,
    /// When it started.
    pub started: SystemTime,
    /// How long it took, from submission to the end of the last cleanup.
    pub elapsed: Duration,
    /// How long its phases took.
    pub phases: PhaseTimes,
    /// Records that were read and not finished: those that a failure, a cancel or a deadline dropped. Zero where it
    /// succeeded.
    #[serde(default)]
    pub dropped: u64,
    /// Its operators, chain by chain, each in the order of its records' way.
    pub operators: Vec<OperatorReport>,
    /// Its services, in the order in which they were registered.
    pub services: Vec<ServiceReport>,
}

impl JobReport {
    /// Whether the job succeeded and left nothing behind: the one case in which running it is not an error.
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Succeeded && self.cleanliness == Cleanliness::Clean
    }

    /// The report of the operator of this name.
    pub fn operator(&self, name: &str) -> Option<&OperatorReport> {
        self.operators.iter().find(|operator| operator.name == name)
    }

    /// The report of the service of this name.
    pub fn service(&self, name: &str) -> Option<&ServiceReport> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The signal that ended the job, if one did: 128 plus its number is the exit code that tells a shell so.
    pub fn signal(&self) -> Option<i32> {
        match self.reason {
            StopReason::Signal(number) => Some(number),
            _ => None,
        }
    }
}

/// From how long on the report says in words what blocked a chain.
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
                writeln!(f, "  {name}: asked again {}", Count(operator.retries, "time"))?;
            }
            if let Some(error) = &operator.first_error {
                writeln!(f, "  {name}: first of those that failed and were let pass: {error}")?;
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

/// What the operators of a running job have done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMetrics {
    /// Its operators; the times are zero until the job is over.
    pub operators: Vec<OperatorReport>,
}

impl JobMetrics {
    /// The figures of the operator of this name.
    pub fn operator(&self, name: &str) -> Option<&OperatorReport> {
        self.operators.iter().find(|operator| operator.name == name)
    }
}
