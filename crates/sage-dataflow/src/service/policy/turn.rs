//! [`Turn`]: what one caller waits for and another gives it: a permit, or the answer of a batch.
//!
//! Invariant: what is given is taken once, by whoever waited, or is dropped. So a permit that gives itself back when it
//! is dropped is never lost, whenever its caller leaves.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex, lock};

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

impl<T> Giver<T> {
    /// Gives, and wakes whoever waits. Gives back what nobody waits for any more. Takes a lock for a moment, and drops
    /// nothing inside it.
    pub(super) fn give(self, value: T) -> Result<(), T> {
        let mut place = lock(&self.0);
        let Place::Empty(waker) = &mut *place else { return Err(value) };
        let waker = waker.take();
        *place = Place::Given(value);
        drop(place);
        waker.into_iter().for_each(Waker::wake);
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
            waker.into_iter().for_each(Waker::wake);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<T>(turn: &mut Turn<T>, woken: &std::sync::Arc<Woken>) -> Poll<Option<T>> {
        Pin::new(turn).poll(&mut Context::from_waker(&Waker::from(woken.clone())))
    }

    #[test]
    fn what_is_given_wakes_who_waits_and_is_taken_once() {
        let woken = std::sync::Arc::new(Woken(AtomicU32::new(0)));
        let (giver, mut turn) = turn();
        assert_eq!(poll(&mut turn, &woken), Poll::Pending);
        assert_eq!(giver.give(7), Ok(()));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut turn, &woken), Poll::Ready(Some(7)));
    }

    #[test]
    fn a_giver_that_is_dropped_ends_the_wait() {
        let woken = std::sync::Arc::new(Woken(AtomicU32::new(0)));
        let (giver, mut turn) = turn::<u8>();
        assert_eq!(poll(&mut turn, &woken), Poll::Pending);
        drop(giver);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut turn, &woken), Poll::Ready(None));
    }

    #[test]
    fn what_nobody_takes_is_given_back_or_dropped() {
        let (giver, waiting) = turn();
        drop(waiting);
        assert!(giver.is_left());
        assert_eq!(giver.give(7), Err(7));

        struct Told<'a>(&'a AtomicU32);
        impl Drop for Told<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let dropped = AtomicU32::new(0);
        let (giver, waiting) = turn();
        assert!(giver.give(Told(&dropped)).is_ok());
        drop(waiting);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
