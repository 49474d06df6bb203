//! [`Turn`]: what is given is taken once or dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::super::turn::*;

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
