//! Operators with a second way out, and the link that fuses them to the rest of their chain: split, dead letters.
//!
//! What leaves by the side goes to a stream of its own, behind an exchange. Either way out may end before the other;
//! what is emitted there then is dropped, and the chain ends when both have.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::refusal::{Leave, Refusal};
use super::retry::RetriesExhausted;
use super::{Cloned, Emit, Held, Life, Operator, OperatorFactory, Promise};
use crate::BoxError;
use crate::exchange::RoundRobin;
use crate::exchange::lane::Mark;
use crate::graph::NodeId;
use crate::graph::wiring::BuildContext;
use crate::guarded::{Guarded, error_chain};
use crate::job::control::{Control, JobControl};
use crate::job::task::{CloseContext, Fatal, Fault, OpenContext, Position, Push, Stop, TaskContext};
use crate::metrics::Counter;
use crate::time::Timestamp;

/// A record on which an operator failed, as it came in, with what is to be known to look into it and to try it again.
///
/// It implements serde's traits where the record does, so that it can be written to a file and read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter<T> {
    /// The record, as the operator was given it.
    pub record: T,
    /// The operator's name.
    pub operator: String,
    /// Which replica of it, from 0.
    pub replica: usize,
    /// Which of the records that this replica took, from 1.
    pub position: u64,
    /// How often the operator was asked.
    pub attempts: u32,
    /// The message of the error, then those of its sources.
    pub errors: Vec<String>,
    /// When it failed, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
}

impl<T> DeadLetter<T> {
    /// The letter of a record on which the operator of `context` failed, the `failed`th of this replica; it is counted.
    pub(crate) fn new(
        record: T,
        position: u64,
        attempts: u32,
        error: &(dyn std::error::Error + 'static),
        context: &OpenContext,
        failed: u64,
    ) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let errors = error_chain(error);
        context.passed.note(failed, &errors);
        let (operator, replica) = (context.name.clone(), context.replica);
        Self { record, operator, replica, position, attempts, errors, time_ms }
    }
}

/// What leaves an operator with two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves<M, S> {
    /// By its stream.
    Main(M),
    /// By its side stream.
    Side(S),
}

/// An operator with two outputs.
pub trait SideOperator: Send + 'static {
    /// The records it takes.
    type In: Send + 'static;
    /// The records of its stream.
    type Out: Send + 'static;
    /// The records of its side stream.
    type Side: Send + 'static;

    /// As [`Operator::open`].
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let _ = cx;
        Ok(())
    }

    /// As [`Operator::process`].
    fn process(&mut self, record: Self::In, out: &mut impl Emit<Leaves<Self::Out, Self::Side>>) -> Result<(), Fault>;

    /// As [`Operator::flush`].
    fn flush(&mut self, out: &mut impl Emit<Leaves<Self::Out, Self::Side>>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// As [`Operator::finish`].
    fn finish(&mut self, out: &mut impl Emit<Leaves<Self::Out, Self::Side>>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// As [`Operator::close`].
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// As `Operator::on_watermark`.
    fn on_watermark(&mut self, mark: Mark, out: &mut impl Emit<Leaves<Self::Out, Self::Side>>) -> Result<(), Fault> {
        let (_, _) = (mark, out);
        Ok(())
    }

    /// As `Operator::MARKS`.
    const MARKS: Promise = Promise(false);

    /// As `Operator::mark`.
    fn mark(&mut self) -> Option<Mark> {
        None
    }

    /// As `Operator::TIMES`.
    const TIMES: Promise = Promise(false);

    /// As `Operator::on_time`.
    fn on_time(&mut self, out: &mut impl Emit<Leaves<Self::Out, Self::Side>>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// As `Operator::wake_at`.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    /// As `Operator::DROPS_LATE`.
    const DROPS_LATE: Promise = Promise(false);

    /// As `Operator::late`.
    fn late(&self) -> u64 {
        0
    }

    /// As `Operator::input_ended`.
    fn input_ended(&mut self, input: usize, out: &mut impl Emit<Leaves<Self::Out, Self::Side>>) -> Result<(), Fault> {
        let (_, _) = (input, out);
        Ok(())
    }
}

/// Makes the side operator of each replica.
pub trait SideFactory: Send + 'static {
    /// What it makes.
    type Operator: SideOperator;
    /// Makes one.
    fn make(&self) -> Self::Operator;
}

impl<O: SideOperator + Clone> SideFactory for Cloned<O> {
    type Operator = O;
    fn make(&self) -> O {
        self.0.clone()
    }
}

/// A side operator fused to the rest of its chain, and to the router of its side stream.
pub(crate) struct SideLink<O: SideOperator, N> {
    operator: Guarded<O>,
    next: N,
    side: RoundRobin<O::Side>,
    /// Which of the two ways out still want records.
    open: [bool; 2],
    node: NodeId,
    emitted: u64,
    life: Life,
    context: OpenContext,
    control: Arc<JobControl>,
    emitted_so_far: Arc<Counter>,
    late_so_far: Option<Arc<Counter>>,
}

impl<O: SideOperator, N> SideLink<O, N> {
    pub(crate) fn new(
        operator: O,
        next: N,
        side: RoundRobin<O::Side>,
        node: NodeId,
        cx: &mut BuildContext<'_>,
    ) -> Self {
        let (context, control, emitted_so_far) = (cx.open_context(node), cx.control(), cx.emitted(node));
        let late_so_far = O::DROPS_LATE.0.then(|| cx.late(node));
        let (life, open, emitted) = (Life::New, [true, true], 0);
        let operator = Guarded::new(operator, Some(node));
        Self { operator, next, side, open, node, emitted, life, context, control, emitted_so_far, late_so_far }
    }

    fn parts<'a>(&'a mut self, at: &'a mut Position) -> (&'a mut O, Ways<'a, O, N>) {
        let Self { operator, next, side, open, node, emitted, control, .. } = self;
        (&mut **operator, Ways { next, side, open, at, node: *node, emitted, control })
    }
}

impl<O: SideOperator, N: Push<O::Out>> SideLink<O, N> {
    /// Has the operator do something else than take a record, in which it may emit.
    fn call(
        &mut self,
        at: &mut Position,
        act: impl FnOnce(&mut O, &mut Watched<'_, Ways<'_, O, N>>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        at.enter(self.node);
        let control = self.control.clone();
        let mut refusal = Refusal::default();
        let (operator, ways) = self.parts(at);
        let mut watched = Watched { ways, leave: Leave::new(&control, &mut refusal) };
        let done = act(operator, &mut watched);
        if watched.leave.is_refused() { refusal.settle(done) } else { done }
    }

    /// Passes a watermark on, both ways.
    fn pass(&mut self, mark: Mark, at: &mut Position) -> Result<(), Fault> {
        let Self { next, side, open: [main_open, side_open], .. } = self;
        if *main_open {
            wanted_still(next.watermark(mark, at), main_open)?;
        }
        if *side_open { wanted_still(side.watermark(mark, at), side_open) } else { Ok(()) }
    }
}

/// Notes that one of the ways out wants nothing more, which is no reason to end.
fn wanted_still(passed: Result<(), Fault>, open: &mut bool) -> Result<(), Fault> {
    match passed {
        Err(Fault::Stop(Stop::Satisfied)) => {
            *open = false;
            Ok(())
        }
        passed => passed,
    }
}

/// The two ways out of an operator.
struct Ways<'a, O: SideOperator, N> {
    next: &'a mut N,
    side: &'a mut RoundRobin<O::Side>,
    open: &'a mut [bool; 2],
    at: &'a mut Position,
    node: NodeId,
    emitted: &'a mut u64,
    control: &'a JobControl,
}

impl<O: SideOperator, N: Push<O::Out>> Emit<Leaves<O::Out, O::Side>> for Ways<'_, O, N> {
    #[inline(always)]
    fn emit(&mut self, record: Leaves<O::Out, O::Side>) -> Result<(), Fault> {
        let (way, left) = match record {
            Leaves::Main(record) if self.open[0] => {
                *self.emitted += 1;
                (0, sent(self.next, record, self.at))
            }
            Leaves::Side(record) if self.open[1] => (1, sent(self.side, record, self.at)),
            Leaves::Main(_) | Leaves::Side(_) => return Ok(()),
        };
        match left {
            Ok(()) => {}
            Err(Fault::Stop(Stop::Satisfied)) => {
                self.open[way] = false;
                if *self.open == [false; 2] {
                    return Err(Stop::Satisfied.into());
                }
            }
            Err(fault) => return Err(fault),
        }
        self.at.enter(self.node);
        self.look()
    }

    fn look(&mut self) -> Result<(), Fault> {
        if self.control.load() == Control::Cancel { Err(Stop::Cancelled.into()) } else { Ok(()) }
    }
}

/// The ways out where a user's code is given them: it may ignore what it is told.
struct Watched<'a, E> {
    ways: E,
    leave: Leave<'a>,
}

impl<T, E: Emit<T>> Emit<T> for Watched<'_, E> {
    fn emit(&mut self, record: T) -> Result<(), Fault> {
        self.leave.look()?;
        let unwinding = self.leave.unless_it_panics();
        let emitted = self.ways.emit(record);
        std::mem::forget(unwinding);
        emitted.map_err(|fault| self.leave.refuse(fault))
    }

    fn look(&mut self) -> Result<(), Fault> {
        self.leave.look()
    }
}

/// Pushes a record, and attends at once.
#[inline(always)]
fn sent<T>(next: &mut impl Push<T>, record: T, at: &mut Position) -> Result<(), Fault> {
    match next.push(record, at) {
        Ok(()) => Ok(()),
        Err(Fault::Stop(Stop::Attend)) => next.attend(at),
        Err(fault) => Err(fault),
    }
}

impl<O: SideOperator, N: Push<O::Out>> Push<O::In> for SideLink<O, N> {
    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        self.life = Life::Open;
        self.operator.open(&self.context)?;
        self.side.open(at)?;
        match self.next.open(at) {
            // The side stream may still want some.
            Err(Fault::Stop(Stop::Satisfied)) => self.open[0] = false,
            opened => opened?,
        }
        Ok(())
    }

    #[inline(always)]
    fn push(&mut self, record: O::In, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        let (operator, mut ways) = self.parts(at);
        operator.process(record, &mut ways)
    }

    fn attend(&mut self, _at: &mut Position) -> Result<(), Fault> {
        // Both ways are attended to where they are pushed to.
        Ok(())
    }

    fn wanted(&self, outside: bool) -> bool {
        (self.open[0] && self.next.wanted(outside)) || (self.open[1] && self.side.wanted(outside))
    }

    fn publish(&mut self) {
        self.emitted_so_far.publish(self.emitted);
        if let Some(late) = &self.late_so_far {
            late.publish(self.operator.late());
        }
        self.next.publish();
    }

    fn flush(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.next.flush(at)
    }

    fn finish(&mut self, at: &mut Position) -> Result<(), Fault> {
        match self.call(at, |operator, ways| operator.finish(ways)) {
            Ok(()) | Err(Fault::Stop(Stop::Satisfied)) => {}
            fault => return fault,
        }
        if let Some(mark) = self.operator.mark() {
            self.pass(mark, at)?;
        }
        self.next.finish(at)?;
        self.side.finish(at)
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if self.life == Life::Open {
            self.life = Life::Closed;
            let operator = &mut self.operator;
            cx.closing(self.node, |close| operator.close(close));
        }
        Push::<O::Side>::close(&mut self.side, cx);
        self.next.close(cx);
    }

    fn input_ended(&mut self, input: usize, at: &mut Position) -> Result<(), Fault> {
        self.call(at, |operator, ways| operator.input_ended(input, ways))
    }

    fn watermark(&mut self, mark: Mark, at: &mut Position) -> Result<(), Fault> {
        if O::MARKS.0 {
            return Ok(());
        }
        self.call(at, |operator, ways| operator.on_watermark(mark, ways))?;
        self.pass(mark, at)
    }

    fn probe(&mut self, round: u64, at: &mut Position) -> Result<(), Fault> {
        let Self { next, side, open: [main_open, side_open], .. } = self;
        if *main_open {
            wanted_still(next.probe(round, at), main_open)?;
        }
        if *side_open { wanted_still(side.probe(round, at), side_open) } else { Ok(()) }
    }

    fn between(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.call(at, |operator, ways| operator.flush(ways))?;
        if O::TIMES.0 {
            self.call(at, |operator, ways| operator.on_time(ways))?;
        }
        if let Some(mark) = self.operator.mark() {
            self.pass(mark, at)?;
        }
        self.next.between(at)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.operator.wake_at().into_iter().chain(self.next.wake_at()).min()
    }
}

/// `split`: each record by the one way or the other.
pub struct Split<F, I> {
    predicate: F,
    records: PhantomData<fn(I)>,
}

impl<F, I> Split<F, I> {
    pub(crate) fn new(predicate: F) -> Self {
        Self { predicate, records: PhantomData }
    }
}

impl<F: Clone, I> Clone for Split<F, I> {
    fn clone(&self) -> Self {
        Self::new(self.predicate.clone())
    }
}

impl<F, I> SideOperator for Split<F, I>
where
    F: FnMut(&I) -> bool + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = I;
    type Side = I;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Emit<Leaves<I, I>>) -> Result<(), Fault> {
        let main = (self.predicate)(&record);
        out.emit(if main { Leaves::Main(record) } else { Leaves::Side(record) })
    }
}

/// `split_ok`: the value of each result by the one way, its error by the other.
pub struct SplitOk<T, E>(pub(crate) PhantomData<fn(T, E)>);

impl<T, E> Clone for SplitOk<T, E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<T: Send + 'static, E: Send + 'static> SideOperator for SplitOk<T, E> {
    type In = Result<T, E>;
    type Out = T;
    type Side = E;

    #[inline(always)]
    fn process(&mut self, record: Result<T, E>, out: &mut impl Emit<Leaves<T, E>>) -> Result<(), Fault> {
        out.emit(record.map_or_else(Leaves::Side, Leaves::Main))
    }
}

/// Sends on records that are marked with the way they leave by.
pub struct Sorted<M, S>(pub(crate) PhantomData<fn(M, S)>);

impl<M, S> Clone for Sorted<M, S> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<M: Send + 'static, S: Send + 'static> SideOperator for Sorted<M, S> {
    type In = Leaves<M, S>;
    type Out = M;
    type Side = S;

    #[inline(always)]
    fn process(&mut self, record: Leaves<M, S>, out: &mut impl Emit<Leaves<M, S>>) -> Result<(), Fault> {
        out.emit(record)
    }
}

/// Makes operators whose failures leave by the side.
pub struct Mourned<F>(pub(crate) F);

impl<F: OperatorFactory> SideFactory for Mourned<F>
where
    <F::Operator as Operator>::In: Clone,
{
    type Operator = Mourning<F::Operator>;
    fn make(&self) -> Self::Operator {
        Mourning { operator: self.0.make(), taken: 0, letters: 0, context: None }
    }
}

/// An operator whose failures leave by the side, as [`DeadLetter`]s.
pub struct Mourning<O> {
    operator: O,
    taken: u64,
    letters: u64,
    context: Option<OpenContext>,
}

impl<O: Operator> Mourning<O> {
    #[cold]
    fn letter(&mut self, record: O::In, error: &BoxError) -> DeadLetter<O::In> {
        let context = self.context.as_ref().expect("an operator is opened before its first record");
        let attempts = error.downcast_ref::<RetriesExhausted>().map_or(1, |exhausted| exhausted.attempts);
        self.letters += 1;
        DeadLetter::new(record, self.taken, attempts, &**error, context, self.letters)
    }
}

impl<O: Operator> SideOperator for Mourning<O>
where
    O::In: Clone,
{
    type In = O::In;
    type Out = O::Out;
    type Side = DeadLetter<O::In>;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.context = Some(cx.clone());
        self.operator.open(cx)
    }

    fn process(&mut self, record: O::In, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.taken += 1;
        let mut held = Held::new(self.context.as_ref().map(|context| &*context.control));
        match self.operator.process(record.clone(), &mut held) {
            Ok(()) => held.records.into_iter().try_for_each(|record| out.emit(Leaves::Main(record))),
            Err(Fault::Error(error)) if !Fatal::is(&error) => {
                let letter = self.letter(record, &error);
                out.emit(Leaves::Side(letter))
            }
            Err(fault) => Err(fault),
        }
    }

    fn flush(&mut self, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.flush(&mut MainOf::<_, Self::Side>(out, PhantomData))
    }

    fn finish(&mut self, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.finish(&mut MainOf::<_, Self::Side>(out, PhantomData))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.operator.close(cx)
    }

    fn input_ended(&mut self, input: usize, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.input_ended(input, &mut MainOf::<_, Self::Side>(out, PhantomData))
    }

    const MARKS: Promise = O::MARKS;
    const DROPS_LATE: Promise = O::DROPS_LATE;

    fn late(&self) -> u64 {
        self.operator.late()
    }

    fn mark(&mut self) -> Option<Mark> {
        self.operator.mark()
    }

    const TIMES: Promise = O::TIMES;

    fn on_time(&mut self, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.on_time(&mut MainOf::<_, Self::Side>(out, PhantomData))
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.operator.wake_at()
    }

    fn on_watermark(&mut self, mark: Mark, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.on_watermark(mark, &mut MainOf::<_, Self::Side>(out, PhantomData))
    }
}

/// The main way out, for an operator that knows no other.
pub(super) struct MainOf<'a, E, S>(pub(super) &'a mut E, pub(super) PhantomData<fn(S)>);

impl<M, S, E: Emit<Leaves<M, S>>> Emit<M> for MainOf<'_, E, S> {
    fn emit(&mut self, record: M) -> Result<(), Fault> {
        self.0.emit(Leaves::Main(record))
    }

    fn look(&mut self) -> Result<(), Fault> {
        self.0.look()
    }
}
