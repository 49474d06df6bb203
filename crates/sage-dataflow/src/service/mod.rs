//! Services: operators call them. They start before the first record and are cleaned after the last.
//!
//! [`Service`] is the trait for blocking hooks, [`AsyncService`] for async ones. The dispatcher drives a private,
//! erased form of both (`instance`). Operators reach a service through a [`ServiceHandle`].
//!
//! Knows nothing of streams and tasks.

mod begun;
mod builder;
mod call_error;
mod caller;
mod entry;
mod gate;
mod handle;
mod histogram;
mod instance;
mod life;
pub(crate) mod order;
mod policy;
mod registry;
mod report;
mod state;
mod uses;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use begun::BegunCall;
pub use builder::{Dependency, PolicyServiceBuilder, ServiceBuilder};
pub use call_error::CallError;
pub(crate) use caller::Within;
pub(crate) use entry::ServiceEntry;
pub use handle::{Called, OngoingCall, ServiceHandle, ServiceRef};
pub(crate) use instance::{Blocking, Futures, HookEnd, HookFailure, Typed, both};
pub use policy::with_deadline;
pub(crate) use policy::{AT_ONCE, Incoming, PauseJob, Pipeline, Served};
pub use policy::{Asked, Asker, PipelineReport, Serves, Unanswered};
pub use policy::{
    Batch, Batching, Cache, CacheFigures, CallPolicy, Calling, Codec, FlightFigures, FullDisk, Journal, JournalFigures,
    Keep, KeptFigures, MadeAgain, Method, MethodBuilder, Policy, PolicyReport, PolicyService, Refusal, ServiceError,
    StoreError, Verdict, WhenInUse, WrongCount,
};
pub use policy::{Breaker, BreakerFigures, BreakerState, RetryBudget, RetryFigures};
pub use policy::{Concurrency, ConcurrencyFigures, Rate, RateFigures, Spend, Tally, TallyFigures, Usage};
pub(crate) use registry::{Registry, StartEnded};
pub use report::ServiceReport;
use serde::{Deserialize, Serialize};
pub use state::ServiceState;

use crate::control::StopReason;
use crate::{BoxError, sync};

/// Names a service within its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ServiceId(pub(crate) u32);

/// A value that operators call, and whose life the engine manages.
///
/// The order is: constructor, `setup`, calls, `stop`, the last calls end, `cleanup`, drop. Every hook runs on its own
/// thread, under a deadline. If one fails, panics or hangs, the hooks of other services still run. `cleanup` runs
/// exactly once for every service whose constructor returned, even when `setup` failed.
///
/// ```
/// use std::sync::Mutex;
/// use sage::{BoxError, Environment, HookContext, Service};
///
/// #[derive(Default)]
/// struct Memory(Mutex<Vec<String>>);
///
/// impl Memory {
///     fn remember(&self, word: &str) {
///         self.0.lock().expect("no call panics").push(word.to_owned());
///     }
/// }
///
/// impl Service for Memory {
///     fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
///         println!("{} words forgotten", self.0.lock().expect("no call panics").len());
///         Ok(())
///     }
/// }
///
/// let env = Environment::local("words");
/// let memory = env.register_service("memory", Memory::default).build();
/// env.from_iter(["a", "b"]).try_sink(move |word| memory.call(|memory| memory.remember(word)));
/// let report = env.run()?;
/// assert_eq!(report.services[0].state, sage::ServiceState::Cleaned);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Service: Send + Sync + 'static {
    /// Acquires the resources of the service. Calls come only after it has returned.
    fn setup(&self, cx: &HookContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Returns an error if the service is not working properly. [`JobView::health`](crate::JobView::health) calls
    /// it.
    fn health(&self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Makes running calls end soon; new calls are refused already. Does not run when `setup` failed.
    fn stop(&self, cx: &HookContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Releases the resources that `setup` and the calls acquired.
    fn cleanup(&self, cx: &HookContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// [`Service`] with async hooks, run on the job's own tokio runtime. A hook past its deadline is dropped at its next
/// `await`.
///
/// ```
/// use sage::{AsyncService, BoxError, Environment, HookContext};
///
/// struct Remote;
///
/// impl AsyncService for Remote {
///     async fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
///         // connect
///         Ok(())
///     }
/// }
///
/// let env = Environment::local("remote");
/// let remote = env.register_async_service("remote", || Remote).build();
/// env.from_iter(0..3)
///     .try_map(move |n| remote.call_blocking(|_remote| async move { n + 1 }))
///     .sink(|_n| {});
/// env.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AsyncService: Send + Sync + 'static {
    /// As [`Service::setup`].
    fn setup(&self, cx: &HookContext) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// As [`Service::health`].
    fn health(&self) -> impl Future<Output = Result<(), BoxError>> + Send {
        async { Ok(()) }
    }

    /// As [`Service::stop`].
    fn stop(&self, cx: &HookContext) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// As [`Service::cleanup`].
    fn cleanup(&self, cx: &HookContext) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = cx;
        async { Ok(()) }
    }
}

/// A part of a service's life that runs the user's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hook {
    /// The constructor.
    Constructor,
    /// `setup`.
    Setup,
    /// `stop`, and the end of the running calls.
    Stop,
    /// `cleanup`, and the actions registered with [`HookContext::on_cleanup`].
    Cleanup,
    /// The actions registered with [`HookContext::on_cleanup`], when `cleanup` did not return by its deadline.
    OnCleanup,
    /// Dropping the service's value.
    Drop,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Constructor => "constructor",
            Self::Setup => "setup",
            Self::Stop => "stop",
            Self::Cleanup => "cleanup",
            Self::OnCleanup => "on_cleanup",
            Self::Drop => "drop",
        })
    }
}

type CleanupAction = Box<dyn FnOnce() + Send>;

/// What undoes the steps of one start of a service; `None` once the cleanup has run them.
struct CleanupActions(Mutex<Option<Vec<CleanupAction>>>);

impl Default for CleanupActions {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl CleanupActions {
    /// Keeps an action for the cleanup, or gives it back if that has been.
    fn keep(&self, action: CleanupAction) -> Option<CleanupAction> {
        match &mut *sync::lock(&self.0) {
            Some(actions) => {
                actions.push(action);
                None
            }
            None => Some(action),
        }
    }

    /// Whether there is an action to be run.
    fn are_owed(&self) -> bool {
        sync::lock(&self.0).as_ref().is_some_and(|actions| !actions.is_empty())
    }

    /// The action registered last, to be run; `None` when there is none, and from then on none is kept.
    fn next_or_close(&self) -> Option<CleanupAction> {
        let mut actions = sync::lock(&self.0);
        let next = actions.as_mut().and_then(Vec::pop);
        if next.is_none() {
            *actions = None;
        }
        next
    }
}

/// The argument of a hook: why the job stops, and by when the hook has to end.
#[derive(Clone)]
pub struct HookContext {
    reason: Option<StopReason>,
    deadline: Instant,
    actions: Arc<CleanupActions>,
}

impl std::fmt::Debug for HookContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookContext").field("reason", &self.reason).field("deadline", &self.deadline).finish()
    }
}

impl HookContext {
    /// Why the job stops; `None` in the constructor and in `setup`.
    pub fn reason(&self) -> Option<&StopReason> {
        self.reason.as_ref()
    }

    /// The moment at which the engine gives up the hook and abandons its service.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time left until the deadline; zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Registers an action that releases a resource just acquired. Actions run once, after `cleanup`, the last
    /// registered first. They run in every case, even if the constructor or `setup` then fails. If the cleanup has run
    /// already, because a constructor overran its deadline, the action runs at once.
    pub fn on_cleanup(&self, action: impl FnOnce() + Send + 'static) {
        if let Some(too_late) = self.actions.keep(Box::new(action)) {
            too_late();
        }
    }
}

/// How long each hook of a service may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HookTimeouts {
    pub(crate) setup: Duration,
    pub(crate) stop: Duration,
    pub(crate) cleanup: Duration,
    /// How much longer a hook takes at most that ends by itself at its deadline.
    pub(crate) grace: Duration,
}

/// The error of a hook that did not end by its deadline and was ended, together with all that it could leave behind:
/// that of a service in a process of its own, which is killed. The service becomes [`ServiceState::Abandoned`], and the
/// job may be clean all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HookEnded(pub String);
