//! Single flight by hand: every future is polled here.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::super::flight::*;
use super::super::time::Time;
use super::super::time::tests::ManualTime;

type Answer = Result<&'static str, &'static str>;
type Called<'a> = Pin<Box<dyn Future<Output = Option<Answer>> + 'a>>;

/// A service whose calls end when a test lets them.
struct Provider {
    flight: Flight<u32, Answer>,
    time: ManualTime,
    calls: AtomicU32,
    answer: std::cell::Cell<Option<Answer>>,
}

impl Provider {
    fn new() -> Self {
        Self {
            flight: Flight::new(),
            time: ManualTime::new(),
            calls: AtomicU32::new(0),
            answer: std::cell::Cell::new(None),
        }
    }

    fn call(&self, key: u32, until: Option<Instant>) -> Called<'_> {
        let answer = || async {
            self.calls.fetch_add(1, Ordering::Relaxed);
            std::future::poll_fn(|_| self.answer.get().map_or(Poll::Pending, Poll::Ready)).await
        };
        Box::pin(self.flight.share(&self.time, until, key, answer, |result| *result == Err("too late")))
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }
}

fn poll(call: &mut Called<'_>) -> Poll<Option<Answer>> {
    call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn equal_calls_share_one_and_others_do_not() {
    let provider = Provider::new();
    let mut calls = [1, 1, 1, 2].map(|key| provider.call(key, None));
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    assert_eq!(provider.calls(), 2);
    provider.answer.set(Some(Ok("yes")));
    assert!(calls.iter_mut().all(|call| poll(call) == Poll::Ready(Some(Ok("yes")))));
    assert_eq!(provider.flight.figures().shared, 2);
    assert_eq!(provider.flight.waiting(1), None);
    assert_eq!(poll(&mut provider.call(1, None)), Poll::Ready(Some(Ok("yes"))));
    assert_eq!(provider.calls(), 3, "nothing is remembered");
}

#[test]
fn followers_get_the_error_of_their_leader() {
    let provider = Provider::new();
    let mut calls = [1, 1].map(|key| provider.call(key, None));
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    provider.answer.set(Some(Err("no")));
    assert!(calls.iter_mut().all(|call| poll(call) == Poll::Ready(Some(Err("no")))));
    assert_eq!(provider.calls(), 1);
}

#[test]
fn a_leader_that_is_dropped_passes_the_lead_on_to_one_that_still_waits() {
    let provider = Provider::new();
    let [mut leader, mut left, mut second, mut third] = [1; 4].map(|key| provider.call(key, None));
    for call in [&mut leader, &mut left, &mut second, &mut third] {
        assert!(poll(call).is_pending());
    }
    drop(left);
    drop(leader);
    assert!(poll(&mut third).is_pending());
    assert!(poll(&mut second).is_pending());
    assert_eq!(provider.calls(), 2);
    // One that was given the lead and never looked passes it on as well.
    drop(second);
    let mut fourth = provider.call(1, None);
    assert!(poll(&mut fourth).is_pending());
    drop(third);
    provider.answer.set(Some(Ok("yes")));
    assert_eq!(poll(&mut fourth), Poll::Ready(Some(Ok("yes"))));
    assert_eq!(provider.flight.figures().passed_on, 3);
    assert_eq!(provider.flight.waiting(1), None);
}

#[test]
fn a_result_that_is_its_callers_own_is_not_shared() {
    let provider = Provider::new();
    let [mut leader, mut follower] = [1; 2].map(|key| provider.call(key, None));
    assert!(poll(&mut leader).is_pending());
    assert!(poll(&mut follower).is_pending());
    provider.answer.set(Some(Err("too late")));
    assert_eq!(poll(&mut leader), Poll::Ready(Some(Err("too late"))));
    provider.answer.set(Some(Ok("yes")));
    assert_eq!(poll(&mut follower), Poll::Ready(Some(Ok("yes"))));
    assert_eq!(provider.calls(), 2);
}

#[test]
fn a_follower_waits_no_longer_than_it_may() {
    let provider = Provider::new();
    let mut leader = provider.call(1, None);
    let mut follower = provider.call(1, Some(provider.time.now() + Duration::from_secs(1)));
    assert!(poll(&mut leader).is_pending());
    assert!(poll(&mut follower).is_pending());
    provider.time.advance(Duration::from_secs(1));
    assert_eq!(poll(&mut follower), Poll::Ready(None));
    provider.answer.set(Some(Ok("yes")));
    assert_eq!(poll(&mut leader), Poll::Ready(Some(Ok("yes"))));
}

#[test]
fn those_that_have_left_take_no_room() {
    let flight = Flight::<u32, ()>::new();
    let Joined::Leads(lead) = flight.join(1) else { panic!("the first one leads") };
    for _ in 0..10_000 {
        assert!(matches!(flight.join(1), Joined::Follows(_)));
    }
    assert!(flight.waiting(1) <= Some(8));
    // And a hundred thousand that leave after the leader took them in fill no stack.
    let waiting: Vec<_> = (0..100_000).map(|_| flight.join(1)).collect();
    drop(waiting);
    drop(lead);
    assert_eq!(flight.waiting(1), None);
}

#[test]
fn a_copy_that_panics_harms_its_leader_alone() {
    struct Careless(bool);
    impl Clone for Careless {
        fn clone(&self) -> Self {
            assert!(!self.0, "careless");
            Self(self.0)
        }
    }
    let flight = Flight::new();
    let Joined::Leads(lead) = flight.join(1) else { panic!("the first one leads") };
    let [first, second] = [flight.join(1), flight.join(1)];
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lead.land(&Careless(true)))).unwrap_err();
    for joined in [first, second] {
        let Joined::Follows(mut turn) = joined else { panic!("they follow") };
        let given = Pin::new(&mut turn).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(given, Poll::Ready(None)), "it begins again");
    }
    assert!(matches!(flight.join(1), Joined::Leads(_)));
}
