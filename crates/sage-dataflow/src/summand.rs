//! What is added up where the records of a key are counted or summed: in an operator, or before an exchange.

use std::marker::PhantomData;
use std::time::Duration;

use crate::error::Fatal;

/// What [`KeyedStream::sum`](crate::KeyedStream::sum) adds up: every number of Rust's, and [`Duration`]. Only the
/// engine implements it.
#[diagnostic::on_unimplemented(
    message = "values of type `{Self}` cannot be summed",
    label = "a sum has to be of numbers or of `Duration`",
    note = "`fold` adds up whatever you like"
)]
pub trait Number: Copy + Default + Send + 'static {
    /// The sum of both; `None` if this type has no room for it.
    #[doc(hidden)]
    fn plus(self, other: Self) -> Option<Self>;
}

macro_rules! exact {
    ($($number:ty),*) => {$(
        impl Number for $number {
            #[inline(always)]
            fn plus(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }
        }
    )*};
}
exact!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, Duration);

macro_rules! rounded {
    ($($number:ty),*) => {$(
        impl Number for $number {
            #[inline(always)]
            fn plus(self, other: Self) -> Option<Self> {
                Some(self + other)
            }
        }
    )*};
}
rounded!(f32, f64);

/// A sum is beyond its type.
#[derive(Debug, thiserror::Error)]
#[error("the sum of a key has no room in `{of}`; sum up values of a wider type, such as `i128` or `f64`")]
struct Beyond {
    of: &'static str,
}

/// Adds up two sums of one key.
///
/// # Errors
/// There is no room for the sum. No error policy passes over that, as a sum stands for many records.
#[inline(always)]
pub(crate) fn add<V: Number>(sum: &mut V, other: V) -> Result<(), Fatal> {
    #[cold]
    fn beyond(of: &'static str) -> Fatal {
        Fatal::new(Beyond { of })
    }
    *sum = sum.plus(other).ok_or_else(|| beyond(std::any::type_name::<V>()))?;
    Ok(())
}

/// What is added up of the records of a key.
pub(crate) trait Summand<T>: Clone + Send + 'static {
    type Sum: Number;
    /// What one record adds.
    type Amount: Copy + Default + Send + 'static;

    fn of(&mut self, record: &T) -> Self::Amount;
    /// # Errors
    /// There is no room for the sum.
    fn add(sum: &mut Self::Sum, amount: Self::Amount) -> Result<(), Fatal>;
}

/// Each record counts once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Each;

impl<T> Summand<T> for Each {
    type Sum = u64;
    type Amount = ();

    #[inline(always)]
    fn of(&mut self, _record: &T) {}

    #[inline(always)]
    fn add(sum: &mut u64, (): ()) -> Result<(), Fatal> {
        *sum += 1;
        Ok(())
    }
}

/// What a function takes from each record.
pub(crate) struct Value<F, V> {
    function: F,
    values: PhantomData<fn() -> V>,
}

impl<F, V> Value<F, V> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, values: PhantomData }
    }
}

impl<F: Clone, V> Clone for Value<F, V> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<T, F: FnMut(&T) -> V + Clone + Send + 'static, V: Number> Summand<T> for Value<F, V> {
    type Sum = V;
    type Amount = V;

    #[inline(always)]
    fn of(&mut self, record: &T) -> V {
        (self.function)(record)
    }

    #[inline(always)]
    fn add(sum: &mut V, amount: V) -> Result<(), Fatal> {
        add(sum, amount)
    }
}
