//! An async sink, as of the crate `futures`, at the end of a chain.
//!
//! It is polled on the sink's own thread, inside the job's async runtime. Where it is not ready the thread parks, until
//! it is woken or the job is cancelled; it is dropped on the same thread, before the job is over.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use super::Sink;
use crate::BoxError;
use crate::chain::{CloseContext, FinishContext, OpenContext};
use crate::control::{Control, JobControl};
use crate::error::WaitCancelled;
use crate::runtime::{Woken, enter};
use crate::sync::{FOREVER, lock, park_for};

/// An async sink that exists already, for the run that comes first.
pub(crate) struct PolledSink<K, T> {
    unused: Arc<Mutex<Option<K>>>,
    open: Option<Polled<K>>,
    records: PhantomData<fn(T)>,
}

/// One that is in use.
struct Polled<K> {
    sink: Pin<Box<K>>,
    runtime: Handle,
    woken: Arc<Woken>,
    control: Arc<JobControl>,
}

impl<K, T> PolledSink<K, T> {
    pub(crate) fn new(unused: Arc<Mutex<Option<K>>>) -> Self {
        Self { unused, open: None, records: PhantomData }
    }

    /// Polls the sink until it is done with something.
    fn drive<E: Into<BoxError>>(
        &mut self,
        mut poll: impl FnMut(Pin<&mut K>, &mut Context<'_>) -> Poll<Result<(), E>>,
    ) -> Result<(), BoxError> {
        let Some(Polled { sink, runtime, woken, control }) = &mut self.open else { return Ok(()) };
        let waker = Waker::from(woken.clone());
        loop {
            woken.take_back();
            let polled = {
                let _inside = enter(runtime);
                poll(sink.as_mut(), &mut Context::from_waker(&waker))
            };
            if let Poll::Ready(done) = polled {
                return done.map_err(Into::into);
            }
            park_for(FOREVER, || !woken.is_woken() && control.load() < Control::Cancel);
            if control.load() == Control::Cancel {
                return Err(WaitCancelled.into());
            }
        }
    }
}

/// The second run of an environment whose async sink was used by the first.
#[derive(Debug, thiserror::Error)]
#[error("the async sink was used by an earlier run; make a new environment with a new sink")]
struct Used;

impl<K, T> Sink for PolledSink<K, T>
where
    K: futures_sink::Sink<T, Error: Into<BoxError>> + Send + 'static,
    T: Send + 'static,
{
    type In = T;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        let runtime = cx.runtime.handle()?;
        let sink = Box::pin(lock(&self.unused).take().ok_or(Used)?);
        self.open = Some(Polled { sink, runtime, woken: Woken::here(), control: cx.control.clone() });
        Ok(())
    }

    fn write(&mut self, record: T) -> Result<(), BoxError> {
        self.drive(|sink, cx| sink.poll_ready(cx))?;
        let Some(Polled { sink, runtime, .. }) = &mut self.open else { return Ok(()) };
        let _inside = enter(runtime);
        sink.as_mut().start_send(record).map_err(Into::into)
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.drive(|sink, cx| sink.poll_flush(cx))
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        self.drive(|sink, cx| sink.poll_close(cx))
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        if let Some(Polled { sink, runtime, .. }) = self.open.take() {
            let _inside = enter(&runtime);
            drop(sink);
        }
        Ok(())
    }
}
