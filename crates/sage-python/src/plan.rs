//! From the plan that the Python package makes of a pipeline to a job.

use std::os::unix::thread::RawPthread;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use sage::{Environment, SignalPolicy};

use crate::error::SubmitError;
use crate::job::{Job, check_process};
use crate::kafka::Offsets;
use crate::service::{Handle, PythonService};
use crate::steps::declare;
use crate::thread::{Scope, attach};
use crate::workers::Workers;

/// A service to be registered.
#[derive(FromPyObject)]
struct Registration {
    #[pyo3(attribute)]
    name: String,
    #[pyo3(attribute)]
    factory: Py<PyAny>,
    #[pyo3(attribute)]
    after: Vec<String>,
}

/// The least that the engine takes; `threading.stack_size` takes half of it.
const LEAST_STACK_BYTES: usize = 64 << 10;

/// Starts a job, and sets it as the attribute `job` of `run`: where it is returned, what a handler of signals raises at
/// that moment would have it dropped. `bind` is given the handles of the services, by name, before anything runs.
///
/// `is_on_main` says whether the interpreter's main thread is the one that submits: its handlers end the program at a
/// signal. `on_signal`, "drain" or "finish", says what the first SIGINT or SIGTERM does. `most_queued_calls` is how
/// many calls of services may wait for a thread, and `queue_bytes` how many bytes on an edge. `where_stuck` is asked
/// for the stack of a thread that missed a deadline.
#[expect(clippy::too_many_arguments, reason = "the package calls it, in one place, with names")]
#[pyfunction]
#[pyo3(signature = (
    run, name, steps, services, bind, *, is_on_main, on_signal, timeouts, most_queued_calls, queue_bytes, where_stuck,
    log_dir=None
))]
pub(crate) fn start(
    py: Python<'_>,
    run: &Bound<'_, PyAny>,
    name: String,
    steps: &Bound<'_, PyList>,
    services: &Bound<'_, PyList>,
    bind: &Bound<'_, PyAny>,
    is_on_main: bool,
    on_signal: &str,
    timeouts: &Bound<'_, PyDict>,
    most_queued_calls: usize,
    queue_bytes: usize,
    where_stuck: Py<PyAny>,
    log_dir: Option<PathBuf>,
) -> PyResult<()> {
    check_process()?;
    let mut env = Environment::local(name).queue_bytes(queue_bytes);
    let policy = match (on_signal, is_on_main) {
        ("drain", true) => SignalPolicy::Drain,
        ("drain", false) => SignalPolicy::Defer,
        ("finish", true) => SignalPolicy::Finish,
        ("finish", false) => SignalPolicy::FinishAndDefer,
        _ => return Err(SubmitError::new_err(format!("`on_signal` is \"drain\" or \"finish\", not {on_signal:?}"))),
    };
    env = env.signals(policy);
    let where_stuck = Arc::new(where_stuck);
    let stuck = where_stuck.clone();
    env = env.where_stuck(move |thread| stack_of(&stuck, thread));
    env = env.deadlines(deadlines(timeouts)?);
    if let Some(dir) = log_dir {
        env = env.log_files(dir);
    }
    let scope = Scope::new(py)?;
    env = env.stack_bytes(scope.stack_bytes.max(LEAST_STACK_BYTES));
    let around = scope.clone();
    env = env.around_threads(move || around.enter());
    let handles = PyDict::new(py);
    let workers = Workers::new(most_queued_calls, scope.clone());
    for (number, service) in services.iter().enumerate() {
        let Registration { name, factory, after } = service.extract()?;
        let made_for = workers.clone();
        let mut builder = env.register_service_with(name.clone(), move |_cx| PythonService::make(&factory, &made_for));
        let (stuck, its_workers) = (where_stuck.clone(), workers.clone());
        builder = builder.where_calls_stuck(move || stacks_of(&stuck, &its_workers.inside(number)));
        for dependency in after {
            builder = builder.after(dependency.as_str());
        }
        handles.set_item(name.clone(), Handle::new(name, number, builder.build(), workers.clone()))?;
    }
    bind.call1((handles,))?;
    let offsets = Offsets::new();
    declare(&env, steps, &offsets)?;
    let job = py.detach(|| env.submit()).map_err(|error| SubmitError::new_err(error.to_string()))?;
    run.setattr("job", Job::new(env, job, offsets, workers, on_signal == "finish", scope))
}

fn stack_of(where_stuck: &Py<PyAny>, thread: RawPthread) -> Option<String> {
    // The number of a thread in Python's module `threading` is the same.
    attach(|py| where_stuck.call1(py, (thread,)).ok()?.extract(py).ok()?)
}

/// How many stacks are told of calls that are stuck in one service.
const MOST_STACKS: usize = 3;

/// The stacks of the threads that are inside calls of a service.
fn stacks_of(where_stuck: &Py<PyAny>, threads: &[RawPthread]) -> Option<String> {
    let mut stacks: Vec<_> = threads.iter().filter_map(|thread| stack_of(where_stuck, *thread)).collect();
    let all = stacks.len();
    stacks.truncate(MOST_STACKS);
    if all > MOST_STACKS {
        stacks.push(format!("  and {} more", all - MOST_STACKS));
    }
    (all > 0).then(|| stacks.join("\n"))
}

fn deadlines(timeouts: &Bound<'_, PyDict>) -> PyResult<sage::Deadlines> {
    let mut deadlines = sage::Deadlines::default();
    for (name, seconds) in timeouts {
        let seconds = Duration::try_from_secs_f64(seconds.extract()?)
            .map_err(|error| SubmitError::new_err(format!("the timeout `{name}` cannot be: {error}")))?;
        match name.extract::<&str>()? {
            "setup" => deadlines.setup = seconds,
            "drain" => deadlines.drain = seconds,
            "cancel" => deadlines.cancel = seconds,
            "stop" => deadlines.stop = seconds,
            "cleanup" => deadlines.cleanup = seconds,
            other => return Err(SubmitError::new_err(format!("there is no timeout `{other}`"))),
        }
    }
    Ok(deadlines)
}
