//! Where records end: the [`Sink`] trait, the link that ends a chain, and the built-in sinks.

mod builtin;

pub(crate) use builtin::{CollectSink, FileLines, FnSink, TryFnSink};
pub use builtin::{Collected, WriteError};

use crate::BoxError;
use crate::exchange::lane::Mark;
use crate::graph::NodeId;
use crate::graph::wiring::BuildContext;
use crate::guarded::Guarded;
use crate::job::control::Control;
use crate::job::task::{CloseContext, Fault, FinishContext, OpenContext, Position, Push, Stop, TaskContext};
use crate::operator::policy::Errors;

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

    /// Writes out what is buffered: called when no record is waiting, and once at the end of input. May block, which
    /// holds up the sink's task; an error fails the job, whatever the error policy.
    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Makes what was written final: a transaction is committed, a file gets its name. Runs once in each replica when
    /// its input, or a [drain](crate::JobHandle::drain), has ended well: after the last record and the last `flush`,
    /// before `close`. It does not run after a failure, a cancel, a time limit or a signal of which the replica's task
    /// knows by then; `close` gives up what was written.
    ///
    /// May block; until it returns, the job has not ended. A cancel does not interrupt it: see
    /// [`FinishContext::is_cancelled`].
    ///
    /// **Each replica finishes by itself**, when its own records are done. Something else in the job may fail
    /// afterwards, another replica of this sink included, and what was made final stays. Whoever needs all or nothing
    /// has to wait for the job to succeed, and do the last step then.
    ///
    /// # Errors
    /// An error or a panic fails the job like one of `write`, naming the sink; no error policy lets it pass. `close`
    /// still runs, and the job may be clean.
    fn finish(&mut self, cx: &FinishContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Releases what `open` acquired, and gives up what [`finish`](Self::finish) has not made final. Runs exactly once
    /// after `open` was attempted, whatever happened since. An error or a panic fails the job and makes it unclean:
    /// something may be left.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// A sink as the last link of a chain.
pub(crate) struct SinkEnd<K> {
    sink: Guarded<K>,
    node: NodeId,
    context: OpenContext,
    opened: bool,
    dirty: bool,
    errors: Box<Errors>,
}

impl<K> SinkEnd<K> {
    pub(crate) fn new(sink: K, node: NodeId, cx: &mut BuildContext<'_>) -> Self {
        let (context, errors) = (cx.open_context(node), Box::new(cx.errors(node)));
        Self { sink: Guarded::new(sink, Some(node)), node, context, opened: false, dirty: false, errors }
    }
}

impl<K: Sink> Push<K::In> for SinkEnd<K> {
    fn open(&mut self, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        self.opened = true;
        self.sink.open(&self.context).map_err(Fault::Error)
    }

    #[inline(always)]
    fn push(&mut self, record: K::In, at: &mut Position) -> Result<(), Fault> {
        at.enter(self.node);
        self.dirty = true;
        match self.sink.write(record) {
            Ok(()) => Ok(()),
            Err(error) => self.errors.judge(error, at.record()),
        }
    }

    fn attend(&mut self, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }

    fn watermark(&mut self, _mark: Mark, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }

    fn probe(&mut self, _round: u64, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }

    fn wanted(&self, _outside: bool) -> bool {
        true
    }

    fn publish(&mut self) {}

    fn flush(&mut self, at: &mut Position) -> Result<(), Fault> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        at.enter(self.node);
        self.sink.flush().map_err(Fault::Error)
    }

    fn finish(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.dirty = true;
        self.errors.finish(at.record())?;
        self.flush(at)?;
        match FinishContext::new(&self.context.control) {
            Ok(cx) => self.sink.finish(&cx).map_err(Fault::Error),
            Err(_) if self.context.control.load() == Control::Cancel => Err(Stop::Cancelled.into()),
            // Drained by a signal: the records came through, but the job does not succeed.
            Err(_) => Ok(()),
        }
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if self.opened {
            self.opened = false;
            let sink = &mut self.sink;
            cx.closing(self.node, |close| sink.close(close));
        }
    }
}
