//! A job, as the Python package sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use sage::{AsyncError, Environment, JobHandle, JobReport, RunError};

use crate::error::Raised;
use crate::kafka::Offsets;

/// A job that was started.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Job {
    id: String,
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
}

/// What a job came to.
struct Ended {
    report: Option<JobReport>,
    /// Why it is no success, in the words of the engine.
    error: Option<String>,
}

impl Job {
    pub(crate) fn new(env: Environment, handle: JobHandle, offsets: Offsets) -> Self {
        let id = handle.id().to_owned();
        Self { id, phase: Mutex::new(Phase::Live(Arc::new(Live { _env: env, handle, offsets }))) }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Option<Arc<Live>> {
        match &*self.phase() {
            Phase::Live(live) => Some(live.clone()),
            Phase::Ended(_) => None,
        }
    }

    /// `uncommitted` is why the offsets of a job that has succeeded could not be committed.
    fn end(&self, result: Result<JobReport, RunError>, uncommitted: Option<String>) {
        let ended = match result {
            Ok(report) => Ended { report: Some(report), error: uncommitted },
            Err(error) => {
                let cause = error.report().and_then(|report| report.first_cause.as_ref());
                let why = cause.map_or_else(String::new, |cause| format!(": {}", cause.message));
                Ended { report: error.report().cloned(), error: Some(format!("{error}{why}")) }
            }
        };
        // Not dropped while it is locked: the program's objects may look at the job when they are released.
        let before = std::mem::replace(&mut *self.phase(), Phase::Ended(Box::new(ended)));
        drop(before);
    }

    fn with<R>(&self, look: impl FnOnce(&Ended) -> Option<R>) -> Option<R> {
        match &*self.phase() {
            Phase::Ended(ended) => look(ended),
            Phase::Live(_) => None,
        }
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
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let timeout = timeout.map(Duration::try_from_secs_f64).transpose();
        let timeout = timeout.map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
        let Some(live) = self.live() else { return Ok(true) };
        let ended = py.detach(|| {
            let result = match timeout {
                None => live.handle.wait(),
                Some(timeout) => live.handle.wait_timeout(timeout)?,
            };
            let committed = if result.is_ok() { live.offsets.commit() } else { Ok(()) };
            let uncommitted = committed.err().map(|error| format!("job `{}` has succeeded, but {error}", self.id));
            Some((result, uncommitted))
        });
        drop(live);
        let is_over = ended.is_some();
        if let Some((result, uncommitted)) = ended {
            self.end(result, uncommitted);
        }
        Ok(is_over)
    }

    /// Ends the sources; what is in flight is finished.
    fn drain(&self, py: Python<'_>) {
        if let Some(live) = self.live() {
            py.detach(|| live.handle.drain());
        }
    }

    /// Ends everything; what is in flight is dropped.
    fn cancel(&self, py: Python<'_>) {
        if let Some(live) = self.live() {
            py.detach(|| live.handle.cancel());
        }
    }

    /// Has the sources wait.
    fn pause(&self, py: Python<'_>) {
        if let Some(live) = self.live() {
            py.detach(|| live.handle.pause());
        }
    }

    /// Has them go on.
    fn resume(&self, py: Python<'_>) {
        if let Some(live) = self.live() {
            py.detach(|| live.handle.resume());
        }
    }

    /// The job's state, in one word.
    #[getter]
    fn state(&self) -> String {
        self.live().map_or_else(|| "ended".to_owned(), |live| format!("{:?}", live.handle.status()).to_lowercase())
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

    /// Why the job is no success, in words; `None` if it is one, or is not over.
    #[getter]
    fn error(&self) -> Option<String> {
        self.with(|ended| ended.error.clone())
    }

    /// The exception that was the first cause.
    #[getter]
    fn exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.with(|ended| {
            let cause = ended.report.as_ref()?.first_cause.as_ref()?;
            // What the engine adds, such as the number of attempts, is before it.
            let first: &(dyn std::error::Error + 'static) = cause.error.as_deref()?;
            let mut causes = std::iter::successors(Some(first), |error| error.source());
            let exception = causes.find_map(|error| match error.downcast_ref::<Raised>() {
                Some(raised) => Some(raised.exception.clone_ref(py)),
                None => error.is::<AsyncError>().then(|| PyTimeoutError::new_err(error.to_string())),
            })?;
            Some(exception.into_value(py).into_any())
        })
    }

    /// The signal that ended the job.
    #[getter]
    fn signal(&self) -> Option<i32> {
        self.with(|ended| ended.report.as_ref()?.signal())
    }
}
