//! Options of the step just added: its error policy, retry, dead letters and parallelism; and splits of a stream.

use super::boundary::edge;
use super::factory::{Apart, Beside, Factory, Many};
use super::pipe::{FromInlet, FromSource, KeepTo, Keeping, ParallelStep, Pipe, Replicas, Step, Then, WindowStep};
use super::{DataStream, Stream};
use crate::chain::{DeadLetter, ErrorPolicy, NotKept, Stage};
use crate::exchange::Partitioning;
use crate::graph::Head;
use crate::ids::{EdgeId, NodeId};
use crate::operator::{Dropped, OpenWindows, Split, SplitOk, Windows};
use crate::retry::Retry;
use crate::source::{RetriedSource, SourceFactory};
use crate::time::Timed;

impl<F: SourceFactory> Stream<FromSource<F>> {
    /// Calls the source again when it failed to give its next record. After the wait,
    /// [`Source::next`](crate::Source::next) is called on the same source, which is neither closed nor opened
    /// meanwhile; so a source reconnects by connecting in `next`. Attempts count from its last record on. When they are
    /// used up, the job fails with [`RetriesExhausted`](crate::RetriesExhausted). Add this right behind the source,
    /// after its `parallelism`. The source's `open` is not tried again.
    ///
    /// While the source waits, the records it read before go on, and a drain or a cancel ends it at once.
    ///
    /// ```
    /// use sage::{Environment, Retry};
    /// use std::time::Duration;
    ///
    /// let env = Environment::local("poll");
    /// let mut calls = 0;
    /// let numbers = env
    ///     .from_generator(move || {
    ///         calls += 1;
    ///         match calls {
    ///             2 => Err("not just now"),
    ///             calls => Ok((calls < 4).then_some(calls)),
    ///         }
    ///     })
    ///     .retry(Retry::up_to(3).backoff(Duration::from_millis(1), Duration::from_millis(5)))
    ///     .collect();
    /// let report = env.run()?;
    /// assert_eq!(numbers.take(), [1, 3]);
    /// assert_eq!(report.operators[0].retries, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry(self, retry: Retry) -> Stream<FromSource<RetriedSource<F>>> {
        if let Some(message) = retry.mistake() {
            self.graph.with(|graph| graph.add_mistake(self.pipe.node, message));
        }
        self.with_pipe(|FromSource { factory, node }| FromSource { factory: RetriedSource { factory, retry }, node })
    }
}

/// Options of the step just added. They come in any order.
impl<P: Step> Stream<P> {
    /// Sets the error policy of the operator just added. Default: the policy of
    /// [`Environment::on_error`](crate::Environment::on_error).
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.with(|graph| graph.set_policy(self.pipe.node(), policy));
        self
    }

    /// Calls the operator just added again with a record on which it returned an error. When the attempts are used up,
    /// its error policy or its dead letters get the failure, as [`RetriesExhausted`](crate::RetriesExhausted). The
    /// record is cloned for each attempt but the last, and its outputs are held until it has succeeded.
    ///
    /// ```
    /// use sage::{Environment, Retry};
    /// use std::time::Duration;
    ///
    /// let env = Environment::local("flaky");
    /// let mut calls = 0;
    /// let answers = env
    ///     .from_iter([10, 20])
    ///     .try_map(move |n| {
    ///         calls += 1;
    ///         if calls % 2 == 1 { Err("try again") } else { Ok(n + 1) }
    ///     })
    ///     .retry(Retry::up_to(3).backoff(Duration::from_millis(1), Duration::from_millis(5)))
    ///     .collect();
    /// let report = env.run()?;
    /// assert_eq!(answers.take(), [11, 21]);
    /// assert_eq!(report.operators[1].retries, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry(self, retry: Retry) -> Stream<P::Kept>
    where
        P::In: Clone,
    {
        let problem = retry.mistake();
        self.checked(problem).kept(KeepTo::Retry(retry))
    }

    /// Sends the records on which the operator just added returns an error to a second stream, each with the operator,
    /// the errors, the time and the number of attempts. The job goes on. Like every stream, the second one must end in
    /// a sink. Each record is cloned, in case it fails, and its outputs are held until it has succeeded.
    ///
    /// ```
    /// let env = sage::Environment::local("numbers");
    /// let (numbers, dead) = env.from_iter(["1", "two"]).try_map(|text| text.parse::<i32>()).dead_letters();
    /// let (numbers, dead) = (numbers.collect(), dead.collect());
    /// env.run()?;
    /// assert_eq!(numbers.take(), [1]);
    /// let letter = &dead.take()[0];
    /// assert_eq!((letter.record, letter.position), ("two", 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dead_letters(self) -> (Stream<P::Kept>, DataStream<DeadLetter<P::In>>)
    where
        P::In: Clone,
    {
        let node = self.pipe.node();
        self.graph.with(|graph| graph.node_mut(node).one_to_one = false);
        let (edge, letters) = self.side(node);
        (self.kept(KeepTo::Letters(edge)), letters)
    }

    fn kept(self, to: KeepTo) -> Stream<P::Kept>
    where
        P::In: Clone,
    {
        self.with_pipe(|pipe| pipe.keep(P::In::clone, to))
    }

    /// Notes what is wrong with the step just added.
    pub(super) fn checked(self, problem: Option<impl Into<String>>) -> Self {
        if let Some(problem) = problem {
            let node = self.pipe.node();
            self.graph.with(|graph| graph.add_mistake(node, problem.into()));
        }
        self
    }
}

impl<P: ParallelStep> Stream<P> {
    /// Runs the operator just added, and those after it, in `replicas` replicas.
    ///
    /// The records are spread over them by key after [`key_by`](Stream::key_by), else in turn, through bounded
    /// lanes, one for each pair of replicas. Order is kept per key after `key_by`, else in each lane.
    pub fn parallelism(self, replicas: usize) -> Stream<P::Spread> {
        P::spread(self, replicas)
    }
}

impl<P: WindowStep> Stream<P> {
    /// Sends the records that came too late for the windows just added to a second stream.
    /// [`OperatorReport::late`](crate::OperatorReport::late) counts them all the same. For windows of event time
    /// without [`late_to`](crate::WindowedStream::late_to).
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, OutOfOrder, Timestamp, Tumbling};
    ///
    /// let env = Environment::local("late").block_records(1);
    /// let (counts, late) = env
    ///     .from_iter([1_000, 5_000, 9_000, 1_500])
    ///     .on_another_thread() // in blocks of one record: the watermark comes between two
    ///     .with_timestamps(|&millis| Timestamp::from_millis(millis), OutOfOrder::by(Duration::ZERO))
    ///     .key_by(|_| ())
    ///     .window(Tumbling::of(Duration::from_secs(2)))
    ///     .count()
    ///     .split_late();
    /// let (counts, late) = (counts.collect(), late.collect());
    /// env.run()?;
    /// let counted: u64 = counts.take().iter().map(|count| count.value.value).sum();
    /// assert_eq!(counted + late.take().len() as u64, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn split_late(self) -> (Stream<P::Apart>, DataStream<Timed<P::Late>>) {
        P::split_late(self)
    }
}

impl<P, W, F, K> WindowStep for Then<P, F, K>
where
    P: Pipe<Out = Timed<W::Value>>,
    W: OpenWindows,
    F: Factory<Operator = Windows<W, Dropped>, Replicas = Many>,
    K: Keeping<P::Out>,
{
    type Late = W::Value;
    type Apart = Then<P, Apart<F>, K>;

    fn split_late(stream: Stream<Self>) -> (Stream<Self::Apart>, DataStream<Timed<Self::Late>>) {
        let (edge, late) = stream.side(stream.pipe.node);
        let stream = stream.with_pipe(|Then { before, factory, keeping, node }| Then {
            before,
            factory: Apart { factory, edge },
            keeping,
            node,
        });
        (stream, late)
    }
}

impl<P: Pipe> Stream<P> {
    /// Splits the stream in two: the records for which `predicate` returns true, and the others. Either may end before
    /// the other.
    pub fn split<F>(self, predicate: F) -> (Stream<impl ParallelStep<In = P::Out, Out = P::Out>>, DataStream<P::Out>)
    where
        F: FnMut(&P::Out) -> bool + Clone + Send + 'static,
    {
        self.then_beside("split", Split::new(predicate))
    }

    fn then_beside<O>(mut self, kind: &'static str, operator: O) -> (Stream<Then<P, Beside<O>>>, DataStream<O::Side>)
    where
        O: Stage<In = P::Out> + Clone,
    {
        let node = self.graph.with(|graph| graph.add_node(kind, false));
        self.nodes.push(node);
        let (edge, side) = self.side(node);
        (self.with_pipe(|before| Then { before, factory: Beside { operator, edge }, keeping: NotKept, node }), side)
    }

    /// A stream that begins beside the operator at `node`, and the edge that leads there.
    fn side<T: Send + 'static>(&self, node: NodeId) -> (EdgeId, DataStream<T>) {
        let replicas = self.replicas();
        let (edge, inlet) = self.graph.with(|graph| {
            let inlet = graph.add_inlet(replicas);
            (graph.add_edge(edge::<T>(node, inlet, Partitioning::Forward)), inlet)
        });
        let pipe = FromInlet::new(inlet, Replicas::Any);
        (edge, Stream { graph: self.graph.clone(), pipe, nodes: Vec::new(), head: Head::Inlet(inlet) })
    }
}

impl<T: Send + 'static, E: Send + 'static, P: Pipe<Out = Result<T, E>>> Stream<P> {
    /// Splits the stream in two: the values of the records that are `Ok`, and the errors of the others.
    pub fn split_ok(self) -> (Stream<impl ParallelStep<In = Result<T, E>, Out = T>>, DataStream<E>) {
        self.then_beside("split-ok", SplitOk::new())
    }
}
