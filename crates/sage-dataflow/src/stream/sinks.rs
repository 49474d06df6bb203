//! Sinks on a stream, and their options.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::Stream;
use super::boundary::edge;
use super::pipe::{FromInlet, Pipe, Replicas};
use crate::BoxError;
use crate::chain::ErrorPolicy;
use crate::exchange::Partitioning;
use crate::graph::wiring::BuildContext;
use crate::graph::{Head, SharedGraph};
use crate::ids::{ChainId, NodeId};
use crate::service::Asked;
use crate::sink::{CollectSink, Collected, FileLines, FnSink, PolledSink, Sink, SinkEnd, TryFnSink};
use crate::sync::lock;

/// A sink that was added to a stream: sets its name, its error policy and its parallelism.
pub struct SinkHandle<P, F> {
    graph: SharedGraph,
    pipe: Arc<Mutex<P>>,
    factory: Arc<Mutex<F>>,
    node: NodeId,
    chain: ChainId,
}

impl<P: Pipe> Stream<P> {
    /// Ends the stream: calls `function` with each record.
    pub fn sink<F>(self, function: F) -> SinkHandle<P, impl Fn(usize) -> FnSink<F, P::Out> + Send + 'static>
    where
        F: FnMut(P::Out) + Clone + Send + 'static,
    {
        self.sink_as("sink", move |_replica| FnSink::new(function.clone()))
    }

    /// Ends the stream: calls `function` with each record. An error fails the job, and the report names the sink and
    /// the record.
    pub fn try_sink<E, F>(
        self,
        function: F,
    ) -> SinkHandle<P, impl Fn(usize) -> TryFnSink<F, P::Out, E> + Send + 'static>
    where
        E: Into<BoxError> + 'static,
        F: FnMut(P::Out) -> Result<(), E> + Clone + Send + 'static,
    {
        self.sink_as("sink", move |_replica| TryFnSink::new(function.clone()))
    }

    /// Ends the stream in your own sink. `factory` makes one per replica; its argument is the replica's number, from 0.
    pub fn sink_to<K, F>(self, factory: F) -> SinkHandle<P, F>
    where
        K: Sink<In = P::Out>,
        F: Fn(usize) -> K + Send + 'static,
    {
        self.sink_as("sink", factory)
    }

    /// Ends the stream in an async sink, such as the sending half of a connection or of a channel. Runs in one replica:
    /// a parallel stream is gathered first.
    ///
    /// The sink is polled on its task's own thread, inside the job's async runtime. It is given the next record when it
    /// says that it is ready, is flushed when no record is waiting, and is closed when its input has ended well, as
    /// [`Sink::finish`](crate::Sink::finish) says. A cancel ends a wait for it at once; it is dropped before the job is
    /// over. It can be used once: in a second run, the job fails.
    ///
    /// To call an async function with each record, several at a time, use
    /// [`try_map_async`](Self::try_map_async), which has timeouts and retries, and then `sink(|_| {})`.
    ///
    /// ```
    /// use futures::StreamExt;
    ///
    /// let (sender, receiver) = futures::channel::mpsc::channel(8);
    /// let env = sage::Environment::local("forward");
    /// env.from_iter(1..=3).map(|n| n * n).forward(sender);
    /// env.run()?;
    /// drop(env);
    /// let got: Vec<i32> = futures::executor::block_on(receiver.collect());
    /// assert_eq!(got, [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forward<K>(self, sink: K) -> SinkHandle<(), ()>
    where
        K: futures_sink::Sink<P::Out, Error: Into<BoxError>> + Send + 'static,
    {
        let unused = Arc::new(Mutex::new(Some(sink)));
        let sink = self.gathered().sink_as("forward", move |_replica| PolledSink::new(unused.clone()));
        SinkHandle::name_only(sink.graph, sink.node, sink.chain)
    }

    /// Ends the stream: gathers the records in memory, for [`Collected::take`] after the run.
    pub fn collect(self) -> Collected<P::Out> {
        let collected = Collected::new();
        let into = collected.clone();
        self.sink_as("collect", move |_replica| CollectSink::new(into.clone()));
        collected
    }

    /// Ends the stream: writes each record as a line of the file at `path`. The file is created, or emptied, when the
    /// job starts. Runs in one replica: a parallel stream is gathered first.
    pub fn write_lines(self, path: impl Into<PathBuf>) -> SinkHandle<(), ()>
    where
        P::Out: Display,
    {
        let path = path.into();
        let sink = self.gathered().sink_as("write-lines", move |_replica| FileLines::new(path.clone()));
        SinkHandle::name_only(sink.graph, sink.node, sink.chain)
    }

    /// Ends a pipeline that is a service: hands each value to the caller that its record carries. See
    /// [`Environment::register_pipeline`](crate::Environment::register_pipeline).
    pub fn answer<R>(self) -> SinkHandle<P, impl Fn(usize) -> FnSink<fn(P::Out), P::Out> + Send + 'static>
    where
        R: Send + 'static,
        P: Pipe<Out = Asked<R, R>>,
    {
        self.sink_as("answer", |_replica| FnSink::new(Asked::answer as fn(P::Out)))
    }

    fn sink_as<K, F>(self, kind: &'static str, factory: F) -> SinkHandle<P, F>
    where
        K: Sink<In = P::Out>,
        F: Fn(usize) -> K + Send + 'static,
    {
        let Self { graph, pipe, mut nodes, head } = self;
        let node = graph.with(|graph| graph.add_node(kind, true));
        nodes.push(node);
        let (pipe, factory) = (Arc::new(Mutex::new(pipe)), Arc::new(Mutex::new(factory)));
        let chain = {
            let (pipe, factory) = (pipe.clone(), factory.clone());
            let build = Box::new(move |cx: &mut BuildContext<'_>| {
                let end = sink_end(&factory, node, cx);
                lock(&pipe).build(cx, end)
            });
            graph.with(|graph| graph.add_chain(crate::graph::Chain { nodes, head, build }))
        };
        SinkHandle { graph, pipe, factory, node, chain }
    }
}

fn sink_end<K: Sink>(factory: &Mutex<impl Fn(usize) -> K>, node: NodeId, cx: &mut BuildContext<'_>) -> SinkEnd<K> {
    cx.building(node);
    let sink = lock(factory)(cx.replica);
    SinkEnd::new(sink, node, cx.open_context(node), cx.errors(node))
}

impl<P, F> fmt::Debug for SinkHandle<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.graph.with(|graph| graph.node(self.node).name.clone());
        f.debug_struct("SinkHandle").field("name", &name).finish_non_exhaustive()
    }
}

impl SinkHandle<(), ()> {
    /// A handle that can only name its sink.
    fn name_only(graph: SharedGraph, node: NodeId, chain: ChainId) -> Self {
        let none = || Arc::new(Mutex::new(()));
        Self { graph, pipe: none(), factory: none(), node, chain }
    }
}

impl<P, F> SinkHandle<P, F> {
    /// Names the sink. Names are unique in an environment. Default: the kind of sink with a number.
    pub fn named(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.graph.with(|graph| graph.rename(self.node, name));
        self
    }

    /// Sets the error policy for records that the sink fails to write. Default: the policy of
    /// [`Environment::on_error`](crate::Environment::on_error).
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.with(|graph| graph.set_policy(self.node, policy));
        self
    }
}

impl<P, K, F> SinkHandle<P, F>
where
    P: Pipe,
    K: Sink<In = P::Out>,
    F: Fn(usize) -> K + Send + 'static,
{
    /// Runs the sink in `replicas` replicas, and deals the records out to them in turn.
    pub fn parallelism(self, replicas: usize) -> SinkHandle<(), ()> {
        let Self { graph, pipe, factory, node, chain } = self;
        let handle = SinkHandle::name_only(graph.clone(), node, chain);
        let retargeted = lock(&pipe).retarget(Partitioning::RoundRobin);
        graph.with(|graph| {
            if let Some(inlet) = retargeted {
                graph.inlets[inlet.0].parallelism = replicas;
                return;
            }
            let inlet = graph.add_inlet(replicas);
            let before = &mut graph.chains[chain.0];
            before.nodes.pop();
            let from = match (before.nodes.last(), before.head) {
                (Some(&node), _) => node,
                (None, Head::Inlet(_)) => {
                    let node = graph.add_node("forward", true);
                    graph.chains[chain.0].nodes.push(node);
                    node
                }
                (None, Head::Source { .. }) => unreachable!("a source has a node"),
            };
            let edge = graph.add_edge(edge::<P::Out>(from, inlet, Partitioning::RoundRobin));
            graph.chains[chain.0].build = Box::new(move |cx: &mut BuildContext<'_>| {
                let router = cx.round_robin::<P::Out>(edge);
                lock(&pipe).build(cx, router)
            });
            let build = Box::new(move |cx: &mut BuildContext<'_>| {
                let end = sink_end(&factory, node, cx);
                FromInlet::<P::Out>::new(inlet, Replicas::Any).build(cx, end)
            });
            graph.add_chain(crate::graph::Chain { nodes: vec![node], head: Head::Inlet(inlet), build });
        });
        handle
    }
}
