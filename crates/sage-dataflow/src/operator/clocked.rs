//! Windows over processing time: windows of event time in which a record's time is the moment it comes.
//!
//! The operator gives each record the time at which it takes it, and makes the watermark of its windows. So a window
//! fires at its end, on the task's own thread, even if no record comes, and no record is late.

use std::convert::Infallible;

use super::cut::{AsPartial, Cut, End};
use super::window::{OpenWindows, WindowedOf};
use crate::BoxError;
use crate::between::Watermark;
use crate::chain::{CloseContext, Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::clock::Watch;
use crate::guarded::opaque;
use crate::key::{Hashed, KeySelector};
use crate::table::Table;
use crate::time::{Timed, Timestamp};

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

    type Noted = S::Noted;

    #[inline(always)]
    fn note(selected: S::Selected<'_>) -> S::Noted {
        S::note(selected)
    }

    #[inline(always)]
    fn noted<'a>(&mut self, noted: S::Noted, record: &'a Timed<T>) -> S::Selected<'a> {
        self.0.noted(noted, &record.value)
    }

    type Held = S::Held;

    #[inline(always)]
    fn hold<V>(&mut self, record: Timed<T>, table: &Table<S::Key, V>) -> (u64, S::Held) {
        self.0.hold(record.value, table)
    }

    #[inline(always)]
    fn take_key(&mut self, record: Timed<T>) -> S::Key {
        self.0.take_key(record.value)
    }

    #[inline(always)]
    fn state<'t, V>(
        &mut self,
        table: &'t mut Table<S::Key, V>,
        held: &mut Hashed<S::Held>,
        new: impl FnOnce() -> V,
    ) -> &'t mut V {
        self.0.state(table, held, new)
    }
}

/// Windows that go by the clock.
pub struct Clocked<W> {
    windows: W,
    watch: Option<Watch>,
    /// The latest time that a record was given or that windows fired at; it never goes back.
    now: i64,
    /// When the first window fires.
    due: i64,
    fired: i64,
    sent: Watermark,
    cut: Cut,
}
opaque!(Clocked<W>);

impl<W> Clocked<W> {
    pub(crate) fn new(windows: W, cut: Cut) -> Self {
        Self { windows, watch: None, now: i64::MIN, due: i64::MAX, fired: i64::MIN, sent: Watermark::NONE, cut }
    }
}

impl<W: Clone> Clone for Clocked<W> {
    fn clone(&self) -> Self {
        Self::new(self.windows.clone(), self.cut.clone())
    }
}

impl<W: OpenWindows> Clocked<W> {
    /// Looks at the clock, and fires what is due by what `read` says.
    #[inline(always)]
    fn tick(&mut self, read: fn(&mut Watch) -> i64, out: &mut impl Emit<Timed<WindowedOf<W>>>) -> Result<(), Fault> {
        if let Some(watch) = &mut self.watch {
            // The last moment stands for the end of input.
            self.now = self.now.max(read(watch).min(i64::MAX - 1));
        }
        if self.due <= self.now { self.fire(self.now, out) } else { Ok(()) }
    }

    #[cold]
    fn fire(&mut self, watermark: i64, out: &mut impl Emit<Timed<WindowedOf<W>>>) -> Result<(), Fault> {
        self.fired = watermark;
        self.windows.advance(watermark, out)?;
        self.due = self.windows.fires_at();
        Ok(())
    }
}

impl<W: OpenWindows> Stage for Clocked<W> {
    type In = W::Value;
    type Out = Timed<WindowedOf<W>>;
    type Side = Infallible;
    const FLAGS: Flags = Flags { begins_watermarks: true, has_windows: true, ..Flags::ANY };

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.watch = Some(Watch::new(cx.clock()));
        self.cut.open(cx);
        self.windows.open(cx)
    }

    #[inline(always)]
    fn process(&mut self, record: W::Value, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        self.tick(Watch::glance, out)?;
        let record = Timed { time: Timestamp::from_millis(self.now), value: record };
        self.windows.take(record, out, |_never_late, _out| Ok(()))?;
        if self.due == i64::MAX {
            self.due = self.windows.fires_at();
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::Time if self.due < i64::MAX => self.tick(Watch::read, out),
            Signal::Finish => {
                match self.cut.end() {
                    End::Whole => self.windows.advance(i64::MAX, out)?,
                    End::Partial => self.windows.advance(i64::MAX, &mut AsPartial(out))?,
                    End::Dropped => self.cut.dropped += self.windows.discard(),
                }
                (self.fired, self.due) = (i64::MAX, i64::MAX);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.windows.close(cx)
    }

    fn dropped_windows(&self) -> u64 {
        self.cut.dropped
    }

    /// Idle while no window is open, so that nobody waits for one.
    fn watermark(&mut self) -> Option<Watermark> {
        let watermark = Watermark { millis: self.fired, idle: self.due == i64::MAX && self.fired < i64::MAX };
        (std::mem::replace(&mut self.sent, watermark) != watermark).then_some(watermark)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        (self.due < i64::MAX).then(|| Timestamp::from_millis(self.due))
    }
}
