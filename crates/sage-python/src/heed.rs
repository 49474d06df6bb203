//! Waits on the interpreter's main thread, where the handlers of signals run meanwhile.
//!
//! The interpreter's own handler only notes a signal; that of the program runs when the main thread sees to it. So a
//! wait there is ended by a signal, and goes on when the handlers have run. What they raise is kept until the job is
//! over and clean:
//!
//! - By default it cancels the job.
//! - Not so what the handlers of SIGINT and SIGTERM raise: these signals drain the job, or cancel it, by themselves.
//! - An exception that says no more than that such a signal came is kept only if it had no effect on the job; that of
//!   the third ends the wait at once.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{PyTypeInfo, intern};
use sage::{JobHandle, JobReport, RunError, SignalWatch};

type Ended = Result<JobReport, RunError>;

/// Most jobs are over by then, and no handler has to wait for longer.
const SOON: Duration = Duration::from_millis(1);

/// How often handlers that raise are seen to when the job is over; some send themselves another signal.
const MOST_LAST_LOOKS: usize = 64;

/// The signals that the engine heeds.
const OURS: [i32; 2] = [libc::SIGINT, libc::SIGTERM];

/// Signals that are not for the process as a whole, or that no handler sees.
const NOT_SENT: [i32; 9] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGKILL,
    libc::SIGSTOP,
];

fn handler(py: Python<'_>, signal: i32) -> PyResult<Bound<'_, PyAny>> {
    static GETSIGNAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    GETSIGNAL.import(py, "_signal", "getsignal")?.call1((signal,))
}

/// Has the signals that the program handles end a wait.
pub(crate) fn watch(py: Python<'_>) -> SignalWatch {
    let sent = (1..=64).filter(|signal| !OURS.contains(signal) && !NOT_SENT.contains(signal));
    SignalWatch::new(sent.filter(|signal| handler(py, *signal).is_ok_and(|handler| handler.is_callable())))
}

/// Waits for a job on the main thread, for `timeout` at most: what it came to, and what is to be raised.
///
/// `told` is called when SIGINT or SIGTERM has come, `cancel` when a handler has raised. From then on there is no
/// timeout. `finishes` says whether the job takes the first of these signals for a drain. `before` is what a handler
/// raised before the wait.
pub(crate) fn wait(
    py: Python<'_>,
    handle: &JobHandle,
    timeout: Option<Duration>,
    finishes: bool,
    told: &Bound<'_, PyAny>,
    mut before: Option<PyErr>,
    cancel: impl Fn(&JobHandle) + Sync,
) -> (Option<Ended>, Option<PyErr>) {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let soon = timeout.map_or(SOON, |timeout| timeout.min(SOON));
    let soon = if before.is_some() { Duration::ZERO } else { soon };
    let mut ended = py.detach(|| handle.wait_timeout(soon));
    let mut raised = Raised::default();
    while ended.is_none() {
        // Made again each time, as a handler may install others.
        let watch = watch(py);
        // Asked first: the handler of the third signal has been called by then, so that the look sees to it, and
        // nothing of it is left to be raised later.
        let gave_up = watch.gave_up();
        let is_calm = raised.look(py, &watch, told, before.take());
        if gave_up && let Some(error) = raised.plain.take().or_else(|| raised.other.take()) {
            return (None, Some(error));
        }
        if raised.cancels {
            py.detach(|| cancel(handle));
        }
        let until = if raised.cancels { None } else { until };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = if is_calm { left } else { Some(Duration::ZERO) };
        ended = py.detach(|| handle.wait_watching(&watch, left));
        if ended.is_none() && is_calm && until.is_some_and(|until| until <= Instant::now()) {
            return (None, raised.other);
        }
    }
    let last = SignalWatch::new([]);
    (0..MOST_LAST_LOOKS).take_while(|_| !raised.look(py, &last, told, before.take())).for_each(drop);
    let report = match &ended {
        Some(Ok(report)) => Some(report),
        Some(Err(error)) => error.report(),
        None => None,
    };
    let had_effect = report
        .is_some_and(|report| report.signal().is_some() || (finishes && report.reason == sage::StopReason::Drain));
    let late = raised.plain.filter(|_| !had_effect);
    (ended, raised.other.or(late))
}

/// What handlers have raised.
#[derive(Default)]
struct Raised {
    /// The signals that have come.
    seen: Vec<i32>,
    /// What says no more than that SIGINT or SIGTERM came.
    plain: Option<PyErr>,
    /// The first of all others.
    other: Option<PyErr>,
    /// Whether the job is to be cancelled.
    cancels: bool,
}

impl Raised {
    /// Has the handlers of what has come run; says whether none of them raised.
    fn look(&mut self, py: Python<'_>, watch: &SignalWatch, told: &Bound<'_, PyAny>, before: Option<PyErr>) -> bool {
        let mut errors: Vec<_> = before.into_iter().chain(py.check_signals().err()).collect();
        // After the handlers, none of which runs before its signal is among these.
        let came = watch.came();
        if came.iter().any(|signal| OURS.contains(signal)) {
            errors.extend(told.call0().err());
        }
        self.seen.extend(came);
        let is_calm = errors.is_empty();
        errors.into_iter().for_each(|error| self.add(py, error));
        is_calm
    }

    fn add(&mut self, py: Python<'_>, error: PyErr) {
        let has_come = |signal| self.seen.contains(&signal);
        if is_plain(py, &error) && OURS.iter().any(|signal| has_come(*signal)) {
            self.plain = Some(error);
            return;
        }
        self.cancels |= !OURS.iter().any(|signal| has_come(*signal) && is_by(py, &error, *signal));
        match &self.other {
            None => self.other = Some(error),
            // The first is what is raised; this one is told, too.
            Some(_) => error.write_unraisable(py, None),
        }
    }
}

/// Whether an exception is what the interpreter, or this package, has for SIGINT or SIGTERM.
fn is_plain(py: Python<'_>, error: &PyErr) -> bool {
    static BY_DEFAULT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let is_default =
        || Ok::<_, PyErr>(handler(py, libc::SIGINT)?.is(BY_DEFAULT.import(py, "_signal", "default_int_handler")?));
    let is_interrupt = error.get_type(py).is(PyKeyboardInterrupt::type_object(py)) && is_default().unwrap_or(false);
    is_interrupt || error.value(py).hasattr(intern!(py, "_ends_program")).unwrap_or(false)
}

/// Whether an exception was raised by the handler of a signal.
fn is_by(py: Python<'_>, error: &PyErr, signal: i32) -> bool {
    let look = || -> PyResult<bool> {
        let handler = handler(py, signal)?;
        let function = handler.getattr(intern!(py, "__func__")).unwrap_or(handler);
        let code = function.getattr(intern!(py, "__code__"))?;
        let mut trace = error.traceback(py).map(|trace| trace.into_any());
        while let Some(line) = trace.filter(|line| !line.is_none()) {
            if line.getattr(intern!(py, "tb_frame"))?.getattr(intern!(py, "f_code"))?.is(&code) {
                return Ok(true);
            }
            trace = Some(line.getattr(intern!(py, "tb_next"))?);
        }
        Ok(false)
    };
    look().unwrap_or(false)
}
