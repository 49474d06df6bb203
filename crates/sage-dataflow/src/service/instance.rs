//! The erased form of a service: its constructor, its hooks, and its value while it lives.
//!
//! Invariants:
//!  1. The value is published (`cell`) before the gate opens and freed after the gate is closed and empty. Where calls
//!     never leave, the value is leaked, not freed under them.
//!  2. Who runs the cleanup of an attempt is decided under one lock: a stuck `stop` that comes back late finds it
//!     taken; a constructor that comes back after its service was given up finds that nobody cleaned its value, and
//!     does.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use super::{AsyncService, CleanupActions, Hook, HookContext, HookEnded, Service};
use crate::BoxError;
use crate::control::StopReason;
use crate::guarded::{What, drop_guarded, guard};
use crate::runtime::{HookTimedOut, JobRuntime};
use crate::sync::{Mutex, lock};

/// How a hook came out.
pub(crate) type HookEnd = Result<(), HookFailure>;

/// What kept a hook from ending well.
#[derive(Debug, Clone)]
pub(crate) struct HookFailure {
    pub(crate) hook: Hook,
    pub(crate) what: What,
    /// The hook was cut off at its deadline.
    pub(crate) timed_out: bool,
    /// Then nothing of it is left: see [`HookEnded`].
    pub(crate) is_gone: bool,
    /// What else went wrong in the same step.
    pub(crate) also: Vec<HookFailure>,
}

/// The end of a step that goes on after a failure.
pub(crate) fn both(end: HookEnd, next: HookEnd) -> HookEnd {
    match (end, next) {
        (Err(mut failure), Err(next)) => {
            failure.also.push(next);
            Err(failure)
        }
        (end, next) => end.and(next),
    }
}

/// A service as the supervisor sees it. One instance serves every run of its environment in turn.
pub(crate) trait Instance: Send + Sync {
    /// Runs the constructor and `setup`.
    fn start(&self, deadline: Instant, runtime: &JobRuntime) -> HookEnd;
    /// Runs `stop`.
    fn stop(&self, reason: &StopReason, deadline: Instant, runtime: &JobRuntime) -> HookEnd;
    /// Runs `cleanup`, if it is still owed, and what was registered with `on_cleanup`. `None` when another thread
    /// has taken it over.
    fn cleanup(&self, reason: &StopReason, deadline: Instant, runtime: &JobRuntime) -> Option<HookEnd>;
    /// Whether actions that were registered with `on_cleanup` have still to run.
    fn owes_actions(&self) -> bool;
    /// Runs what was registered with `on_cleanup`, and nothing else: `cleanup` is stuck.
    fn run_actions(&self) -> HookEnd;
    /// Frees the value. Not called where a hook or a call may still be using it: it is leaked then.
    fn free(&self) -> HookEnd;
    /// Runs `health`.
    fn health(&self, runtime: &JobRuntime) -> Result<(), What>;
    /// Whether a hook past its deadline ends by itself.
    fn ends_itself(&self) -> bool;
    /// Drops the constructor: no job will start it any more.
    fn retire(&self);
}

/// A service's value, reachable by its handles.
#[derive(Debug)]
pub(crate) struct Cell<S>(AtomicPtr<S>);

impl<S> Cell<S> {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// # Safety
    /// The caller is inside the service's open gate, and stays there for as long as it uses the reference.
    #[inline]
    pub(crate) unsafe fn get<'a>(&self) -> &'a S {
        let value = self.0.load(Ordering::Acquire);
        debug_assert!(!value.is_null(), "an open gate has a value behind it");
        // SAFETY: published before the gate opened, freed after it is closed and empty; the caller is inside.
        unsafe { &*value }
    }
}

/// Runs the hooks of one kind of service.
pub(crate) trait Hooks<S>: Send + Sync {
    fn setup(&self, service: &S, cx: &HookContext, runtime: &JobRuntime) -> Result<(), BoxError>;
    fn stop(&self, service: &S, cx: &HookContext, runtime: &JobRuntime) -> Result<(), BoxError>;
    fn cleanup(&self, service: &S, cx: &HookContext, runtime: &JobRuntime) -> Result<(), BoxError>;
    fn health(&self, service: &S, runtime: &JobRuntime) -> Result<(), BoxError>;
    /// Whether a hook past its deadline is dropped, and so ends by itself.
    fn ends_itself(&self) -> bool;
}

/// Hooks that block.
pub(crate) struct Blocking;

impl<S: Service> Hooks<S> for Blocking {
    fn setup(&self, service: &S, cx: &HookContext, _runtime: &JobRuntime) -> Result<(), BoxError> {
        service.setup(cx)
    }
    fn stop(&self, service: &S, cx: &HookContext, _runtime: &JobRuntime) -> Result<(), BoxError> {
        service.stop(cx)
    }
    fn cleanup(&self, service: &S, cx: &HookContext, _runtime: &JobRuntime) -> Result<(), BoxError> {
        service.cleanup(cx)
    }
    fn health(&self, service: &S, _runtime: &JobRuntime) -> Result<(), BoxError> {
        service.health()
    }
    fn ends_itself(&self) -> bool {
        false
    }
}

/// Hooks that are futures, driven on the job's runtime.
pub(crate) struct Futures;

impl<S: AsyncService> Hooks<S> for Futures {
    fn setup(&self, service: &S, cx: &HookContext, runtime: &JobRuntime) -> Result<(), BoxError> {
        runtime.drive(cx.deadline, service.setup(cx))
    }
    fn stop(&self, service: &S, cx: &HookContext, runtime: &JobRuntime) -> Result<(), BoxError> {
        runtime.drive(cx.deadline, service.stop(cx))
    }
    fn cleanup(&self, service: &S, cx: &HookContext, runtime: &JobRuntime) -> Result<(), BoxError> {
        runtime.drive(cx.deadline, service.cleanup(cx))
    }
    fn health(&self, service: &S, runtime: &JobRuntime) -> Result<(), BoxError> {
        runtime.drive(Instant::now() + HEALTH_TIMEOUT, service.health())
    }
    fn ends_itself(&self) -> bool {
        true
    }
}

const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type Constructor<S> = dyn Fn(&HookContext) -> Result<S, BoxError> + Send + Sync;

/// A registered service of type `S`.
pub(crate) struct Typed<S> {
    /// `None` when the environment is gone.
    constructor: Mutex<Option<Arc<Constructor<S>>>>,
    hooks: Box<dyn Hooks<S>>,
    cell: Arc<Cell<S>>,
    attempt: Mutex<Attempt>,
}

/// One start of a service and what it owes.
#[derive(Default)]
struct Attempt {
    constructed: bool,
    cleanup_taken: bool,
    actions: Arc<CleanupActions>,
}

impl<S: Send + Sync + 'static> Typed<S> {
    pub(crate) fn new(constructor: Arc<Constructor<S>>, hooks: Box<dyn Hooks<S>>, cell: Arc<Cell<S>>) -> Self {
        let constructor = Mutex::new(Some(constructor));
        Self { constructor, hooks, cell, attempt: Mutex::default() }
    }

    fn context(&self, reason: Option<&StopReason>, deadline: Instant) -> HookContext {
        HookContext { reason: reason.cloned(), deadline, actions: lock(&self.attempt).actions.clone() }
    }

    /// The value, if the constructor of this attempt returned one.
    fn value(&self) -> Option<&S> {
        let value = self.cell.0.load(Ordering::Acquire);
        // SAFETY: only `free` frees it, and the supervisor calls that after every hook of the attempt.
        unsafe { value.as_ref() }
    }
}

fn hook_end(hook: Hook, end: Result<Result<(), BoxError>, What>) -> HookEnd {
    match end {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let is_gone = error.is::<HookEnded>();
            let timed_out = is_gone || error.is::<HookTimedOut>();
            Err(HookFailure { hook, what: What::error(error), timed_out, is_gone, also: Vec::new() })
        }
        Err(what) => Err(HookFailure { hook, what, timed_out: false, is_gone: false, also: Vec::new() }),
    }
}

/// Runs actions, the one registered last first, in the name of `hook`.
fn run_all(actions: &CleanupActions, hook: Hook, mut end: HookEnd) -> HookEnd {
    while let Some(action) = actions.next_or_close() {
        end = both(end, hook_end(hook, guard(action).map(Ok)));
    }
    end
}

impl<S: Send + Sync + 'static> Instance for Typed<S> {
    fn start(&self, deadline: Instant, runtime: &JobRuntime) -> HookEnd {
        *lock(&self.attempt) = Attempt::default();
        let cx = self.context(None, deadline);
        let mut value = None;
        let Some(constructor) = lock(&self.constructor).clone() else { return Ok(()) };
        let constructed = guard(|| constructor(&cx).map(|made| value = Some(made)));
        hook_end(Hook::Constructor, constructed)?;
        if let Some(value) = value {
            self.cell.0.store(Box::into_raw(Box::new(value)), Ordering::Release);
        }
        let given_up = {
            let mut attempt = lock(&self.attempt);
            attempt.constructed = true;
            attempt.cleanup_taken
        };
        let Some(service) = self.value() else { return Ok(()) };
        if given_up {
            // Past its deadline; the job may have ended. Nobody listens any more, but the cleanup is owed.
            let cx = self.context(Some(&StopReason::Failure), Instant::now());
            return hook_end(Hook::Cleanup, guard(|| self.hooks.cleanup(service, &cx, runtime)));
        }
        hook_end(Hook::Setup, guard(|| self.hooks.setup(service, &cx, runtime)))
    }

    fn stop(&self, reason: &StopReason, deadline: Instant, runtime: &JobRuntime) -> HookEnd {
        let Some(service) = self.value() else { return Ok(()) };
        let cx = self.context(Some(reason), deadline);
        hook_end(Hook::Stop, guard(|| self.hooks.stop(service, &cx, runtime)))
    }

    fn cleanup(&self, reason: &StopReason, deadline: Instant, runtime: &JobRuntime) -> Option<HookEnd> {
        let constructed = {
            let mut attempt = lock(&self.attempt);
            if std::mem::replace(&mut attempt.cleanup_taken, true) {
                return None;
            }
            attempt.constructed
        };
        let cx = self.context(Some(reason), deadline);
        let end = match self.value().filter(|_| constructed) {
            Some(service) => hook_end(Hook::Cleanup, guard(|| self.hooks.cleanup(service, &cx, runtime))),
            None => Ok(()),
        };
        Some(run_all(&cx.actions, Hook::Cleanup, end))
    }

    fn owes_actions(&self) -> bool {
        lock(&self.attempt).actions.are_owed()
    }

    fn run_actions(&self) -> HookEnd {
        let actions = lock(&self.attempt).actions.clone();
        run_all(&actions, Hook::OnCleanup, Ok(()))
    }

    fn free(&self) -> HookEnd {
        let value = self.cell.0.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if value.is_null() {
            return Ok(());
        }
        // SAFETY: it came from `Box::into_raw` in `start`; the gate is closed and empty, and no hook runs any more.
        let value = unsafe { Box::from_raw(value) };
        hook_end(Hook::Drop, guard(move || drop(value)).map(Ok))
    }

    fn health(&self, runtime: &JobRuntime) -> Result<(), What> {
        let Some(service) = self.value() else { return Ok(()) };
        guard(|| self.hooks.health(service, runtime))?.map_err(What::error)
    }

    fn ends_itself(&self) -> bool {
        self.hooks.ends_itself()
    }

    fn retire(&self) {
        let constructor = lock(&self.constructor).take();
        drop_guarded(None, move || drop(constructor));
    }
}
