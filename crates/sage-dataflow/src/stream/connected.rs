//! Connected streams: streams of different types that go into one operator.
//!
//! The operator's task has one inbox, of a sum type. Each stream is wrapped into it at the end of its own chain, where
//! that costs no task, and brought to the inlet by a router of its own; [`Joint`] does that for every operator of
//! several inputs.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::Stream;
use super::factory::{Cloned, Factory, One};
use super::keyed::KeyedStream;
use super::pipe::{FromInlet, ParallelStep, Pipe, Replicas, Then};
use crate::chain::{Fault, NotKept, Position, Push, Signal, Stage, TaskContext};
use crate::exchange::{ByKey, Partitioning, RoundRobin, Weigh};
use crate::graph::wiring::BuildContext;
use crate::graph::{EdgePlan, connect_weighed};
use crate::graph::{Head, Mistake, SharedGraph};
use crate::guarded::opaque;
use crate::ids::{InletId, NodeId};
use crate::key::KeySelector;
use crate::operator::zip::DEFAULT_AHEAD;
use crate::operator::{CoMap, CoProcess, HasInput, In2, In3, In4, In5, Of, Output, Zip};
use crate::time::Timestamp;

/// Two to five streams that go into one operator. Each has its own type of records.
///
/// [`Stream::connect`] and [`KeyedStream::connect`] make it. Add an operator to it: [`co_map`], or `co_process` on
/// streams grouped by key. Records of one stream keep their order in each lane, or per key. Between streams there is no
/// order.
///
/// ```
/// let env = sage::Environment::local("connect");
/// let celsius = env.from_iter([20.0, 30.0]);
/// let words = env.from_iter(["cold"]);
/// let readings = celsius.connect(words).co_map(|degrees| format!("{degrees} °C"), |word| word.to_owned()).collect();
/// env.run()?;
/// let mut readings = readings.take();
/// readings.sort();
/// assert_eq!(readings, ["20 °C", "30 °C", "cold"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With a state per key, which all streams share:
///
/// ```
/// use sage::{Environment, In2};
///
/// let env = Environment::local("balances");
/// let paid_in = env.from_iter([("ada", 5_u64), ("ada", 2)]).key_by(|paid| paid.0);
/// let paid_out = env.from_iter([("ada", "rent", 4_u64)]).key_by(|paid| paid.0);
/// let events = paid_in
///     .connect(paid_out)
///     .co_process(0_i64, |balance, paid, out| {
///         match paid {
///             In2::A((_, amount)) => *balance += amount as i64,
///             In2::B((_, _, amount)) => *balance -= amount as i64,
///         }
///         out.push(*balance);
///     })
///     .collect();
/// env.run()?;
/// assert_eq!(events.take().last(), Some(&3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`co_map`]: ConnectedStreams::co_map
#[must_use = "connected streams that no operator takes are an error when their environment is submitted"]
pub struct ConnectedStreams<I> {
    inputs: I,
}
opaque!(ConnectedStreams<I>);

/// The stream an operator of several inputs makes.
type Connected<T, F> = Stream<Then<FromInlet<T>, F>>;

impl<P: Pipe> Stream<P> {
    /// Connects this stream with one of another type, for an operator that takes the records of both.
    ///
    /// Up to five streams can be connected: `a.connect(b).connect(c)`. A stream of another environment is a
    /// [`SubmitError::ForeignStream`](crate::SubmitError::ForeignStream) when this one is submitted.
    pub fn connect<Q: Pipe>(self, other: Stream<Q>) -> ConnectedStreams<(Self, Stream<Q>)> {
        ConnectedStreams { inputs: (self, other) }
    }

    /// Pairs the i-th record of this stream with the i-th of another. Runs in one replica.
    ///
    /// Ends with the shorter stream, and ends the part upstream too. If a stream runs in several replicas, its records
    /// are gathered, in no order between replicas. One stream may be up to 100 million records ahead of the other; see
    /// [`max_ahead`](Stream::max_ahead).
    ///
    /// ```
    /// let env = sage::Environment::local("zip");
    /// let pairs = env.from_iter(["a", "b"]).zip(env.from_iter(0_u64..)).collect();
    /// env.run()?;
    /// assert_eq!(pairs.take(), [("a", 0), ("b", 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn zip<Q: Pipe>(self, other: Stream<Q>) -> Connected<In2<P::Out, Q::Out>, Cloned<Zip<P::Out, Q::Out>, One>> {
        let joint = Joint::new(&self.graph, "zip", false, 1);
        joint.input::<0, _, _>(self, Partitioning::Gather, |lanes, _| RoundRobin::new(lanes, 0));
        joint.input::<1, _, _>(other, Partitioning::Gather, |lanes, _| RoundRobin::new(lanes, 0));
        joint.then(Cloned::new(Zip::new(DEFAULT_AHEAD)))
    }
}

impl<A: Send + 'static, B: Send + 'static> Connected<In2<A, B>, Cloned<Zip<A, B>, One>> {
    /// Sets how many records one of the zipped streams may be ahead of the other, 1 or more. Default: 100 million. They
    /// are kept in memory, because holding one stream back could block the other if both come from one source. One more
    /// fails the job with a [`ZipError`](crate::ZipError). A zero is a
    /// [`SubmitError::OperatorOption`](crate::SubmitError::OperatorOption).
    pub fn max_ahead(mut self, records: usize) -> Self {
        if records == 0 {
            let message = "`max_ahead` is 0; it may be 1 or more".to_owned();
            self.graph.with(|graph| graph.add_mistake(self.pipe.node, message));
        }
        self.pipe.factory.operator.max_ahead = records;
        self
    }
}

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// Connects this stream with one of another type that is grouped by a key of the same type. Equal keys of both go
    /// to the same replica.
    ///
    /// Up to five streams can be connected: `a.connect(b).connect(c)`. A stream of another environment is a
    /// [`SubmitError::ForeignStream`](crate::SubmitError::ForeignStream) when this one is submitted.
    pub fn connect<Q, R>(self, other: KeyedStream<Q, R>) -> ConnectedStreams<(Self, KeyedStream<Q, R>)>
    where
        Q: Pipe,
        R: KeySelector<Q::Out, Key = S::Key>,
    {
        ConnectedStreams { inputs: (self, other) }
    }
}

/// `connect` with one more stream.
macro_rules! connect {
    ($($P:ident $S:ident),+; $Q:ident $R:ident) => {
        impl<$($P: Pipe),+> ConnectedStreams<($(Stream<$P>,)+)> {
            /// Connects one more stream.
            pub fn connect<$Q: Pipe>(self, other: Stream<$Q>) -> ConnectedStreams<($(Stream<$P>,)+ Stream<$Q>)> {
                #[expect(non_snake_case, reason = "one name for a stream and its type")]
                let ($($P,)+) = self.inputs;
                ConnectedStreams { inputs: ($($P,)+ other) }
            }
        }

        impl<K, $($P: Pipe, $S: KeySelector<$P::Out, Key = K>),+> ConnectedStreams<($(KeyedStream<$P, $S>,)+)> {
            /// Connects one more stream, grouped by a key of the same type.
            pub fn connect<$Q: Pipe, $R: KeySelector<$Q::Out, Key = K>>(
                self,
                other: KeyedStream<$Q, $R>,
            ) -> ConnectedStreams<($(KeyedStream<$P, $S>,)+ KeyedStream<$Q, $R>)> {
                #[expect(non_snake_case, reason = "one name for a stream and its type")]
                let ($($P,)+) = self.inputs;
                ConnectedStreams { inputs: ($($P,)+ other) }
            }
        }
    };
}

/// The operators on so many connected streams.
macro_rules! operators {
    ($In:ident: $($P:ident $S:ident $F:ident $function:ident $index:tt),+) => {
        impl<$($P: Pipe),+> ConnectedStreams<($(Stream<$P>,)+)> {
            /// Replaces each record by the result of its stream's function.
            ///
            /// Runs in as many replicas as the widest of the streams, or as a `parallelism` after it says. Records are
            /// dealt out to the replicas in turn.
            pub fn co_map<O, $($F),+>(
                self,
                $($function: $F),+
            ) -> Stream<impl ParallelStep<In = $In<$($P::Out),+>, Out = O>>
            where
                O: Send + 'static,
                $($F: FnMut($P::Out) -> O + Clone + Send + 'static),+
            {
                let replicas = [$(self.inputs.$index.replicas()),+].into_iter().fold(1, usize::max);
                let joint = Joint::new(&self.inputs.0.graph, "co-map", true, replicas);
                $(joint.input::<$index, _, _>(self.inputs.$index, Partitioning::RoundRobin, RoundRobin::new);)+
                joint.then(Cloned::new(CoMap::new(($($function,)+))))
            }
        }

        impl<K, $($P: Pipe, $S: KeySelector<$P::Out, Key = K>),+> ConnectedStreams<($(KeyedStream<$P, $S>,)+)>
        where
            K: std::hash::Hash + Eq + Send + 'static,
        {
            /// Replaces each record by the result of its stream's function.
            ///
            /// Runs in as many replicas as the widest of the streams, or as a `parallelism` after it says. Equal keys
            /// go to the same replica.
            pub fn co_map<O, $($F),+>(
                self,
                $($function: $F),+
            ) -> Stream<impl ParallelStep<In = $In<$($P::Out),+>, Out = O>>
            where
                O: Send + 'static,
                $($F: FnMut($P::Out) -> O + Clone + Send + 'static),+
            {
                let joint = self.keyed_joint("co-map", true);
                $(joint.keyed_input::<$index, _, _>(self.inputs.$index);)+
                joint.then(Cloned::new(CoMap::new(($($function,)+))))
            }

            /// Calls `function` with each record and the state of its key, which all the streams share and which starts
            /// as a clone of `initial`. Records that the function pushes go on at once.
            ///
            /// The states of all keys are kept until the end of input. Runs in as many replicas as the widest of the
            /// streams, or as a `parallelism` after it says.
            pub fn co_process<V, O, G>(
                self,
                initial: V,
                function: G,
            ) -> Stream<impl ParallelStep<In = $In<$($P::Out),+>, Out = O>>
            where
                V: Clone + Send + 'static,
                O: Send + 'static,
                G: FnMut(&mut V, $In<$($P::Out),+>, &mut Output<'_, O>) + Clone + Send + 'static,
            {
                let joint = self.keyed_joint("co-process", false);
                let keys = ($(self.inputs.$index.key.clone(),)+);
                $(joint.keyed_input::<$index, _, _>(self.inputs.$index);)+
                joint.then(Cloned::new(CoProcess::new(keys, initial, function)))
            }

            fn keyed_joint<T: Send + 'static>(&self, kind: &'static str, one_to_one: bool) -> Joint<T> {
                let replicas = [$(self.inputs.$index.stream.replicas()),+].into_iter().fold(1, usize::max);
                Joint::new(&self.inputs.0.stream.graph, kind, one_to_one, replicas)
            }
        }
    };
}

connect!(P0 S0, P1 S1; P2 S2);
connect!(P0 S0, P1 S1, P2 S2; P3 S3);
connect!(P0 S0, P1 S1, P2 S2, P3 S3; P4 S4);
operators!(In2: P0 S0 F0 first 0, P1 S1 F1 second 1);
operators!(In3: P0 S0 F0 first 0, P1 S1 F1 second 1, P2 S2 F2 third 2);
operators!(In4: P0 S0 F0 first 0, P1 S1 F1 second 1, P2 S2 F2 third 2, P3 S3 F3 fourth 3);
operators!(In5: P0 S0 F0 first 0, P1 S1 F1 second 1, P2 S2 F2 third 2, P3 S3 F3 fourth 3, P4 S4 F4 fifth 4);

/// An operator of several inputs under construction: its node, and the inlet they are brought to as records of `T`.
pub(super) struct Joint<T> {
    graph: SharedGraph,
    node: NodeId,
    inlet: InletId,
    records: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Joint<T> {
    pub(super) fn new(graph: &SharedGraph, kind: &'static str, one_to_one: bool, replicas: usize) -> Self {
        let (node, inlet) = graph.with(|graph| (graph.add_node(kind, one_to_one), graph.add_inlet(replicas)));
        Self { graph: graph.clone(), node, inlet, records: PhantomData }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Brings a stream to the inlet as input `INPUT`. To be called in the order of the inputs: the inbox numbers them
    /// by their edges.
    pub(super) fn input<const INPUT: usize, P, N>(
        &self,
        stream: Stream<P>,
        partitioning: Partitioning,
        router: impl Fn(crate::exchange::Lanes<T>, usize) -> N + Send + 'static,
    ) where
        P: Pipe,
        T: HasInput<INPUT, Part = P::Out>,
        N: Push<T> + 'static,
    {
        if !self.graph.is(&stream.graph) {
            self.graph.with(|graph| {
                let operator = graph.node(self.node).name.clone();
                graph.mistakes.push(Mistake::ForeignStream { operator });
            });
            return;
        }
        let (stream, edge) = stream.edge_to(partitioning, self.inlet);
        stream.end(move |cx: &mut BuildContext<'_>| {
            Ok(Wrap::<N, T, INPUT> { next: router(cx.writers::<T>(edge), cx.replica), sum: PhantomData })
        });
        // Its lanes carry the records of this input alone, which are weighed as they are bare.
        let connect = |plan: &EdgePlan<'_>| {
            let weigh = plan.weights.of::<T::Part>();
            let weigh = weigh.map(|weigh| Arc::new(move |record: &T| weigh(record.part())) as Weigh<T>);
            connect_weighed(plan, weigh)
        };
        self.graph.with(|graph| graph.edges[edge.0].connect = Box::new(connect));
    }

    /// Brings a stream to the inlet by its key. The key function runs before the exchange, in the name of the operator
    /// after it.
    pub(super) fn keyed_input<const INPUT: usize, P, S>(&self, keyed: KeyedStream<P, S>)
    where
        P: Pipe,
        S: KeySelector<P::Out>,
        T: HasInput<INPUT, Part = P::Out>,
    {
        let KeyedStream { stream, key } = keyed;
        let (key, node) = (Of::<S, INPUT>(key), self.node);
        self.input::<INPUT, _, _>(stream, Partitioning::Hash, move |lanes, _| ByKey::new(lanes, key.clone(), node));
    }

    /// Puts the operator behind the inlet, where only the number of replicas may still change.
    pub(super) fn then<F>(self, factory: F) -> Connected<T, F>
    where
        F: Factory,
        F::Operator: Stage<In = T>,
    {
        let (before, node) = (FromInlet::new(self.inlet, Replicas::Own), self.node);
        let pipe = Then { before, factory, keeping: NotKept, node };
        Stream { graph: self.graph, pipe, nodes: vec![node], head: Head::Inlet(self.inlet) }
    }
}

/// Wraps each record as one of its input, for the router. It is no operator: it has no node and counts nothing.
struct Wrap<N, T, const INPUT: usize> {
    next: N,
    sum: PhantomData<fn() -> T>,
}

impl<T: HasInput<INPUT>, N: Push<T>, const INPUT: usize> Push<T::Part> for Wrap<N, T, INPUT> {
    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.next.open(at)
    }

    #[inline(always)]
    fn push(&mut self, record: T::Part, at: &mut Position) -> Result<(), Fault> {
        self.next.push(T::wrap(record), at)
    }

    #[inline(always)]
    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.next.attend(at)
    }

    fn wanted(&self, outside: bool) -> bool {
        self.next.wanted(outside)
    }

    fn publish(&mut self) {
        self.next.publish();
    }

    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        self.next.signal(signal, at)
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.next.close(cx);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.next.wake_at()
    }

    fn awaits<'a>(&'a self, descriptors: &mut Vec<BorrowedFd<'a>>) {
        self.next.awaits(descriptors);
    }
}
