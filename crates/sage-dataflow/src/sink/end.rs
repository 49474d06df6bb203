//! A sink as the last link of a chain.

use super::Sink;
use crate::chain::{Errors, Fault, FinishContext, OpenContext, Position, Push, Signal, Stop, TaskContext};
use crate::control::Control;
use crate::error::WaitCancelled;
use crate::guarded::Guarded;
use crate::ids::NodeId;

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
    pub(crate) fn new(sink: K, node: NodeId, context: OpenContext, errors: Errors) -> Self {
        let (sink, errors) = (Guarded::new(sink, Some(node)), Box::new(errors));
        Self { sink, node, context, opened: false, dirty: false, errors }
    }
}

impl<K: Sink> SinkEnd<K> {
    /// Writes out what is buffered, if anything was written.
    fn flush(&mut self, at: &mut Position) -> Result<(), Fault> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        at.enter(self.node);
        self.sink.flush().map_err(Fault::of_wait)
    }

    fn finish(&mut self, at: &mut Position) -> Result<(), Fault> {
        self.dirty = true;
        self.errors.finish(at.record())?;
        self.flush(at)?;
        match FinishContext::new(&self.context.control) {
            Ok(cx) => self.sink.finish(&cx).map_err(Fault::of_wait),
            Err(_) if self.context.control.load() == Control::Cancel => Err(Stop::Cancelled.into()),
            // Drained by a signal: the records came through, but the job does not succeed.
            Err(_) => Ok(()),
        }
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
            Err(error) if error.is::<WaitCancelled>() => Err(Stop::Cancelled.into()),
            Err(error) => self.errors.judge(error, at.record()),
        }
    }

    fn attend(&mut self, _at: &mut Position) -> Result<(), Fault> {
        Ok(())
    }

    fn signal(&mut self, signal: Signal, at: &mut Position) -> Result<(), Fault> {
        #[cfg(test)]
        crate::chain::traced::note(signal, &self.context);
        match signal {
            Signal::Flush => self.flush(at),
            Signal::Finish => self.finish(at),
            _ => Ok(()),
        }
    }

    fn close(&mut self, cx: &mut TaskContext) {
        if self.opened {
            self.opened = false;
            let sink = &mut self.sink;
            cx.closing(self.node, |close| sink.close(close));
        }
    }

    fn wanted(&self, _outside: bool) -> bool {
        true
    }
}
