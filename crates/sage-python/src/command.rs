//! The `sage` command of the package: the interpreter only hosts it, and runs no line of Python meanwhile.
//!
//! `sage run` forks, and reads signals itself. So there may be no other thread, and signals mean what they mean to the
//! binary of that name: the interpreter's own handlers would only note them, for a line of Python that does not come.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use libc::{SIG_DFL, SIG_IGN, SIGINT, SIGXFSZ};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use sage_cli::Host;

/// Runs the command, and returns its exit code. `arguments` begin with its own name; `itself` starts it anew, and
/// `python` is the interpreter for programs that do not say theirs.
#[pyfunction]
pub(crate) fn command(
    py: Python<'_>,
    arguments: Vec<OsString>,
    itself: Vec<OsString>,
    python: PathBuf,
) -> PyResult<u8> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(PyRuntimeError::new_err(format!(
            "the `sage` command runs in a process of its own, and this one has {threads} threads: start it as a \
             program, and without what starts threads in every interpreter"
        )));
    }
    let host = Host { itself, python: Some(python) };
    Ok(py.detach(|| {
        // SIGXFSZ is ignored by the interpreter, and what it starts would inherit that.
        let _dispositions = [SIGINT, SIGXFSZ].map(Usual::of);
        sage_cli::main(arguments, &host)
    }))
}

/// A signal that has its usual effect until this is dropped.
struct Usual {
    signal: i32,
    before: libc::sigaction,
}

impl Usual {
    /// SIGINT stays ignored where it is: a shell has that for what runs in its background.
    fn of(signal: i32) -> Self {
        // SAFETY: all zeros are an action. Nothing is installed, and there is room for what is.
        let before = unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut before);
            before
        };
        if signal != SIGINT || before.sa_sigaction != SIG_IGN {
            // SAFETY: it installs no function.
            unsafe { libc::signal(signal, SIG_DFL) };
        }
        Self { signal, before }
    }
}

impl Drop for Usual {
    fn drop(&mut self) {
        // SAFETY: it is what was installed before.
        unsafe { libc::sigaction(self.signal, &raw const self.before, std::ptr::null_mut()) };
    }
}
