//! [`Worker`]: the thread on which a client speaks to its server.
//!
//! Invariants:
//! 1. Writes begin in the order in which they were asked for, each after the one before it has ended.
//! 2. A write that has begun goes on to its end, whoever waits for it, but for five seconds at most once the worker
//!    ends. One whose caller has gone does not begin.
//! 3. After [`end`](Worker::end) the thread is gone, and with it all that lived on it: connections and reads. Nothing
//!    that a caller still has holds on to the runtime, whose descriptors would stay: no handle of it or of its tasks.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// How long a write that has begun may go on once the worker ends.
const GRACE: Duration = Duration::from_secs(5);

/// A write to come; `None` ends the thread. The queue is as long as there are callers that wait, as others are skipped.
type Write = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// A thread with a runtime of its own.
pub(crate) struct Worker {
    writes: UnboundedSender<Write>,
    is_ending: Arc<AtomicBool>,
    live: Arc<Live>,
    thread: Mutex<Option<(JoinHandle<()>, oneshot::Receiver<()>)>>,
}

/// What there is as long as the thread is.
struct Live(Mutex<Option<Tasks>>);

struct Tasks {
    handle: Handle,
    reads: HashMap<u64, AbortHandle>,
    next: u64,
    /// The write that has begun.
    write: Option<AbortHandle>,
}

/// The worker has ended before it answered.
#[derive(Debug)]
pub(crate) struct Ended;

impl Worker {
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let tasks = Tasks { handle: runtime.handle().clone(), reads: HashMap::new(), next: 0, write: None };
        let (live, is_ending) = (Arc::new(Live(Mutex::new(Some(tasks)))), Arc::new(AtomicBool::new(false)));
        let (writes, queue) = unbounded_channel();
        let (ended, has_ended) = oneshot::channel();
        let (lives, ends) = (live.clone(), is_ending.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            runs(runtime, queue, &lives, &ends);
            let _ = ended.send(());
        })?;
        Ok(Self { writes, is_ending, live, thread: Mutex::new(Some((thread, has_ended))) })
    }

    /// Answers what the future gives. It is dropped with the one returned.
    pub(crate) fn read<T, F>(&self, read: F) -> impl Future<Output = Result<T, Ended>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let reading = async move {
            let _ = answer.send(read.await);
        };
        // Without tasks the future is dropped, and its caller told.
        let id = self.live.tasks().as_mut().map(|tasks| tasks.spawn_read(reading));
        let aborts = id.map(|id| Aborts { live: self.live.clone(), id });
        async move {
            let _aborts = aborts;
            answered.await.map_err(|_| Ended)
        }
    }

    /// Answers what the future gives, after all writes that were asked for before.
    #[cfg_attr(not(any(feature = "chroma", feature = "milvus", test)), expect(dead_code, reason = "only stores write"))]
    pub(crate) fn write<T, F>(&self, write: F) -> impl Future<Output = Result<T, Ended>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let write = async move {
            if !answer.is_closed() {
                let _ = answer.send(write.await);
            }
        };
        // Without a receiver the write is dropped, and its caller told.
        let _ = self.writes.send(Some(Box::pin(write)));
        async move { answered.await.map_err(|_| Ended) }
    }

    /// Ends the thread: after the write that has begun, without those that have not. Ending again does nothing.
    pub(crate) async fn end(&self) {
        if let Some((thread, has_ended)) = self.ending() {
            // It is waited for without blocking, as a write may take its time; what is left then takes none.
            let _ = has_ended.await;
            let _ = thread.join();
        }
    }

    fn ending(&self) -> Option<(JoinHandle<()>, oneshot::Receiver<()>)> {
        self.is_ending.store(true, Ordering::Release);
        let _ = self.writes.send(None);
        if let Some(Tasks { handle, write: Some(write), .. }) = &*self.live.tasks() {
            let write = write.clone();
            handle.spawn(async move {
                tokio::time::sleep(GRACE).await;
                write.abort();
            });
        }
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Live {
    fn tasks(&self) -> MutexGuard<'_, Option<Tasks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tasks {
    fn spawn_read(&mut self, read: impl Future<Output = ()> + Send + 'static) -> u64 {
        self.next += 1;
        self.reads.insert(self.next, self.handle.spawn(read).abort_handle());
        self.next
    }
}

fn runs(runtime: Runtime, mut queue: UnboundedReceiver<Write>, live: &Live, is_ending: &AtomicBool) {
    runtime.block_on(async {
        while let Some(Some(write)) = queue.recv().await {
            // As a task of its own: one that panics takes only itself along.
            let write = tokio::spawn(write);
            if let Some(tasks) = &mut *live.tasks() {
                tasks.write = Some(write.abort_handle());
            }
            // Looked at once the write can be found by whoever ends it. It has not begun yet.
            if is_ending.load(Ordering::Acquire) {
                write.abort();
            }
            let _ = write.await;
        }
    });
    *live.tasks() = None;
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some((thread, _)) = self.ending() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// A read that nobody waits for any more is dropped.
struct Aborts {
    live: Arc<Live>,
    id: u64,
}

impl Drop for Aborts {
    fn drop(&mut self) {
        let read = self.live.tasks().as_mut().and_then(|tasks| tasks.reads.remove(&self.id));
        if let Some(read) = read {
            read.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::time::Instant;

    #[test]
    fn writes_take_effect_in_their_order_and_not_half() {
        let worker = Worker::start("sage-test").unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let write = |number: u32| {
            let (written, begun) = (written.clone(), begun.clone());
            async move {
                begun.send(number).unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                written.lock().unwrap().push(number);
            }
        };
        let first = worker.write(write(1));
        has_begun.recv().unwrap();
        // The first has begun, and goes on; the second has not, and never will.
        drop(first);
        drop(worker.write(write(2)));
        wait(worker.write(write(3))).unwrap();
        assert_eq!(*written.lock().unwrap(), [1, 3]);
    }

    #[test]
    fn one_that_panics_leaves_the_others_alone() {
        let worker = Worker::start("sage-test").unwrap();
        assert!(wait(worker.write(async { panic!("a test's") })).is_err());
        assert_eq!(wait(worker.write(async { 1 })).unwrap(), 1);
    }

    #[test]
    fn after_the_end_nothing_is_answered_and_nothing_is_left() {
        let before = sage::testing::Census::take();
        let worker = Arc::new(Worker::start("sage-test").unwrap());
        let never = worker.read(std::future::pending::<()>());
        let begun = worker.write(async { tokio::time::sleep(Duration::from_millis(20)).await });
        let queued = worker.write(async {});
        wait(worker.read(async { tokio::task::yield_now().await })).unwrap();
        wait(worker.end());
        before.expect_growth(&[]);
        assert!(wait(never).is_err() && wait(begun).is_ok() && wait(queued).is_err());
        assert!(wait(worker.read(async {})).is_err() && wait(worker.write(async {})).is_err());
        wait(worker.end());
        drop(worker);
        before.expect_growth(&[]);
    }

    #[test]
    fn a_write_that_never_ends_is_waited_for_five_seconds() {
        let before = sage::testing::Census::take();
        let worker = Worker::start("sage-test").unwrap();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let never = worker.write(async move {
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        has_begun.recv().unwrap();
        let begin = Instant::now();
        wait(worker.end());
        assert!(begin.elapsed() >= GRACE && begin.elapsed() < 3 * GRACE, "{:?}", begin.elapsed());
        assert!(wait(never).is_err());
        before.expect_growth(&[]);
    }

    #[test]
    fn a_read_that_nobody_waits_for_is_dropped() {
        let worker = Worker::start("sage-test").unwrap();
        let (held, is_dropped) = std::sync::mpsc::channel::<()>();
        let read = worker.read(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(read);
        assert!(is_dropped.recv().is_err());
    }
}
