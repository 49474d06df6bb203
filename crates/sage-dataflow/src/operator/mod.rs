//! The runtime form of a transformation: the [`Operator`] trait, and the link that fuses operators into a chain.
//!
//! One file per family. Built-in operators implement the same trait a user's do.

mod filter;
mod fold;
mod map;

use std::marker::PhantomData;
use std::sync::Arc;

pub(crate) use filter::{Filter, Take};
pub(crate) use fold::{Count, Fold, KeyedFold, KeyedReduce, Reduce};
pub(crate) use map::{FlatMap, FlatMapInto, Inspect, Map, TryMap};

use crate::BoxError;
use crate::graph::NodeId;
use crate::graph::wiring::BuildContext;
use crate::job::control::{Control, JobControl};
use crate::job::task::{CloseContext, Fault, OpenContext, Position, Push, Stop, TaskContext};
use crate::metrics::Counter;

/// Takes the records an operator produces.
pub trait Emit<T> {
    /// Sends `record` on. Pass an error on with `?`: nothing more is wanted.
    fn emit(&mut self, record: T) -> Result<(), Fault>;
}

/// One step of a chain: takes records, emits records.
///
/// An operator that is `Clone` can be cloned per replica; any other is made per replica by a factory, see
/// [`Stream::operator`](crate::Stream::operator). One replica runs on one thread, so `&mut self` is its state.
///
/// ```
/// use sage::{Emit, Environment, Fault, Operator};
///
/// /// Joins each two neighbouring words.
/// struct Pairs {
///     last: Option<String>,
/// }
///
/// impl Operator for Pairs {
///     type In = String;
///     type Out = String;
///
///     fn process(&mut self, word: String, out: &mut impl Emit<String>) -> Result<(), Fault> {
///         if let Some(last) = self.last.replace(word.clone()) {
///             out.emit(format!("{last} {word}"))?;
///         }
///         Ok(())
///     }
/// }
///
/// let env = Environment::local("pairs");
/// let pairs = env
///     .from_iter(["a", "b", "c"].map(String::from))
///     .operator(|| Pairs { last: None })
///     .collect();
/// env.run()?;
/// assert_eq!(pairs.take(), ["a b", "b c"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Operator: Send + 'static {
    /// The records it takes.
    type In: Send + 'static;
    /// The records it emits.
    type Out: Send + 'static;

    /// Whether `process` emits exactly one record each time and nothing at the end, so that nothing need be counted.
    #[doc(hidden)]
    const ONE_TO_ONE: bool = false;

    /// Whether one call of `process` may emit so many records that a cancel should not wait for its end.
    #[doc(hidden)]
    const MANY: bool = true;

    /// Runs once, on the task's own thread, before the first record.
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let _ = cx;
        Ok(())
    }

    /// Takes one record and emits any number.
    fn process(&mut self, record: Self::In, out: &mut impl Emit<Self::Out>) -> Result<(), Fault>;

    /// Runs at the end of input, and may still emit. Not called after a failure or a cancel.
    fn finish(&mut self, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// Releases what `open` acquired. Runs exactly once after `open` was attempted, whatever happened since.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// Makes the operator of each replica.
pub trait OperatorFactory: Send + 'static {
    /// What it makes.
    type Operator: Operator;
    /// Makes one.
    fn make(&self) -> Self::Operator;
}

/// Clones a prototype.
#[derive(Debug, Clone)]
pub struct Cloned<O>(pub(crate) O);

impl<O: Operator + Clone> OperatorFactory for Cloned<O> {
    type Operator = O;
    fn make(&self) -> O {
        self.0.clone()
    }
}

/// Calls the user's factory.
#[derive(Debug, Clone)]
pub struct Made<F>(pub(crate) F);

impl<O: Operator, F: Fn() -> O + Send + 'static> OperatorFactory for Made<F> {
    type Operator = O;
    fn make(&self) -> O {
        (self.0)()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    New,
    Open,
    Closed,
}

/// An operator fused to the rest of its chain.
pub(crate) struct Link<O, N> {
    operator: O,
    next: N,
    node: NodeId,
    emitted: u64,
    life: Life,
    context: OpenContext,
    control: Arc<JobControl>,
    emitted_so_far: Arc<Counter>,
}

impl<O: Operator, N> Link<O, N> {
    pub(crate) fn new(operator: O, next: N, node: NodeId, cx: &mut BuildContext<'_>) -> Self {
        let (context, control, emitted_so_far) = (cx.open_context(), cx.control(), cx.emitted(node));
        Self { operator, next, node, emitted: 0, life: Life::New, context, control, emitted_so_far }
    }

    #[inline(always)]
    fn parts<'a>(&'a mut self, at: &'a mut Position) -> (&'a mut O, Outlet<'a, O, N>) {
        let Self { operator, next, node, emitted, control, .. } = self;
        (operator, Outlet { next, at, node: *node, emitted, control, operator: PhantomData })
    }
}

/// The way out of an operator: the next link.
struct Outlet<'a, O, N> {
    next: &'a mut N,
    at: &'a mut Position,
    node: NodeId,
    emitted: &'a mut u64,
    control: &'a JobControl,
    operator: PhantomData<O>,
}

impl<O: Operator, N: Push<O::Out>> Emit<O::Out> for Outlet<'_, O, N> {
    #[inline(always)]
    fn emit(&mut self, record: O::Out) -> Result<(), Fault> {
        if O::ONE_TO_ONE {
            return self.next.push(record, self.at);
        }
        *self.emitted += 1;
        self.next.push(record, self.at)?;
        self.at.enter(self.node);
        if O::MANY && self.control.load() == Control::Cancel {
            return Err(Stop::Cancelled.into());
        }
        Ok(())
    }
}

impl<O: Operator, N: Push<O::Out>> Push<O::In> for Link<O, N> {
    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        self.life = Life::Open;
        match self.operator.open(&self.context) {
            Ok(()) => self.next.open(at),
            // It wants no records at all; the end of input still goes through what follows.
            Err(Fault::Stop(Stop::Satisfied)) => self.next.open(at).and(Err(Stop::Satisfied.into())),
            fault => fault,
        }
    }

    #[inline(always)]
    fn push(&mut self, record: O::In, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        let (operator, mut outlet) = self.parts(at);
        operator.process(record, &mut outlet)
    }

    fn wanted(&self) -> bool {
        self.next.wanted()
    }

    fn publish(&mut self) {
        if !O::ONE_TO_ONE {
            self.emitted_so_far.publish(self.emitted);
        }
        self.next.publish();
    }

    fn flush(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.next.flush(at)
    }

    fn finish(&mut self, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        let (operator, mut outlet) = self.parts(at);
        match operator.finish(&mut outlet) {
            Ok(()) | Err(Fault::Stop(Stop::Satisfied)) => self.next.finish(at),
            fault => fault,
        }
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if self.life == Life::Open {
            self.life = Life::Closed;
            let operator = &mut self.operator;
            cx.closing(self.node, |close| operator.close(close));
        }
        self.next.close(cx);
    }
}
