//! Sinks: the [`Sink`] trait, the built-in sinks, and the last link of a chain.
//!
//! Knows nothing of other tasks, of services, or of how sinks get into a graph.

mod builtin;
mod end;
mod polled;

pub(crate) use builtin::{CollectSink, FileLines, FnSink, TryFnSink};
pub use builtin::{Collected, WriteError};
pub(crate) use end::SinkEnd;
pub(crate) use polled::PolledSink;

use crate::BoxError;
use crate::chain::{CloseContext, FinishContext, OpenContext};

/// The end of a pipeline: takes records and emits none.
///
/// ```
/// use std::sync::mpsc;
/// use sage::{BoxError, Environment, Sink};
///
/// struct Sender(mpsc::Sender<u32>);
///
/// impl Sink for Sender {
///     type In = u32;
///     fn write(&mut self, record: u32) -> Result<(), BoxError> {
///         Ok(self.0.send(record)?)
///     }
/// }
///
/// let (sender, receiver) = mpsc::channel();
/// let env = Environment::local("send");
/// env.from_iter(0..3).sink_to(move |_replica| Sender(sender.clone()));
/// env.run()?;
/// drop(env);
/// assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Sink: Send + 'static {
    /// The records it takes.
    type In: Send + 'static;

    /// Runs once, on the task's own thread, before the first record.
    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Takes one record.
    fn write(&mut self, record: Self::In) -> Result<(), BoxError>;

    /// Writes out buffered records. Runs when no record is waiting, and once at the end of input. May block, which
    /// holds up the sink's task. An error fails the job, whatever the error policy.
    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Makes the written records final: commits a transaction, gives a file its name. Runs once in each replica when
    /// its input, or a [drain](crate::JobView::drain), has ended well: after the last record and the last `flush`,
    /// before `close`. It does not run if the replica's task knows by then of a failure, a cancel, a time limit or a
    /// signal; `close` then discards what was written.
    ///
    /// May block: the job waits for it. A cancel does not interrupt it; see [`FinishContext::is_cancelled`].
    ///
    /// **Each replica finishes by itself**, when its own records are done. Another part of the job may fail afterwards,
    /// even another replica of this sink, and what this replica made final stays. If you need all or nothing, wait for
    /// the job to succeed and do the last step then.
    ///
    /// # Errors
    /// An error or a panic fails the job, and the report names the sink; no error policy lets it pass. `close` still
    /// runs, and the job may still be clean.
    fn finish(&mut self, cx: &FinishContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Releases what `open` acquired, and discards what [`finish`](Self::finish) has not made final. Runs exactly once
    /// after `open` was called, whether or not `open` succeeded. An error or a panic fails the job and makes it
    /// unclean: something may be left.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}
