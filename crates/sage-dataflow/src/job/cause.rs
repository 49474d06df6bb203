//! Why a job ended, and what went wrong while it did: where each cause arose, and of what kind it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::SharedError;
use crate::guarded::What;
use crate::service::{Hook, HookFailure, ServiceEntry};

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
    /// One without an error of the user's.
    pub(super) fn new(origin: Origin, kind: CauseKind, message: String) -> Self {
        Self { origin, kind, message, error: None }
    }

    /// A deadline passed.
    pub(super) fn timeout(origin: Origin, message: String) -> Self {
        Self::new(origin, CauseKind::Timeout, message)
    }

    /// User code failed.
    pub(super) fn of(origin: Origin, what: &What) -> Self {
        match what {
            What::Error { error, text } => {
                Self { origin, kind: CauseKind::Error, message: text.clone(), error: Some(error.clone()) }
            }
            What::Panic(message) => Self::new(origin, CauseKind::Panic, message.clone()),
        }
    }

    /// A hook of a service failed.
    pub(super) fn of_hook(entry: &ServiceEntry, failure: &HookFailure) -> Self {
        let cause = Self::of(Origin::Service { name: entry.name.clone(), hook: failure.hook }, &failure.what);
        if failure.timed_out { Self { kind: CauseKind::Timeout, ..cause } } else { cause }
    }

    /// The origin, in words.
    pub fn place(&self) -> impl fmt::Display + '_ {
        OriginText(&self.origin)
    }
}

struct OriginText<'a>(&'a Origin);

impl fmt::Display for OriginText<'_> {
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
