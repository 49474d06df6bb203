//! The link that fuses an operator to the rest of its chain, by one way out or several (`ways.rs`), and handles its
//! failures.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::context::OpenContext;
use super::fault::{Fault, Stop};
use super::held::{Held, Leaves};
use super::kept::{Handling, Worked};
use super::policy::Errors;
use super::position::{Position, TaskContext};
use super::push::Push;
use super::refusal::Leave;
use super::signal::Signal;
use super::stage::{Emit, Outlet, Stage};
use super::ways::{Known, LETTERS, MAIN, Outs, SIDE, WAYS, Ways, sent, signalled, still};
use crate::between::Watermark;
use crate::control::JobControl;
use crate::error::AtRecord;
use crate::guarded::Guarded;
use crate::ids::NodeId;
use crate::metrics::Counter;
use crate::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    New,
    Open,
    Closed,
}

/// What a link is told of its operator's place.
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) context: OpenContext,
    pub(crate) errors: Errors,
    pub(crate) emitted: Arc<Counter>,
    /// Of an operator that has windows.
    pub(crate) windows: Option<WindowCounters>,
}

/// What an operator of windows counts besides.
pub(crate) struct WindowCounters {
    pub(crate) late: Arc<Counter>,
    pub(crate) dropped: Arc<Counter>,
}

/// An operator fused to the rest of its chain: `next`, and `side` if it has a second way out.
pub(crate) struct Link<O: Stage, N, W, H> {
    operator: Guarded<O>,
    outs: Outs<N, W>,
    handling: H,
    life: Life,
    control: Arc<JobControl>,
    /// What is needed seldom, so that little has to be moved to the stack and back.
    rest: Box<Rest>,
}

struct Rest {
    context: OpenContext,
    errors: Errors,
    emitted: Arc<Counter>,
    windows: Option<WindowCounters>,
    /// The last watermark, which is on its way: it goes on behind all that the operator emits at the end.
    last: Option<Watermark>,
}

impl<O: Stage, N: Push<O::Out>, W: Push<O::Side>, H: Handling<O::In>> Link<O, N, W, H> {
    pub(crate) fn new(operator: O, next: N, side: W, mut handling: H, place: Place) -> Self {
        let Place { node, context, errors, emitted, windows } = place;
        let letters = handling.keeper().is_some_and(|keeper| keeper.has_letters());
        Self {
            operator: Guarded::new(operator, Some(node)),
            outs: Outs { next, side, open: [true, Known::<O, H>::SIDE, letters], node, emitted: 0 },
            handling,
            life: Life::New,
            control: context.control.clone(),
            rest: Box::new(Rest { context, errors, emitted, windows, last: None }),
        }
    }

    #[inline(always)]
    fn parts<'a>(&'a mut self, at: &'a mut Position) -> (&'a mut O, Ways<'a, O, N, W, H>) {
        let Self { operator, outs, control, rest, .. } = self;
        let leave = Leave::new(control, &mut rest.errors.refusal);
        (&mut **operator, Ways { outs, at, leave, of: PhantomData })
    }

    /// Has the operator do something that may emit.
    #[inline(always)]
    fn call(
        &mut self,
        at: &mut Position,
        act: impl FnOnce(&mut O, &mut Ways<'_, O, N, W, H>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        at.enter(self.outs.node);
        let (operator, mut ways) = self.parts(at);
        let done = act(operator, &mut ways);
        if Known::<O, H>::MANY && ways.leave.is_refused() { self.rest.errors.refusal.settle(done) } else { done }
    }

    /// Takes a record, and emits nothing of it before the operator is done with it.
    #[inline(never)]
    fn push_held(&mut self, record: O::In, at: &mut Position) -> Result<(), Fault> {
        let mut held = Held::new(&self.control);
        match self.operator.process(record, &mut held) {
            Err(Fault::Error(error)) => {
                let (error, place) = AtRecord::apart(error);
                self.rest.errors.judge(error, place.unwrap_or(at.record())).map_err(|fault| fault.at(place))
            }
            ended => {
                let records = held.records;
                self.release(records, ended, at)
            }
        }
    }

    /// Takes a record that is kept until the operator is done with it.
    #[inline(never)]
    fn push_kept(&mut self, record: O::In, at: &mut Position) -> Result<(), Fault> {
        let Self { operator, handling, control, rest, .. } = self;
        let Some(keeper) = handling.keeper() else { return Ok(()) };
        let mut place = None;
        let worked = keeper.work(record, &rest.context, |record| {
            let mut held = Held::new(control);
            let ended = operator.process(record, &mut held);
            let Err(Fault::Error(error)) = ended else { return (held.records, ended) };
            let (error, record) = AtRecord::apart(error);
            place = record;
            (held.records, Err(Fault::Error(error)))
        });
        match worked {
            Worked::Done(records, ended) => self.release(records, ended, at),
            Worked::Failed(error) => {
                self.rest.errors.judge(error, place.unwrap_or(at.record())).map_err(|fault| fault.at(place))
            }
            Worked::Dead(letter) => {
                let Some(letters) = keeper.letters().filter(|_| self.outs.open[LETTERS]) else { return Ok(()) };
                still(sent(letters, letter, at), &mut self.outs.open[LETTERS])?;
                if self.outs.open == [false; WAYS] { Err(Stop::Satisfied.into()) } else { Ok(()) }
            }
        }
    }

    /// Emits what was held, of a call of the operator that ended so. What it emitted before it had enough counts.
    fn release(
        &mut self,
        records: Vec<Leaves<O::Out, O::Side>>,
        ended: Result<(), Fault>,
        at: &mut Position,
    ) -> Result<(), Fault> {
        if !matches!(ended, Ok(()) | Err(Fault::Stop(Stop::Satisfied))) {
            return ended;
        }
        self.call(at, |_, ways| {
            records.into_iter().try_for_each(|record| match record {
                Leaves::Main(record) => ways.emit(record),
                Leaves::Side(record) => ways.emit_side(record),
            })
        })?;
        ended
    }

    /// Passes a signal on by all ways out, each whatever came of the others.
    fn pass(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        if Known::<O, H>::ONE_WAY {
            return self.outs.next.signal(signal, at);
        }
        let Self { outs: Outs { next, side, open, .. }, handling, .. } = self;
        let passed = signalled(next, signal, at, &mut open[MAIN]).and(signalled(side, signal, at, &mut open[SIDE]));
        match handling.keeper().and_then(|keeper| keeper.letters()) {
            Some(letters) => passed.and(signalled(letters, signal, at, &mut open[LETTERS])),
            None => passed,
        }
    }

    fn open_ways(&mut self, at: &mut Position) -> Result<(), Fault> {
        if Known::<O, H>::ONE_WAY {
            return self.outs.next.open(at);
        }
        self.outs.side.open(at)?;
        if let Some(letters) = self.handling.keeper().and_then(|keeper| keeper.letters()) {
            letters.open(at)?;
        }
        // The others may still want some.
        still(self.outs.next.open(at), &mut self.outs.open[MAIN])
    }
}

impl<O: Stage, N: Push<O::Out>, W: Push<O::Side>, H: Handling<O::In>> Push<O::In> for Link<O, N, W, H> {
    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.outs.node);
        self.life = Life::Open;
        match self.operator.open(&self.rest.context) {
            Ok(()) => self.open_ways(at),
            // It wants no records at all; the end of input still goes through what follows.
            Err(Fault::Stop(Stop::Satisfied)) => self.open_ways(at).and(Err(Stop::Satisfied.into())),
            fault => fault,
        }
    }

    #[inline(always)]
    fn push(&mut self, record: O::In, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.outs.node);
        if H::KEEPS {
            return self.push_kept(record, at);
        }
        if Known::<O, H>::HOLDS && self.rest.errors.hold() {
            return self.push_held(record, at);
        }
        let (operator, mut ways) = self.parts(at);
        let processed = operator.process(record, &mut ways);
        if Known::<O, H>::HOLDS && Known::<O, H>::WATCHED && ways.leave.is_refused() {
            return self.rest.errors.refusal.settle(processed);
        }
        // Each arm makes its result anew: one that is moved as a whole goes through memory, which costs more than the
        // record.
        match processed {
            Ok(()) => Ok(()),
            // Where the position is elsewhere, it is the error of an operator behind this one.
            Err(Fault::Error(error)) if at.is_at(self.outs.node) => self.rest.errors.judge(error, at.record()),
            Err(fault) => Err(fault),
        }
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        // A record that is kept may be processed several times.
        if H::KEEPS { 0 } else { self.operator.looks_ahead() }
    }

    #[inline(always)]
    fn ahead(&mut self, record: &O::In, at: &mut Position) {
        at.enter(self.outs.node);
        self.operator.ahead(record);
    }

    #[inline(always)]
    fn attend(&mut self, at: &mut Position) -> Result<(), Fault> {
        if Known::<O, H>::ONE_WAY {
            self.outs.next.attend(at)?;
        }
        // Its last record has filled a block: that was told first.
        if self.operator.is_satisfied() { Err(Stop::Satisfied.into()) } else { Ok(()) }
    }

    /// Apart from the loop over records, which has the registers to itself then.
    #[inline(never)]
    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        if Known::<O, H>::BEGINS_WATERMARKS && matches!(signal, Signal::Watermark(_)) {
            return Ok(());
        }
        #[cfg(test)]
        super::traced::note(signal, &self.rest.context);
        let heeded = self.call(at, |operator, ways| operator.signal(signal, ways));
        match (signal, heeded) {
            (Signal::InputEnded(_), heeded) => return heeded,
            (Signal::Watermark(watermark), heeded) if watermark.is_last() => {
                self.rest.last = Some(watermark);
                return heeded;
            }
            (Signal::Finish, Ok(()) | Err(Fault::Stop(Stop::Satisfied))) => self.rest.errors.finish(at.record())?,
            (_, heeded) => heeded?,
        }
        let watermark = match signal {
            Signal::Time => self.operator.watermark(),
            Signal::Finish => self.operator.watermark().or(self.rest.last),
            _ => None,
        };
        if let Some(watermark) = watermark {
            match self.pass(Signal::Watermark(watermark), at) {
                Err(Fault::Stop(Stop::Satisfied)) if signal == Signal::Finish => {}
                passed => passed?,
            }
        }
        self.pass(signal, at)
    }

    fn wanted(&self, outside: bool) -> bool {
        if Known::<O, H>::ONE_WAY {
            return self.outs.next.wanted(outside);
        }
        let Self { outs: Outs { next, side, open, .. }, handling, .. } = self;
        (open[MAIN] && next.wanted(outside))
            || (open[SIDE] && side.wanted(outside))
            || (open[LETTERS] && handling.letters_wanted(outside))
    }

    fn publish(&mut self) {
        if Known::<O, H>::COUNTS || Known::<O, H>::SEVERAL {
            self.rest.emitted.publish(self.outs.emitted);
        }
        if let Some(WindowCounters { late, dropped }) = &self.rest.windows {
            late.publish(self.operator.late());
            dropped.publish(self.operator.dropped_windows());
        }
        self.outs.next.publish();
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if self.life == Life::Open {
            self.life = Life::Closed;
            let operator = &mut self.operator;
            cx.closing(self.outs.node, |close| operator.close(close));
        }
        self.outs.side.close(cx);
        if let Some(letters) = self.handling.keeper().and_then(|keeper| keeper.letters()) {
            letters.close(cx);
        }
        self.outs.next.close(cx);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.operator.wake_at().into_iter().chain(self.outs.next.wake_at()).min()
    }

    fn awaits<'a>(&'a self, descriptors: &mut Vec<BorrowedFd<'a>>) {
        descriptors.extend(self.operator.awaits());
        self.outs.next.awaits(descriptors);
    }
}
