//! Runs a user's code under guard: a panic in it becomes data, and the text of an error is made once.
//!
//! Invariants:
//!  1. The text of an error is made where the error arose, on the thread of the task or hook, and is a string from then
//!     on. A user's value is never formatted later, and never on the dispatcher's thread.
//!  2. If several values with a user's `Drop` are dropped together, each is dropped under its own guard: a second panic
//!     while the first unwinds would end the process.
//!
//! Knows nothing of threads: see `backend`.

use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::ids::NodeId;
use crate::{BoxError, SharedError};

/// What went wrong in user code.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Error {
        error: SharedError,
        /// The error and its sources, in one line.
        text: String,
    },
    Panic(String),
}

impl What {
    pub(crate) fn error(error: BoxError) -> Self {
        let error: SharedError = Arc::from(error);
        let text = chain_of(&*error);
        Self::Error { error, text }
    }

    /// Of a panic; one whose payload is an error is that error, from a function that has no other way to give it.
    pub(crate) fn panic(payload: Box<dyn Any + Send>) -> Self {
        let payload = match payload.downcast::<BoxError>() {
            Ok(error) => return Self::error(*error),
            Err(payload) => payload,
        };
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a value that is not a string".to_owned());
        // The payload is the user's value. Where its `Drop` panics, that panic's payload is never dropped: it may be
        // such a value as well, and so on without end.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
            std::mem::forget(payload);
        }
        Self::Panic(message)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Error { text, .. } | Self::Panic(text)) = self;
        f.write_str(text)
    }
}

/// Runs user code, turning a panic into a [`What`].
pub(crate) fn guard<R>(code: impl FnOnce() -> R) -> Result<R, What> {
    catch_unwind(AssertUnwindSafe(code)).map_err(What::panic)
}

/// How many sources of an error are told: one that is its own source has no end of them.
const MOST_SOURCES: usize = 100;

/// An error and its sources. An [`io::Error`] gives not the error that was put into it as its source, but that one's:
/// here it does.
pub(crate) fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inside.map_or_else(|| error.source(), |inside| Some(inside))
    }
    std::iter::successors(Some(error), |&error| guard(|| source(error)).ok().flatten()).take(MOST_SOURCES)
}

/// The message of an error and of each of its sources.
pub(crate) fn error_chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if texts.len() > MOST_SOURCES {
            texts.push("and so on".to_owned());
            break;
        }
        let text = guard(|| error.to_string());
        texts.push(text.unwrap_or_else(|what| format!("an error whose `Display` panicked: {what}")));
        next = guard(|| error.source()).unwrap_or_else(|what| {
            texts.push(format!("an error whose `source` panicked: {what}"));
            None
        });
    }
    texts
}

/// An error and its sources, in one line. One that only says what its source says is not repeated.
pub fn chain_of(error: &(dyn Error + 'static)) -> String {
    let mut texts = error_chain(error);
    texts.dedup();
    texts.join(": ")
}

/// `Debug` by the type's name alone, for what consists of a user's functions and records: none of their code runs.
macro_rules! opaque {
    ($name:ident $(< $($argument:tt),+ >)?) => {
        opaque!([$($($argument),+)?] $name $(< $($argument),+ >)?);
    };
    ([$($parameters:tt)*] $name:ident $(< $($argument:tt),+ >)?) => {
        impl<$($parameters)*> std::fmt::Debug for $name $(< $($argument),+ >)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use opaque;

thread_local! {
    /// The panics of values that were dropped under guard on this thread, and the operators they belonged to.
    static DROPPED: RefCell<Vec<(Option<NodeId>, What)>> = const { RefCell::new(Vec::new()) };
}

/// How many panics of `Drop` are kept until somebody asks: a lane may hold a hundred thousand such records.
const MOST_DROPPED: usize = 10;

/// Runs a user's `Drop`; its panic waits for [`take_dropped`].
pub(crate) fn drop_guarded(node: Option<NodeId>, drop: impl FnOnce()) {
    if let Err(what) = guard(drop) {
        // Where the thread's own values are being dropped, nobody asks any more.
        let _ = DROPPED.try_with(|dropped| {
            let mut dropped = dropped.borrow_mut();
            if dropped.len() < MOST_DROPPED {
                dropped.push((node, what));
            }
        });
    }
}

/// The panics of values dropped on this thread since it was last asked.
pub(crate) fn take_dropped() -> Vec<(Option<NodeId>, What)> {
    DROPPED.take()
}

/// A user's value that is part of a chain, and dropped under a guard of its own.
pub(crate) struct Guarded<T> {
    value: ManuallyDrop<T>,
    node: Option<NodeId>,
}

impl<T> Guarded<T> {
    /// Of the operator at `node`, if of one.
    pub(crate) fn new(value: T, node: Option<NodeId>) -> Self {
        Self { value: ManuallyDrop::new(value), node }
    }

    /// The value, no longer under guard.
    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped afterwards.
        unsafe { ManuallyDrop::take(&mut this.value) }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guarded<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the value is taken here, once; nobody sees it afterwards.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        if std::mem::needs_drop::<T>() {
            drop_guarded(self.node, move || drop(value));
        }
    }
}
