//! The services of an environment: their declarations and states, and a thread-local note of the calling service, which
//! shows undeclared dependencies.

use std::cell::Cell as ThreadCell;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::gate::Gate;
use super::handle::{CallError, ServiceHandle};
use super::histogram::Histogram;
use super::instance::{Cell, Instance};
use super::life::Life;
use super::order::declared;
use super::uses::Uses;
use super::{HookTimeouts, ServiceId, ServiceState};
use crate::BoxError;
use crate::backend::{Event, EventSender};
use crate::guarded::{What, drop_guarded};
use crate::runtime::JobRuntime;
use crate::sync::{FOREVER, Mutex, PoisonError, enable_heavy_fences, lock};

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

/// Tells where the calls of a service are.
type CallsProbe = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// One registered service.
pub(crate) struct ServiceEntry {
    pub(crate) id: ServiceId,
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    pub(crate) timeouts: HookTimeouts,
    pub(crate) latency: Histogram,
    pub(crate) instance: Box<dyn Instance>,
    /// Tells where calls are that have not ended when the service stops.
    pub(crate) calls_probe: Mutex<Option<CallsProbe>>,
    pub(crate) type_name: &'static str,
    /// The `Arc<Cell<S>>` behind the instance, for look-up by name.
    pub(crate) cell: Arc<dyn std::any::Any + Send + Sync>,
    life: Life,
}

impl ServiceEntry {
    pub(crate) fn state(&self) -> ServiceState {
        self.life.state()
    }

    /// Moves to `next`, and says whether that was a legal step; an illegal one changes nothing.
    pub(crate) fn advance(&self, next: ServiceState) -> bool {
        self.life.advance(next)
    }

    pub(crate) fn gate(&self) -> &Gate {
        self.life.gate()
    }

    /// Back to `Registered`, for another run.
    pub(crate) fn reset(&self) {
        self.life.reset();
        self.latency.clear();
    }

    /// Runs the service's `health`, if it is serving.
    pub(crate) fn health(&self, runtime: &JobRuntime) -> Result<(), CallError> {
        let service = || self.name.clone();
        let refused = || CallError::NotServing { service: service(), state: self.state() };
        // The guard inside keeps a panic from skipping the way out of the gate.
        match self.life.gate().pass(|| self.instance.health(runtime)).ok_or_else(refused)? {
            Ok(()) => Ok(()),
            Err(What::Error { error, .. }) => Err(CallError::Failed { service: service(), source: error }),
            Err(What::Panic(message)) => {
                let source = BoxError::from(format!("its health check panicked: {message}"));
                Err(CallError::Failed { service: service(), source: source.into() })
            }
        }
    }
}

/// The services of one environment.
pub(crate) struct Registry {
    services: Mutex<Services>,
    /// Who uses whom in the run in progress.
    uses: Mutex<Uses>,
    run: Mutex<Option<Run>>,
}

#[derive(Default)]
struct Services {
    /// In the order in which they were registered.
    all: Vec<Arc<ServiceEntry>>,
    /// The first of each name.
    by_name: HashMap<String, usize>,
}

/// The run in progress, as a nested call needs it.
#[derive(Clone)]
struct Run {
    events: EventSender,
    runtime: Arc<JobRuntime>,
    /// Hooks run on the dispatcher's own thread.
    inline: bool,
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { services: Mutex::default(), uses: Mutex::default(), run: Mutex::default() })
    }

    pub(crate) fn all(&self) -> Vec<Arc<ServiceEntry>> {
        lock(&self.services).all.clone()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<ServiceEntry>> {
        let services = lock(&self.services);
        services.by_name.get(name).map(|&number| services.all[number].clone())
    }

    /// A run of these services begins.
    pub(crate) fn begin(
        &self,
        services: &[Arc<ServiceEntry>],
        events: EventSender,
        runtime: Arc<JobRuntime>,
        inline: bool,
    ) {
        *lock(&self.uses) = Uses::new(declared(services));
        *lock(&self.run) = Some(Run { events, runtime, inline });
    }

    /// Tells whoever waits for a service to start that it will not.
    pub(crate) fn no_more_starts(&self) {
        lock(&self.services).all.iter().for_each(|entry| entry.life.no_start());
    }

    pub(crate) fn end(&self) {
        *lock(&self.run) = None;
    }

    pub(crate) fn runtime(&self) -> Option<Arc<JobRuntime>> {
        lock(&self.run).as_ref().map(|run| run.runtime.clone())
    }

    /// The services seen to be called by others without a declared dependency: pairs of user and used, without the
    /// first `from`.
    pub(crate) fn observed_since(&self, from: usize) -> Vec<(usize, usize)> {
        lock(&self.uses).observed_since(from).to_vec()
    }

    /// Notes that `user` calls `used`, unless that would close a cycle: both serve then, and the stop order stays.
    pub(crate) fn observe(&self, user: ServiceId, used: ServiceId) {
        lock(&self.uses).observe(user.0 as usize, used.0 as usize);
    }

    /// Whether a job runs that this service is not part of, as it was registered when the job had begun.
    pub(crate) fn is_late(&self, service: ServiceId) -> bool {
        let runs = lock(&self.run).is_some();
        runs && !lock(&self.uses).has(service.0 as usize)
    }

    /// A call by `caller`'s hook to a service that does not serve yet: waits until it does. The dispatcher starts every
    /// service as soon as those it depends on are ready, so there is nothing to ask for. The wait ends with the start,
    /// or when the job gives up starting services; the caller's own deadline makes it do so.
    pub(crate) fn start_for(&self, caller: ServiceId, callee: &ServiceEntry) -> Result<(), CallError> {
        let refused = |state| CallError::NotServing { service: callee.name.clone(), state };
        if caller == callee.id || lock(&self.uses).depends(callee.id.0 as usize, caller.0 as usize) {
            return Err(CallError::CyclicCall { service: callee.name.clone() });
        }
        let run = lock(&self.run).clone().ok_or_else(|| refused(callee.state()))?;
        if run.inline {
            self.start_here(callee, &run);
        }
        match callee.life.wait_started(run.inline) {
            ServiceState::Ready => Ok(()),
            state => Err(refused(state)),
        }
    }

    /// Starts a service, after those it depends on, on the calling thread, which is the only one there is.
    fn start_here(&self, entry: &ServiceEntry, run: &Run) {
        for dependency in entry.after.iter().filter_map(|name| self.find(name)) {
            self.start_here(&dependency, run);
            if dependency.state() != ServiceState::Ready {
                return;
            }
        }
        if entry.advance(ServiceState::Initialising) {
            let _within = Within::enter(entry.id);
            let end = entry.instance.start(Instant::now() + entry.timeouts.setup, &run.runtime);
            if end.is_ok() {
                entry.advance(ServiceState::Ready);
            }
            run.events.send(Event::StartEnded { service: entry.id, end });
        }
    }
}

impl Drop for Registry {
    /// Lets go of what the services were declared with, one by one: a constructor may hold the handle of another
    /// service, or of its own, so that they would keep each other, or be dropped one inside the other.
    fn drop(&mut self) {
        let services = self.services.get_mut().unwrap_or_else(PoisonError::into_inner);
        for entry in std::mem::take(&mut services.all) {
            entry.instance.retire();
            let probe = lock(&entry.calls_probe).take();
            drop_guarded(None, move || drop(probe));
        }
    }
}

/// What the calling thread is, to a gate and to the registry.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    /// Unique among all threads there ever were; `None` for a call that may end on another thread.
    pub(crate) thread: Option<NonZeroU64>,
    /// The service whose hook or method is running.
    pub(crate) service: Option<ServiceId>,
}

const NO_SERVICE: u32 = u32::MAX;
static NEXT_THREAD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THREAD: ThreadCell<u64> = const { ThreadCell::new(0) };
    static SERVICE: ThreadCell<u32> = const { ThreadCell::new(NO_SERVICE) };
}

impl Caller {
    #[inline]
    pub(crate) fn current() -> Self {
        let thread = Some(NonZeroU64::new(THREAD.get()).unwrap_or_else(Self::number));
        let service = SERVICE.get();
        Self { thread, service: (service != NO_SERVICE).then_some(ServiceId(service)) }
    }

    #[cold]
    fn number() -> NonZeroU64 {
        let thread = NonZeroU64::MIN.saturating_add(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
        THREAD.set(thread.get());
        thread
    }
}

/// Marks the calling thread as running code of a service, until it is dropped.
pub(crate) struct Within(u32);

impl Within {
    #[inline]
    pub(crate) fn enter(service: ServiceId) -> Self {
        Self(SERVICE.replace(service.0))
    }
}

impl Drop for Within {
    #[inline]
    fn drop(&mut self) {
        SERVICE.set(self.0);
    }
}

/// A service to be registered: sets its dependencies and timeouts.
#[must_use = "a service is registered by `build()`"]
pub struct ServiceBuilder<S> {
    registry: Arc<Registry>,
    name: String,
    after: Vec<String>,
    timeouts: HookTimeouts,
    calls_probe: Option<CallsProbe>,
    instance: Box<dyn FnOnce(Arc<Cell<S>>) -> Box<dyn Instance>>,
}

impl<S: Send + Sync + 'static> ServiceBuilder<S> {
    pub(crate) fn new(
        registry: Arc<Registry>,
        name: String,
        timeouts: HookTimeouts,
        instance: impl FnOnce(Arc<Cell<S>>) -> Box<dyn Instance> + 'static,
    ) -> Self {
        Self { registry, name, after: Vec::new(), timeouts, calls_probe: None, instance: Box::new(instance) }
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

    /// Registers the service and returns its handle. A name used twice is an error when the environment is submitted.
    pub fn build(self) -> ServiceHandle<S> {
        enable_heavy_fences();
        let cell = Arc::new(Cell::new());
        let instance = (self.instance)(cell.clone());
        let mut services = lock(&self.registry.services);
        let number = services.all.len();
        let id = ServiceId(u32::try_from(number).expect("fewer than four thousand million services"));
        services.by_name.entry(self.name.clone()).or_insert(number);
        let entry = Arc::new(ServiceEntry {
            id,
            name: self.name,
            after: self.after,
            timeouts: self.timeouts,
            calls_probe: Mutex::new(self.calls_probe),
            latency: Histogram::new(),
            instance,
            type_name: std::any::type_name::<S>(),
            cell: cell.clone(),
            life: Life::new(),
        });
        services.all.push(entry.clone());
        drop(services);
        ServiceHandle::new(entry, cell, self.registry)
    }
}
