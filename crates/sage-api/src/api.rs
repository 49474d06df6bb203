//! What the HTTP interface answers, besides [jobs](crate::job).

use std::collections::BTreeMap;

use sage::{JobGraph, JobReport};
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
pub const MOST_JOBS: u64 = 1000;

/// How many jobs are listed, if nobody says how many.
pub const USUAL_JOBS: u64 = 100;

/// The most events that one answer has.
pub const MOST_EVENTS: u64 = 10_000;

/// The shortest prefix of an id that names a job.
pub const SHORTEST_PREFIX: usize = 4;

/// The header that says where a piece of a file begins, in bytes.
pub const FROM_HEADER: &str = "x-sage-from";

/// The header that says where the next piece of a file begins.
pub const NEXT_HEADER: &str = "x-sage-next";

/// The header that says how long the file is.
pub const LENGTH_HEADER: &str = "x-sage-length";

/// The header with the token that scripts of a page send back; forms have it in the field `csrf`.
pub const CSRF_HEADER: &str = "x-csrf-token";

/// The cookie of a browser's session.
pub const SESSION_COOKIE: &str = "sage_session";

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// In words: what, where, what next.
    pub error: String,
    /// In a word, such as `not_found`.
    pub code: String,
}

/// Some of the jobs, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobPage {
    /// These.
    pub jobs: Vec<JobRecord>,
    /// How many there are that fit what was asked for.
    pub total: u64,
    /// What `before` has to be for the next page; `None` for the last page.
    pub next: Option<u64>,
}

/// All about a job but its events, output and figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobDetail {
    /// As in the list.
    pub record: JobRecord,
    /// What was submitted.
    pub spec: JobSpec,
    /// Its reaper, once it was started.
    pub reaper: Option<ReaperIs>,
    /// What has become of it.
    pub outcome: Option<ProgramEnd>,
    /// The engine's jobs in its program, in the order in which they began.
    pub engine_jobs: Vec<EngineJob>,
}

/// A job of the engine in a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EngineJob {
    /// Its id.
    pub id: String,
    /// The name of its environment.
    pub environment: String,
    /// What it is doing, or how it ended.
    pub state: State,
    /// When it began.
    pub begun_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Whether it left nothing behind, once it is over.
    pub clean: Option<bool>,
}

/// Some of the events of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EventPage {
    /// These, in their order.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub events: Vec<Event>,
    /// What `after` has to be for those that come next.
    pub next: u64,
}

/// The graphs of a program's jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Graphs {
    /// In the order in which they began.
    pub jobs: Vec<GraphOf>,
}

/// The graph of a job of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GraphOf {
    /// The job's id.
    pub id: String,
    /// Its graph.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub graph: JobGraph,
}

/// The figures of a program's jobs that run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FiguresNow {
    /// In the order in which they began.
    pub jobs: Vec<FiguresOf>,
}

/// The figures of a job of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FiguresOf {
    /// The job's id.
    pub id: String,
    /// Its figures.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub figures: Figures,
}

/// The reports of a program's jobs that are over.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Reports {
    /// In the order in which they ended.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<Object>))]
    pub jobs: Vec<JobReport>,
}

/// The log files of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogFiles {
    /// By name.
    pub files: Vec<LogFile>,
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogFile {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// The job manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Info {
    /// Its version.
    pub version: String,
    /// When it was started, as in the name of its log folder.
    pub session: String,
    /// Its process.
    pub pid: u32,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Where it listens, such as `127.0.0.1:19001`.
    pub http: String,
    /// Where its log files lie.
    pub log_folder: String,
    /// How many jobs are in which state.
    pub jobs: BTreeMap<String, u64>,
    /// What waits.
    pub queue: Queue,
}

/// The queue of a job manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Queue {
    /// How many jobs may run at a time.
    pub limit: u64,
    /// How many do.
    pub running: u64,
    /// How many wait.
    pub queued: u64,
}

/// That a job manager works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Health {
    /// `healthy`.
    pub status: String,
    /// When it was asked, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// How many jobs it knows.
    pub jobs_count: u64,
}

/// How many jobs a cleanup has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Deleted {
    /// So many.
    pub deleted: u64,
}

/// The new token, after a rotation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// 64 hexadecimal digits.
    pub token: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewToken")
    }
}

/// A link that opens the page once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LoginLink {
    /// It is good for ten minutes.
    pub url: String,
}

/// How a job manager is to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Shutdown {
    /// What becomes of the jobs that run.
    #[serde(default)]
    pub jobs: Running,
}

/// What becomes of the jobs that run when their job manager ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Running {
    /// They go on, and the next job manager has them.
    #[default]
    Leave,
    /// They finish what is in flight, before it ends.
    Drain,
    /// They are cancelled, before it ends.
    Cancel,
}

/// What a stream of server-sent events tells: the name of the event is that of the variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", content = "data")]
pub enum Streamed {
    /// A job has changed, or is new.
    Record(Box<JobRecord>),
    /// A line of its events.
    Happened(Box<Event>),
    /// Its figures.
    Figures(FiguresNow),
    /// Its output has grown.
    Output {
        /// To so many bytes.
        output: u64,
    },
    /// It is over: the last of its stream.
    Over(Box<JobRecord>),
    /// A job was deleted.
    Deleted {
        /// Its id.
        id: String,
    },
}

impl From<State> for String {
    fn from(state: State) -> Self {
        state.word().to_owned()
    }
}
