//! Where records change threads: a chain ends in an exchange, and the stream goes on from an inlet.

use super::factory::Factory;
use super::pipe::{FromInlet, Keeping, MaybeExchanged, Pipe, Replicas, Then};
use super::{DataStream, Stream};
use crate::chain::{Push, Stage};
use crate::exchange::{Broadcast, Chosen, Lanes, Partitioning, RoundRobin, Tee};
use crate::graph::wiring::BuildContext;
use crate::graph::{Chain, Edge, Head, Mistake, SharedGraph, connect};
use crate::ids::{ChainId, EdgeId, InletId, NodeId};
use crate::submit_error::SubmitError;

impl<P: Pipe> Stream<P> {
    /// Merges two streams into one with all their records. Between the two there is no order. Ends when both have
    /// ended.
    pub fn union<Q: Pipe<Out = P::Out>>(self, other: Stream<Q>) -> DataStream<P::Out> {
        let parallelism = self.replicas().max(other.replicas());
        let ours = self.graph.is(&other.graph);
        let (graph, inlet) = self.exchange(Partitioning::Forward, parallelism, RoundRobin::new);
        if ours {
            other.exchange_into(Partitioning::Forward, inlet, RoundRobin::new);
        } else {
            graph.with(|graph| {
                let operator = graph.nodes.last().map_or_else(String::new, |node| node.name.clone());
                graph.mistakes.push(Mistake::ForeignStream { operator });
            });
        }
        Self::from_inlet(graph, inlet, Replicas::Any)
    }

    /// Ends the chain here: the operators that follow run on another thread, in as many replicas as this chain.
    pub fn on_another_thread(self) -> DataStream<P::Out> {
        let parallelism = self.replicas();
        let (graph, inlet) = self.exchange(Partitioning::Forward, parallelism, RoundRobin::new);
        Self::from_inlet(graph, inlet, Replicas::Any)
    }

    /// The former name of [`on_another_thread`](Self::on_another_thread).
    #[deprecated(since = "0.1.0", note = "use `on_another_thread`")]
    pub fn boxed(self) -> DataStream<P::Out> {
        self.on_another_thread()
    }

    /// Deals the records out in turn to `replicas` replicas of the next chain; one that has no room is passed over, so
    /// that it holds up no other. Order is lost between the replicas.
    pub fn rebalance(self, replicas: usize) -> DataStream<P::Out> {
        let (graph, inlet) = self.exchange(Partitioning::RoundRobin, replicas, RoundRobin::new);
        Self::from_inlet(graph, inlet, Replicas::Any)
    }

    /// Sends each record to one of `replicas` replicas of the next chain. `choose` gets the record and the number of
    /// replicas, and returns the replica's number, from 0. A number that is too large fails the job.
    pub fn partition_by<F>(self, replicas: usize, choose: F) -> DataStream<P::Out>
    where
        F: FnMut(&P::Out, usize) -> usize + Clone + Send + 'static,
    {
        let (stream, node) = self.with_node("partition");
        let router = move |lanes, _replica| Chosen::new(lanes, choose.clone(), node);
        let (graph, inlet) = stream.exchange(Partitioning::Custom, replicas, router);
        Self::from_inlet(graph, inlet, Replicas::Fixed)
    }

    /// Sends every record to each of `replicas` replicas of the next chain.
    pub fn broadcast(self, replicas: usize) -> DataStream<P::Out>
    where
        P::Out: Clone,
    {
        let (graph, inlet) = self.exchange(Partitioning::Broadcast, replicas, |lanes, _| Broadcast::new(lanes));
        Self::from_inlet(graph, inlet, Replicas::Fixed)
    }

    /// Splits the stream into `N` streams, each with every record. A slow branch slows the others down. A branch that
    /// ends early, after a [`take`](Self::take), does not hold them up.
    pub fn tee<const N: usize>(self) -> [DataStream<P::Out>; N]
    where
        P::Out: Clone,
    {
        let parallelism = self.replicas();
        let (stream, from) = self.with_last_node();
        let graph = stream.graph.clone();
        let targets = [(); N].map(|()| {
            graph.with(|graph| {
                let inlet = graph.add_inlet(parallelism);
                (graph.add_edge(edge::<P::Out>(from, inlet, Partitioning::Forward)), inlet)
            })
        });
        let edges = targets.map(|(edge, _)| edge);
        stream.end(move |cx: &mut BuildContext<'_>| {
            Ok(Tee::new(edges.iter().map(|&edge| cx.round_robin::<P::Out>(edge)).collect()))
        });
        targets.map(|(_, inlet)| Self::from_inlet(graph.clone(), inlet, Replicas::Any))
    }

    /// The former name of [`tee`](Self::tee).
    #[deprecated(since = "0.1.0", note = "use `tee`")]
    pub fn fork<const N: usize>(self) -> [DataStream<P::Out>; N]
    where
        P::Out: Clone,
    {
        self.tee()
    }

    pub(super) fn replicas(&self) -> usize {
        match self.head {
            Head::Source { parallelism } => parallelism,
            Head::Inlet(inlet) => self.graph.with(|graph| graph.inlets[inlet.0].parallelism),
        }
    }

    pub(super) fn from_inlet(graph: SharedGraph, inlet: InletId, replicas: Replicas) -> DataStream<P::Out> {
        let pipe = FromInlet::new(inlet, replicas);
        Stream { graph, pipe, nodes: Vec::new(), head: Head::Inlet(inlet) }
    }

    /// Brings the stream into one replica.
    pub(super) fn gathered(self) -> Stream<MaybeExchanged<P>> {
        if self.replicas() == 1 {
            return self.with_pipe(MaybeExchanged::Fused);
        }
        let (graph, inlet) = self.exchange(Partitioning::Gather, 1, RoundRobin::new);
        let pipe = MaybeExchanged::Exchanged(FromInlet::new(inlet, Replicas::Own));
        Stream { graph, pipe, nodes: Vec::new(), head: Head::Inlet(inlet) }
    }

    /// Ends the chain in an exchange to a new inlet of `replicas` replicas.
    pub(super) fn exchange<N: Push<P::Out> + 'static>(
        self,
        partitioning: Partitioning,
        replicas: usize,
        router: impl Fn(Lanes<P::Out>, usize) -> N + Send + 'static,
    ) -> (SharedGraph, InletId) {
        let graph = self.graph.clone();
        let inlet = graph.with(|graph| graph.add_inlet(replicas));
        self.exchange_into(partitioning, inlet, router);
        (graph, inlet)
    }

    pub(super) fn exchange_into<N: Push<P::Out> + 'static>(
        self,
        partitioning: Partitioning,
        inlet: InletId,
        router: impl Fn(Lanes<P::Out>, usize) -> N + Send + 'static,
    ) -> EdgeId {
        let (stream, edge) = self.edge_to(partitioning, inlet);
        stream.end(move |cx: &mut BuildContext<'_>| Ok(router(cx.writers::<P::Out>(edge), cx.replica)));
        edge
    }

    /// Adds the edge from the end of the chain to an inlet.
    pub(super) fn edge_to(self, partitioning: Partitioning, inlet: InletId) -> (Self, EdgeId) {
        let (stream, from) = self.with_last_node();
        let edge = stream.graph.with(|graph| graph.add_edge(edge::<P::Out>(from, inlet, partitioning)));
        (stream, edge)
    }

    /// Adds a node for what runs at the end of the chain.
    pub(super) fn with_node(mut self, kind: &'static str) -> (Self, NodeId) {
        let node = self.graph.with(|graph| graph.add_node(kind, true));
        self.nodes.push(node);
        (self, node)
    }

    /// The last node of the chain. Where an exchange follows an exchange, the task between them gets one.
    pub(super) fn with_last_node(self) -> (Self, NodeId) {
        let node = match (self.nodes.last(), self.head) {
            (Some(&node), _) => node,
            (None, Head::Inlet(_)) => return self.with_node("forward"),
            (None, Head::Source { .. }) => unreachable!("a source has a node"),
        };
        (self, node)
    }

    /// Hands the chain, ended by what `end` makes, to the graph.
    pub(super) fn end<N: Push<P::Out> + 'static>(
        self,
        end: impl Fn(&mut BuildContext<'_>) -> Result<N, SubmitError> + Send + 'static,
    ) -> ChainId {
        let Self { graph, pipe, nodes, head } = self;
        let build = Box::new(move |cx: &mut BuildContext<'_>| {
            let end = end(cx)?;
            pipe.build(cx, end)
        });
        graph.with(|graph| graph.add_chain(Chain { nodes, head, build }))
    }
}

impl<P, F, K> Stream<Then<P, F, K>>
where
    P: Pipe,
    F: Factory,
    F::Operator: Stage<In = P::Out>,
    K: Keeping<P::Out>,
{
    /// Spreads the input of the operator just added over `replicas` replicas.
    pub(super) fn spread_before(self, replicas: usize) -> Stream<Then<MaybeExchanged<P>, F, K>> {
        if let Some(inlet) = self.pipe.before.retarget(F::PARTITIONING) {
            self.graph.with(|graph| graph.inlets[inlet.0].parallelism = replicas);
            return self.with_pipe(|Then { before, factory, keeping, node }| Then {
                before: MaybeExchanged::Fused(before),
                factory,
                keeping,
                node,
            });
        }
        let Then { before, factory, keeping, node } = self.pipe;
        let mut nodes = self.nodes;
        nodes.pop();
        let before = Stream { graph: self.graph, pipe: before, nodes, head: self.head };
        let router = factory.router(node);
        let (graph, inlet) = before.exchange(F::PARTITIONING, replicas, router);
        let before = MaybeExchanged::Exchanged(FromInlet::new(inlet, Replicas::Own));
        Stream { graph, pipe: Then { before, factory, keeping, node }, nodes: vec![node], head: Head::Inlet(inlet) }
    }
}

pub(super) fn edge<T: Send + 'static>(from: NodeId, to: InletId, partitioning: Partitioning) -> Edge {
    Edge { from, to, partitioning, connect: Box::new(connect::<T>) }
}
