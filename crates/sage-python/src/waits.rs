//! Waits of Python code that end at once when their job does: between two attempts of a function, and of a source for
//! its next record.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::create_exception;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use sage::{OpenContext, SourceContext};

use crate::spec::Seconds;
use crate::thread::lock;

create_exception!(sage._sage, Cancelled, PyBaseException, "The job is being cancelled.");

/// The wait between two attempts of a function, on its task's thread.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Pause(OpenContext);

impl Pause {
    pub(crate) fn of(cx: &OpenContext) -> Self {
        Self(cx.clone())
    }
}

#[pymethods]
impl Pause {
    /// Waits; says whether the whole time has passed. If not, the job is drained, and the next attempt is to be the
    /// last. Raises `Cancelled`.
    fn __call__(&self, py: Python<'_>, seconds: Seconds) -> PyResult<bool> {
        py.detach(|| self.0.pause(seconds.0)).map_err(|_| Cancelled::new_err("the job is being cancelled"))
    }
}

/// What an iterator gives that has no record for so many seconds; without a number, until another thread ends the wait.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Wait {
    seconds: Option<Duration>,
    is_ended: AtomicBool,
    /// The source's thread, while it waits.
    waiting: Mutex<Option<Thread>>,
}

/// How long an iterator that has nothing just now is left in peace.
const MOMENT: Duration = Duration::from_millis(1);

impl Wait {
    /// What it gives then.
    pub(crate) fn a_moment() -> Self {
        Self { seconds: Some(MOMENT), is_ended: AtomicBool::new(false), waiting: Mutex::new(None) }
    }
}

#[pymethods]
impl Wait {
    #[new]
    #[pyo3(signature = (seconds=None))]
    fn new(seconds: Option<Seconds>) -> Self {
        let seconds = seconds.map(|seconds| seconds.0);
        Self { seconds, is_ended: AtomicBool::new(false), waiting: Mutex::new(None) }
    }

    /// Ends a wait without a number of seconds.
    fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        lock(&self.waiting).iter().for_each(Thread::unpark);
    }
}

/// A source's wait that has begun.
pub(crate) struct Waiting {
    wait: Py<Wait>,
    until: Option<Instant>,
}

impl Waiting {
    pub(crate) fn begin(wait: Py<Wait>) -> Self {
        // What is longer than a clock can count ends with the job.
        let until = wait.get().seconds.map(|seconds| Instant::now() + seconds.min(LONGEST));
        Self { wait, until }
    }

    /// Goes on with the wait; says whether it is over. If not, the engine has something else to do first.
    pub(crate) fn is_over(&self, cx: &SourceContext) -> bool {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            return left.is_zero() || cx.wait(left);
        }
        let wait = self.wait.get();
        *lock(&wait.waiting) = Some(thread::current());
        cx.wait_until(|| wait.is_ended.load(Ordering::Acquire));
        wait.is_ended.load(Ordering::Acquire)
    }
}

/// A hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
