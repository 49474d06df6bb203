//! Streams grouped by key.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use super::expiring::{ByClockTime, ByEventTime, ExpiringStream};
use super::factory::Keyed;
use super::lacking::InEventTime;
use super::pipe::{FromInlet, MaybeExchanged, ParallelStep, Pipe, Replicas, Then};
use super::{DataStream, Stream};
use crate::chain::{NotKept, Stage};
use crate::exchange::{ByKey, Partitioning};
use crate::graph::Head;
use crate::key::KeySelector;
use crate::operator::{
    Distinct, FlatMapWithState, FoldFunction, Folding, ForEver, Gather, GatherByKey, Keeps, KeyContext, MapWithState,
    OnBoth, Output, Process, ProcessFunction, Reducing, StateFunction, Timer, Top, WithState, folding,
};
use crate::time::Timestamp;

/// A stream grouped by key.
#[must_use = "a stream that does not end in a sink is an error when its environment is submitted"]
pub struct KeyedStream<P: Pipe, S> {
    pub(super) stream: Stream<P>,
    pub(super) key: S,
}

impl<P: Pipe, S> fmt::Debug for KeyedStream<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The stream a keyed aggregation makes.
pub(super) type Aggregated<P, O, S> = Stream<Then<MaybeExchanged<P>, Keyed<O, S>>>;

impl<P: Pipe, S: KeySelector<P::Out>> KeyedStream<P, S> {
    /// Folds the records of each key into an accumulator that starts as a clone of `initial`. At the end of input,
    /// emits a pair of key and accumulator for each key, in no particular order.
    pub fn fold<A, G>(self, initial: A, function: G) -> Stream<impl ParallelStep<In = P::Out, Out = (S::Key, A)>>
    where
        A: Clone + Send + 'static,
        G: FnMut(&mut A, P::Out) + Clone + Send + 'static,
    {
        self.gather("keyed-fold", folding(initial, function))
    }

    /// As [`fold`](Self::fold), for a function that may fail, or that has something to open and close.
    pub fn fold_with<A, F>(self, initial: A, function: F) -> Stream<impl ParallelStep<In = P::Out, Out = (S::Key, A)>>
    where
        A: Clone + Send + 'static,
        F: FoldFunction<A, P::Out>,
    {
        self.gather("keyed-fold", folding(initial, function))
    }

    /// Reduces the records of each key to one. At the end of input, emits a pair of key and record for each key, in no
    /// particular order.
    pub fn reduce<G>(self, function: G) -> Stream<impl ParallelStep<In = P::Out, Out = (S::Key, P::Out)>>
    where
        G: FnMut(P::Out, P::Out) -> P::Out + Clone + Send + 'static,
    {
        self.gather("keyed-reduce", Reducing(function))
    }

    /// Folds the records of each key into an accumulator that starts as a clone of `initial`. At the end of input,
    /// calls `result` with each accumulator, and emits the pairs of key and result in no particular order.
    pub fn aggregate<A, R, G, H>(
        self,
        initial: A,
        function: G,
        result: H,
    ) -> Stream<impl ParallelStep<In = P::Out, Out = (S::Key, R)>>
    where
        A: Clone + Send + 'static,
        R: Send + 'static,
        G: FnMut(&mut A, P::Out) + Clone + Send + 'static,
        H: FnMut(A) -> R + Clone + Send + 'static,
    {
        self.gather("keyed-aggregate", Folding { initial, function, result })
    }

    /// Replaces each record by the result of `function`, which gets the state of the record's key and the record. A
    /// state starts as a clone of `initial`. Emits at once. The states of all keys are kept until the end of input.
    ///
    /// ```
    /// let env = sage::Environment::local("totals");
    /// let totals = env
    ///     .from_iter([("a", 1), ("b", 5), ("a", 2)])
    ///     .key_by(|pair| pair.0)
    ///     .map_with_state(0, |total, (key, n)| {
    ///         *total += n;
    ///         (key, *total)
    ///     })
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(totals.take(), [("a", 1), ("b", 5), ("a", 3)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_with_state<A, O, G>(self, initial: A, function: G) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
    where
        A: Clone + Send + 'static,
        O: Send + 'static,
        G: FnMut(&mut A, P::Out) -> O + Clone + Send + 'static,
    {
        self.with_state("map-with-state", initial, MapWithState(function), ForEver::new(), |_| Timestamp::MIN)
    }

    /// As [`map_with_state`](Self::map_with_state), for a function that pushes any number of records.
    pub fn flat_map_with_state<A, O, G>(
        self,
        initial: A,
        function: G,
    ) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
    where
        A: Clone + Send + 'static,
        O: Send + 'static,
        G: FnMut(&mut A, P::Out, &mut Output<'_, O>) + Clone + Send + 'static,
    {
        self.with_state("flat-map-with-state", initial, FlatMapWithState(function), ForEver::new(), |_| Timestamp::MIN)
    }

    /// Forgets the state of a key when no record of it has come for `ttl` (1 ms or more) by the environment's
    /// [`clock`](crate::Environment::clock). The key's next record finds a new state. For operators that emit at once.
    /// An expired state is freed within another `ttl`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let env = sage::Environment::local("alerts");
    /// // An alert again only after a minute in which it was not raised.
    /// let alerts = env
    ///     .from_iter(["disk", "disk", "heat"])
    ///     .key_by(|alert| *alert)
    ///     .expire_after(Duration::from_secs(60))
    ///     .distinct()
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(alerts.take(), ["disk", "heat"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expire_after(self, ttl: Duration) -> ExpiringStream<P, S, ByClockTime> {
        ExpiringStream { keyed: self, ttl, by: ByClockTime }
    }

    /// As [`expire_after`](Self::expire_after), by event time: a record that happened `ttl` (1 ms or more) or longer
    /// after the latest record of its key finds a new state. So results do not depend on when records come. For records
    /// that have a time, behind [`with_timestamps`](Stream::with_timestamps); what has expired is freed when the
    /// watermark is up to another `ttl` behind it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, OutOfOrder, Timestamp};
    ///
    /// // Visits of each user within one stay: a stay ends after ten minutes without one.
    /// let env = Environment::local("stays");
    /// let visits = env
    ///     .from_iter([("ada", 0), ("bob", 1), ("ada", 9), ("ada", 30)])
    ///     .with_timestamps(|visit| Timestamp::from_millis(visit.1 * 60_000), OutOfOrder::by(Duration::ZERO))
    ///     .key_by(|visit| visit.value.0)
    ///     .expire_after_by_time(Duration::from_secs(600))
    ///     .map_with_state(0, |visits, visit| {
    ///         *visits += 1;
    ///         (visit.value.0, *visits)
    ///     })
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(visits.take(), [("ada", 1), ("bob", 1), ("ada", 2), ("ada", 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expire_after_by_time<D>(self, ttl: D) -> ExpiringStream<P, S, ByEventTime>
    where
        D: InEventTime<P::Out, Same = Duration>,
    {
        ExpiringStream { keyed: self, ttl: ttl.same(), by: ByEventTime }
    }

    /// Calls `on_record` for each record with the state of its key, which starts as a clone of `initial`. Calls
    /// `on_timer` when a timer that one of these functions has set is due. Both can push records, set and cancel
    /// timers, and forget their key.
    ///
    /// A timer belongs to one key. Timers fire in the order of their times; between keys with the same time there is no
    /// order. At the end of input all timers fire, first those of event time, then those of the clock, which then fire
    /// early. A cancel fires none. If a source blocks inside its own `next`, timers of the clock fire when it returns,
    /// as with [`window_by_clock`](Self::window_by_clock).
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, OutOfOrder, Timer, Timestamp};
    ///
    /// // Orders that were not paid within a minute, by the times of the events.
    /// let env = Environment::local("unpaid");
    /// let unpaid = env
    ///     .from_iter([(0, "ordered", 1), (5, "ordered", 2), (20, "paid", 1), (90, "ordered", 3), (95, "paid", 3)])
    ///     .with_timestamps(|event| Timestamp::from_millis(event.0 * 1000), OutOfOrder::by(Duration::ZERO))
    ///     .key_by(|event| event.value.2)
    ///     .process(
    ///         (),
    ///         |(), event, key| match event.value.1 {
    ///             "paid" => key.forget(),
    ///             _ => key.set(Timer::Event(event.time.later(Duration::from_secs(60)))),
    ///         },
    ///         |(), _timer, key| {
    ///             let order = *key.key();
    ///             key.push(order);
    ///             key.forget();
    ///         },
    ///     )
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(unpaid.take(), [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn process<A, O, G, H>(
        self,
        initial: A,
        on_record: G,
        on_timer: H,
    ) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
    where
        S::Key: Clone,
        A: Clone + Send + 'static,
        O: Send + 'static,
        G: FnMut(&mut A, P::Out, &mut KeyContext<'_, '_, S::Key, O>) + Clone + Send + 'static,
        H: FnMut(&mut A, Timer, &mut KeyContext<'_, '_, S::Key, O>) + Clone + Send + 'static,
    {
        self.processed(initial, OnBoth { on_record, on_timer })
    }

    /// As [`process`](Self::process), for a function that may fail, or that has something to open and close.
    pub fn process_with<A, O, F>(self, initial: A, function: F) -> Stream<impl ParallelStep<In = P::Out, Out = O>>
    where
        S::Key: Clone,
        A: Clone + Send + 'static,
        O: Send + 'static,
        F: ProcessFunction<P::Out, S::Key, A, O>,
    {
        self.processed(initial, function)
    }

    fn processed<A, O, F>(self, initial: A, function: F) -> Aggregated<P, Process<S, F, P::Out, A, O>, S>
    where
        S::Key: Clone,
        A: Clone + Send + 'static,
        O: Send + 'static,
        F: ProcessFunction<P::Out, S::Key, A, O>,
    {
        let operator = Process::new(self.key.clone(), initial, function);
        self.keyed("process", operator)
    }

    /// Emits the first record of each key at once, and drops the others. All keys are kept until the end of input.
    pub fn distinct(self) -> Stream<impl ParallelStep<In = P::Out, Out = P::Out>> {
        self.with_state("distinct", false, Distinct, ForEver::new(), |_| Timestamp::MIN)
    }

    /// Keeps, for each key, the `most` records (1 or more) with the highest `rank`; of equal ranks the earlier. At the
    /// end of input, emits the pairs of key and records, the highest rank first.
    pub fn top_k<R, G>(
        self,
        most: usize,
        rank: G,
    ) -> Stream<impl ParallelStep<In = P::Out, Out = (S::Key, Vec<P::Out>)>>
    where
        R: Ord + Send + 'static,
        G: FnMut(&P::Out) -> R + Clone + Send + 'static,
    {
        self.gather("top-k", Top::new(most, rank))
            .checked((most == 0).then_some("it keeps at least one record of each key"))
    }

    /// Deals the records out to `replicas` replicas of the next chain. Equal keys go to the same replica.
    pub fn partition(self, replicas: usize) -> DataStream<P::Out> {
        let Self { stream, key } = self;
        let (stream, node) = stream.with_node("partition");
        let router = move |lanes, _replica| ByKey::new(lanes, key.clone(), node);
        let (graph, inlet) = stream.exchange(Partitioning::Hash, replicas, router);
        Stream::<P>::from_inlet(graph, inlet, Replicas::Fixed)
    }

    fn gather<G: Gather<P::Out>>(self, kind: &'static str, gather: G) -> Aggregated<P, GatherByKey<S, G, P::Out>, S> {
        let operator = GatherByKey::new(self.key.clone(), gather);
        self.keyed(kind, operator)
    }

    /// Adds an operator that calls `function` with the state of each key, kept in `states`.
    pub(super) fn with_state<A, O, F, B>(
        self,
        kind: &'static str,
        initial: A,
        function: F,
        states: B,
        time: fn(&P::Out) -> Timestamp,
    ) -> Aggregated<P, WithState<S, F, P::Out, A, O, B>, S>
    where
        A: Clone + Send + 'static,
        O: Send + 'static,
        F: StateFunction<P::Out, A, O>,
        B: Keeps<S::Key, A>,
    {
        let operator = WithState::new(self.key.clone(), initial, function, states, time);
        self.keyed(kind, operator)
    }

    pub(super) fn keyed<O>(self, kind: &'static str, operator: O) -> Aggregated<P, O, S>
    where
        O: Stage<In = P::Out, Side = Infallible> + Clone,
    {
        let Self { stream, key } = self;
        let replicas = stream.replicas();
        if replicas == 1 {
            return stream.with_pipe(MaybeExchanged::Fused).then_made(kind, Keyed { operator, key });
        }
        // The key function runs before the exchange, in the name of the operator after it.
        let node = stream.graph.with(|graph| graph.add_node(kind, false));
        let router_key = key.clone();
        let (graph, inlet) = stream
            .exchange(Partitioning::Hash, replicas, move |lanes, _replica| ByKey::new(lanes, router_key.clone(), node));
        let before = MaybeExchanged::Exchanged(FromInlet::new(inlet, Replicas::Own));
        let factory = Keyed { operator, key };
        Stream {
            graph,
            pipe: Then { before, factory, keeping: NotKept, node },
            nodes: vec![node],
            head: Head::Inlet(inlet),
        }
    }
}
