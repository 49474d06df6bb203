//! Sources made from an iterator, or from a function that may fail.

use super::{Next, Source, SourceContext};
use crate::BoxError;

/// The items of an iterator.
#[derive(Debug, Clone)]
pub struct IterSource<I>(pub(crate) I);

impl<I> Source for IterSource<I>
where
    I: Iterator + Send + 'static,
    I::Item: Send + 'static,
{
    type Item = I::Item;

    #[inline(always)]
    fn next(&mut self, _cx: &SourceContext) -> Result<Next<I::Item>, BoxError> {
        Ok(self.0.next().map_or(Next::End, Next::Record))
    }
}

/// The records of a function that returns the next one, the end, or an error.
#[derive(Debug, Clone)]
pub struct GeneratorSource<F>(pub(crate) F);

impl<F, T, E> Source for GeneratorSource<F>
where
    F: FnMut() -> Result<Option<T>, E> + Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Item = T;

    #[inline(always)]
    fn next(&mut self, _cx: &SourceContext) -> Result<Next<T>, BoxError> {
        match (self.0)() {
            Ok(Some(record)) => Ok(Next::Record(record)),
            Ok(None) => Ok(Next::End),
            Err(error) => Err(error.into()),
        }
    }
}
