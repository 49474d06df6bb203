//! The requests and answers of the job manager's HTTP interface, under `/api/v1`, that are not a job of [`job`].
//!
//! A client shows the token (`Authorization: Bearer <token>`). What goes wrong is answered with a [`Refusal`]. Times are
//! in milliseconds since 1970.
//!
//! [`job`]: crate::job

use std::collections::BTreeMap;
use std::path::PathBuf;

use sage::{JobGraph, JobReport, JobState, Outcome};
use serde::{Deserialize, Serialize};

use crate::job::{JobRecord, JobSpec, State};
use crate::message::{Event, Figures};
use crate::outcome::{ProgramEnd, ReaperIs};

/// The longest body of `POST /jobs`, in bytes.
pub const MOST_BYTES_OF_A_JOB: usize = 64 << 20;

/// The longest body of any other request, in bytes.
pub const MOST_BYTES_OF_A_REQUEST: usize = 64 << 10;

/// The most bytes of an output or a log file that one answer has.
pub const MOST_BYTES_OF_A_PIECE: u64 = 1 << 20;

/// The most jobs that one answer lists.
pub const MOST_JOBS: u32 = 1000;

/// How many jobs are listed, if nobody says how many.
pub const USUAL_JOBS: u32 = 100;

/// The most events that one answer has.
pub const MOST_EVENTS: usize = 10_000;

/// The shortest prefix of an id that names a job.
pub const SHORTEST_PREFIX: usize = 4;

/// The header that says where a piece of a file begins, in bytes.
pub const FROM_HEADER: &str = "x-sage-from";

/// The header that says where the next piece of a file begins.
pub const NEXT_HEADER: &str = "x-sage-next";

/// The header that says how long the file is.
pub const LENGTH_HEADER: &str = "x-sage-length";

/// The header with the token that forms and scripts of a page send back.
pub const CSRF_HEADER: &str = "x-csrf-token";

/// The cookie of a browser's session.
pub const SESSION_COOKIE: &str = "sage_session";

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong, where, and what to do.
    pub error: String,
    /// A word for programs, such as `not_found`.
    pub code: String,
}

/// Some of the jobs, the newest first: the answer of `GET /jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// How many there are, with those that other pages list.
    pub total: u64,
    /// What `before` has to be for the next page; `None` on the last one.
    pub next: Option<u64>,
}

/// All that is known of a job: the answer of `GET /jobs/{job}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDetail {
    /// The job as it is now.
    pub record: JobRecord,
    /// What was submitted.
    pub spec: JobSpec,
    /// Its reaper, once it is started.
    pub reaper: Option<ReaperIs>,
    /// What has become of it, once it is over.
    pub outcome: Option<ProgramEnd>,
    /// The jobs of the engine that have begun in its program, in that order.
    pub engine_jobs: Vec<EngineJob>,
}

/// A job of the engine in the program of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineJob {
    /// Its id.
    pub id: String,
    /// The name of its environment.
    pub environment: String,
    /// What it is doing.
    pub state: JobState,
    /// When it began.
    pub begins_ms: u64,
    /// When it ended, or was gone.
    pub ended_ms: Option<u64>,
    /// How it ended; `None` while it runs, and if it is gone without a report.
    pub outcome: Option<Outcome>,
    /// Whether it left nothing behind, likewise.
    pub clean: Option<bool>,
}

/// Some of the events of a job: the answer of `GET /jobs/{job}/events`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventList {
    /// The events.
    pub events: Vec<Event>,
    /// What `after` has to be for those that follow.
    pub next: u64,
}

/// The answer of `GET /jobs/{job}/graph`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GraphList {
    /// One for each job of the engine.
    pub jobs: Vec<GraphOf>,
}

/// The graph of a job of the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GraphOf {
    /// Its id.
    pub id: String,
    /// Its graph.
    pub graph: JobGraph,
}

/// The answer of `GET /jobs/{job}/figures`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FiguresList {
    /// One for each job of the engine that runs and has answered.
    pub jobs: Vec<FiguresOf>,
}

/// The figures of a job of the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FiguresOf {
    /// Its id.
    pub id: String,
    /// Its figures.
    pub figures: Box<Figures>,
}

/// The answer of `GET /jobs/{job}/report`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportList {
    /// One for each job of the engine that has ended with a report, in that order.
    pub jobs: Vec<JobReport>,
}

/// The answer of `GET /jobs/{job}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogList {
    /// The log files of a job, by name.
    pub files: Vec<LogFile>,
}

/// A log file of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Its path in the job's log folder.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
}

/// How long the output of a job is: an `output` event of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputIs {
    /// In bytes, since its begin.
    pub output: u64,
}

/// A job that was deleted: a `deleted` event of the stream of all jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedJob {
    /// Its id.
    pub id: String,
}

/// The answer of `POST /cleanup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanedUp {
    /// How many jobs were deleted.
    pub deleted: u64,
}

/// The answer of `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The daemon's version.
    pub version: String,
    /// When it was started, as in `session_<time>`.
    pub session: String,
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub started_ms: u64,
    /// Where it listens for HTTP.
    pub http: String,
    /// The folder of this session's log files.
    pub log_folder: PathBuf,
    /// How many jobs there are in each state, but those in which there is none.
    pub jobs: BTreeMap<String, u64>,
    /// Its queue.
    pub queue: QueueInfo,
}

impl Info {
    /// How many jobs are in this state.
    pub fn jobs_in(&self, state: State) -> u64 {
        self.jobs.get(state.word()).copied().unwrap_or_default()
    }
}

/// The queue of a job manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    /// How many jobs run at once at most.
    pub limit: u64,
    /// How many run.
    pub running: u64,
    /// How many wait.
    pub queued: u64,
}

/// The answer of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `healthy`.
    pub status: String,
    /// What time it is.
    pub timestamp_ms: u64,
    /// How many jobs there are.
    pub jobs_count: u64,
}

/// The answer of `POST /token/rotate`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// The token that is now to be shown.
    pub token: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").finish_non_exhaustive()
    }
}

/// The answer of `POST /login-link`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginLink {
    /// What a browser opens, one time, within ten minutes.
    pub url: String,
}

impl std::fmt::Debug for LoginLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginLink").finish_non_exhaustive()
    }
}

/// The body of `POST /shutdown`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// What becomes of the jobs.
    #[serde(default)]
    pub jobs: JobsThen,
}

/// What becomes of the jobs when the job manager ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobsThen {
    /// They go on, and the next job manager of this folder adopts them.
    #[default]
    Leave,
    /// Those that run are drained, those that wait are cancelled; the job manager ends when all are over.
    Drain,
    /// All are cancelled; the job manager ends when all are over.
    Cancel,
}
