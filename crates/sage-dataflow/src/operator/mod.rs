//! The runtime form of a transformation: the [`Operator`] trait, and the link that fuses operators into a chain.
//!
//! One file per family. Built-in operators implement the same trait a user's do.

mod aggregate;
mod clocked;
mod connect;
mod filter;
mod fold;
pub(crate) mod grid;
pub(crate) mod join;
mod key;
mod keyed;
pub(crate) mod late;
mod map;
mod map_async;
pub(crate) mod policy;
pub(crate) mod refusal;
mod retry;
mod session;
pub(crate) mod side;
mod states;
mod timers;
mod timestamps;
mod window;
pub(crate) mod zip;

use std::marker::PhantomData;
use std::sync::Arc;

pub use aggregate::Aggregate;
pub(crate) use aggregate::{Applied, Counted, Folded, Reduced};
pub use clocked::Fires;
pub(crate) use clocked::{Clocked, OfValue};
pub(crate) use connect::{CoMap, CoProcess, Of, Slot};
pub use connect::{In2, In3, In4, In5};
pub(crate) use filter::{Filter, Take};
pub(crate) use fold::{Count, Fold, Reduce};
pub use join::JoinError;
pub(crate) use join::{Full, Inner, Join, Joining, Left};
pub use key::KeySelector;
pub(crate) use key::{Borrowed, Computed, Whole};
pub(crate) use keyed::{Distinct, KeyedAggregate, KeyedFlatMap, KeyedFold, KeyedMap, KeyedReduce, TopK};
pub use late::SetsApart;
pub use map::Output;
pub(crate) use map::{FlatMap, FlatMapInto, Inspect, Map, TryMap};
pub use map_async::{AsyncError, Order};
pub(crate) use map_async::{AsyncFunction, Fallible, Flight, MAX_CAPACITY, Mourned, Policy, Since, Sure};
pub use policy::{BudgetExceeded, ErrorPolicy};
pub(crate) use retry::Retried;
pub use retry::{RetriesExhausted, Retry};
pub(crate) use session::SessionWindows;
pub use side::DeadLetter;
pub(crate) use states::{Expiring, ForEver};
pub(crate) use timers::Process;
pub use timers::{KeyContext, Timer};
pub(crate) use timestamps::Timestamps;
pub use window::LateRecords;
pub(crate) use window::{AlignedWindows, CountWindows, Dropped, HandedTo};
pub(crate) use zip::Zip;
pub use zip::ZipError;

use crate::BoxError;
use crate::exchange::lane::Mark;
use crate::graph::NodeId;
use crate::graph::wiring::BuildContext;
use crate::guarded::Guarded;
use crate::job::control::{Control, JobControl};
use crate::job::task::{CloseContext, Fault, OpenContext, Position, Push, Stop, TaskContext};
use crate::metrics::Counter;
use crate::time::Timestamp;
use policy::Errors;
use refusal::Leave;

/// Takes the records an operator produces.
pub trait Emit<T> {
    /// Sends `record` on. Pass an error on with `?`: nothing more is wanted. Where it is not passed on, every further
    /// `emit` of the same call is refused as well, and the call ends as if it had been.
    fn emit(&mut self, record: T) -> Result<(), Fault>;

    /// Looks whether the job is cancelled, for an operator that works long without emitting.
    #[doc(hidden)]
    fn look(&mut self) -> Result<(), Fault> {
        Ok(())
    }
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
    const ONE_TO_ONE: Promise = Promise(false);

    /// Whether one call of `process` may emit more than one record, or does anything after the one it emits.
    #[doc(hidden)]
    const MANY: Promise = Promise(true);

    /// Whether `process` emits nothing, so that nothing need be held.
    #[doc(hidden)]
    const GATHERS: Promise = Promise(false);

    /// Whether it returns at once what `emit` gave it, and no user's code comes near its way out, so that nobody need
    /// see to that.
    #[doc(hidden)]
    const PASSES_ON: Promise = Promise(false);

    /// Runs once, on the task's own thread, before the first record.
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let _ = cx;
        Ok(())
    }

    /// Takes one record and emits any number.
    fn process(&mut self, record: Self::In, out: &mut impl Emit<Self::Out>) -> Result<(), Fault>;

    /// Emits what it held back in order to process several records at a time. Runs between two batches of input, and
    /// before more is waited for; not at the end of input, when [`finish`](Operator::finish) has to do it.
    fn flush(&mut self, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

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

    /// Takes the end of one of the inputs of the inbox it reads, after the last record of it; may emit.
    #[doc(hidden)]
    fn input_ended(&mut self, input: usize, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let (_, _) = (input, out);
        Ok(())
    }

    /// Whether watermarks begin at this operator: it passes on none that come from before it.
    #[doc(hidden)]
    const MARKS: Promise = Promise(false);

    /// Whether it counts records that come too late.
    #[doc(hidden)]
    const DROPS_LATE: Promise = Promise(false);

    /// Takes a watermark, before it is passed on. May emit if the operator is one of [`MANY`](Operator::MANY).
    #[doc(hidden)]
    fn on_watermark(&mut self, mark: Mark, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let _ = (mark, out);
        Ok(())
    }

    /// The watermark that holds from here on, if that is news. Asked between batches and after `finish`.
    #[doc(hidden)]
    fn mark(&mut self) -> Option<Mark> {
        None
    }

    /// Whether it does something when a time comes, by the job's clock.
    #[doc(hidden)]
    const TIMES: Promise = Promise(false);

    /// Does what is due by the job's clock, and may emit, if it [`TIMES`](Operator::TIMES). Called between batches, and
    /// at [`wake_at`](Operator::wake_at) though no record has come.
    #[doc(hidden)]
    fn on_time(&mut self, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// When, by the job's clock, it is to be asked for its watermark again, or has something to do, though no record
    /// has come.
    #[doc(hidden)]
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    /// How many records came too late so far.
    #[doc(hidden)]
    fn late(&self) -> u64 {
        0
    }

    /// Whether it takes no more records. Asked when its last one was attended to.
    #[doc(hidden)]
    fn is_satisfied(&self) -> bool {
        false
    }
}

/// What an operator promises of itself. Nobody outside can make one: a chain relies on its links for its safety.
#[derive(Debug, Clone, Copy)]
pub struct Promise(pub(crate) bool);

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
    operator: Guarded<O>,
    next: N,
    node: NodeId,
    emitted: u64,
    life: Life,
    context: OpenContext,
    control: Arc<JobControl>,
    emitted_so_far: Arc<Counter>,
    errors: Box<Errors>,
    late_so_far: Option<Arc<Counter>>,
}

impl<O: Operator, N> Link<O, N> {
    pub(crate) fn new(operator: O, next: N, node: NodeId, cx: &mut BuildContext<'_>) -> Self {
        let (context, control, emitted_so_far) = (cx.open_context(node), cx.control(), cx.emitted(node));
        let late_so_far = O::DROPS_LATE.0.then(|| cx.late(node));
        let errors = Box::new(cx.errors(node));
        let (emitted, life, operator) = (0, Life::New, Guarded::new(operator, Some(node)));
        Self { operator, next, node, emitted, life, context, control, emitted_so_far, errors, late_so_far }
    }

    #[inline(always)]
    fn parts<'a>(&'a mut self, at: &'a mut Position) -> (&'a mut O, Outlet<'a, O, N>) {
        let Self { operator, next, node, emitted, control, errors, .. } = self;
        let leave = Leave::new(control, &mut errors.refusal);
        (&mut **operator, Outlet { next, at, node: *node, emitted, leave, operator: PhantomData })
    }
}

/// The way out of an operator: the next link.
struct Outlet<'a, O, N> {
    next: &'a mut N,
    at: &'a mut Position,
    node: NodeId,
    emitted: &'a mut u64,
    leave: Leave<'a>,
    operator: PhantomData<O>,
}

impl<O: Operator, N: Push<O::Out>> Emit<O::Out> for Outlet<'_, O, N> {
    #[inline(always)]
    fn emit(&mut self, record: O::Out) -> Result<(), Fault> {
        if O::MANY.0 && !O::PASSES_ON.0 {
            self.leave.look()?;
        }
        if !O::ONE_TO_ONE.0 {
            *self.emitted += 1;
        }
        if !O::MANY.0 {
            return self.next.push(record, self.at);
        }
        if O::PASSES_ON.0 {
            match self.next.push(record, self.at) {
                Err(Fault::Stop(Stop::Attend)) => self.next.attend(self.at)?,
                pushed => pushed?,
            }
            self.at.enter(self.node);
            return if self.leave.is_cancelled() { Err(Stop::Cancelled.into()) } else { Ok(()) };
        }
        let unwinding = self.leave.unless_it_panics();
        let pushed = self.next.push(record, self.at);
        std::mem::forget(unwinding);
        match pushed {
            Ok(()) => {}
            // What emits many attends between them, and not only when its loop is left.
            Err(Fault::Stop(Stop::Attend)) => {
                if let Err(fault) = self.next.attend(self.at) {
                    return Err(self.leave.refuse(fault));
                }
            }
            Err(fault) => return Err(self.leave.refuse(fault)),
        }
        self.at.enter(self.node);
        Ok(())
    }

    fn look(&mut self) -> Result<(), Fault> {
        self.leave.look()
    }
}

impl<O: Operator, N: Push<O::Out>> Link<O, N> {
    /// Has the operator do something that may emit.
    #[inline(always)]
    fn call(
        &mut self,
        at: &mut Position,
        act: impl FnOnce(&mut O, &mut Outlet<'_, O, N>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        at.enter(self.node);
        let (operator, mut outlet) = self.parts(at);
        let done = act(operator, &mut outlet);
        if O::MANY.0 && outlet.leave.is_refused() { self.errors.refusal.settle(done) } else { done }
    }

    /// Takes a record, and emits nothing of it before the operator is done with it.
    #[inline(never)]
    fn push_held(&mut self, record: O::In, at: &mut Position) -> Result<(), Fault> {
        let mut held = Held::new(Some(&self.control));
        match self.operator.process(record, &mut held) {
            Ok(()) => {
                let records = held.records;
                let (_, mut outlet) = self.parts(at);
                let emitted = records.into_iter().try_for_each(|record| outlet.emit(record));
                if outlet.leave.is_refused() { self.errors.refusal.settle(emitted) } else { emitted }
            }
            Err(Fault::Error(error)) => self.errors.judge(error, at.record()),
            Err(stop) => Err(stop),
        }
    }
}

/// Keeps what an operator emits. That may go on for long, or for ever, so that a cancel is looked for.
pub(crate) struct Held<'a, T> {
    pub(crate) records: Vec<T>,
    control: Option<&'a JobControl>,
}

impl<'a, T> Held<'a, T> {
    /// Keeps nothing yet. Every operator has a `control` from when it is opened on.
    pub(crate) fn new(control: Option<&'a JobControl>) -> Self {
        Self { records: Vec::new(), control }
    }
}

impl<T> Emit<T> for Held<'_, T> {
    fn emit(&mut self, record: T) -> Result<(), Fault> {
        self.look()?;
        self.records.push(record);
        Ok(())
    }

    fn look(&mut self) -> Result<(), Fault> {
        match self.control {
            Some(control) if control.load() == Control::Cancel => Err(Stop::Cancelled.into()),
            _ => Ok(()),
        }
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
        if O::MANY.0 && !O::GATHERS.0 && self.errors.hold() {
            return self.push_held(record, at);
        }
        let (operator, mut outlet) = self.parts(at);
        let processed = operator.process(record, &mut outlet);
        if O::MANY.0 && !O::GATHERS.0 && !O::PASSES_ON.0 && outlet.leave.is_refused() {
            return self.errors.refusal.settle(processed);
        }
        // Each arm makes its result anew: one that is moved as a whole goes through memory, which costs more than the
        // record.
        match processed {
            Ok(()) => Ok(()),
            // Where the position is elsewhere, it is the error of an operator behind this one.
            Err(Fault::Error(error)) if at.is_at(self.node) => self.errors.judge(error, at.record()),
            Err(fault) => Err(fault),
        }
    }

    #[inline(always)]
    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.next.attend(at)?;
        // Its last record has filled a block: that was told first.
        if self.operator.is_satisfied() { Err(Stop::Satisfied.into()) } else { Ok(()) }
    }

    fn wanted(&self, outside: bool) -> bool {
        self.next.wanted(outside)
    }

    fn publish(&mut self) {
        if !O::ONE_TO_ONE.0 {
            self.emitted_so_far.publish(self.emitted);
        }
        if let Some(late) = &self.late_so_far {
            late.publish(self.operator.late());
        }
        self.next.publish();
    }

    fn flush(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.next.flush(at)
    }

    fn finish(&mut self, at: &mut Position) -> Result<(), Fault> {
        match self.call(at, |operator, outlet| operator.finish(outlet)) {
            Ok(()) | Err(Fault::Stop(Stop::Satisfied)) => {}
            fault => return fault,
        }
        self.errors.finish(at.record())?;
        if let Some(mark) = self.operator.mark() {
            match self.next.watermark(mark, at) {
                Ok(()) | Err(Fault::Stop(Stop::Satisfied)) => {}
                fault => return fault,
            }
        }
        self.next.finish(at)
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if self.life == Life::Open {
            self.life = Life::Closed;
            let operator = &mut self.operator;
            cx.closing(self.node, |close| operator.close(close));
        }
        self.next.close(cx);
    }

    fn input_ended(&mut self, input: usize, at: &mut Position) -> Result<(), Fault> {
        self.call(at, |operator, outlet| operator.input_ended(input, outlet))
    }

    fn watermark(&mut self, mark: Mark, at: &mut Position) -> Result<(), Fault> {
        if O::MARKS.0 {
            return Ok(());
        }
        self.call(at, |operator, outlet| operator.on_watermark(mark, outlet))?;
        self.next.watermark(mark, at)
    }

    fn probe(&mut self, round: u64, at: &mut Position) -> Result<(), Fault> {
        self.next.probe(round, at)
    }

    fn between(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.call(at, |operator, outlet| operator.flush(outlet))?;
        if O::TIMES.0 {
            self.call(at, |operator, outlet| operator.on_time(outlet))?;
        }
        if let Some(mark) = self.operator.mark() {
            self.next.watermark(mark, at)?;
        }
        self.next.between(at)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.operator.wake_at().into_iter().chain(self.next.wake_at()).min()
    }
}
