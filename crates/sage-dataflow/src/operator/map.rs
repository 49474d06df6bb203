//! Operators without state: map, try_map, inspect, flat_map. One record in, any number out.

use std::convert::Infallible;
use std::marker::PhantomData;

use crate::BoxError;
use crate::chain::{Emit, Fault, Flags, Outlet, Stage};

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
pub(crate) use clone_by_function;

/// `map`: one record out for each record in.
pub(crate) struct Map<F, I, O> {
    function: F,
    types: PhantomData<fn(I) -> O>,
}
clone_by_function!(Map<I, O>);

impl<F, I, O> Stage for Map<F, I, O>
where
    F: FnMut(I) -> O + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
{
    type In = I;
    type Out = O;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ONE_TO_ONE;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        out.emit((self.function)(record))
    }
}

/// `try_map`: one record out for each record in, or a failure.
pub(crate) struct TryMap<F, I, O, E> {
    function: F,
    types: PhantomData<fn(I) -> (O, E)>,
}
clone_by_function!(TryMap<I, O, E>);

impl<F, I, O, E> Stage for TryMap<F, I, O, E>
where
    F: FnMut(I) -> Result<O, E> + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type In = I;
    type Out = O;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ONE_TO_ONE;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        match (self.function)(record) {
            Ok(record) => out.emit(record),
            Err(error) => Err(Fault::Error(error.into())),
        }
    }
}

/// `inspect`: looks at each record and passes it on.
pub(crate) struct Inspect<F, I> {
    function: F,
    types: PhantomData<fn(I)>,
}
clone_by_function!(Inspect<I>);

impl<F, I> Stage for Inspect<F, I>
where
    F: FnMut(&I) + Send + 'static,
    I: Send + 'static,
{
    type In = I;
    type Out = I;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ONE_TO_ONE;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<I, Infallible>) -> Result<(), Fault> {
        (self.function)(&record);
        out.emit(record)
    }
}

/// `flat_map`: the records of an iterator for each record in.
pub(crate) struct FlatMap<F, I, O> {
    function: F,
    types: PhantomData<fn(I) -> O>,
}
clone_by_function!(FlatMap<I, O>);

impl<F, I, O> Stage for FlatMap<F, I, O>
where
    F: FnMut(I) -> O + Send + 'static,
    I: Send + 'static,
    O: IntoIterator + 'static,
    O::Item: Send + 'static,
{
    type In = I;
    type Out = O::Item;
    type Side = Infallible;
    const FLAGS: Flags = Flags { passes_on: true, ..Flags::ANY };

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O::Item, Infallible>) -> Result<(), Fault> {
        for item in (self.function)(record) {
            out.emit(item)?;
        }
        Ok(())
    }
}

/// The output of a function of [`flat_map_into`](crate::Stream::flat_map_into): the function pushes its records here.
///
/// Each record goes on through the pipeline at once; none is gathered.
pub struct Output<'a, O> {
    /// Erased, so that a function can name the type of its output.
    emit: &'a mut dyn Outward<O>,
    fault: Option<Fault>,
}

/// An [`Emit`] that can be erased.
pub(super) trait Outward<O> {
    fn send(&mut self, record: O) -> Result<(), Fault>;
}

pub(super) struct Through<'a, E>(pub(super) &'a mut E);

impl<O, E: Emit<O>> Outward<O> for Through<'_, E> {
    #[inline(always)]
    fn send(&mut self, record: O) -> Result<(), Fault> {
        self.0.emit(record)
    }
}

impl<'a, O> Output<'a, O> {
    /// An output that leads to `emit`. Made beside the call of the function, and not by a function that is given a
    /// closure: a closure that the compiler sets apart has the record in memory.
    #[inline(always)]
    pub(super) fn over(emit: &'a mut impl Outward<O>) -> Self {
        Self { emit, fault: None }
    }

    /// What became of the records that were pushed.
    #[inline(always)]
    pub(super) fn end(self) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }

    /// Sends a record on. Drops it once no more records are [`wanted`](Self::wanted).
    #[inline(always)]
    pub fn push(&mut self, record: O) {
        if self.fault.is_none()
            && let Err(fault) = self.emit.send(record)
        {
            self.fault = Some(fault);
        }
    }

    /// Whether more records are wanted. False once the job is cancelled or has failed, or once every operator
    /// downstream has ended. A function that pushes very many records should check this.
    pub fn wanted(&self) -> bool {
        self.fault.is_none()
    }
}

/// Stops asking the iterator once nothing more is wanted.
impl<O> Extend<O> for Output<'_, O> {
    #[inline]
    fn extend<I: IntoIterator<Item = O>>(&mut self, records: I) {
        for record in records {
            self.push(record);
            if !self.wanted() {
                return;
            }
        }
    }
}

impl<O> std::fmt::Debug for Output<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("wanted", &self.wanted()).finish()
    }
}

/// `flat_map_into`: the records a function pushes, for each record in.
pub(crate) struct FlatMapInto<F, I, O> {
    function: F,
    types: PhantomData<fn(I) -> O>,
}
clone_by_function!(FlatMapInto<I, O>);

impl<F, I, O> Stage for FlatMapInto<F, I, O>
where
    F: FnMut(I, &mut Output<'_, O>) + Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
{
    type In = I;
    type Out = O;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ANY;

    #[inline(always)]
    fn process(&mut self, record: I, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
        let mut way = Through(out);
        let mut output = Output::over(&mut way);
        (self.function)(record, &mut output);
        output.end()
    }
}
