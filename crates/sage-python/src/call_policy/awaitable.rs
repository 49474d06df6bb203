//! [`PolicyCall`]: what a call of an `async def` method awaits.
//!
//! It is an iterator as asyncio wants it: while the engine's future has to wait, it gives a future of the event loop's,
//! which the engine's waker sets. So nothing is polled, and no thread waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use sage::with_deadline;

use super::on_loop::is_here;
use super::wakes::Wakes;
use crate::async_call::Answer;
use crate::thread::{attach, lock};

pub(super) type Calls = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A call that is awaited on an event loop.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct PolicyCall {
    /// Until it is over.
    call: Mutex<Option<Calls>>,
    deadline: Option<Instant>,
    waiting: Arc<Waiting>,
    waker: Waker,
    /// Whether a poll may have to wait for a service to start, which takes the interpreter.
    may_block: bool,
}

struct Waiting {
    event_loop: Py<PyAny>,
    wakes: Arc<Wakes>,
    state: Mutex<Woken>,
}

#[derive(Default)]
struct Woken {
    is_woken: bool,
    future: Option<Py<PyAny>>,
}

impl PolicyCall {
    pub(super) fn new(
        event_loop: Py<PyAny>,
        wakes: Arc<Wakes>,
        call: Calls,
        deadline: Option<Instant>,
        may_block: bool,
    ) -> Self {
        let waiting = Arc::new(Waiting { event_loop, wakes, state: Mutex::default() });
        Self { call: Mutex::new(Some(call)), deadline, waker: Waker::from(waiting.clone()), waiting, may_block }
    }
}

#[pymethods]
impl PolicyCall {
    fn __await__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let ended = || PyRuntimeError::new_err("cannot reuse already awaited call");
        let mut call = lock(&self.call).take().ok_or_else(ended)?;
        loop {
            lock(&self.waiting.state).is_woken = false;
            let mut poll =
                || with_deadline(self.deadline, || call.as_mut().poll(&mut Context::from_waker(&self.waker)));
            match if self.may_block { py.detach(poll) } else { poll() } {
                Poll::Ready(answer) => return Err(PyStopIteration::new_err((answer?,))),
                Poll::Pending => {}
            }
            let future = self.waiting.event_loop.call_method0(py, intern!(py, "create_future"))?;
            future.setattr(py, intern!(py, "_asyncio_future_blocking"), true)?;
            let mut state = lock(&self.waiting.state);
            if !state.is_woken {
                state.future = Some(future.clone_ref(py));
                drop(state);
                *lock(&self.call) = Some(call);
                return Ok(future);
            }
        }
    }

    fn send(&self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__next__(py)
    }

    /// The caller is cancelled: the call ends, and its task is cancelled.
    #[pyo3(signature = (kind, value=None, _traceback=None))]
    fn throw(
        &self,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.close();
        Err(PyErr::from_value(value.filter(|value| !value.is_none()).unwrap_or(kind)))
    }

    fn close(&self) {
        let call = lock(&self.call).take();
        drop(call);
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.is_woken = true;
        let future = state.future.take();
        drop(state);
        let Some(future) = future else { return };
        // SAFETY: it may be asked by any thread.
        if unsafe { ffi::PyGILState_Check() } == 1 {
            attach(|py| self.set(py, &future));
        } else {
            // Whoever wakes must not wait for the interpreter: it may be the engine's own thread.
            let waiting = self.clone();
            self.wakes.push(Box::new(move |py| waiting.set(py, &future)));
        }
    }
}

impl Waiting {
    /// Has the loop go on with the caller.
    fn set(&self, py: Python<'_>, future: &Py<PyAny>) {
        static SET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let set = || {
            let set = SET.import(py, "sage._call_policies", "set_future")?;
            if is_here(py, &self.event_loop)? {
                return set.call1((future,)).map(drop);
            }
            self.event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (set, future)).map(drop)
        };
        // A loop that is closed has nobody who waits.
        set().unwrap_or_else(drop);
    }
}
