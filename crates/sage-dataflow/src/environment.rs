//! [`Environment`]: where pipelines and services are declared, and from where they are run.

use std::os::unix::thread::RawPthread;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;

use crate::BoxError;
use crate::backend::inline::InlineBackend;
use crate::backend::local::LocalBackend;
use crate::backend::room;
use crate::backend::thread::OwnThread;
use crate::backend::{Backend, Ground, StuckProbe, Threads, event_queue};
use crate::clock::Clock;
use crate::graph::wiring::{self, LaneOptions};
use crate::graph::{Explain, Mistake, SharedGraph, validate};
use crate::guarded::{Guarded, guard};
use crate::job::control::JobControl;
use crate::job::dispatcher::Dispatcher;
use crate::job::plan::{LiveMetrics, Plan};
use crate::job::polling::Polling;
use crate::job::signals::{self, Listening};
use crate::job::{
    Deadlines, JobHandle, JobReport, JobShared, LogError, Origin, RunError, SessionLog, SignalPolicy, WorksFor, checked,
};
use crate::operator::policy::ErrorPolicy;
use crate::service::{
    AsyncService, Blocking, CallError, Futures, HookContext, HookTimeouts, JobRuntime, Registry, Service,
    ServiceBuilder, ServiceEntry, ServiceHandle, ServiceState, Typed, is_inside_async, order,
};
use crate::source::{GeneratorSource, IterSource, Lines, Source};
use crate::stream::pipe::{From as FromSource, OneShot, PerReplica, PerRun};
use crate::stream::{DataStream, Feedback, Stream};
use crate::sync::{FOREVER, lock};

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

#[derive(Debug, Clone)]
struct Options {
    inline: bool,
    signals: SignalPolicy,
    deadlines: Deadlines,
    time_limit: Option<Duration>,
    log_dir: Option<PathBuf>,
    batch_records: Option<usize>,
    queue_batches: Option<usize>,
    queue_bytes: usize,
    flush_interval: Duration,
    clock: Option<Clock>,
    runtime: Option<Handle>,
    stuck_probe: Option<StuckProbe>,
    threads: Threads,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inline: false,
            signals: SignalPolicy::default(),
            deadlines: Deadlines::default(),
            time_limit: None,
            log_dir: None,
            batch_records: None,
            queue_batches: None,
            queue_bytes: 64 << 20,
            flush_interval: Duration::from_millis(1),
            clock: None,
            runtime: None,
            stuck_probe: None,
            threads: Threads::default(),
        }
    }
}

/// The range of the two sizes of a lane.
const MAX_BATCH_RECORDS: usize = 1 << 20;
const MAX_QUEUE_BATCHES: usize = 1 << 16;
/// The range of a thread's stack.
const MIN_STACK_BYTES: usize = 64 << 10;
const MAX_STACK_BYTES: usize = 1 << 40;

/// Where pipelines and the services they call are declared and run.
///
/// ```
/// use sage::Environment;
///
/// let env = Environment::local("squares");
/// let squares = env.from_iter(1..=3).map(|n| n * n).collect();
/// let report = env.run()?;
/// assert_eq!(squares.take(), [1, 4, 9]);
/// assert!(report.is_success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An environment can run again when its job is over: functions and operators start afresh, services are made anew.
pub struct Environment {
    name: String,
    graph: SharedGraph,
    registry: Arc<Registry>,
    options: Options,
    use_: Arc<Mutex<Use>>,
}

/// What an environment is being used for.
#[derive(Debug)]
enum Use {
    Idle,
    Running,
    LeftBehind(String),
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Environment {
    /// An environment whose jobs run on threads of this process.
    pub fn local(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            graph: SharedGraph::default(),
            registry: Registry::new(),
            options: Options::default(),
            use_: Arc::new(Mutex::new(Use::Idle)),
        }
    }

    /// Runs everything on one thread, for debugging: the one that calls [`run`](Self::run), or the job's own after
    /// [`submit`](Self::submit): one stack, the same order every
    /// time. No deadline can interrupt a hook then, and memory is not bounded by backpressure.
    pub fn inline(mut self) -> Self {
        self.options.inline = true;
        self
    }

    /// What a job does with SIGINT and SIGTERM. Default: [`SignalPolicy::Drain`].
    pub fn signals(mut self, policy: SignalPolicy) -> Self {
        self.options.signals = policy;
        self
    }

    /// How long each phase of a job may take. Applies to services registered from here on.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.options.deadlines = deadlines.bounded();
        self
    }

    /// Cancels a job that is not over after `limit`. Default: no limit.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options.time_limit = Some(limit.min(FOREVER));
        self
    }

    /// Writes log files of each job below `dir`, conventionally `.sage/logs`: `jobmanager/session_<time>/` with
    /// `Dispatcher.log` and `Error.log`, nothing per record, for their owner's eyes only (mode 0600). Default: none.
    pub fn log_files(mut self, dir: impl Into<PathBuf>) -> Self {
        self.options.log_dir = Some(dir.into());
        self
    }

    /// Records per batch between threads, 1 to 1,048,576. Default: as many as fill 32 KiB, 64 to 4096.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.options.batch_records = Some(records);
        self
    }

    /// Batches that may be in flight between two threads, 2 to 65,536. Default: 8, and up to 64 for all the channels of
    /// one producer while each batch is dealt with in less than 0.2 ms.
    ///
    /// Fewer records wait before a task that is slow, or has not shown yet that it is quick: as many as it deals with
    /// in 10 ms, and twice as many as it works on at once if that is more.
    pub fn queue_batches(mut self, batches: usize) -> Self {
        self.options.queue_batches = Some(batches);
        self
    }

    /// Bytes that may wait on an edge, that is, in all the channels between two operators that do not share a thread: 1
    /// or more, default 64 MiB. Each channel has an equal share, and a record larger than that passes alone.
    ///
    /// Bytes are an estimate: the size of the record's type, and what is known of it besides; see
    /// [`Stream::weigh`](crate::Stream::weigh). What goes back to the head of a loop is bound by [`Feedback::limit`]
    /// alone.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.options.queue_bytes = bytes;
        self
    }

    /// How long a record may wait for its batch to fill while records come fast; slow records do not wait. Default: 1
    /// ms.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        // Zero is the inline backend's word for "nobody waits".
        self.options.flush_interval = interval.max(Duration::from_micros(1));
        self
    }

    /// The clock of processing time. Default: [`Clock::system`], as of the start of each job.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.options.clock = Some(clock);
        self
    }

    /// Lends the jobs a tokio runtime, for async hooks, `call_blocking` and `map_async`: what they open there, such as
    /// a connection of a client that outlives the job, works on after it. Default: each job has one of its own, which
    /// ends with it.
    ///
    /// It needs its timer, must be running for as long as the job does (one of the kind `current_thread` runs only
    /// while its owner waits inside it), and is never shut down here. The engine has ended and dropped its own futures
    /// when a job returns; tasks that your code spawns on it are yours, and go on.
    ///
    /// ```
    /// let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let env = sage::Environment::local("doubled").runtime(host.handle().clone());
    /// let doubled = env.from_iter(1..=3).map_async(4, sage::Order::Ordered, |n| async move { n * 2 }).collect();
    /// env.run()?;
    /// assert_eq!(doubled.take(), [2, 4, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn runtime(mut self, handle: Handle) -> Self {
        self.options.runtime = Some(handle);
        self
    }

    /// How to tell where a thread is: `probe` is asked for the thread of each task or hook that has missed its
    /// deadline, and what it returns, some indented lines, is added to what the report says of that. For hosts whose
    /// language has stacks of its own. It is called on a thread of its own, and has one second; when it has once taken
    /// longer, it is not asked again.
    pub fn where_stuck(mut self, probe: impl Fn(RawPthread) -> Option<String> + Send + Sync + 'static) -> Self {
        self.options.stuck_probe = Some(StuckProbe(Arc::new(probe)));
        self
    }

    /// How large the stack of each thread is that runs a task or the hooks of a service, in bytes: 64 KiB to 1 TiB.
    /// Default: 2 MiB, or what the environment variable `RUST_MIN_STACK` says. For functions that call themselves
    /// deeply.
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.options.threads.stack_bytes = Some(bytes);
        self
    }

    /// Has `begin` called on each thread that runs a task or the hooks of a service, before anything else is done
    /// there; what it returns is dropped when the thread has nothing more to do. For hosts whose threads need something
    /// of their own. A panic of either is logged, and the thread goes on. [`inline`](Self::inline) has no such threads.
    pub fn around_threads<G: 'static>(mut self, begin: impl Fn() -> G + Send + Sync + 'static) -> Self {
        self.options.threads.begin = Some(Arc::new(move || Box::new(begin())));
        self
    }

    /// What becomes of a record on which an operator or a sink returns an error, where they have no policy of their
    /// own. Default: [`ErrorPolicy::fail`].
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.with(|graph| {
            if let Some(message) = policy.mistake() {
                graph.mistakes.push(Mistake::Option { node: None, message });
            }
            graph.default_policy = policy;
        });
        self
    }

    /// The environment's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A stream of an iterator's items. The iterator is read once: a second run gives [`SubmitError::SourceConsumed`].
    pub fn from_iter<I>(&self, items: I) -> Stream<FromSource<OneShot<impl Source<Item = I::Item> + use<I>>>>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
    {
        self.one_shot("iter", IterSource(items.into_iter()))
    }

    /// A stream of clones of a collection's items; can be run again.
    pub fn from_collection<T>(
        &self,
        items: Vec<T>,
    ) -> Stream<FromSource<PerRun<impl Fn() -> IterSource<std::vec::IntoIter<T>> + Send + 'static>>>
    where
        T: Clone + Send + 'static,
    {
        Stream::source(&self.graph, "collection", PerRun(move || IterSource(items.clone().into_iter())))
    }

    /// A stream of the items of iterators that `factory` makes, one per replica (it is given the replica's number, from
    /// 0) and run.
    pub fn from_factory<I, F>(
        &self,
        factory: F,
    ) -> Stream<FromSource<PerReplica<impl Fn(usize) -> IterSource<I::IntoIter> + Send + 'static>>>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
        F: Fn(usize) -> I + Send + 'static,
    {
        Stream::source(&self.graph, "iter", PerReplica(move |replica| IterSource(factory(replica).into_iter())))
    }

    /// A stream of the records of a function that returns the next one, `None` at the end, or an error, which fails the
    /// job. It is read once.
    pub fn from_generator<T, E, F>(&self, generator: F) -> Stream<FromSource<OneShot<GeneratorSource<F>>>>
    where
        T: Send + 'static,
        E: Into<BoxError> + 'static,
        F: FnMut() -> Result<Option<T>, E> + Send + 'static,
    {
        self.one_shot("generator", GeneratorSource(generator))
    }

    /// A stream of the records of sources that `factory` makes, one per replica (it is given the replica's number, from
    /// 0) and run.
    pub fn from_source<S, F>(&self, factory: F) -> Stream<FromSource<PerReplica<F>>>
    where
        S: Source,
        F: Fn(usize) -> S + Send + 'static,
    {
        Stream::source(&self.graph, "source", PerReplica(factory))
    }

    /// A stream of the lines of every file that matches a glob pattern, such as `docs/**/*.md`; the files in
    /// alphabetical order, read lazily. A line that is not UTF-8, or longer than 64 MiB, fails the job.
    pub fn read_lines(
        &self,
        pattern: impl Into<String>,
    ) -> Stream<FromSource<PerRun<impl Fn() -> Lines + Send + 'static>>> {
        let pattern = pattern.into();
        Stream::source(&self.graph, "lines", PerRun(move || Lines::new(pattern.clone())))
    }

    /// Begins a loop: a stream of the records that are fed back, and its end, to be filled with them. `name` is that of
    /// the operator at its head, which runs in one replica.
    ///
    /// The loop ends when its sources have ended and no record is in it any more; then the stream ends, and so do the
    /// operators behind it. Probes between the records tell that: no timeout does. Records that an operator keeps as
    /// its state, such as those of an open window, are not in the loop. A loop whose records never stop going round
    /// ends by a cancel, or by a drain whose deadline passes.
    ///
    /// Records that wait to go round are kept in memory, up to [`Feedback::limit`]. Event time does not go round: in a
    /// loop it is that of the streams that come from outside. What an operator of the loop feeds back at the end of its
    /// input, such as a count, comes too late and fails the job with a [`FeedbackError`](crate::FeedbackError). Two
    /// loops may follow each other, but not share operators.
    ///
    /// ```
    /// let env = sage::Environment::local("halving");
    /// let (again, feedback) = env.feedback("again");
    /// let (odd, even) = env.from_iter([12_u64, 7, 40]).union(again).split(|n| n % 2 == 1);
    /// feedback.fill(even.map(|n| n / 2));
    /// let odd = odd.collect();
    /// env.run()?;
    /// let mut odd = odd.take();
    /// odd.sort();
    /// assert_eq!(odd, [3, 5, 7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn feedback<T: Send + 'static>(&self, name: impl Into<String>) -> (DataStream<T>, Feedback<T>) {
        Feedback::new(&self.graph, name.into())
    }

    fn one_shot<S: Source>(&self, kind: &'static str, source: S) -> Stream<FromSource<OneShot<S>>> {
        let source = Arc::new(Mutex::new(Some(source)));
        let stream = Stream::source(&self.graph, kind, OneShot(source.clone()));
        let is_left = Box::new(move || lock(&source).is_some());
        self.graph.with(|graph| graph.one_shots.push((stream.node(), is_left)));
        stream
    }

    /// Registers a service that `constructor` makes when a job starts. Finish with [`ServiceBuilder::build`].
    pub fn register_service<S, F>(&self, name: impl Into<String>, constructor: F) -> ServiceBuilder<S>
    where
        S: Service,
        F: Fn() -> S + Send + Sync + 'static,
    {
        self.register_service_with(name, move |_cx| Ok(constructor()))
    }

    /// As [`register_service`](Self::register_service), for a constructor that may fail, or that registers what
    /// undoes its steps with [`HookContext::on_cleanup`].
    pub fn register_service_with<S, F>(&self, name: impl Into<String>, constructor: F) -> ServiceBuilder<S>
    where
        S: Service,
        F: Fn(&HookContext) -> Result<S, BoxError> + Send + Sync + 'static,
    {
        ServiceBuilder::new(self.registry.clone(), name.into(), self.hook_timeouts(), move |cell| {
            Box::new(Typed::new(Arc::new(constructor), Box::new(Blocking), cell))
        })
    }

    /// As [`register_service_with`](Self::register_service_with), for a service with async hooks.
    pub fn register_async_service<S, F>(&self, name: impl Into<String>, constructor: F) -> ServiceBuilder<S>
    where
        S: AsyncService,
        F: Fn() -> S + Send + Sync + 'static,
    {
        ServiceBuilder::new(self.registry.clone(), name.into(), self.hook_timeouts(), move |cell| {
            Box::new(Typed::new(Arc::new(move |_cx: &HookContext| Ok(constructor())), Box::new(Futures), cell))
        })
    }

    /// A handle to the service registered under `name`.
    ///
    /// # Errors
    /// [`CallError::Unknown`] if there is none, [`CallError::WrongType`] if it is not an `S`.
    pub fn service<S: Send + Sync + 'static>(&self, name: &str) -> Result<ServiceHandle<S>, CallError> {
        ServiceHandle::lookup(&self.registry, name)
    }

    fn hook_timeouts(&self) -> HookTimeouts {
        let Deadlines { setup, stop, cleanup, .. } = self.options.deadlines;
        HookTimeouts { setup, stop, cleanup }
    }

    /// The names of the sources, operators and sinks in the order of their declaration, from that number on.
    pub fn operators_from(&self, number: usize) -> Vec<String> {
        self.graph.with(|graph| graph.nodes.iter().skip(number).map(|node| node.name.clone()).collect())
    }

    /// How the pipelines will run: chains, replicas, exchanges, services.
    pub fn explain(&self) -> Explain {
        let services = self.registry.all().iter().map(|entry| (entry.name.clone(), entry.after.clone())).collect();
        self.graph.with(|graph| Explain::new(&self.name, graph, services))
    }

    /// Runs the pipelines to the end of their input and cleans up. Blocks; with the default options the calling thread
    /// waits, and tasks run on threads of their own. When it returns, every task and every service is stopped and
    /// cleaned, or the error says what is left.
    ///
    /// # Errors
    /// [`RunError::Submit`] if the job was not started; [`RunError::Job`], with the full report, unless it succeeded
    /// and is clean.
    pub fn run(&self) -> Result<JobReport, RunError> {
        if is_inside_async() {
            return Err(SubmitError::InsideRuntime.into());
        }
        let report = self.prepare()?.run();
        signals::settle();
        checked(report)
    }

    /// Starts the pipelines in the background.
    ///
    /// # Errors
    /// Whatever is wrong with the declaration, before anything has started.
    pub fn submit(&self) -> Result<JobHandle, SubmitError> {
        let prepared = self.prepare()?;
        let shared = prepared.dispatcher.shared();
        let end = shared.clone();
        // Under guard where no thread is to be had: what it dropped then is users' chains.
        let prepared = Guarded::new(prepared, None);
        let run = move || {
            end.job().enter();
            end.end().finish(prepared.into_inner().run());
        };
        let runner = OwnThread::spawn("sage-dispatcher", run).map_err(SubmitError::Threads)?;
        shared.end().set_runner(runner);
        Ok(JobHandle::new(shared))
    }

    /// As [`run`](Self::run), without blocking the calling thread. Dropping the future cancels the job, and blocks
    /// until it is cleaned up.
    pub async fn run_async(&self) -> Result<JobReport, RunError> {
        self.submit()?.wait_async().await
    }

    fn prepare(&self) -> Result<Prepared, SubmitError> {
        let in_use = InUse::claim(&self.name, &self.use_)?;
        let options = &self.options;
        self.check_options()?;
        let services = self.registry.all();
        order::check(&services)?;
        let (events, queue) = event_queue();
        let clock = options.clock.clone().unwrap_or_else(Clock::system);
        let control = Arc::new(JobControl::new(clock));
        control.clock().rouses(&control);
        let job = WorksFor::new_job();
        let runtime = Arc::new(JobRuntime::new(options.runtime.clone(), job));
        let lanes = LaneOptions {
            batch_records: options.batch_records,
            queue_batches: options.queue_batches,
            queue_bytes: options.queue_bytes,
            inline: options.inline,
            flush_interval: if options.inline { Duration::ZERO } else { options.flush_interval },
        };
        let tasks: usize = self.graph.with(|graph| {
            validate(graph)?;
            Ok::<_, SubmitError>(graph.chains.iter().map(|chain| graph.parallelism(chain)).sum())
        })?;
        if !options.inline {
            // Before the tasks the services start, at first all that come after no other; besides there is the
            // dispatcher's.
            let first_services = services.iter().filter(|entry| entry.after.is_empty()).count();
            room::check(tasks.max(first_services) + 1)?;
        }
        let log = match &options.log_dir {
            Some(dir) => SessionLog::open(dir)?,
            None => SessionLog::default(),
        };
        let listening = Listening::start(options.signals, &events).map_err(SubmitError::Threads)?;
        // Last of what can fail: building takes the sources that can be read once.
        let inline = options.inline.then(|| events.clone());
        let polling = Polling { runtime: runtime.clone(), events: inline };
        let plan = self.build(&control, &lanes, polling, &services)?;
        services.iter().for_each(|entry| entry.reset());
        self.registry.begin(&services, events.clone(), runtime.clone(), options.inline);
        let shared =
            Arc::new(JobShared::new(job_id(), events.clone(), LiveMetrics::new(&plan), self.registry.clone(), job));
        let (stuck_probe, threads) = (options.stuck_probe.clone(), options.threads.clone());
        let ground = Ground { control, runtime: runtime.clone(), events, queue, stuck_probe, job, threads };
        let backend: Box<dyn Backend + Send> = match options.inline {
            true => Box::new(InlineBackend::new(ground)),
            false => Box::new(LocalBackend::new(ground)),
        };
        let dispatcher = Dispatcher::new(
            backend,
            self.name.clone(),
            options.deadlines,
            options.time_limit,
            plan,
            self.registry.clone(),
            runtime,
            shared,
            log,
        );
        Ok(Prepared { dispatcher, in_use, _listening: listening })
    }

    /// Builds the tasks. That runs the user's factories, so the graph is not locked meanwhile.
    fn build(
        &self,
        control: &Arc<JobControl>,
        lanes: &LaneOptions,
        polling: Polling,
        services: &[Arc<ServiceEntry>],
    ) -> Result<Plan, SubmitError> {
        let graph = self.graph.with(std::mem::take);
        let built = guard(|| wiring::build(&graph, control, lanes, polling)).unwrap_or_else(|what| {
            let message = format!("a `Drop` panicked: {what}");
            Err(SubmitError::Factory { operator: "pipeline".to_owned(), message })
        });
        let plan = built.map(|built| Plan::new(&graph, built, services.to_vec()));
        self.graph.with(|place| *place = graph);
        plan
    }

    fn check_options(&self) -> Result<(), SubmitError> {
        let check = |option, value, min: usize, max: usize, range| match value {
            value if (min..=max).contains(&value) => Ok(()),
            value => Err(SubmitError::Option { option, value, range }),
        };
        let batch_records = self.options.batch_records.unwrap_or(1);
        check("batch_records", batch_records, 1, MAX_BATCH_RECORDS, "it may be 1 to 1048576")?;
        let queue_batches = self.options.queue_batches.unwrap_or(2);
        check("queue_batches", queue_batches, 2, MAX_QUEUE_BATCHES, "it may be 2 to 65536")?;
        check("queue_bytes", self.options.queue_bytes, 1, usize::MAX, "it may be 1 or more")?;
        let stack_bytes = self.options.threads.stack_bytes.unwrap_or(MIN_STACK_BYTES);
        check("stack_bytes", stack_bytes, MIN_STACK_BYTES, MAX_STACK_BYTES, "it may be 65536 to 1099511627776")
    }
}

/// A job ready to run.
struct Prepared {
    dispatcher: Dispatcher<Box<dyn Backend + Send>>,
    in_use: InUse,
    _listening: Listening,
}

impl Prepared {
    /// The report; `None` if the engine itself panicked.
    fn run(self) -> Option<JobReport> {
        let Self { mut dispatcher, mut in_use, _listening } = self;
        let report = guard(|| dispatcher.run()).ok();
        // It has the last of some users' values, such as those in events that came too late.
        drop(guard(move || drop(dispatcher)));
        in_use.left = report.as_ref().map_or_else(|| Some("the job".to_owned()), still_running);
        report
    }
}

/// What may still be using the environment's functions and services after a job.
fn still_running(report: &JobReport) -> Option<String> {
    let abandoned = report.services.iter().find(|service| service.state == ServiceState::Abandoned);
    let mut causes = report.first_cause.iter().chain(&report.attached);
    let stuck = causes.find_map(|cause| match &cause.origin {
        Origin::Task { name, .. } => Some(format!("task `{name}`")),
        _ => None,
    });
    stuck.or_else(|| abandoned.map(|service| format!("service `{}`", service.name)))
}

/// Keeps an environment from running two jobs at once.
struct InUse {
    use_: Arc<Mutex<Use>>,
    left: Option<String>,
}

impl InUse {
    fn claim(environment: &str, use_: &Arc<Mutex<Use>>) -> Result<Self, SubmitError> {
        let environment = || environment.to_owned();
        let mut now = lock(use_);
        match &*now {
            Use::Running => Err(SubmitError::AlreadyRunning { environment: environment() }),
            Use::LeftBehind(left) => Err(SubmitError::LeftBehind { environment: environment(), left: left.clone() }),
            Use::Idle => {
                *now = Use::Running;
                Ok(Self { use_: use_.clone(), left: None })
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *lock(&self.use_) = self.left.take().map_or(Use::Idle, Use::LeftBehind);
    }
}

/// Unique on this machine: the time, the process, and a number within it.
fn job_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{time:x}-{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
