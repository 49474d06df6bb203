//! `with_timestamps`: gives each record its time, and makes the watermarks.
//!
//! Only the last watermark, `i64::MAX`, says that the input has ended. No record's time makes that watermark.

use std::convert::Infallible;
use std::marker::PhantomData;

use crate::between::Watermark;
use crate::chain::{Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::clock::Clock;
use crate::time::{OutOfOrder, Timed, Timestamp};

/// `with_timestamps`: emits each record with its time; between batches, the latest time minus the bound as the
/// watermark.
pub(crate) struct Timestamps<F, I> {
    function: F,
    order: OutOfOrder,
    latest: i64,
    records: u64,
    sent: Watermark,
    /// How many records there were when it was last asked for a watermark, and since when there have been as many.
    seen: u64,
    since: Timestamp,
    clock: Option<Clock>,
    ended: bool,
    types: PhantomData<fn(I)>,
}

impl<F, I> Timestamps<F, I> {
    pub(crate) fn new(function: F, order: OutOfOrder) -> Self {
        let (latest, sent) = (i64::MIN, Watermark::NONE);
        let since = Timestamp::MIN;
        let (clock, types) = (None, PhantomData);
        Self { function, order, latest, records: 0, sent, seen: 0, since, clock, ended: false, types }
    }

    /// Whether there has been no record for too long. Looks at the clock once a batch, if at all.
    fn is_idle(&mut self) -> bool {
        let Some(limit) = self.order.idle_after else { return false };
        let Some(clock) = &self.clock else { return false };
        let now = clock.now();
        if std::mem::replace(&mut self.seen, self.records) != self.records {
            self.since = now;
        }
        now >= self.since.later(limit)
    }
}

impl<F: Clone, I> Clone for Timestamps<F, I> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone(), self.order)
    }
}

impl<F, I> Stage for Timestamps<F, I>
where
    F: FnMut(&I) -> Timestamp + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = Timed<I>;
    type Side = Infallible;

    const FLAGS: Flags = Flags { begins_watermarks: true, ..Flags::ONE_TO_ONE };

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.since = cx.clock().now();
        self.clock = Some(cx.clock().clone());
        Ok(())
    }

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<Timed<I>, Infallible>) -> Result<(), Fault> {
        let time = (self.function)(&record);
        self.latest = self.latest.max(time.millis());
        self.records += 1;
        out.emit(Timed { time, value: record })
    }

    fn signal(&mut self, signal: Signal, _out: &mut impl Outlet<Timed<I>, Infallible>) -> Result<(), Fault> {
        self.ended |= signal == Signal::Finish;
        Ok(())
    }

    fn watermark(&mut self) -> Option<Watermark> {
        let watermark = if self.ended {
            Watermark { millis: i64::MAX, idle: false }
        } else {
            // The last watermark is kept for the end of input, so that a record of the last moment can still come.
            let reached = Timestamp::from_millis(self.latest).earlier(self.order.bound).millis();
            Watermark { millis: reached.min(i64::MAX - 1), idle: self.is_idle() }
        };
        (std::mem::replace(&mut self.sent, watermark) != watermark).then_some(watermark)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let limit = self.order.idle_after.filter(|_| !self.sent.idle)?;
        Some(self.since.later(limit))
    }
}
