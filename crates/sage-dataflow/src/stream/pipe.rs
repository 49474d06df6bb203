//! What a stream is made of while its chain is still growing: sources and inlets, and operators after them.
//!
//! A pipe is a recipe. Given the rest of the chain it builds the task of one replica, as one concrete type that the
//! compiler turns into one loop. Building does not use the recipe up: each replica and each run builds from it.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use crate::environment::SubmitError;
use crate::exchange::lane::{Inbox, Polled, Taker};
use crate::exchange::{ByKey, Circle, Gauge, Lanes, Partitioning, Returned, RoundRobin, Rounds};
use crate::graph::wiring::BuildContext;
use crate::graph::{EdgeId, InletId, NodeId};
use crate::job::control::{Control, JobControl};
use crate::job::task::{Fault, Position, Push, Step, Stop, Task, TaskContext, Work};
use crate::metrics::Counter;
use crate::operator::side::{SideFactory, SideLink, SideOperator};
use crate::operator::{Cloned, KeySelector, Link, Made, Operator, OperatorFactory};
use crate::source::{Source, SourceTask};
use crate::sync::lock;

/// A chain that can still grow. Implemented by the engine alone.
pub trait Pipe: Send + 'static {
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

/// A source at the head of a chain.
pub struct From<F> {
    pub(crate) factory: F,
    pub(crate) node: NodeId,
}

/// Makes the source of each replica.
pub trait SourceFactory: Send + 'static {
    /// What it makes.
    type Source: Source;
    /// Makes the source of `replica`; `None` when it can only be made once and has been.
    fn make(&self, replica: usize) -> Option<Self::Source>;
}

/// A source that exists already and can be read once.
pub struct OneShot<S>(pub(crate) Arc<Mutex<Option<S>>>);

impl<S: Source> SourceFactory for OneShot<S> {
    type Source = S;
    fn make(&self, _replica: usize) -> Option<S> {
        lock(&self.0).take()
    }
}

/// A function that makes a source per run, for one replica: two would read the same records.
pub struct PerRun<F>(pub(crate) F);

impl<S: Source, F: Fn() -> S + Send + 'static> SourceFactory for PerRun<F> {
    type Source = S;
    fn make(&self, _replica: usize) -> Option<S> {
        Some((self.0)())
    }
}

/// A function that makes a source per replica and run.
pub struct PerReplica<F>(pub(crate) F);

impl<S: Source, F: Fn(usize) -> S + Send + 'static> SourceFactory for PerReplica<F> {
    type Source = S;
    fn make(&self, replica: usize) -> Option<S> {
        Some((self.0)(replica))
    }
}

impl<F: SourceFactory> Pipe for From<F> {
    type Out = <F::Source as Source>::Item;

    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let source = self.factory.make(cx.replica);
        let source = source.ok_or_else(|| SubmitError::SourceConsumed { source_name: cx.name(self.node) })?;
        Ok(Box::new(SourceTask::new(source, next, self.node, cx)))
    }
}

/// The receiving end of an exchange at the head of a chain.
pub struct FromInlet<T> {
    pub(crate) inlet: InletId,
    /// Whether records may go to any replica.
    pub(crate) any_replica: bool,
    pub(crate) records: PhantomData<fn() -> T>,
}

impl<T> FromInlet<T> {
    pub(crate) fn new(inlet: InletId, any_replica: bool) -> Self {
        Self { inlet, any_replica, records: PhantomData }
    }
}

impl<T: Send + 'static> Pipe for FromInlet<T> {
    type Out = T;

    fn build<N: Push<T> + 'static>(&self, cx: &mut BuildContext<'_>, next: N) -> Result<Box<dyn Task>, SubmitError> {
        Ok(Box::new(InletTask {
            inbox: cx.inbox(self.inlet),
            circle: cx.circle(&next),
            next,
            head: cx.loop_head(self.inlet).map(|gauge| LoopHead { rounds: Rounds::new(), gauge }),
            taken: cx.taken(),
            control: cx.control(),
        }))
    }

    fn retarget(&self, partitioning: Partitioning) -> Option<InletId> {
        (self.any_replica && partitioning == Partitioning::RoundRobin).then_some(self.inlet)
    }
}

/// The chain behind an inbox.
struct Chain<'a, N> {
    next: &'a mut N,
    at: &'a mut Position,
    control: &'a JobControl,
}

impl<T, N: Push<T>> Taker<T> for Chain<'_, N> {
    type Refusal = Fault;

    /// A record may take long, and a batch of them for ever.
    #[inline(always)]
    fn look(&mut self) -> Result<(), Fault> {
        if self.control.load() == Control::Cancel { Err(Stop::Cancelled.into()) } else { Ok(()) }
    }

    #[inline(always)]
    fn take(&mut self, record: T) -> Result<(), Fault> {
        self.next.push(record, self.at)
    }

    #[inline(always)]
    fn took(&mut self, count: usize) {
        self.at.count(count as u64);
    }
}

/// What the head of a loop knows besides.
struct LoopHead {
    rounds: Rounds,
    gauge: Arc<Gauge>,
}

/// Whether a task is to go on: somebody wants its records, and not only a loop that nobody outside wants anything of.
pub(super) fn is_wanted<T>(next: &impl Push<T>, circle: Option<&Circle>) -> bool {
    next.wanted(false) && circle.is_none_or(|circle| circle.goes_on(|| next.wanted(true)))
}

/// A chain that begins with an inbox.
struct InletTask<T, N> {
    inbox: Inbox<T>,
    next: N,
    circle: Option<Circle>,
    head: Option<LoopHead>,
    taken: Arc<Counter>,
    control: Arc<JobControl>,
}

impl<T: Send, N: Push<T>> InletTask<T, N> {
    /// Outside the loop over records, which must not pay for the call.
    #[cold]
    fn input_ended(&mut self, input: usize, cx: &mut TaskContext) -> Result<(), Stop> {
        match cx.run(&mut self.next, |next, at| next.input_ended(input, at)) {
            Err(Stop::Attend) => cx.run(&mut self.next, |next, at| next.attend(at)),
            told => told,
        }
    }
}

impl<T: Send, N: Push<T>> InletTask<T, N> {
    /// Passes a probe on; at the head of the loop, ends it or sends the next one.
    #[cold]
    fn probed(&mut self, round: u64, cx: &mut TaskContext) -> Result<Step, Stop> {
        let round = match &mut self.head {
            None => round,
            Some(head) => match head.rounds.returned(round, cx.records()) {
                Returned::Again(next) => next,
                Returned::Ended => {
                    head.gauge.end();
                    return Ok(Step::End);
                }
            },
        };
        cx.run(&mut self.next, |next, at| next.probe(round, at)).map(|()| Step::Again)
    }
}

impl<T: Send, N: Push<T>> Task for InletTask<T, N> {
    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.next, |next, at| next.open(at))?;
        match self.head {
            Some(_) => cx.run(&mut self.next, |next, at| next.probe(Rounds::FIRST, at)),
            None => Ok(()),
        }
    }

    fn step(&mut self, cx: &mut TaskContext) -> Result<Step, Stop> {
        if !is_wanted(&self.next, self.circle.as_ref()) {
            return Err(Stop::Satisfied);
        }
        let before = cx.records();
        let work = Work::begin();
        let (inbox, control) = (&mut self.inbox, &*self.control);
        let polled = cx.run(&mut self.next, |next, at| inbox.poll(&mut Chain { next, at, control }));
        let took = u32::try_from(cx.records() - before).unwrap_or(u32::MAX);
        let polled = match polled {
            Err(Stop::Attend) => cx.run(&mut self.next, |next, at| next.attend(at)).map(|()| Polled::Taken)?,
            polled => polled?,
        };
        while let Some(input) = self.inbox.take_ended() {
            self.input_ended(input, cx)?;
        }
        if let Polled::Marked(mark) = polled {
            cx.run(&mut self.next, |next, at| next.watermark(mark, at))?;
        }
        cx.run_in_place(|at| self.next.between(at))?;
        // With what comes behind it: a chain that waits for room is as slow as what it waits for.
        if took > 0 {
            self.inbox.took(took as usize, work.time());
        }
        if let Some(head) = &self.head {
            head.gauge.taken(cx.records());
        }
        match polled {
            Polled::Taken | Polled::Marked(_) => Ok(Step::Again),
            Polled::Probed(round) => self.probed(round, cx),
            Polled::Nothing => Ok(Step::Idle),
            Polled::Finished => Ok(Step::End),
            Polled::Aborted => Err(Stop::Cancelled),
        }
    }

    fn wait(&mut self, _cx: &mut TaskContext) {
        let (control, wake_at) = (&self.control, self.next.wake_at());
        let (clock, wanted) = (control.clock(), || is_wanted(&self.next, self.circle.as_ref()));
        let interrupted = || control.load() == Control::Cancel || !wanted() || clock.is_due(wake_at);
        self.inbox.wait(interrupted, wake_at.and_then(|moment| clock.until(moment)));
    }

    fn publish(&mut self, cx: &TaskContext) {
        self.taken.publish(cx.records());
        self.next.publish();
    }

    fn flush(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.next, |next, at| next.flush(at))
    }

    fn finish(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.next, |next, at| next.finish(at))?;
        self.inbox.satisfied();
        Ok(())
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.next.close(cx);
    }

    fn is_source(&self) -> bool {
        false
    }
}

/// Either the chain so far or, where its records had to be spread first, the inlet after an exchange.
pub enum MaybeExchanged<P: Pipe> {
    /// The operator fuses.
    Fused(P),
    /// The operator begins a chain.
    Exchanged(FromInlet<P::Out>),
}

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
            // The exchange was made for the operator after it.
            Self::Exchanged(inlet) => Some(inlet.inlet),
        }
    }
}

/// An operator after a pipe.
pub struct Then<P, F> {
    pub(crate) before: P,
    pub(crate) factory: F,
    pub(crate) node: NodeId,
}

impl<P, F> Pipe for Then<P, F>
where
    P: Pipe,
    F: OperatorFactory,
    F::Operator: Operator<In = P::Out>,
{
    type Out = <F::Operator as Operator>::Out;

    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let link = Link::new(self.factory.make(), next, self.node, cx);
        self.before.build(cx, link)
    }
}

/// An operator with a side stream after a pipe.
pub struct ThenSide<P, F> {
    pub(crate) before: P,
    pub(crate) factory: F,
    pub(crate) node: NodeId,
    pub(crate) side: EdgeId,
}

impl<P, F> Pipe for ThenSide<P, F>
where
    P: Pipe,
    F: SideFactory,
    F::Operator: SideOperator<In = P::Out>,
{
    type Out = <F::Operator as SideOperator>::Out;

    fn build<N: Push<Self::Out> + 'static>(
        &self,
        cx: &mut BuildContext<'_>,
        next: N,
    ) -> Result<Box<dyn Task>, SubmitError> {
        cx.building(self.node);
        let side = RoundRobin::new(cx.writers(self.side), cx.replica);
        let link = SideLink::new(self.factory.make(), next, side, self.node, cx);
        self.before.build(cx, link)
    }
}

/// An operator's wish for how its input is spread over its replicas.
pub trait Spread<T>: OperatorFactory {
    /// The router that spreads it.
    type Router: Push<T> + 'static;
    /// How it is spread.
    const PARTITIONING: Partitioning;
    /// What makes the router of each producing replica, in the name of the operator at `node`.
    #[doc(hidden)]
    fn spreader(&self, node: NodeId) -> impl Fn(Lanes<T>, usize) -> Self::Router + Send + 'static;
}

impl<T: Send + 'static, O: Operator<In = T> + Clone> Spread<T> for Cloned<O> {
    type Router = RoundRobin<T>;
    const PARTITIONING: Partitioning = Partitioning::RoundRobin;
    fn spreader(&self, _node: NodeId) -> impl Fn(Lanes<T>, usize) -> RoundRobin<T> + Send + 'static {
        RoundRobin::new
    }
}

impl<T: Send + 'static, O: Operator<In = T>, F: Fn() -> O + Send + 'static> Spread<T> for Made<F> {
    type Router = RoundRobin<T>;
    const PARTITIONING: Partitioning = Partitioning::RoundRobin;
    fn spreader(&self, _node: NodeId) -> impl Fn(Lanes<T>, usize) -> RoundRobin<T> + Send + 'static {
        RoundRobin::new
    }
}

/// Clones a keyed operator, and spreads its input by key.
pub struct Keyed<O, S> {
    pub(crate) operator: O,
    pub(crate) key: S,
}

impl<O: Operator + Clone, S: Send + 'static> OperatorFactory for Keyed<O, S> {
    type Operator = O;
    fn make(&self) -> O {
        self.operator.clone()
    }
}

impl<T: Send + 'static, O: Operator<In = T> + Clone, S: KeySelector<T>> Spread<T> for Keyed<O, S> {
    type Router = ByKey<T, S>;
    const PARTITIONING: Partitioning = Partitioning::Hash;
    fn spreader(&self, node: NodeId) -> impl Fn(Lanes<T>, usize) -> Self::Router + Send + 'static {
        let key = self.key.clone();
        move |lanes, _replica| ByKey::new(lanes, key.clone(), node)
    }
}
