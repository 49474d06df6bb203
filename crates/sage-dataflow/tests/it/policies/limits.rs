//! Rates, costs and spends that all callers of a service share.

use std::future::ready;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use sage::testing;
use sage::{
    BoxError, CallError, Concurrency, Environment, ErrorPolicy, Method, Policy, Rate, Refusal, Retry, ServiceError,
    Spend, SubmitError, Tally, Timestamp, Usage, Verdict,
};

use super::{Asked, calls, plain};
use crate::leaks::leak_free;
use crate::probes::{Gate, sorted};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_callers_of_all_pipelines_keep_to_one_rate() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("rate").clock(clock.clone());
    let service = plain(&env, Policy::new().rate(Rate::calls(60, MINUTE).burst(1)));
    let asked = Asked::new();
    let tell = asked.teller();
    let name = service.method("name", move |_, n: u32| {
        tell((clock.now().millis(), n));
        ready(Ok::<_, BoxError>(n.to_string()))
    });
    let name = name.build();
    calls(&env, 0..5, 5, name.clone());
    calls(&env, 100..105, 2, name);
    let job = env.submit().unwrap();
    // One a second, whoever asks. Only the first in the queue has a timer.
    let mut at = vec![asked.next().0];
    for _ in 0..9 {
        hands.await_calls(1);
        hands.advance(SECOND - Duration::from_millis(1));
        hands.await_calls(1);
        assert!(asked.rest().is_empty());
        hands.advance(Duration::from_millis(1));
        at.push(asked.next().0);
    }
    assert_eq!(at, (0..10).map(|n| n * 1000).collect::<Vec<_>>());
    let report = job.wait().unwrap();
    let rate = report.services[0].policy.as_ref().unwrap().rate.clone().unwrap();
    assert_eq!((rate.passed, rate.waiting, rate.refused), (10, 0, 0));
}

#[test]
fn what_answers_add_up_to_is_reported_without_limits_and_by_kind_for_each_run() {
    let env = Environment::local("tallied");
    let service = plain(&env, Policy::new().retry(Retry::up_to(2)));
    let name = service.method("name", |_, n: u32| {
        ready(if n == 3 { Err(BoxError::from("no")) } else { Ok::<_, BoxError>(n.to_string()) })
    });
    let kind = |answer: &String| if answer.len() > 1 { "long" } else { "short" };
    let name = name.tally(move |answer| Tally::new().of("kind", kind(answer)).add("digits", answer.len() as f64));
    let name = name.build();
    env.from_collection(vec![1, 2, 3, 10, 11]).map(move |n| name.call_blocking(n).is_ok()).sink(|_| {});
    for _run in 0..2 {
        let report = env.run().unwrap();
        let tallies = &report.services[0].policy.as_ref().unwrap().tallies;
        let sums = tallies.iter().map(|tally| (tally.of["kind"].as_str(), tally.sums["digits"]));
        assert_eq!(sums.collect::<Vec<_>>(), [("long", 4.0), ("short", 2.0)], "errors add nothing");
        assert!(report.to_string().contains("    long: digits 4\n    short: digits 2\n"), "{report}");
    }
}

#[test]
fn a_cost_is_taken_before_a_call_and_settled_by_its_answer() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("cost").clock(clock);
    let service = plain(&env, Policy::new().rate(Rate::cost(100, MINUTE)));
    let asked = Asked::new();
    let tell = asked.teller();
    let name = service.method("name", move |_, n: u32| {
        tell(n);
        ready(Ok::<_, BoxError>(n.to_string()))
    });
    // Each is thought to cost 80, and does cost 10: the second may follow at once, and the third not.
    let name = name.cost(|_| 80).usage(|_| Usage { cost: 10, spent: 0.0 }).build();
    calls(&env, 0..4, 1, name);
    let job = env.submit().unwrap();
    assert_eq!([asked.next(), asked.next(), asked.next()], [0, 1, 2]);
    hands.await_calls(1);
    assert!(asked.rest().is_empty());
    hands.advance(6 * SECOND);
    let report = job.wait().unwrap();
    assert_eq!(report.services[0].policy.as_ref().unwrap().rate.as_ref().unwrap().cost, 40);
}

#[test]
fn what_can_never_be_paid_is_refused_at_once() {
    leak_free(|_| {
        let env = Environment::local("dear");
        let policy = Policy::new().rate(Rate::cost(100, MINUTE)).spend(Spend::at_most(1.0, MINUTE));
        let name = plain(&env, policy).method("name", |_, n: u32| ready(Ok::<_, BoxError>(n.to_string())));
        let name = name.cost(|n| u64::from(*n)).price(|n| if *n == 60 { 1.2 } else { 0.1 }).build();
        env.from_iter([10, 101, 60]).try_sink(move |n| match (n, name.call_blocking(n)) {
            (10, Ok(_)) => Ok(()),
            (101, Err(CallError::Refused { refusal: Refusal::CostTooLarge { cost: 101, most: 100 }, .. })) => Ok(()),
            (60, Err(CallError::Refused { refusal: Refusal::PriceTooLarge { .. }, .. })) => Ok(()),
            (n, other) => Err(format!("{n}: {other:?}")),
        });
        let report = env.run().unwrap();
        assert_eq!(report.services[0].policy.as_ref().unwrap().refused, 2);
    });
}

#[test]
fn when_a_service_says_how_long_it_wants_to_be_left_alone_nobody_calls_it_before() {
    // Without limits of its own as well.
    for policy in [Policy::new(), Policy::new().rate(Rate::calls(1_000_000, SECOND))] {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let env = Environment::local("throttled").clock(clock);
        let policy = policy.retry(Retry::up_to(2));
        let asked = Asked::new();
        let tell = asked.teller();
        let first = Mutex::new(true);
        let busy = || ServiceError::new(Verdict::Throttled(Some(30 * SECOND)), "429 Too Many Requests");
        let name = plain(&env, policy).method("name", move |_, n: u32| {
            tell(n);
            let is_first = std::mem::take(&mut *first.lock().unwrap());
            ready(if is_first { Err(busy()) } else { Ok(n.to_string()) })
        });
        // One at a time, so that the second call comes when the first was told to wait.
        let name = name.build();
        calls(&env, 0..1, 1, name.clone());
        let (feed, source) = testing::source();
        env.from_source(move |_| source.clone()).try_sink(move |n| name.call_blocking(n).map(drop));
        let job = env.submit().unwrap();
        assert_eq!(asked.next(), 0);
        hands.await_calls(1);
        feed.send(7);
        // The first in the queue waits for the moment that it was told. The other call has a place behind it.
        let rate = || job.metrics().services[0].policy.clone().unwrap().rate.unwrap();
        while rate().waiting < 2 {
            std::thread::yield_now();
        }
        hands.advance(29 * SECOND);
        hands.await_calls(1);
        assert!(asked.rest().is_empty());
        hands.advance(SECOND);
        feed.end();
        job.wait().unwrap();
        assert_eq!(sorted(asked.rest()), [0, 7]);
    }
}

#[test]
fn limits_that_let_nothing_pass_are_told_at_submit() {
    for (policy, told) in [
        (Policy::new().rate(Rate::calls(0, SECOND)), "a rate of 0 calls lets no call pass"),
        (Policy::new().rate(Rate::cost(1, Duration::ZERO)), "a rate needs a time longer than zero"),
        (
            Policy::new().spend(Spend::at_most(f64::NAN, SECOND)),
            "a spend of at most NaN is none: give a finite number above 0",
        ),
        (Policy::new().concurrency(Concurrency::at_most(0)), "a concurrency of 0 lets no call pass"),
        (Policy::new().pause_on_outage(Duration::ZERO), "a pause of at most zero is none; leave it out"),
    ] {
        let env = Environment::local("mistaken");
        plain(&env, policy);
        env.from_iter([1]).sink(|_| {});
        let SubmitError::ServicePolicy { message, .. } = env.submit().expect_err("it cannot be") else {
            panic!("another error");
        };
        assert_eq!(message, told);
    }
}

#[test]
fn no_more_calls_are_under_way_than_may_be_whoever_makes_them() {
    leak_free(|_| {
        let env = Environment::local("few");
        let service = plain(&env, Policy::new().concurrency(Concurrency::at_most(3)));
        let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let greatest = most.clone();
        let name = service.method("name", move |_, n: u32| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, BoxError>(n.to_string())
            }
        });
        let name = name.build();
        calls(&env, 0..200, 8, name.clone());
        calls(&env, 0..200, 8, name.clone());
        env.from_iter(0..50).try_sink(move |n| name.call_blocking(n).map(drop));
        let report = env.run().unwrap();
        assert_eq!(greatest.load(Ordering::SeqCst), 3);
        let concurrency = report.services[0].policy.as_ref().unwrap().concurrency.clone().unwrap();
        assert_eq!((concurrency.in_flight, concurrency.waiting, concurrency.limit), (0, 0, 3));
    });
}

#[test]
fn a_call_that_a_service_makes_to_itself_does_not_wait_for_itself() {
    leak_free(|_| {
        let env = Environment::local("within");
        let service = plain(&env, Policy::new().concurrency(Concurrency::at_most(1)));
        let known = Arc::new(OnceLock::<Method<u32, u32>>::new());
        let own = known.clone();
        let count = service.method("count", move |_, n: u32| {
            let own = own.get().unwrap().clone();
            async move { Ok::<_, BoxError>(if n == 0 { 1 } else { own.call(n - 1).await? + 1 }) }
        });
        let count = known.get_or_init(|| count.build()).clone();
        let counted = env.from_iter(0..5).try_map(move |n| count.call_blocking(n)).collect();
        let report = env.run().unwrap();
        assert_eq!(counted.take(), [1, 2, 3, 4, 5]);
        let policy = report.services[0].policy.as_ref().unwrap();
        assert_eq!((policy.calls, policy.concurrency.as_ref().unwrap().in_flight), (15, 0));
    });
}

#[test]
fn one_call_too_many_in_the_queue_is_refused_at_once() {
    let env = Environment::local("full");
    let service = plain(&env, Policy::new().concurrency(Concurrency::at_most(1).queue(1)));
    let (asked, gate) = (Asked::new(), Arc::new(tokio::sync::Notify::new()));
    let (tell, opened) = (asked.teller(), gate.clone());
    let name = service.method("name", move |_, n: u32| {
        tell(n);
        let opened = opened.clone();
        async move {
            opened.notified().await;
            Ok::<_, BoxError>(n.to_string())
        }
    });
    let name = name.build();
    let called = move |n| {
        let (name, gate) = (name.clone(), gate.clone());
        async move {
            let ended = name.call(n).await;
            // The one that is refused ends first, and lets the others go.
            gate.notify_one();
            ended
        }
    };
    let ended = env.from_iter(0..3).map_async(3, sage::Order::Unordered, called).collect();
    env.run().unwrap();
    let ended = ended.take();
    assert!(
        matches!(&ended[0], Err(CallError::Refused { refusal: Refusal::QueueFull { waiting: 1 }, .. })),
        "{ended:?}"
    );
    assert!(ended[1].is_ok() && ended[2].is_ok(), "{ended:?}");
}

#[test]
fn a_throttled_service_is_called_less_at_once() {
    let env = Environment::local("adapts");
    let retry = Retry::up_to(2).backoff(Duration::ZERO, Duration::ZERO);
    let service = plain(&env, Policy::new().concurrency(Concurrency::at_most(8).adaptive(1)).retry(retry));
    let busy = || ServiceError::new(Verdict::Throttled(None), "429 Too Many Requests");
    let name = service.method("name", move |calling, n: u32| {
        let is_first = calling.attempt() == 1 && n == 0;
        ready(if is_first { Err(busy()) } else { Ok(n.to_string()) })
    });
    calls(&env, 0..1, 1, name.build());
    let report = env.run().unwrap();
    let concurrency = report.services[0].policy.as_ref().unwrap().concurrency.clone().unwrap();
    assert_eq!((concurrency.cuts, concurrency.limit), (1, 4));
}

#[test]
fn code_that_blocks_past_its_timeout_keeps_its_slot_until_it_ends_and_is_replaced_as_often_as_may_be() {
    leak_free(|_| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let env = Environment::local("stuck").clock(clock).on_error(ErrorPolicy::skip());
        let limit = Concurrency::at_most(1).replacements(1);
        let service = plain(&env, Policy::new().timeout(SECOND).concurrency(limit));
        let (asked, gate) = (Asked::new(), Gate::new());
        let (tell, entered) = (asked.teller(), gate.clone());
        let name = service.blocking_method("name", move |_, n: u32| {
            tell(n);
            entered.pass();
            Ok::<_, BoxError>(n.to_string())
        });
        calls(&env, 0..3, 1, name.build());
        let job = env.submit().unwrap();
        let figures = || job.metrics().services[0].policy.clone().unwrap().concurrency.unwrap();
        // The first is stuck, and the second goes in its stead. The third waits for one of them to end.
        for n in 0..2 {
            assert_eq!(asked.next(), n);
            hands.await_calls(1);
            hands.advance(SECOND);
        }
        while figures().waiting == 0 {
            std::thread::yield_now();
        }
        let now = figures();
        assert_eq!((now.in_flight, now.stuck, now.replaced), (2, 1, 1));
        assert!(asked.rest().is_empty());
        gate.open();
        let report = job.wait().unwrap();
        assert_eq!(asked.next(), 2);
        assert_eq!(report.operator("try-map-async-1").unwrap().failed, 2, "{report}");
    });
}
