//! Why a call into a chain ends early: [`Stop`], [`Fault`].

use crate::BoxError;
use crate::error::{AtRecord, WaitCancelled};

/// Why the engine took a record no further.
///
/// Operators pass it on with `?`, and the engine acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// No operator downstream wants another record. This is not a failure: the chain finishes as at the end of its
    /// input.
    Satisfied,
    /// The job is being cancelled.
    Cancelled,
    /// An operator of this chain failed. The engine has recorded the failure.
    Failed,
    /// The record was taken, but the chain has to leave its loop, to wait for room or to wake a reader. Only the engine
    /// sees this.
    #[doc(hidden)]
    Attend,
}

/// Why a call of an operator ends early: a [`Stop`] of the engine, or the operator's own error.
///
/// `?` turns a [`Stop`], any error, a [`BoxError`] or a text into a fault.
///
/// ```
/// use sage::Fault;
///
/// fn half(n: u32) -> Result<u32, Fault> {
///     if n % 2 == 0 { Ok(n / 2) } else { Err("it is odd".into()) }
/// }
///
/// assert!(matches!(half(3), Err(Fault::Error(error)) if error.to_string() == "it is odd"));
/// ```
#[derive(Debug)]
pub enum Fault {
    /// From [`Emit::emit`](crate::Emit::emit); the operator passes it on.
    Stop(Stop),
    /// The operator's own error.
    Error(BoxError),
}

impl From<Stop> for Fault {
    #[inline]
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl Fault {
    /// What an error of the engine's own sinks is.
    #[cold]
    pub(crate) fn of_wait(error: BoxError) -> Self {
        if error.is::<WaitCancelled>() { Stop::Cancelled.into() } else { Self::Error(error) }
    }

    /// The same of the record with this number, if that is known.
    #[cold]
    pub(super) fn at(self, record: Option<u64>) -> Self {
        match (self, record) {
            (Self::Error(error), Some(record)) => Self::Error(AtRecord::new(record, error).into()),
            (fault, _) => fault,
        }
    }
}

impl<E: Into<BoxError>> From<E> for Fault {
    #[cold]
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}
