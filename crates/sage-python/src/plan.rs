//! From the plan that the Python package makes of a pipeline to a job.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use sage::{Environment, SignalPolicy};

use crate::error::SubmitError;
use crate::job::Job;
use crate::kafka::Offsets;
use crate::service::{Handle, PythonService};
use crate::steps::declare;

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
    let offsets = Offsets::new();
    declare(&env, steps, &offsets)?;
    let job = py.detach(|| env.submit()).map_err(|error| SubmitError::new_err(error.to_string()))?;
    Ok(Job::new(env, job, offsets))
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
