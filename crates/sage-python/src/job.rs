//! A job, as the Python package sees it.
//!
//! A job that is not over belongs to the process that started it: a forked one has none of its threads. There its
//! methods raise, and it is never dropped, as dropping waits for those threads.
//!
//! When one is over, the main thread is asked to see whether it may put back its handler of SIGTERM, which no other
//! can.

use std::ffi::{c_int, c_void};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use sage::{Environment, JobHandle, JobReport, RunError};
use sage_api::Reporting;

use crate::ended::Ended;
use crate::heed;
use crate::history::{self, History, Told};
use crate::kafka::Offsets;
use crate::metrics::Metrics;
use crate::rows::Rows;
use crate::thread::{self, Scope, attach, lock};
use crate::workers::Workers;

/// A job that was started.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Job {
    id: String,
    process: u32,
    /// Whether the first SIGINT or SIGTERM is a drain that ends in success.
    finishes: bool,
    is_left: AtomicBool,
    rows: Rows,
    workers: Arc<Workers>,
    scope: Arc<Scope>,
    phase: Mutex<Phase>,
}

enum Phase {
    Live(Arc<Live>),
    Ended(Box<Ended>),
}

/// What is held until the job is over, and then let go: it refers to the program's functions, and they may refer to the
/// job, which the interpreter's collector cannot see.
struct Live {
    _env: Environment,
    handle: JobHandle,
    /// Committed when it is known that the job has succeeded.
    offsets: Offsets,
    /// Of a program that runs under a reaper, which is told of the end: by one of those who wait for it, and the others
    /// wait for that. Dropped after the handle, as it waits for the job's end.
    reporting: Mutex<Option<Reporting>>,
}

impl Live {
    /// Tells the reaper of the end; nothing of that is left then.
    fn tell(&self, report: Option<&JobReport>) {
        let mut reporting = lock(&self.reporting);
        if let Some(reporting) = reporting.take() {
            reporting.ended(report);
        }
    }
}

impl Job {
    pub(crate) fn new(
        env: Environment,
        (handle, reporting): (JobHandle, Option<Reporting>),
        rows: Rows,
        offsets: Offsets,
        workers: Arc<Workers>,
        finishes: bool,
        scope: Arc<Scope>,
    ) -> Self {
        let id = handle.id().to_owned();
        let waker = Waker::from(Arc::new(LeaveSignals));
        if pin!(handle.wait_async()).poll(&mut Context::from_waker(&waker)).is_ready() {
            waker.wake();
        }
        let live = Live { _env: env, handle, offsets, reporting: Mutex::new(reporting) };
        Self {
            id,
            process: std::process::id(),
            finishes,
            is_left: AtomicBool::new(false),
            rows,
            workers,
            scope,
            phase: Mutex::new(Phase::Live(Arc::new(live))),
        }
    }

    /// `None` if it was waited for.
    fn live(&self) -> PyResult<Option<Arc<Live>>> {
        match &*lock(&self.phase) {
            Phase::Live(_) if self.process != std::process::id() => Err(forked("this job belongs to the process that")),
            Phase::Live(live) => Ok(Some(live.clone())),
            Phase::Ended(_) => Ok(None),
        }
    }

    fn command(&self, py: Python<'_>, command: impl FnOnce(&JobHandle) + Send) -> PyResult<()> {
        if let Some(live) = self.live()? {
            py.detach(|| command(&live.handle));
        }
        Ok(())
    }

    fn with<R>(&self, look: impl FnOnce(&Ended) -> Option<R>) -> Option<R> {
        match &*lock(&self.phase) {
            Phase::Ended(ended) => look(ended),
            Phase::Live(_) => None,
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let phase = self.phase.get_mut().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(phase, Phase::Ended(Box::default())) {
            Phase::Ended(_) => {}
            Phase::Live(live) if self.process != std::process::id() => std::mem::forget(live),
            // The thread is attached, and the job's tasks may need the interpreter to end.
            Phase::Live(live) => Python::attach(|py| {
                py.detach(|| {
                    drop(live);
                    self.scope.cutter.close();
                });
            }),
        }
    }
}

fn forked(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "{what} this one was forked from, whose threads are not here. Start processes that use jobs with the method \
         `spawn`, for example by `multiprocessing.get_context(\"spawn\")`"
    ))
}

/// Raises where no job can be started.
pub(crate) fn check_process() -> PyResult<()> {
    /// The process that started the first job; zero before that.
    static FIRST: AtomicU32 = AtomicU32::new(0);
    if thread::is_ending() {
        return Err(PyRuntimeError::new_err("the interpreter is ending; no job can be started any more"));
    }
    let process = std::process::id();
    match FIRST.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed) {
        Err(first) if first != process => Err(forked("jobs were run in the process that")),
        _ => Ok(()),
    }
}

/// What is called when a job is over.
struct OnEnd(Mutex<Option<Py<PyAny>>>);

impl OnEnd {
    fn call(&self) {
        let callback = lock(&self.0).take();
        let Some(callback) = callback else { return };
        attach(|py| {
            if let Err(exception) = callback.call0(py) {
                exception.write_unraisable(py, Some(callback.bind(py)));
            }
            drop(callback);
        });
    }
}

impl Wake for OnEnd {
    fn wake(self: Arc<Self>) {
        self.call();
    }
}

/// Asks the main thread to put back its handler of SIGTERM.
struct LeaveSignals;

impl Wake for LeaveSignals {
    fn wake(self: Arc<Self>) {
        // Refused where so many others wait that the main thread is not to be relied on: then it is done when that next
        // waits for a job, or starts one.
        // SAFETY: the function may be called by any thread, and the one that it is given fits.
        unsafe { ffi::Py_AddPendingCall(Some(leave_signals), std::ptr::null_mut()) };
    }
}

extern "C" fn leave_signals(_: *mut c_void) -> c_int {
    static LEAVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // SAFETY: the interpreter calls this, on its main thread, which is attached.
    let py = unsafe { Python::assume_attached() };
    match LEAVE.import(py, "sage._running", "leave_signals").and_then(|leave| leave.call0()) {
        Ok(_) => 0,
        // A handler of the program's, which ran meanwhile, has raised it.
        Err(error) => {
            error.restore(py);
            -1
        }
    }
}

/// The job that a thread works for, which that thread cannot wait for.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct WorksFor(sage::WorksFor);

#[pymethods]
impl WorksFor {
    /// That of the calling thread.
    #[staticmethod]
    fn here() -> Option<Self> {
        sage::WorksFor::here().map(Self)
    }

    /// The calling thread works for it as well.
    fn enter(&self) {
        self.0.enter();
    }
}

#[pymethods]
impl Job {
    /// The job's id.
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    /// Waits until the job is over, or for `timeout` seconds; says whether it is.
    ///
    /// `told` is given by the main thread alone: the handlers of signals run while it waits, and if one raises, the job
    /// is cancelled and the exception raised when it is over. It is called when SIGINT or SIGTERM has come. `before` is
    /// what a handler raised before the wait, since the job was started.
    #[pyo3(signature = (timeout=None, told=None, before=None))]
    fn wait(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        told: Option<&Bound<'_, PyAny>>,
        before: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let timeout = timeout.map(Duration::try_from_secs_f64).transpose();
        let timeout = timeout.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let Some(live) = self.live()? else { return Ok(true) };
        let before = before.map(PyErr::from_value);
        let (ended, raised) = match (told, timeout) {
            (Some(told), _) => heed::wait(py, &live.handle, timeout, self.finishes, told, before, |handle| {
                handle.cancel();
                self.workers.cancel();
            }),
            (None, None) => (Some(py.detach(|| live.handle.wait())), before),
            (None, Some(timeout)) => (py.detach(|| live.handle.wait_timeout(timeout)), before),
        };
        if let Some(Err(error @ RunError::WaitsForItself { .. })) = &ended {
            return Err(PyRuntimeError::new_err(error.to_string()));
        }
        let is_over = ended.is_some();
        if let Some(result) = ended {
            py.detach(|| self.scope.cutter.close());
            let committed = if result.is_ok() { py.detach(|| live.offsets.commit()) } else { Ok(()) };
            let uncommitted = committed.err().map(|error| format!("job `{}` has succeeded, but {error}", self.id));
            let history = History::of(&live.handle);
            let ended = Ended::of(py, result, uncommitted, &self.rows, history);
            py.detach(|| {
                live.tell(ended.report.as_ref());
                drop(live);
            });
            // Not dropped while it is locked: the program's objects may look at the job when they are released.
            let before = std::mem::replace(&mut *lock(&self.phase), Phase::Ended(Box::new(ended)));
            drop(before);
        }
        if raised.is_some() && !is_over {
            self.is_left.store(true, Ordering::Relaxed);
        }
        raised.map_or(Ok(is_over), Err)
    }

    /// Whether what a handler raised has ended a wait before the job was over.
    #[getter]
    fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }

    /// Whether it is over, and was waited for.
    #[getter]
    fn is_over(&self) -> bool {
        matches!(&*lock(&self.phase), Phase::Ended(_))
    }

    /// Ends the sources; what is in flight is finished.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        self.command(py, |job| job.drain())
    }

    /// Ends everything; what is in flight is dropped.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.command(py, |handle| {
            handle.cancel();
            self.workers.cancel();
        })
    }

    /// Has the sources wait.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.command(py, |job| job.pause())
    }

    /// Has them go on.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.command(py, |job| job.resume())
    }

    /// Has `callback` called when the job is over, on a thread of the engine, or at once if it is over.
    fn on_end(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let on_end = Arc::new(OnEnd(Mutex::new(Some(callback))));
        let live = self.live()?;
        py.detach(|| {
            let waker = Waker::from(on_end.clone());
            let is_over = live.is_none_or(|live| {
                let end = pin!(live.handle.wait_async());
                end.poll(&mut Context::from_waker(&waker)).is_ready()
            });
            if is_over {
                on_end.call();
            }
        });
        Ok(())
    }

    /// The job's state, in one word.
    #[getter]
    fn state(&self) -> PyResult<String> {
        let live = self.live()?;
        Ok(live.map_or_else(|| "ended".to_owned(), |live| format!("{:?}", live.handle.status()).to_lowercase()))
    }

    /// What has become of the job, its tasks and its services so far: see `History`.
    fn history(&self) -> PyResult<Vec<Told>> {
        let history = match self.live()? {
            Some(live) => Some(History::of(&live.handle)),
            None => self.with(|ended| ended.history.clone()),
        };
        Ok(history.map_or_else(Vec::new, History::told))
    }

    /// What it has done so far and is doing, as JSON: see `Metrics`. ``None`` once the job was waited for.
    fn metrics_json(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let Some(live) = self.live()? else { return Ok(None) };
        Ok(py.detach(|| serde_json::to_string(&Metrics::of(&self.rows, &live.handle)).ok()))
    }

    /// How many records have been read and are not finished; none once the job was waited for.
    fn unfinished(&self) -> PyResult<u64> {
        Ok(self.live()?.map_or(0, |live| Metrics::of(&self.rows, &live.handle).unfinished()))
    }

    /// When it was over, in seconds since 1970, once the job was waited for.
    #[getter]
    fn ended_at(&self) -> Option<f64> {
        self.with(|ended| ended.report.as_ref().map(|report| history::seconds(report.started + report.elapsed)))
    }

    /// The report as JSON, once the job was waited for.
    #[getter]
    fn report_json(&self) -> Option<String> {
        self.with(|ended| serde_json::to_string(ended.report.as_ref()?).ok())
    }

    /// The report in words.
    #[getter]
    fn report_text(&self) -> Option<String> {
        self.with(|ended| ended.report.as_ref().map(ToString::to_string))
    }

    /// Why the job did not succeed, in words; `None` if it did, or is not over.
    #[getter]
    fn error(&self) -> Option<String> {
        self.with(|ended| ended.error.clone())
    }

    /// The exception that was the first cause.
    #[getter]
    fn exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.with(|ended| ended.exception(py))
    }

    /// The signal that ended the job.
    #[getter]
    fn signal(&self) -> Option<i32> {
        self.with(|ended| ended.report.as_ref()?.signal())
    }
}
