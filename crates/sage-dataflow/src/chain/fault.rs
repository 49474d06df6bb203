//! Why a call into a chain ends early: [`Stop`], [`Fault`], and the errors that say more of themselves.

use crate::BoxError;

/// Why a record was not taken further.
///
/// Operators pass it on with `?`; the engine acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// Nothing downstream wants another record. Not a failure: the chain finishes as at the end of its input.
    Satisfied,
    /// The job is being cancelled.
    Cancelled,
    /// An operator of this chain failed; the failure is recorded.
    Failed,
    /// The record was taken; the end of the chain wants the loop left, to wait for room or wake a reader. Seen by the
    /// engine alone.
    #[doc(hidden)]
    Attend,
}

/// What ends a call into an operator early: the engine's [`Stop`], or an error of the operator's own.
///
/// `?` turns a [`Stop`] and any `std::error::Error` into it.
#[derive(Debug)]
pub enum Fault {
    /// Passed on from [`Emit::emit`](crate::Emit::emit).
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

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Fault {
    #[cold]
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// An error of an operator or sink that works on several records at a time, with the record that it is about: the
/// engine knows which one it handed over last, and no more.
///
/// A failure is then reported at that record, and the error inside is its cause.
#[derive(Debug, thiserror::Error)]
#[error("record {record}")]
pub struct AtRecord {
    pub(super) record: u64,
    #[source]
    pub(super) error: BoxError,
}

impl AtRecord {
    /// The error, at this one of the records that the operator or sink has taken, from 1.
    pub fn new(record: u64, error: impl Into<BoxError>) -> Self {
        Self { record, error: error.into() }
    }
}

/// An error of a source or sink that opens something later than in `open`: a connection, or the next of several files.
///
/// The failure is then reported as one of opening, not as one at a record, and the error inside is its cause.
#[derive(Debug, thiserror::Error)]
#[error("while opening")]
pub struct WhileOpening {
    #[source]
    pub(super) error: BoxError,
}

impl WhileOpening {
    /// The error, of something that was to be opened.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into() }
    }

    pub(crate) fn into_inner(self) -> BoxError {
        self.error
    }
}

/// An error that fails the job whatever the error policy, dead letters and retries say, as a panic does.
///
/// The error inside is the failure's cause.
///
/// ```
/// use sage::{BoxError, Environment, ErrorPolicy, Fatal};
///
/// let env = Environment::local("numbers");
/// env.from_iter(["1", "two", "quit", "3"])
///     .try_map(|text| match text {
///         "quit" => Err(Fatal::new("told to quit").into()),
///         text => text.parse::<i32>().map_err(BoxError::from),
///     })
///     .on_error(ErrorPolicy::skip())
///     .sink(|_| {});
/// let error = env.run().unwrap_err();
/// assert_eq!(error.report().unwrap().first_cause.as_ref().unwrap().message, "told to quit");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("no policy lets this pass")]
pub struct Fatal {
    #[source]
    pub(super) error: BoxError,
}

impl Fatal {
    /// The error, which nothing is to let pass.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into() }
    }

    /// Whether an error is one, perhaps with the record it is about.
    pub(crate) fn is(error: &BoxError) -> bool {
        let error = error.downcast_ref::<AtRecord>().map_or(error, |at| &at.error);
        error.is::<Self>()
    }
}
