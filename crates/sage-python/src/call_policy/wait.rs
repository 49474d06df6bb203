//! Waits on a thread for a future of the engine's.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use pyo3::prelude::*;
use sage::with_deadline;

use crate::async_call::time_left;

/// Waits for a future, on the calling thread, which runs whatever the future runs. Fails by what a handler of signals
/// raises meanwhile.
pub(crate) fn wait<F: Future + Send>(
    py: Python<'_>,
    future: F,
    deadline: Option<Instant>,
    may_block: bool,
) -> PyResult<F::Output>
where
    F::Output: Send,
{
    let mut future = pin!(future);
    let woken = Arc::new(Woken { thread: thread::current(), is_woken: AtomicBool::new(false) });
    let waker = Waker::from(woken.clone());
    loop {
        let mut poll = || with_deadline(deadline, || future.as_mut().poll(&mut Context::from_waker(&waker)));
        if let Poll::Ready(output) = if may_block { py.detach(poll) } else { poll() } {
            return Ok(output);
        }
        while !woken.is_woken.swap(false, Ordering::Acquire) {
            py.detach(|| thread::park_timeout(time_left(None).unwrap_or_default()));
            py.check_signals()?;
        }
    }
}

struct Woken {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
