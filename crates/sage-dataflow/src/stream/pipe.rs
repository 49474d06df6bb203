//! The parts of a stream whose chain is still growing: sources and inlets, and the operators after them.
//!
//! A pipe is a recipe. Given the rest of the chain, it builds the task of one replica as one concrete type, which the
//! compiler turns into one loop. Building does not use the recipe up: each replica and each run builds from it.

use std::marker::PhantomData;
use std::sync::Arc;

use super::factory::{Factory, Many};
use super::{DataStream, Stream};
use crate::chain::{DeadLetter, Handling, Keeper, Link, NotKept, Push, Stage};
use crate::exchange::Partitioning;
use crate::graph::wiring::BuildContext;
use crate::guarded::opaque;
use crate::ids::{EdgeId, InletId, NodeId};
use crate::metrics::Counter;
use crate::retry::Retry;
use crate::source::{Source, SourceFactory};
use crate::submit_error::SubmitError;
use crate::task::{InletTask, SourceTask, Task};
use crate::time::Timed;

/// A chain to which operators can still be added; a [`Stream`] holds one. Only the engine implements it.
pub trait Pipe: Send + Sized + 'static {
    /// The records that come out of it.
    type Out: Send + 'static;

    /// Builds the task of one replica, with `next` as the rest of its chain.
    #[doc(hidden)]
    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError>;

    /// The inlet this pipe is, if an operator after it that wants its records spread by `partitioning` may simply
    /// change the number of its replicas.
    #[doc(hidden)]
    fn retarget(&self, _partitioning: Partitioning) -> Option<InletId> {
        None
    }
}

/// A chain whose last step is an operator with options that can still be set, such as its parallelism and its error
/// policy. Only the engine implements it.
///
/// ```
/// use sage::{Environment, ErrorPolicy, ParallelStep, Pipe, Stream};
///
/// fn parse(texts: Stream<impl Pipe<Out = String>>) -> Stream<impl ParallelStep<In = String, Out = u32>> {
///     texts.try_map(|text| text.parse::<u32>()).named("parse")
/// }
///
/// let env = Environment::local("numbers");
/// let texts = env.from_iter(["1", "two", "3"].map(String::from));
/// let numbers = parse(texts).parallelism(2).on_error(ErrorPolicy::skip()).collect();
/// env.run()?;
/// assert_eq!(numbers.take().iter().sum::<u32>(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Step: Pipe {
    /// The records that the operator takes.
    type In: Send + 'static;
    /// In how many replicas it may run: `Many` or `One`.
    type Replicas;
    /// The same step, with its input spread over replicas.
    type Spread: Step<In = Self::In, Out = Self::Out, Replicas = Self::Replicas>;
    /// The same step, which keeps each record until the operator is done with it.
    type Kept: Step<In = Self::In, Out = Self::Out, Replicas = Self::Replicas>;

    #[doc(hidden)]
    fn node(&self) -> NodeId;
    #[doc(hidden)]
    fn spread(stream: Stream<Self>, replicas: usize) -> Stream<Self::Spread>;
    #[doc(hidden)]
    fn keep(self, copy: fn(&Self::In) -> Self::In, to: KeepTo) -> Self::Kept;
}

/// A [`Step`] that may run in several replicas.
pub trait ParallelStep: Step<Replicas = Many> {}

impl<P: Step<Replicas = Many>> ParallelStep for P {}

/// A [`Step`] whose operator is windows of event time. Implemented by the engine alone.
pub trait WindowStep: Step<Replicas = Many> {
    /// The values of records that come too late.
    type Late: Send + 'static;
    /// The same step, with those records in a stream of their own.
    type Apart: Step<In = Self::In, Out = Self::Out, Replicas = Many>;

    #[doc(hidden)]
    fn split_late(stream: Stream<Self>) -> (Stream<Self::Apart>, DataStream<Timed<Self::Late>>);
}

/// What records are kept for.
pub enum KeepTo {
    /// To try them again.
    Retry(Retry),
    /// To send those that failed along this edge.
    Letters(EdgeId),
}
opaque!(KeepTo);

/// A source at the head of a chain.
pub struct FromSource<F> {
    pub(crate) factory: F,
    pub(crate) node: NodeId,
}
opaque!(FromSource<F>);

impl<F: SourceFactory> Pipe for FromSource<F> {
    type Out = <F::Source as Source>::Item;

    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let source = self.factory.make(cx.replica);
        let source = source.ok_or_else(|| SubmitError::SourceConsumed { source_name: cx.name(self.node) })?;
        let context = cx.source_context(self.node, source.serves());
        Ok(Box::new(SourceTask::new(source, next, self.node, context, cx.taken())))
    }
}

/// The receiving end of an exchange at the head of a chain.
pub struct FromInlet<T> {
    pub(super) inlet: InletId,
    replicas: Replicas,
    records: PhantomData<fn() -> T>,
}
opaque!(FromInlet<T>);

/// Who may change the number of replicas that read an inlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replicas {
    /// Nobody: how records are spread belongs to what was asked for.
    Fixed,
    /// An operator whose records may go to any replica.
    Any,
    /// The operator behind it: the inlet was made for that alone.
    Own,
}

impl<T> FromInlet<T> {
    pub(super) fn new(inlet: InletId, replicas: Replicas) -> Self {
        Self { inlet, replicas, records: PhantomData }
    }

    /// Builds the task of one replica, whose records `taken` counts.
    pub(super) fn build_counted<N: Push<T> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
        taken: Arc<Counter>,
    ) -> Box<dyn Task>
    where
        T: Send + 'static,
    {
        let (inbox, circle, head) = (cx.inbox(self.inlet), cx.circle(&next), cx.loop_head(self.inlet));
        Box::new(InletTask::new(inbox, next, circle, head, taken, cx.control()))
    }
}

impl<T: Send + 'static> Pipe for FromInlet<T> {
    type Out = T;

    fn build<N: Push<T> + 'static>(&self, cx: &mut BuildContext<'_>, next: N) -> Result<Box<dyn Task>, SubmitError> {
        let taken = cx.taken();
        Ok(self.build_counted(cx, next, taken))
    }

    fn retarget(&self, partitioning: Partitioning) -> Option<InletId> {
        let may = match self.replicas {
            Replicas::Fixed => false,
            Replicas::Any => partitioning == Partitioning::RoundRobin,
            Replicas::Own => true,
        };
        may.then_some(self.inlet)
    }
}

/// Either the chain so far or, where its records had to be spread first, the inlet after an exchange.
pub enum MaybeExchanged<P: Pipe> {
    /// The operator fuses.
    Fused(P),
    /// The operator begins a chain.
    Exchanged(FromInlet<P::Out>),
}
opaque!([P: Pipe] MaybeExchanged<P>);

impl<P: Pipe> Pipe for MaybeExchanged<P> {
    type Out = P::Out;

    fn build<N: Push<P::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        match self {
            Self::Fused(pipe) => pipe.build(cx, next),
            Self::Exchanged(inlet) => inlet.build(cx, next),
        }
    }

    fn retarget(&self, partitioning: Partitioning) -> Option<InletId> {
        match self {
            Self::Fused(pipe) => pipe.retarget(partitioning),
            Self::Exchanged(inlet) => inlet.retarget(partitioning),
        }
    }
}

/// Whether an operator's records are kept until it is done with them, and what for.
pub trait Keeping<I>: Send + Sized + 'static {
    /// What handles its failures.
    type Handling: Handling<I> + 'static;
    /// Kept for one reason more.
    type Kept: Keeping<I>;

    #[doc(hidden)]
    fn keep(self, copy: fn(&I) -> I, to: KeepTo) -> Self::Kept;
    #[doc(hidden)]
    fn handling(&self, cx: &mut BuildContext<'_>) -> Self::Handling;
    /// Where dead letters go, if they are asked for.
    #[doc(hidden)]
    fn letters(&self) -> Option<EdgeId>;
}

impl<I: Send + 'static> Keeping<I> for NotKept {
    type Handling = NotKept;
    type Kept = Kept<I>;

    fn keep(self, copy: fn(&I) -> I, to: KeepTo) -> Kept<I> {
        Kept { copy, retry: None, letters: None }.keep(copy, to)
    }

    fn handling(&self, _cx: &mut BuildContext<'_>) -> NotKept {
        NotKept
    }

    fn letters(&self) -> Option<EdgeId> {
        None
    }
}

/// Records are kept: to be tried again, to become dead letters, or both.
pub struct Kept<I> {
    copy: fn(&I) -> I,
    retry: Option<Retry>,
    letters: Option<EdgeId>,
}
opaque!(Kept<I>);

impl<I: Send + 'static> Keeping<I> for Kept<I> {
    type Handling = Keeper<I>;
    type Kept = Self;

    fn keep(mut self, _copy: fn(&I) -> I, to: KeepTo) -> Self {
        match to {
            KeepTo::Retry(retry) => self.retry = Some(retry),
            KeepTo::Letters(edge) => self.letters = Some(edge),
        }
        self
    }

    fn handling(&self, cx: &mut BuildContext<'_>) -> Keeper<I> {
        let letters = self.letters.map(|edge| Box::new(cx.round_robin::<DeadLetter<I>>(edge)) as Box<_>);
        Keeper::new(self.copy, self.retry.clone(), letters)
    }

    fn letters(&self) -> Option<EdgeId> {
        self.letters
    }
}

/// An operator after a pipe.
pub struct Then<P, F, K = NotKept> {
    pub(crate) before: P,
    pub(crate) factory: F,
    pub(crate) keeping: K,
    pub(crate) node: NodeId,
}
opaque!(Then<P, F, K>);

impl<P, F, K> Pipe for Then<P, F, K>
where
    P: Pipe,
    F: Factory,
    F::Operator: Stage<In = P::Out>,
    K: Keeping<P::Out>,
{
    type Out = <F::Operator as Stage>::Out;

    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let (side, handling) = (self.factory.side(cx), self.keeping.handling(cx));
        let place = cx.place(self.node, F::Operator::FLAGS.has_windows);
        self.before.build(cx, Link::new(self.factory.make(), next, side, handling, place))
    }
}

impl<P, F, K> Step for Then<P, F, K>
where
    P: Pipe,
    F: Factory,
    F::Operator: Stage<In = P::Out>,
    K: Keeping<P::Out>,
{
    type In = P::Out;
    type Replicas = F::Replicas;
    type Spread = Then<MaybeExchanged<P>, F, K>;
    type Kept = Then<P, F, K::Kept>;

    fn node(&self) -> NodeId {
        self.node
    }

    fn spread(stream: Stream<Self>, replicas: usize) -> Stream<Self::Spread> {
        stream.spread_before(replicas)
    }

    fn keep(self, copy: fn(&P::Out) -> P::Out, to: KeepTo) -> Self::Kept {
        let Self { before, factory, keeping, node } = self;
        Then { before, factory, keeping: keeping.keep(copy, to), node }
    }
}
