//! From the plan that the Python package makes of a pipeline to a job.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use sage::{DataStream, Environment, SignalPolicy};

use crate::Object;
use crate::chain::{Chain, Into, Through};
use crate::error::SubmitError;
use crate::job::Job;
use crate::service::{Handle, PythonService};
use crate::source::Iterated;

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
#[pyfunction]
#[pyo3(signature = (name, steps, services, bind, *, signals, timeouts))]
pub(crate) fn start(
    py: Python<'_>,
    name: String,
    steps: &Bound<'_, PyList>,
    services: &Bound<'_, PyList>,
    bind: &Bound<'_, PyAny>,
    signals: bool,
    timeouts: &Bound<'_, PyDict>,
) -> PyResult<Job> {
    let mut env = Environment::local(name);
    env = env.signals(if signals { SignalPolicy::Drain } else { SignalPolicy::Off });
    env = env.deadlines(deadlines(timeouts)?);
    let handles = PyDict::new(py);
    for service in services.iter() {
        let Registration { name, factory, after } = service.extract()?;
        let mut builder = env.register_service_with(name.clone(), move |_cx| PythonService::make(&factory));
        for dependency in after {
            builder = builder.after(dependency.as_str());
        }
        handles.set_item(name.clone(), Handle::new(name, builder.build()))?;
    }
    bind.call1((handles,))?;
    declare(&env, steps)?;
    let job = py.detach(|| env.submit()).map_err(|error| SubmitError::new_err(error.to_string()))?;
    Ok(Job::new(env, job))
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

/// The streams that lead out of a step, one for each step that follows.
type Outputs = Vec<DataStream<Object>>;

fn declare(env: &Environment, steps: &Bound<'_, PyList>) -> PyResult<()> {
    let mut outputs: Vec<Outputs> = Vec::new();
    for step in steps.iter() {
        let Step { kind, name, inputs, make, parallelism, outputs: count } = step.extract()?;
        let make_of = move |_replica: usize| Python::attach(|py| make.clone_ref(py));
        let mut before = Vec::new();
        for input in inputs {
            before.extend(outputs.get_mut(input).and_then(Vec::pop));
        }
        let mut before = before.into_iter();
        let input = before.next().map(|first| before.fold(first, |all, next| all.union(next).boxed()));
        let after = match (&*kind, input) {
            ("source", None) => {
                let source = env.from_source(move |replica| Iterated::new(make_of(replica)));
                Some(source.named(name).parallelism(parallelism).boxed())
            }
            ("chain", Some(input)) => {
                let operator = input.operator(move || Through(Chain::new(make_of(0))));
                Some(operator.named(name).parallelism(parallelism).boxed())
            }
            ("sink", Some(input)) => {
                input.sink_to(move |replica| Into(Chain::new(make_of(replica)))).named(name).parallelism(parallelism);
                None
            }
            (kind, _) => return Err(SubmitError::new_err(format!("a step of kind `{kind}` cannot be here"))),
        };
        outputs.push(after.map_or_else(Vec::new, |stream| fork(stream, count)));
    }
    Ok(())
}

/// Gives every step that follows all records.
fn fork(stream: DataStream<Object>, count: usize) -> Outputs {
    let mut outputs = Vec::new();
    let mut rest = stream;
    for _ in 1..count {
        let [one, other] = rest.fork();
        outputs.push(one.boxed());
        rest = other.boxed();
    }
    outputs.push(rest);
    outputs
}
