//! The layer of restarts: a call that the service was at when it was begun anew is made again.

use std::error::Error;
use std::fmt;

use super::call::Way;
use super::failure::Failed;
use super::method::Method;
use super::state::count;
use crate::service::call_error::CallError;
use crate::sync::Arc;
use crate::{BoxError, SharedError};

/// A service was begun anew whenever it was at a call, and the call has been made again as often as it may: see
/// [`Policy::make_again`](super::Policy::make_again).
#[derive(Debug)]
pub struct MadeAgain {
    /// How often it was made again.
    pub times: u32,
    /// The error of the last time.
    pub source: SharedError,
}

impl fmt::Display for MadeAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.times == 1 { "once" } else { &format!("{} times", self.times) };
        write!(f, "the call was made again {times}, and the service was begun anew each time")
    }
}

impl Error for MadeAgain {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl<Q: Clone + Send + Sync + 'static, R: Send + 'static> Method<Q, R> {
    /// The layer of restarts. It holds nothing: an attempt waits for the service where it is sent.
    pub(super) async fn through_restarts(&self, way: &Way<'_>, request: Q) -> Result<R, Failed> {
        let state = &*self.declared.state;
        let at_most = state.policy.make_again;
        for _ in 0..at_most {
            match self.by_deadline(way, request.clone()).await {
                Err(Failed { is_again: true, .. }) => count(&state.counts.made_again),
                ended => return ended,
            }
        }
        self.by_deadline(way, request).await.map_err(|failed| given_up(failed, at_most))
    }
}

fn given_up(mut failed: Failed, times: u32) -> Failed {
    if failed.is_again
        && let CallError::Failed { source, .. } = &mut *failed.error
    {
        *source = Arc::from(BoxError::from(MadeAgain { times, source: source.clone() }));
    }
    failed
}
