//! `count` and `sum` of a stream by key. Over several replicas, each producing replica adds up first, and sends sums in
//! place of records.

use std::sync::Arc;

use super::boundary::edge;
use super::factory::Many;
use super::keyed::KeyedStream;
use super::pipe::{FromInlet, KeepTo, Keeping, ParallelStep, Pipe, Replicas, Step};
use super::{SharedGraph, Stream};
use crate::chain::{DeadLetter, Link, NotKept, Nowhere, Push};
use crate::exchange::{Combining, Partitioning};
use crate::graph::Head;
use crate::graph::wiring::BuildContext;
use crate::guarded::opaque;
use crate::ids::{InletId, NodeId};
use crate::key::KeySelector;
use crate::operator::{AddByKey, SumByKey};
use crate::submit_error::SubmitError;
use crate::summand::{Each, Number, Summand, Value};
use crate::task::Task;

/// A sum for each key.
pub(super) struct Summed<P: Pipe, S: KeySelector<P::Out>, M: Summand<P::Out>, K = NotKept> {
    summing: Summing<P, S::Key, M::Sum>,
    key: S,
    summand: M,
    keeping: K,
    node: NodeId,
}
opaque!([P: Pipe, S: KeySelector<P::Out>, M: Summand<P::Out>, K] Summed<P, S, M, K>);

enum Summing<P, K, V> {
    /// All records, in the chain that they come from.
    Records(P),
    /// What was added up before the exchange.
    Sums(FromInlet<(K, V)>),
}

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// Counts the records of each key. At the end of input, emits a pair of key and number for each key, in no
    /// particular order.
    ///
    /// Before records go to several replicas they are counted where they are, up to 131,072 keys at a time, and the
    /// numbers are sent in their place. The report counts records all the same.
    pub fn count(self) -> Stream<impl ParallelStep<In = P::Out, Out = (S::Key, u64)>> {
        self.summed("keyed-count", Each)
    }

    /// Adds up what `value` takes from the records of each key. At the end of input, emits a pair of key and sum for
    /// each key, in no particular order. A sum, or a part of one, that its type has no room for fails the job, whatever
    /// the error policy.
    ///
    /// Before records go to several replicas they are added up where they are, up to 131,072 keys at a time, and the
    /// sums are sent in their place. The report counts records all the same. As replicas add up in any order, a sum of
    /// `f32` or `f64` may differ in its last digits from run to run.
    ///
    /// ```
    /// let env = sage::Environment::local("revenue");
    /// let revenue = env
    ///     .from_iter([("apples", 30_u64), ("pears", 45), ("apples", 12)])
    ///     .key_by(|sale| sale.0)
    ///     .sum(|sale| sale.1)
    ///     .collect();
    /// env.run()?;
    /// let mut revenue = revenue.take();
    /// revenue.sort();
    /// assert_eq!(revenue, [("apples", 42), ("pears", 45)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sum<V, F>(self, value: F) -> Stream<impl ParallelStep<In = P::Out, Out = (S::Key, V)>>
    where
        V: Number,
        F: FnMut(&P::Out) -> V + Clone + Send + 'static,
    {
        self.summed("keyed-sum", Value::new(value))
    }

    fn summed<M: Summand<P::Out>>(self, name: &'static str, summand: M) -> Stream<Summed<P, S, M>> {
        let Self { stream, key } = self;
        let node = stream.graph.with(|graph| graph.add_node(name, false));
        let replicas = stream.replicas();
        if replicas > 1 {
            let (graph, inlet) = combined(stream, &key, &summand, node, replicas);
            let summing = Summing::Sums(FromInlet::new(inlet, Replicas::Own));
            let pipe = Summed { summing, key, summand, keeping: NotKept, node };
            return Stream { graph, pipe, nodes: vec![node], head: Head::Inlet(inlet) };
        }
        let Stream { graph, pipe, mut nodes, head } = stream;
        nodes.push(node);
        let pipe = Summed { summing: Summing::Records(pipe), key, summand, keeping: NotKept, node };
        Stream { graph, pipe, nodes, head }
    }
}

/// Ends a chain in an exchange of what was added up in it.
fn combined<P: Pipe, S: KeySelector<P::Out>, M: Summand<P::Out>>(
    stream: Stream<P>,
    key: &S,
    summand: &M,
    node: NodeId,
    replicas: usize,
) -> (SharedGraph, InletId) {
    let (stream, from) = stream.with_last_node();
    let (graph, key, summand) = (stream.graph.clone(), key.clone(), summand.clone());
    let (inlet, edge) = graph.with(|graph| {
        let inlet = graph.add_inlet(replicas);
        (inlet, graph.add_edge(edge::<(S::Key, M::Sum)>(from, inlet, Partitioning::Hash)))
    });
    stream.end(move |cx: &mut BuildContext<'_>| {
        let taken = cx.taken_for(node);
        Ok(Combining::new(cx.writers::<(S::Key, M::Sum)>(edge), key.clone(), summand.clone(), node, taken))
    });
    (graph, inlet)
}

impl<P: Pipe, S: KeySelector<P::Out>, M: Summand<P::Out>, K: Keeping<P::Out>> Pipe for Summed<P, S, M, K> {
    type Out = (S::Key, M::Sum);

    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let place = cx.place(self.node, false);
        match &self.summing {
            Summing::Records(before) => {
                let handling = self.keeping.handling(cx);
                let stage = SumByKey::new(self.key.clone(), self.summand.clone());
                before.build(cx, Link::new(stage, next, Nowhere, handling, place))
            }
            Summing::Sums(inlet) => {
                let letters = self.keeping.letters().map(|edge| cx.round_robin::<DeadLetter<P::Out>>(edge));
                // The records were counted as taken where they came.
                Ok(inlet.build_counted(cx, Link::new(AddByKey::new(), next, letters, NotKept, place), Arc::default()))
            }
        }
    }
}

impl<P: Pipe, S: KeySelector<P::Out>, M: Summand<P::Out>, K: Keeping<P::Out>> Step for Summed<P, S, M, K> {
    type In = P::Out;
    type Replicas = Many;
    type Spread = Self;
    type Kept = Summed<P, S, M, K::Kept>;

    fn node(&self) -> NodeId {
        self.node
    }

    fn spread(stream: Stream<Self>, replicas: usize) -> Stream<Self> {
        let Stream { graph, pipe: Self { summing, key, summand, keeping, node }, mut nodes, head } = stream;
        let inlet = match summing {
            Summing::Sums(inlet) => {
                graph.with(|graph| graph.inlets[inlet.inlet.0].parallelism = replicas);
                let pipe = Self { summing: Summing::Sums(inlet), key, summand, keeping, node };
                return Stream { graph, pipe, nodes, head };
            }
            Summing::Records(before) => {
                nodes.pop();
                combined(Stream { graph: graph.clone(), pipe: before, nodes, head }, &key, &summand, node, replicas).1
            }
        };
        let summing = Summing::Sums(FromInlet::new(inlet, Replicas::Own));
        let pipe = Self { summing, key, summand, keeping, node };
        Stream { graph, pipe, nodes: vec![node], head: Head::Inlet(inlet) }
    }

    fn keep(self, copy: fn(&P::Out) -> P::Out, to: KeepTo) -> Self::Kept {
        let Self { summing, key, summand, keeping, node } = self;
        Summed { summing, key, summand, keeping: keeping.keep(copy, to), node }
    }
}
