//! The options of an [`Environment`], for all its jobs.

use std::os::unix::thread::RawPthread;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::Environment;
use crate::backend::StuckProbe;
use crate::chain::ErrorPolicy;
use crate::clock::Clock;
use crate::graph::Mistake;
use crate::job::{Deadlines, SignalPolicy};
use crate::sync::FOREVER;

impl Environment {
    /// Runs the whole job on one thread, for debugging: one stack, and the same order every time. The thread is the one
    /// that calls [`run`](Self::run), or the job's own after [`submit`](Self::submit). Here no deadline can interrupt a
    /// hook, and backpressure does not bound the memory.
    pub fn inline(mut self) -> Self {
        self.options.inline = true;
        self
    }

    /// Sets what a job does with SIGINT and SIGTERM. Default: [`SignalPolicy::Drain`].
    pub fn signals(mut self, policy: SignalPolicy) -> Self {
        self.options.signals = policy;
        self
    }

    /// Sets how long each phase of a job may take. Applies to services registered after this call.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.options.deadlines = deadlines.bounded();
        self
    }

    /// Cancels a job that is not over after `limit`. Default: no limit.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options.time_limit = Some(limit.min(FOREVER));
        self
    }

    /// Writes each job's log files below `dir`, conventionally `.sage/logs`. In `jobmanager/session_<time>/` there are
    /// `Dispatcher.log`, which tells how the tasks ended and each service was cleaned, `Error.log` with each failure,
    /// and a folder for the environment: see [`JobView::log_dir`](crate::JobView::log_dir). They hold nothing per
    /// record, and only their owner may read them (mode 0600). Default: the folder that the environment variable
    /// `SAGE_LOG_DIR` names, and no log files without it.
    pub fn log_files(mut self, dir: impl Into<PathBuf>) -> Self {
        self.options.log_dir = Some(dir.into());
        self
    }

    /// How many records a block holds, 1 to 1,048,576: records go from thread to thread in blocks. Default: as many as
    /// fill 32 KiB, but at least 64 and at most 4096.
    pub fn block_records(mut self, records: usize) -> Self {
        self.options.block_records = Some(records);
        self
    }

    /// How many blocks may wait in the lane between two threads, 2 to 65,536. Default: 8. While the reader deals with
    /// each block in less than 0.2 ms, the lanes of one producer may hold 64 in all, and each at least 8.
    ///
    /// Before a task that is slow, or has not yet shown that it is quick, fewer records wait: as many as it deals with
    /// in 10 ms, or twice as many as it works on at once if that is more.
    pub fn queue_blocks(mut self, blocks: usize) -> Self {
        self.options.queue_blocks = Some(blocks);
        self
    }

    /// The former name of [`block_records`](Self::block_records).
    #[deprecated(since = "0.1.0", note = "use `block_records`")]
    pub fn batch_records(self, records: usize) -> Self {
        self.block_records(records)
    }

    /// The former name of [`queue_blocks`](Self::queue_blocks).
    #[deprecated(since = "0.1.0", note = "use `queue_blocks`")]
    pub fn queue_batches(self, batches: usize) -> Self {
        self.queue_blocks(batches)
    }

    /// How many bytes may wait on an edge: in all the lanes between two operators that do not share a thread. 1 or
    /// more; default 64 MiB. Each lane has an equal share. A record larger than that share passes alone.
    ///
    /// The bytes of a record are an estimate: the size of its type, plus the memory it holds elsewhere where that is
    /// known; see [`Stream::weigh`](crate::Stream::weigh). Only [`Feedback::limit`](crate::Feedback::limit) bounds the
    /// records that go back to the head of a loop.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.options.queue_bytes = bytes;
        self
    }

    /// How long a record may wait for its block to fill while records come fast. Records that come slowly do not wait.
    /// Default: 1 ms.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        // Zero is the inline backend's word for "nobody waits".
        self.options.flush_interval = interval.max(Duration::from_micros(1));
        self
    }

    /// Sets the clock of processing time. Default: [`Clock::system`], read at the start of each job.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.options.clock = Some(clock);
        self
    }

    /// Lends the jobs a tokio runtime for async hooks, `call_blocking` and `map_async`. What they open on it stays open
    /// after the job, such as the connection of a client that outlives the job. Default: each job has a runtime of its
    /// own, which ends with it.
    ///
    /// The runtime needs its timer enabled and must run for as long as the job does; a `current_thread` runtime runs
    /// only while its owner waits inside it. The engine never shuts it down. When a job returns, the engine has ended
    /// and dropped its own futures. Tasks that your code spawns on the runtime are yours, and go on.
    ///
    /// ```
    /// let host = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let env = sage::Environment::local("doubled").runtime(host.handle().clone());
    /// let doubled = env.from_iter(1..=3).map_async(4, sage::Order::Ordered, |n| async move { n * 2 }).collect();
    /// env.run()?;
    /// assert_eq!(doubled.take(), [2, 4, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn runtime(mut self, handle: Handle) -> Self {
        self.options.runtime = Some(handle);
        self
    }

    /// Sets a function that tells where a stuck thread is, for hosts whose language has its own stacks. The engine
    /// calls `probe` with the thread of each task or hook that has missed its deadline, and adds the indented lines it
    /// returns to the report. `probe` runs on a separate thread and has one second; once it has taken longer, it is not
    /// called again.
    pub fn where_stuck(mut self, probe: impl Fn(RawPthread) -> Option<String> + Send + Sync + 'static) -> Self {
        self.options.stuck_probe = Some(StuckProbe(Arc::new(probe)));
        self
    }

    /// Sets the stack size, in bytes, of each thread that runs a task or the hooks of a service: 64 KiB to 1 TiB.
    /// Default: 2 MiB, or the value of the environment variable `RUST_MIN_STACK`. Raise it for functions that recurse
    /// deeply.
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.options.threads.stack_bytes = Some(bytes);
        self
    }

    /// Calls `begin` first on each thread that runs a task or the hooks of a service, for hosts whose threads need
    /// something set up. The value it returns is dropped last on that thread. If `begin` or the drop panics, the panic
    /// is logged and the thread goes on. [`inline`](Self::inline) has no such threads.
    pub fn around_threads<G: 'static>(mut self, begin: impl Fn() -> G + Send + Sync + 'static) -> Self {
        self.options.threads.begin = Some(Arc::new(move || Box::new(begin())));
        self
    }

    /// Sets the error policy of every operator and sink that has none of its own. Default: [`ErrorPolicy::fail`].
    pub fn on_error(self, policy: ErrorPolicy) -> Self {
        self.graph.with(|graph| {
            if let Some(message) = policy.mistake() {
                graph.mistakes.push(Mistake::Option { node: None, message });
            }
            graph.default_policy = policy;
        });
        self
    }
}
