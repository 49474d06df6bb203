//! Loops: streams that are fed back.

use std::fmt;
use std::marker::PhantomData;

use super::pipe::{FromInlet, Pipe, Replicas};
use super::{DataStream, Stream};
use crate::exchange::{FedBack, Partitioning};
use crate::graph::wiring::BuildContext;
use crate::graph::{Head, Loop, Mistake, SharedGraph};
use crate::ids::{InletId, NodeId};

/// How many records may wait to go round, unless the user says otherwise.
const DEFAULT_LIMIT: usize = 1_000_000;

/// The end of a loop: [`fill`](Self::fill) it with the records that go round.
///
/// [`Environment::feedback`](crate::Environment::feedback) makes it, and explains loops.
#[must_use = "a loop that is not filled is an error when its environment is submitted"]
pub struct Feedback<T> {
    graph: SharedGraph,
    inlet: InletId,
    node: NodeId,
    records: PhantomData<fn(T)>,
}

impl<T> fmt::Debug for Feedback<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.graph.with(|graph| graph.node(self.node).name.clone());
        f.debug_struct("Feedback").field("name", &name).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Feedback<T> {
    pub(crate) fn new(graph: &SharedGraph, name: String) -> (DataStream<T>, Self) {
        let (stream, feedback) = Self::of_kind(graph, "feedback");
        graph.with(|graph| graph.rename(feedback.node, name));
        (stream, feedback)
    }

    pub(super) fn of_kind(graph: &SharedGraph, kind: &'static str) -> (DataStream<T>, Self) {
        let (inlet, node) = graph.with(|graph| {
            let node = graph.add_node(kind, true);
            let inlet = graph.add_inlet(1);
            graph.inlets[inlet.0].feeds = Some(Loop { node, limit: DEFAULT_LIMIT });
            (inlet, node)
        });
        let pipe = FromInlet::new(inlet, Replicas::Fixed);
        let stream = Stream { graph: graph.clone(), pipe, nodes: vec![node], head: Head::Inlet(inlet) };
        (stream, Self { graph: graph.clone(), inlet, node, records: PhantomData })
    }

    /// Sets how many records may wait to go round, 1 or more. Default: 1,000,000. They are kept in memory, because a
    /// full loop must not stand still. One more fails the job with [`FeedbackError::Full`](crate::FeedbackError::Full);
    /// each replica that sends them may notice up to 256 records late.
    pub fn limit(self, records: usize) -> Self {
        self.graph.with(|graph| {
            if records == 0 {
                graph.add_mistake(self.node, "the loop may hold no record; give `limit` 1 at least".to_owned());
            }
            graph.inlets[self.inlet.0].feeds = Some(Loop { node: self.node, limit: records });
        });
        self
    }

    /// The head of the loop, for an operator that feeds it by a way of its own.
    pub(super) fn end(self) -> (InletId, NodeId) {
        (self.inlet, self.node)
    }

    /// Feeds the records of `stream` back: they come out of the stream that
    /// [`Environment::feedback`](crate::Environment::feedback) returned with this. They are gathered in one replica.
    ///
    /// A stream of another environment is a [`SubmitError::ForeignStream`](crate::SubmitError::ForeignStream) when this
    /// one is submitted.
    pub fn fill<P: Pipe<Out = T>>(self, stream: Stream<P>) {
        let Self { graph, inlet, node, .. } = self;
        if !graph.is(&stream.graph) {
            graph.with(|graph| {
                let operator = graph.node(node).name.clone();
                graph.mistakes.push(Mistake::ForeignStream { operator });
            });
            return;
        }
        let (stream, edge) = stream.edge_to(Partitioning::Gather, inlet);
        stream.end(move |cx: &mut BuildContext<'_>| {
            let (gauge, limit) = cx.gauge(inlet);
            Ok(FedBack::new(cx.writers::<T>(edge), gauge, limit, node))
        });
    }
}
