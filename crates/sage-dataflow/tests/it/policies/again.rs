//! Services that are begun anew while they are at calls, such as in another process.

use std::future::ready;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sage::testing::{self, ClockHands};
use sage::{
    Batch, Batching, BoxError, Breaker, Clock, Environment, JobReport, Method, Order, Policy, PolicyReport,
    PolicyService, Retry, ServiceError, Timestamp, Verdict,
};

use super::{Asked, Plain, calls, plain};
use crate::leaks::leak_free;
use crate::probes::failed;

const SECOND: Duration = Duration::from_secs(1);

fn environment() -> (ClockHands, Environment) {
    let (hands, clock): (_, Clock) = testing::clock(Timestamp::from_millis(0));
    (hands, Environment::local("again").clock(clock))
}

fn begun_anew() -> BoxError {
    ServiceError::new(Verdict::Again, "its process was killed").into()
}

/// Meets so many restarts, and then answers. Tells the number of each attempt.
fn meets(service: &PolicyService<Plain>, restarts: u32) -> (Method<u32, String>, Asked<u32>) {
    let (asked, left) = (Asked::new(), AtomicU32::new(restarts));
    let tell = asked.teller();
    let method = service.method("name", move |calling, n: u32| {
        tell(calling.attempt());
        let meets = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        ready(if meets { Err(begun_anew()) } else { Ok(n.to_string()) })
    });
    (method.build(), asked)
}

fn policy(report: &JobReport) -> &PolicyReport {
    report.services[0].policy.as_ref().expect("it has a policy")
}

fn cause(report: &JobReport) -> String {
    report.first_cause.as_ref().expect("the job failed").to_string()
}

#[test]
fn a_call_that_met_a_restart_is_made_again_and_no_attempt_is_counted() {
    leak_free(|_| {
        let env = Environment::local("again");
        let retry = Retry::up_to(2).backoff(Duration::ZERO, Duration::ZERO);
        let breaker = Breaker::after_consecutive(1);
        let service = plain(&env, Policy::new().make_again(3).retry(retry).breaker(breaker));
        let (method, asked) = meets(&service, 3);
        calls(&env, 0..1, 1, method);
        let report = env.run().unwrap();
        assert_eq!(asked.rest(), [1; 4]);
        let told = policy(&report);
        assert_eq!((told.made_again, told.attempts, told.retries.scheduled, told.failed), (3, 4, 0, 0));
        assert_eq!(told.breaker.as_ref().unwrap().opened, 0);
        assert!(report.to_string().contains("3 made again"), "{report}");
    });
}

#[test]
fn a_call_that_meets_more_restarts_fails_and_says_how_often_it_was_made_again() {
    for (times, said) in [(1, "once"), (2, "2 times")] {
        let env = Environment::local("again");
        let (method, asked) = meets(&plain(&env, Policy::new().make_again(times)), 9);
        calls(&env, 0..1, 1, method);
        let report = failed(env.run());
        assert_eq!(asked.rest().len() as u32, times + 1);
        let told = cause(&report);
        assert!(told.contains(&format!("the call was made again {said}")), "{told}");
        assert!(told.contains("its process was killed"), "{told}");
        assert_eq!((policy(&report).made_again, policy(&report).failed), (u64::from(times), 1));
    }
}

#[test]
fn a_policy_that_makes_no_call_again_takes_a_restart_for_a_passing_error() {
    let env = Environment::local("again");
    let retry = Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO);
    let (method, asked) = meets(&plain(&env, Policy::new().retry(retry)), 2);
    calls(&env, 0..1, 1, method);
    let report = env.run().unwrap();
    assert_eq!((asked.rest(), policy(&report).made_again), (vec![1, 2, 3], 0));
}

#[test]
fn requests_of_a_batch_that_met_a_restart_are_made_again() {
    leak_free(|_| {
        let env = Environment::local("again");
        let (asked, met) = (Asked::new(), AtomicU32::new(0));
        let tell = asked.teller();
        let answer = move |_, batch: Batch<u32>| {
            tell(batch.to_vec());
            ready(match met.fetch_add(1, Ordering::SeqCst) {
                0 => Err(begun_anew()),
                _ => Ok(batch.iter().map(|n| Ok(n.to_string())).collect()),
            })
        };
        let batching = Batching::of(3).within(3600 * SECOND);
        let service = plain(&env, Policy::new().make_again(1));
        calls(&env, 0..3, 3, service.batch_method("name", batching, answer).build());
        let report = env.run().unwrap();
        assert_eq!(asked.rest().iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        assert_eq!((policy(&report).made_again, policy(&report).failed), (3, 0));
    });
}

/// A service that is begun anew because an attempt is past its timeout: it says so before anything else does.
fn late(hands: ClockHands) -> impl Fn() -> BoxError + Send + Sync {
    move || {
        hands.advance(5 * SECOND);
        begun_anew()
    }
}

#[test]
fn an_attempt_past_its_timeout_met_its_own_restart_and_is_timed_out() {
    for together in [false, true] {
        let (hands, env) = environment();
        let service = plain(&env, Policy::new().make_again(3).timeout(5 * SECOND));
        let late = late(hands);
        let method = if together {
            let batching = Batching::of(1);
            service.batch_method("name", batching, move |_, _: Batch<u32>| ready(Err::<Vec<_>, _>(late()))).build()
        } else {
            service.method("name", move |_, _| ready(Err::<String, _>(late()))).build()
        };
        calls(&env, 0..1, 1, method);
        let report = failed(env.run());
        assert!(cause(&report).contains("within 5s"), "{report}");
        assert_eq!((policy(&report).timed_out, policy(&report).made_again), (1, 0));
    }
}

#[test]
fn attempts_are_held_while_the_service_is_begun_anew_and_their_timeout_begins_behind_that() {
    leak_free(|_| {
        for together in [false, true] {
            let (hands, env) = environment();
            let service = plain(&env, Policy::new().timeout(SECOND).deadline(9 * SECOND));
            let (asked, tell) = told();
            let method = if together {
                let answer = move |_, batch: Batch<u32>| {
                    tell(batch.len() as u32);
                    ready(Ok::<_, BoxError>(batch.iter().map(|n| Ok(n.to_string())).collect()))
                };
                service.batch_method("name", Batching::of(1), answer).build()
            } else {
                let answer = move |_, n: u32| {
                    tell(n);
                    ready(Ok::<_, BoxError>(n.to_string()))
                };
                service.method("name", answer).build()
            };
            held(&env, &service, method);
            let job = env.submit().unwrap();
            hands.await_calls(1);
            hands.advance(5 * SECOND);
            assert!(asked.rest().is_empty());
            service.release();
            let report = job.wait().unwrap();
            assert_eq!((asked.rest().len(), policy(&report).timed_out), (1, 0));
        }
    });
}

fn told() -> (Asked<u32>, impl Fn(u32) + Clone + Send + Sync + use<>) {
    let asked = Asked::new();
    let tell = asked.teller();
    (asked, tell)
}

/// Calls a method once, whose service is begun anew from then on.
fn held(env: &Environment, service: &PolicyService<Plain>, method: Method<u32, String>) {
    let service = service.clone();
    let called = move |n| {
        service.hold();
        let method = method.clone();
        async move { method.call(n).await }
    };
    env.from_iter(0..1).try_map_async(1, Order::Ordered, called).sink(|_| {});
}

#[test]
fn a_deadline_a_cancel_and_the_loss_of_the_service_each_end_the_wait() {
    leak_free(|_| {
        for end in ["deadline", "cancel", "loss"] {
            let (hands, env) = environment();
            let service = plain(&env, Policy::new().deadline(9 * SECOND));
            let (method, asked) = meets(&service, 0);
            held(&env, &service, method);
            let job = env.submit().unwrap();
            hands.await_calls(1);
            match end {
                "deadline" => hands.advance(9 * SECOND),
                "cancel" => job.cancel(),
                _ => service.unpoliced().lost(),
            }
            let report = failed(job.wait());
            let told = report.first_cause.as_ref().map(ToString::to_string).unwrap_or_default();
            let said = match end {
                "deadline" => "deadline",
                "cancel" => "",
                _ => "is not serving: it is lost",
            };
            assert!(told.contains(said), "{end}: {told}");
            assert!(asked.rest().is_empty(), "{end}");
        }
    });
}

#[test]
fn the_report_names_processes_that_were_lost_though_others_took_their_place() {
    let env = Environment::local("lost");
    let service = plain(&env, Policy::new());
    let (method, _asked) = meets(&service, 0);
    let tells = service.clone();
    let call = move |n| {
        tells.unpoliced().replaced("process 12 was killed by SIGKILL");
        method.call_blocking(n)
    };
    env.from_iter(0..1).try_map(call).sink(|_| {});
    let report = env.run().unwrap();
    assert_eq!(report.services[0].lost, ["process 12 was killed by SIGKILL"]);
    assert!(report.to_string().contains("lost, another took its place: process 12 was killed by SIGKILL"), "{report}");
}
