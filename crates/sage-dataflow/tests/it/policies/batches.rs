//! Requests that go to a service together.

use std::future::{pending, ready};
use std::time::Duration;

use proptest::prelude::*;
use sage::testing;
use sage::{
    Batch, Batching, BoxError, CallError, Environment, ErrorPolicy, Fatal, Method, Policy, RetriesExhausted, Retry,
    ServiceError, SubmitError, Timestamp, Verdict,
};

use super::{Asked, calls, plain};
use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

const MILLI: Duration = Duration::from_millis(1);
/// A window that nothing waits for.
const LONG: Duration = Duration::from_secs(3600);

fn answered(batch: &Batch<u32>) -> Vec<Result<String, BoxError>> {
    batch.iter().map(|n| Ok(n.to_string())).collect()
}

#[test]
fn a_batch_leaves_when_it_is_full_whoever_filled_it() {
    leak_free(|_| {
        let env = Environment::local("full");
        let service = plain(&env, Policy::new());
        let asked = Asked::new();
        let tell = asked.teller();
        let batching = Batching::of(4).within(LONG);
        let name = service.batch_method("name", batching, move |_, batch: Batch<u32>| {
            tell(batch.len());
            ready(Ok::<_, BoxError>(answered(&batch)))
        });
        // Two pipelines of one job call it.
        let name = name.build();
        calls(&env, 0..8, 2, name.clone());
        calls(&env, 100..108, 2, name);
        let report = env.run().unwrap();
        assert_eq!(asked.rest(), [4; 4]);
        let policy = report.services[0].policy.as_ref().unwrap();
        assert_eq!((policy.calls, policy.batches, policy.batched), (16, 4, 16));
    });
}

#[test]
fn a_batch_that_is_not_full_leaves_when_its_window_has_passed() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("window").clock(clock);
    let service = plain(&env, Policy::new());
    let asked = Asked::new();
    let tell = asked.teller();
    let batching = Batching::of(64).within(20 * MILLI);
    let name = service.batch_method("name", batching, move |_, batch: Batch<u32>| {
        tell(sorted(batch.to_vec()));
        ready(Ok::<_, BoxError>(answered(&batch)))
    });
    let name = name.build();
    calls(&env, 0..3, 8, name.clone());
    let job = env.submit().unwrap();
    // It is the batch that waits.
    hands.await_calls(1);
    while name.waiting() < 3 {
        std::thread::yield_now();
    }
    hands.advance(19 * MILLI);
    hands.await_calls(1);
    assert!(asked.rest().is_empty());
    hands.advance(MILLI);
    job.wait().unwrap();
    assert_eq!(asked.rest(), [[0, 1, 2]]);
}

#[test]
fn a_batch_costs_no_more_than_it_may_and_what_costs_more_goes_alone() {
    let env = Environment::local("cost");
    let service = plain(&env, Policy::new());
    let asked = Asked::new();
    let tell = asked.teller();
    let batching = Batching::of(64).cost(10).within(Duration::ZERO);
    let name = service.batch_method("name", batching, move |_, batch: Batch<u32>| {
        tell(batch.to_vec());
        ready(Ok::<_, BoxError>(answered(&batch)))
    });
    calls(&env, 1..15, 100, name.cost(|n| u64::from(*n)).build());
    env.run().unwrap();
    let batches = asked.rest();
    for batch in &batches {
        assert!(batch.len() == 1 || batch.iter().sum::<u32>() <= 10, "{batches:?}");
    }
    assert_eq!(sorted(batches.concat()), (1..15).collect::<Vec<_>>());
}

#[test]
fn each_request_has_its_own_answer_or_error() {
    let env = Environment::local("errors");
    let service = plain(&env, Policy::new());
    let batching = Batching::of(4).within(MILLI);
    let name = service.batch_method("name", batching, move |_, batch: Batch<u32>| {
        let one = |n: &u32| if n.is_multiple_of(3) { Err(format!("not {n}").into()) } else { Ok(n.to_string()) };
        ready(Ok::<_, BoxError>(batch.iter().map(one).collect()))
    });
    let name = name.build();
    let answers = env
        .from_iter(0..20_u32)
        .map_async(8, sage::Order::Ordered, move |n| {
            let name = name.clone();
            async move { name.call(n).await.map_err(|error| (n, error)) }
        })
        .collect();
    env.run().unwrap();
    for (n, answer) in (0..20).zip(answers.take()) {
        match answer {
            Ok(text) => assert!(n % 3 != 0 && text == n.to_string()),
            Err((of, CallError::Failed { source, .. })) => {
                assert_eq!((of, source.to_string()), (n, format!("not {n}")));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The numbers that a service rejects the batch for, and what it was asked until all others were answered.
fn poisoned(poison: Vec<u32>, count: u32) -> (Vec<u32>, Vec<Vec<u32>>) {
    let env = Environment::local("poison");
    let service = plain(&env, Policy::new());
    let asked = Asked::new();
    let tell = asked.teller();
    let batching = Batching::of(count as usize).within(LONG);
    let name = service.batch_method("name", batching, move |_, batch: Batch<u32>| {
        tell(batch.to_vec());
        let is_bad = batch.iter().any(|n| poison.contains(n));
        let bad = || ServiceError::new(Verdict::Bad, "400 Bad Request");
        ready(if is_bad { Err(bad()) } else { Ok(answered(&batch)) })
    });
    let name = name.build();
    let failed = env
        .from_iter(0..count)
        .map_async(count as usize, sage::Order::Ordered, move |n| {
            let name = name.clone();
            async move { name.call(n).await.is_err().then_some(n) }
        })
        .filter(Option::is_some)
        .collect();
    env.run().expect("each call ends");
    (failed.take().into_iter().flatten().collect(), asked.rest())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn a_rejected_batch_is_cut_in_halves_until_those_at_fault_are_known(
        count in 1..40_u32,
        picks in proptest::collection::btree_set(0..40_u32, 0..4),
    ) {
        let poison: Vec<u32> = picks.into_iter().filter(|n| *n < count).collect();
        let (failed, asked) = poisoned(poison.clone(), count);
        prop_assert_eq!(failed, poison.clone());
        // Nothing that was answered was asked again: what was not rejected makes up the others, once each.
        let accepted: Vec<u32> =
            asked.iter().filter(|batch| !batch.iter().any(|n| poison.contains(n))).flatten().copied().collect();
        let others: Vec<u32> = (0..count).filter(|n| !poison.contains(n)).collect();
        prop_assert_eq!(sorted(accepted), others);
        let most = 1 + poison.len() * 2 * (32 - count.leading_zeros()) as usize;
        prop_assert!(asked.len() <= most, "{} of {most}", asked.len());
    }
}

#[test]
fn another_number_of_answers_is_an_error_of_all() {
    let env = Environment::local("few");
    let retry = Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO);
    let service = plain(&env, Policy::new().retry(retry));
    let name = service.batch_method("name", Batching::of(3).within(MILLI), |_, batch: Batch<u32>| {
        let mut answers = answered(&batch);
        answers.pop();
        ready(Ok::<_, BoxError>(answers))
    });
    calls(&env, 0..3, 3, name.build());
    let report = failed(env.run());
    let told = report.first_cause.as_ref().unwrap().to_string();
    assert!(told.contains("it gave 2 answers to a batch of 3 requests"), "{told}");
    assert_eq!(report.services[0].policy.as_ref().unwrap().batches, 1);
}

#[test]
fn a_batch_that_is_not_answered_in_time_is_not_sent_again() {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("late").clock(clock).on_error(ErrorPolicy::skip());
    let service = plain(&env, Policy::new().timeout(1000 * MILLI).retry(Retry::up_to(5)));
    let asked = Asked::new();
    let tell = asked.teller();
    let name = service.batch_method("name", Batching::of(3).within(LONG), move |_, batch: Batch<u32>| {
        tell(batch.len());
        pending::<Result<_, BoxError>>()
    });
    calls(&env, 0..3, 3, name.build());
    let job = env.submit().unwrap();
    assert_eq!(asked.next(), 3);
    hands.await_calls(1);
    hands.advance(1000 * MILLI);
    let report = job.wait().unwrap();
    assert!(asked.rest().is_empty());
    assert_eq!(report.services[0].policy.as_ref().unwrap().timed_out, 3);
}

#[test]
fn a_panic_of_an_answer_is_the_error_of_its_batch() {
    leak_free(|_| {
        let env = Environment::local("panic");
        let service = plain(&env, Policy::new());
        let name = service.batch_method("name", Batching::of(3).within(MILLI), |_, batch: Batch<u32>| async move {
            assert!(!batch.contains(&1), "one is too many");
            Ok::<_, BoxError>(answered(&batch))
        });
        calls(&env, 0..3, 3, name.build());
        let report = failed(env.run());
        let told = report.first_cause.as_ref().unwrap().to_string();
        assert!(told.contains("it panicked: one is too many"), "{told}");
        assert!(report.left.is_empty(), "{report}");
    });
}

#[test]
fn a_batch_of_nothing_is_told_at_submit() {
    for (batching, told) in [
        (Batching::of(0), "a batch has at least one request"),
        (Batching::of(1).cost(0), "a batch has at least one unit of cost"),
    ] {
        let env = Environment::local("mistaken");
        let service = plain(&env, Policy::new());
        let name =
            service.batch_method("name", batching, |_, batch: Batch<u32>| ready(Ok::<_, BoxError>(answered(&batch))));
        calls(&env, 0..1, 1, name.build());
        let SubmitError::ServicePolicy { message, .. } = env.submit().expect_err("it cannot be") else {
            panic!("another error");
        };
        assert_eq!(message, told);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("tired")]
struct Tired;

/// Whether and how it is tried again is told by the error itself, which each request of the batch has.
#[test]
fn the_error_of_a_batch_is_that_of_each_request() {
    let env = Environment::local("shared");
    let retry = Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO).when(|error| error.is::<Tired>());
    let service = plain(&env, Policy::new().retry(retry));
    let asked = Asked::new();
    let tell = asked.teller();
    let tired = service.batch_method("tired", Batching::of(2).within(LONG), move |calling, _: Batch<u32>| {
        tell(calling.attempt());
        ready(Err::<Vec<Result<String, BoxError>>, _>(Tired))
    });
    let fatal = service.batch_method("fatal", Batching::of(1), |_, _: Batch<u32>| {
        ready(Err::<Vec<Result<String, BoxError>>, _>(Fatal::new(Tired)))
    });
    let ended = |method: Method<u32, String>, numbers: std::ops::Range<u32>| {
        let called = move |n| {
            let method = method.clone();
            async move { Ok::<_, BoxError>(method.call(n).await.expect_err("no batch is answered")) }
        };
        env.from_iter(numbers).try_map_async(2, sage::Order::Ordered, called).collect()
    };
    let (tired, fatal) = (ended(tired.build(), 0..2), ended(fatal.build(), 0..2));
    env.run().unwrap();
    for error in tired.take() {
        let CallError::Failed { source, .. } = error else { panic!("{error}") };
        let exhausted = source.downcast_ref::<RetriesExhausted>().expect("it was tried again");
        assert!(exhausted.attempts == 3 && exhausted.source.is::<Tired>());
    }
    for error in fatal.take() {
        let CallError::Failed { source, .. } = error else { panic!("{error}") };
        assert!(source.is::<Fatal>());
    }
    assert_eq!(asked.rest(), [1, 2, 3]);
}
