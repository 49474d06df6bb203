//! [`Environment`]: where pipelines and services are declared, and from where they are run.

use std::os::unix::thread::RawPthread;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::BoxError;
use crate::backend::StuckProbe;
use crate::chain::ErrorPolicy;
use crate::clock::Clock;
use crate::graph::{Explain, Mistake, SharedGraph};
use crate::job::start::{self, Claims, Options, Prepared};
use crate::job::{Deadlines, JobHandle, JobReport, RunError, SignalPolicy, checked, signals};
use crate::runtime::is_inside_async;
use crate::service::{
    AsyncService, Blocking, CallError, Futures, HookContext, HookTimeouts, Registry, Service, ServiceBuilder,
    ServiceHandle, Typed,
};
use crate::source::{GeneratorSource, IterSource, Lines, OneShot, PerReplica, PerRun, Source};
use crate::stream::pipe::FromSource;
use crate::stream::{DataStream, Feedback, Stream};
use crate::submit_error::SubmitError;
use crate::sync::{FOREVER, lock};

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
    claims: Claims,
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
            claims: Claims::default(),
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
        self.prepare()?.submit()
    }

    /// As [`run`](Self::run), without blocking the calling thread. Dropping the future cancels the job, and blocks
    /// until it is cleaned up.
    pub async fn run_async(&self) -> Result<JobReport, RunError> {
        self.submit()?.wait_async().await
    }

    fn prepare(&self) -> Result<Prepared, SubmitError> {
        start::prepare(&self.name, &self.options, &self.graph, &self.registry, &self.claims)
    }
}
