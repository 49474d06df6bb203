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

thread_local! {
    static THREAD: Cell<u64> = const { Cell::new(0) };
    static SERVICE: Cell<u32> = const { Cell::new(NO_SERVICE) };
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
