//! The calls of a pipeline that is a service, as a source.
//!
//! It is woken by calls, and ends when it is told that nobody is left who could call: a drain does not end it. A pause
//! holds it, and a cancel ends it at once; calls that wait then get their error.

use std::sync::Arc;
use std::task::{Poll, Waker};

use super::{Next, Source, SourceContext, SourceFactory};
use crate::BoxError;
use crate::chain::CloseContext;
use crate::guarded::opaque;
use crate::runtime::Woken;
use crate::service::{Asked, Incoming, Served};

/// Makes the source of a pipeline's calls for each run.
pub struct RequestSources<Q, R>(pub(crate) Arc<Served<Q, R>>);
opaque!(RequestSources<Q, R>);

impl<Q: Send + 'static, R: Send + 'static> SourceFactory for RequestSources<Q, R> {
    type Source = RequestSource<Q, R>;

    fn make(&self, _replica: usize) -> Option<RequestSource<Q, R>> {
        Some(RequestSource { incoming: self.0.begin(), woken: None, is_dry: false })
    }
}

/// The calls of a pipeline in one run.
pub struct RequestSource<Q, R> {
    incoming: Incoming<Q, R>,
    woken: Option<(Arc<Woken>, Waker)>,
    /// Whether there was no call when it last looked.
    is_dry: bool,
}
opaque!(RequestSource<Q, R>);

impl<Q: Send + 'static, R: Send + 'static> Source for RequestSource<Q, R> {
    type Item = Asked<Q, R>;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        let woken = Woken::here();
        self.woken = Some((woken.clone(), woken.into()));
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Asked<Q, R>>, BoxError> {
        let Some((woken, waker)) = &self.woken else { return Ok(Next::End) };
        // What is buffered downstream is flushed before the wait.
        if self.is_dry {
            cx.wait_until(|| woken.is_woken());
            if cx.interrupted() {
                return Ok(Next::Idle);
            }
        }
        woken.take_back();
        let next = match self.incoming.take(waker) {
            Poll::Ready(Some(asked)) => Next::Record(asked),
            Poll::Ready(None) => Next::End,
            Poll::Pending => Next::Idle,
        };
        self.is_dry = matches!(next, Next::Idle);
        Ok(next)
    }

    fn serves(&self) -> bool {
        true
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.incoming.close();
        Ok(())
    }
}
