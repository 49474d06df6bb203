//! [`Verdict`]: what an error that a service answered with means to its policy; [`ServiceError`], which says so itself.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::BoxError;
use crate::error::Fatal;
use crate::guarded::sources;

/// What an error that a service answered with means to its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The request itself is at fault. It is not tried again, and does not count against the service.
    Bad,
    /// It may go better next time. It counts against the service. It may have said after how long it can be called
    /// again: nobody calls it before.
    Passing(Option<Duration>),
    /// The service has too much to do. It may have said after how long it can be called again: nobody calls it before.
    /// It counts neither against the service nor, while that answers others, as an attempt.
    Throttled(Option<Duration>),
    /// The service denies this caller whatever it asks for: its key is wrong, or its account has nothing left. It is
    /// not tried again, and does not count against the service; another service may do better.
    Denied,
    /// The service is not there.
    Outage,
    /// The service was begun anew, such as its process, and so could not end this attempt. The call is made again, as
    /// often as [`Policy::make_again`](super::Policy::make_again) says: this does not count against the service, and
    /// counts as no attempt. Where the policy does not say it, as [`Passing`](Self::Passing).
    Again,
}

/// An error of a service that says what it means. A service that knows returns it; its policy finds it, also as the
/// [source](Error::source) of another error.
///
/// ```
/// use std::time::Duration;
/// use sage::{ServiceError, Verdict};
///
/// let wait = Some(Duration::from_secs(2));
/// let error = ServiceError::new(Verdict::Throttled(wait), "429 Too Many Requests");
/// assert_eq!(error.to_string(), "429 Too Many Requests");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct ServiceError {
    verdict: Verdict,
    source: BoxError,
}

impl ServiceError {
    /// An error, and what it means.
    pub fn new(verdict: Verdict, error: impl Into<BoxError>) -> Self {
        Self { verdict, source: error.into() }
    }

    /// What it means.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

/// Says what an error means.
pub(super) type Judge = dyn Fn(&BoxError) -> Verdict + Send + Sync;

/// What an error means where nobody says otherwise.
pub(super) fn usual(error: &BoxError) -> Verdict {
    if Fatal::is(&**error) {
        return Verdict::Bad;
    }
    let meaning = |error: &(dyn Error + 'static)| match error.downcast_ref::<ServiceError>() {
        Some(told) => Some(told.verdict),
        None => error.downcast_ref::<io::Error>().filter(|error| is_not_there(error.kind())).map(|_| Verdict::Outage),
    };
    sources(&**error).find_map(meaning).unwrap_or(Verdict::Passing(None))
}

/// Whether a connection failed because nobody was there, or who was has gone.
fn is_not_there(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkDown, NetworkUnreachable, NotConnected,
    };
    matches!(
        kind,
        AddrNotAvailable
            | BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guarded::chain_of;

    #[test]
    fn an_error_that_says_what_it_means_is_found_behind_others() {
        let told = ServiceError::new(Verdict::Throttled(None), "busy");
        assert_eq!(chain_of(&told), "busy");
        let behind = io::Error::other(io::Error::other(told));
        assert_eq!(usual(&behind.into()), Verdict::Throttled(None));
        assert_eq!(usual(&io::Error::from(io::ErrorKind::ConnectionRefused).into()), Verdict::Outage);
        assert_eq!(usual(&io::Error::from(io::ErrorKind::TimedOut).into()), Verdict::Passing(None));
        assert_eq!(usual(&"odd".into()), Verdict::Passing(None));
        assert_eq!(usual(&Fatal::new("wrong question").into()), Verdict::Bad);
    }
}
