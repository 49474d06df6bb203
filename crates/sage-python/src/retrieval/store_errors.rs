//! The exceptions of stores.

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use sage::chain_of;
use sage_services::store;

use super::files::os_error;
use crate::error::verdict_as_told;

create_exception!(
    sage.services,
    StoreError,
    PyRuntimeError,
    "A store cannot do what it was asked for. What is refused before a store is asked is a ``ValueError``."
);
create_exception!(sage.services, StoreFull, StoreError, "A store holds its maximum number of records.");
create_exception!(sage.services, StoreClosed, StoreError, "A store was closed.");
create_exception!(sage.services, StoreLocked, StoreError, "Another process has the file of a store open.");
create_exception!(sage.services, StoreDamaged, StoreError, "A file of a store does not hold what was written.");
create_exception!(
    sage.services,
    StoreUnavailable,
    StoreError,
    "A server of a store did not do it. ``verdict`` says what that means to a policy."
);
create_exception!(sage.services, UnknownCollection, StoreError, "A collection that must exist does not.");
create_exception!(
    sage.services,
    OtherCollection,
    StoreError,
    "The store has a collection of this name that was made otherwise."
);

/// An error as an exception, whose message tells its causes as well.
pub(super) fn raised(py: Python<'_>, error: &store::StoreError) -> PyErr {
    exception(py, error).unwrap_or_else(|error| error)
}

fn exception(py: Python<'_>, error: &store::StoreError) -> PyResult<PyErr> {
    use store::StoreError as Error;
    let words = chain_of(error);
    Ok(match error {
        Error::Full { .. } => StoreFull::new_err(words),
        Error::NotOpen { .. } | Error::Closed => StoreClosed::new_err(words),
        Error::Locked { .. } => StoreLocked::new_err(words),
        Error::Damaged { .. } => StoreDamaged::new_err(words),
        Error::UnknownCollection { .. } => UnknownCollection::new_err(words),
        Error::OtherCollection { .. } => OtherCollection::new_err(words),
        Error::Unsupported { .. } => StoreError::new_err(words),
        Error::File { path, source, .. } => {
            let raised = StoreError::new_err(words);
            raised.set_cause(py, Some(os_error(path, source)));
            raised
        }
        Error::Server { .. } => {
            let raised = StoreUnavailable::new_err(words);
            let (verdict, after) = verdict_as_told(error.verdict());
            raised.value(py).setattr("verdict", verdict)?;
            raised.value(py).setattr("retry_after", after.map(|after| after.as_secs_f64()))?;
            raised
        }
        _ => PyValueError::new_err(words),
    })
}
