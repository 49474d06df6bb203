//! Dataflow pipelines whose operators call managed services, with a shutdown that leaves nothing behind.
//!
//! A program declares an [`Environment`] with services and streams and runs it. When [`Environment::run`] returns,
//! every task and every service is stopped and cleaned, once, in order, whatever went wrong. If something could not be
//! stopped or cleaned, the error names it.
//!
//! ```
//! use sage::{Environment, Service};
//!
//! struct Greeter;
//!
//! impl Greeter {
//!     fn greet(&self, name: &str) -> String {
//!         format!("Hello, {name}!")
//!     }
//! }
//!
//! impl Service for Greeter {}
//!
//! let env = Environment::local("greetings");
//! let greeter = env.register_service("greeter", || Greeter).build();
//! let greetings = env
//!     .from_iter(["Ada", "Grace"])
//!     .try_map(move |name| greeter.call(|greeter| greeter.greet(name)))
//!     .collect();
//! let report = env.run()?;
//! assert_eq!(greetings.take(), ["Hello, Ada!", "Hello, Grace!"]);
//! println!("{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The engine runs on Linux.
//!
//! Where to go from here: [`Stream`] for the operators, [`Service`] and [`ServiceHandle`] for services, [`JobHandle`]
//! for jobs in the background, [`JobReport`] for the result of a run, and [`Source`], [`Operator`] and [`Sink`] to
//! write your own.

#[cfg(not(target_os = "linux"))]
compile_error!("sage runs on Linux only: its signal handling and its checks of what is left use Linux interfaces");

mod backend;
mod bell;
mod between;
mod chain;
mod clock;
mod control;
mod environment;
mod error;
mod exchange;
mod graph;
mod guarded;
mod ids;
mod job;
mod key;
mod metrics;
mod operator;
mod retry;
mod runtime;
mod service;
mod sink;
mod source;
mod stream;
mod submit_error;
mod summand;
mod sync;
mod table;
mod task;
pub mod testing;
mod thread;
mod time;

pub use chain::{
    BudgetExceeded, Cancelling, CloseContext, DeadLetter, Emit, ErrorPolicy, Fault, FinishContext, JobBell, LeftBehind,
    OpenContext, Operator, Stop,
};
pub use clock::Clock;
pub use control::{StopReason, WorksFor};
pub use environment::{Environment, PipelineBuilder};
pub use error::{AtRecord, Fatal, WhileOpening};
pub use exchange::{FeedbackError, Partitioning};
pub use graph::{Explain, GraphChain, GraphEdge, GraphOperator, GraphService, GraphTask, JobGraph, Placement};
#[doc(hidden)]
pub use guarded::chain_of;
pub use ids::NodeId;
pub use job::{
    Cause, CauseKind, Changes, Cleanliness, Deadlines, FunctionReport, JobError, JobHandle, JobMetrics, JobReport,
    JobState, JobView, Leftover, OperatorReport, Origin, Outcome, PhaseTimes, PreparedJob, QueueMetrics, RunError,
    SignalPolicy, SignalWatch, StateChange, TaskMetrics, TaskState, Transition, WorkerReport,
};
pub use key::{Key, KeySelector};
pub use metrics::{BlockedBy, Doing};
pub use operator::{
    Aggregate, FoldFunction, In2, In3, In4, In5, JoinError, KeyContext, LateRecords, OnSignal, OpenWindows, Output,
    ProcessFunction, Round, Timer, ZipError,
};
pub use retry::{RetriesExhausted, Retry};
#[doc(hidden)]
pub use service::Serves;
pub use service::with_deadline;
pub use service::{Asked, Asker, PipelineReport, Unanswered};
pub use service::{
    AsyncService, Batch, Batching, BegunCall, Cache, CacheFigures, CallError, CallPolicy, Called, Calling, Codec,
    Dependency, FlightFigures, FullDisk, Hook, HookContext, HookEnded, Journal, JournalFigures, Keep, KeptFigures,
    MadeAgain, Method, MethodBuilder, OngoingCall, Policy, PolicyReport, PolicyService, PolicyServiceBuilder, Refusal,
    Service, ServiceBuilder, ServiceError, ServiceHandle, ServiceRef, ServiceReport, ServiceState, StoreError, Verdict,
    WhenInUse, WrongCount,
};
pub use service::{Breaker, BreakerFigures, BreakerState, RetryBudget, RetryFigures};
pub use service::{Concurrency, ConcurrencyFigures, Rate, RateFigures, Spend, Tally, TallyFigures, Usage};
pub use sink::{Collected, Sink, WriteError};
pub use source::{ChannelReceiver, Line, Next, ReadError, Source, SourceContext};
pub use stream::pipe::{ParallelStep, Pipe, Step, WindowStep};
pub use stream::{
    Aligned, BroadcastStream, ByClock, ByClockTime, ByEventTime, ConnectedStreams, DataStream, EventWindows,
    ExpiringStream, Feedback, InEventTime, JoinedStreams, KeyedStream, Requests, SinkHandle, Stream, WindowedJoin,
    WindowedStream, Windowing, WindowsOf,
};
pub use submit_error::{LogError, SubmitError};
pub use summand::Number;
pub use task::{AsyncError, AsyncFunction, Order};
#[doc(hidden)]
pub use task::{excuse, excused};
pub use thread::OsThread;
pub use time::{Count, OutOfOrder, Session, Sliding, Timed, Timestamp, Tumbling, Window, Windowed};

/// Any error; operators, sinks and services return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any error, shared between a report and its copies.
pub type SharedError = std::sync::Arc<dyn std::error::Error + Send + Sync>;

/// The examples of the READMEs and of the guide are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../../../docs/guide.md")]
#[doc = include_str!("../../../docs/recipes-rust.md")]
struct Readme;
