//! The exceptions of memories.

use std::error::Error;

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use sage::chain_of;
use sage_services::memory::MemoryError;

use crate::error::{Raised, verdict_as_told};
use crate::retrieval::os_error;

create_exception!(
    sage.services,
    MemoryFailed,
    PyRuntimeError,
    "A memory cannot do what it was asked for. What no memory would do is a ``ValueError``. ``verdict`` says what it \
     means to a policy."
);
create_exception!(sage.services, MemoryFull, MemoryFailed, "A memory holds its maximum number of turns.");
create_exception!(sage.services, MemoryClosed, MemoryFailed, "A memory is not open, or was closed.");
create_exception!(sage.services, MemoryLocked, MemoryFailed, "Another process has the file of a memory open.");
create_exception!(sage.services, MemoryDamaged, MemoryFailed, "A file of a memory does not hold what was written.");
create_exception!(
    sage.services,
    OtherEmbedder,
    MemoryFailed,
    "The vectors in the file of a memory, or in an export, were made by another embedder."
);
create_exception!(
    sage.services,
    OtherText,
    MemoryFailed,
    "The scope has a turn with this id already, which was appended with another role or text."
);
create_exception!(sage.services, UnknownTurn, MemoryFailed, "There is no such turn in exactly this scope.");
create_exception!(sage.services, UnknownScope, MemoryFailed, "Nothing is remembered in a scope.");
create_exception!(
    sage.services,
    TurnsChanged,
    MemoryFailed,
    "Turns were changed or erased while their summary was made. Nothing is changed."
);

/// An error as an exception, whose message tells its causes as well. What the user's code has raised is raised itself.
pub(super) fn raised(py: Python<'_>, error: &MemoryError) -> PyErr {
    let causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |&cause| cause.source());
    if let Some(raised) = causes.filter_map(|cause| cause.downcast_ref::<Raised>()).next() {
        return raised.exception.clone_ref(py);
    }
    let words = chain_of(error);
    let exception = match error {
        MemoryError::Full { .. } => MemoryFull::new_err(words),
        MemoryError::NotOpen => MemoryClosed::new_err(words),
        MemoryError::Locked { .. } => MemoryLocked::new_err(words),
        MemoryError::Damaged { .. } => MemoryDamaged::new_err(words),
        MemoryError::OtherEmbedder { .. } => OtherEmbedder::new_err(words),
        MemoryError::OtherText { .. } => OtherText::new_err(words),
        MemoryError::UnknownTurn { .. } => UnknownTurn::new_err(words),
        MemoryError::UnknownScope { .. } => UnknownScope::new_err(words),
        MemoryError::Changed { .. } => TurnsChanged::new_err(words),
        MemoryError::File { path, source, .. } => {
            let raised = MemoryFailed::new_err(words);
            raised.set_cause(py, Some(os_error(path, source)));
            raised
        }
        MemoryError::NoThread(_) => MemoryFailed::new_err(words),
        _ => PyValueError::new_err(words),
    };
    let (verdict, _) = verdict_as_told(error.verdict());
    let set = exception.value(py).setattr(intern!(py, "verdict"), verdict);
    set.map_or_else(|error| error, |()| exception)
}
