//! Operators that let some records through: filter, take.

use std::convert::Infallible;
use std::marker::PhantomData;

use super::map::clone_by_function;
use crate::chain::{Fault, Flags, OpenContext, Outlet, Stage, Stop};

/// `filter`: passes on the records a predicate accepts.
pub(crate) struct Filter<F, I> {
    function: F,
    types: PhantomData<fn(I)>,
}
clone_by_function!(Filter<I>);

impl<F, I> Stage for Filter<F, I>
where
    F: FnMut(&I) -> bool + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = I;
    type Side = Infallible;
    const FLAGS: Flags = Flags::AT_MOST_ONE;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<I, Infallible>) -> Result<(), Fault> {
        if (self.function)(&record) {
            out.emit(record)?;
        }
        Ok(())
    }
}

/// `take`: passes on the first so many records, then ends the chain.
pub(crate) struct Take<I> {
    left: u64,
    types: PhantomData<fn(I)>,
}

impl<I> Take<I> {
    pub(crate) fn new(count: u64) -> Self {
        Self { left: count, types: PhantomData }
    }
}

impl<I> Clone for Take<I> {
    fn clone(&self) -> Self {
        Self::new(self.left)
    }
}

impl<I: Send + 'static> Stage for Take<I> {
    type In = I;
    type Out = I;
    type Side = Infallible;
    const FLAGS: Flags = Flags::AT_MOST_ONE;

    fn open(&mut self, _cx: &OpenContext) -> Result<(), Fault> {
        if self.left == 0 { Err(Stop::Satisfied.into()) } else { Ok(()) }
    }

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<I, Infallible>) -> Result<(), Fault> {
        // What an operator before it emits after the last record, at the end of input say, is not wanted either.
        let Some(left) = self.left.checked_sub(1) else { return Err(Stop::Satisfied.into()) };
        self.left = left;
        let emitted = out.emit(record);
        if self.left == 0 { emitted.and(Err(Stop::Satisfied.into())) } else { emitted }
    }

    fn is_satisfied(&self) -> bool {
        self.left == 0
    }
}
