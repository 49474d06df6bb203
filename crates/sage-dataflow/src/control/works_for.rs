//! Which job a thread works for, so that a job that would wait for itself gets an error instead of waiting for ever.
//!
//! The engine marks the threads it starts. Code that starts others for the same work marks them with the value of
//! [`WorksFor::here`] on one of the engine's threads. Knows nothing of what runs on a thread.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static HERE: Cell<Option<WorksFor>> = const { Cell::new(None) };
}

/// The job that a thread works for.
///
/// A [`JobHandle`](crate::JobHandle) refuses to wait on a thread that its own job waits for:
/// [`RunError::WaitsForItself`](crate::RunError::WaitsForItself). The engine marks the threads of tasks and of
/// services' hooks. A function that starts threads and waits for them may mark them:
///
/// ```
/// use sage::{Environment, WorksFor};
///
/// let env = Environment::local("threads");
/// env.from_iter([1]).sink(|_| {
///     let job = WorksFor::here().expect("a sink runs on a thread of its job");
///     let thread = std::thread::spawn(move || {
///         job.enter();
///         assert_eq!(WorksFor::here(), Some(job));
///     });
///     thread.join().expect("it does not panic");
/// });
/// env.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorksFor(NonZeroU64);

impl WorksFor {
    /// That of a new job.
    pub(crate) fn new_job() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NonZeroU64::MIN.saturating_add(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The job that the calling thread works for; `None` if it works for none.
    pub fn here() -> Option<Self> {
        HERE.get()
    }

    /// Marks the calling thread as working for this job, until the thread ends or the next such call.
    pub fn enter(self) {
        HERE.set(Some(self));
    }
}
