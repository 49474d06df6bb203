//! What a task needs to poll futures on its own thread: the job's async runtime, for timers and I/O, and a way to be
//! roused when one of them can go on.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crate::backend::{Event, EventSender};
use crate::service::JobRuntime;

/// Where the tasks of one job poll futures.
#[derive(Clone)]
pub(crate) struct Polling {
    /// Started when the first of them needs it.
    pub(crate) runtime: Arc<JobRuntime>,
    /// On the inline backend, where the only thread waits for events.
    pub(crate) events: Option<EventSender>,
}

/// Rouses one task.
#[derive(Debug)]
pub(crate) struct Rouser {
    thread: OnceLock<Thread>,
    events: Option<EventSender>,
}

impl Rouser {
    pub(crate) fn new(polling: &Polling) -> Self {
        Self { thread: OnceLock::new(), events: polling.events.clone() }
    }

    /// Says that the calling thread is the one to rouse. Comes before the first future.
    pub(crate) fn settle(&self) {
        self.thread.get_or_init(std::thread::current);
    }

    /// Ends the wait of the task, or the next one.
    pub(crate) fn rouse(&self) {
        match (&self.events, self.thread.get()) {
            (Some(events), _) => events.send(Event::Roused),
            (None, Some(thread)) => thread.unpark(),
            (None, None) => {}
        }
    }
}
