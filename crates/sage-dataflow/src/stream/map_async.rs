//! `map_async` and its kin on a stream: async operators and their options.

use std::future::Future;
use std::time::{Duration, Instant};

use super::Stream;
use super::factory::Many;
use super::pipe::{FromInlet, KeepTo, Pipe, Replicas, Step};
use crate::BoxError;
use crate::chain::{DeadLetter, Push};
use crate::exchange::{Partitioning, RoundRobin};
use crate::graph::Head;
use crate::graph::wiring::BuildContext;
use crate::guarded::opaque;
use crate::ids::{EdgeId, NodeId};
use crate::submit_error::SubmitError;
use crate::task::{AsyncFunction, AsyncParts, AsyncTask, Fallible, MAX_IN_FLIGHT, Order, Policy, Since, Sure, Task};

/// An inlet, and the async operator that takes its records.
pub struct MapAsync<I, F: AsyncFunction<I>> {
    inlet: FromInlet<I>,
    function: F,
    policy: Policy<I>,
    since: Option<Since<F::Future>>,
    letters: Option<EdgeId>,
    node: NodeId,
}
opaque!([I, F: AsyncFunction<I>] MapAsync<I, F>);

impl<I: Send + 'static, F: AsyncFunction<I>> Pipe for MapAsync<I, F> {
    type Out = F::Out;

    fn build<N: Push<F::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let letters = self.letters.map(|edge| Box::new(cx.round_robin::<DeadLetter<I>>(edge)) as Box<_>);
        Ok(Box::new(AsyncTask::new(AsyncParts {
            inbox: cx.inbox(self.inlet.inlet),
            function: self.function.clone(),
            policy: self.policy.clone(),
            since: self.since,
            circle: cx.circle(&next),
            next,
            letters,
            polling: cx.polling(),
            control: cx.control(),
            place: cx.place(self.node, false),
            taken: cx.taken(),
            in_flight: cx.in_flight(),
        })))
    }
}

impl<I: Send + 'static, F: AsyncFunction<I>> Step for MapAsync<I, F> {
    type In = I;
    type Replicas = Many;
    type Spread = Self;
    type Kept = Self;

    fn node(&self) -> NodeId {
        self.node
    }

    fn spread(stream: Stream<Self>, replicas: usize) -> Stream<Self> {
        let inlet = stream.pipe.inlet.inlet;
        stream.graph.with(|graph| {
            graph.inlets[inlet.0].parallelism = replicas;
            let edges = graph.edges.iter_mut().filter(|edge| edge.to == inlet);
            edges.for_each(|edge| edge.partitioning = Partitioning::RoundRobin);
        });
        stream
    }

    fn keep(mut self, copy: fn(&I) -> I, to: KeepTo) -> Self {
        self.policy.copy = Some(copy);
        match to {
            KeepTo::Retry(retry) => self.policy.retry = Some(retry),
            KeepTo::Letters(edge) => {
                self.policy.letters = true;
                self.letters = Some(edge);
            }
        }
        self
    }
}

impl<P: Pipe> Stream<P> {
    /// Replaces each record by the output of a future: `function` makes one from each record. Up to `in_flight` futures
    /// are in flight in each replica, 1 to 1,048,576; any other number is a [`SubmitError::OperatorOption`].
    ///
    /// When `in_flight` records are in flight, the operator takes no more until one has left: that is backpressure. It
    /// sends a result on at once, even while no record comes in. Each record in flight takes the memory of its future,
    /// or of its result while that waits for its turn, and some 200 bytes more.
    ///
    /// The futures run on the operator's own thread, one at a time, inside the job's tokio runtime. So timers and I/O
    /// work in them, and a future that computes for long holds up the others. A cancel drops them; a drain and the end
    /// of input wait for them. A future that panics fails the job, and the report names the operator and the record.
    ///
    /// The operator begins a new chain. After it, you can set a [`timeout`](Self::timeout) and a
    /// [`parallelism`](Self::parallelism); each replica keeps its own order.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, Order};
    ///
    /// let env = Environment::local("pages");
    /// let pages = env
    ///     .from_iter([30, 10, 20])
    ///     .map_async(16, Order::Ordered, |millis| async move {
    ///         tokio::time::sleep(Duration::from_millis(millis)).await;
    ///         format!("after {millis} ms")
    ///     })
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(pages.take(), ["after 30 ms", "after 10 ms", "after 20 ms"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`SubmitError::OperatorOption`]: crate::SubmitError::OperatorOption
    pub fn map_async<U, F>(
        self,
        in_flight: usize,
        order: Order,
        function: F,
    ) -> Stream<MapAsync<P::Out, Sure<F, P::Out>>>
    where
        U: Future + Send + 'static,
        U::Output: Send + 'static,
        F: FnMut(P::Out) -> U + Clone + Send + 'static,
    {
        self.asynchronous("map-async", in_flight, order, Sure::new(function))
    }

    /// As [`map_async`](Self::map_async), for futures that may return an error. An error fails the job, and the report
    /// names the operator and the record. To try again first, add a [`retry`](Self::retry).
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, Order, Retry};
    ///
    /// let env = Environment::local("fetch");
    /// let fetched = env
    ///     .from_iter(["1", "2"])
    ///     .try_map_async(16, Order::Unordered, |text| async move { text.parse::<u64>() })
    ///     .timeout(Duration::from_secs(5))
    ///     .retry(Retry::up_to(3))
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(fetched.take().iter().sum::<u64>(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_map_async<O, E, U, F>(
        self,
        in_flight: usize,
        order: Order,
        function: F,
    ) -> Stream<MapAsync<P::Out, Fallible<F, P::Out, O, E>>>
    where
        O: Send + 'static,
        E: Into<BoxError> + 'static,
        U: Future<Output = Result<O, E>> + Send + 'static,
        F: FnMut(P::Out) -> U + Clone + Send + 'static,
    {
        self.asynchronous("try-map-async", in_flight, order, Fallible::new(function))
    }

    /// As [`map_async`](Self::map_async), for a function with `open` and `close`, such as one that holds a connection.
    pub fn map_async_with<F: AsyncFunction<P::Out>>(
        self,
        in_flight: usize,
        order: Order,
        function: F,
    ) -> Stream<MapAsync<P::Out, F>> {
        self.asynchronous("map-async", in_flight, order, function)
    }

    fn asynchronous<F: AsyncFunction<P::Out>>(
        self,
        kind: &'static str,
        in_flight: usize,
        order: Order,
        function: F,
    ) -> Stream<MapAsync<P::Out, F>> {
        let (graph, inlet) = match self.head {
            // It stands at an inlet already, whose records any replica may take.
            Head::Inlet(inlet) if self.nodes.is_empty() && self.pipe.retarget(Partitioning::RoundRobin).is_some() => {
                (self.graph, inlet)
            }
            _ => {
                let replicas = self.replicas();
                self.exchange(Partitioning::Forward, replicas, RoundRobin::new)
            }
        };
        let node = graph.with(|graph| {
            let node = graph.add_node(kind, false);
            if !(1..=MAX_IN_FLIGHT).contains(&in_flight) {
                graph.add_mistake(node, format!("`in_flight` is {in_flight}; it may be 1 to 1048576"));
            }
            node
        });
        let policy = Policy { in_flight, order, timeout: None, retry: None, copy: None, letters: false };
        let inlet_pipe = FromInlet::new(inlet, Replicas::Any);
        let pipe = MapAsync { inlet: inlet_pipe, function, policy, since: None, letters: None, node };
        Stream { graph, pipe, nodes: vec![node], head: Head::Inlet(inlet) }
    }
}

impl<I, F> Stream<MapAsync<I, F>>
where
    I: Send + 'static,
    F: AsyncFunction<I>,
{
    /// Sets how long a record may take, from the moment the operator takes it; all attempts and the waits between them
    /// count. A record that takes longer fails the job with [`AsyncError::TimedOut`], and its future is dropped.
    /// Default: no limit.
    ///
    /// A future that is complete when its time is over counts as complete. Times are kept to the millisecond.
    ///
    /// [`AsyncError::TimedOut`]: crate::AsyncError::TimedOut
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.pipe.policy.timeout = Some(limit);
        self
    }

    /// As [`timeout`](Self::timeout), counted from the moment that `since` returns for the record's first future. If
    /// that future first waits elsewhere, such as for a thread, `since` returns `None` until it has begun, and the time
    /// does not run.
    pub fn timeout_since(mut self, limit: Duration, since: fn(&F::Future) -> Option<Instant>) -> Self {
        self.pipe.since = Some(since);
        self.timeout(limit)
    }
}
