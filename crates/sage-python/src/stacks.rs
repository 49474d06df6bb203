//! Where the threads of a job are, with their Python stacks.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use sage_api::message::{MOST_THREADS, ThreadNow};
use sage_api::threads_of_this_process;

use crate::thread::attach;

/// The threads of this process: those that run Python code with their stacks. Waits for the interpreter's lock.
pub(crate) fn threads() -> Vec<ThreadNow> {
    let stacks = attach(|py| stacks(py).unwrap_or_default());
    let mut threads = threads_of_this_process();
    for thread in &mut threads {
        let of_it = stacks.iter().find(|(number, _)| *number == thread.number);
        thread.stack = of_it.map(|(_, stack)| stack.clone());
    }
    threads
}

/// The stacks of the threads that run Python code, by the system's number of each.
fn stacks(py: Python<'_>) -> PyResult<Vec<(u32, String)>> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUNNING.import(py, "sage._stacks", "running")?.call1((MOST_THREADS,))?.extract()
}
