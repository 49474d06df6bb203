//! Timeouts, deadlines, retries and fallbacks.

use std::error::Error;
use std::future::{pending, ready};
use std::time::Duration;

use sage::testing;
use sage::{
    BoxError, Breaker, CallError, Environment, ErrorPolicy, Fatal, JobReport, Method, Policy, Retry, ServiceError,
    SubmitError, Timestamp, Verdict,
};

use super::{Asked, calls, flaky, plain};
use crate::leaks::leak_free;
use crate::probes::failed;

const SECOND: Duration = Duration::from_secs(1);

/// Retries that wait for nothing.
fn at_once(attempts: u32) -> Retry {
    Retry::up_to(attempts).backoff(Duration::ZERO, Duration::ZERO)
}

/// The error of the one call of a job, by its kind.
fn call_error(report: &JobReport) -> String {
    report.first_cause.as_ref().expect("the job failed").to_string()
}

#[test]
fn a_service_with_a_policy_that_asks_for_nothing_is_called_as_it_is() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("plain");
            let env = if inline { env.inline() } else { env };
            let service = plain(&env, Policy::new());
            let name = service.method("name", |_, n: u32| ready(Ok::<_, BoxError>(n.to_string()))).build();
            calls(&env, 0..100, 8, name);
            let report = env.run().unwrap();
            let policy = report.services[0].policy.as_ref().expect("it has a policy");
            assert_eq!((policy.calls, policy.attempts, policy.retries.scheduled, policy.failed), (100, 100, 0, 0));
            assert!(policy.p50.is_some() && policy.p50 <= policy.p99);
        }
    });
}

#[test]
fn a_failed_call_is_made_again_after_waits_that_are_twice_as_long_at_most() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("again").clock(clock);
    let service = plain(&env, Policy::new().retry(Retry::up_to(4).backoff(SECOND, 10 * SECOND)));
    let (asked, answer) = (Asked::new(), flaky(2));
    let tell = asked.teller();
    let name = service.method("name", move |calling, n| {
        tell(calling.attempt());
        ready(answer(n))
    });
    calls(&env, 0..1, 1, name.build());
    let job = env.submit().unwrap();
    for (attempt, wait) in [(1, SECOND), (2, 2 * SECOND)] {
        assert_eq!(asked.next(), attempt);
        hands.await_calls(1);
        hands.advance(wait);
    }
    let report = job.wait().unwrap();
    assert_eq!(asked.next(), 3);
    let policy = report.services[0].policy.as_ref().unwrap();
    assert_eq!((policy.attempts, policy.retries.scheduled, policy.failed), (3, 2, 0));
}

/// A call that is tried four times at most, of a service that always gives the same error.
fn given_up(error: fn() -> BoxError, policy: Policy) -> (u64, String) {
    let env = Environment::local("given-up");
    let service = plain(&env, policy);
    let name = service.method("name", move |_, _| ready(Err::<String, _>(error()))).build();
    calls(&env, 0..1, 1, name);
    let report = failed(env.run());
    (report.services[0].policy.as_ref().expect("it has one").attempts, call_error(&report))
}

#[test]
fn what_is_tried_again_depends_on_what_the_error_means() {
    leak_free(|_| {
        let four = || Policy::new().retry(Retry::up_to(4).backoff(Duration::ZERO, Duration::ZERO));
        let (attempts, told) = given_up(|| "odd".into(), four());
        assert_eq!(attempts, 4);
        assert!(told.contains("gave up after 4 attempts: odd"), "{told}");
        let bad = || ServiceError::new(Verdict::Bad, "no such model").into();
        assert_eq!(given_up(bad, four()).0, 1);
        let denied = || ServiceError::new(Verdict::Denied, "nothing left").into();
        assert_eq!(given_up(denied, four()).0, 1);
        assert_eq!(given_up(|| Fatal::new("wrong").into(), four()).0, 1);
        let outage = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        assert_eq!(given_up(outage, four()).0, 4);
        assert_eq!(given_up(|| "odd".into(), four().judge(|_| Verdict::Bad)).0, 1);
        let never = Retry::up_to(4).when(|error| error.to_string() != "odd");
        assert_eq!(given_up(|| "odd".into(), Policy::new().retry(never)).0, 1);
    });
}

#[test]
fn a_service_says_after_how_long_it_may_be_called_again() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("throttled").clock(clock);
    let service = plain(&env, Policy::new().retry(Retry::up_to(2)));
    let (asked, answer) = (Asked::new(), flaky(1));
    let tell = asked.teller();
    let name = service.method("name", move |_, n| {
        tell(n);
        ready(answer(n).map_err(|error| ServiceError::new(Verdict::Throttled(Some(30 * SECOND)), error)))
    });
    calls(&env, 0..1, 1, name.build());
    let job = env.submit().unwrap();
    asked.next();
    hands.await_calls(1);
    hands.advance(29 * SECOND);
    hands.await_calls(1);
    assert!(asked.rest().is_empty());
    hands.advance(SECOND);
    job.wait().unwrap();
    assert_eq!(asked.rest(), [0]);
}

#[test]
fn an_attempt_that_takes_too_long_is_made_again_and_the_last_one_is_told() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("slow").clock(clock);
    let retry = Retry::up_to(2).backoff(Duration::ZERO, Duration::ZERO);
    let service = plain(&env, Policy::new().timeout(5 * SECOND).retry(retry));
    let asked = Asked::new();
    let tell = asked.teller();
    let name = service.method("name", move |_, n| {
        tell(n);
        pending::<Result<String, BoxError>>()
    });
    calls(&env, 0..1, 1, name.build());
    let job = env.submit().unwrap();
    for _ in 0..2 {
        asked.next();
        hands.await_calls(1);
        hands.advance(5 * SECOND);
    }
    let report = failed(job.wait());
    assert!(call_error(&report).contains("did not answer within 5s, the last of 2 times"), "{report}");
    let policy = report.services[0].policy.as_ref().unwrap();
    assert_eq!((policy.timed_out, policy.last_error.as_deref()), (2, Some("no answer within 5s")));
}

#[test]
fn the_last_error_of_an_attempt_is_reported_and_no_refusal_takes_its_place() {
    for breaker in [None, Some(Breaker::after_consecutive(1))] {
        let env = Environment::local("mended");
        let policy = Policy::new().retry(at_once(2));
        let service = plain(&env, breaker.map_or(policy.clone(), |breaker| policy.breaker(breaker)));
        let answer = flaky(1);
        let name = service.method("name", move |_, n| ready(answer(n).map_err(|error| format!("{error}{:900}", "é"))));
        let name = name.build();
        let ended = env.from_iter(0..2).map(move |n| (name.call_blocking(n).is_ok(), service.report().last_error));
        let ended = ended.collect();
        env.run().unwrap();
        let text = Some(format!("it is tired{:289}…", "é"));
        // The breaker lets no other attempt through.
        assert_eq!(ended.take(), vec![(breaker.is_none(), text); 2]);
    }
}

#[test]
fn a_deadline_ends_a_call_with_all_its_attempts() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("late").clock(clock);
    let service = plain(&env, Policy::new().timeout(5 * SECOND).deadline(12 * SECOND).retry(at_once(9)));
    let asked = Asked::new();
    let tell = asked.teller();
    let name = service.method("name", move |calling, n| {
        tell(calling.deadline());
        let _ = n;
        pending::<Result<String, BoxError>>()
    });
    calls(&env, 0..1, 1, name.build());
    let job = env.submit().unwrap();
    let mut ends = Vec::new();
    for wait in [5000, 5000, 2000] {
        // For the attempt's end, or the next attempt; and for the deadline.
        hands.await_calls(2);
        hands.advance(Duration::from_millis(wait));
        ends.extend(asked.rest());
    }
    let report = failed(job.wait());
    ends.extend(asked.rest());
    assert!(call_error(&report).contains("had no answer by its deadline"), "{report}");
    // Each answer is told the end of its attempt, and the last one that of the call.
    let ends: Vec<_> = ends.into_iter().map(|end| end.expect("it has one")).collect();
    let apart: Vec<_> = ends.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
    assert_eq!(apart, [5000, 2000]);
}

#[test]
fn a_wait_that_would_end_past_the_deadline_is_not_begun() {
    let env = Environment::local("hopeless");
    let service = plain(&env, Policy::new().deadline(60 * SECOND).retry(Retry::up_to(9)));
    let busy = || ServiceError::new(Verdict::Throttled(Some(100 * SECOND)), "429 Too Many Requests");
    let name = service.method("name", move |_, _: u32| ready(Err::<String, _>(busy()))).build();
    let told = name.clone();
    env.from_iter([1]).try_sink(move |n| match told.call_blocking(n) {
        Err(error @ CallError::PastDeadline { .. }) => {
            assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("429 Too Many Requests"));
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    env.run().unwrap();
}

#[test]
fn a_call_inside_another_has_that_ones_deadline() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("nested").clock(clock);
    let inner = env.register_service("inner", || super::Plain).policy(Policy::new().deadline(60 * SECOND)).build();
    let slow = inner.method("slow", |_, _: u32| pending::<Result<String, BoxError>>()).build();
    let outer = plain(&env, Policy::new().timeout(3 * SECOND));
    let asked = Asked::new();
    let tell = asked.teller();
    let name = outer.method("name", move |_, n| {
        let (slow, tell) = (slow.clone(), tell.clone());
        async move {
            let ended = slow.call(n).await;
            tell(ended.as_ref().err().map(ToString::to_string));
            ended
        }
    });
    calls(&env, 0..1, 1, name.build());
    let job = env.submit().unwrap();
    // Both calls wait for the same moment.
    hands.await_calls(2);
    hands.advance(3 * SECOND);
    failed(job.wait());
    assert!(asked.next().expect("it ended in an error").contains("`inner` had no answer by its deadline"));
}

#[test]
fn a_deadline_reaches_calls_that_are_made_where_the_code_blocks() {
    for is_apart in [true, false] {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let env = Environment::local("blocking").clock(clock).on_error(ErrorPolicy::skip());
        let inner = env.register_service("inner", || super::Plain).policy(Policy::new().deadline(60 * SECOND)).build();
        let slow = inner.method("slow", |_, _: u32| pending::<Result<String, BoxError>>()).build();
        let (asked, three) = (Asked::new(), Policy::new().deadline(3 * SECOND));
        let tell = asked.teller();
        let name = plain(&env, if is_apart { three.clone() } else { Policy::new() });
        let name = name.blocking_method("name", move |_, n: u32| {
            let ended = slow.call_blocking(n);
            tell(ended.as_ref().err().map(ToString::to_string));
            ended
        });
        let mut name = name.build();
        if !is_apart {
            // Without a time of its own, it blocks the thread of its caller, which works on a call that has one.
            let outer = env.register_service("outer", || super::Plain).policy(three).build();
            name = outer.blocking_method("name", move |_, n| name.call_blocking(n)).build();
        }
        let (feed, source) = testing::source();
        env.from_source(move |_| source.clone()).try_sink(move |n| name.call_blocking(n).map(drop));
        let job = env.submit().unwrap();
        feed.send(0);
        // All wait for the same moment. The job goes on, so that nothing else ends them.
        hands.await_calls(2);
        hands.advance(3 * SECOND);
        let told = asked.next().expect("it ended in an error");
        assert!(told.contains("`inner` had no answer by its deadline"), "{told}");
        feed.end();
        job.wait().unwrap();
    }
}

#[test]
fn what_fails_is_made_by_the_fallback_unless_the_request_is_at_fault() {
    leak_free(|_| {
        for (verdict, answered) in
            [(Verdict::Passing(None), true), (Verdict::Denied, true), (Verdict::Outage, true), (Verdict::Bad, false)]
        {
            let env = Environment::local("fallback");
            let first = plain(&env, Policy::new());
            let other = env.register_service("other", || super::Plain).policy(Policy::new()).build();
            let small: Method<u32, String> =
                other.method("small", |_, n: u32| ready(Ok::<_, BoxError>(format!("small {n}")))).build();
            let error = move || ServiceError::new(verdict, "no");
            let large = first.method("large", move |_, _| ready(Err::<String, _>(error()))).fallback(&small).build();
            let answers = env.from_iter([7]).try_map(move |n| large.call_blocking(n)).collect();
            let ran = env.run();
            assert_eq!(ran.is_ok(), answered, "{ran:?}");
            assert_eq!(answers.take(), if answered { vec!["small 7"] } else { vec![] });
        }
    });
}

#[test]
fn a_derived_handle_has_settings_of_its_own_and_shares_the_rest() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("derived").clock(clock);
    let service = plain(&env, Policy::new().deadline(3600 * SECOND));
    let name = service.method("name", |_, _: u32| pending::<Result<String, BoxError>>()).build();
    let quick = name.with_policy(|policy| {
        policy.timeout(SECOND);
    });
    calls(&env, 0..1, 1, quick);
    let job = env.submit().unwrap();
    // One for the timeout, one for the deadline, which it keeps.
    hands.await_calls(2);
    hands.advance(SECOND);
    let report = failed(job.wait());
    assert!(call_error(&report).contains("did not answer within 1s"), "{report}");
    assert_eq!(report.services[0].policy.as_ref().unwrap().calls, 1);
}

#[test]
fn a_method_that_blocks_runs_on_its_callers_thread_where_no_time_is_set_and_else_apart_from_it() {
    leak_free(|_| {
        for (policy, here) in [(Policy::new(), true), (Policy::new().timeout(60 * SECOND), false)] {
            let env = Environment::local("blocking");
            let service = plain(&env, policy);
            let name = service.blocking_method("name", |_, n: u32| match n {
                3 => Err("three"),
                _ => Ok(std::thread::current().id()),
            });
            let name = name.build();
            env.from_iter(0..4).try_sink(move |n| match name.call_blocking(n) {
                Ok(thread) if (thread == std::thread::current().id()) == here => Ok(()),
                Err(CallError::Failed { source, .. }) if n == 3 && source.to_string() == "three" => Ok(()),
                other => Err(format!("{other:?}")),
            });
            let report = env.run().unwrap();
            assert_eq!((report.services[0].calls, report.services[0].errors), (4, 1), "{report}");
        }
    });
}

#[test]
fn settings_that_cannot_be_are_told_at_submit() {
    let zero = Duration::ZERO;
    for (policy, told) in [
        (Policy::new().timeout(zero), "a timeout of zero lets no call succeed"),
        (Policy::new().deadline(zero), "a deadline of zero lets no call succeed"),
        (Policy::new().retry(Retry::up_to(0)), "a retry makes at least one attempt in all"),
    ] {
        let env = Environment::local("mistaken");
        plain(&env, policy);
        env.from_iter([1]).sink(|_| {});
        let SubmitError::ServicePolicy { service, message } = env.submit().expect_err("it cannot be") else {
            panic!("another error");
        };
        assert_eq!((service.as_str(), message.as_str()), ("plain", told));
    }
}

#[test]
fn outside_a_run_no_call_reaches_the_service() {
    let env = Environment::local("outside");
    let service = plain(&env, Policy::new());
    let name = service.method("name", |_, n: u32| ready(Ok::<_, BoxError>(n))).build();
    let outside = |name: &Method<u32, u32>| match name.call_blocking(1) {
        Err(CallError::NotServing { service, .. }) => service,
        other => panic!("{other:?}"),
    };
    assert_eq!(outside(&name), "plain");
    env.from_iter([1]).sink(|_| {});
    env.run().unwrap();
    assert_eq!(outside(&name), "plain");
}
