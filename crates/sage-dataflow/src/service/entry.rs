//! One registered service: what was declared of it, its value, and its life.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::call_error::CallError;
use super::gate::{CallCounts, Gate};
use super::histogram::Histogram;
use super::instance::Instance;
use super::life::Life;
use super::policy::{PolicyState, Told};
use super::report::ServiceReport;
use super::state::ServiceState;
use super::{HookTimeouts, ServiceId};
use crate::BoxError;
use crate::guarded::What;
use crate::runtime::JobRuntime;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Tells where the calls of a service are.
pub(super) type CallsProbe = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// One registered service.
pub(crate) struct ServiceEntry {
    pub(crate) id: ServiceId,
    pub(crate) name: String,
    pub(crate) after: Vec<String>,
    pub(crate) timeouts: HookTimeouts,
    /// What the calls share of a service that has a policy.
    pub(crate) policy: Option<Arc<PolicyState>>,
    /// Tells of the calls, if a pipeline answers them.
    pub(crate) pipeline: Option<Arc<dyn Told>>,
    pub(crate) latency: Histogram,
    /// What calls have begun that goes on though they are over.
    pub(super) ongoing: AtomicU64,
    pub(crate) instance: Box<dyn Instance>,
    /// Tells where calls are that have not ended when the service stops.
    pub(crate) calls_probe: Mutex<Option<CallsProbe>>,
    pub(crate) type_name: &'static str,
    /// The `Arc<Cell<S>>` behind the instance, for look-up by name.
    pub(crate) cell: Arc<dyn Any + Send + Sync>,
    pub(super) life: Life,
    /// What was measured in this run.
    pub(super) run: Mutex<Measured>,
}

/// What one run has measured of a service, besides what its gate counts over all runs.
#[derive(Default)]
pub(crate) struct Measured {
    /// What the gate had counted before.
    before: CallCounts,
    pub(crate) setup: Option<Duration>,
    pub(crate) cleanup: Option<Duration>,
    /// Calls that were inside when it was given up.
    pub(crate) calls_inside: u64,
    /// How processes were lost whose place another has taken.
    pub(crate) lost: Vec<String>,
}

impl ServiceEntry {
    pub(crate) fn state(&self) -> ServiceState {
        self.life.state()
    }

    /// Moves to `next`, and says whether that was a legal step; an illegal one changes nothing.
    pub(crate) fn advance(&self, next: ServiceState) -> bool {
        let advanced = self.life.advance(next);
        let serves = matches!(next, ServiceState::Initialising | ServiceState::Ready);
        if let Some(policy) = self.policy.as_ref().filter(|_| advanced && !serves) {
            policy.stops();
        }
        advanced
    }

    pub(crate) fn gate(&self) -> &Gate {
        self.life.gate()
    }

    /// Back to `Registered`, for another run.
    pub(crate) fn reset(&self) {
        self.life.reset();
        self.gate().forget_callers();
        self.latency.clear();
        self.policy.iter().for_each(|policy| policy.reset());
        *lock(&self.run) = Measured { before: self.gate().counts(), ..Measured::default() };
    }

    /// Something was measured in this run.
    pub(crate) fn measure(&self, note: impl FnOnce(&mut Measured)) {
        note(&mut lock(&self.run));
    }

    /// The figures of this run so far.
    pub(crate) fn report(&self) -> ServiceReport {
        let (state, run) = (self.state(), lock(&self.run));
        // In this order: a call that ends meanwhile is not counted twice.
        let counts = self.gate().counts();
        let calls_inside = match state {
            ServiceState::Ready | ServiceState::Stopping => self.gate().inside(),
            _ => run.calls_inside,
        };
        // Those are counted already.
        let ongoing = self.ongoing.load(Ordering::Relaxed);
        ServiceReport {
            name: self.name.clone(),
            state,
            calls: counts.calls - run.before.calls + calls_inside,
            calls_inside: calls_inside + ongoing,
            errors: counts.errors - run.before.errors,
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
            setup: run.setup,
            cleanup: run.cleanup,
            lost: run.lost.clone(),
            policy: self.policy.as_ref().map(|policy| policy.report()),
            pipeline: self.pipeline.as_ref().map(|pipeline| pipeline.report()),
        }
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
