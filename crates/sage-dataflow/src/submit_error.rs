//! Why a job was not started. Lies below all who find a reason.

use std::io;
use std::path::PathBuf;

/// Why a job was not started.
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
    /// An operator was given no replica. It may have 65536 at most; more is an
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
    /// A service is declared to come after one that does not exist.
    #[error("service `{service}` is declared after `{dependency}`, which is not registered")]
    UnknownDependency {
        /// The service.
        service: String,
        /// The name it gave.
        dependency: String,
    },
    /// Services wait for each other.
    #[error("services wait for each other: {}", cycle.join(" → "))]
    DependencyCycle {
        /// The services of the cycle, each after the next; the first is named again at the end.
        cycle: Vec<String>,
    },
    /// The environment's last job has not ended.
    #[error("environment `{environment}` is running a job; wait for it first")]
    AlreadyRunning {
        /// The environment.
        environment: String,
    },
    /// A task or service of an earlier job was abandoned and may still be running.
    #[error("environment `{environment}` has something left from an earlier job ({left}); declare a new one")]
    LeftBehind {
        /// The environment.
        environment: String,
        /// What is left.
        left: String,
    },
    /// A source that can be read once was read by an earlier job.
    #[error(
        "source `{source_name}` can be read once and has been; use `from_factory` or `from_collection` to run again"
    )]
    SourceConsumed {
        /// The source.
        source_name: String,
    },
    /// `run` was called by async code, whose thread it would block. In `spawn_blocking` and `block_in_place` it runs.
    #[error(
        "`run` would block the async runtime it is called in; use `run_async().await`, or call it in `spawn_blocking`"
    )]
    InsideRuntime,
    /// A stream of another environment was brought together with one of this.
    #[error("`{operator}` meets a stream of another environment; declare both in one")]
    ForeignStream {
        /// The operator that was to take both, or the last one before a union.
        operator: String,
    },
    /// An operator was given an option that cannot be.
    #[error("`{operator}`: {message}")]
    OperatorOption {
        /// The operator.
        operator: String,
        /// What may be given instead.
        message: String,
    },
    /// A name was given where there is no operator.
    #[error("`.named(\"{name}\")` names nothing: it stands after an exchange; put it after an operator")]
    NothingToName {
        /// The name.
        name: String,
    },
    /// A function that makes sources, operators or sinks panicked, or the `Clone` of one of their functions did.
    #[error("`{operator}` could not be built: its factory, or the `Clone` of its function, panicked: {message}")]
    Factory {
        /// The source, operator or sink.
        operator: String,
        /// What it panicked with.
        message: String,
    },
    /// The log files could not be opened.
    #[error(transparent)]
    LogFiles(#[from] LogError),
    /// The system gave no thread.
    #[error("the job's threads could not be started")]
    Threads(#[source] std::io::Error),
    /// The system has no room for so many threads: each replica of an operator that begins a chain is one.
    #[error(
        "the job needs {threads} threads, and `{limit}` leaves room for {room}; \
         give operators fewer replicas, or raise that limit"
    )]
    TooManyThreads {
        /// How many it needs at once.
        threads: usize,
        /// The limit that allows fewest, by the name or the file that the system knows it by.
        limit: String,
        /// For how many more threads it leaves room.
        room: u64,
    },
    /// An option is out of its range.
    #[error("{option} is {value}; {range}")]
    Option {
        /// The option.
        option: &'static str,
        /// The value it was given.
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
