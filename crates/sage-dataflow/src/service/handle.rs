//! [`ServiceHandle`]: the typed, cloneable handle through which operators call a service's value directly.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use super::ServiceId;
use super::call_error::CallError;
use super::caller::{Caller, Within};
use super::entry::ServiceEntry;
use super::gate::{Pass, Slot};
use super::instance::Cell;
use super::registry::Registry;
use super::state::ServiceState;
use crate::BoxError;
use crate::runtime::is_inside_async;

/// Why [`ServiceHandle::call_blocking`] does not block.
#[derive(Debug, thiserror::Error)]
#[error("blocking would stop the async runtime of the calling thread; await `call_async` instead")]
pub(super) struct InsideRuntime;

/// One of this many calls through a handle is timed.
pub(super) const SAMPLE_EVERY: u64 = 64;

/// A handle to a service. Operators call the service through it.
///
/// Clone it into operator functions: clones are cheap, and each counts its own calls, so callers on different threads
/// do not slow each other down. A call takes a few nanoseconds more than calling the value itself. Outside a run,
/// before the service is ready and once it stops, calls return [`CallError::NotServing`].
pub struct ServiceHandle<S> {
    pub(super) inner: Arc<Shared<S>>,
}

/// What a call came to, for [`ServiceHandle::call_judged`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// It is over.
    Returned,
    /// It is over, and its result is an error.
    Failed,
    /// Its result stands for something that goes on: see [`ServiceHandle::ongoing`].
    GoesOn,
}

/// Something that a call has begun, and that goes on until this is dropped: see [`ServiceHandle::ongoing`].
#[must_use = "it ends when this is dropped"]
pub struct OngoingCall {
    entry: Arc<ServiceEntry>,
    began: Instant,
}

impl OngoingCall {
    fn new(entry: Arc<ServiceEntry>) -> Self {
        entry.ongoing.fetch_add(1, Ordering::Relaxed);
        Self { entry, began: Instant::now() }
    }
}

impl std::fmt::Debug for OngoingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OngoingCall").field("service", &self.entry.name).finish_non_exhaustive()
    }
}

impl Drop for OngoingCall {
    fn drop(&mut self) {
        self.entry.ongoing.fetch_sub(1, Ordering::Relaxed);
        self.entry.latency.record(self.began.elapsed());
    }
}

pub(super) struct Shared<S> {
    pub(super) entry: Arc<ServiceEntry>,
    pub(super) cell: Arc<Cell<S>>,
    pub(super) slot: Arc<Slot>,
    registry: Weak<Registry>,
}

impl<S> Drop for Shared<S> {
    fn drop(&mut self) {
        self.entry.gate().retire(&self.slot);
    }
}

impl<S> Clone for ServiceHandle<S> {
    fn clone(&self) -> Self {
        Self::of(self.inner.entry.clone(), self.inner.cell.clone(), self.inner.registry.clone())
    }
}

impl<S> std::fmt::Debug for ServiceHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceHandle").field("service", &self.name()).field("state", &self.state()).finish()
    }
}

/// Counts a call out when it ends, also by a panic.
struct Inside<'a, S> {
    inner: &'a Shared<S>,
    pass: Pass,
}

impl<S> Inside<'_, S> {
    /// The call ended well.
    #[inline(always)]
    fn done(self) {
        self.inner.entry.gate().leave(&self.inner.slot, self.pass);
        std::mem::forget(self);
    }
}

impl<S> Drop for Inside<'_, S> {
    #[inline]
    fn drop(&mut self) {
        // Before the call is out: once the last one is, the errors are counted.
        if std::thread::panicking() {
            self.inner.slot.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.entry.gate().leave(&self.inner.slot, self.pass);
    }
}

impl<S> ServiceHandle<S> {
    fn of(entry: Arc<ServiceEntry>, cell: Arc<Cell<S>>, registry: Weak<Registry>) -> Self {
        let slot = entry.gate().slot();
        Self { inner: Arc::new(Shared { entry, cell, slot, registry }) }
    }

    /// Returns the name under which the service is registered.
    pub fn name(&self) -> &str {
        &self.inner.entry.name
    }

    pub(crate) fn id(&self) -> ServiceId {
        self.inner.entry.id
    }

    /// Returns the service's state.
    pub fn state(&self) -> ServiceState {
        self.inner.entry.state()
    }

    /// How many calls are inside now.
    pub(crate) fn inside(&self) -> u64 {
        self.inner.entry.gate().inside()
    }

    /// Says that the process in which the service's code runs is gone. From here on the service is
    /// [`ServiceState::Lost`]: calls get [`CallError::NotServing`]. Its hooks are called at its turn all the same, so
    /// that they release what is in this process, and their errors tell what is left. Does nothing unless the service
    /// is being started, serves, or is being stopped.
    pub fn lost(&self) {
        self.inner.entry.advance(ServiceState::Lost);
    }

    /// Says that a process in which the service's code ran is lost, and how, but that another takes its place: the
    /// service goes on, and its report names the process among those [`lost`](super::ServiceReport::lost).
    pub fn replaced(&self, how: impl Into<String>) {
        let how = how.into();
        self.inner.entry.measure(|run| run.lost.push(how));
    }
}

impl<S: Send + Sync + 'static> ServiceHandle<S> {
    pub(crate) fn new(entry: Arc<ServiceEntry>, cell: Arc<Cell<S>>, registry: Arc<Registry>) -> Self {
        Self::of(entry, cell, Arc::downgrade(&registry))
    }

    /// Looks a service up by name.
    pub(crate) fn lookup(registry: &Arc<Registry>, name: &str) -> Result<Self, CallError> {
        let Some(entry) = registry.find(name) else {
            let all = registry.all();
            let similar = all.iter().find(|entry| alike(&entry.name, name)).map(|entry| entry.name.clone());
            return Err(CallError::Unknown { service: name.to_owned(), similar });
        };
        match entry.cell.clone().downcast::<Cell<S>>() {
            Ok(cell) => Ok(Self::new(entry, cell, registry.clone())),
            Err(_) => Err(CallError::WrongType {
                service: name.to_owned(),
                expected: std::any::type_name::<S>(),
                actual: entry.type_name,
            }),
        }
    }

    /// Calls the service on the calling thread. A panic in `call` unwinds into the caller.
    #[inline(always)]
    pub fn call<R>(&self, call: impl FnOnce(&S) -> R) -> Result<R, CallError> {
        self.call_judged(call, |_| Called::Returned)
    }

    /// As [`call`](Self::call); `judge` says from the result what the call came to. So an error that is a value counts
    /// among the service's errors, and a call that has only begun something is not timed.
    #[inline(always)]
    pub fn call_judged<R>(&self, call: impl FnOnce(&S) -> R, judge: impl FnOnce(&R) -> Called) -> Result<R, CallError> {
        let caller = Caller::current();
        let pass = self.enter(caller)?;
        let inside = Inside { inner: &self.inner, pass };
        let _within = Within::enter(self.inner.entry.id);
        // SAFETY: `inside` keeps this thread inside the gate until the call has ended.
        let service = unsafe { self.inner.cell.get() };
        if pass.ordinal.is_multiple_of(SAMPLE_EVERY) {
            return Ok(self.timed(|| call(service), judge));
        }
        let result = call(service);
        if judge(&result) == Called::Failed {
            self.note_error();
        }
        inside.done();
        Ok(result)
    }

    /// Says that something that a call has begun, such as a future that it returned, is worked on from now until
    /// what is returned is dropped. For that long it counts as a call inside, and its time is the call's latency; but
    /// the service does not wait for it before it cleans up.
    pub fn ongoing(&self) -> OngoingCall {
        OngoingCall::new(self.inner.entry.clone())
    }

    /// Counts an error among those of the service.
    #[cold]
    pub fn note_error(&self) {
        self.inner.slot.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls a method that may fail. Its error counts among the service's errors, and comes back as
    /// [`CallError::Failed`].
    #[inline]
    pub fn try_call<R, E: Into<BoxError>>(&self, call: impl FnOnce(&S) -> Result<R, E>) -> Result<R, CallError> {
        self.call(|service| call(service).map_err(|error| self.failed(error.into())))?
    }

    /// Calls an async method and awaits it. `call` gets a reference that it may keep as long as its future lives. For
    /// that long the call counts as running, and the service waits for it before it cleans up. Dropping the returned
    /// future ends the call.
    pub async fn call_async<R, F>(&self, call: impl FnOnce(ServiceRef<S>) -> F) -> Result<R, CallError>
    where
        F: Future<Output = R>,
    {
        let pass = self.enter(Caller { thread: None, ..Caller::current() })?;
        let started = pass.ordinal.is_multiple_of(SAMPLE_EVERY).then(Instant::now);
        let service = ServiceRef { inner: self.inner.clone(), pass };
        let result = InService { service: self.inner.entry.id, future: call(service) }.await;
        if let Some(started) = started {
            self.inner.entry.latency.record(started.elapsed());
        }
        Ok(result)
    }

    /// Calls an async method from a thread that may block, such as an operator's. The future runs on the calling
    /// thread, with the job's async runtime for timers and I/O.
    ///
    /// # Errors
    /// [`CallError::NotServing`]; [`CallError::Runtime`] on a thread of an async runtime, which must not block.
    pub fn call_blocking<R, F>(&self, call: impl FnOnce(ServiceRef<S>) -> F) -> Result<R, CallError>
    where
        F: Future<Output = R>,
    {
        let service = || self.name().to_owned();
        let refused = || CallError::NotServing { service: service(), state: self.state() };
        let runtime = self.inner.registry.upgrade().and_then(|registry| registry.runtime()).ok_or_else(refused)?;
        if is_inside_async() {
            return Err(CallError::Runtime { service: service(), source: Arc::new(InsideRuntime) });
        }
        let handle =
            runtime.handle().map_err(|error| CallError::Runtime { service: service(), source: Arc::new(error) })?;
        handle.block_on(self.call_async(call))
    }

    /// As [`call_async`](Self::call_async), for a method that may fail. Its error counts among the service's errors,
    /// and comes back as [`CallError::Failed`].
    pub async fn try_call_async<R, E, F>(&self, call: impl FnOnce(ServiceRef<S>) -> F) -> Result<R, CallError>
    where
        E: Into<BoxError>,
        F: Future<Output = Result<R, E>>,
    {
        self.call_async(call).await?.map_err(|error| self.failed(error.into()))
    }

    /// As [`call_blocking`](Self::call_blocking), for a method that may fail. Its error counts among the service's
    /// errors, and comes back as [`CallError::Failed`].
    ///
    /// # Errors
    /// Those of [`call_blocking`](Self::call_blocking), and the method's.
    pub fn try_call_blocking<R, E, F>(&self, call: impl FnOnce(ServiceRef<S>) -> F) -> Result<R, CallError>
    where
        E: Into<BoxError>,
        F: Future<Output = Result<R, E>>,
    {
        self.call_blocking(call)?.map_err(|error| self.failed(error.into()))
    }

    #[inline(always)]
    pub(super) fn enter(&self, caller: Caller) -> Result<Pass, CallError> {
        self.note_user(caller.service)?;
        match self.try_enter(caller) {
            Some(pass) => Ok(pass),
            None => self.enter_closed(caller),
        }
    }

    #[inline(always)]
    fn try_enter(&self, caller: Caller) -> Option<Pass> {
        match caller.thread {
            Some(thread) => self.inner.entry.gate().enter(&self.inner.slot, thread.get()),
            None => self.inner.entry.gate().enter_shared(&self.inner.slot),
        }
    }

    /// Notes which service calls, where the call itself is made on another thread.
    pub(crate) fn note_caller(&self) -> Result<(), CallError> {
        self.note_user(Caller::current().service)
    }

    /// Whether the calling code is the service's own.
    #[inline]
    pub(crate) fn is_within(&self) -> bool {
        Caller::current().service == Some(self.id())
    }

    #[inline(always)]
    fn note_user(&self, user: Option<ServiceId>) -> Result<(), CallError> {
        match user {
            Some(user) if self.inner.slot.noted.load(Ordering::Relaxed) != u64::from(user.0) => self.note(user),
            _ => Ok(()),
        }
    }

    #[cold]
    fn note(&self, user: ServiceId) -> Result<(), CallError> {
        if let Some(registry) = self.inner.registry.upgrade() {
            let used = &self.inner.entry;
            let reaches_itself = |way| CallError::ReachesItself { service: used.name.clone(), way };
            registry.observe(user, used.id).map_err(reaches_itself)?;
            self.inner.slot.noted.store(u64::from(user.0), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The gate is closed: a service that is called by another's hook while the job starts is started for it.
    #[cold]
    fn enter_closed(&self, caller: Caller) -> Result<Pass, CallError> {
        let entry = &self.inner.entry;
        let refused = |state| CallError::NotServing { service: entry.name.clone(), state };
        let state = entry.state();
        if matches!(state, ServiceState::Registered | ServiceState::Initialising) {
            let registry = self.inner.registry.upgrade().ok_or_else(|| refused(state))?;
            if registry.is_late(entry.id) {
                return Err(CallError::RegisteredLate { service: entry.name.clone() });
            }
            if let Some(user) = caller.service {
                registry.start_for(user, entry)?;
            }
        }
        self.try_enter(caller).ok_or_else(|| refused(entry.state()))
    }

    #[cold]
    #[inline(never)]
    fn timed<R>(&self, call: impl FnOnce() -> R, judge: impl FnOnce(&R) -> Called) -> R {
        let started = Instant::now();
        let result = call();
        let took = started.elapsed();
        match judge(&result) {
            Called::Returned => self.inner.entry.latency.record(took),
            Called::Failed => {
                self.inner.entry.latency.record(took);
                self.note_error();
            }
            Called::GoesOn => {}
        }
        result
    }

    #[cold]
    fn failed(&self, error: BoxError) -> CallError {
        self.note_error();
        CallError::Failed { service: self.name().to_owned(), source: Arc::from(error) }
    }
}

/// Whether two names are the same but for case, or one letter.
fn alike(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let same_start = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let same_end = one.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
    let longest = one.len().max(other.len());
    same_start + same_end + 1 >= longest && longest - one.len().min(other.len()) <= 1
}

/// A reference to a service, for as long as an async call to it runs.
pub struct ServiceRef<S> {
    inner: Arc<Shared<S>>,
    pass: Pass,
}

impl<S> fmt::Debug for ServiceRef<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceRef").field("name", &self.inner.entry.name).finish_non_exhaustive()
    }
}

impl<S> ServiceRef<S> {
    /// The calling thread counts as running the service's code until what is returned is dropped.
    pub(super) fn within(&self) -> Within {
        Within::enter(self.inner.entry.id)
    }
}

impl<S> Deref for ServiceRef<S> {
    type Target = S;

    fn deref(&self) -> &S {
        // SAFETY: this reference is inside the gate until it is dropped.
        unsafe { self.inner.cell.get() }
    }
}

impl<S> Drop for ServiceRef<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.inner.slot.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.entry.gate().leave(&self.inner.slot, self.pass);
    }
}

pin_project_lite::pin_project! {
    /// A future in which, whenever it is polled, the thread counts as running the service's code.
    struct InService<F> {
        service: ServiceId,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for InService<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _within = Within::enter(*this.service);
        this.future.poll(cx)
    }
}
