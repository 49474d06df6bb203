//! Jobs as the job manager has them, and as they are submitted: the JSON of its HTTP interface.
//!
//! A job of the job manager is one run of a program, in which one or several jobs of the engine may run. Times are in
//! milliseconds since 1970.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a client asks for. What is printed for debugging has no values of variables, and no payload.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobRequest {
    /// The job's name, 1 to 200 characters. Not unique.
    pub name: String,
    /// What is to be run.
    pub program: Program,
    /// The folder that it is run in, as an absolute path.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub folder: PathBuf,
    /// Environment variables and their values, which are never written to a file. A variable that is not named here is
    /// not passed on, but for `PATH`, `HOME`, `USER`, `LOGNAME`, `LANG`, `LC_ALL`, `TZ` and `TMPDIR` as the daemon has
    /// them.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Whether the job ends by itself, as SAGE's `submit(autostop=True)` says. It is only shown.
    #[serde(default)]
    pub autostop: bool,
    /// What it may take.
    #[serde(default)]
    pub limits: Limits,
}

impl fmt::Debug for JobRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.keys().collect();
        f.debug_struct("JobRequest")
            .field("name", &self.name)
            .field("program", &self.program.without_payload())
            .field("folder", &self.folder)
            .field("variables", &names)
            .field("autostop", &self.autostop)
            .field("limits", &self.limits)
            .finish()
    }
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Program {
    /// A program or a Python file.
    File {
        /// Its absolute path, or one in the job's folder.
        #[cfg_attr(feature = "schema", schema(value_type = String))]
        path: PathBuf,
        /// Its arguments.
        #[serde(default)]
        arguments: Vec<String>,
        /// The interpreter, for a Python file: without it, that of the variable `VIRTUAL_ENV`, or `python3`.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        python: Option<PathBuf>,
    },
    /// An environment of the Python package.
    Environment {
        /// The interpreter, an absolute path.
        #[cfg_attr(feature = "schema", schema(value_type = String))]
        python: PathBuf,
        /// What only `python -m sage.worker --job` reads, in base64. Kept in a file of its own: absent in what is
        /// stored.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        payload: String,
    },
}

impl Program {
    /// The same without the payload, as it is stored and shown.
    pub fn without_payload(&self) -> Self {
        match self {
            Self::Environment { python, .. } => Self::Environment { python: python.clone(), payload: String::new() },
            file @ Self::File { .. } => file.clone(),
        }
    }
}

/// What a job may take. What is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Time of processors, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Time, in milliseconds. When it is over, the job is cancelled, and killed after [`AFTER_TIME`].
    pub time_ms: Option<u64>,
}

/// How long a job whose time is over may take to clean up.
pub const AFTER_TIME: Duration = Duration::from_secs(30);

/// What may be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Limit {
    /// See [`Limits::memory_bytes`].
    Memory,
    /// See [`Limits::processes`].
    Processes,
    /// See [`Limits::cpu_ms`].
    Cpu,
    /// See [`Limits::time_ms`].
    Time,
}

/// What the daemon keeps of a request: `job.json`. It has the names of the variables, and no values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobSpec {
    /// The job's id.
    pub id: String,
    /// Its number.
    pub number: u64,
    /// See [`JobRequest::name`].
    pub name: String,
    /// See [`JobRequest::program`].
    pub program: Program,
    /// See [`JobRequest::folder`].
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub folder: PathBuf,
    /// The names of the variables that were given.
    pub variables: Vec<String>,
    /// See [`JobRequest::autostop`].
    pub autostop: bool,
    /// See [`JobRequest::limits`].
    pub limits: Limits,
    /// When it was submitted.
    pub submitted_ms: u64,
    /// How often it was started anew.
    pub restart_count: u32,
    /// Where its environments write their log files.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub log_folder: PathBuf,
}

/// A job, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobRecord {
    /// Its id, a UUID.
    pub id: String,
    /// Its number: the first job of a job manager has 1, and no number is given twice.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// What it is doing, or how it ended.
    pub state: State,
    /// Whether it left nothing behind, once it is over.
    pub clean: Option<bool>,
    /// In a line, why it is not running, or did not succeed, or is not clean.
    pub why: Option<String>,
    /// What is run, as it would be typed.
    pub program: String,
    /// The folder that it is run in.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub folder: PathBuf,
    /// When it was submitted.
    pub submitted_ms: u64,
    /// When its program was started, the latest time.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// When anything of this changed.
    pub updated_ms: u64,
    /// How often it was started anew.
    pub restart_count: u32,
    /// See [`JobRequest::autostop`].
    pub autostop: bool,
    /// The exit code of `sage run`, once it is over.
    pub exit_code: Option<u8>,
}

/// What a job of the job manager is doing, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum State {
    /// It waits until fewer others run.
    Queued,
    /// Its program is being started, or has no job yet.
    Starting,
    /// It runs.
    Running,
    /// It reads nothing until it is resumed.
    Paused,
    /// It finishes what is in flight, or drops it.
    Draining,
    /// Its services are stopped and cleaned.
    Stopping,
    /// It did what it should.
    Succeeded,
    /// It failed.
    Failed,
    /// It was cancelled or killed, or a signal ended it.
    Cancelled,
    /// Its time was over.
    TimedOut,
    /// The process that watched it was killed, and nobody saw how it ended.
    Lost,
}

impl State {
    /// Whether it is over.
    pub fn is_over(self) -> bool {
        use State as S;
        matches!(self, S::Succeeded | S::Failed | S::Cancelled | S::TimedOut | S::Lost)
    }

    /// All there are.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Draining,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Lost,
    ];

    /// The state that this word is for.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// The word for it, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
        }
    }
}

/// The variables that a job is given as the daemon has them, unless it names them itself.
pub const PASSED_ON: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// The variable with the id of its job, in every process of a job.
pub const ID_VARIABLE: &str = "SAGE_JOB_ID";

/// So many milliseconds as people read them, such as `1h 2m 3s`; below ten seconds with a digit behind the point.
pub fn lasting(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0..10) => format!("{:.1}s", ms as f64 / 1000.0),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h {minutes}m {seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_printed_without_the_values_of_its_variables() {
        let text =
            r#"{"name": "a", "program": {"file": {"path": "/x"}}, "folder": "/", "variables": {"KEY": "secret"}}"#;
        let request: JobRequest = serde_json::from_str(text).unwrap();
        let printed = format!("{request:?} {request:#?}");
        assert!(printed.contains("KEY") && !printed.contains("secret"), "{printed}");
    }

    #[test]
    fn every_state_has_a_word_of_its_own_which_is_that_of_its_json() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
            assert_eq!(State::of_word(state.word()), Some(state));
        }
    }
}
