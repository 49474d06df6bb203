//! A task: one parallel instance of a chain, and the loop that runs it.
//!
//! A chain is a source or an inbox followed by operators and a sink or routers, each a [`Push`] that owns the next.
//! The whole chain is one concrete type, erased once, as a `Box<dyn Task>`.
//!
//! Invariants:
//!  1. User code runs under [`guard`]: a panic is a failure with an operator and a record, like an error.
//!  2. Every operator and sink that was opened, or whose opening failed, is closed exactly once, after the last record,
//!     whatever happened; one that panics in `close` does not keep the next from closing.
//!  3. `finish` runs only at the end of input: never after a failure or a cancel. It reaches the sink last.
//!
//! Knows nothing of threads, services and the dispatcher.

mod asynchronous;
mod inlet;
mod pace;
mod source;
#[cfg(test)]
mod traced;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

pub use asynchronous::{AsyncError, AsyncFunction, Order};
pub(crate) use asynchronous::{
    AsyncTask, Fallible, MAX_IN_FLIGHT, Parts as AsyncParts, Policy, Polling, RouseThread, Since, Sure,
};
pub(crate) use inlet::InletTask;
pub use pace::{excuse, excused};
pub(crate) use source::SourceTask;

use crate::chain::{Cursor, During, Failure, Signal, Stop, TaskContext};
use crate::control::{Control, JobControl, StopReason};
use crate::guarded::{guard, take_dropped};
use crate::metrics::TaskTimes;

/// What a call of [`Task::step`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// There may be more to do at once.
    Again,
    /// Nothing to do until [`Task::wait`] returns.
    Idle,
    /// The input has ended.
    End,
}

/// A chain, erased.
pub trait Task: Send {
    /// Opens the source and every operator.
    fn open(&mut self, cx: &mut TaskContext) -> Result<(), Stop>;
    /// Processes one batch, or finds that there is none.
    fn step(&mut self, cx: &mut TaskContext) -> Result<Stepped, Stop>;
    /// Waits until a step may find something.
    fn wait(&mut self, cx: &mut TaskContext);
    /// Makes the counters visible.
    fn publish(&mut self, cx: &TaskContext);
    /// Passes a signal through the chain: [`Signal::Flush`] or [`Signal::Finish`].
    fn signal(&mut self, signal: Signal, cx: &mut TaskContext) -> Result<(), Stop>;
    /// Closes the source and every operator.
    fn close(&mut self, cx: &mut TaskContext);
    /// Whether the chain begins with a source.
    fn is_source(&self) -> bool;
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Cancelled,
    Failed,
}

/// A task's last word.
#[derive(Debug)]
pub(crate) struct TaskOutcome {
    pub(crate) ending: Ending,
    pub(crate) failures: Vec<Failure>,
    /// What the caller is to be told besides.
    pub(crate) notes: Vec<String>,
    pub(crate) times: TaskTimes,
}

impl TaskOutcome {
    /// The outcome of a task that was built and not started.
    pub(crate) fn never_ran() -> Self {
        Self { ending: Ending::Cancelled, failures: Vec::new(), notes: Vec::new(), times: TaskTimes::default() }
    }
}

/// Runs a task one piece at a time, so that a thread can run one and the inline backend several.
pub(crate) struct Runner {
    task: Option<Box<dyn Task>>,
    cx: TaskContext,
    cursor: Arc<Cursor>,
    started: Instant,
    ending: Option<Ending>,
    opened: bool,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl Runner {
    pub(crate) fn new(task: Box<dyn Task>, control: Arc<JobControl>, cursor: Arc<Cursor>) -> Self {
        let cx = TaskContext::new(control, cursor.clone());
        Self { task: Some(task), cx, cursor, started: Instant::now(), ending: None, opened: false }
    }

    /// Runs to the end on the calling thread.
    pub(crate) fn run(mut self) -> TaskOutcome {
        while let Some(step) = self.turn() {
            if step == Stepped::Idle {
                self.wait();
            }
        }
        self.end()
    }

    /// One piece of work; `None` once the task has nothing more to do but [`Runner::end`].
    pub(crate) fn turn(&mut self) -> Option<Stepped> {
        if self.ending.is_some() {
            return None;
        }
        let stepped = if self.opened {
            self.cx.begin(During::Record);
            self.guarded(|task, cx| task.step(cx))
        } else {
            self.opened = true;
            self.cursor.activity().starts(Instant::now());
            self.guarded(|task, cx| task.open(cx)).map(|()| Stepped::Again)
        };
        let stepped = match stepped {
            Ok(_) | Err(Stop::Satisfied) if self.cx.control().load() == Control::Cancel => Err(Stop::Cancelled),
            Ok(Stepped::Idle) => self.guarded(|task, cx| task.signal(Signal::Flush, cx)).map(|()| Stepped::Idle),
            other => other,
        };
        if let Some(task) = &mut self.task {
            task.publish(&self.cx);
        }
        self.ending = match stepped {
            Ok(Stepped::End) | Err(Stop::Satisfied) => Some(self.finish()),
            Ok(step) => return Some(step),
            // What is left of a failing chain: it was attended to, or has failed since.
            Err(Stop::Cancelled | Stop::Attend) => Some(Ending::Cancelled),
            Err(Stop::Failed) => Some(Ending::Failed),
        };
        None
    }

    pub(crate) fn is_source(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.is_source())
    }

    fn wait(&mut self) {
        if let Some(task) = &mut self.task {
            self.cx.idle(|cx| task.wait(cx));
        }
    }

    fn finish(&mut self) -> Ending {
        self.cx.begin(During::Finish);
        let finished = self.guarded(|task, cx| task.signal(Signal::Finish, cx));
        if let Some(task) = &mut self.task {
            task.publish(&self.cx);
        }
        match finished {
            Ok(()) | Err(Stop::Satisfied) => Ending::Finished,
            Err(Stop::Cancelled | Stop::Attend) => Ending::Cancelled,
            Err(Stop::Failed) => Ending::Failed,
        }
    }

    /// Closes the chain, releases it and reports.
    pub(crate) fn end(mut self) -> TaskOutcome {
        let mut ending = self.ending.unwrap_or(Ending::Cancelled);
        self.cx.begin(During::Close);
        if let Some(mut task) = self.task.take() {
            let reason = match ending {
                Ending::Finished => self.cx.control().reason(),
                Ending::Cancelled if self.cx.control().load() == Control::Cancel => self.cx.control().reason(),
                // It has noticed that a task beside it failed before the job was cancelled for it.
                Ending::Cancelled | Ending::Failed => StopReason::Failure,
            };
            self.cx.begin_close(reason);
            if self.opened {
                // Each hook is guarded on its own; this guards what is between them.
                if let Err(panic) = guard(|| task.close(&mut self.cx)) {
                    self.cx.failed(panic);
                }
            }
            task.publish(&self.cx);
            self.cx.begin(During::Drop);
            if let Err(panic) = guard(move || drop(task)) {
                self.cx.dropped(None, panic);
            }
            // Its inbox is gone: a source that has written to it may have nobody left to wait for.
            self.cx.control().ring();
            take_dropped().into_iter().for_each(|(node, panic)| self.cx.dropped(node, panic));
        }
        if ending == Ending::Finished && self.cx.has_failed() {
            ending = Ending::Failed;
        }
        self.cursor.activity().ended();
        let (failures, notes, times) = self.cx.end(self.started.elapsed());
        TaskOutcome { ending, failures, notes, times }
    }

    fn guarded<R>(&mut self, code: impl FnOnce(&mut dyn Task, &mut TaskContext) -> Result<R, Stop>) -> Result<R, Stop> {
        let Some(task) = &mut self.task else { return Err(Stop::Cancelled) };
        let cx = &mut self.cx;
        guard(|| code(task.as_mut(), cx)).unwrap_or_else(|panic| {
            self.cx.failed(panic);
            Err(Stop::Failed)
        })
    }
}
