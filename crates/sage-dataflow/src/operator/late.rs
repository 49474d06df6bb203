//! Windows as an operator, and their late records: where they go, and how many there are.

use std::convert::Infallible;

use super::cut::{AsPartial, Cut, End};
use super::window::{OpenWindows, WindowedOf};
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, Flags, OpenContext, Outlet, Signal, Stage};
use crate::guarded::opaque;
use crate::time::Timed;

/// Where late records go. Only the engine implements it.
pub trait LateRecords<T>: Clone + Send + 'static {
    /// The records on the windows' second stream.
    type Side: Send + 'static;
    #[doc(hidden)]
    const BY_THE_SIDE: bool = false;
    #[doc(hidden)]
    fn take<M>(&mut self, record: Timed<T>, out: &mut impl Outlet<M, Self::Side>) -> Result<(), Fault>;
}

/// Nowhere: they are counted.
#[derive(Debug, Clone)]
pub struct Dropped;

impl<T> LateRecords<T> for Dropped {
    type Side = Infallible;

    fn take<M>(&mut self, _record: Timed<T>, _out: &mut impl Outlet<M, Infallible>) -> Result<(), Fault> {
        Ok(())
    }
}

/// To a function of the user's.
#[derive(Clone)]
pub struct HandedTo<F>(pub(crate) F);
opaque!(HandedTo<F>);

impl<T, F: FnMut(Timed<T>) + Clone + Send + 'static> LateRecords<T> for HandedTo<F> {
    type Side = Infallible;

    fn take<M>(&mut self, record: Timed<T>, _out: &mut impl Outlet<M, Infallible>) -> Result<(), Fault> {
        (self.0)(record);
        Ok(())
    }
}

/// To a stream of their own.
#[derive(Debug, Clone)]
pub struct SetApart;

impl<T: Send + 'static> LateRecords<T> for SetApart {
    type Side = Timed<T>;
    const BY_THE_SIDE: bool = true;

    fn take<M>(&mut self, record: Timed<T>, out: &mut impl Outlet<M, Timed<T>>) -> Result<(), Fault> {
        out.emit_side(record)
    }
}

/// Windows as an operator: what is open, and where late records go.
#[derive(Clone)]
pub struct Windows<W, L> {
    open: W,
    to: L,
    late: u64,
    cut: Cut,
}
opaque!(Windows<W, L>);

impl<W, L> Windows<W, L> {
    pub(crate) fn new(open: W, to: L, cut: Cut) -> Self {
        Self { open, to, late: 0, cut }
    }

    /// The same windows, whose late records go elsewhere.
    pub(crate) fn with_late<M>(self, to: M) -> Windows<W, M> {
        Windows::new(self.open, to, self.cut)
    }
}

impl<W: OpenWindows, L> Windows<W, L> {
    /// Fires or drops the windows that are open, after the last record.
    fn end(&mut self, out: &mut impl Emit<Timed<WindowedOf<W>>>) -> Result<(), Fault> {
        match self.cut.end() {
            End::Whole => self.open.advance(i64::MAX, out),
            End::Partial => self.open.advance(i64::MAX, &mut AsPartial(out)),
            End::Dropped => {
                self.cut.dropped += self.open.discard();
                Ok(())
            }
        }
    }
}

impl<W: OpenWindows, L: LateRecords<W::Value>> Stage for Windows<W, L> {
    type In = Timed<W::Value>;
    type Out = Timed<WindowedOf<W>>;
    type Side = L::Side;
    const FLAGS: Flags = Flags { side: L::BY_THE_SIDE, has_windows: true, ..Flags::ANY };

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.cut.open(cx);
        self.open.open(cx)
    }

    #[inline(always)]
    fn process(&mut self, record: Self::In, out: &mut impl Outlet<Self::Out, Self::Side>) -> Result<(), Fault> {
        let Self { open, to, late, .. } = self;
        open.take(record, out, |record, out| {
            *late += 1;
            to.take(record, out)
        })
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.open.looks_ahead()
    }

    #[inline(always)]
    fn ahead(&mut self, record: &Self::In) {
        self.open.ahead(record);
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Self::Side>) -> Result<(), Fault> {
        match signal {
            Signal::Watermark(watermark) if !watermark.is_last() => self.open.advance(watermark.millis, out),
            Signal::Watermark(_) | Signal::Finish => self.end(out),
            _ => Ok(()),
        }
    }

    fn late(&self) -> u64 {
        self.late
    }

    fn dropped_windows(&self) -> u64 {
        self.cut.dropped
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.open.close(cx)
    }
}
