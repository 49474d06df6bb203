//! From the plan that the Python package makes of a pipeline to a job.

use std::os::unix::thread::RawPthread;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use sage::{DataStream, Environment, Pipe, SignalPolicy, Stream};

use crate::Object;
use crate::chain::{Chain, Into, Through};
use crate::error::SubmitError;
use crate::job::{Job, check_process};
use crate::service::{Handle, PythonService};
use crate::source::Iterated;
use crate::thread::attach;
use crate::workers::Workers;

/// One step of the plan. `inputs` are the positions of the steps before it.
#[derive(FromPyObject)]
struct Step {
    #[pyo3(attribute)]
    kind: String,
    #[pyo3(attribute)]
    name: String,
    #[pyo3(attribute)]
    inputs: Vec<usize>,
    #[pyo3(attribute)]
    make: Py<PyAny>,
    #[pyo3(attribute)]
    parallelism: usize,
    /// How records are spread over the replicas: `hash` of the key before it, `broadcast`, or `round_robin`.
    #[pyo3(attribute)]
    strategy: String,
    /// Whether it ends in a `keyby`.
    #[pyo3(attribute)]
    keyed: bool,
    /// How many steps follow.
    #[pyo3(attribute)]
    outputs: usize,
}

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

/// Starts a job. `bind` is given the handles of the services, by name, before anything runs.
///
/// `is_on_main` says whether the interpreter's main thread is the one that submits: its handlers end the program at a signal.
/// `where_stuck` is asked for the stack of a thread that missed a deadline.
#[expect(clippy::too_many_arguments, reason = "the package calls it, in one place, with names")]
#[pyfunction]
#[pyo3(signature = (name, steps, services, bind, *, is_on_main, timeouts, where_stuck))]
pub(crate) fn start(
    py: Python<'_>,
    name: String,
    steps: &Bound<'_, PyList>,
    services: &Bound<'_, PyList>,
    bind: &Bound<'_, PyAny>,
    is_on_main: bool,
    timeouts: &Bound<'_, PyDict>,
    where_stuck: Py<PyAny>,
) -> PyResult<Job> {
    check_process()?;
    let mut env = Environment::local(name);
    env = env.signals(if is_on_main { SignalPolicy::Drain } else { SignalPolicy::Defer });
    env = env.where_stuck(move |thread| stack_of(&where_stuck, thread));
    env = env.deadlines(deadlines(timeouts)?);
    let handles = PyDict::new(py);
    let workers = Workers::new();
    for service in services.iter() {
        let Registration { name, factory, after } = service.extract()?;
        let made_for = workers.clone();
        let mut builder = env.register_service_with(name.clone(), move |_cx| PythonService::make(&factory, &made_for));
        for dependency in after {
            builder = builder.after(dependency.as_str());
        }
        handles.set_item(name.clone(), Handle::new(name, builder.build(), workers.clone()))?;
    }
    bind.call1((handles,))?;
    declare(&env, steps)?;
    let job = py.detach(|| env.submit()).map_err(|error| SubmitError::new_err(error.to_string()))?;
    Ok(Job::new(env, job))
}

fn stack_of(where_stuck: &Py<PyAny>, thread: RawPthread) -> Option<String> {
    // The number of a thread in Python's module `threading` is the same.
    attach(|py| where_stuck.call1(py, (thread,)).ok()?.extract(py).ok()?)
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

/// What a step reads.
enum Input {
    /// A container that nothing else reads: it is read in the task of the step, as two threads that need the interpreter would
    /// only wait for each other.
    Container { name: String, make: Py<PyAny> },
    /// The records of a task.
    Stream(DataStream<Object>),
}

impl Input {
    fn stream(self, env: &Environment) -> DataStream<Object> {
        match self {
            Self::Container { name, make } => container(env, name, make).boxed(),
            Self::Stream(stream) => stream,
        }
    }
}

fn container(env: &Environment, name: String, make: Py<PyAny>) -> Stream<impl Pipe<Out = Object> + use<>> {
    env.from_source(move |_replica| Iterated::all_there(copy(&make))).named(name)
}

/// A source that may wait for its next record has a task of its own: so what came before goes on meanwhile.
fn source(env: &Environment, name: String, make: Py<PyAny>) -> DataStream<Object> {
    env.from_source(move |_replica| Iterated::one_by_one(copy(&make))).named(name).boxed()
}

fn copy(make: &Py<PyAny>) -> Py<PyAny> {
    attach(|py| make.clone_ref(py))
}

/// Adds a step behind a stream; gives the stream behind it, if there is one.
fn follow<P: Pipe<Out = Object>>(stream: Stream<P>, step: Step) -> PyResult<Option<DataStream<Object>>> {
    match &*step.strategy {
        "hash" => {
            let choose = |object: &Object, replicas: usize| (object.hash % replicas as u64) as usize;
            spread(stream.partition_by(step.parallelism, choose), step)
        }
        "broadcast" => spread(stream.broadcast(step.parallelism), step),
        _ => add(stream, step),
    }
}

/// Adds a step that runs in as many replicas as its stream has.
fn spread(stream: DataStream<Object>, step: Step) -> PyResult<Option<DataStream<Object>>> {
    let Step { kind, name, make, keyed, .. } = step;
    if kind == "sink" {
        stream.sink_to(move |_replica| Into(Chain::new(copy(&make), false))).named(name);
        return Ok(None);
    }
    Ok(Some(stream.operator(move || Through(Chain::new(copy(&make), keyed))).named(name).boxed()))
}

fn add<P: Pipe<Out = Object>>(stream: Stream<P>, step: Step) -> PyResult<Option<DataStream<Object>>> {
    let Step { kind, name, make, parallelism, keyed, .. } = step;
    match &*kind {
        "chain" => {
            let operator = stream.operator(move || Through(Chain::new(copy(&make), keyed)));
            Ok(Some(operator.named(name).parallelism(parallelism).boxed()))
        }
        "sink" => {
            let sink = stream.sink_to(move |_replica| Into(Chain::new(copy(&make), false)));
            sink.named(name).parallelism(parallelism);
            Ok(None)
        }
        kind => Err(SubmitError::new_err(format!("a step of kind `{kind}` cannot be here"))),
    }
}

fn declare(env: &Environment, steps: &Bound<'_, PyList>) -> PyResult<()> {
    // What leads out of each step, once for each step that follows.
    let mut outputs: Vec<Vec<Input>> = Vec::new();
    for step in steps.iter() {
        let step: Step = step.extract()?;
        let count = step.outputs;
        let mut inputs: Vec<Input> =
            step.inputs.iter().filter_map(|input| outputs.get_mut(*input).and_then(Vec::pop)).collect();
        let after = match (inputs.pop(), inputs.is_empty()) {
            (None, _) if step.kind == "container" && count == 1 => {
                outputs.push(vec![Input::Container { name: step.name, make: step.make }]);
                continue;
            }
            (None, _) if step.kind == "container" => Some(container(env, step.name, step.make).boxed()),
            (None, _) => Some(source(env, step.name, step.make)),
            (Some(Input::Container { name, make }), true) => follow(container(env, name, make), step)?,
            (Some(last), _) => {
                let first = last.stream(env);
                let all = inputs.into_iter().fold(first, |all, next| all.union(next.stream(env)).boxed());
                follow(all, step)?
            }
        };
        outputs.push(after.map_or_else(Vec::new, |stream| fork(stream, count)));
    }
    Ok(())
}

/// Gives every step that follows all records.
fn fork(stream: DataStream<Object>, count: usize) -> Vec<Input> {
    let mut outputs = Vec::new();
    let mut rest = stream;
    for _ in 1..count {
        let [one, other] = rest.fork();
        outputs.push(Input::Stream(one));
        rest = other;
    }
    outputs.push(Input::Stream(rest));
    outputs
}
