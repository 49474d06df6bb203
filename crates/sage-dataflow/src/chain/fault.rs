//! Why a call into a chain ends early: [`Stop`], [`Fault`], and the errors with a meaning of their own.

use crate::{BoxError, CallError};

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

/// An error of an operator or sink that works on several records at a time, with the number of the record that failed.
/// Without it, the engine knows only which record it handed over last.
///
/// The report names that record, and gives the error inside as the cause.
#[derive(Debug, thiserror::Error)]
#[error("record {record}")]
pub struct AtRecord {
    pub(super) record: u64,
    #[source]
    pub(super) error: BoxError,
}

impl AtRecord {
    /// Wraps `error`. `record` is the record's number among those that the operator or sink took, from 1.
    pub fn new(record: u64, error: impl Into<BoxError>) -> Self {
        Self { record, error: error.into() }
    }

    /// The error inside, for a policy to decide on, and the number of the record, if it is known.
    #[cold]
    pub(super) fn apart(error: BoxError) -> (BoxError, Option<u64>) {
        match error.downcast::<Self>() {
            Ok(at) => (at.error, Some(at.record)),
            Err(error) => (error, None),
        }
    }
}

/// An error of a source or sink that opens a connection or a file after `open`, such as the next of several files.
///
/// The report says that opening failed, not that a record did, and gives the error inside as the cause.
#[derive(Debug, thiserror::Error)]
#[error("while opening")]
pub struct WhileOpening {
    #[source]
    pub(super) error: BoxError,
}

impl WhileOpening {
    /// Wraps the error of opening.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into() }
    }

    pub(crate) fn into_inner(self) -> BoxError {
        self.error
    }
}

/// An error of the engine's own sinks, which is none: the job was cancelled while the sink waited.
#[derive(Debug, thiserror::Error)]
#[error("the job was cancelled")]
pub(crate) struct WaitCancelled;

impl WaitCancelled {
    /// What an error of a sink is to the engine.
    #[cold]
    pub(crate) fn or_error(error: BoxError) -> Fault {
        if error.is::<Self>() { Stop::Cancelled.into() } else { Fault::Error(error) }
    }
}

/// An error that fails the job whatever error policy, dead letters and retry are set, as a panic does.
///
/// The report gives the error inside as the cause.
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
#[error("fatal: no error policy applies")]
pub struct Fatal {
    #[source]
    pub(super) error: BoxError,
}

impl Fatal {
    /// Wraps an error, so that it fails the job.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into() }
    }

    /// Whether an error is one, perhaps with the record it is about. That of a call which ended with the job is one as
    /// well: it says nothing of the record.
    pub(crate) fn is(error: &BoxError) -> bool {
        let error = error.downcast_ref::<AtRecord>().map_or(error, |at| &at.error);
        error.is::<Self>() || CallError::tells_of_the_end(&**error)
    }
}
