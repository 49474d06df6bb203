//! Why a job did not start. Every room that finds a reason uses this file; it uses none of them.

use std::io;
use std::path::PathBuf;

/// Why a job did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No stream was declared.
    #[error("the environment has no pipeline; declare one with a source, for example `env.from_iter(..)`")]
    Empty,
    /// A stream does not end in a sink.
    #[error("the stream after `{operator}` has no sink; end it with `.sink(..)` or `.collect()`")]
    MissingSink {
        /// The last operator of the stream.
        operator: String,
    },
    /// An operator was given a parallelism of 0. The most is 65,536; a larger number is an
    /// [`OperatorOption`](Self::OperatorOption).
    #[error("operator `{operator}` has a parallelism of 0; it needs at least 1")]
    ZeroParallelism {
        /// The first operator of the chain.
        operator: String,
    },
    /// Two operators have the same name.
    #[error("two operators are named `{name}`; names are unique in an environment")]
    DuplicateOperator {
        /// The name.
        name: String,
    },
    /// Two services have the same name.
    #[error("two services are named `{name}`; names are unique in an environment")]
    DuplicateService {
        /// The name.
        name: String,
    },
    /// A service has a policy that cannot be.
    #[error("service `{service}`: {message}")]
    ServicePolicy {
        /// The service.
        service: String,
        /// What is wrong with it.
        message: String,
    },
    /// A service is declared to come after a service that does not exist.
    #[error("service `{service}` is declared after `{dependency}`, which is not registered")]
    UnknownDependency {
        /// The service.
        service: String,
        /// The name of the service that does not exist.
        dependency: String,
    },
    /// Services wait for each other.
    #[error("services wait for each other: {}", cycle.join(" → "))]
    DependencyCycle {
        /// The services of the cycle, each declared after the next. The first is named again at the end.
        cycle: Vec<String>,
    },
    /// The environment's last job has not ended.
    #[error("environment `{environment}` is running a job; wait for it first")]
    AlreadyRunning {
        /// The environment.
        environment: String,
    },
    /// A task or service of an earlier job was abandoned and may still be running.
    #[error(
        "environment `{environment}` still has something running from an earlier job ({left}); \
         declare a new environment"
    )]
    LeftBehind {
        /// The environment.
        environment: String,
        /// What is left.
        left: String,
    },
    /// A source can be read once, and an earlier job has read it.
    #[error(
        "source `{source_name}` can be read only once and an earlier job has read it; \
         use `from_factory` or `from_collection` to run again"
    )]
    SourceConsumed {
        /// The source.
        source_name: String,
    },
    /// Async code called `run`, which would block its thread. In `spawn_blocking` and `block_in_place`, `run` works.
    #[error(
        "`run` would block the async runtime it is called in; use `run_async().await`, or call it in `spawn_blocking`"
    )]
    InsideRuntime,
    /// A stream of another environment was brought together with a stream of this one.
    #[error("a stream of another environment comes in at `{operator}`; declare both streams in one environment")]
    ForeignStream {
        /// The operator that takes both streams, or the last one before a union.
        operator: String,
    },
    /// An option of an operator has an impossible value.
    #[error("`{operator}`: {message}")]
    OperatorOption {
        /// The operator.
        operator: String,
        /// What is wrong, and the values it may have.
        message: String,
    },
    /// `named` stands where there is no operator.
    #[error("`.named(\"{name}\")` stands after an exchange, which has no name; put it after an operator")]
    NothingToName {
        /// The name.
        name: String,
    },
    /// A factory of sources, operators or sinks panicked, or the `Clone` of one of their functions did.
    #[error("`{operator}` could not be built: its factory, or the `Clone` of its function, panicked: {message}")]
    Factory {
        /// The source, operator or sink.
        operator: String,
        /// The message of the panic.
        message: String,
    },
    /// The log files could not be opened.
    #[error(transparent)]
    LogFiles(#[from] LogError),
    /// The system could not start a thread.
    #[error("the job's threads could not be started")]
    Threads(#[source] std::io::Error),
    /// The system does not allow so many threads. Each replica of an operator that begins a chain runs on its own
    /// thread.
    #[error(
        "the job needs {threads} threads, and `{limit}` leaves room for {room}; \
         give operators fewer replicas, or raise that limit"
    )]
    TooManyThreads {
        /// How many threads the job needs at once.
        threads: usize,
        /// The limit that allows the fewest threads: its name, or the system's file for it.
        limit: String,
        /// How many more threads that limit allows.
        room: u64,
    },
    /// An option is out of its range.
    #[error("{option} is {value}; {range}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: usize,
        /// The values it may have.
        range: &'static str,
    },
}

/// Why the log files could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write log files in {}; choose another directory", path.display())]
pub struct LogError {
    /// The directory.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}
