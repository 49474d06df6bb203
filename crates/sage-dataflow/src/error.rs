//! Errors with a meaning of their own to the engine.

use std::error::Error;

use crate::BoxError;
use crate::guarded::sources;

/// An error of an operator or sink that works on several records at a time, with the number of the record that failed.
/// Without it, the engine knows only which record it handed over last.
///
/// The report names that record, and gives the error inside as the cause.
#[derive(Debug, thiserror::Error)]
#[error("record {record}")]
pub struct AtRecord {
    pub(crate) record: u64,
    #[source]
    pub(crate) error: BoxError,
}

impl AtRecord {
    /// Wraps `error`. `record` is the record's number among those that the operator or sink took, from 1.
    pub fn new(record: u64, error: impl Into<BoxError>) -> Self {
        Self { record, error: error.into() }
    }

    /// The error inside, for a policy to decide on, and the number of the record, if it is known.
    #[cold]
    pub(crate) fn apart(error: BoxError) -> (BoxError, Option<u64>) {
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
    pub(crate) error: BoxError,
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

/// An error that is none: the job was cancelled while a sink of the engine's own, or a call of a service, waited.
#[derive(Debug, thiserror::Error)]
#[error("the job was cancelled")]
pub(crate) struct WaitCancelled;

impl WaitCancelled {
    /// Whether an error is this one, or has it behind it.
    pub(crate) fn is_behind(error: &(dyn Error + 'static)) -> bool {
        sources(error).any(|error| error.is::<Self>())
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
    pub(crate) error: BoxError,
}

impl Fatal {
    /// Wraps an error, so that it fails the job.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into() }
    }

    /// Whether an error is one, perhaps with the record it is about. That of a call which ended with the job is one as
    /// well: it says nothing of the record.
    pub(crate) fn is(error: &(dyn Error + Send + Sync + 'static)) -> bool {
        let error = error.downcast_ref::<AtRecord>().map_or(error, |at| &*at.error);
        error.is::<Self>() || WaitCancelled::is_behind(error)
    }
}
