//! Late records as a stream of their own: window operators that let them leave by the side.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use super::aggregate::Aggregate;
use super::key::KeySelector;
use super::side::{Leaves, MainOf, SideFactory, SideOperator};
use super::window::{AlignedWindows, Dropped, LateRecords};
use super::{Emit, Operator, OperatorFactory, Promise, SessionWindows};
use crate::BoxError;
use crate::exchange::lane::Mark;
use crate::job::task::{CloseContext, Fault, OpenContext};
use crate::sync::lock;
use crate::time::{Timed, Timestamp};

/// Late records until they leave. Shared by an operator and the one around it, on one thread: the lock is never waited
/// for.
pub struct Set<T>(Arc<Mutex<Vec<Timed<T>>>>);

impl<T> Set<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn take(&self) -> Vec<Timed<T>> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl<T> Clone for Set<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static> LateRecords<T> for Set<T> {
    fn take(&mut self, record: Timed<T>) {
        lock(&self.0).push(record);
    }
}

/// Windows whose late records are dropped, unless they are set apart. Implemented by the engine alone.
pub trait SetsApart: Operator {
    /// What their records are.
    type Record: Send + 'static;
    /// The same windows, with their late records set apart.
    type Apart: Operator<In = Self::In, Out = Self::Out>;

    #[doc(hidden)]
    fn apart(&self, to: Set<Self::Record>) -> Self::Apart;
}

impl<S, T, A> SetsApart for AlignedWindows<S, T, A, Dropped>
where
    S: KeySelector<Timed<T>>,
    S::Key: Clone,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
{
    type Record = T;
    type Apart = AlignedWindows<S, T, A, Set<T>>;

    fn apart(&self, to: Set<T>) -> Self::Apart {
        self.with_late(to)
    }
}

impl<S, T, A> SetsApart for SessionWindows<S, T, A, Dropped>
where
    S: KeySelector<Timed<T>>,
    S::Key: Clone,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
{
    type Record = T;
    type Apart = SessionWindows<S, T, A, Set<T>>;

    fn apart(&self, to: Set<T>) -> Self::Apart {
        self.with_late(to)
    }
}

/// Makes window operators whose late records leave by the side.
pub struct LateApart<F>(pub(crate) F);

impl<F: OperatorFactory> SideFactory for LateApart<F>
where
    F::Operator: SetsApart,
{
    type Operator = LateAside<F::Operator>;

    fn make(&self) -> Self::Operator {
        let set = Set::new();
        LateAside { operator: self.0.make().apart(set.clone()), set, seen: 0 }
    }
}

/// A window operator whose late records leave by the side.
pub struct LateAside<O: SetsApart> {
    operator: O::Apart,
    set: Set<O::Record>,
    /// How many late records have left.
    seen: u64,
}

impl<O: SetsApart> SideOperator for LateAside<O> {
    type In = O::In;
    type Out = O::Out;
    type Side = Timed<O::Record>;

    const MARKS: Promise = <O::Apart as Operator>::MARKS;
    const DROPS_LATE: Promise = <O::Apart as Operator>::DROPS_LATE;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.operator.open(cx)
    }

    fn process(&mut self, record: O::In, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.process(record, &mut MainOf::<_, Self::Side>(out, PhantomData))?;
        if self.operator.late() == self.seen {
            return Ok(());
        }
        self.seen = self.operator.late();
        self.set.take().into_iter().try_for_each(|record| out.emit(Leaves::Side(record)))
    }

    fn finish(&mut self, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.finish(&mut MainOf::<_, Self::Side>(out, PhantomData))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.operator.close(cx)
    }

    fn on_watermark(&mut self, mark: Mark, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.on_watermark(mark, &mut MainOf::<_, Self::Side>(out, PhantomData))
    }

    const TIMES: Promise = <O::Apart as Operator>::TIMES;

    fn on_time(&mut self, out: &mut impl Emit<Leaves<O::Out, Self::Side>>) -> Result<(), Fault> {
        self.operator.on_time(&mut MainOf::<_, Self::Side>(out, PhantomData))
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.operator.wake_at()
    }

    fn late(&self) -> u64 {
        self.operator.late()
    }
}
