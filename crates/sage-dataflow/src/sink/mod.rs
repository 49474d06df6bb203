//! Where records end: the [`Sink`] trait, the link that ends a chain, and the built-in sinks.

mod builtin;

pub(crate) use builtin::{CollectSink, FileLines, FnSink, TryFnSink};
pub use builtin::{Collected, WriteError};

use crate::BoxError;
use crate::exchange::lane::Mark;
use crate::graph::NodeId;
use crate::graph::wiring::BuildContext;
use crate::job::task::{CloseContext, Fault, OpenContext, Position, Push, TaskContext};
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

    /// Writes out what is buffered: called when no record is waiting, and once at the end of input.
    fn flush(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Releases what `open` acquired. Runs exactly once after `open` was attempted, whatever happened since.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// A sink as the last link of a chain.
pub(crate) struct SinkEnd<K> {
    sink: K,
    node: NodeId,
    context: OpenContext,
    opened: bool,
    dirty: bool,
    errors: Box<Errors>,
}

impl<K> SinkEnd<K> {
    pub(crate) fn new(sink: K, node: NodeId, cx: &mut BuildContext<'_>) -> Self {
        let (context, errors) = (cx.open_context(node), Box::new(cx.errors(node)));
        Self { sink, node, context, opened: false, dirty: false, errors }
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

    fn wanted(&self) -> bool {
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
        self.flush(at)
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if self.opened {
            self.opened = false;
            let sink = &mut self.sink;
            cx.closing(self.node, |close| sink.close(close));
        }
    }
}
