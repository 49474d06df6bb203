//! Who calls: the number of the calling thread, and the service whose code it runs, if any. From the latter undeclared
//! dependencies are learnt.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ServiceId;

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

/// What a thread is. One variable, as each that a library has of its own costs a call to find it.
struct Here {
    thread: Cell<u64>,
    service: Cell<u32>,
}

thread_local! {
    static HERE: Here = const { Here { thread: Cell::new(0), service: Cell::new(NO_SERVICE) } };
}

impl Caller {
    #[inline]
    pub(crate) fn current() -> Self {
        HERE.with(|here| {
            let thread = Some(NonZeroU64::new(here.thread.get()).unwrap_or_else(|| Self::number(here)));
            let service = here.service.get();
            Self { thread, service: (service != NO_SERVICE).then_some(ServiceId(service)) }
        })
    }

    #[cold]
    fn number(here: &Here) -> NonZeroU64 {
        let thread = NonZeroU64::MIN.saturating_add(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
        here.thread.set(thread.get());
        thread
    }
}

/// Marks the calling thread as running code of a service, until it is dropped.
pub(crate) struct Within(u32);

impl Within {
    #[inline]
    pub(crate) fn enter(service: ServiceId) -> Self {
        Self(HERE.with(|here| here.service.replace(service.0)))
    }
}

impl Drop for Within {
    #[inline]
    fn drop(&mut self) {
        HERE.with(|here| here.service.set(self.0));
    }
}
