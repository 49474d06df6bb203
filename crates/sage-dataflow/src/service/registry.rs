//! The services of an environment, and who uses whom in the run in progress.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::ServiceId;
use super::call_error::CallError;
use super::caller::Within;
use super::entry::ServiceEntry;
use super::instance::HookEnd;
use super::order::declared;
use super::policy::PauseJob;
use super::state::ServiceState;
use super::uses::Uses;
use crate::control::JobControl;
use crate::guarded::drop_guarded;
use crate::runtime::JobRuntime;
use crate::sync::{Mutex, PoisonError, lock};

/// Told how a service came up that a nested call has started.
pub(crate) type StartEnded = Arc<dyn Fn(ServiceId, HookEnd) + Send + Sync>;

/// The services of one environment.
pub(crate) struct Registry {
    services: Mutex<Services>,
    /// Who uses whom in the run in progress.
    uses: Mutex<Uses>,
    /// The services of the run in progress that are pipelines.
    pipelines: Mutex<Vec<ServiceId>>,
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
    runtime: Arc<JobRuntime>,
    /// Where hooks run on the dispatcher's own thread, and a nested call has to start what it calls itself.
    inline: Option<StartEnded>,
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            services: Mutex::default(),
            uses: Mutex::default(),
            pipelines: Mutex::default(),
            run: Mutex::default(),
        })
    }

    pub(crate) fn all(&self) -> Vec<Arc<ServiceEntry>> {
        lock(&self.services).all.clone()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<ServiceEntry>> {
        let services = lock(&self.services);
        services.by_name.get(name).map(|&number| services.all[number].clone())
    }

    /// Adds the service that `make` makes of its number.
    pub(super) fn add(&self, make: impl FnOnce(ServiceId) -> Arc<ServiceEntry>) -> Arc<ServiceEntry> {
        let mut services = lock(&self.services);
        let number = services.all.len();
        let entry = make(ServiceId(u32::try_from(number).expect("fewer than four thousand million services")));
        services.by_name.entry(entry.name.clone()).or_insert(number);
        services.all.push(entry.clone());
        entry
    }

    /// A run of these services begins. `inline` is given where their hooks run on the dispatcher's own thread.
    pub(crate) fn begin(
        &self,
        services: &[Arc<ServiceEntry>],
        pipelines: Vec<ServiceId>,
        control: &Arc<JobControl>,
        pause: &PauseJob,
        runtime: Arc<JobRuntime>,
        inline: Option<StartEnded>,
    ) {
        *lock(&self.uses) = Uses::new(declared(services));
        *lock(&self.pipelines) = pipelines;
        services
            .iter()
            .filter_map(|entry| entry.policy.as_ref())
            .for_each(|policy| policy.begin(control, &runtime, pause));
        *lock(&self.run) = Some(Run { runtime, inline });
    }

    /// Tells whoever waits for a service to start that it will not.
    pub(crate) fn no_more_starts(&self) {
        lock(&self.services).all.iter().for_each(|entry| entry.life.no_start());
    }

    pub(crate) fn end(&self) {
        *lock(&self.run) = None;
        self.all().iter().filter_map(|entry| entry.policy.as_ref()).for_each(|policy| policy.end());
    }

    pub(crate) fn runtime(&self) -> Option<Arc<JobRuntime>> {
        lock(&self.run).as_ref().map(|run| run.runtime.clone())
    }

    /// The services seen to be called by others without a declared dependency: pairs of user and used, without the
    /// first `from`.
    pub(crate) fn observed_since(&self, from: usize) -> Vec<(usize, usize)> {
        lock(&self.uses).observed_since(from).to_vec()
    }

    /// Notes that `user` calls `used`, unless that would close a cycle: both serve then, and the stop order stays. But
    /// where a pipeline is part of the cycle, it would wait for itself.
    ///
    /// # Errors
    /// The names of the services of such a cycle: `user`, `used` and so on to `user` again.
    pub(crate) fn observe(&self, user: ServiceId, used: ServiceId) -> Result<(), Vec<String>> {
        let (user, used) = (user.0 as usize, used.0 as usize);
        if lock(&self.uses).observe(user, used) {
            return Ok(());
        }
        let (all, pipelines) = (self.all(), lock(&self.pipelines).clone());
        let uses = lock(&self.uses);
        let through = |pipeline: ServiceId| uses.way(used, pipeline.0 as usize, user);
        let Some(way) = pipelines.into_iter().find_map(through) else { return Ok(()) };
        Err([user].iter().chain(&way).map(|&service| all[service].name.clone()).collect())
    }

    /// Whether `user` uses `used`, directly or not.
    pub(crate) fn depends(&self, user: ServiceId, used: ServiceId) -> bool {
        lock(&self.uses).depends(user.0 as usize, used.0 as usize)
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
        if let Some(ended) = &run.inline {
            self.start_here(callee, &run.runtime, ended);
        }
        match callee.life.wait_started(run.inline.is_some()) {
            ServiceState::Ready => Ok(()),
            state => Err(refused(state)),
        }
    }

    /// Starts a service, after those it depends on, on the calling thread, which is the only one there is.
    fn start_here(&self, entry: &ServiceEntry, runtime: &JobRuntime, ended: &StartEnded) {
        for dependency in entry.after.iter().filter_map(|name| self.find(name)) {
            self.start_here(&dependency, runtime, ended);
            if dependency.state() != ServiceState::Ready {
                return;
            }
        }
        if entry.advance(ServiceState::Initialising) {
            let _within = Within::enter(entry.id);
            let end = entry.instance.start(Instant::now() + entry.timeouts.setup, runtime);
            if end.is_ok() {
                entry.advance(ServiceState::Ready);
            }
            ended(entry.id, end);
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
