//! Streams: how a program describes a pipeline.
//!
//! A [`Stream`] is a chain under construction: each operator wraps the pipe before it, so that the compiler makes one
//! loop of the chain. Where records have to change threads (another parallelism, keys over replicas, a union, a tee,
//! [`on_another_thread`](Stream::on_another_thread)), the chain goes to the graph, and the stream goes on from an
//! inlet: a [`DataStream`].

mod boundary;
mod broadcast;
mod connected;
mod expiring;
pub(crate) mod factory;
mod failing;
mod feedback;
mod iterate;
mod joined;
mod keyed;
mod lacking;
mod map_async;
pub(crate) mod pipe;
mod sinks;
mod summed;
mod window_join;
mod windowed;

use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

pub use broadcast::BroadcastStream;
pub use connected::ConnectedStreams;
pub use expiring::{ByClockTime, ByEventTime, ExpiringStream};
use factory::{Cloned, Factory, Made, Many, One};
pub use feedback::Feedback;
pub use joined::JoinedStreams;
pub use keyed::KeyedStream;
pub use lacking::InEventTime;
use pipe::{FromInlet, FromSource, MaybeExchanged, ParallelStep, Pipe, Step, Then};
pub use sinks::SinkHandle;
pub use window_join::{Aligned, WindowedJoin};
pub use windowed::{ByClock, EventWindows, WindowedStream, Windowing, WindowsOf};

use crate::BoxError;
use crate::chain::{NotKept, Operator, Stage};
use crate::graph::{Graph, Head, Mistake, SharedGraph};
use crate::ids::NodeId;
use crate::key::{Borrowed, Computed, Key, Whole};
use crate::operator::{
    Batch, Filter, FlatMap, FlatMapInto, FoldFunction, Gather, GatherAll, Inspect, Map, Output, Reducing, Take, TryMap,
    counting, folding,
};
use crate::source::{PerReplica, RequestSources, Source, SourceFactory};

/// A stream of records of type `P::Out`. Operators added to it are fused into one chain, which runs on one thread.
///
/// A stream's functions are `FnMut + Clone + Send + 'static`. Each replica and each run has its own clone, which runs
/// on one thread, so a function may keep state without locks. A function that panics fails the job, as an error does.
///
/// A stream must end in a sink, or submitting its environment fails with [`SubmitError::MissingSink`].
///
/// [`SubmitError::MissingSink`]: crate::SubmitError::MissingSink
#[must_use = "a stream that does not end in a sink is an error when its environment is submitted"]
pub struct Stream<P: Pipe> {
    graph: SharedGraph,
    pipe: P,
    nodes: Vec<NodeId>,
    head: Head,
}

/// A stream that begins at a task boundary: the type to name in signatures.
///
/// ```
/// use sage::{DataStream, Environment};
///
/// fn shout(words: DataStream<String>) -> DataStream<String> {
///     words.map(|word| word.to_uppercase()).on_another_thread()
/// }
///
/// let env = Environment::local("shout");
/// let shouted = shout(env.from_iter(["a".to_owned()]).on_another_thread()).collect();
/// env.run()?;
/// assert_eq!(shouted.take(), ["A"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type DataStream<T> = Stream<FromInlet<T>>;

/// The calls of a pipeline that is a service, as a stream: see
/// [`Environment::register_pipeline`](crate::Environment::register_pipeline).
pub type Requests<Q, R> = Stream<FromSource<RequestSources<Q, R>>>;

impl<P: Pipe> fmt::Debug for Stream<P> {
    /// With the names of the steps of its last chain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |graph: &Graph| self.nodes.iter().map(|&node| graph.node(node).name.clone()).collect::<Vec<_>>();
        f.debug_struct("Stream").field("steps", &self.graph.with(|graph| name(graph))).finish_non_exhaustive()
    }
}

impl<F: SourceFactory> Stream<FromSource<F>> {
    pub(crate) fn source(graph: &SharedGraph, kind: &'static str, factory: F) -> Self {
        let node = graph.with(|graph| graph.add_node(kind, true));
        Self {
            graph: graph.clone(),
            pipe: FromSource { factory, node },
            nodes: vec![node],
            head: Head::Source { parallelism: 1 },
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.pipe.node
    }
}

impl<S: Source, F: Fn(usize) -> S + Send + 'static> Stream<FromSource<PerReplica<F>>> {
    /// Runs the source in `replicas` replicas. The factory makes each with its own number.
    pub fn parallelism(mut self, replicas: usize) -> Self {
        self.head = Head::Source { parallelism: replicas };
        self
    }
}

impl<P: Pipe> Stream<P> {
    /// Names the operator or source just added. Names are unique in an environment. Default: the kind of operator with
    /// a number.
    pub fn named(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.graph.with(|graph| match self.nodes.last() {
            Some(&node) => graph.rename(node, name),
            None => graph.mistakes.push(Mistake::NothingToName { name }),
        });
        self
    }

    /// Replaces each record by the result of `function`.
    pub fn map<O, F>(self, function: F) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
    where
        O: Send + 'static,
        F: FnMut(P::Out) -> O + Clone + Send + 'static,
    {
        self.then("map", Map::new(function))
    }

    /// Replaces each record by the result of `function`. An error fails the job, and the report names the operator and
    /// the record.
    pub fn try_map<O, E, F>(self, function: F) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
    where
        O: Send + 'static,
        E: Into<BoxError> + 'static,
        F: FnMut(P::Out) -> Result<O, E> + Clone + Send + 'static,
    {
        self.then("try-map", TryMap::new(function))
    }

    /// Keeps the records for which `predicate` returns true.
    pub fn filter<F>(self, predicate: F) -> Stream<impl ParallelStep<In = P::Out, Out = P::Out>>
    where
        F: FnMut(&P::Out) -> bool + Clone + Send + 'static,
    {
        self.then("filter", Filter::new(predicate))
    }

    /// Replaces each record by the items of an iterator.
    pub fn flat_map<O, F>(self, function: F) -> Stream<impl ParallelStep<In = P::Out, Out = O::Item>>
    where
        O: IntoIterator + 'static,
        O::Item: Send + 'static,
        F: FnMut(P::Out) -> O + Clone + Send + 'static,
    {
        self.then("flat-map", FlatMap::new(function))
    }

    /// Replaces each record by the records that `function` pushes. Use it instead of [`flat_map`](Self::flat_map) when
    /// the items borrow from the record.
    ///
    /// ```
    /// let env = sage::Environment::local("split");
    /// let words = env
    ///     .from_iter(["a b", "c"])
    ///     .flat_map_into(|line, words| words.extend(line.split(' ').map(str::to_owned)))
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(words.take(), ["a", "b", "c"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flat_map_into<O, F>(self, function: F) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
    where
        O: Send + 'static,
        F: FnMut(P::Out, &mut Output<'_, O>) + Clone + Send + 'static,
    {
        self.then("flat-map", FlatMapInto::new(function))
    }

    /// Calls `function` with a reference to each record, and passes the record on.
    pub fn inspect<F>(self, function: F) -> Stream<impl ParallelStep<In = P::Out, Out = P::Out>>
    where
        F: FnMut(&P::Out) + Clone + Send + 'static,
    {
        self.then("inspect", Inspect::new(function))
    }

    /// Runs your own operator. `factory` makes one per replica, so it need not be `Clone`.
    pub fn operator<O, F>(self, factory: F) -> Stream<impl ParallelStep<In = P::Out, Out = O::Out>>
    where
        O: Operator<In = P::Out>,
        F: Fn() -> O + Send + 'static,
    {
        self.then_made("operator", Made(factory))
    }

    /// Gathers the records into batches of `size`, in their order. The last batch comes at the end of input, and of
    /// every drain, with the records it has. Each replica makes batches of its own.
    ///
    /// A `size` of 0 is a [`SubmitError::OperatorOption`](crate::SubmitError::OperatorOption).
    ///
    /// ```
    /// let env = sage::Environment::local("batches");
    /// let sums = env.from_iter(1..=5).batch(2).map(|batch| batch.iter().sum::<i32>()).collect();
    /// env.run()?;
    /// assert_eq!(sums.take(), [3, 7, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(self, size: usize) -> Stream<impl ParallelStep<In = P::Out, Out = Vec<P::Out>>> {
        self.batches(size, None)
    }

    /// As [`batch`](Self::batch), but a batch also goes on when its first record came `within` ago, by the
    /// environment's [`clock`](crate::Environment::clock), to the millisecond.
    ///
    /// In the chain of a source that blocks inside its own `next`, that happens only when it returns. Put
    /// [`on_another_thread`](Self::on_another_thread) behind such a source.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let env = sage::Environment::local("batches");
    /// let batches = env.from_iter(1..=3).batch_within(100, Duration::from_millis(50)).collect();
    /// env.run()?;
    /// assert_eq!(batches.take(), [[1, 2, 3]]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch_within(
        self,
        size: usize,
        within: Duration,
    ) -> Stream<impl ParallelStep<In = P::Out, Out = Vec<P::Out>>> {
        self.batches(size, Some(within))
    }

    fn batches(self, size: usize, within: Option<Duration>) -> Stream<Then<P, Cloned<Batch<P::Out>>>> {
        let problem = (size == 0).then(|| "a batch of 0 records is never full; give it 1 at least".to_owned());
        self.then("batch", Batch::new(size, within)).checked(problem)
    }

    /// Keeps the first `count` records and then ends the stream, and the part upstream of it. Runs in one replica.
    pub fn take(self, count: u64) -> Stream<impl Step<In = P::Out, Out = P::Out>> {
        self.gathered().then_made("take", Cloned::<_, One>::new(Take::new(count)))
    }

    /// Folds the whole stream into one accumulator, and emits it at the end of input. Runs in one replica.
    pub fn fold<A, F>(self, initial: A, function: F) -> Stream<impl Step<In = P::Out, Out = A>>
    where
        A: Clone + Send + 'static,
        F: FnMut(&mut A, P::Out) + Clone + Send + 'static,
    {
        self.gather("fold", folding(initial, function))
    }

    /// As [`fold`](Self::fold), for a function that may fail, or that has something to open and close: see
    /// [`FoldFunction`](crate::FoldFunction).
    pub fn fold_with<A, F>(self, initial: A, function: F) -> Stream<impl Step<In = P::Out, Out = A>>
    where
        A: Clone + Send + 'static,
        F: FoldFunction<A, P::Out>,
    {
        self.gather("fold", folding(initial, function))
    }

    /// Reduces the whole stream to one record, and emits it at the end of input; emits none if the stream is empty.
    /// Runs in one replica.
    pub fn reduce<F>(self, function: F) -> Stream<impl Step<In = P::Out, Out = P::Out>>
    where
        F: FnMut(P::Out, P::Out) -> P::Out + Clone + Send + 'static,
    {
        self.gather("reduce", Reducing(function))
    }

    /// Counts the records of the whole stream, and emits the number at the end of input. Runs in one replica.
    pub fn count(self) -> Stream<impl Step<In = P::Out, Out = u64>> {
        self.gather("count", counting())
    }

    /// Groups the records by key for the next operator. Equal keys go to the same replica.
    pub fn key_by<K, F>(self, key: F) -> KeyedStream<P, Computed<F, K::Own>>
    where
        K: Key,
        F: FnMut(&P::Out) -> K + Clone + Send + 'static,
    {
        KeyedStream { stream: self, key: Computed::new(key) }
    }

    /// As [`key_by`](Self::key_by), for a key that is a part of the record. The operator copies each key once, not once
    /// per record.
    ///
    /// ```
    /// let env = sage::Environment::local("words");
    /// let words = env.from_iter(["a", "b", "a"].map(String::from));
    /// let counts = words.key_by_ref(|word| word.as_str()).count().collect();
    /// env.run()?;
    /// let mut counts = counts.take();
    /// counts.sort();
    /// assert_eq!(counts, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn key_by_ref<Q, F>(self, key: F) -> KeyedStream<P, Borrowed<F, Q>>
    where
        Q: Hash + Eq + ToOwned + ?Sized + 'static,
        Q::Owned: Key,
        F: FnMut(&P::Out) -> &Q + Clone + Send + 'static,
    {
        KeyedStream { stream: self, key: Borrowed::new(key) }
    }

    /// Sets a function that returns how many bytes a record of this type holds beside the size of the type, for
    /// [`Environment::queue_bytes`](crate::Environment::queue_bytes). It applies wherever records of this type wait in
    /// this environment; the last one set counts.
    ///
    /// Without it, the engine knows these bytes for texts, byte vectors and vectors of numbers, as a record, in an
    /// `Option` or in a [`Timed`](crate::Timed). For other types it knows only the size of the type. The task that
    /// sends a record calls the function once for it.
    ///
    /// ```
    /// struct Page {
    ///     address: u64,
    ///     text: String,
    /// }
    ///
    /// let env = sage::Environment::local("pages").queue_bytes(8 << 20);
    /// let pages = env.from_iter([Page { address: 1, text: "A page.".to_owned() }]);
    /// let found = pages.weigh(|page| page.text.capacity()).rebalance(2).map(|page| page.address).collect();
    /// env.run()?;
    /// assert_eq!(found.take(), [1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn weigh(self, bytes: impl Fn(&P::Out) -> usize + Send + Sync + 'static) -> Self {
        self.graph.with(|graph| graph.weights.say(bytes));
        self
    }

    /// Emits the first of equal records at once, and drops the others. One copy of each different record stays in
    /// memory until the end of input.
    pub fn distinct(self) -> Stream<impl ParallelStep<In = P::Out, Out = P::Out>>
    where
        P::Out: Hash + Eq + Clone,
    {
        KeyedStream { stream: self, key: Whole }.distinct()
    }

    /// Adds an operator of which each replica has a clone.
    fn then<O>(self, kind: &'static str, operator: O) -> Stream<Then<P, Cloned<O>>>
    where
        O: Stage<In = P::Out, Side = Infallible> + Clone,
    {
        self.then_made(kind, Cloned::<_, Many>::new(operator))
    }

    fn then_made<F>(mut self, kind: &'static str, factory: F) -> Stream<Then<P, F>>
    where
        F: Factory,
        F::Operator: Stage<In = P::Out>,
    {
        let node = self.graph.with(|graph| graph.add_node(kind, F::Operator::FLAGS.one_to_one));
        self.nodes.push(node);
        self.with_pipe(|before| Then { before, factory, keeping: NotKept, node })
    }

    /// The same stream, with a longer pipe.
    fn with_pipe<Q: Pipe>(self, with: impl FnOnce(P) -> Q) -> Stream<Q> {
        Stream { graph: self.graph, pipe: with(self.pipe), nodes: self.nodes, head: self.head }
    }

    fn gather<G: Gather<P::Out>>(
        self,
        kind: &'static str,
        gather: G,
    ) -> Stream<Then<MaybeExchanged<P>, Cloned<GatherAll<G, P::Out>, One>>> {
        self.gathered().then_made(kind, Cloned::new(GatherAll::new(gather)))
    }
}
