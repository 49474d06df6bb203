//! Methods that answer requests together: see `batched` in `python/sage/_batched.py`.

use std::sync::{Arc, Mutex};

use pyo3::exceptions::{PyBaseException, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use sage::{Batch, Batching, BoxError, Calling, MethodBuilder, PolicyService};
use tokio::sync::oneshot;

use super::answer::{Answer, PythonCodec};
use super::on_loop::Deadline;
use super::on_thread::on_thread;
use super::request::Request;
use super::settings::InBatch;
use super::wakes::Wakes;
use super::{Answered, Means};
use crate::error::{Raised, ServiceError, attempt};
use crate::service::PythonService;
use crate::spec::Seconds;
use crate::thread::{attach, call, lock};

/// How the requests of a method are put together.
#[derive(FromPyObject)]
pub(super) struct Settings {
    size: usize,
    within: Seconds,
    most_cost: Option<u64>,
    /// Says of a request what it costs.
    pub(super) cost: Option<Py<PyAny>>,
}

type Answers = Vec<Result<Answer, BoxError>>;

pub(super) fn declare(
    service: &PolicyService<PythonService>,
    name: &str,
    settings: &Settings,
    means: Arc<Means>,
    is_async: bool,
    codec: Option<PythonCodec>,
) -> MethodBuilder<Request, Answer> {
    let batching = Batching::of(settings.size).within(settings.within.0);
    let batching = settings.most_cost.map_or(batching, |most| batching.cost(most));
    let answer = move |calling, batch| answer(means.clone(), is_async, codec.clone(), calling, batch);
    service.batch_method(name, batching, answer).cost(|request: &Request| request.0.cost)
}

/// Checks the arguments of a call, which has one request. Returns what it costs.
pub(super) fn check(
    py: Python<'_>,
    method: &str,
    cost: Option<&Py<PyAny>>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<u64> {
    if args.len() != 1 || kwargs.is_some_and(|kwargs| !kwargs.is_empty()) {
        let why = format!("`{method}` answers requests together, so a call of it has one argument, and no keywords");
        return Err(PyTypeError::new_err(why));
    }
    cost.map_or(Ok(1), |says| cost_of(says.bind(py), args, None))
}

/// What a call with these arguments costs.
pub(super) fn cost_of(
    says: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<u64> {
    let told = call(says, args, kwargs)?;
    let refused = || PyValueError::new_err(format!("the `cost` of a request is a whole number from 0 on, not {told}"));
    told.extract().map_err(|_| refused())
}

/// What is spent on a call with these arguments.
pub(super) fn price_of(
    says: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<f64> {
    let told = call(says, args, kwargs)?;
    let price = told.extract().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| PyValueError::new_err(format!("the `price` of a request is a number from 0 on, not {told}")))
}

async fn answer(
    means: Arc<Means>,
    is_async: bool,
    codec: Option<PythonCodec>,
    calling: Calling<PythonService>,
    batch: Batch<Request>,
) -> Result<Answers, InBatch> {
    means.serves.store(true, std::sync::atomic::Ordering::Relaxed);
    let calling = Arc::new(calling);
    let answered = if is_async {
        on_job_loop(&means, calling, batch).await
    } else {
        let deadline = Deadline::of(&calling);
        let act = Box::new(move |py: Python<'_>, service: &PythonService| called(py, service, &batch, deadline));
        on_thread(&means.workers, means.number, calling, act).await
    };
    answered.and_then(|answered| attempt(|py| answers(answered.bind(py), codec.as_ref()))).map_err(InBatch)
}

/// The context of the first request, in which a batch is answered.
fn context<'py>(py: Python<'py>, batch: &Batch<Request>) -> PyResult<Bound<'py, PyAny>> {
    let context = batch[0].0.context.as_ref().expect("a request of a batch has its context");
    context.bind(py).call_method0(intern!(py, "copy"))
}

/// The method that takes them all, and what it is given.
fn parts<'py>(
    py: Python<'py>,
    service: &PythonService,
    batch: &Batch<Request>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyList>)> {
    let items = batch.iter().map(|request| request.0.args.bind(py).get_item(0)).collect::<PyResult<Vec<_>>>()?;
    let method = service.method(py, Some(batch[0].0.method.bind(py)))?;
    Ok((method.getattr(intern!(py, "together"))?, PyList::new(py, items)?))
}

fn called(
    py: Python<'_>,
    service: &PythonService,
    batch: &Batch<Request>,
    deadline: Option<Deadline>,
) -> PyResult<Py<PyAny>> {
    let (method, items) = parts(py, service, batch)?;
    let context = context(py, batch)?;
    deadline.map(|deadline| deadline.set(&context)).transpose()?;
    let run = context.getattr(intern!(py, "run"))?;
    Ok(call(&run, &(method, items).into_pyobject(py)?, None)?.unbind())
}

fn answers(answered: &Bound<'_, PyAny>, codec: Option<&PythonCodec>) -> PyResult<Answers> {
    let py = answered.py();
    let one = |answer: PyResult<Bound<'_, PyAny>>| {
        let answer = answer?;
        if answer.is_instance_of::<PyBaseException>() {
            return Ok(Err(InBatch(Raised::new(py, PyErr::from_value(answer))).error()));
        }
        Ok(Ok(Answer::of(py, answer.unbind(), codec)))
    };
    answered.try_iter()?.map(one).collect()
}

/// Has the event loop of the job answer a batch.
async fn on_job_loop(means: &Arc<Means>, calling: Arc<Calling<PythonService>>, batch: Batch<Request>) -> Answered {
    let (sender, receiver) = oneshot::channel();
    let deadline = Deadline::of(&calling);
    let begin = Box::new(move |py: Python<'_>, service: &PythonService| {
        let (method, items) = parts(py, service, &batch)?;
        let context = context(py, &batch)?;
        let told = Told(Mutex::new(Some(sender)));
        let begin = py.import("sage._call_policies")?.getattr("answer_on_loop")?;
        let job_loop = service.job_loop(py)?;
        Ok(begin.call1((job_loop, context, deadline, method, items, told))?.unbind())
    });
    let cancel = on_thread(&means.workers, means.number, calling.clone(), begin).await?;
    let mut left = Left { wakes: &means.wakes, cancel: Some(cancel) };
    let ended = || attach(|py| Raised::new(py, ServiceError::new_err("the event loop of the job has ended")));
    let answered = receiver.await.unwrap_or_else(|_| Err(ended()));
    let over = left.cancel.take();
    drop((over, calling));
    answered
}

/// A batch on the event loop. Dropped before it is answered, it is cancelled.
struct Left<'a> {
    wakes: &'a Wakes,
    cancel: Option<Py<PyAny>>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            self.wakes.push(Box::new(move |py| drop(cancel.call0(py))));
        }
    }
}

/// Is told what the event loop's answer to a batch is.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Told(Mutex<Option<oneshot::Sender<Answered>>>);

#[pymethods]
impl Told {
    fn __call__(&self, py: Python<'_>, is_result: bool, value: Bound<'_, PyAny>) {
        let sender = lock(&self.0).take();
        let answer = if is_result { Ok(value.unbind()) } else { Err(Raised::new(py, PyErr::from_value(value))) };
        drop(sender.map(|sender| sender.send(answer)));
    }
}
