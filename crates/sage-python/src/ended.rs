//! How a job ended.

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use sage::{AsyncError, Cause, CauseKind, JobError, JobReport, RunError};

use crate::error::Raised;
use crate::history::History;
use crate::rows::Rows;

/// What a job came to.
#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) report: Option<JobReport>,
    /// Why it did not succeed, in the words of the engine.
    pub(crate) error: Option<String>,
    /// The changes of state on the way.
    pub(crate) history: Option<History>,
}

impl Ended {
    /// `uncommitted` is why the offsets of a job that has succeeded could not be committed.
    pub(crate) fn of(
        py: Python<'_>,
        result: Result<JobReport, RunError>,
        uncommitted: Option<String>,
        rows: &Rows,
        history: History,
    ) -> Self {
        let history = Some(history);
        match result {
            Ok(mut report) => {
                rows.tell(py, &mut report);
                Self { report: Some(report), error: uncommitted, history }
            }
            Err(mut error) => {
                let mut report = None;
                if let RunError::Job(error) = &mut error {
                    rows.tell(py, &mut error.report);
                    report = Some(error.report.clone());
                }
                let mut words = error.to_string();
                if let Some(report) = &report {
                    add_causes(&mut words, report);
                }
                Self { report, error: Some(words), history }
            }
        }
    }

    /// The exception that was the first cause.
    pub(crate) fn exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let cause = self.report.as_ref()?.first_cause.as_ref()?;
        // What the engine adds, such as the number of attempts, is before it.
        let first: &(dyn std::error::Error + 'static) = cause.error.as_deref()?;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        let exception = causes.find_map(|error| match error.downcast_ref::<Raised>() {
            Some(raised) => Some(raised.exception.clone_ref(py)),
            None => error.is::<AsyncError>().then(|| PyTimeoutError::new_err(error.to_string())),
        })?;
        Some(exception.into_value(py).into_any())
    }
}

/// Adds to the words of an error what they do not say of the report's causes.
fn add_causes(words: &mut String, report: &JobReport) {
    let is_untold = |cause: &&Cause| cause.kind != CauseKind::Stopped && !words.contains(&cause.message);
    let untold = report.first_cause.iter().filter(is_untold);
    let untold: Vec<_> = untold.map(|cause| format!(": {}", cause.message)).collect();
    words.extend(untold);
    // What is stuck, and where.
    let stuck = report.attached.iter().filter(|cause| cause.kind == CauseKind::Timeout);
    words.extend(stuck.map(|cause| format!("\n{cause}")));
}

/// The report of another process's job, from its JSON: in words, and why the job did not succeed, if it did not.
#[pyfunction]
pub(crate) fn read_report(json: &str) -> PyResult<(String, Option<String>)> {
    let report: JobReport = serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let (text, is_success) = (report.to_string(), report.is_success());
    if is_success {
        return Ok((text, None));
    }
    let failed = JobError { report };
    let mut words = failed.to_string();
    add_causes(&mut words, &failed.report);
    Ok((text, Some(words)))
}
