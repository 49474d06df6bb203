//! One record in, any number out, no state of the engine's: map, try_map, inspect, flat_map.

use std::marker::PhantomData;

use super::{Emit, Operator};
use crate::BoxError;
use crate::job::task::Fault;

/// Implements `Clone` through the function alone: the record types are only named.
macro_rules! clone_by_function {
    ($name:ident<$($param:ident),*>) => {
        impl<F: Clone, $($param),*> Clone for $name<F, $($param),*> {
            fn clone(&self) -> Self {
                Self { function: self.function.clone(), types: PhantomData }
            }
        }
        impl<F, $($param),*> $name<F, $($param),*> {
            pub(crate) fn new(function: F) -> Self {
                Self { function, types: PhantomData }
            }
        }
    };
}
pub(super) use clone_by_function;

/// `map`: one record out for each record in.
pub struct Map<F, I, O> {
    function: F,
    types: PhantomData<fn(I) -> O>,
}
clone_by_function!(Map<I, O>);

impl<F, I, O> Operator for Map<F, I, O>
where
    F: FnMut(I) -> O + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
{
    type In = I;
    type Out = O;
    const ONE_TO_ONE: bool = true;
    const MANY: bool = false;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Emit<O>) -> Result<(), Fault> {
        out.emit((self.function)(record))
    }
}

/// `try_map`: one record out for each record in, or a failure.
pub struct TryMap<F, I, O, E> {
    function: F,
    types: PhantomData<fn(I) -> (O, E)>,
}
clone_by_function!(TryMap<I, O, E>);

impl<F, I, O, E> Operator for TryMap<F, I, O, E>
where
    F: FnMut(I) -> Result<O, E> + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type In = I;
    type Out = O;
    const ONE_TO_ONE: bool = true;
    const MANY: bool = false;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Emit<O>) -> Result<(), Fault> {
        match (self.function)(record) {
            Ok(record) => out.emit(record),
            Err(error) => Err(Fault::Error(error.into())),
        }
    }
}

/// `inspect`: looks at each record and passes it on.
pub struct Inspect<F, I> {
    function: F,
    types: PhantomData<fn(I)>,
}
clone_by_function!(Inspect<I>);

impl<F, I> Operator for Inspect<F, I>
where
    F: FnMut(&I) + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = I;
    const ONE_TO_ONE: bool = true;
    const MANY: bool = false;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Emit<I>) -> Result<(), Fault> {
        (self.function)(&record);
        out.emit(record)
    }
}

/// `flat_map`: the records of an iterator for each record in.
pub struct FlatMap<F, I, O> {
    function: F,
    types: PhantomData<fn(I) -> O>,
}
clone_by_function!(FlatMap<I, O>);

impl<F, I, O> Operator for FlatMap<F, I, O>
where
    F: FnMut(I) -> O + Send + 'static,
    I: Send + 'static,
    O: IntoIterator + 'static,
    O::Item: Send + 'static,
{
    type In = I;
    type Out = O::Item;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Emit<O::Item>) -> Result<(), Fault> {
        for item in (self.function)(record) {
            out.emit(item)?;
        }
        Ok(())
    }
}

/// `flat_map_into`: the records pushed into a buffer, which is reused, for each record in.
pub struct FlatMapInto<F, I, O> {
    function: F,
    buffer: Vec<O>,
    types: PhantomData<fn(I)>,
}

impl<F, I, O> FlatMapInto<F, I, O> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, buffer: Vec::new(), types: PhantomData }
    }
}

impl<F: Clone, I, O> Clone for FlatMapInto<F, I, O> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<F, I, O> Operator for FlatMapInto<F, I, O>
where
    F: FnMut(I, &mut Vec<O>) + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
{
    type In = I;
    type Out = O;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Emit<O>) -> Result<(), Fault> {
        (self.function)(record, &mut self.buffer);
        for item in self.buffer.drain(..) {
            out.emit(item)?;
        }
        Ok(())
    }
}
