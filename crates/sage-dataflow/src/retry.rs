//! [`Retry`]: how often an operator or a source is called again after it failed.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Fatal;
use crate::{BoxError, SharedError};

/// How often, and after which waits, the engine calls an operator again with a record on which it failed, or a source
/// again for its next record.
///
/// The wait doubles from one attempt to the next. It holds up the operator's whole chain, so the order stays; under an
/// async operator, other records go on meanwhile. A cancel ends the wait. A drain cuts it short: an operator makes its
/// next attempt at once, and that is the record's last; a source is not called again.
///
/// ```
/// use std::io::{self, ErrorKind};
/// use sage::{Environment, Retry};
///
/// let env = Environment::local("flaky");
/// let mut calls = 0;
/// let answers = env
///     .from_iter([1, 2])
///     .try_map(move |n| {
///         calls += 1;
///         if calls == 1 { Err(io::Error::from(ErrorKind::TimedOut)) } else { Ok(n * 10) }
///     })
///     .retry(Retry::up_to(3).when(|error| {
///         error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::TimedOut)
///     }))
///     .collect();
/// env.run()?;
/// assert_eq!(answers.take(), [10, 20]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Retry {
    pub(crate) attempts: u32,
    first: Duration,
    longest: Duration,
    when: Option<Arc<When>>,
}

/// Whether to try again after an error.
type When = dyn Fn(&(dyn Error + Send + Sync + 'static)) -> bool + Send + Sync;

impl Retry {
    /// Allows `attempts` calls in all: 1 or more, where 1 means no retry. The wait is 100 ms after the first failure,
    /// then twice as long each time, 10 s at most.
    pub const fn up_to(attempts: u32) -> Self {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(10));
        Self { attempts, first, longest, when: None }
    }

    /// Waits `first` after the first failure, then twice as long each time, `longest` at most.
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }

    /// Tries again only after an error for which `when` returns true; any other error ends the attempts. `when` gets
    /// the error as it was returned, and may downcast it or look at its [`source`](std::error::Error::source). Default:
    /// every error but a [`Fatal`].
    pub fn when(mut self, when: impl Fn(&(dyn Error + Send + Sync + 'static)) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(when));
        self
    }

    /// Whether to ask again after this error.
    pub(crate) fn is_for(&self, error: &(dyn Error + Send + Sync + 'static)) -> bool {
        !Fatal::is(error) && self.when.as_ref().is_none_or(|when| when(error))
    }

    /// What becomes of the error that the last of so many attempts ended in. One that was not to be tried again at all
    /// is told as it is.
    pub(crate) fn given_up(&self, attempts: u32, error: BoxError) -> BoxError {
        if Fatal::is(&*error) || (attempts == 1 && self.attempts > 1) {
            return error;
        }
        RetriesExhausted { attempts, source: error.into() }.into()
    }

    /// How long to wait after so many failures.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failures - 1).and_then(|times| self.first.checked_mul(times));
        doubled.unwrap_or(self.longest).min(self.longest)
    }

    pub(crate) fn mistake(&self) -> Option<String> {
        (self.attempts == 0).then(|| "a retry makes at least one attempt in all".to_owned())
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, first, longest, when } = self;
        let mut debug = f.debug_struct("Retry");
        debug.field("attempts", attempts).field("first", first).field("longest", longest);
        if when.is_some() { debug.finish_non_exhaustive() } else { debug.finish() }
    }
}

/// An operator or a source used up its attempts, or failed on a later one with an error that is not to be tried again.
#[derive(Debug)]
pub struct RetriesExhausted {
    /// How many attempts were made.
    pub attempts: u32,
    /// The error of the last attempt.
    pub source: SharedError,
}

impl fmt::Display for RetriesExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gave up after {} attempts", self.attempts)
    }
}

impl Error for RetriesExhausted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl RetriesExhausted {
    /// How many attempts an error tells of; `None` if it is another one.
    pub(crate) fn attempts_of(error: &BoxError) -> Option<u32> {
        error.downcast_ref::<Self>().map(|exhausted| exhausted.attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_up_to_its_cap_however_often_it_is_asked() {
        let [milli, second] = [Duration::from_millis(10), Duration::from_secs(1)];
        let retry = Retry::up_to(u32::MAX).backoff(milli, second);
        let pauses = [1, 2, 3, 7, 8, 40, u32::MAX].map(|failed| retry.wait(failed).as_millis());
        assert_eq!(pauses, [10, 20, 40, 640, 1000, 1000, 1000]);
        assert_eq!(Retry::up_to(2).backoff(second, milli).wait(1), milli);
        assert_eq!(Retry::up_to(2).backoff(Duration::MAX, Duration::MAX).wait(9), Duration::MAX);
    }
}
