//! What becomes of records that fail, and of those that are set apart.

use std::marker::PhantomData;

use super::pipe::{From, FromInlet, Pipe, SourceFactory, Then, ThenSide};
use super::{DataStream, Stream, edge};
use crate::exchange::Partitioning;
use crate::graph::{Head, NodeId};
use crate::operator::late::LateApart;
use crate::operator::policy::ErrorPolicy;
use crate::operator::side::{Mourned, SideFactory, SideOperator, Split, SplitOk};
use crate::operator::{Cloned, DeadLetter, Operator, OperatorFactory, Retried, Retry, SetsApart};
use crate::source::RetriedSource;
use crate::time::Timed;

/// The stream after an operator with a side stream, and that one.
pub(super) type WithSide<P, F, S> = (Stream<ThenSide<P, F>>, DataStream<S>);

impl<F: SourceFactory> Stream<From<F>> {
    /// Asks the source again when it failed to give its next record: [`Source::next`](crate::Source::next) is called
    /// again after the wait, of the same source, which is neither closed nor opened meanwhile. So a source reconnects
    /// by connecting in `next`. How often counts from its last record on; when that was enough, the job fails with a
    /// [`RetriesExhausted`](crate::RetriesExhausted). To be added right behind the source, after its `parallelism`; its
    /// `open` is not tried again.
    ///
    /// While it waits, what was read before goes on its way, and a drain or a cancel ends the source at once.
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
    pub fn retry(self, retry: Retry) -> Stream<From<RetriedSource<F>>> {
        let From { factory, node } = self.pipe;
        if let Some(message) = retry.mistake() {
            self.graph.with(|graph| graph.add_mistake(node, message));
        }
        let pipe = From { factory: RetriedSource { factory, retry }, node };
        Stream { graph: self.graph, pipe, nodes: self.nodes, head: self.head }
    }
}

impl<P, F> Stream<Then<P, F>>
where
    P: Pipe,
    F: OperatorFactory,
    F::Operator: Operator<In = P::Out>,
{
    /// Says what becomes of a record on which the operator just added returns an error. Default: that of
    /// [`Environment::on_error`](crate::Environment::on_error).
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.with(|graph| graph.set_policy(self.pipe.node, policy));
        self
    }

    /// Asks the operator just added again for a record on which it returned an error, before its error policy or its
    /// dead letters get to see the failure as a [`RetriesExhausted`](crate::RetriesExhausted). The record is cloned for
    /// each attempt but the last, and what it emits is held until it has succeeded.
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
    pub fn retry(self, retry: Retry) -> Stream<Then<P, Retried<F>>>
    where
        P::Out: Clone,
    {
        let Then { before, factory, node } = self.pipe;
        if let Some(message) = retry.mistake() {
            self.graph.with(|graph| graph.add_mistake(node, message));
        }
        let pipe = Then { before, factory: Retried { factory, retry }, node };
        Stream { graph: self.graph, pipe, nodes: self.nodes, head: self.head }
    }

    /// Sends the records on which the operator just added returns an error to a stream of their own, each with the
    /// operator, the errors, the time and the number of attempts; the job goes on. Like every stream, it must end in a
    /// sink. Each record is cloned, to have it if it fails, and what it emits is held until it has succeeded.
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
    pub fn dead_letters(self) -> WithSide<P, Mourned<F>, DeadLetter<P::Out>>
    where
        P::Out: Clone,
    {
        let Then { before, factory, node } = self.pipe;
        self.graph.with(|graph| graph.node_mut(node).one_to_one = false);
        let before = Stream { graph: self.graph, pipe: before, nodes: self.nodes, head: self.head };
        before.with_side(Mourned(factory), node)
    }
}

impl<P, F> Stream<Then<P, F>>
where
    P: Pipe,
    F: OperatorFactory,
    F::Operator: SetsApart + Operator<In = P::Out>,
{
    /// Sends the records that came too late for the windows just added to a stream of their own. They are counted all
    /// the same, as [`OperatorReport::late`](crate::OperatorReport::late). For windows of event time without
    /// [`late_to`](crate::WindowedStream::late_to), and after their `parallelism`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Environment, OutOfOrder, Timestamp, Tumbling};
    ///
    /// let env = Environment::local("late").batch_records(1);
    /// let (counts, late) = env
    ///     .from_iter([1_000, 5_000, 9_000, 1_500])
    ///     .boxed() // a batch each: the watermark comes between two batches
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
    pub fn split_late(self) -> WithSide<P, LateApart<F>, Timed<<F::Operator as SetsApart>::Record>> {
        let Then { before, factory, node } = self.pipe;
        let before = Stream { graph: self.graph, pipe: before, nodes: self.nodes, head: self.head };
        before.with_side(LateApart(factory), node)
    }
}

impl<P: Pipe> Stream<P> {
    /// Goes on as two streams: the records that `predicate` accepts, and the others. Either may end before the other.
    pub fn split<F>(self, predicate: F) -> WithSide<P, Cloned<Split<F, P::Out>>, P::Out>
    where
        F: FnMut(&P::Out) -> bool + Clone + Send + 'static,
    {
        self.then_side("split", Cloned(Split::new(predicate)))
    }

    fn then_side<F>(mut self, kind: &'static str, factory: F) -> WithSide<P, F, <F::Operator as SideOperator>::Side>
    where
        F: SideFactory,
        F::Operator: SideOperator<In = P::Out>,
    {
        let node = self.graph.with(|graph| graph.add_node(kind, false));
        self.nodes.push(node);
        self.with_side(factory, node)
    }

    /// Adds the side operator of `node`, which is the last of this stream's nodes.
    pub(super) fn with_side<F>(self, factory: F, node: NodeId) -> WithSide<P, F, <F::Operator as SideOperator>::Side>
    where
        F: SideFactory,
        F::Operator: SideOperator<In = P::Out>,
    {
        let replicas = self.replicas();
        let (side, inlet) = self.graph.with(|graph| {
            let inlet = graph.add_inlet(replicas);
            let edge = edge::<<F::Operator as SideOperator>::Side>(node, inlet, Partitioning::Forward);
            (graph.add_edge(edge), inlet)
        });
        let pipe = ThenSide { before: self.pipe, factory, node, side };
        let main = Stream { graph: self.graph.clone(), pipe, nodes: self.nodes, head: self.head };
        let pipe = FromInlet::new(inlet, true);
        (main, Stream { graph: self.graph, pipe, nodes: Vec::new(), head: Head::Inlet(inlet) })
    }
}

impl<T: Send + 'static, E: Send + 'static, P: Pipe<Out = Result<T, E>>> Stream<P> {
    /// Goes on as two streams: the values of the records that are `Ok`, and the errors of the others.
    pub fn split_ok(self) -> WithSide<P, Cloned<SplitOk<T, E>>, E> {
        self.then_side("split-ok", Cloned(SplitOk(PhantomData)))
    }
}
