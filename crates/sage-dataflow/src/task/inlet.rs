//! A chain that begins with an inbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pace::Work;
use super::{Stepped, Task};
use crate::bell::{Bell, Ready};
use crate::between::Between;
use crate::chain::{Fault, Position, Push, Signal, Stop, TaskContext};
use crate::control::{Control, JobControl};
use crate::exchange::lane::{Inbox, Polled, Taker};
use crate::exchange::{Circle, Gauge, Returned, Rounds};
use crate::metrics::Counter;
use crate::sync::FOREVER;

/// The chain behind an inbox.
struct ToChain<'a, N> {
    next: &'a mut N,
    at: &'a mut Position,
    control: &'a JobControl,
}

impl<T, N: Push<T>> Taker<T> for ToChain<'_, N> {
    type Refusal = Fault;

    /// A record may take long, and a batch of them for ever.
    #[inline(always)]
    fn look(&mut self) -> Result<(), Fault> {
        if self.control.load() == Control::Cancel { Err(Stop::Cancelled.into()) } else { Ok(()) }
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.next.looks_ahead()
    }

    #[inline(always)]
    fn ahead(&mut self, record: &T, before: usize) {
        self.at.ahead(before as u64 + 1, |at| self.next.ahead(record, at));
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
pub(crate) struct InletTask<T, N> {
    inbox: Inbox<T>,
    next: N,
    circle: Option<Circle>,
    head: Option<LoopHead>,
    taken: Arc<Counter>,
    control: Arc<JobControl>,
    beside: Beside,
}

/// Work of the chain's that goes on outside of the task.
#[derive(Default)]
struct Beside {
    /// Ends a wait for it, from the first one on.
    bell: Option<Arc<Bell>>,
    /// How long the task was at it since it last took records.
    spent: Duration,
}

impl Beside {
    /// A wait for it is to come.
    fn hang(&mut self, control: &JobControl) -> Result<(), Fault> {
        if self.bell.is_none() {
            let bell = Arc::new(Bell::new().map_err(|error| Fault::Error(error.into()))?);
            control.hang(bell.clone());
            self.bell = Some(bell);
        }
        Ok(())
    }
}

impl<T: Send, N: Push<T>> InletTask<T, N> {
    /// Reads `inbox` and sends to `next`. A task in a loop has its part in a `circle`; the head of one has its `gauge`.
    pub(crate) fn new(
        inbox: Inbox<T>,
        next: N,
        circle: Option<Circle>,
        gauge: Option<Arc<Gauge>>,
        taken: Arc<Counter>,
        control: Arc<JobControl>,
    ) -> Self {
        let head = gauge.map(|gauge| LoopHead { rounds: Rounds::new(), gauge });
        Self { inbox, next, circle, head, taken, control, beside: Beside::default() }
    }

    /// Takes the records that a look has found. In a function of its own, whose loop has the registers to itself.
    #[inline(never)]
    fn take(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        let (inbox, control) = (&mut self.inbox, &*self.control);
        cx.run(&mut self.next, |next, at| inbox.take(&mut ToChain { next, at, control }))
    }

    /// Outside the loop over records, which must not pay for the call.
    #[cold]
    fn input_ended(&mut self, input: usize, cx: &mut TaskContext) -> Result<(), Stop> {
        match cx.run(&mut self.next, |next, at| next.signal(Signal::InputEnded(input), at)) {
            Err(Stop::Attend) => cx.run(&mut self.next, |next, at| next.attend(at)),
            told => told,
        }
    }

    /// Whether work goes on outside of the task. It is waited for besides the input, or here, if that cannot be.
    fn goes_on_beside(&mut self, is_idle: bool, cx: &mut TaskContext) -> Result<bool, Stop> {
        let mut awaited = Vec::new();
        self.next.awaits(&mut awaited);
        if awaited.is_empty() {
            return Ok(false);
        }
        if self.inbox.can_wait() {
            self.beside.hang(&self.control).map_err(|fault| cx.fault(fault))?;
        } else if is_idle {
            cx.run(&mut self.next, |next, at| next.signal(Signal::Settle, at))?;
        }
        Ok(true)
    }

    /// Passes on what came between records. A probe that has come back to the head of its loop ends that, or sends the
    /// next one.
    #[cold]
    fn signalled(&mut self, signal: Signal, cx: &mut TaskContext) -> Result<Stepped, Stop> {
        let signal = match (signal, &mut self.head) {
            (Signal::Probe(round), Some(head)) => match head.rounds.returned(round, cx.records()) {
                Returned::Again(next) => Signal::Probe(next),
                Returned::Ended => {
                    head.gauge.end();
                    return Ok(Stepped::End);
                }
            },
            (signal, _) => signal,
        };
        cx.run(&mut self.next, |next, at| next.signal(signal, at)).map(|()| Stepped::Again)
    }
}

impl<T: Send, N: Push<T>> Task for InletTask<T, N> {
    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.next, |next, at| next.open(at))?;
        match self.head {
            Some(_) => cx.run(&mut self.next, |next, at| next.signal(Signal::Probe(Rounds::FIRST), at)),
            None => Ok(()),
        }
    }

    fn step(&mut self, cx: &mut TaskContext) -> Result<Stepped, Stop> {
        if !is_wanted(&self.next, self.circle.as_ref()) {
            return Err(Stop::Satisfied);
        }
        let before = cx.records();
        let work = Work::begin();
        let polled = self.inbox.look();
        let taken = if matches!(polled, Polled::Taken) { self.take(cx) } else { Ok(()) };
        let took = u32::try_from(cx.records() - before).unwrap_or(u32::MAX);
        match taken {
            Err(Stop::Attend) => {
                // It may have to wait for long.
                self.publish(cx);
                cx.run(&mut self.next, |next, at| next.attend(at))?;
            }
            taken => taken?,
        }
        while let Some(input) = self.inbox.take_ended() {
            self.input_ended(input, cx)?;
        }
        if let Polled::Between(watermark @ Between::Watermark(_)) = polled {
            self.signalled(watermark.into(), cx)?;
        }
        cx.run_in_place(|at| self.next.signal(Signal::Time, at))?;
        // With what comes behind it: a chain that waits for room is as slow as what it waits for.
        if self.goes_on_beside(matches!(polled, Polled::Nothing), cx)? {
            self.beside.spent += work.time();
            if took > 0 {
                self.inbox.took(took as usize, std::mem::take(&mut self.beside.spent));
            }
        } else if took > 0 {
            self.inbox.took(took as usize, work.time());
        }
        if let Some(head) = &self.head {
            head.gauge.taken(cx.records());
        }
        match polled {
            Polled::Between(numbered @ Between::Numbered(..)) => self.signalled(numbered.into(), cx),
            Polled::Taken | Polled::Between(Between::Watermark(_)) => Ok(Stepped::Again),
            Polled::Nothing => Ok(Stepped::Idle),
            Polled::Finished => Ok(Stepped::End),
            Polled::Aborted => Err(Stop::Cancelled),
        }
    }

    fn wait(&mut self, _cx: &mut TaskContext) {
        let (control, wake_at) = (&self.control, self.next.wake_at());
        let (clock, wanted) = (control.clock(), || is_wanted(&self.next, self.circle.as_ref()));
        let interrupted = || control.load() == Control::Cancel || !wanted() || clock.is_due(wake_at);
        let limit = wake_at.and_then(|moment| clock.until(moment));
        let mut awaited = Vec::new();
        self.next.awaits(&mut awaited);
        match &self.beside.bell {
            Some(bell) if !awaited.is_empty() => {
                let began = Instant::now();
                self.inbox.wait_by(bell, interrupted, limit, |limit| {
                    // If it fails, whoever reads is told why.
                    bell.wait_any(&awaited, Ready::Read, limit.unwrap_or(FOREVER)).unwrap_or(true)
                });
                self.beside.spent += began.elapsed();
            }
            _ => self.inbox.wait(interrupted, limit),
        }
    }

    fn publish(&mut self, cx: &TaskContext) {
        self.taken.publish(cx.records());
        self.next.publish();
    }

    fn signal(&mut self, signal: Signal, cx: &mut TaskContext) -> Result<(), Stop> {
        cx.run(&mut self.next, |next, at| next.signal(signal, at))?;
        if signal == Signal::Finish {
            self.inbox.satisfied();
        }
        Ok(())
    }

    fn close(&mut self, cx: &mut TaskContext) {
        self.next.close(cx);
        self.beside.bell.take().iter().for_each(|bell| self.control.take_down(bell));
    }

    fn is_source(&self) -> bool {
        false
    }
}
