//! Late records: where they go, and how many there are.

use std::convert::Infallible;

use crate::chain::{Fault, Outlet, Stage};
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
#[derive(Clone)]
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

impl<T, F: FnMut(Timed<T>) + Clone + Send + 'static> LateRecords<T> for HandedTo<F> {
    type Side = Infallible;

    fn take<M>(&mut self, record: Timed<T>, _out: &mut impl Outlet<M, Infallible>) -> Result<(), Fault> {
        (self.0)(record);
        Ok(())
    }
}

/// To a stream of their own.
#[derive(Clone)]
pub struct SetApart;

impl<T: Send + 'static> LateRecords<T> for SetApart {
    type Side = Timed<T>;
    const BY_THE_SIDE: bool = true;

    fn take<M>(&mut self, record: Timed<T>, out: &mut impl Outlet<M, Timed<T>>) -> Result<(), Fault> {
        out.emit_side(record)
    }
}

/// The late records of an operator.
pub(super) struct Late<L> {
    to: L,
    pub(super) records: u64,
}

impl<L: Clone> Late<L> {
    pub(super) fn new(to: &L) -> Self {
        Self { to: to.clone(), records: 0 }
    }

    pub(super) fn take<T, M>(&mut self, record: Timed<T>, out: &mut impl Outlet<M, L::Side>) -> Result<(), Fault>
    where
        L: LateRecords<T>,
    {
        self.records += 1;
        self.to.take(record, out)
    }
}

/// Windows whose late records can be set apart on a second stream. Only the engine implements it.
pub trait SetsApart: Stage {
    /// The records in the windows.
    type Record: Send + 'static;
    /// The same windows, with their late records set apart.
    type Apart: Stage<In = Self::In, Out = Self::Out, Side = Timed<Self::Record>>;

    #[doc(hidden)]
    fn apart(&self) -> Self::Apart;
}
