//! [`Wakes`]: a thread of a job's that takes the interpreter for those which must not wait for it.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use pyo3::prelude::*;
use sage::OsThread;

use crate::thread::{Scope, attach, lock};

type Act = Box<dyn FnOnce(Python<'_>) + Send>;

/// Has things done that take the interpreter for a moment, and run no code of a program's. Its thread begins with the
/// first of them, and ends when the job is over.
pub(crate) struct Wakes {
    shared: Arc<Shared>,
    thread: Mutex<Option<(JoinHandle<()>, Receiver<OsThread>)>>,
}

struct Shared {
    scope: Arc<Scope>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: Vec<Act>,
    has_begun: bool,
    is_closed: bool,
}

impl Wakes {
    pub(crate) fn new(scope: Arc<Scope>) -> Arc<Self> {
        let shared = Shared { scope, state: Mutex::default(), wake: Condvar::new() };
        Arc::new(Self { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    /// Has it done soon; not any more when the job is over.
    pub(crate) fn push(&self, act: Act) {
        let mut state = lock(&self.shared.state);
        if state.is_closed {
            return;
        }
        state.queue.push(act);
        let is_first = !std::mem::replace(&mut state.has_begun, true);
        drop(state);
        self.shared.wake.notify_one();
        if is_first {
            self.begin();
        }
    }

    fn begin(&self) {
        let (shared, (sender, thread)) = (self.shared.clone(), channel());
        let builder = Builder::new().name("sage-wake".to_owned()).stack_size(shared.scope.stack_bytes);
        // Held until it is known here, so that `close` joins it.
        let mut place = lock(&self.thread);
        if lock(&self.shared.state).is_closed {
            return;
        }
        let begun = builder.spawn(move || {
            _ = sender.send(OsThread::current());
            shared.run();
        });
        match begun {
            Ok(handle) => *place = Some((handle, thread)),
            // The next one tries again.
            Err(_) => lock(&self.shared.state).has_begun = false,
        }
    }

    /// Ends the thread. The calling thread is not attached.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.is_closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
        self.shared.wake.notify_all();
        let thread = lock(&self.thread).take();
        if let Some((handle, thread)) = thread {
            // It does not panic: exceptions of Python are dropped.
            let _ended = handle.join();
            thread.try_iter().for_each(|thread| _ = thread.await_end(OsThread::LINGER));
        }
    }
}

impl Shared {
    fn run(&self) {
        let _within = self.scope.enter();
        loop {
            let is_idle = |state: &mut State| state.queue.is_empty() && !state.is_closed;
            let mut state = self.wake.wait_while(lock(&self.state), is_idle).unwrap_or_else(PoisonError::into_inner);
            if state.is_closed {
                return;
            }
            let queue = std::mem::take(&mut state.queue);
            drop(state);
            attach(|py| queue.into_iter().for_each(|act| act(py)));
        }
    }
}
