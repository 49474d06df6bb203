//! Why a call of a service did not give a result.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::policy::{Refusal, StoreError};
use super::state::ServiceState;
use crate::SharedError;
use crate::error::WaitCancelled;

/// Why a call of a service gave no result.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CallError {
    /// The service has not started, or is stopping or gone.
    NotServing {
        /// The service.
        service: String,
        /// The service's state at the call.
        state: ServiceState,
    },
    /// No service of this name is registered.
    Unknown {
        /// The name that was asked for.
        service: String,
        /// A registered name that is similar.
        similar: Option<String>,
    },
    /// The service of this name has another type.
    WrongType {
        /// The service.
        service: String,
        /// The type that was asked for.
        expected: &'static str,
        /// The type it has.
        actual: &'static str,
    },
    /// The service was registered after the job had begun, and is not part of it.
    RegisteredLate {
        /// The service.
        service: String,
    },
    /// A service that is starting called a service that waits for it to start.
    CyclicCall {
        /// The service that was called.
        service: String,
    },
    /// The call would have a pipeline that is a service wait for itself.
    ReachesItself {
        /// The service that was called.
        service: String,
        /// Who calls whom: the caller first, then the service, and so on to the caller again.
        way: Vec<String>,
    },
    /// The service's method returned an error.
    Failed {
        /// The service.
        service: String,
        /// The error it returned.
        source: SharedError,
    },
    /// The service's policy did not let the call through.
    Refused {
        /// The service.
        service: String,
        /// The reason.
        refusal: Refusal,
    },
    /// The last attempt took longer than it might.
    TimedOut {
        /// The service.
        service: String,
        /// How long an attempt may take.
        timeout: Duration,
        /// How many attempts were made.
        attempts: u32,
    },
    /// The call's deadline came before its answer; or would have, after the wait that was due before another attempt.
    PastDeadline {
        /// The service.
        service: String,
        /// The error of the last attempt that ended.
        source: Option<SharedError>,
    },
    /// The job was cancelled, or the service stopped, while the call waited.
    Ended {
        /// The service.
        service: String,
    },
    /// The answer could not be kept, or one that was kept could not be read.
    Store {
        /// The service.
        service: String,
        /// The reason.
        source: Arc<StoreError>,
    },
    /// The call cannot wait for a future here: the job's async runtime is missing, or the thread must not block.
    Runtime {
        /// The service.
        service: String,
        /// The reason.
        source: SharedError,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotServing { service, state } => write!(f, "service `{service}` is not serving: it is {state}"),
            Self::Unknown { service, similar } => {
                write!(f, "no service named `{service}` is registered{}", close_to(similar))
            }
            Self::WrongType { service, expected, actual } => {
                write!(f, "service `{service}` is a `{actual}`, not a `{expected}`")
            }
            Self::RegisteredLate { service } => {
                write!(
                    f,
                    "service `{service}` was registered while the job runs; it starts with the environment's next job"
                )
            }
            Self::CyclicCall { service } => {
                write!(f, "service `{service}` waits for the service that calls it, and neither has started")
            }
            Self::ReachesItself { service, way } => {
                let way = way.join(" → ");
                write!(f, "service `{service}` was not called: a pipeline would wait for itself, by {way}")
            }
            Self::Failed { service, .. } => write!(f, "service `{service}` failed"),
            Self::Refused { service, refusal } => write!(f, "service `{service}` was not called: {refusal}"),
            Self::TimedOut { service, timeout, attempts: 1 } => {
                write!(f, "service `{service}` did not answer within {timeout:?}")
            }
            Self::TimedOut { service, timeout, attempts } => {
                write!(f, "service `{service}` did not answer within {timeout:?}, the last of {attempts} times")
            }
            Self::PastDeadline { service, .. } => {
                write!(f, "a call to service `{service}` had no answer by its deadline")
            }
            Self::Ended { service } => write!(f, "a call to service `{service}` ended before its answer came"),
            Self::Store { service, .. } => write!(f, "the answers of service `{service}` cannot be kept"),
            Self::Runtime { service, .. } => write!(f, "a call to service `{service}` cannot be awaited here"),
        }
    }
}

impl Error for CallError {
    // By hand, as a derived one gives out the `Arc`, from which the user's own error cannot be downcast.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed { source, .. } | Self::Runtime { source, .. } => Some(source.as_ref()),
            Self::PastDeadline { source: Some(source), .. } => Some(source.as_ref()),
            Self::Store { source, .. } => Some(&**source),
            // Operators know it by this.
            Self::Ended { .. } => Some(&WaitCancelled),
            _ => None,
        }
    }
}

fn close_to(similar: &Option<String>) -> String {
    similar.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}
