//! The module `sage._sage`: the engine as the Python package `sage` uses it.
//!
//! It converts, and calls: Python objects become records, Python callables sources, operators, sinks and services. What a
//! program may write is decided in the Python package; how it runs, in the engine.
//!
//! Invariants:
//!  1. A thread holds the interpreter while it runs Python code, and at no other time: it attaches once for many records,
//!     and never waits for a lane, a service or a job while attached.
//!  2. A Python exception is carried as the object it is, and comes out of the call that ran the job.

mod attributes;
mod call_service;
mod chain;
mod error;
mod future;
mod job;
mod method;
mod plan;
mod service;
mod source;
mod thread;
mod vectorcall;
mod workers;

use pyo3::prelude::*;

/// A Python object on its way through a pipeline.
///
/// One that is dropped by a thread that is not attached is released when the next thread attaches.
struct Object {
    value: Py<PyAny>,
    /// The hash of its key, behind a `keyby`; zero elsewhere.
    hash: u64,
}

#[pymodule]
mod _sage {
    use pyo3::exceptions::PyImportError;
    use pyo3::ffi;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // SAFETY: the thread is attached.
        match unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } {
            0 => module.add("Attributes", crate::attributes::attributes_type(module.py())?),
            _ => Err(PyImportError::new_err("this is a subinterpreter")),
        }
    }

    #[pymodule_export]
    use crate::call_service::caller;
    #[pymodule_export]
    use crate::error::{ServiceError, SubmitError};
    #[pymodule_export]
    use crate::future::ServiceFuture;
    #[pymodule_export]
    use crate::job::Job;
    #[pymodule_export]
    use crate::method::Binding;
    #[pymodule_export]
    use crate::plan::start;
    #[pymodule_export]
    use crate::service::Handle;
    #[pymodule_export]
    use crate::source::Nothing;
    #[pymodule_export]
    use crate::thread::end_attaching;
}

impl Clone for Object {
    fn clone(&self) -> Self {
        thread::attach(|py| Self { value: self.value.clone_ref(py), hash: self.hash })
    }
}
