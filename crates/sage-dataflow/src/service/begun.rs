//! [`BegunCall`]: a call that is begun and ended by two calls of the engine, where no closure can be in between.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::call_error::CallError;
use super::caller::{Caller, Within};
use super::gate::Pass;
use super::handle::{Called, SAMPLE_EVERY, ServiceHandle};

/// A call of a service that goes on until this is dropped: see [`ServiceHandle::begin_call`].
///
/// Dropped without [`end`](Self::end), the call counts among the service's errors. Calls of one thread end in the
/// opposite order of their begins.
#[must_use = "the call ends when this is dropped"]
pub struct BegunCall<'a, S: Send + Sync + 'static> {
    handle: &'a ServiceHandle<S>,
    pass: Pass,
    thread: Option<NonZeroU64>,
    began: Option<Instant>,
    came_to: Called,
    _within: Within,
    /// It ends on the thread that began it.
    _here: PhantomData<*const ()>,
}

impl<S: Send + Sync + 'static> ServiceHandle<S> {
    /// Begins a call on the calling thread, which counts as running the service's code until the call is ended. It
    /// counts, is timed and keeps the service from being cleaned up as any other one: see [`call`](Self::call), which
    /// is what to use wherever a closure can make the call.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    #[inline]
    pub fn begin_call(&self) -> Result<BegunCall<'_, S>, CallError> {
        let caller = Caller::current();
        let pass = self.enter(caller)?;
        let began = pass.ordinal.is_multiple_of(SAMPLE_EVERY).then(Instant::now);
        let within = Within::enter(self.id());
        let (thread, came_to) = (caller.thread, Called::Failed);
        Ok(BegunCall { handle: self, pass, thread, began, came_to, _within: within, _here: PhantomData })
    }
}

impl<S: Send + Sync + 'static> BegunCall<'_, S> {
    /// The service.
    #[inline]
    pub fn service(&self) -> &S {
        // SAFETY: this call is inside the gate until it is dropped.
        unsafe { self.handle.inner.cell.get() }
    }

    /// Whether the calling thread is the one that began the call, for who keeps it where the compiler does not see.
    #[inline]
    pub fn is_here(&self) -> bool {
        Caller::current().thread == self.thread
    }

    /// Ends the call, and says what it came to.
    #[inline]
    pub fn end(mut self, came_to: Called) {
        self.came_to = came_to;
    }
}

impl<S: Send + Sync + 'static> Drop for BegunCall<'_, S> {
    #[inline]
    fn drop(&mut self) {
        let inner = &self.handle.inner;
        if let Some(began) = self.began
            && self.came_to != Called::GoesOn
        {
            inner.entry.latency.record(began.elapsed());
        }
        // Before the call is out: once the last one is, the errors are counted.
        if self.came_to == Called::Failed {
            inner.slot.errors.fetch_add(1, Ordering::Relaxed);
        }
        inner.entry.gate().leave(&inner.slot, self.pass);
    }
}

impl<S: Send + Sync + 'static> fmt::Debug for BegunCall<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BegunCall").field("service", &self.handle.name()).finish_non_exhaustive()
    }
}
