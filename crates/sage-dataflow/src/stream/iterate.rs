//! `iterate`: rounds over the states of keys, in a loop.

use std::hash::Hash;

use super::Stream;
use super::boundary::edge;
use super::connected::Joint;
use super::factory::{Factory, Made, Many};
use super::feedback::Feedback;
use super::keyed::KeyedStream;
use super::pipe::{ParallelStep, Pipe};
use crate::chain::Stage;
use crate::exchange::{Chosen, FedBack, Lanes, Partitioning, RoundRobin, lane_of};
use crate::graph::wiring::BuildContext;
use crate::ids::{EdgeId, InletId, NodeId};
use crate::key::KeySelector;
use crate::operator::{Barrier, HasInput, In2, Iterate, Round, Turn};

/// How many messages may wait in a round.
const MOST_MESSAGES: usize = 100_000_000;

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// Works on the states of all keys in rounds, in which keys send each other messages: for algorithms on graphs, and
    /// others that go on until nothing changes any more.
    ///
    /// While there is input, `load` adds each record to the state of its key, which starts as a clone of `initial`.
    /// When the input has ended, the rounds begin. In each, `function` is called once for every key: with its state,
    /// with the messages that were sent to the key in the round before, in no particular order, and with the
    /// [`Round`], by which it sends messages. A message to a key that has no state makes one. All replicas are done
    /// with a round before the next one begins.
    ///
    /// The rounds end after `rounds` of them (1 or more), or when no key has sent a message. Then the pairs of key and
    /// state come out, in no particular order. A drain ends the input, and the rounds follow; a cancel ends them.
    ///
    /// The states, and the messages of one round, are kept in memory; more than 100 million messages that wait fail the
    /// job with a [`FeedbackError`](crate::FeedbackError). Runs in as many replicas as the stream, or as a
    /// [`parallelism`](Stream::parallelism) after it says.
    ///
    /// ```
    /// // How many steps away from page 1 each page is.
    /// let env = sage::Environment::local("distances");
    /// let distances = env
    ///     .from_iter([(1, 2), (2, 3), (1, 4), (4, 3), (3, 1), (5, 1)])
    ///     .key_by(|link| link.0)
    ///     .iterate(
    ///         100,
    ///         (Vec::new(), None),
    ///         |(links, _), link| links.push(link.1),
    ///         |(links, distance), told: Vec<u32>, round| {
    ///             let found = if *round.key() == 1 { Some(0) } else { told.into_iter().min() };
    ///             if distance.is_none() && found.is_some() {
    ///                 *distance = found;
    ///                 links.iter().for_each(|&page| round.send(page, found.unwrap_or(0) + 1));
    ///             }
    ///         },
    ///     )
    ///     .map(|(page, (_, distance))| (page, distance))
    ///     .collect();
    /// env.run()?;
    /// let mut distances = distances.take();
    /// distances.sort();
    /// assert_eq!(distances, [(1, Some(0)), (2, Some(1)), (3, Some(2)), (4, Some(1)), (5, None)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iterate<A, M, L, F>(
        self,
        rounds: u64,
        initial: A,
        load: L,
        function: F,
    ) -> Stream<impl ParallelStep<Out = (S::Key, A)>>
    where
        A: Clone + Send + 'static,
        M: Send + 'static,
        L: FnMut(&mut A, P::Out) + Clone + Send + 'static,
        F: FnMut(&mut A, Vec<M>, &mut Round<'_, '_, S::Key, M>) + Clone + Send + 'static,
    {
        let graph = self.stream.graph.clone();
        let (turns, feedback) = Feedback::<Turn<S::Key, M>>::of_kind(&graph, "rounds");
        let feedback = feedback.limit(MOST_MESSAGES);
        let joint = Joint::new(&graph, "iterate", false, self.stream.replicas());
        let operator = Iterate::new(self.key.clone(), initial, load, function);
        joint.keyed_input::<0, _, _>(self);
        let turns = turns.then_made("barrier", Made(move || Barrier::new(rounds)));
        let node = joint.node();
        joint.input::<1, _, _>(turns, Partitioning::Custom, move |lanes, _replica| {
            Chosen::new(
                lanes,
                |record: &In2<P::Out, Turn<S::Key, M>>, replicas| to(HasInput::<1>::part(record), replicas),
                node,
            )
        });
        let (inlet, head) = feedback.end();
        let edge = graph.with(|graph| {
            if rounds == 0 {
                graph.add_mistake(node, "it has no round; give `iterate` 1 at least".to_owned());
            }
            graph.add_edge(edge::<Turn<S::Key, M>>(node, inlet, Partitioning::Gather))
        });
        joint.then(InRounds { operator, edge, inlet, head })
    }
}

/// The replica that gets a turn.
fn to<K: Hash, M>(turn: &Turn<K, M>, replicas: usize) -> usize {
    match turn {
        Turn::Message(key, _) => lane_of(key, replicas),
        Turn::Begin { replica, .. } => *replica,
        // The barrier passes none on.
        Turn::Done { .. } => 0,
    }
}

/// Clones an operator whose way out by the side leads to the head of its loop.
struct InRounds<O> {
    operator: O,
    edge: EdgeId,
    inlet: InletId,
    head: NodeId,
}

impl<O: Stage + Clone> Factory for InRounds<O> {
    type Operator = O;
    type Side = FedBack<O::Side>;
    type Replicas = Many;
    type Router = RoundRobin<O::In>;

    fn make(&self) -> O {
        self.operator.clone()
    }

    fn side(&self, cx: &mut BuildContext<'_>) -> FedBack<O::Side> {
        let (gauge, limit) = cx.gauge(self.inlet);
        FedBack::new(cx.writers(self.edge), gauge, limit, self.head)
    }

    fn router(&self, _node: NodeId) -> impl Fn(Lanes<O::In>, usize) -> RoundRobin<O::In> + Send + 'static {
        RoundRobin::new
    }
}
