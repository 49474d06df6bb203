//! [`ServiceBuilder`]: what is said of a service before it is registered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::HookTimeouts;
use super::call_error::CallError;
use super::entry::{CallsProbe, ServiceEntry};
use super::handle::ServiceHandle;
use super::histogram::Histogram;
use super::instance::{Cell, Instance};
use super::life::Life;
use super::policy::{Policy, PolicyService, PolicyState, Told};
use super::registry::Registry;
use crate::sync::{AtomicU64, FOREVER, Mutex, enable_heavy_fences};

/// A dependency of a service, given by handle or by name.
#[derive(Debug, Clone)]
pub struct Dependency(pub(crate) String);

impl<S> From<&ServiceHandle<S>> for Dependency {
    fn from(handle: &ServiceHandle<S>) -> Self {
        Self(handle.name().to_owned())
    }
}

impl From<&str> for Dependency {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

/// What can be called. Nothing implements it: it has the compiler say what a [`ServiceBuilder`] lacks.
#[diagnostic::on_unimplemented(
    message = "the service is declared, but not registered",
    label = "this is still its builder, not a handle that can be called",
    note = "end the declaration with `.build()`: `let service = env.register_service(..).build();`"
)]
pub trait IsBuilt {}

/// A service to be registered: sets its dependencies and timeouts.
#[must_use = "a service is registered by `build()`"]
pub struct ServiceBuilder<S> {
    registry: Arc<Registry>,
    name: String,
    after: Vec<String>,
    timeouts: HookTimeouts,
    calls_probe: Option<CallsProbe>,
    policy: Option<Policy>,
    pipeline: Option<Arc<dyn Told>>,
    instance: Box<dyn FnOnce(Arc<Cell<S>>) -> Box<dyn Instance>>,
}

impl<S> fmt::Debug for ServiceBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder").field("name", &self.name).field("after", &self.after).finish_non_exhaustive()
    }
}

impl<S: Send + Sync + 'static> ServiceBuilder<S> {
    pub(crate) fn new(
        registry: Arc<Registry>,
        name: String,
        timeouts: HookTimeouts,
        instance: impl FnOnce(Arc<Cell<S>>) -> Box<dyn Instance> + 'static,
    ) -> Self {
        Self {
            registry,
            name,
            after: Vec::new(),
            timeouts,
            calls_probe: None,
            policy: None,
            pipeline: None,
            instance: Box::new(instance),
        }
    }

    /// Declares that this service uses another, given by handle or by name. This one then starts after the other, and
    /// is cleaned before it.
    pub fn after(mut self, dependency: impl Into<Dependency>) -> Self {
        self.after.push(dependency.into().0);
        self
    }

    /// Sets a function that tells where calls are stuck, for hosts that make calls on threads of their own. When calls
    /// have not ended within [`stop_timeout`](Self::stop_timeout), the engine adds the indented lines that `probe`
    /// returns to the report. The probe runs as that of [`Environment::where_stuck`](crate::Environment::where_stuck)
    /// does.
    pub fn where_calls_stuck(mut self, probe: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.calls_probe = Some(Arc::new(probe));
        self
    }

    /// Sets how long the constructor and `setup` may take together. Default:
    /// [`Deadlines::setup`](crate::Deadlines::setup).
    pub fn setup_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.setup = timeout.min(FOREVER);
        self
    }

    /// Sets how long `stop` and the end of the running calls may take. Default:
    /// [`Deadlines::stop`](crate::Deadlines::stop).
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.stop = timeout.min(FOREVER);
        self
    }

    /// Sets how long `cleanup` may take. Default: [`Deadlines::cleanup`](crate::Deadlines::cleanup).
    pub fn cleanup_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.cleanup = timeout.min(FOREVER);
        self
    }

    /// Says that a hook past its deadline ends by itself, at most so much later, and that the engine is to wait for
    /// that: as that of a service in a process of its own, which is killed then. Such a hook returns
    /// [`HookEnded`](crate::HookEnded). Default: zero.
    pub fn hooks_end_within(mut self, grace: Duration) -> Self {
        self.timeouts.grace = grace.min(FOREVER);
        self
    }

    #[doc(hidden)]
    pub fn call<R>(&self, _call: impl FnOnce(&S) -> R) -> Result<R, CallError>
    where
        Self: IsBuilt,
    {
        unreachable!("no builder can be called")
    }

    #[doc(hidden)]
    pub fn try_call<R, E>(&self, _call: impl FnOnce(&S) -> Result<R, E>) -> Result<R, CallError>
    where
        Self: IsBuilt,
    {
        unreachable!("no builder can be called")
    }

    /// Gives the service a policy for its calls. They are made through [methods](PolicyService::method) then, and in no
    /// other way.
    pub fn policy(mut self, policy: Policy) -> PolicyServiceBuilder<S> {
        self.policy = Some(policy);
        PolicyServiceBuilder(self)
    }

    /// Says that a pipeline answers the calls.
    pub(crate) fn answered_by(mut self, pipeline: Arc<dyn Told>) -> Self {
        self.pipeline = Some(pipeline);
        self
    }

    /// Registers the service and returns its handle. A name used twice is an error when the environment is submitted.
    pub fn build(self) -> ServiceHandle<S> {
        self.register().0
    }

    fn register(self) -> (ServiceHandle<S>, Option<Arc<PolicyState>>) {
        enable_heavy_fences();
        let cell = Arc::new(Cell::new());
        let instance = (self.instance)(cell.clone());
        let Self { registry, name, after, timeouts, calls_probe, policy, pipeline, .. } = self;
        let policy = policy.map(|policy| Arc::new(PolicyState::new(policy)));
        let entry = registry.add(|id| {
            Arc::new(ServiceEntry {
                id,
                name,
                after,
                timeouts,
                calls_probe: Mutex::new(calls_probe),
                policy: policy.clone(),
                pipeline,
                latency: Histogram::new(),
                ongoing: AtomicU64::new(0),
                instance,
                type_name: std::any::type_name::<S>(),
                cell: cell.clone(),
                life: Life::new(),
                run: Mutex::default(),
            })
        });
        (ServiceHandle::new(entry, cell, registry), policy)
    }
}

/// A service with a policy, to be registered.
#[must_use = "a service is registered by `build()`"]
#[derive(Debug)]
pub struct PolicyServiceBuilder<S>(ServiceBuilder<S>);

impl<S: Send + Sync + 'static> PolicyServiceBuilder<S> {
    /// Registers the service. A name used twice, and settings that cannot be, are errors when the environment is
    /// submitted.
    pub fn build(self) -> PolicyService<S> {
        let (handle, policy) = self.0.register();
        PolicyService::new(handle, policy.expect("it was given one"))
    }
}
