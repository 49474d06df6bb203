//! Services that fail again and again: their breaker, and the budget of retries.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sage::testing;
use sage::{
    BoxError, Breaker, BreakerState, CallError, Environment, ErrorPolicy, Policy, Refusal, Retry, RetryBudget,
    ServiceError, Timestamp, Verdict,
};

use super::{Asked, calls, plain};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_breaker_refuses_calls_after_failures_in_a_row_until_a_probe_succeeds() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("broken").clock(clock);
    let service = plain(&env, Policy::new().breaker(Breaker::after_consecutive(3).open_for(MINUTE).probes(1)));
    let (asked, is_well) = (Asked::new(), Arc::new(AtomicBool::new(false)));
    let (tell, well) = (asked.teller(), is_well.clone());
    let name = service.method("name", move |_, n: u32| {
        tell(n);
        ready(if well.load(Ordering::SeqCst) { Ok(n.to_string()) } else { Err("not well") })
    });
    let name = name.build();
    let (feed, source) = testing::source();
    let ended = Asked::new();
    let tell = ended.teller();
    env.from_source(move |_| source.clone()).sink(move |n| tell(name.call_blocking(n)));
    let job = env.submit().unwrap();
    let call = |n| {
        feed.send(n);
        ended.next()
    };
    for n in 0..3 {
        assert!(matches!(call(n), Err(CallError::Failed { .. })));
    }
    let refused = Refusal::BreakerOpen { reopens_in: Some(MINUTE) };
    assert!(matches!(call(3), Err(CallError::Refused { refusal, .. }) if refusal == refused));
    // A probe that fails opens it for another minute; one that succeeds closes it.
    hands.advance(MINUTE);
    assert!(matches!(call(4), Err(CallError::Failed { .. })));
    assert!(matches!(call(5), Err(CallError::Refused { .. })));
    hands.advance(MINUTE);
    is_well.store(true, Ordering::SeqCst);
    assert_eq!([call(6).unwrap(), call(7).unwrap()], ["6", "7"]);
    feed.end();
    let report = job.wait().unwrap();
    assert_eq!(asked.rest(), [0, 1, 2, 4, 6, 7]);
    let policy = report.services[0].policy.as_ref().unwrap();
    let breaker = policy.breaker.as_ref().unwrap();
    assert_eq!((breaker.state, breaker.opened, breaker.closed, breaker.refused), (BreakerState::Closed, 2, 1, 2));
    assert_eq!((policy.refused, policy.failed), (2, 6));
}

#[test]
fn requests_at_fault_and_a_service_with_too_much_to_do_open_no_breaker() {
    for verdict in [Verdict::Bad, Verdict::Throttled(None)] {
        let env = Environment::local("well").on_error(ErrorPolicy::skip());
        let service = plain(&env, Policy::new().breaker(Breaker::after_consecutive(2)));
        let error = move || ServiceError::new(verdict, "no");
        let name = service.method("name", move |_, _: u32| ready(Err::<String, _>(error()))).build();
        env.from_iter(0..10).try_sink(move |n| name.call_blocking(n).map(drop));
        let report = env.run().unwrap();
        let policy = report.services[0].policy.as_ref().unwrap();
        assert_eq!((policy.attempts, policy.refused), (10, 0));
    }
}

#[test]
fn a_failure_that_says_when_to_come_again_is_obeyed_by_all_and_counts_against_the_service() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("repaired").clock(clock).on_error(ErrorPolicy::skip());
    let policy = Policy::new().retry(Retry::up_to(2)).breaker(Breaker::after_consecutive(2).open_for(MINUTE));
    let service = plain(&env, policy);
    let asked = Asked::new();
    let tell = asked.teller();
    let name = service.method("name", move |calling, n: u32| {
        tell((n, calling.attempt()));
        ready(Err::<String, _>(ServiceError::new(Verdict::Passing(Some(MINUTE / 2)), "503")))
    });
    calls(&env, 0..2, 1, name.build());
    let job = env.submit().unwrap();
    assert_eq!(asked.next(), (0, 1));
    hands.await_calls(1);
    hands.advance(MINUTE / 2 - Duration::from_millis(1));
    hands.await_calls(1);
    assert!(asked.rest().is_empty());
    hands.advance(Duration::from_millis(1));
    let report = job.wait().unwrap();
    assert_eq!(asked.rest(), [(0, 2)]);
    let policy = report.services[0].policy.as_ref().unwrap();
    assert_eq!((policy.breaker.as_ref().unwrap().opened, policy.refused), (1, 1));
    assert_eq!(policy.rate.as_ref().unwrap().pauses, 2);
}

#[test]
fn a_caller_that_is_denied_tells_that_the_service_is_there_again() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("denied").clock(clock);
    let service = plain(&env, Policy::new().breaker(Breaker::after_consecutive(1).open_for(MINUTE).probes(1)));
    let name = service.method("name", |_, n: u32| {
        let verdict = if n == 0 { Verdict::Outage } else { Verdict::Denied };
        ready(Err::<String, _>(ServiceError::new(verdict, "no")))
    });
    let name = name.build();
    env.from_iter(0..3).sink(move |n| {
        assert!(matches!(name.call_blocking(n), Err(CallError::Failed { .. })), "{n}");
        hands.advance(MINUTE);
    });
    let report = env.run().unwrap();
    let breaker = report.services[0].policy.as_ref().unwrap().breaker.clone().unwrap();
    assert_eq!((breaker.state, breaker.opened, breaker.closed), (BreakerState::Closed, 1, 1));
}

#[test]
fn no_more_calls_than_the_budget_allows_are_tried_again() {
    let (_hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("budget").clock(clock).on_error(ErrorPolicy::skip());
    let retry = Retry::up_to(4).backoff(Duration::ZERO, Duration::ZERO);
    let service = plain(&env, Policy::new().retry(retry).retry_budget(RetryBudget::share(0.5).at_least(0)));
    let name = service.method("name", |_, _: u32| ready(Err::<String, BoxError>("never well".into()))).build();
    env.from_iter(0..40).try_sink(move |n| name.call_blocking(n).map(drop));
    let report = env.run().unwrap();
    let policy = report.services[0].policy.as_ref().unwrap();
    // One for every two calls.
    assert_eq!((policy.attempts, policy.retries.scheduled, policy.failed), (60, 20, 40));
    assert!(policy.retries.over_budget >= 20);
}
