//! Where things lie: the folders of a job manager and of its jobs.
//!
//! ```text
//! ~/.sage/                            or SAGE_HOME; 0700, like all folders in it
//!   jobmanager/<port>/
//!     token                           64 hexadecimal digits
//!     address.json                    `Address`: where the daemon listens, and which process it is
//!     lock                            locked by the daemon while it lives
//!     socket                          HTTP as well, for this user's processes
//!     records.sqlite
//!     numbers                         no job has a greater number
//!     jobs/<id>/                      of one job: see `JobFolder`
//!   logs/jobmanager/session_<time>/   the daemon's log, and those of the jobs' environments
//! ```
//!
//! Files are 0600. No part of a path is what a client has sent: ids of jobs are the daemon's.

use std::env;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The port of a job manager, if nobody says another.
pub const DEFAULT_PORT: u16 = 19001;

/// The folder of everything that belongs to a user.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// `SAGE_HOME`, or `.sage` in the user's folder; `None` if neither is known.
    pub fn find() -> Option<Self> {
        let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        given("SAGE_HOME").or_else(|| Some(given("HOME")?.join(".sage"))).map(Self)
    }

    /// The folder at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of the job manager that was started with this port.
    pub fn manager(&self, port: u16) -> ManagerFolder {
        ManagerFolder(self.0.join("jobmanager").join(port.to_string()))
    }

    /// The folder of the log files of sessions of job managers.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs").join("jobmanager")
    }
}

/// The folder of one job manager.
#[derive(Debug, Clone)]
pub struct ManagerFolder(PathBuf);

impl ManagerFolder {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of the token, which whoever asks the daemon must show.
    pub fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    /// The file with an [`Address`], there while a daemon lives, and after one that was killed.
    pub fn address(&self) -> PathBuf {
        self.0.join("address.json")
    }

    /// The file that the daemon locks.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The socket of the daemon.
    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// The records of the jobs.
    pub fn records(&self) -> PathBuf {
        self.0.join("records.sqlite")
    }

    /// The file with a number that no job's is greater than, for when the records are made anew.
    pub fn numbers(&self) -> PathBuf {
        self.0.join("numbers")
    }

    /// The folder with a folder for each job.
    pub fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    /// The folder of the job of this id, which is one that the daemon has given.
    pub fn job(&self, id: &str) -> JobFolder {
        JobFolder::at(self.jobs().join(id))
    }
}

/// Where a daemon listens: the content of `address.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Where it listens for HTTP, such as `127.0.0.1:19001`.
    pub http: String,
    /// Its process.
    pub pid: u32,
    /// When it was started, as in `session_<time>`.
    pub session: String,
    /// Its version.
    pub version: String,
}

/// The folder of one job.
#[derive(Debug, Clone)]
pub struct JobFolder(PathBuf);

impl JobFolder {
    /// The folder at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What was submitted, a [`JobSpec`](crate::job::JobSpec): written by the daemon before it starts anything.
    pub fn spec(&self) -> PathBuf {
        self.0.join("job.json")
    }

    /// The pickled environment, if it is a job of one.
    pub fn payload(&self) -> PathBuf {
        self.0.join("payload")
    }

    /// Where the reaper listens.
    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// There once the daemon has tried to start the reaper: a job without it was never started. Written by the daemon.
    pub fn starting(&self) -> PathBuf {
        self.0.join("starting")
    }

    /// What the reaper itself says on its standard error.
    pub fn reaper_log(&self) -> PathBuf {
        self.0.join("reaper.log")
    }

    /// The files of the run before this many restarts, once the job was started anew.
    pub fn earlier(&self, restart_count: u32) -> PathBuf {
        self.0.join(format!("earlier-{restart_count}"))
    }

    /// Which process the reaper is, a [`ReaperIs`](crate::outcome::ReaperIs): written by it before it starts the
    /// program.
    pub fn reaper(&self) -> PathBuf {
        self.0.join("reaper.json")
    }

    /// What the program's jobs told, a [`FromEngine`](crate::message::FromEngine) a line: written by the reaper.
    pub fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    /// The part of the program's output that begins at this byte of it: written by the reaper. The names of the parts
    /// sort as the parts do.
    pub fn output(&self, start: u64) -> PathBuf {
        self.0.join(format!("output-{start:016}.log"))
    }

    /// What is to be cleaned outside of the program: a [`Cleanup`](crate::message::Cleanup) or the number of one that
    /// is done a line, written by the reaper.
    pub fn cleanups(&self) -> PathBuf {
        self.0.join("cleanups.jsonl")
    }

    /// What has become of the program, a [`ProgramEnd`](crate::outcome::ProgramEnd): written by the reaper, and on the
    /// disk before it ends. The daemon writes it for a job that was never started, and for one whose reaper and warden
    /// are both gone without having written it.
    pub fn outcome(&self) -> PathBuf {
        self.0.join("outcome.json")
    }
}
