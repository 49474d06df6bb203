//! Services that have too much to do: the calls that they throttle wait for their turn.

use std::future::{pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sage::testing::{self, ClockHands};
use sage::{
    BoxError, Clock, Concurrency, Environment, ErrorPolicy, JobHandle, Order, Policy, PolicyReport, Rate, Retry,
    ServiceError, Timestamp, Verdict,
};

use super::{Asked, Plain, calls, plain};
use crate::leaks::leak_free;
use crate::probes::failed;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// So many calls are made at once.
const AT_ONCE: usize = 64;

fn busy(after: Option<Duration>) -> ServiceError {
    ServiceError::new(Verdict::Throttled(after), "429 Too Many Requests")
}

/// A provider that answers one call in 100 ms, and tells others when it answers the next.
fn provider(clock: Clock) -> impl Fn() -> Result<(), ServiceError> + Clone + Send + Sync + 'static {
    let next = Arc::new(Mutex::new(0));
    move || {
        let mut next = next.lock().expect("no answer panics");
        let now = clock.now().millis();
        if now < *next {
            return Err(busy(Some(MILLI * u32::try_from(*next - now).expect("a short time"))));
        }
        *next = now + 100;
        Ok(())
    }
}

/// Moves the clock on to each moment at which the provider answers one of the calls that wait. Returns which it has
/// answered, in turn.
fn run(job: JobHandle, hands: &ClockHands, asked: &Asked<u32>, all: usize) -> (Vec<u32>, PolicyReport) {
    let mut answered = Vec::new();
    while answered.len() < all {
        answered.push(asked.next());
        let waiting = || {
            let policy = job.metrics().services[0].policy.clone().expect("it has one");
            policy.rate.map_or(0, |rate| rate.waiting) + policy.concurrency.map_or(0, |slots| slots.waiting)
        };
        while waiting() < AT_ONCE.min(all - answered.len()) {
            std::thread::yield_now();
        }
        hands.advance(100 * MILLI);
    }
    let report = job.wait().expect("no call fails");
    (answered, report.services[0].policy.clone().expect("it has one"))
}

#[test]
fn callers_at_ten_times_of_a_providers_rate_are_all_answered_about_in_the_order_in_which_they_came() {
    leak_free(|_| {
        for policy in [
            Policy::new(),
            Policy::new().rate(Rate::calls(100, SECOND)),
            Policy::new().concurrency(Concurrency::at_most(8).adaptive(1)),
        ] {
            let (hands, clock) = testing::clock(Timestamp::from_millis(0));
            let env = Environment::local("storm").clock(clock.clone());
            let service = plain(&env, policy.retry(Retry::up_to(2)));
            let (asked, answer) = (Asked::new(), provider(clock));
            let tell = asked.teller();
            let name = service.method("name", move |_, n: u32| {
                ready(answer().map(|()| {
                    tell(n);
                    n.to_string()
                }))
            });
            calls(&env, 0..200, AT_ONCE, name.build());
            let (answered, report) = run(env.submit().unwrap(), &hands, &asked, 200);
            assert_eq!((report.calls, report.failed), (200, 0));
            assert!(report.attempts > 350, "many are throttled: {}", report.attempts);
            // One that comes when the service may be called again may go before those that are just being woken.
            let late = (0..).zip(&answered).map(|(place, n)| place - i64::from(*n)).max();
            assert!(late <= Some(16), "{answered:?}");
        }
    });
}

#[test]
fn a_call_that_is_throttled_while_others_are_answered_uses_up_no_attempts() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("unlucky").clock(clock);
    let service = plain(&env, Policy::new().retry(Retry::up_to(3).backoff(SECOND, SECOND)));
    // The ninth call is the last one that is answered, and the others one after the other.
    let answered = Arc::new(AtomicU32::new(0));
    let (count, asked) = (answered.clone(), Asked::new());
    let tell = asked.teller();
    let name = service.method("name", move |_, n: u32| {
        let is_next = count.load(Ordering::SeqCst) == n;
        count.fetch_add(u32::from(is_next), Ordering::SeqCst);
        tell(n);
        ready(if is_next { Ok(n.to_string()) } else { Err(busy(None)) })
    });
    let name = name.build();
    let called = move |n| {
        let name = name.clone();
        async move { name.call(n).await }
    };
    env.from_collection((0..9).rev().collect()).try_map_async(9, Order::Unordered, called).sink(|_| {});
    let job = env.submit().unwrap();
    // In each round every call that waits is made, and at least one of them is answered.
    let mut waiting = 9;
    while waiting > 0 {
        (0..waiting).for_each(|_| _ = asked.next());
        waiting = 9 - answered.load(Ordering::SeqCst);
        hands.await_calls(waiting as usize);
        hands.advance(SECOND);
    }
    let report = job.wait().unwrap();
    let policy = report.services[0].policy.as_ref().unwrap();
    assert_eq!((policy.calls, policy.failed), (9, 0), "{report}");
}

#[test]
fn a_service_that_throttles_every_call_is_given_up_after_the_attempts_of_each() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("all-day").clock(clock).on_error(ErrorPolicy::skip());
    let service = plain(&env, Policy::new().retry(Retry::up_to(3)));
    let name = service.method("name", |_, _: u32| ready(Err::<String, _>(busy(Some(SECOND)))));
    calls(&env, 0..8, 8, name.build());
    let job = env.submit().unwrap();
    loop {
        let policy = job.metrics().services[0].policy.clone().unwrap();
        match policy.rate.map_or(0, |rate| rate.waiting) {
            _ if policy.failed == 8 => break,
            waiting if waiting as u64 + policy.failed == 8 => hands.advance(SECOND),
            _ => std::thread::yield_now(),
        }
    }
    let report = job.wait().unwrap();
    let policy = report.services[0].policy.as_ref().unwrap();
    assert_eq!((policy.attempts, policy.last_error.as_deref()), (8 * 3, Some("429 Too Many Requests")));
}

#[test]
fn a_call_is_throttled_no_longer_than_two_minutes_while_the_others_have_no_answer() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("hopeless").clock(clock);
    let service = plain(&env, Policy::new().retry(Retry::up_to(2)));
    let asked = Asked::new();
    let tell = asked.teller();
    let name = service.method("name", move |service, n: u32| {
        tell(n);
        async move {
            // It is with the service as long as it has this.
            let _service = service;
            match n {
                0 => pending().await,
                _ => Err::<String, _>(busy(Some(10 * SECOND))),
            }
        }
    });
    calls(&env, 0..2, 2, name.build());
    let job = env.submit().unwrap();
    assert_eq!([asked.next(), asked.next()], [0, 1]);
    // From the first one on: 12 of 10 seconds each do not count.
    for _ in 0..13 {
        hands.await_calls(1);
        assert!(asked.rest().is_empty());
        hands.advance(10 * SECOND);
        assert_eq!(asked.next(), 1);
    }
    let report = failed(job.wait());
    assert!(report.first_cause.unwrap().to_string().contains("gave up after 14 attempts"));
}

#[test]
fn a_throttled_call_goes_to_its_fallback_after_its_attempts_whoever_else_is_answered() {
    let env = Environment::local("spills");
    let first = plain(&env, Policy::new().retry(Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO)));
    let other = env.register_service("other", || Plain).policy(Policy::new()).build();
    let small = other.method("small", |_, n: u32| ready(Ok::<_, BoxError>(format!("small {n}")))).build();
    let large = first.method("large", |_, n: u32| ready(if n == 7 { Err(busy(None)) } else { Ok(n.to_string()) }));
    let large = large.fallback(&small).build();
    let called = move |n| {
        let large = large.clone();
        async move { large.call(n).await }
    };
    let answers = env.from_iter([7, 1, 2, 3]).try_map_async(2, Order::Ordered, called).collect();
    let report = env.run().unwrap();
    assert_eq!(answers.take(), ["small 7", "1", "2", "3"]);
    assert_eq!(report.services[0].policy.as_ref().unwrap().attempts, 3 + 3);
}
