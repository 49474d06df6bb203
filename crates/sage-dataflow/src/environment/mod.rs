//! [`Environment`]: declares pipelines and services, and runs them.

mod options;
mod pipelines;

use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use pipelines::PipelineBuilder;

use crate::BoxError;
use crate::graph::{Explain, Index, JobGraph, ServingSource, SharedGraph};
use crate::job::start::{self, Claims, Options, PreparedJob};
use crate::job::{Deadlines, JobHandle, JobReport, RunError, checked, signals};
use crate::runtime::is_inside_async;
use crate::service::{
    AsyncService, Blocking, CallError, Futures, HookContext, HookTimeouts, Registry, Serves, Service, ServiceBuilder,
    ServiceHandle, Typed,
};
use crate::source::{
    ChannelReceiver, GeneratorSource, IterSource, Lines, Listing, OneShot, PerReplica, PerRun, Pinned, PolledSource,
    Source,
};
use crate::stream::pipe::FromSource;
use crate::stream::{DataStream, Feedback, Stream};
use crate::submit_error::SubmitError;
use crate::sync::lock;

/// Declares pipelines and the services they call, and runs them.
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
/// An environment can run again when its job is over: functions and operators start afresh, services are constructed
/// again.
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
    /// Makes an environment whose jobs run on threads of this process.
    pub fn local(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            graph: SharedGraph::default(),
            registry: Registry::new(),
            options: Options::default(),
            claims: Claims::default(),
        }
    }

    /// Returns the environment's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a stream of an iterator's items. The iterator can be read once: a second run fails with
    /// [`SubmitError::SourceConsumed`].
    pub fn from_iter<I>(&self, items: I) -> Stream<FromSource<OneShot<impl Source<Item = I::Item> + use<I>>>>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
    {
        self.one_shot("iter", IterSource(items.into_iter()))
    }

    /// Makes a stream of clones of a collection's items. It can run again.
    pub fn from_collection<T>(
        &self,
        items: Vec<T>,
    ) -> Stream<FromSource<PerRun<impl Fn() -> IterSource<std::vec::IntoIter<T>> + Send + 'static>>>
    where
        T: Clone + Send + 'static,
    {
        Stream::source(&self.graph, "collection", PerRun(move || IterSource(items.clone().into_iter())))
    }

    /// Makes a stream of the items of iterators. For each replica and run, `factory` makes one; its argument is the
    /// replica's number, from 0.
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

    /// Makes a stream from a function that returns the next record, `None` at the end, or an error, which fails the
    /// job. The function can be read once, as an iterator.
    pub fn from_generator<T, E, F>(&self, generator: F) -> Stream<FromSource<OneShot<GeneratorSource<F>>>>
    where
        T: Send + 'static,
        E: Into<BoxError> + 'static,
        F: FnMut() -> Result<Option<T>, E> + Send + 'static,
    {
        self.one_shot("generator", GeneratorSource(generator))
    }

    /// Makes a stream of what is sent into a channel: of `crossbeam_channel`, or of `tokio::sync::mpsc`. It ends when
    /// the last sender is dropped. The receiver can be read once, as an iterator, by one replica.
    ///
    /// While nobody sends, the source waits for nothing but a sender and its job: a drain or a cancel ends it at once.
    /// Records that are in the channel by then stay there, and the report tells how many they were; to have them
    /// processed, drop the senders instead. Once the job is over, senders get an error, unless the program holds a
    /// further receiver of the channel.
    ///
    /// A channel with a bound holds its senders back while the job is slower than they are.
    ///
    /// ```
    /// let (sender, receiver) = crossbeam_channel::bounded(100);
    /// let env = sage::Environment::local("requests");
    /// let lengths = env.from_channel(receiver).map(|text: &str| text.len()).collect();
    /// let job = env.submit()?;
    /// sender.send("first")?;
    /// sender.send("second")?;
    /// drop(sender); // the end of input; `job.drain()` would leave what is in the channel
    /// job.wait()?;
    /// assert_eq!(lengths.take(), [5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// **A receiver of `std::sync::mpsc` is refused by the compiler.** Only its `recv` waits for it, which nothing but
    /// a record or the last sender can end: a drain would have to wait for one, or look again and again. Where a
    /// library gives such a receiver, let a thread of yours forward what it gets. That thread ends with its senders, or
    /// with the first record that comes when the job is over.
    ///
    /// ```
    /// # let (events, from_library) = std::sync::mpsc::channel();
    /// let (sender, receiver) = crossbeam_channel::bounded(0);
    /// let forwarder = std::thread::spawn(move || from_library.iter().try_for_each(|event| sender.send(event)));
    ///
    /// let env = sage::Environment::local("events");
    /// let seen = env.from_channel(receiver).collect();
    /// # events.send(1)?;
    /// # drop(events);
    /// env.run()?;
    /// # assert_eq!(seen.take(), [1]);
    /// # forwarder.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_channel<R>(&self, receiver: R) -> Stream<FromSource<OneShot<R::Source>>>
    where
        R: ChannelReceiver,
    {
        self.one_shot("channel", receiver.into_source())
    }

    /// Makes a stream of the items of an async stream, such as the messages of a connection. The async stream can be
    /// read once, as an iterator, by one replica.
    ///
    /// It is polled on the source's own thread, inside the job's async runtime, so that timers and I/O work in it. A
    /// drain or a cancel ends a wait for it at once; it is dropped before the job is over. It should not block.
    ///
    /// Where items are `Result`s, `.try_map(|item| item)` behind it fails the job with the error of one.
    ///
    /// ```
    /// use futures::stream;
    ///
    /// let env = sage::Environment::local("squares");
    /// let squares = env.from_stream(stream::iter(1..=3)).map(|n| n * n).collect();
    /// env.run()?;
    /// assert_eq!(squares.take(), [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_stream<S>(&self, stream: S) -> Stream<FromSource<OneShot<impl Source<Item = S::Item> + use<S>>>>
    where
        S: futures_core::Stream + Send + 'static,
        S::Item: Send + 'static,
    {
        self.one_shot("stream", PolledSource::new(Pinned::new(stream)))
    }

    /// Makes a stream of the records of sources. For each replica and run, `factory` makes one; its argument is the
    /// replica's number, from 0.
    pub fn from_source<S, F>(&self, factory: F) -> Stream<FromSource<PerReplica<F>>>
    where
        S: Source,
        F: Fn(usize) -> S + Send + 'static,
    {
        Stream::source(&self.graph, "source", PerReplica(factory))
    }

    /// As [`from_source`](Self::from_source), for the source of a pipeline that is a service, in one replica: one whose
    /// [`serves`](Source::serves) says so. It ends when `pipeline` is told. `service` is the name of the registered
    /// service that passes calls on to it, if that is known.
    #[doc(hidden)]
    pub fn from_serving<S, F>(
        &self,
        factory: F,
        pipeline: Arc<dyn Serves>,
        service: Option<&str>,
    ) -> Stream<FromSource<PerReplica<F>>>
    where
        S: Source,
        F: Fn(usize) -> S + Send + 'static,
    {
        let stream = Stream::source(&self.graph, "source", PerReplica(factory));
        let service = service.and_then(|name| self.registry.find(name)).map(|entry| entry.id);
        let serving = ServingSource { node: stream.node(), service, pipeline };
        self.graph.with(|graph| graph.serving.push(serving));
        stream
    }

    /// Makes a stream of the lines of every file that matches a glob pattern, such as `docs/**/*.md`. It reads the
    /// files lazily, in alphabetical order. A line that is not UTF-8, or is longer than 64 MiB, fails the job.
    ///
    /// With a [`parallelism`](Stream::parallelism) the replicas share the bytes of all files evenly, also of one file
    /// if each gets 1 MiB of it or more. Each reads its lines in order. A replica that begins within a file reads what
    /// is before that too, to number its lines.
    pub fn read_lines(
        &self,
        pattern: impl Into<String>,
    ) -> Stream<FromSource<PerReplica<impl Fn(usize) -> Lines + Send + 'static>>> {
        let pattern = pattern.into();
        let listing = Mutex::new(Listing::default());
        let lines = move |replica| {
            let mut listing = lock(&listing);
            // The first replica of a run: what an earlier run found counts no more.
            if replica == 0 {
                *listing = Listing::default();
            }
            Lines::new(pattern.clone(), listing.clone())
        };
        Stream::source(&self.graph, "lines", PerReplica(lines))
    }

    /// Begins a loop. Returns the stream of the records that are fed back, and the [`Feedback`] to fill with them.
    /// `name` names the operator at the head of the loop, which runs in one replica.
    ///
    /// The loop ends when its sources have ended and no record is left in it. Then the stream ends, and so do the
    /// operators behind it. The engine finds this out by probes that travel between the records, not by a timeout.
    /// Records that an operator keeps as state, such as those of an open window, are not in the loop. If records never
    /// stop going round, the loop ends by a cancel, or by a drain whose deadline passes.
    ///
    /// Records that wait to go round are kept in memory, up to [`Feedback::limit`]. Watermarks do not go round: event
    /// time in a loop is that of the streams that enter it. A record that an operator of the loop feeds back at the end
    /// of its input, such as a count, comes too late and fails the job with a [`FeedbackError`](crate::FeedbackError).
    /// Two loops may follow each other, but not share operators.
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

    /// Registers a service. `constructor` makes it when a job starts. Finish with [`ServiceBuilder::build`].
    pub fn register_service<S, F>(&self, name: impl Into<String>, constructor: F) -> ServiceBuilder<S>
    where
        S: Service,
        F: Fn() -> S + Send + Sync + 'static,
    {
        self.register_service_with(name, move |_cx| Ok(constructor()))
    }

    /// As [`register_service`](Self::register_service), for a constructor that may fail, or that registers functions to
    /// undo its steps with [`HookContext::on_cleanup`].
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

    /// Returns a handle to the service registered under `name`.
    ///
    /// # Errors
    /// [`CallError::Unknown`] if no service has that name, [`CallError::WrongType`] if the service is not an `S`.
    pub fn service<S: Send + Sync + 'static>(&self, name: &str) -> Result<ServiceHandle<S>, CallError> {
        ServiceHandle::lookup(&self.registry, name)
    }

    fn hook_timeouts(&self) -> HookTimeouts {
        let Deadlines { setup, stop, cleanup, .. } = self.options.deadlines;
        HookTimeouts { setup, stop, cleanup, grace: Duration::ZERO }
    }

    /// Returns the names of the sources, operators and sinks in the order of their declaration, skipping the first
    /// `number`.
    pub fn operators_from(&self, number: usize) -> Vec<String> {
        self.graph.with(|graph| graph.nodes.iter().skip(number).map(|node| node.name.clone()).collect())
    }

    /// Shows how the pipelines will run: chains, replicas, exchanges, services.
    pub fn explain(&self) -> Explain {
        self.graph().into()
    }

    /// As [`explain`](Self::explain), as data.
    pub fn graph(&self) -> JobGraph {
        let services = self.registry.all();
        let services = services.iter().map(|entry| &**entry);
        self.graph.with(|graph| JobGraph::new(&self.name, graph, &Index::new(graph), services))
    }

    /// Runs the pipelines to the end of their input and cleans up. Blocks the calling thread; tasks run on other
    /// threads, unless [`inline`](Self::inline) is set. When it returns, every task and every service is stopped and
    /// cleaned, or the error says what is left.
    ///
    /// # Errors
    /// [`RunError::Submit`] if the job did not start; [`RunError::Job`], with the full report, if it did not succeed or
    /// is not clean.
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
    /// A [`SubmitError`] that says why the job did not start. Nothing is left running then.
    pub fn submit(&self) -> Result<JobHandle, SubmitError> {
        self.prepare()?.start()
    }

    /// As [`run`](Self::run), without blocking the calling thread. Dropping the future cancels the job and blocks until
    /// the job is cleaned up.
    pub async fn run_async(&self) -> Result<JobReport, RunError> {
        self.submit()?.wait_async().await
    }

    /// Puts the job together and does not start it yet, for those who must know its id, its graph or its folder before
    /// anything of it runs.
    ///
    /// ```
    /// let env = sage::Environment::local("words");
    /// env.from_iter(["a", "b"]).sink(|_| {});
    /// let job = env.prepare()?;
    /// assert_eq!(job.graph().tasks.len(), 1);
    /// job.start()?.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`submit`](Self::submit). Until the job has been started and is over, or is dropped, the environment makes no
    /// other. One that is dropped has taken the sources that can be read only once.
    pub fn prepare(&self) -> Result<PreparedJob, SubmitError> {
        start::prepare(&self.name, &self.options, &self.graph, &self.registry, &self.claims)
    }
}
