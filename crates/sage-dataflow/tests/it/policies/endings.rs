//! A job that ends while calls wait: every wait is ended, and nothing is left.

use std::future::{pending, ready};
use std::time::Duration;

use sage::{
    Batch, Batching, BoxError, CallError, Environment, JobHandle, Method, Outcome, Policy, Retry, ServiceState,
};

use super::{Asked, Plain, calls, plain};
use crate::leaks::leak_free;
use crate::probes::failed;

/// Waits that nothing ends but the job.
const LONG: Duration = Duration::from_secs(3600);

/// A method whose calls wait, and tell when one has begun to.
type Waits = fn(&Environment, Asked<u32>) -> (Method<u32, String>, Asked<u32>);

fn between_attempts(env: &Environment, asked: Asked<u32>) -> (Method<u32, String>, Asked<u32>) {
    let service = plain(env, Policy::new().retry(Retry::up_to(2).backoff(LONG, LONG)));
    let tell = asked.teller();
    let method = service.method("name", move |_, n| {
        tell(n);
        ready(Err::<String, BoxError>("not now".into()))
    });
    (method.build(), asked)
}

fn for_an_answer(env: &Environment, asked: Asked<u32>) -> (Method<u32, String>, Asked<u32>) {
    let service = plain(env, Policy::new().timeout(LONG));
    let tell = asked.teller();
    let method = service.method("name", move |_, n| {
        tell(n);
        pending::<Result<String, BoxError>>()
    });
    (method.build(), asked)
}

fn for_the_answer_of_a_batch(env: &Environment, asked: Asked<u32>) -> (Method<u32, String>, Asked<u32>) {
    let service = plain(env, Policy::new().timeout(LONG));
    let tell = asked.teller();
    let method = service.batch_method("name", Batching::of(1), move |_, batch: Batch<u32>| {
        tell(batch[0]);
        pending::<Result<Vec<Result<String, BoxError>>, BoxError>>()
    });
    (method.build(), asked)
}

#[track_caller]
fn cancelled(job: &JobHandle) {
    job.cancel();
    let report = failed(job.wait());
    assert_eq!((report.outcome, report.left.len()), (Outcome::Cancelled, 0), "{report}");
    assert!(report.attached.is_empty(), "{report}");
}

#[test]
fn a_cancel_ends_every_wait_of_a_call() {
    let waits: [Waits; 3] = [between_attempts, for_an_answer, for_the_answer_of_a_batch];
    leak_free(|_| {
        for waits in waits {
            for blocking in [false, true] {
                let env = Environment::local("cancelled");
                let (method, asked) = waits(&env, Asked::new());
                if blocking {
                    env.from_iter(0..1).try_map(move |n| method.call_blocking(n)).sink(|_| {});
                } else {
                    calls(&env, 0..1, 1, method);
                }
                let job = env.submit().unwrap();
                asked.next();
                cancelled(&job);
            }
        }
    });
}

#[test]
fn a_cancel_ends_the_wait_for_a_batch_to_fill() {
    leak_free(|_| {
        for blocking in [false, true] {
            let env = Environment::local("cancelled");
            let service = plain(&env, Policy::new());
            let batching = Batching::of(64).within(LONG);
            let answer =
                |_, batch: Batch<u32>| ready(Ok::<_, BoxError>(batch.iter().map(|n| Ok(n.to_string())).collect()));
            let method = service.batch_method("name", batching, answer).build();
            let waiting = method.clone();
            if blocking {
                env.from_iter(0..1).try_map(move |n| method.call_blocking(n)).sink(|_| {});
            } else {
                calls(&env, 0..1, 1, method);
            }
            let job = env.submit().unwrap();
            while waiting.waiting() == 0 {
                std::thread::yield_now();
            }
            cancelled(&job);
        }
    });
}

#[test]
fn contract_07_a_drain_lets_calls_end_with_their_retries() {
    leak_free(|_| {
        let env = Environment::local("drained");
        let service = plain(&env, Policy::new().retry(Retry::up_to(3).backoff(Duration::from_millis(1), LONG)));
        let (asked, answer) = (Asked::new(), super::flaky(2));
        let tell = asked.teller();
        let method = service.method("name", move |_, n| {
            tell(n);
            ready(answer(n))
        });
        let (feed, source) = sage::testing::source();
        let method = method.build();
        let answers = env
            .from_source(move |_| source.clone())
            .try_map_async(1, sage::Order::Ordered, move |n| {
                let method = method.clone();
                async move { method.call(n).await }
            })
            .collect();
        let job = env.submit().unwrap();
        feed.send(5);
        asked.next();
        job.drain();
        job.wait().unwrap();
        assert_eq!(answers.take(), ["5"]);
    });
}

#[test]
fn contract_24_nothing_is_left_of_calls_when_the_run_returns_though_environment_and_methods_live_on() {
    leak_free(|watch| {
        let env = Environment::local("left");
        let policy = Policy::new().timeout(LONG).retry(Retry::up_to(3));
        let method = plain(&env, policy).method("name", |_, n: u32| ready(Ok::<_, BoxError>(n.to_string()))).build();
        calls(&env, 0..10, 3, method.clone());
        let called = method.clone();
        env.from_iter(0..10).try_sink(move |n| called.call_blocking(n).map(drop));
        env.run().unwrap();
        watch.expect_left(&[]);
        drop(method);
    });
}

#[test]
fn a_service_that_blocks_may_call_others_and_wait_for_them() {
    leak_free(|_| {
        let lent = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for runtime in [None, Some(lent.handle().clone())] {
            let env = Environment::local("nested");
            let env = match runtime {
                Some(runtime) => env.runtime(runtime),
                None => env,
            };
            let inner = env.register_service("inner", || Plain).policy(Policy::new().retry(Retry::up_to(2))).build();
            let inner = inner.method("name", |_, n: u32| ready(Ok::<_, BoxError>(n.to_string()))).build();
            let outer = env.register_service("outer", || Plain).policy(Policy::new().retry(Retry::up_to(2))).build();
            let outer = outer.blocking_method("name", move |_, n: u32| inner.call_blocking(n)).build();
            let answers = env.from_iter(0..3).try_map(move |n| outer.call_blocking(n)).collect();
            env.run().unwrap();
            assert_eq!(answers.take(), ["0", "1", "2"]);
        }
    });
}

#[test]
fn a_call_outside_a_run_tells_the_state_of_the_service() {
    let env = Environment::local("over");
    let method = plain(&env, Policy::new()).method("name", |_, n: u32| ready(Ok::<_, BoxError>(n.to_string()))).build();
    let state = |method: &Method<u32, String>| match method.call_blocking(1) {
        Err(CallError::NotServing { state, .. }) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(state(&method), ServiceState::Registered);
    calls(&env, 0..1, 1, method.clone());
    env.run().unwrap();
    assert_eq!(state(&method), ServiceState::Cleaned);
}
