//! Tools for tests of pipelines: a source that gives the records that the test sends, a sink that shows the records it
//! got, a clock that the test moves, and a count of what a job leaves behind.
//!
//! ```
//! use sage::Environment;
//! use sage::testing::{self, Census};
//!
//! let before = Census::take();
//! let (numbers, source) = testing::source();
//! let (received, sink) = testing::sink();
//!
//! let env = Environment::local("under-test");
//! env.from_source(move |_replica| source.clone()).map(|n: u32| n * 2).sink_to(move |_replica| sink.clone());
//! let job = env.submit()?;
//! numbers.send(1);
//! assert_eq!(received.wait_for(1), [2]); // while the source is still open
//! numbers.send(2);
//! numbers.end();
//! job.wait()?;
//! assert_eq!(received.take(), [2, 4]);
//! assert_eq!(received.finished(), 1); // the sink was told that its input has ended well
//!
//! // A service that was forgotten, or a thread that did not end, would be named here.
//! let left = before.growth();
//! assert!(left.iter().all(|what| what == "thread sage-signals"), "{left:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod census;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

pub use census::Census;

use crate::chain::{CloseContext, FinishContext};
use crate::guarded::opaque;
use crate::sync::lock;
use crate::{BoxError, Clock, Collected, Environment, Next, RunError, Sink, Source, SourceContext, Timestamp};

/// Runs the pipeline that `declare` describes, and returns the records it collects.
///
/// ```
/// let lengths = sage::testing::run_to_vec(|env| env.from_iter(["a", "bcd"]).map(str::len).collect())?;
/// assert_eq!(lengths, [1, 3]);
/// # Ok::<(), sage::RunError>(())
/// ```
///
/// # Errors
/// Those of [`Environment::run`].
pub fn run_to_vec<T>(declare: impl FnOnce(&Environment) -> Collected<T>) -> Result<Vec<T>, RunError> {
    let env = Environment::local("test");
    let collected = declare(&env);
    env.run()?;
    Ok(collected.take())
}

/// How long a test waits for what should come at once, before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test wants a [`TestSource`] to do next.
enum Request<T> {
    Send(T),
    End,
    Fail(BoxError),
}

/// What is requested, and who waits for it.
struct Requests<T> {
    state: Mutex<Requested<T>>,
    /// Notified when a replica has asked for more and there was none.
    ran_dry: Condvar,
}

struct Requested<T> {
    queue: VecDeque<Request<T>>,
    /// The threads of the replicas that are open.
    threads: Vec<Thread>,
    /// How many of them have found nothing since they last gave a record.
    dry: usize,
}

/// Makes a source, and the handle with which a test feeds it.
///
/// With several replicas, each record goes to the replica that asks first, and an end or an error reaches one of them.
pub fn source<T: Send + 'static>() -> (Feed<T>, TestSource<T>) {
    let requested = Requested { queue: VecDeque::new(), threads: Vec::new(), dry: 0 };
    let requests = Arc::new(Requests { state: Mutex::new(requested), ran_dry: Condvar::new() });
    (Feed(requests.clone()), TestSource(requests, false))
}

/// Feeds a [`TestSource`]. Cloneable. Only [`settle`](Self::settle) blocks. Dropping it does not end the source.
pub struct Feed<T>(Arc<Requests<T>>);
opaque!(Feed<T>);

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Feed<T> {
    fn request(&self, request: Request<T>) {
        let mut state = lock(&self.0.state);
        state.queue.push_back(request);
        state.threads.iter().for_each(Thread::unpark);
    }

    /// Waits until the source has given every record sent, and was asked for more. Operators in the source's task (see
    /// [`Environment::explain`]) are then done with those records; operators behind an exchange may not be.
    ///
    /// # Panics
    /// If the source is not there after 30 seconds.
    pub fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = lock(&self.0.state);
        while !state.queue.is_empty() || state.threads.is_empty() || state.dry < state.threads.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the source has not asked for more within {PATIENCE:?}");
            state = self.0.ran_dry.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes the source give `record`, after those sent before.
    pub fn send(&self, record: T) {
        self.request(Request::Send(record));
    }

    /// Makes the source end, after the records sent before.
    pub fn end(&self) {
        self.request(Request::End);
    }

    /// Makes the source fail with `error`, after the records sent before.
    pub fn fail(&self, error: impl Into<BoxError>) {
        self.request(Request::Fail(error.into()));
    }
}

/// A source that gives the records that its [`Feed`] sends. While it waits, a drain or a cancel ends it, and so does it
/// when no reader wants more records.
pub struct TestSource<T>(Arc<Requests<T>>, bool);
opaque!(TestSource<T>);

impl<T> Clone for TestSource<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), false)
    }
}

impl<T: Send + 'static> Source for TestSource<T> {
    type Item = T;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        lock(&self.0.state).threads.push(std::thread::current());
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<T>, BoxError> {
        // What is buffered downstream is flushed before the wait.
        if self.1 {
            cx.wait_until(|| !lock(&self.0.state).queue.is_empty());
        }
        let mut state = lock(&self.0.state);
        let request = state.queue.pop_front();
        match (std::mem::replace(&mut self.1, request.is_none()), request.is_none()) {
            (false, true) => state.dry += 1,
            (true, false) => state.dry -= 1,
            _ => {}
        }
        if self.1 {
            self.0.ran_dry.notify_all();
        }
        drop(state);
        match request {
            Some(Request::Send(record)) => Ok(Next::Record(record)),
            Some(Request::End) => Ok(Next::End),
            Some(Request::Fail(error)) => Err(error),
            None => Ok(Next::Idle),
        }
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        let own = std::thread::current().id();
        let mut state = lock(&self.0.state);
        state.threads.retain(|thread| thread.id() != own);
        state.dry -= usize::from(std::mem::take(&mut self.1));
        Ok(())
    }
}

struct Got<T> {
    records: Mutex<Vec<T>>,
    more: Condvar,
    finished: AtomicUsize,
}

/// Makes a sink, and the handle that shows the records it got.
pub fn sink<T: Send + 'static>() -> (Received<T>, TestSink<T>) {
    let got = Arc::new(Got { records: Mutex::default(), more: Condvar::new(), finished: AtomicUsize::new(0) });
    (Received(got.clone()), TestSink(got))
}

/// The records that a [`TestSink`] got, over all its replicas. Cloneable.
pub struct Received<T>(Arc<Got<T>>);
opaque!(Received<T>);

impl<T> Clone for Received<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Received<T> {
    /// Takes the records received so far.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut lock(&self.0.records))
    }

    /// How often [`Sink::finish`] ran, over all replicas and runs.
    pub fn finished(&self) -> usize {
        self.0.finished.load(Ordering::SeqCst)
    }
}

impl<T: Clone> Received<T> {
    /// Waits until at least `count` records have been received, and returns all received so far. They stay for the next
    /// call.
    ///
    /// # Panics
    /// If they have not come after 30 seconds.
    pub fn wait_for(&self, count: usize) -> Vec<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut got = lock(&self.0.records);
        while got.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "received {} of {count} records within {PATIENCE:?}", got.len());
            got = self.0.more.wait_timeout(got, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        got.clone()
    }
}

/// A sink that keeps its records for its [`Received`].
pub struct TestSink<T>(Arc<Got<T>>);
opaque!(TestSink<T>);

impl<T> Clone for TestSink<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static> Sink for TestSink<T> {
    type In = T;

    fn write(&mut self, record: T) -> Result<(), BoxError> {
        lock(&self.0.records).push(record);
        self.0.more.notify_all();
        Ok(())
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        self.0.finished.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Makes a clock for [`Environment::clock`] that stands still at `now`, and the handle that moves it.
///
/// ```
/// use std::time::Duration;
/// use sage::{Environment, Timestamp, testing};
///
/// let (hands, clock) = testing::clock(Timestamp::from_millis(0));
/// let env = Environment::local("under-test").clock(clock.clone());
/// hands.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), Timestamp::from_millis(60_000));
/// # drop(env);
/// ```
pub fn clock(now: Timestamp) -> (ClockHands, Clock) {
    let clock = Clock::manual(now);
    (ClockHands(clock.clone()), clock)
}

/// Moves a clock that stands still. Cloneable.
#[derive(Debug, Clone)]
pub struct ClockHands(Clock);

impl ClockHands {
    /// Waits until `calls` calls of services wait for a time to come: for their deadline, or between two attempts. So a
    /// test knows that moving the clock on reaches them.
    ///
    /// # Panics
    /// If they do not after 30 seconds.
    pub fn await_calls(&self, calls: usize) {
        let waiting = self.0.await_sleepers(calls, PATIENCE);
        assert!(waiting >= calls, "{waiting} of {calls} calls wait for the clock after {PATIENCE:?}");
    }

    /// Moves the clock on by `duration`, in whole milliseconds, and makes every job that uses it look at the time. Does
    /// not wait for windows or timers to fire.
    pub fn advance(&self, duration: Duration) {
        self.0.advance(duration);
    }
}
