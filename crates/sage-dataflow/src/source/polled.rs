//! Sources that are polled, as futures are: streams, and the receivers of tokio.
//!
//! They are polled on the source's own thread. A waker unparks it, which is how a job ends its waits as well; so a
//! drain or a cancel ends one at once, and the stream is dropped on the same thread, before the job is over.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::channel::note_left;
use super::{Next, Source, SourceContext};
use crate::BoxError;
use crate::chain::CloseContext;
use crate::guarded::opaque;
use crate::runtime::{Woken, enter};

/// Something that is polled for records.
pub trait Polled: Send + 'static {
    /// The records.
    type Item: Send + 'static;
    /// Whether it is polled and dropped inside the job's async runtime, as timers and I/O need it.
    const INSIDE_RUNTIME: bool;

    /// Polls for the next record; `None` at the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;

    /// How many records are waiting in it, if that can be told.
    fn waiting(&self) -> usize {
        0
    }
}

/// A stream, where it does not move.
pub(crate) struct Pinned<S>(Pin<Box<S>>);

impl<S> Pinned<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Box::pin(stream))
    }
}

impl<S: Stream<Item: Send + 'static> + Send + 'static> Polled for Pinned<S> {
    type Item = S::Item;
    const INSIDE_RUNTIME: bool = true;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T: Send + 'static> Polled for mpsc::Receiver<T> {
    type Item = T;
    const INSIDE_RUNTIME: bool = false;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_recv(cx)
    }

    fn waiting(&self) -> usize {
        self.len()
    }
}

impl<T: Send + 'static> Polled for mpsc::UnboundedReceiver<T> {
    type Item = T;
    const INSIDE_RUNTIME: bool = false;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_recv(cx)
    }

    fn waiting(&self) -> usize {
        self.len()
    }
}

/// The records of what is polled.
pub struct PolledSource<S> {
    /// Taken out, and dropped inside the runtime, when the source is closed.
    polled: Option<S>,
    runtime: Option<Handle>,
    woken: Option<(Arc<Woken>, Waker)>,
    name: String,
    /// Whether it had no record when it was last polled.
    is_dry: bool,
}
opaque!(PolledSource<S>);

impl<S> PolledSource<S> {
    pub(crate) fn new(polled: S) -> Self {
        Self { polled: Some(polled), runtime: None, woken: None, name: String::new(), is_dry: false }
    }
}

impl<S: Polled> Source for PolledSource<S> {
    type Item = S::Item;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        self.name.clone_from(&cx.name);
        if S::INSIDE_RUNTIME {
            self.runtime = Some(cx.runtime.handle()?);
        }
        let woken = Woken::here();
        self.woken = Some((woken.clone(), woken.into()));
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<S::Item>, BoxError> {
        let (Some(polled), Some((woken, waker))) = (&mut self.polled, &self.woken) else { return Ok(Next::End) };
        // What is buffered downstream is flushed before the wait.
        if self.is_dry {
            cx.wait_until(|| woken.is_woken());
            if cx.interrupted() {
                return Ok(Next::Idle);
            }
        }
        woken.take_back();
        let polled = {
            let _inside = self.runtime.as_ref().map(enter);
            polled.poll(&mut Context::from_waker(waker))
        };
        let next = match polled {
            Poll::Ready(Some(record)) => Next::Record(record),
            Poll::Ready(None) => Next::End,
            Poll::Pending => Next::Idle,
        };
        self.is_dry = matches!(next, Next::Idle);
        Ok(next)
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let Some(polled) = self.polled.take() else { return Ok(()) };
        note_left(&self.name, polled.waiting(), cx);
        let _inside = self.runtime.as_ref().map(enter);
        drop(polled);
        Ok(())
    }
}
