//! Services that are Python objects, and the handles their users call them by.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{ffi, intern};
use sage::{BegunCall, BoxError, CallError, Called, HookContext, OngoingCall, Service, ServiceHandle};

use crate::async_call::{self, Call, Request};
use crate::call_policy::{Changes, PolicyCalls, Seen, explain, usual_of};
use crate::error::{Raised, ServiceError, attempt};
use crate::future::{self, ServiceFuture, check_timeout};
use crate::thread::{attach, call, lock};
use crate::workers::Workers;

/// A service in Python.
pub(crate) struct PythonService {
    /// Has the hooks `setup`, `stop` and `cleanup`.
    hooks: Py<PyAny>,
    /// The user's object.
    pub(crate) instance: Py<PyAny>,
    /// The name of the method that calls mean which name none, from the first of them on.
    usual: PyOnceLock<Py<PyString>>,
    workers: Arc<Workers>,
    /// Of a service with a policy.
    seen: Option<Arc<Seen>>,
}

/// The methods that calls which name none may mean: the first of them that a service has.
pub(crate) const USUAL: [&str; 3] = ["process", "execute", "call"];

impl Drop for PythonService {
    fn drop(&mut self) {
        self.seen.iter().for_each(|seen| seen.set(None));
        self.workers.release();
    }
}

impl PythonService {
    /// Makes the service by calling the package's factory.
    pub(crate) fn make(
        factory: &Py<PyAny>,
        workers: &Arc<Workers>,
        seen: Option<&Arc<Seen>>,
        cx: &HookContext,
    ) -> Result<Self, BoxError> {
        let made = attempt(|py| {
            let hooks = call(factory.bind(py), &left(cx).into_pyobject(py)?, None)?.unbind();
            let instance = hooks.getattr(py, intern!(py, "instance"))?;
            workers.hold();
            if let Some(seen) = seen {
                seen.set(Some((hooks.clone_ref(py), instance.clone_ref(py))));
            }
            Ok(Self { hooks, instance, usual: PyOnceLock::new(), workers: workers.clone(), seen: seen.cloned() })
        });
        made.map_err(Raised::of_hook)
    }

    fn hook(&self, name: &str, cx: &HookContext) -> Result<(), BoxError> {
        let called =
            attempt(|py| call(&self.hooks.bind(py).getattr(name)?, &left(cx).into_pyobject(py)?, None).map(drop));
        called.map_err(Raised::of_hook)
    }

    /// A method of the user's object.
    pub(crate) fn method<'py>(
        &self,
        py: Python<'py>,
        name: Option<&Bound<'py, PyString>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = name.unwrap_or_else(|| self.usual(py));
        self.instance.bind(py).getattr(name).map_err(|error| self.explain(py, name, error))
    }

    /// The name of the method that a call means which names none.
    #[inline]
    pub(crate) fn usual<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyString> {
        self.usual.get(py).map_or_else(|| self.find_usual(py), |name| name.bind(py))
    }

    #[cold]
    fn find_usual<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyString> {
        match usual_of(self.instance.bind(py)) {
            Some(name) => self.usual.get_or_init(py, || PyString::intern(py, name).unbind()).bind(py),
            None => intern!(py, "process"),
        }
    }

    /// The exception of a call: where it is that there is no such method, it names those that are close.
    #[cold]
    pub(crate) fn explain(&self, py: Python<'_>, method: &Bound<'_, PyString>, error: PyErr) -> PyErr {
        explain(self.hooks.bind(py), method, error)
    }

    /// The event loop of its job.
    pub(crate) fn job_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.hooks.bind(py).getattr(intern!(py, "loop"))
    }
}

/// The arguments of the package's hooks: how many seconds are left until the deadline.
fn left(cx: &HookContext) -> (f64,) {
    (cx.remaining().as_secs_f64(),)
}

impl Service for PythonService {
    fn setup(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.hook("setup", cx)
    }

    fn stop(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.hook("stop", cx)
    }

    fn cleanup(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.hook("cleanup", cx)
    }
}

/// Whether an object is what an `async def` returns.
#[inline]
pub(crate) fn is_coroutine(object: *mut ffi::PyObject) -> bool {
    // SAFETY: if it is one, it is alive, and so has a type.
    !object.is_null() && unsafe { ffi::Py_TYPE(object) == &raw mut ffi::PyCoro_Type }
}

/// What a call came to that has returned this object, or null where it raised.
#[inline]
fn judged(result: *mut ffi::PyObject) -> Called {
    match result {
        null if null.is_null() => Called::Failed,
        object if is_coroutine(object) => Called::GoesOn,
        _ => Called::Returned,
    }
}

/// A coroutine of a service's: see `counted` in `python/sage/_awaiting.py`, which awaits it.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Awaited {
    handle: Arc<ServiceHandle<PythonService>>,
    /// Until it is awaited: the interpreter's collector does not see it here.
    coroutine: Mutex<Option<Py<PyAny>>>,
    ongoing: Mutex<Option<OngoingCall>>,
}

impl Awaited {
    /// A coroutine for the caller, which awaits this one.
    fn of<'py>(coroutine: Bound<'py, PyAny>, handle: Arc<ServiceHandle<PythonService>>) -> PyResult<Bound<'py, PyAny>> {
        static COUNTED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = coroutine.py();
        let names = [intern!(py, "__name__"), intern!(py, "__qualname__")];
        let told = names.map(|name| coroutine.getattr(name));
        let awaited = Self { handle, coroutine: Mutex::new(Some(coroutine.unbind())), ongoing: Mutex::default() };
        let counted = COUNTED.import(py, "sage._awaiting", "counted")?.call1((awaited,))?;
        for (name, value) in names.into_iter().zip(told) {
            counted.setattr(name, value?)?;
        }
        Ok(counted)
    }
}

#[pymethods]
impl Awaited {
    /// Gives the coroutine, once: it is awaited from here on.
    fn begin(&self) -> Option<Py<PyAny>> {
        *lock(&self.ongoing) = Some(self.handle.ongoing());
        lock(&self.coroutine).take()
    }

    /// It is over.
    fn end(&self, has_failed: bool) {
        drop(lock(&self.ongoing).take());
        if has_failed {
            self.handle.note_error();
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let coroutine = self.coroutine.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(coroutine) = coroutine {
            // Nobody has awaited the one that the caller has, which says so itself.
            attach(|py| {
                let closed = coroutine.call_method0(py, intern!(py, "close"));
                closed.map_or_else(|error| error.write_unraisable(py, None), drop);
            });
        }
    }
}

/// What is raised for a call that a service does not take.
pub(crate) fn refused(error: &CallError) -> PyErr {
    ServiceError::new_err(error.to_string())
}

/// A service of one job.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Handle {
    handle: Arc<ServiceHandle<PythonService>>,
    name: String,
    /// Among the services of the job.
    number: usize,
    /// Whether a call has come through: from then on, none waits for the service to start.
    serves: AtomicBool,
    workers: Arc<Workers>,
    /// All calls go through it, if there is one. They find it where a call may have to wait: `serves` stays false.
    policy: Option<Arc<PolicyCalls>>,
}

impl Handle {
    pub(crate) fn new(
        name: String,
        number: usize,
        handle: ServiceHandle<PythonService>,
        workers: Arc<Workers>,
    ) -> Self {
        Self { handle: Arc::new(handle), name, number, serves: AtomicBool::new(false), workers, policy: None }
    }

    /// That of a service with a policy.
    pub(crate) fn with_policy(name: String, number: usize, policy: Arc<PolicyCalls>, workers: Arc<Workers>) -> Self {
        let (handle, serves) = (policy.handle().clone(), AtomicBool::new(false));
        Self { handle, name, number, serves, workers, policy: Some(policy) }
    }

    /// Goes through the gate and calls, unless that may have to wait. What the call gives, and this, is a reference of
    /// its own, or null where an exception is set.
    #[inline]
    pub(crate) fn call_now(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&PythonService) -> *mut ffi::PyObject,
    ) -> Option<PyResult<*mut ffi::PyObject>> {
        if !self.serves.load(Ordering::Relaxed) {
            return None;
        }
        match self.handle.call_judged(call, |result| judged(*result)) {
            // SAFETY: it is a reference of its own, which is handed over.
            Ok(result) if is_coroutine(result) => Some(unsafe { self.going_on(py, result) }),
            Ok(result) => Some(Ok(result)),
            Err(error) => Some(Err(refused(&error))),
        }
    }

    /// Whether it has no policy.
    pub(crate) fn is_plain(&self) -> bool {
        self.policy.is_none()
    }

    /// Goes through the gate, unless that may have to wait.
    #[inline]
    pub(crate) fn begin_call(&self) -> Option<PyResult<BegunCall<'_, PythonService>>> {
        let serves = self.serves.load(Ordering::Relaxed);
        serves.then(|| self.handle.begin_call().map_err(|error| refused(&error)))
    }

    /// A coroutine that a call has returned which has ended, for the caller.
    #[cold]
    pub(crate) fn awaited<'py>(&self, coroutine: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Awaited::of(coroutine, self.handle.clone())
    }

    /// A coroutine that a method has returned, as one that tells the engine how long it was awaited.
    ///
    /// # Safety
    /// It is a reference to a coroutine, and is handed over.
    #[cold]
    unsafe fn going_on(&self, py: Python<'_>, coroutine: *mut ffi::PyObject) -> PyResult<*mut ffi::PyObject> {
        // SAFETY: as promised.
        let coroutine = unsafe { Bound::from_owned_ptr(py, coroutine) };
        Awaited::of(coroutine, self.handle.clone()).map(Bound::into_ptr)
    }

    /// As above.
    pub(crate) fn given(handle: &Arc<ServiceHandle<PythonService>>, result: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if !is_coroutine(result.as_ptr()) {
            return Ok(result.unbind());
        }
        Awaited::of(result, handle.clone()).map(Bound::unbind)
    }

    /// A call that may have to wait until the service has started, which takes the interpreter.
    #[cold]
    fn first_call<'py>(
        &self,
        py: Python<'py>,
        method: Option<&Bound<'py, PyString>>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let method = method.map(|method| method.clone().unbind());
        let (args, kwargs) = (args.clone().unbind(), kwargs.map(|kwargs| kwargs.clone().unbind()));
        let called = py.detach(|| {
            let judge = |result: &PyResult<Py<PyAny>>| judged(result.as_ref().map_or(ptr::null_mut(), Py::as_ptr));
            let call = |service: &PythonService| {
                attach(|py| {
                    // Said now already, as the call may call this service again.
                    self.serves.store(true, Ordering::Relaxed);
                    let kwargs = kwargs.as_ref().map(|kwargs| kwargs.bind(py));
                    let method = service.method(py, method.as_ref().map(|method| method.bind(py)))?;
                    call(&method, args.bind(py), kwargs).map(Bound::unbind)
                })
            };
            self.handle.call_judged(call, judge)
        });
        let result = called.map_err(|error| refused(&error))??;
        Ok(Self::given(&self.handle, result.into_bound(py))?.into_bound(py))
    }

    #[cold]
    fn no_policy(&self) -> PyErr {
        let why = "has no policy of which a call could have other settings: give `env.service` some";
        ServiceError::new_err(format!("service `{}` {why}", self.name))
    }

    fn late(&self, method: Option<&Bound<'_, PyString>>) -> String {
        let method = method.map_or(USUAL[0].into(), |method| method.to_string_lossy());
        format!("service `{}` did not answer `{method}`", self.name)
    }

    fn begin(
        &self,
        py: Python<'_>,
        method: Option<&Bound<'_, PyString>>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        limit: Option<Duration>,
        late: impl FnOnce() -> String,
    ) -> PyResult<Arc<Call>> {
        let request = Request::new(py, self.number, method, args, kwargs)?;
        async_call::begin(py, &self.handle, &self.workers, &self.serves, request, limit, late)
    }
}

#[pymethods]
impl Handle {
    /// The service's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Calls a method of the service, or the usual one of `None`, on this thread; with a timeout, in seconds, on
    /// another. What it raises is raised here. `changes` are other settings of its policy for this call.
    #[pyo3(signature = (method, args, kwargs=None, timeout=None, changes=None))]
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        method: Option<&Bound<'py, PyString>>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        timeout: Option<f64>,
        changes: Option<Changes>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(policy) = &self.policy {
            return policy.call(py, method, args, kwargs, check_timeout(timeout)?, changes.as_ref());
        }
        if changes.is_some() {
            return Err(self.no_policy());
        }
        if let Some(limit) = check_timeout(timeout)? {
            let begun = Instant::now();
            let late = || format!("{} within {} s", self.late(method), timeout.unwrap_or_default());
            let call = self.begin(py, method, args, kwargs, Some(limit), late)?;
            let left = limit.saturating_sub(begun.elapsed());
            return future::answer(py, &call, Some(left), true, late)?.map(|result| result.into_bound(py));
        }
        let called = self.call_now(py, |service| {
            let called = service.method(py, method).and_then(|method| call(&method, args, kwargs));
            called.map_or_else(
                |error| {
                    error.restore(py);
                    ptr::null_mut()
                },
                Bound::into_ptr,
            )
        });
        match called {
            // SAFETY: it is a reference of its own, or null with an exception.
            Some(called) => unsafe { Bound::from_owned_ptr_or_err(py, called?) },
            None => self.first_call(py, method, args, kwargs),
        }
    }

    /// Has another thread call a method of the service. Where as many calls wait for a thread as may, waits until there
    /// is room, for as long as the timeout says.
    #[pyo3(signature = (method, args, kwargs=None, timeout=None, changes=None))]
    fn call_async(
        &self,
        py: Python<'_>,
        method: Option<&Bound<'_, PyString>>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
        timeout: Option<f64>,
        changes: Option<Changes>,
    ) -> PyResult<ServiceFuture> {
        let what = self.late(method);
        let late = || format!("{what} within {} s", timeout.unwrap_or_default());
        let limit = check_timeout(timeout)?;
        let call = match &self.policy {
            Some(policy) => policy.call_async(py, method, args, kwargs, limit, changes.as_ref(), late)?,
            None if changes.is_some() => return Err(self.no_policy()),
            None => self.begin(py, method, args, kwargs, limit, late)?,
        };
        Ok(ServiceFuture { call, what, timeout })
    }

    /// Erases the answers of the service that are kept under a tag, and says how many there were.
    pub(crate) fn erase(&self, py: Python<'_>, tag: &str) -> PyResult<u64> {
        self.policy.as_ref().map_or(Ok(0), |policy| policy.erase(py, tag))
    }

    /// Says that the process of its own, in which the service ran, is gone: no more calls are taken.
    fn lost(&self, py: Python<'_>) {
        py.detach(|| self.handle.lost());
    }

    /// Says that a process of the service is lost, and how, and that another takes its place.
    fn replaced(&self, how: String) {
        self.handle.replaced(how);
    }

    /// Holds attempts back while another process begins, if the service has a policy; then lets them go on.
    fn hold(&self, py: Python<'_>, holds: bool) {
        let held = |policy: &PolicyCalls| if holds { policy.service().hold() } else { policy.service().release() };
        py.detach(|| self.policy.iter().for_each(|policy| held(policy)));
    }

    /// Ends the threads that make calls of this job, which is over.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            self.policy.iter().for_each(|policy| policy.close());
            self.workers.close();
        });
    }

    fn __repr__(&self) -> String {
        format!("<service {}>", self.name)
    }
}
