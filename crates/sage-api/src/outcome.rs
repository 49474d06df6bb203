//! What has become of a program, and which process its reaper is.

use std::collections::BTreeMap;
use std::{fs, io};

use sage::{Cleanliness, Outcome};
use serde::{Deserialize, Serialize};

use crate::job::Limit;

/// What has become of a program: `outcome.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProgramEnd {
    /// How it ended.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub outcome: Outcome,
    /// Whether it left anything behind.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
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
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the system was: field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
    /// The system's run: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

impl Process {
    /// The process that has this number now.
    ///
    /// # Errors
    /// There is none, or the system does not say.
    pub fn of(pid: u32) -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        // The name in it may have any characters; what follows has fields 3 and up.
        let after_name = stat.iter().rposition(|byte| *byte == b')').map_or(0, |end| end + 1);
        let fields = String::from_utf8_lossy(&stat[after_name..]).into_owned();
        let start_ticks = fields.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok());
        let start_ticks = start_ticks.ok_or_else(|| io::Error::other("/proc says no start of the process"))?;
        Ok(Self { pid, start_ticks, boot })
    }
}

/// How a limit is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_by_its_start() {
        let me = Process::of(std::process::id()).unwrap();
        assert_eq!(Process::of(std::process::id()).unwrap(), me);
        assert!(me.start_ticks >= Process::of(1).unwrap().start_ticks);
        assert_eq!(Process::of(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
