//! `count` of a stream by key. Over several replicas, each producing replica counts first, and sends numbers in place
//! of records.

use std::sync::Arc;

use super::boundary::edge;
use super::factory::Many;
use super::keyed::KeyedStream;
use super::pipe::{FromInlet, KeepTo, Keeping, Pipe, Replicas, Step};
use super::{Stream, pipe};
use crate::chain::{DeadLetter, Link, NotKept, Nowhere, Push};
use crate::exchange::{Combining, Partitioning};
use crate::graph::Head;
use crate::graph::wiring::BuildContext;
use crate::guarded::opaque;
use crate::ids::{InletId, NodeId};
use crate::key::KeySelector;
use crate::operator::{AddByKey, CountByKey};
use crate::submit_error::SubmitError;
use crate::task::Task;

/// A count of the records of each key.
pub(super) struct Counted<P: Pipe, S: KeySelector<P::Out>, K = NotKept> {
    counting: Counting<P, S::Key>,
    key: S,
    keeping: K,
    node: NodeId,
}
opaque!([P: Pipe, S: KeySelector<P::Out>, K] Counted<P, S, K>);

enum Counting<P, K> {
    /// All records, in the chain that they come from.
    Records(P),
    /// What was counted before the exchange.
    Counts(FromInlet<(K, u64)>),
}

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// Counts the records of each key. At the end of input, emits a pair of key and number for each key, in no
    /// particular order.
    ///
    /// Before records go to several replicas they are counted where they are, up to 131,072 keys at a time, and the
    /// numbers are sent in their place. The report counts records all the same.
    pub fn count(self) -> Stream<impl pipe::ParallelStep<In = P::Out, Out = (S::Key, u64)>> {
        let Self { stream, key } = self;
        let node = stream.graph.with(|graph| graph.add_node("keyed-count", false));
        let counted = |counting| Counted { counting, key: key.clone(), keeping: NotKept, node };
        let replicas = stream.replicas();
        if replicas > 1 {
            let (graph, inlet) = combined(stream, &key, node, replicas);
            let pipe = counted(Counting::Counts(FromInlet::new(inlet, Replicas::Own)));
            return Stream { graph, pipe, nodes: vec![node], head: Head::Inlet(inlet) };
        }
        let Stream { graph, pipe, mut nodes, head } = stream;
        nodes.push(node);
        Stream { graph, pipe: counted(Counting::Records(pipe)), nodes, head }
    }
}

/// Ends a chain in an exchange of what was counted in it.
fn combined<P: Pipe, S: KeySelector<P::Out>>(
    stream: Stream<P>,
    key: &S,
    node: NodeId,
    replicas: usize,
) -> (super::SharedGraph, InletId) {
    let (stream, from) = stream.with_last_node();
    let (graph, key) = (stream.graph.clone(), key.clone());
    let (inlet, edge) = graph.with(|graph| {
        let inlet = graph.add_inlet(replicas);
        (inlet, graph.add_edge(edge::<(S::Key, u64)>(from, inlet, Partitioning::Hash)))
    });
    stream.end(move |cx: &mut BuildContext<'_>| {
        let taken = cx.taken_for(node);
        Ok(Combining::new(cx.writers::<(S::Key, u64)>(edge), key.clone(), node, taken))
    });
    (graph, inlet)
}

impl<P: Pipe, S: KeySelector<P::Out>, K: Keeping<P::Out>> Pipe for Counted<P, S, K> {
    type Out = (S::Key, u64);

    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let place = cx.place(self.node, false);
        match &self.counting {
            Counting::Records(before) => {
                let handling = self.keeping.handling(cx);
                before.build(cx, Link::new(CountByKey::new(self.key.clone()), next, Nowhere, handling, place))
            }
            Counting::Counts(inlet) => {
                let letters = self.keeping.letters().map(|edge| cx.round_robin::<DeadLetter<P::Out>>(edge));
                // The records were counted as taken where they came.
                Ok(inlet.build_counted(cx, Link::new(AddByKey::new(), next, letters, NotKept, place), Arc::default()))
            }
        }
    }
}

impl<P: Pipe, S: KeySelector<P::Out>, K: Keeping<P::Out>> Step for Counted<P, S, K> {
    type In = P::Out;
    type Replicas = Many;
    type Spread = Self;
    type Kept = Counted<P, S, K::Kept>;

    fn node(&self) -> NodeId {
        self.node
    }

    fn spread(stream: Stream<Self>, replicas: usize) -> Stream<Self> {
        let Stream { graph, pipe: Self { counting, key, keeping, node }, mut nodes, head } = stream;
        let inlet = match counting {
            Counting::Counts(inlet) => {
                graph.with(|graph| graph.inlets[inlet.inlet.0].parallelism = replicas);
                let pipe = Self { counting: Counting::Counts(inlet), key, keeping, node };
                return Stream { graph, pipe, nodes, head };
            }
            Counting::Records(before) => {
                nodes.pop();
                combined(Stream { graph: graph.clone(), pipe: before, nodes, head }, &key, node, replicas).1
            }
        };
        let counting = Counting::Counts(FromInlet::new(inlet, Replicas::Own));
        let pipe = Self { counting, key, keeping, node };
        Stream { graph, pipe, nodes: vec![node], head: Head::Inlet(inlet) }
    }

    fn keep(self, copy: fn(&P::Out) -> P::Out, to: KeepTo) -> Self::Kept {
        let Self { counting, key, keeping, node } = self;
        Counted { counting, key, keeping: keeping.keep(copy, to), node }
    }
}
