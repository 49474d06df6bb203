//! Sources under a retry: asked again for a record after they failed.

use std::time::Instant;

use super::{Next, Source, SourceContext, SourceFactory};
use crate::BoxError;
use crate::chain::CloseContext;
use crate::error::WhileOpening;
use crate::guarded::opaque;
use crate::retry::Retry;
use crate::sync::FOREVER;

/// Makes sources that are asked again.
pub struct RetriedSource<F> {
    pub(crate) factory: F,
    pub(crate) retry: Retry,
}
opaque!(RetriedSource<F>);

impl<F: SourceFactory> SourceFactory for RetriedSource<F> {
    type Source = RetryingSource<F::Source>;

    fn make(&self, replica: usize) -> Option<Self::Source> {
        let source = self.factory.make(replica)?;
        Some(RetryingSource { source, retry: self.retry.clone(), failures: 0, retries: 0, again: None })
    }
}

/// A source, asked again when its `next` fails.
pub struct RetryingSource<S> {
    source: S,
    retry: Retry,
    /// How often it failed since its last record.
    failures: u32,
    /// How often it was asked again.
    retries: u64,
    /// When it is to be asked again.
    again: Option<Instant>,
}
opaque!(RetryingSource<S>);

impl<S: Source> RetryingSource<S> {
    /// Waits until it is to be asked again. Returns whether that is now: the wait may be cut off.
    #[cold]
    fn wait(&mut self, again: Instant, cx: &SourceContext) -> bool {
        let left = again.saturating_duration_since(Instant::now());
        if !left.is_zero() && !cx.wait(left) {
            return false;
        }
        self.again = None;
        self.retries += 1;
        cx.passed.retries.publish(self.retries);
        true
    }

    #[cold]
    fn failed(&mut self, error: BoxError) -> Result<Next<S::Item>, BoxError> {
        self.failures += 1;
        // What is to be known of the error is inside.
        let (error, opening) = match error.downcast::<WhileOpening>() {
            Ok(opening) => (opening.into_inner(), true),
            Err(error) => (error, false),
        };
        if self.failures >= self.retry.attempts || !self.retry.is_for(&*error) {
            let error = self.retry.given_up(self.failures, error);
            return Err(if opening { WhileOpening::new(error).into() } else { error });
        }
        tracing::debug!(error = &*error, attempts = self.failures, "a source is asked again");
        self.again = Some(Instant::now() + self.retry.wait(self.failures).min(FOREVER));
        Ok(Next::Idle)
    }
}

impl<S: Source> Source for RetryingSource<S> {
    type Item = S::Item;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        self.source.open(cx)
    }

    #[inline]
    fn next(&mut self, cx: &SourceContext) -> Result<Next<S::Item>, BoxError> {
        if let Some(again) = self.again
            && !self.wait(again, cx)
        {
            return Ok(Next::Idle);
        }
        match self.source.next(cx) {
            Ok(Next::Record(record)) => {
                self.failures = 0;
                Ok(Next::Record(record))
            }
            Ok(other) => Ok(other),
            Err(error) => self.failed(error),
        }
    }

    fn in_blocks(&self) -> bool {
        self.source.in_blocks()
    }

    fn serves(&self) -> bool {
        self.source.serves()
    }

    fn taken(&self) -> u64 {
        self.source.taken()
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.source.position()
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.source.close(cx)
    }
}
