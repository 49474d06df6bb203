//! The task of a chain that begins with an async operator: it takes records while it has free slots, and sends on the
//! results of their futures.
//!
//! The operator always begins a chain, so that its task can wait at an inbox, for records and completions alike. So a
//! source that is stuck in its iterator delays no result. The operators behind it are fused as behind any other.
//!
//! Invariants:
//!  1. Futures are made, polled and dropped on the task's own thread, inside the job's async runtime. The operators
//!     behind run outside of the runtime, so that they may block.
//!  2. It takes a record only when there is a slot for it, and reaches the end of its input when every slot is empty.
//!  3. While user code runs, the position names the record it runs for, which is not the one taken last. How many were
//!     taken is counted apart.
//!  4. It drives its chain: every `Stop::Attend` is answered where the record is pushed.

mod flight;
mod function;
mod pace;
mod parting;
mod polling;
mod slot;
mod wakes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flight::Flight;
pub use function::{AsyncError, AsyncFunction, Order};
pub(crate) use function::{Fallible, MAX_IN_FLIGHT, Policy, Since, Sure};
use pace::FlightPace;
use parting::Parting;
use polling::Rouser;
pub(crate) use polling::{Polling, RouseThread};
use tokio::runtime::Handle;

use super::inlet::is_wanted;
use super::{Stepped, Task};
use crate::between::Between;
use crate::chain::{DeadLetter, Errors, Fault, OpenContext, Place, Push, Signal, Stop, TaskContext};
use crate::control::{Control, JobControl};
use crate::error::Fatal;
use crate::exchange::Circle;
use crate::exchange::lane::{Inbox, Polled, Taker};
use crate::ids::NodeId;
use crate::metrics::Counter;
use crate::retry::RetriesExhausted;
use crate::runtime::enter;
use crate::sync::{FOREVER, park_for};
use crate::{BoxError, sync};

/// A chain that begins with an inbox and an async operator.
pub(crate) struct AsyncTask<I, F: AsyncFunction<I>, N> {
    inbox: Inbox<I>,
    pace: FlightPace,
    /// How many records are in flight, for those outside.
    in_flight: Arc<Counter>,
    /// What was in flight when it was closed, and dropped then.
    dropped: usize,
    flight: Flight<I, F>,
    next: Parting<N, I>,
    circle: Option<Circle>,
    node: NodeId,
    polling: Polling,
    runtime: Option<Handle>,
    control: Arc<JobControl>,
    /// Whether the function was opened.
    opened: bool,
    /// Whether the end of input was seen.
    ended: bool,
    /// What is passed on once everything taken before it has left; nothing is taken until then.
    held: Option<Between>,
    taken: u64,
    emitted: u64,
    taken_so_far: Arc<Counter>,
    emitted_so_far: Arc<Counter>,
    failing: Box<Failing>,
}

/// What an async task is built of.
pub(crate) struct Parts<I, F: AsyncFunction<I>, N> {
    pub(crate) inbox: Inbox<I>,
    pub(crate) function: F,
    pub(crate) policy: Policy<I>,
    pub(crate) since: Option<Since<F::Future>>,
    pub(crate) next: N,
    pub(crate) letters: Option<Box<dyn Push<DeadLetter<I>>>>,
    pub(crate) circle: Option<Circle>,
    pub(crate) polling: Polling,
    pub(crate) control: Arc<JobControl>,
    pub(crate) place: Place,
    pub(crate) taken: Arc<Counter>,
    pub(crate) in_flight: Arc<Counter>,
}

impl<I: Send + 'static, F: AsyncFunction<I>, N: Push<F::Out>> AsyncTask<I, F, N> {
    pub(crate) fn new(parts: Parts<I, F, N>) -> Self {
        let Parts { mut inbox, function, policy, since, next, letters, circle, polling, control, place, .. } = parts;
        let Place { node, context, errors, emitted, windows: _ } = place;
        inbox.works_on(policy.in_flight);
        Self {
            inbox,
            pace: FlightPace::new(),
            in_flight: parts.in_flight,
            dropped: 0,
            flight: Flight::new(function, policy, since, Rouser::new(&polling)),
            circle,
            next: Parting::new(next, letters),
            node,
            polling,
            runtime: None,
            control,
            opened: false,
            ended: false,
            held: None,
            taken: 0,
            emitted: 0,
            taken_so_far: parts.taken,
            emitted_so_far: emitted,
            failing: Box::new(Failing { errors, context, letters: 0 }),
        }
    }
}

/// What becomes of the records that fail.
struct Failing {
    errors: Errors,
    context: OpenContext,
    /// How many became dead letters.
    letters: u64,
}

impl Failing {
    /// Decides on the record in a slot, which has failed.
    #[cold]
    fn settle<I, F: AsyncFunction<I>>(
        &mut self,
        flight: &mut Flight<I, F>,
        slot: u32,
        error: BoxError,
        taken: u64,
    ) -> Result<(), Fault> {
        if flight.policy.letters
            && !Fatal::is(&*error)
            && let Some((record, number, attempts)) = flight.take_failed(slot)
        {
            self.letters += 1;
            let attempts = RetriesExhausted::attempts_of(&error).unwrap_or(attempts);
            let letter = DeadLetter::new(record, number, attempts, &*error, &self.context, self.letters);
            flight.replace(slot, letter);
            return Ok(());
        }
        self.errors.judge(error, taken)?;
        flight.skip(slot);
        Ok(())
    }
}

/// How long results and woken futures may wait while the task takes records, or polls futures, that keep it busy.
const LONG_BATCH: Duration = Duration::from_millis(1);

/// Why the task takes no more records from its inbox for now.
enum NoMore {
    /// Every slot is taken, or there are others to attend to.
    Enough,
    Stop(Stop),
}

/// Takes records from the inbox into flight.
struct Intake<'a, I, F: AsyncFunction<I>> {
    flight: &'a mut Flight<I, F>,
    taken: &'a mut u64,
    node: NodeId,
    control: &'a JobControl,
    failing: &'a mut Failing,
    cx: &'a mut TaskContext,
    began: Instant,
}

impl<I, F: AsyncFunction<I>> Taker<I> for Intake<'_, I, F> {
    type Refusal = NoMore;
    fn look(&mut self) -> Result<(), NoMore> {
        if self.control.load() == Control::Cancel {
            return Err(NoMore::Stop(Stop::Cancelled));
        }
        let others_wait = self.flight.has_result() || self.flight.is_roused();
        if self.flight.is_full() || (others_wait && self.began.elapsed() > LONG_BATCH) {
            return Err(NoMore::Enough);
        }
        Ok(())
    }

    fn take(&mut self, record: I) -> Result<(), NoMore> {
        *self.taken += 1;
        self.cx.resume(self.node, *self.taken);
        let Err((slot, error)) = self.flight.start(record, *self.taken) else { return Ok(()) };
        let settled = self.failing.settle(self.flight, slot, error, *self.taken);
        settled.map_err(|fault| NoMore::Stop(self.cx.fault(fault)))
    }

    fn took(&mut self, _count: usize) {}
}

impl<I: Send + 'static, F: AsyncFunction<I>, N: Push<F::Out>> AsyncTask<I, F, N> {
    /// Polls the futures that were woken.
    fn poll(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        if !self.flight.look() {
            return Ok(());
        }
        let _inside = self.runtime.as_ref().map(enter);
        let began = Instant::now();
        while let Some((slot, record)) = self.flight.next_woken() {
            if self.control.load() == Control::Cancel {
                return Err(Stop::Cancelled);
            }
            cx.resume(self.node, record);
            if let Err(error) = self.flight.poll(slot) {
                let settled = self.failing.settle(&mut self.flight, slot, error, self.taken);
                settled.map_err(|fault| cx.fault(fault))?;
            }
            if self.flight.has_result() && began.elapsed() > LONG_BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Takes records, as long as there is room for them. Returns whether there were any.
    fn take(&mut self, cx: &mut TaskContext) -> Result<bool, Stop> {
        let Self { inbox, flight, taken, node, control, failing, .. } = self;
        let _inside = self.runtime.as_ref().map(enter);
        // A wait for fuller blocks would begin anew with each completion, and might never end.
        inbox.hurry();
        match inbox.poll(&mut Intake { flight, taken, node: *node, control, failing, cx, began: Instant::now() }) {
            Ok(Polled::Taken) | Err(NoMore::Enough) => Ok(true),
            Ok(Polled::Nothing) => Ok(false),
            Ok(Polled::Between(between)) => {
                self.held = Some(between);
                Ok(true)
            }
            Ok(Polled::Finished) => {
                self.ended = true;
                Ok(true)
            }
            Ok(Polled::Aborted) => Err(Stop::Cancelled),
            Err(NoMore::Stop(stop)) => Err(stop),
        }
    }

    /// Sends on the results that can leave. Returns whether there were any.
    fn emit(&mut self, cx: &mut TaskContext) -> Result<bool, Stop> {
        if !self.flight.has_result() {
            return Ok(false);
        }
        let (flight, emitted, node, control) = (&mut self.flight, &mut self.emitted, self.node, &*self.control);
        cx.run(&mut self.next, |next, at| {
            while let Some((record, result)) = flight.next_result() {
                at.resume(node, record);
                *emitted += u64::from(result.is_ok());
                match next.push(result, at) {
                    Ok(()) => {}
                    Err(Fault::Stop(Stop::Attend)) => next.attend(at)?,
                    Err(fault) => return Err(fault),
                }
                if control.load() == Control::Cancel {
                    return Err(Stop::Cancelled.into());
                }
            }
            Ok(true)
        })
    }

    /// Whether it takes records now.
    fn takes(&self) -> bool {
        !self.ended && !self.flight.is_full() && self.held.is_none()
    }

    /// Futures that are woken over and over, and give nothing, count as idle: others are to have their turn.
    fn work(&mut self, cx: &mut TaskContext) -> Result<Stepped, Stop> {
        if !self.flight.hurried && self.control.load() == Control::Drain {
            self.flight.hurry();
        }
        self.poll(cx)?;
        let mut worked = self.emit(cx)?;
        if let Some(held) = self.held.take_if(|_| self.flight.is_empty()) {
            #[cfg(test)]
            crate::chain::traced::note(held.into(), &self.failing.context);
            cx.run(&mut self.next, |next, at| next.signal(held.into(), at))?;
            worked = true;
        }
        if self.takes() {
            worked |= self.take(cx)?;
            self.emit(cx)?;
        }
        cx.run_in_place(|at| self.next.signal(Signal::Time, at))?;
        Ok(match worked {
            _ if self.ended && self.flight.is_empty() => Stepped::End,
            true => Stepped::Again,
            false => {
                cx.run(&mut self.next, |next, at| next.signal(Signal::Settle, at))?;
                Stepped::Idle
            }
        })
    }
}

impl<I: Send + 'static, F: AsyncFunction<I>, N: Push<F::Out>> Task for AsyncTask<I, F, N> {
    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.resume(self.node, 0);
        self.flight.settle();
        let runtime = self.polling.runtime.handle();
        self.runtime = Some(runtime.map_err(|error| cx.fault(error.into()))?);
        self.opened = true;
        let opened = self.flight.function.open(&self.failing.context);
        opened.map_err(|error| cx.fault(Fault::Error(error)))?;
        cx.run(&mut self.next, |next, at| next.open(at))
    }

    fn step(&mut self, cx: &mut TaskContext) -> Result<Stepped, Stop> {
        if !is_wanted(&self.next, self.circle.as_ref()) {
            return Err(Stop::Satisfied);
        }
        let began = Instant::now();
        self.pace.pass(began);
        let step = self.work(cx);
        cx.resume(self.node, self.taken);
        let in_flight = self.flight.taken();
        if let Some((records, time)) = self.pace.step(began, self.taken, in_flight, self.flight.policy.in_flight) {
            self.inbox.took(records, time);
        }
        step
    }

    fn wait(&mut self, _cx: &mut TaskContext) {
        let (flight, control, wake_at) = (&self.flight, &self.control, self.next.wake_at());
        let (clock, wanted) = (control.clock(), || is_wanted(&self.next, self.circle.as_ref()));
        // Once the futures were told of a drain it is no news.
        let news = if flight.hurried { Control::Cancel } else { Control::Drain };
        let interrupted = || flight.is_roused() || control.load() >= news || !wanted() || clock.is_due(wake_at);
        let limit = wake_at.and_then(|moment| clock.until(moment));
        if interrupted() {
            return;
        }
        if self.takes() {
            self.inbox.hurry();
            self.inbox.wait(interrupted, limit);
            return;
        }
        park_for(limit.unwrap_or(FOREVER), || !interrupted());
    }

    fn publish(&mut self, _cx: &TaskContext) {
        self.taken_so_far.publish(self.taken);
        self.in_flight.publish((self.flight.taken() + self.dropped) as u64);
        self.emitted_so_far.publish(self.emitted);
        self.failing.context.passed.retries.publish(self.flight.retries);
        self.next.publish();
    }

    fn signal(&mut self, signal: Signal, cx: &mut TaskContext) -> Result<(), Stop> {
        if signal == Signal::Finish {
            self.failing.errors.finish(self.taken).map_err(|fault| cx.fault(fault))?;
        }
        cx.run(&mut self.next, |next, at| next.signal(signal, at))?;
        if signal == Signal::Finish {
            self.inbox.satisfied();
        }
        Ok(())
    }

    /// Drops what is in flight, one by one, so that a future that panics when it is dropped keeps no other.
    fn close(&mut self, cx: &mut TaskContext) {
        self.dropped = self.flight.taken();
        let mut more = true;
        while more {
            let (flight, runtime) = (&mut self.flight, &self.runtime);
            cx.closing(self.node, |_| {
                let _inside = runtime.as_ref().map(enter);
                more = flight.clear_one();
                Ok(())
            });
        }
        if std::mem::take(&mut self.opened) {
            let function = &mut self.flight.function;
            cx.closing(self.node, |close| function.close(close));
        }
        self.next.close(cx);
    }

    fn is_source(&self) -> bool {
        false
    }
}
