//! Answers of a service's plain methods: on the caller's thread, or on one of the job's that make calls.
//!
//! A call that has a time to keep is made by another thread, as nothing ends Python code: when its time is up, its
//! caller goes on, and the thread stays in the call until it returns.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use sage::Calling;
use tokio::sync::oneshot;

use super::on_loop::Deadline;
use super::request::{Request, context_here};
use crate::error::{CallEnded, Raised, ServiceError, attempt};
use crate::service::{Handle, PythonService};
use crate::thread::{attach, lock};
use crate::workers::{Begun, Work, Workers, entering, leaving};

pub(super) type Answered = Result<Py<PyAny>, Raised>;

/// A service that is called, and the call.
pub(super) type Called = Arc<Calling<PythonService>>;

type Act = Box<dyn FnOnce(Python<'_>, &PythonService) -> PyResult<Py<PyAny>> + Send>;

/// Makes a call on this thread, which is its caller's unless it has brought its context along.
pub(super) fn here(service: usize, calling: &Calling<PythonService>, request: &Request) -> Answered {
    attempt(|py| {
        entering(service);
        let answered = match &request.0.context {
            None => request.0.call(py, calling, calling.idempotency_key()),
            Some(context) => request.0.call_within(context.bind(py), calling, calling.idempotency_key()),
        };
        leaving();
        Ok(answered?.unbind())
    })
}

/// Has a thread of the job's make a call.
pub(super) async fn elsewhere(workers: &Arc<Workers>, service: usize, calling: Called, request: Request) -> Answered {
    // On the thread of its caller, unless it has brought its context along.
    let context = match &request.0.context {
        Some(context) => attach(|py| context.clone_ref(py)),
        None => attempt(|py| Ok(context_here(py)?.unbind()))?,
    };
    let (key, deadline) = (calling.idempotency_key(), Deadline::of(&calling));
    let act = Box::new(move |py: Python<'_>, service: &PythonService| {
        // A context is entered once at a time, and another attempt may still be in it.
        let context = context.bind(py).call_method0("copy")?;
        deadline.map(|deadline| deadline.set(&context)).transpose()?;
        request.0.call_within(&context, service, key).map(Bound::unbind)
    });
    on_thread(workers, service, calling, act).await
}

/// Has a thread of the job's do something with the service.
pub(super) async fn on_thread(workers: &Arc<Workers>, service: usize, calling: Called, act: Act) -> Answered {
    let (sender, receiver) = oneshot::channel();
    let work = Arc::new(OnThread { service, todo: Mutex::new(Some((calling, act, sender))) });
    let failed = |error: PyErr| attach(|py| Raised::new(py, error));
    match workers.begin_always(work.clone()) {
        Begun::Taken => {}
        Begun::NoThread => return Err(failed(ServiceError::new_err("no thread could be started for the call"))),
        Begun::Full | Begun::Over => return Err(failed(CallEnded::new_err("the job is over"))),
    }
    let _left = LeftOut(work);
    receiver.await.unwrap_or_else(|_| Err(failed(CallEnded::new_err("the job is over"))))
}

struct OnThread {
    service: usize,
    /// Until a thread takes it.
    todo: Mutex<Option<(Called, Act, oneshot::Sender<Answered>)>>,
}

/// Nobody waits for it any more: it is not begun.
struct LeftOut(Arc<OnThread>);

impl Drop for LeftOut {
    fn drop(&mut self) {
        let todo = lock(&self.0.todo).take();
        drop(todo);
    }
}

impl Work for OnThread {
    fn run(&self) {
        let todo = lock(&self.todo).take();
        let Some((calling, act, sender)) = todo else {
            leaving();
            return;
        };
        let answered = attempt(|py| calling.on_this_thread(|service| act(py, service)));
        // Before the service is left, which the end of a job waits for: so it then waits for this thread, too.
        leaving();
        drop(calling);
        drop(sender.send(answered));
    }

    fn refuse(&self) {
        let todo = lock(&self.todo).take();
        drop(todo);
    }

    fn is_wanted(&self) -> bool {
        lock(&self.todo).is_some()
    }

    fn service(&self) -> usize {
        self.service
    }
}

/// What a method that is no `async def` has returned: perhaps a coroutine all the same.
pub(super) fn given(calls: &super::Means, answered: Answered) -> Answered {
    answered.and_then(|result| attempt(|py| Handle::given(&calls.handle, result.into_bound(py))))
}
