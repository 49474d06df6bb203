//! Makes a job from the plan of a pipeline, which the Python package makes.

use std::error::Error;
use std::os::unix::thread::RawPthread;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sage::{Deadlines, Environment, HookContext, SignalPolicy};
use sage_api::Reporter;

use crate::call_policy::{All, PolicyCalls, Seen, Settings, Wakes};
use crate::error::SubmitError;
use crate::job::{Job, check_process};
use crate::kafka::Offsets;
use crate::service::{Handle, PythonService};
use crate::spec::Seconds;
use crate::stacks;
use crate::steps::{Step, declare};
use crate::thread::{Scope, attach};
use crate::workers::Workers;

/// A service to be registered.
#[derive(FromPyObject)]
pub(crate) struct Registration {
    name: String,
    factory: Py<PyAny>,
    after: Vec<String>,
    /// In a process of its own.
    isolated: bool,
    policy: Option<Settings>,
}

/// How a job is run: see `python/sage/_environment.py` for what the fields are.
#[derive(FromPyObject)]
pub(crate) struct Options {
    name: String,
    finishes: bool,
    timeouts: Timeouts,
    most_queued_calls: usize,
    queue_bytes: usize,
    log_dir: Option<PathBuf>,
    where_stuck: Py<PyAny>,
}

#[derive(FromPyObject)]
struct Timeouts {
    setup: Seconds,
    drain: Seconds,
    cancel: Seconds,
    stop: Seconds,
    cleanup: Seconds,
}

/// The least that the engine takes; `threading.stack_size` takes half of it.
const LEAST_STACK_BYTES: usize = 64 << 10;

/// How long after a deadline the process of a service is gone, at most: see `python/sage/_isolated.py`.
const GRACE: Duration = Duration::from_secs(3);

/// Starts a job, and sets it as the attribute `job` of `run`: where it is returned, what a handler of signals raises at
/// that moment would have it dropped. `bind` is given the handles of the services, by name, the job's id and the folder
/// of its log files, before anything runs.
///
/// `is_on_main` says whether the interpreter's main thread is the one that submits: its handlers end the program at a
/// signal.
#[pyfunction]
pub(crate) fn start(
    py: Python<'_>,
    run: &Bound<'_, PyAny>,
    options: Options,
    is_on_main: bool,
    steps: Vec<Step>,
    services: Vec<Registration>,
    bind: &Bound<'_, PyAny>,
) -> PyResult<()> {
    check_process()?;
    let Options { name, finishes, timeouts, most_queued_calls, queue_bytes, log_dir, where_stuck } = options;
    let Timeouts { setup, drain, cancel, stop, cleanup } = timeouts;
    let [setup, drain, cancel, stop, cleanup] = [setup, drain, cancel, stop, cleanup].map(|time| time.0);
    let where_stuck = Arc::new(where_stuck);
    let stuck = where_stuck.clone();
    let mut env = Environment::local(name)
        .queue_bytes(queue_bytes)
        .signals(match (finishes, is_on_main) {
            (false, true) => SignalPolicy::Drain,
            (false, false) => SignalPolicy::Defer,
            (true, true) => SignalPolicy::Finish,
            (true, false) => SignalPolicy::FinishAndDefer,
        })
        .deadlines(Deadlines { setup, drain, cancel, stop, cleanup })
        .where_stuck(move |thread| stack_of(&stuck, thread));
    if let Some(dir) = log_dir {
        env = env.log_files(dir);
    }
    let scope = Scope::new(py)?;
    env = env.stack_bytes(scope.stack_bytes.max(LEAST_STACK_BYTES));
    let around = scope.clone();
    env = env.around_threads(move || around.enter());
    let handles = PyDict::new(py);
    let workers = Workers::new(most_queued_calls, scope.clone());
    let (wakes, with_policies) = (Wakes::new(scope.clone()), All::default());
    for (number, Registration { name, factory, after, isolated, policy }) in services.into_iter().enumerate() {
        let made_for = workers.clone();
        let seen = policy.is_some().then(Arc::<Seen>::default);
        let sees = seen.clone();
        let make = move |cx: &HookContext| PythonService::make(&factory, &made_for, sees.as_ref(), cx);
        let mut builder = env.register_service_with(name.clone(), make);
        let (stuck, its_workers) = (where_stuck.clone(), workers.clone());
        builder = builder.where_calls_stuck(move || stacks_of(&stuck, &its_workers.inside(number)));
        if isolated {
            builder = builder.hooks_end_within(GRACE);
        }
        for dependency in after {
            builder = builder.after(dependency.as_str());
        }
        let handle = match policy.zip(seen) {
            None => Handle::new(name.clone(), number, builder.build(), workers.clone()),
            Some((policy, seen)) => {
                let (service, its_workers) = (builder.policy(policy.policy()).build(), workers.clone());
                let calls = PolicyCalls::new(service, policy, number, its_workers, wakes.clone(), seen, &with_policies);
                Handle::with_policy(name.clone(), number, calls, workers.clone())
            }
        };
        handles.set_item(name, handle)?;
    }
    let offsets = Offsets::new();
    let mut rows = declare(py, &env, steps, &offsets)?;
    rows.nones = Some(run.getattr("nones")?.unbind());
    rows.workers = Some(run.getattr("workers")?.unbind());
    rows.notes = Some(run.getattr("notes")?.unbind());
    rows.restarts = Some(run.getattr("restarts")?.unbind());
    let refused = |error: sage::SubmitError| {
        let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        SubmitError::new_err(format!("{error}{why}"))
    };
    let prepared = py.detach(|| env.prepare()).map_err(refused)?;
    bind.call1((handles, prepared.id(), prepared.log_dir().map(Path::as_os_str)))?;
    let reporter = Reporter::find();
    let view = reporter.as_ref().map(|_| prepared.view());
    let job = py.detach(|| {
        let handle = prepared.start()?;
        // A job that cannot be told of goes on untold.
        let reporting =
            reporter.zip(view).and_then(|(reporter, view)| reporter.begins_with(&view, stacks::threads).ok());
        Ok((handle, reporting))
    });
    let job = job.map_err(refused)?;
    run.setattr("job", Job::new(env, job, rows, offsets, workers, finishes, scope))
}

/// The tasks that a job of these steps will have: the name, the operators, which replica it is, and of how many.
#[pyfunction]
pub(crate) fn tasks(py: Python<'_>, steps: Vec<Step>) -> PyResult<Vec<(String, Vec<String>, usize, usize)>> {
    check_process()?;
    let env = Environment::local("tasks");
    declare(py, &env, steps, &Offsets::new())?;
    let mut graph = env.graph();
    let told = std::mem::take(&mut graph.tasks).into_iter().map(|task| {
        let chain = &graph.chains[task.chain - 1];
        let operators = chain.operators.iter().map(|operator| operator.name.clone()).collect();
        (task.name, operators, task.replica, chain.parallelism)
    });
    Ok(told.collect())
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
