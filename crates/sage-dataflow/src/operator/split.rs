//! Operators that send each record to one of two streams: `split` and `split_ok`.

use std::marker::PhantomData;

use super::map::clone_by_function;
use crate::chain::{Fault, Flags, Outlet, Stage};

/// Each record by one way out or the other, once.
const ONE_OF_TWO: Flags = Flags { side: true, ..Flags::AT_MOST_ONE };

/// `split`: each record by the one way or the other.
pub(crate) struct Split<F, I> {
    function: F,
    types: PhantomData<fn(I)>,
}
clone_by_function!(Split<I>);

impl<F, I> Stage for Split<F, I>
where
    F: FnMut(&I) -> bool + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = I;
    type Side = I;
    const FLAGS: Flags = ONE_OF_TWO;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<I, I>) -> Result<(), Fault> {
        if (self.function)(&record) { out.emit(record) } else { out.emit_side(record) }
    }
}

/// `split_ok`: the value of each result by the one way, its error by the other.
pub(crate) struct SplitOk<T, E>(PhantomData<fn(T, E)>);

impl<T, E> SplitOk<T, E> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, E> Clone for SplitOk<T, E> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: Send + 'static, E: Send + 'static> Stage for SplitOk<T, E> {
    type In = Result<T, E>;
    type Out = T;
    type Side = E;
    const FLAGS: Flags = ONE_OF_TWO;

    #[inline(always)]
    fn process(&mut self, record: Result<T, E>, out: &mut impl Outlet<T, E>) -> Result<(), Fault> {
        match record {
            Ok(record) => out.emit(record),
            Err(error) => out.emit_side(error),
        }
    }
}
