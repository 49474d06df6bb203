//! [`Turn`]: what one caller waits for and another gives it: a permit, or the answer of a batch.
//!
//! Invariant: what is given is taken once, by whoever waited, or is dropped. So a permit that gives itself back when it
//! is dropped is never lost, whenever its caller leaves.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::sync::{Arc, Mutex, drop_record, lock};

/// Waits for what a [`Giver`] gives. `None` if the giver was dropped without giving anything.
pub(super) struct Turn<T>(Arc<Mutex<Place<T>>>);

/// Gives to the [`Turn`] that was made with it.
pub(super) struct Giver<T>(Arc<Mutex<Place<T>>>);

enum Place<T> {
    Empty(Option<Waker>),
    Given(T),
    /// One of the two sides is gone, or all is done.
    Over,
}

/// A turn, and who gives it.
pub(super) fn turn<T>() -> (Giver<T>, Turn<T>) {
    let place = Arc::new(Mutex::new(Place::Empty(None)));
    (Giver(place.clone()), Turn(place))
}

/// Wakes whoever waits. A waker may be a user's, whose panic is nobody else's.
pub(super) fn wake(waker: Waker) {
    drop_record(move || waker.wake());
}

impl<T> Giver<T> {
    /// Gives, and wakes whoever waits. Gives back what nobody waits for any more. Takes a lock for a moment, and drops
    /// nothing inside it.
    pub(super) fn give(self, value: T) -> Result<(), T> {
        let mut place = lock(&self.0);
        let Place::Empty(waker) = &mut *place else { return Err(value) };
        let waker = waker.take();
        *place = Place::Given(value);
        drop(place);
        waker.into_iter().for_each(wake);
        Ok(())
    }

    /// Whether nobody waits any more.
    pub(super) fn is_left(&self) -> bool {
        matches!(*lock(&self.0), Place::Over)
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut place = lock(&self.0);
        if let Place::Empty(waker) = &mut *place {
            let waker = waker.take();
            *place = Place::Over;
            drop(place);
            waker.into_iter().for_each(wake);
        }
    }
}

impl<T> Future for Turn<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut place = lock(&self.0);
        if let Place::Empty(waker) = &mut *place {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut *place, Place::Over) {
            Place::Given(value) => Poll::Ready(Some(value)),
            _ => Poll::Ready(None),
        }
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        // A value that nobody takes is dropped outside of the lock: it may give itself back to who gave it.
        let place = std::mem::replace(&mut *lock(&self.0), Place::Over);
        drop(place);
    }
}
