//! Waits of Python code that end at once when their job does: between two attempts of a function, and of a source for
//! its next record.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::create_exception;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use sage::{Cancelling, JobBell, OpenContext, SourceContext};

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

    pub(crate) fn cancelling(&self) -> Cancelling {
        self.0.cancelling()
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

/// Tells waits in ``poll`` that the job asks something else of its tasks.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Bell {
    bell: JobBell,
    cancelling: Cancelling,
}

#[pymethods]
impl Bell {
    /// That of a replica's `pause`.
    #[new]
    fn new(pause: &Pause) -> PyResult<Self> {
        let cancelling = pause.cancelling();
        Ok(Self { bell: cancelling.bell()?, cancelling })
    }

    /// The descriptor, which is readable then.
    fn fileno(&self) -> i32 {
        self.bell.as_fd().as_raw_fd()
    }

    /// Takes note of it; says whether the job is being cancelled.
    fn heed(&self) -> bool {
        self.bell.silence();
        self.cancelling.has_begun()
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

    /// Ends a wait without a number of seconds, or one of `here`.
    fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        lock(&self.waiting).iter().for_each(Thread::unpark);
    }

    /// Waits on the calling thread, in the midst of a function of a job. Says whether the whole time has passed; if
    /// not, another thread has ended the wait, nothing more is wanted of the source that waits, or the job is
    /// cancelled. `None`, without a wait, if the thread runs no task.
    fn here(&self, py: Python<'_>) -> Option<bool> {
        with_source(|source| match source {
            Some(source) => Some(self.park(py, || source.is_ending())),
            None => HERE.with_borrow(Option::clone).map(|task| self.park(py, || task.has_begun())),
        })
    }
}

impl Wait {
    /// Parks the calling thread, which whatever makes `is_ending` true unparks. Says whether the whole time has passed.
    fn park(&self, py: Python<'_>, is_ending: impl Fn() -> bool + Sync) -> bool {
        let until = Instant::now() + self.seconds.unwrap_or(LONGEST).min(LONGEST);
        *lock(&self.waiting) = Some(thread::current());
        py.detach(|| {
            while !self.is_ended.load(Ordering::Acquire) && !is_ending() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return true;
                }
                thread::park_timeout(left);
            }
            false
        })
    }
}

/// Whether the job whose functions the calling thread calls is being cancelled; not so on a thread that calls none.
#[pyfunction]
pub(crate) fn is_cancelled_here() -> bool {
    with_source(|source| source.is_some_and(SourceContext::is_cancelled))
        || HERE.with_borrow(|task| task.as_ref().is_some_and(Cancelling::has_begun))
}

/// Waits for so many seconds, or for ever, in the midst of a source that can say that it has no record just now; or
/// until a descriptor can be read, or written. Says whether that, or the whole time, has come; if not, the engine has
/// something to do first. `None`, without a wait, if the engine does not ask a source on this thread.
#[pyfunction]
#[pyo3(signature = (seconds=None, descriptor=None, is_writable=false))]
pub(crate) fn wait_in_source(
    py: Python<'_>,
    seconds: Option<Seconds>,
    descriptor: Option<RawFd>,
    is_writable: bool,
) -> PyResult<Option<bool>> {
    let limit = seconds.map_or(LONGEST, |seconds| seconds.0.min(LONGEST));
    with_source(|source| {
        let Some(source) = source else { return Ok(None) };
        let waited = py.detach(|| match descriptor {
            None => Ok(source.wait(limit)),
            Some(descriptor) => {
                // SAFETY: the caller has it open. If another thread closes it, the wait is for whatever has its number.
                let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
                if is_writable {
                    source.wait_writable(descriptor, limit)
                } else {
                    source.wait_readable(descriptor, limit)
                }
            }
        });
        Ok(Some(waited?))
    })
}

thread_local! {
    /// The context of the source that the engine asks for a record on this thread just now; null if it asks none.
    static ASKING: Cell<*const SourceContext> = const { Cell::new(ptr::null()) };
    /// The job whose functions this thread calls.
    static HERE: RefCell<Option<Cancelling>> = const { RefCell::new(None) };
}

/// The calling thread calls the functions of this job's task, until it ends.
pub(crate) fn enter(cx: &OpenContext) {
    HERE.set(Some(cx.cancelling()));
}

/// Asks a source for records. Waits in the midst of that are the source's.
pub(crate) fn ask<R>(cx: &SourceContext, ask: impl FnOnce() -> R) -> R {
    struct Asked(*const SourceContext);
    impl Drop for Asked {
        fn drop(&mut self) {
            ASKING.set(self.0);
        }
    }
    let _asked = Asked(ASKING.replace(cx));
    ask()
}

/// Does something with the source that the engine asks for a record on this thread.
fn with_source<R>(act: impl FnOnce(Option<&SourceContext>) -> R) -> R {
    // SAFETY: it is set as long as `ask` runs, which has the reference and has called whoever calls this.
    act(unsafe { ASKING.get().as_ref() })
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
    /// What makes `is_cut_off` true, and unparks the thread, cuts off a wait without a number of seconds.
    pub(crate) fn is_over(&self, cx: &SourceContext, is_cut_off: impl Fn() -> bool) -> bool {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            return left.is_zero() || cx.wait(left);
        }
        let wait = self.wait.get();
        *lock(&wait.waiting) = Some(thread::current());
        cx.wait_until(|| wait.is_ended.load(Ordering::Acquire) || is_cut_off());
        wait.is_ended.load(Ordering::Acquire)
    }
}

/// A hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
