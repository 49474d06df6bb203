//! The ways out of an operator, as it emits by them: its stream, a side stream, and the stream of its dead letters.
//!
//! Each may end before the others; records emitted there are then dropped, and the chain ends when all have ended. If
//! there are several, a push is attended to at once.

use std::marker::PhantomData;

use super::fault::{Fault, Stop};
use super::held::Leaves;
use super::kept::Handling;
use super::position::Position;
use super::push::Push;
use super::refusal::Leave;
use super::signal::Signal;
use super::stage::{Emit, Outlet, Stage};
use crate::ids::NodeId;

/// The ways out of an operator.
pub(super) const MAIN: usize = 0;
pub(super) const SIDE: usize = 1;
pub(super) const LETTERS: usize = 2;
pub(super) const WAYS: usize = 3;

/// What an operator emits to, together: so that what an operator is handed is a few pointers.
pub(super) struct Outs<N, W> {
    pub(super) next: N,
    pub(super) side: W,
    /// Which ways out still want records.
    pub(super) open: [bool; WAYS],
    pub(super) node: NodeId,
    pub(super) emitted: u64,
}

/// What is known of an operator's link when it is compiled. As constants of their own they keep what they rule out
/// from being compiled at all, also where nothing is optimised.
pub(super) struct Known<O, H>(PhantomData<(O, H)>);

impl<O: Stage, H: Handling<O::In>> Known<O, H> {
    /// Its operator has several ways out.
    pub(super) const SEVERAL: bool = O::FLAGS.side || H::KEEPS;
    pub(super) const ONE_WAY: bool = !Self::SEVERAL;
    /// One call may emit more than one record.
    pub(super) const MANY: bool = O::FLAGS.many;
    pub(super) const AT_MOST_ONE: bool = !O::FLAGS.many;
    /// Outputs may have to be held until a record has succeeded.
    pub(super) const HOLDS: bool = O::FLAGS.many && !O::FLAGS.gathers;
    /// The operator may go on whatever it is told, and has to be watched.
    pub(super) const WATCHED: bool = O::FLAGS.many && !O::FLAGS.passes_on;
    pub(super) const PASSES_ON: bool = O::FLAGS.passes_on;
    pub(super) const COUNTS: bool = !O::FLAGS.one_to_one;
    pub(super) const SIDE: bool = O::FLAGS.side;
    pub(super) const BEGINS_WATERMARKS: bool = O::FLAGS.begins_watermarks;
}

/// Notes that one of the ways out wants nothing more, which is no reason to end.
pub(crate) fn still(passed: Result<(), Fault>, open: &mut bool) -> Result<(), Fault> {
    match passed {
        Err(Fault::Stop(Stop::Satisfied)) => {
            *open = false;
            Ok(())
        }
        passed => passed,
    }
}

/// Passes a signal on by a way out, if that still wants records; the end of input in any case.
pub(crate) fn signalled<T>(
    next: &mut (impl Push<T> + ?Sized),
    signal: Signal,
    at: &mut Position,
    open: &mut bool,
) -> Result<(), Fault> {
    if *open || signal == Signal::Finish { still(next.signal(signal, at), open) } else { Ok(()) }
}

/// Pushes a record, and attends at once.
#[inline(always)]
pub(crate) fn sent<T>(next: &mut (impl Push<T> + ?Sized), record: T, at: &mut Position) -> Result<(), Fault> {
    match next.push(record, at) {
        Ok(()) => Ok(()),
        Err(Fault::Stop(Stop::Attend)) => next.attend(at),
        Err(fault) => Err(fault),
    }
}

/// The ways out of an operator, while it is called.
pub(super) struct Ways<'a, O, N, W, H> {
    pub(super) outs: &'a mut Outs<N, W>,
    pub(super) at: &'a mut Position,
    pub(super) leave: Leave<'a>,
    pub(super) of: PhantomData<(O, H)>,
}

impl<O: Stage, N: Push<O::Out>, W: Push<O::Side>, H: Handling<O::In>> Ways<'_, O, N, W, H> {
    /// What the operator is told.
    #[cold]
    fn told(&mut self, fault: Fault) -> Fault {
        if Known::<O, H>::MANY { self.leave.refuse(fault) } else { fault }
    }

    /// Emits by one of several ways, unless it has ended.
    #[inline(always)]
    fn emit_by(&mut self, record: Leaves<O::Out, O::Side>) -> Result<(), Fault> {
        if Known::<O, H>::MANY {
            self.leave.look()?;
        }
        let Self { outs: Outs { next, side, open, emitted, .. }, at, leave, .. } = self;
        let unwinding = leave.unless_it_panics();
        let (way, left) = match record {
            Leaves::Main(record) if open[MAIN] => {
                *emitted += 1;
                (MAIN, sent(next, record, at))
            }
            Leaves::Side(record) if open[SIDE] => (SIDE, sent(side, record, at)),
            Leaves::Main(_) | Leaves::Side(_) => (MAIN, Ok(())),
        };
        std::mem::forget(unwinding);
        match left {
            Ok(()) => {}
            Err(Fault::Stop(Stop::Satisfied)) => {
                self.outs.open[way] = false;
                if self.outs.open == [false; WAYS] {
                    return Err(self.told(Stop::Satisfied.into()));
                }
            }
            Err(fault) => return Err(self.told(fault)),
        }
        self.at.enter(self.outs.node);
        if self.leave.is_cancelled() { Err(Stop::Cancelled.into()) } else { Ok(()) }
    }
}

impl<O: Stage, N: Push<O::Out>, W: Push<O::Side>, H: Handling<O::In>> Emit<O::Out> for Ways<'_, O, N, W, H> {
    #[inline(always)]
    fn emit(&mut self, record: O::Out) -> Result<(), Fault> {
        if Known::<O, H>::SEVERAL {
            return self.emit_by(Leaves::Main(record));
        }
        if Known::<O, H>::WATCHED {
            self.leave.look()?;
        }
        if Known::<O, H>::COUNTS {
            self.outs.emitted += 1;
        }
        if Known::<O, H>::AT_MOST_ONE {
            return self.outs.next.push(record, self.at);
        }
        if Known::<O, H>::PASSES_ON {
            match self.outs.next.push(record, self.at) {
                Err(Fault::Stop(Stop::Attend)) => self.outs.next.attend(self.at)?,
                pushed => pushed?,
            }
            self.at.enter(self.outs.node);
            return if self.leave.is_cancelled() { Err(Stop::Cancelled.into()) } else { Ok(()) };
        }
        let unwinding = self.leave.unless_it_panics();
        let pushed = self.outs.next.push(record, self.at);
        std::mem::forget(unwinding);
        match pushed {
            Ok(()) => {}
            // What emits many attends between them, and not only when its loop is left.
            Err(Fault::Stop(Stop::Attend)) => {
                if let Err(fault) = self.outs.next.attend(self.at) {
                    return Err(self.leave.refuse(fault));
                }
            }
            Err(fault) => return Err(self.leave.refuse(fault)),
        }
        self.at.enter(self.outs.node);
        Ok(())
    }

    fn look(&mut self) -> Result<(), Fault> {
        self.leave.look()
    }
}

impl<O, N, W, H> Outlet<O::Out, O::Side> for Ways<'_, O, N, W, H>
where
    O: Stage,
    N: Push<O::Out>,
    W: Push<O::Side>,
    H: Handling<O::In>,
{
    #[inline(always)]
    fn emit_side(&mut self, record: O::Side) -> Result<(), Fault> {
        self.emit_by(Leaves::Side(record))
    }
}
