//! Windows over processing time: windows of event time in which a record's time is the moment it comes.
//!
//! The operator gives each record the time at which it takes it, and makes the watermark of its windows. So a window
//! fires at its end, on the task's own thread, even if no record comes, and no record is late.

use std::convert::Infallible;
use std::marker::PhantomData;

use crate::BoxError;
use crate::chain::{CloseContext, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::clock::Clock;
use crate::key::KeySelector;
use crate::mark::Mark;
use crate::time::{Timed, Timestamp};

/// Window operators that know when they fire next. Only the engine implements it.
pub trait Fires: Stage {
    /// The watermark at which the first window fires, or one before it: `i64::MAX` while none is open.
    #[doc(hidden)]
    fn fires_at(&self) -> i64;
}

/// Selects the key of a record by the value in it.
#[derive(Debug, Clone)]
pub struct OfValue<S>(pub(crate) S);

impl<T, S: KeySelector<T>> KeySelector<Timed<T>> for OfValue<S> {
    type Key = S::Key;
    type Lookup = S::Lookup;
    type Selected<'a>
        = S::Selected<'a>
    where
        T: 'a;

    #[inline(always)]
    fn select<'a>(&mut self, record: &'a Timed<T>) -> S::Selected<'a> {
        self.0.select(&record.value)
    }

    #[inline(always)]
    fn lookup<'a>(selected: &'a S::Selected<'_>) -> &'a S::Lookup {
        S::lookup(selected)
    }

    #[inline(always)]
    fn into_key(selected: S::Selected<'_>) -> S::Key {
        S::into_key(selected)
    }
}

/// Windows that go by the clock.
pub struct Clocked<O, T> {
    windows: O,
    clock: Option<Clock>,
    /// The latest time that a record was given or that windows fired at; it never goes back.
    now: i64,
    /// When the first window fires.
    due: i64,
    fired: i64,
    sent: Mark,
    records: PhantomData<fn(T)>,
}

impl<O, T> Clocked<O, T> {
    pub(crate) fn new(windows: O) -> Self {
        let (now, due, fired, sent) = (i64::MIN, i64::MAX, i64::MIN, Mark::NONE);
        Self { windows, clock: None, now, due, fired, sent, records: PhantomData }
    }
}

impl<O: Clone, T> Clone for Clocked<O, T> {
    fn clone(&self) -> Self {
        Self::new(self.windows.clone())
    }
}

impl<T: Send + 'static, O: Fires<In = Timed<T>, Side = Infallible>> Clocked<O, T> {
    /// Looks at the clock, and fires what is due.
    #[inline(always)]
    fn tick(&mut self, out: &mut impl Outlet<O::Out, Infallible>) -> Result<(), Fault> {
        if let Some(clock) = &self.clock {
            // The last moment stands for the end of input.
            self.now = self.now.max(clock.now().millis().min(i64::MAX - 1));
        }
        if self.due <= self.now { self.fire(self.now, out) } else { Ok(()) }
    }

    #[cold]
    fn fire(&mut self, watermark: i64, out: &mut impl Outlet<O::Out, Infallible>) -> Result<(), Fault> {
        self.fired = watermark;
        self.windows.signal(Signal::Watermark(Mark { millis: watermark, idle: false }), out)?;
        self.due = self.windows.fires_at();
        Ok(())
    }
}

impl<T: Send + 'static, O: Fires<In = Timed<T>, Side = Infallible>> Stage for Clocked<O, T> {
    type In = T;
    type Out = O::Out;
    type Side = Infallible;

    const FLAGS: Flags = Flags { begins_watermarks: true, ..Flags::ANY };

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.clock = Some(cx.clock().clone());
        self.windows.open(cx)
    }

    #[inline(always)]
    fn process(&mut self, record: T, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        self.tick(out)?;
        self.windows.process(Timed { time: Timestamp::from_millis(self.now), value: record }, out)?;
        if self.due == i64::MAX {
            self.due = self.windows.fires_at();
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::Time if self.due < i64::MAX => self.tick(out),
            Signal::Finish => {
                self.windows.signal(Signal::Finish, out)?;
                (self.fired, self.due) = (i64::MAX, i64::MAX);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.windows.close(cx)
    }

    /// Idle while no window is open, so that nobody waits for one.
    fn watermark(&mut self) -> Option<Mark> {
        let mark = Mark { millis: self.fired, idle: self.due == i64::MAX && self.fired < i64::MAX };
        (std::mem::replace(&mut self.sent, mark) != mark).then_some(mark)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        (self.due < i64::MAX).then(|| Timestamp::from_millis(self.due))
    }
}
