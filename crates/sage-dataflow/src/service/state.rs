//! The life of a service, as a table: which state may follow which.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServiceState {
    /// Declared; its constructor has not run.
    Registered,
    /// Its constructor or its `setup` is running.
    Initialising,
    /// It takes calls.
    Ready,
    /// It takes no new calls. Running calls may end, and its `stop` runs.
    Stopping,
    /// Its `cleanup` runs.
    Cleaning,
    /// It is cleaned, and its value is freed.
    Cleaned,
    /// Its cleanup ended in an error or a panic.
    CleanupFailed,
    /// A hook or a call did not end by its deadline. Its resources may be left behind.
    Abandoned,
    /// The process it ran in is gone.
    Lost,
}

impl ServiceState {
    /// Whether the service has ended, in one way or another.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Cleaned | Self::CleanupFailed | Self::Abandoned | Self::Lost)
    }

    /// Whether `next` may follow. A failed start goes straight to `Cleaning`, and terminal states keep.
    pub(crate) fn may_become(self, next: Self) -> bool {
        use ServiceState as S;
        match self {
            S::Registered => matches!(next, S::Initialising),
            S::Initialising => matches!(next, S::Ready | S::Cleaning | S::Lost),
            S::Ready => matches!(next, S::Stopping | S::Lost),
            S::Stopping => matches!(next, S::Cleaning | S::Lost),
            S::Cleaning => matches!(next, S::Cleaned | S::CleanupFailed | S::Abandoned | S::Lost),
            S::Cleaned | S::CleanupFailed | S::Abandoned | S::Lost => false,
        }
    }
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "registered",
            Self::Initialising => "initialising",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Cleaning => "cleaning",
            Self::Cleaned => "cleaned",
            Self::CleanupFailed => "cleanup failed",
            Self::Abandoned => "abandoned",
            Self::Lost => "lost",
        })
    }
}
