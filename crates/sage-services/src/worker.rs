//! [`Worker`]: the thread on which a client speaks to its server.
//!
//! Invariants:
//! 1. Writes begin in the order in which they were asked for, each after the one before it has ended.
//! 2. A write that has begun goes on to its end, whoever waits for it. One whose caller has gone does not begin.
//! 3. After [`end`](Worker::end) the thread is gone, and with it all that lived on it: connections and reads.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// A write to come; `None` ends the thread. The queue is as long as there are callers that wait, as others are skipped.
type Write = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// A thread with a runtime of its own.
pub(crate) struct Worker {
    handle: Handle,
    writes: UnboundedSender<Write>,
    is_ending: Arc<AtomicBool>,
    thread: Mutex<Option<(JoinHandle<()>, oneshot::Receiver<()>)>>,
}

/// The worker has ended before it answered.
#[derive(Debug)]
pub(crate) struct Ended;

impl Worker {
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, is_ending) = (runtime.handle().clone(), Arc::new(AtomicBool::new(false)));
        let (writes, queue) = unbounded_channel();
        let (ended, has_ended) = oneshot::channel();
        let seen = is_ending.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            runs(runtime, queue, &seen);
            let _ = ended.send(());
        })?;
        Ok(Self { handle, writes, is_ending, thread: Mutex::new(Some((thread, has_ended))) })
    }

    /// Answers what the future gives. It is dropped with the one returned.
    pub(crate) fn read<T, F>(&self, read: F) -> impl Future<Output = Result<T, Ended>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let reading = self.handle.spawn(async move {
            let _ = answer.send(read.await);
        });
        let aborts = Aborts(reading.abort_handle());
        async move {
            let _aborts = aborts;
            answered.await.map_err(|_| Ended)
        }
    }

    /// Answers what the future gives, after all writes that were asked for before.
    #[cfg_attr(not(any(feature = "chroma", test)), expect(dead_code, reason = "only stores write"))]
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
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn runs(runtime: Runtime, mut queue: UnboundedReceiver<Write>, is_ending: &AtomicBool) {
    runtime.block_on(async {
        while let Some(Some(write)) = queue.recv().await {
            if is_ending.load(Ordering::Acquire) {
                break;
            }
            // As a task of its own: one that panics takes only itself along.
            let _ = tokio::spawn(write).await;
        }
    });
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

struct Aborts(AbortHandle);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::time::Duration;

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
        assert!(wait(never).is_err() && wait(begun).is_ok() && wait(queued).is_err());
        assert!(wait(worker.read(async {})).is_err() && wait(worker.write(async {})).is_err());
        wait(worker.end());
        drop(worker);
        before.expect_growth(&[]);
    }
}
