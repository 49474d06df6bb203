//! Services with a policy: how calls in Python go through the engine's.
//!
//! A call of a plain method waits on its caller's thread; one of an `async def` method is something to await, on its
//! caller's event loop; one of `call_service_async` is worked on by the job's threads. Each of them polls the same
//! future of the engine's, whose answers are [`on_thread`] or [`on_loop`]: no thread of the engine's own runs Python
//! code.

mod answer;
mod awaitable;
mod batch;
mod errors;
mod keep;
mod late;
mod on_loop;
mod on_thread;
mod request;
mod seen;
mod settings;
mod task;
pub(crate) mod wait;
mod wakes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use sage::{CallError, Calling, Method, PolicyService, ServiceHandle};

use crate::async_call::Call;
use crate::error::{Raised, ServiceError};
use crate::object::Object;
use crate::service::{PythonService, refused};
use crate::thread::{attach, lock};
use crate::workers::Workers;

pub(crate) use awaitable::PolicyCall;
pub(crate) use errors::{ServiceRefused, raised};
pub(crate) use late::Late;
pub(crate) use request::{Asked, Place, Request};
pub(crate) use seen::{Seen, explain, usual_of};
pub(crate) use settings::{ByMethod, Changes, Settings, raised_in};
pub(crate) use wakes::Wakes;

use answer::{Answer, PythonCodec, told};
use keep::Keeping;
use on_thread::Answered;
use request::context_here;

/// What the answers of a service's methods need of it.
pub(crate) struct Means {
    pub(crate) handle: Arc<ServiceHandle<PythonService>>,
    number: usize,
    workers: Arc<Workers>,
    wakes: Arc<Wakes>,
    /// Whether a call has reached the service: from then on, none waits for it to start.
    serves: AtomicBool,
}

/// All services with a policy of a job, by their names.
pub(crate) type All = Arc<Mutex<HashMap<String, Weak<PolicyCalls>>>>;

/// The calls of a service with a policy.
pub(crate) struct PolicyCalls {
    service: PolicyService<PythonService>,
    means: Arc<Means>,
    seen: Arc<Seen>,
    all: All,
    fallback: Vec<String>,
    deadline: Option<Duration>,
    /// Says of the arguments of a call what it costs.
    cost: Option<ByMethod>,
    /// Says of them what is spent on it.
    price: Option<ByMethod>,
    /// Says of an answer what it did cost.
    usage: Option<ByMethod>,
    /// How the answers of these methods are kept.
    keep: HashMap<String, Arc<Keeping>>,
    methods: Mutex<HashMap<String, Arc<Named>>>,
}

/// A method of the service.
struct Named {
    name: String,
    method: Method<Request, Answer>,
    is_async: bool,
    /// Of one that answers requests together, what says how much a request costs.
    batched: Option<Option<Py<PyAny>>>,
    /// Of any other, the same.
    cost: Option<Object>,
    price: Option<Object>,
    keeping: Option<Arc<Keeping>>,
    takes_key: bool,
}

/// What Python tells of a method: see `told_of` in `python/sage/_call_policies.py`.
#[derive(FromPyObject)]
struct ToldOf {
    is_async: bool,
    batching: Option<batch::Settings>,
    takes_key: bool,
    /// Says of an answer what it adds to the figures of the service.
    tally: Option<Object>,
}

impl PolicyCalls {
    pub(crate) fn new(
        service: PolicyService<PythonService>,
        settings: Settings,
        number: usize,
        workers: Arc<Workers>,
        wakes: Arc<Wakes>,
        seen: Arc<Seen>,
        all: &All,
    ) -> Arc<Self> {
        let handle = Arc::new(service.unpoliced().clone());
        let means = Arc::new(Means { handle, number, workers, wakes, serves: AtomicBool::new(false) });
        let Settings { call, fallback, cost, price, usage, keep, .. } = settings;
        let name = service.name().to_owned();
        let made = Arc::new(Self {
            service,
            means,
            seen,
            all: all.clone(),
            fallback,
            deadline: call.deadline.map(|deadline| deadline.0),
            cost,
            price,
            usage,
            keep: keep.into_iter().map(|(name, keeping)| (name, Arc::new(keeping))).collect(),
            methods: Mutex::default(),
        });
        lock(all).insert(name, Arc::downgrade(&made));
        made
    }

    pub(crate) fn service(&self) -> &PolicyService<PythonService> {
        &self.service
    }

    pub(crate) fn handle(&self) -> &Arc<ServiceHandle<PythonService>> {
        &self.means.handle
    }

    /// The job is over.
    pub(crate) fn close(&self) {
        self.means.wakes.close();
        let methods = std::mem::take(&mut *lock(&self.methods));
        drop(methods);
    }

    /// Erases the kept answers that have a tag, and says how many there were.
    pub(crate) fn erase(&self, py: Python<'_>, tag: &str) -> PyResult<u64> {
        let erase = |name: &String| {
            let method = self.named(py, Some(&PyString::new(py, name)))?.1.method.clone();
            py.detach(|| method.erase(tag)).map_err(|error| raised(py, &error, name))
        };
        self.keep.keys().map(erase).sum()
    }

    /// The method of this name, which is declared at its first call.
    fn named(&self, py: Python<'_>, name: Option<&Bound<'_, PyString>>) -> PyResult<(Py<PyString>, Arc<Named>)> {
        let name = match name {
            Some(name) => name.clone(),
            None => PyString::intern(py, self.seen.usual(py, || self.start(py))?),
        };
        let key = name.to_str()?;
        if let Some(named) = lock(&self.methods).get(key) {
            return Ok((name.clone().unbind(), named.clone()));
        }
        let named = Arc::new(self.declared(py, &name)?);
        let named = lock(&self.methods).entry(key.to_owned()).or_insert(named).clone();
        Ok((name.clone().unbind(), named))
    }

    fn declared(&self, py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<Named> {
        static TOLD_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let bound = self.seen.method(py, name, || self.start(py))?;
        let told = TOLD_OF.import(py, "sage._call_policies", "told_of")?.call1((bound,))?;
        let ToldOf { is_async, batching, takes_key, tally } = told.extract()?;
        let means = self.means.clone();
        let key = name.to_str()?.to_owned();
        let keeping = self.keep.get(&key).cloned();
        let codec = keeping.as_ref().map(|keeping| keeping.coded.clone());
        let mut builder = match &batching {
            Some(batching) => batch::declare(&self.service, &key, batching, means, is_async, codec),
            None => self
                .service
                .method(key.clone(), move |calling, request| {
                    answer(means.clone(), is_async, codec.clone(), calling, request)
                })
                .cost(|request: &Request| request.0.cost),
        };
        builder = builder.price(|request| request.0.price);
        let says = |setting: &Option<ByMethod>| setting.as_ref()?.of(&key).cloned();
        if let Some(says) = says(&self.usage) {
            builder = builder.usage(move |answer: &Answer| answer.usage(&says));
        }
        if let Some(says) = tally {
            let late = Py::new(py, Late(self.service.clone()))?;
            builder = builder.tally(move |answer: &Answer| answer.tally(&says, &late));
        }
        if let Some(keeping) = &keeping {
            builder = builder.keep(keeping.keep());
        }
        for other in &self.fallback {
            let other = lock(&self.all).get(other).and_then(Weak::upgrade);
            // One that has no such method is none for this one.
            if let Some(other) = other
                && other.has(py, name)?
            {
                builder = builder.fallback(&other.named(py, Some(name))?.1.method);
            }
        }
        let batched = batching.map(|batching| batching.cost);
        let (method, cost, price) = (builder.build(), says(&self.cost), says(&self.price));
        Ok(Named { name: key, method, is_async, batched, cost, price, keeping, takes_key })
    }

    fn has(&self, py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<bool> {
        self.seen.has(py, name, || self.start(py))
    }

    /// Goes through the gate once, which starts the service for one that is being started.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.means.handle.call(|_| ())).map_err(|error| refused(&error))
    }

    /// The method as a call with these settings has it. `limit` is how long the caller of this one call has.
    fn method(&self, named: &Named, changes: Option<&Changes>, limit: Option<Duration>) -> Method<Request, Answer> {
        if changes.is_none() && limit.is_none() {
            return named.method.clone();
        }
        let own = changes.and_then(|changes| changes.deadline).map(|deadline| deadline.0).or(self.deadline);
        named.method.with_policy(|call| {
            changes.into_iter().for_each(|changes| changes.make(call));
            if let Some(limit) = limit {
                call.deadline(own.map_or(limit, |own| own.min(limit)));
            }
        })
    }

    /// Calls a method: on this thread, or on this thread's event loop where it is an `async def`.
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        name: Option<&Bound<'py, PyString>>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        limit: Option<Duration>,
        changes: Option<&Changes>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (name, named) = self.named(py, name)?;
        let method = self.method(&named, changes, limit);
        let may_block = !self.means.serves.load(Ordering::Relaxed);
        let deadline = on_loop::deadline_here(py)?;
        if !named.is_async {
            let request = asked(py, &name, &named, args, kwargs, Place::Thread, false)?;
            let answered = wait::wait(py, method.call(request), deadline, may_block)?;
            return given(py, answered, &named.name);
        }
        static AWAITED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let begin = Begin {
            parts: Mutex::new(Some((
                name,
                named.clone(),
                method,
                args.clone().unbind(),
                kwargs.map(|k| k.clone().unbind()),
            ))),
            means: self.means.clone(),
        };
        AWAITED.import(py, "sage._call_policies", "awaited")?.call1((&named.name, begin))
    }

    /// Has the job's threads work on a call.
    #[expect(clippy::too_many_arguments, reason = "those of `call`, and what is said when it is late")]
    pub(crate) fn call_async(
        &self,
        py: Python<'_>,
        name: Option<&Bound<'_, PyString>>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        limit: Option<Duration>,
        changes: Option<&Changes>,
        late: impl FnOnce() -> String,
    ) -> PyResult<Arc<Call>> {
        let (name, named) = self.named(py, name)?;
        if named.is_async {
            // As of any service: its result is something to await.
            let awaited = self.call(py, Some(name.bind(py)), args, kwargs, limit, changes)?;
            return Ok(Call::over(self.means.number, Ok(awaited.unbind())));
        }
        let request = asked(py, &name, &named, args, kwargs, Place::Thread, true)?;
        let method = self.method(&named, changes, limit);
        let deadline = on_loop::deadline_here(py)?;
        let call = async move { method.call(request).await };
        task::begin(py, &self.means, Box::pin(call), named.name.clone(), deadline, limit, late)
    }
}

/// A call of an `async def` method that nobody has awaited yet.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Begin {
    #[expect(clippy::type_complexity, reason = "what a call is, until it begins")]
    parts: Mutex<Option<(Py<PyString>, Arc<Named>, Method<Request, Answer>, Py<PyTuple>, Option<Py<PyDict>>)>>,
    means: Arc<Means>,
}

#[pymethods]
impl Begin {
    /// Begins it, on this event loop.
    fn __call__(&self, py: Python<'_>, event_loop: Py<PyAny>) -> PyResult<PolicyCall> {
        let parts = lock(&self.parts).take();
        let (name, named, method, args, kwargs) = parts.expect("a coroutine begins once");
        let kwargs = kwargs.as_ref().map(|kwargs| kwargs.bind(py));
        let place = Place::Loop(event_loop.clone_ref(py));
        let request = asked(py, &name, &named, args.bind(py), kwargs, place, false)?;
        let call = async move {
            let answered = method.call(request).await;
            attach(|py| given(py, answered, &named.name).map(Bound::unbind))
        };
        let may_block = !self.means.serves.load(Ordering::Relaxed);
        let deadline = on_loop::deadline_here(py)?;
        Ok(PolicyCall::new(event_loop, self.means.wakes.clone(), Box::pin(call), deadline, may_block))
    }
}

fn asked(
    py: Python<'_>,
    name: &Py<PyString>,
    named: &Named,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
    place: Place,
    leaves: bool,
) -> PyResult<Request> {
    let mut cost = 1;
    if let Some(batched) = &named.batched {
        cost = batch::check(py, &named.name, batched.as_ref(), args, kwargs)?;
    } else if let Some(says) = &named.cost {
        cost = batch::cost_of(says.bind(py), args, kwargs)?;
    }
    // Of what another thread makes than the one that waits.
    let context = if leaves || named.batched.is_some() { Some(context_here(py)?.unbind()) } else { None };
    let given = kwargs;
    let kwargs = kwargs.filter(|kwargs| !kwargs.is_empty()).map(|kwargs| kwargs.clone().unbind());
    let price = named.price.as_ref().map_or(Ok(0.0), |says| batch::price_of(says.bind(py), args, given))?;
    let form = named.keeping.as_ref().map(|keeping| PyResult::Ok((keeping.clone(), keeping.form(py, args, given)?)));
    let (kept, takes_key) = (form.transpose()?, named.takes_key);
    let (method, args) = (name.clone_ref(py), args.clone().unbind());
    Ok(Request(Arc::new(Asked { method, args, kwargs, place, context, cost, price, kept, takes_key })))
}

/// Answers a call.
async fn answer(
    means: Arc<Means>,
    is_async: bool,
    codec: Option<PythonCodec>,
    calling: Calling<PythonService>,
    request: Request,
) -> Result<Answer, Raised> {
    means.serves.store(true, Ordering::Relaxed);
    let answered = match &request.0.place {
        Place::Loop(event_loop) if is_async => on_loop::OnLoop::begin(calling, &request, event_loop)?.await,
        _ if is_async => Err(attach(|py| {
            let why = "is an `async def`, and its call is not awaited; a fallback is of the same kind as the method";
            let method = request.0.method.bind(py).to_string_lossy().into_owned();
            Raised::new(py, ServiceError::new_err(format!("`{method}` of `{}` {why}", means.handle.name())))
        })),
        Place::Thread if calling.deadline().is_none() => {
            on_thread::given(&means, on_thread::here(means.number, &calling, &request))
        }
        _ => {
            let answered: Answered =
                on_thread::elsewhere(&means.workers, means.number, Arc::new(calling), request).await;
            on_thread::given(&means, answered)
        }
    };
    told(answered, codec.as_ref())
}

/// What a call has come to, for its caller.
fn given<'py>(py: Python<'py>, answered: Result<Answer, CallError>, method: &str) -> PyResult<Bound<'py, PyAny>> {
    match answered {
        Ok(answer) => answer.given(py),
        Err(error) => Err(raised(py, &error, method)),
    }
}
