//! How a task polls futures on its own thread: inside the job's async runtime, for timers and I/O, and woken when a
//! future can go on.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crate::runtime::JobRuntime;

/// Rouses a thread that runs several tasks.
pub(crate) type RouseThread = Arc<dyn Fn() + Send + Sync>;

/// Where the tasks of one job poll futures.
#[derive(Clone)]
pub(crate) struct Polling {
    /// Started when the first of them needs it.
    pub(crate) runtime: Arc<JobRuntime>,
    /// How the one thread is roused that runs all tasks, on the inline backend.
    pub(crate) rouse: Option<RouseThread>,
}

/// Rouses one task.
pub(crate) struct Rouser {
    thread: OnceLock<Thread>,
    rouse: Option<RouseThread>,
}

impl Rouser {
    pub(crate) fn new(polling: &Polling) -> Self {
        Self { thread: OnceLock::new(), rouse: polling.rouse.clone() }
    }

    /// Says that the calling thread is the one to rouse. Comes before the first future.
    pub(crate) fn settle(&self) {
        self.thread.get_or_init(std::thread::current);
    }

    /// Ends the wait of the task, or the next one.
    pub(crate) fn rouse(&self) {
        match (&self.rouse, self.thread.get()) {
            (Some(rouse), _) => rouse(),
            (None, Some(thread)) => thread.unpark(),
            (None, None) => {}
        }
    }
}
