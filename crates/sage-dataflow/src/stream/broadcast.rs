//! Broadcast state: a stream of rules, by which the records of another are worked on.

use super::Stream;
use super::connected::Joint;
use super::factory::Cloned;
use super::keyed::KeyedStream;
use super::pipe::{ParallelStep, Pipe};
use crate::exchange::{Broadcast, Partitioning, RoundRobin};
use crate::guarded::opaque;
use crate::key::KeySelector;
use crate::operator::{Broadcasting, ByBroadcast, ByBroadcastAndKey, HasInput, In2, Output, WithBroadcast};

/// A stream with a broadcast state, for a step that reads that. [`Stream::with_broadcast`] and
/// [`KeyedStream::with_broadcast`] make it.
#[must_use = "a stream that does not end in a sink is an error when its environment is submitted"]
pub struct BroadcastStream<D, Q: Pipe, B, U> {
    data: D,
    rules: Stream<Q>,
    initial: B,
    update: U,
}
opaque!([D, Q: Pipe, B, U] BroadcastStream<D, Q, B, U>);

impl<P: Pipe> Stream<P> {
    /// Gives the next step a state that the records of another stream determine, such as rules, prices or a model.
    ///
    /// Each record of `rules` goes to every replica of the step, where `update` brings the replica's copy of the state
    /// up to date. The copies start as clones of `initial`. The step reads the state for each record of this stream and
    /// cannot change it. A record finds the rules that its replica has got by then: between the two streams there is no
    /// order. Ends when both streams have ended.
    ///
    /// The step runs in as many replicas as this stream, or as a [`parallelism`](Self::parallelism) after it says.
    ///
    /// ```
    /// let env = sage::Environment::local("alarms");
    /// let limits = env.from_iter([10, 20]); // the limit of now, and how it changes
    /// let alarms = env
    ///     .from_iter([5, 25, 15, 30])
    ///     .with_broadcast(limits, 0, |limit, new| *limit = new)
    ///     .filter(|limit, reading| reading > limit)
    ///     .parallelism(2)
    ///     .collect();
    /// env.run()?;
    /// // Over every limit there was; others may have come before the limit that they are not over.
    /// let alarms = alarms.take();
    /// assert!([25, 30].iter().all(|reading| alarms.contains(reading)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_broadcast<Q, B, U>(self, rules: Stream<Q>, initial: B, update: U) -> BroadcastStream<Self, Q, B, U>
    where
        Q: Pipe<Out: Clone>,
        B: Clone + Send + 'static,
        U: FnMut(&mut B, Q::Out) + Clone + Send + 'static,
    {
        BroadcastStream { data: self, rules, initial, update }
    }
}

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// As [`Stream::with_broadcast`], for a step that also has a state of the record's key, which it may change.
    ///
    /// ```
    /// // How often each user came since the limit of now, or of later, was passed.
    /// let env = sage::Environment::local("limits");
    /// let limits = env.from_iter([2_u32]);
    /// let over = env
    ///     .from_iter(["ada", "bob", "ada", "ada", "ada"])
    ///     .key_by(|user| *user)
    ///     .with_broadcast(limits, u32::MAX, |limit, new| *limit = new)
    ///     .map_with_state(0, |limit, visits, user| {
    ///         *visits += 1;
    ///         (user, *visits, *visits > *limit)
    ///     })
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(over.take().iter().map(|(_, visits, _)| visits).max(), Some(&4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_broadcast<Q, B, U>(self, rules: Stream<Q>, initial: B, update: U) -> BroadcastStream<Self, Q, B, U>
    where
        Q: Pipe<Out: Clone>,
        B: Clone + Send + 'static,
        U: FnMut(&mut B, Q::Out) + Clone + Send + 'static,
    {
        BroadcastStream { data: self, rules, initial, update }
    }
}

impl<P, Q, B, U> BroadcastStream<Stream<P>, Q, B, U>
where
    P: Pipe,
    Q: Pipe<Out: Clone>,
    B: Clone + Send + 'static,
    U: FnMut(&mut B, Q::Out) + Clone + Send + 'static,
{
    /// Replaces each record by the result of `function`, which gets the broadcast state and the record.
    pub fn map<O, F>(self, mut function: F) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = O>>
    where
        O: Send + 'static,
        F: FnMut(&B, P::Out) -> O + Clone + Send + 'static,
    {
        self.flat_map_into(move |broadcast, record, output| output.push(function(broadcast, record)))
    }

    /// Keeps the records for which `predicate`, which gets the broadcast state and the record, returns true.
    pub fn filter<F>(self, mut predicate: F) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = P::Out>>
    where
        F: FnMut(&B, &P::Out) -> bool + Clone + Send + 'static,
    {
        self.flat_map_into(move |broadcast, record, output| {
            if predicate(broadcast, &record) {
                output.push(record);
            }
        })
    }

    /// Replaces each record by the records that `function` pushes, which gets the broadcast state and the record.
    pub fn flat_map_into<O, F>(self, function: F) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = O>>
    where
        O: Send + 'static,
        F: FnMut(&B, P::Out, &mut Output<'_, O>) + Clone + Send + 'static,
    {
        let Self { data, rules, initial, update } = self;
        let joint = Joint::new(&data.graph, "with-broadcast", false, data.replicas());
        joint.input::<0, _, _>(data, Partitioning::RoundRobin, RoundRobin::new);
        broadcast_to(joint, rules, initial, update, ByBroadcast(function))
    }
}

impl<P, S, Q, B, U> BroadcastStream<KeyedStream<P, S>, Q, B, U>
where
    P: Pipe,
    S: KeySelector<P::Out>,
    Q: Pipe<Out: Clone>,
    B: Clone + Send + 'static,
    U: FnMut(&mut B, Q::Out) + Clone + Send + 'static,
{
    /// As [`KeyedStream::map_with_state`], for a function that gets the broadcast state as well, in front.
    pub fn map_with_state<A, O, F>(
        self,
        initial: A,
        mut function: F,
    ) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = O>>
    where
        A: Clone + Send + 'static,
        O: Send + 'static,
        F: FnMut(&B, &mut A, P::Out) -> O + Clone + Send + 'static,
    {
        self.flat_map_with_state(initial, move |broadcast, state, record, output| {
            output.push(function(broadcast, state, record));
        })
    }

    /// As [`KeyedStream::flat_map_with_state`], for a function that gets the broadcast state as well, in front.
    pub fn flat_map_with_state<A, O, F>(
        self,
        initial: A,
        function: F,
    ) -> Stream<impl ParallelStep<In = In2<P::Out, Q::Out>, Out = O>>
    where
        A: Clone + Send + 'static,
        O: Send + 'static,
        F: FnMut(&B, &mut A, P::Out, &mut Output<'_, O>) + Clone + Send + 'static,
    {
        let Self { data, rules, initial: broadcast, update } = self;
        let joint = Joint::new(&data.stream.graph, "with-broadcast", false, data.stream.replicas());
        let function = ByBroadcastAndKey::new(data.key.clone(), initial, function);
        joint.keyed_input::<0, _, _>(data);
        broadcast_to(joint, rules, broadcast, update, function)
    }
}

/// Brings the rules to all replicas of a joint, and has `function` work on its data.
fn broadcast_to<I, O, Q, B, U, F>(
    joint: Joint<In2<I, Q::Out>>,
    rules: Stream<Q>,
    initial: B,
    update: U,
    function: F,
) -> Stream<impl ParallelStep<In = In2<I, Q::Out>, Out = O>>
where
    I: Send + 'static,
    O: Send + 'static,
    Q: Pipe<Out: Clone>,
    B: Clone + Send + 'static,
    U: FnMut(&mut B, Q::Out) + Clone + Send + 'static,
    F: WithBroadcast<B, I, O>,
{
    joint.input::<1, _, _>(rules, Partitioning::Broadcast, |lanes, _| {
        Broadcast::copied(lanes, |rule| In2::B(HasInput::<1>::part(rule).clone()))
    });
    joint.then(Cloned::new(Broadcasting::new(initial, update, function)))
}
