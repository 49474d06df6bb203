//! What has become of a program, and which process its reaper is.

use std::collections::BTreeMap;

use sage::{Cleanliness, Outcome};
use serde::{Deserialize, Serialize};

use crate::job::Limit;

/// What has become of a program: `outcome.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it left anything behind.
    pub cleanliness: Cleanliness,
    /// The exit code of `sage run`: 0 succeeded and clean, 1 failed, cancelled, timed out or lost, 2 not started,
    /// 3 unclean, 130 and 143 ended by SIGINT and SIGTERM.
    pub exit_code: u8,
    /// Why, in a line, if it did not succeed or is not clean.
    pub why: Option<String>,
    /// The processes that it left, and that were ended, by name.
    pub ended: Vec<String>,
    /// What is still there, by name: processes that could not be killed, and what the reports of its jobs name.
    pub left: Vec<String>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The most memory that a process of it has used, in bytes.
    pub peak_bytes: u64,
    /// How long its processes have used a processor, in milliseconds.
    pub cpu_ms: u64,
}

/// Which process a reaper is: `reaper.json`. A pid alone may be another process's by the time it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaperIs {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// Its warden, which ends the program if the reaper is killed.
    pub warden: Option<Process>,
    /// How the limits of the program are enforced.
    pub limits: BTreeMap<Limit, Enforced>,
}

/// A process, told apart from any other that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the system was: field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
    /// The system's run: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

/// How a limit is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    /// By a control group of the program's, for all its processes together.
    Cgroup,
    /// By a limit of each of its processes (`setrlimit`).
    EachProcess,
    /// By the reaper.
    Reaper,
    /// Not at all, and why.
    No(String),
}
