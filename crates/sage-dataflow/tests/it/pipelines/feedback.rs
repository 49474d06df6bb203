//! Loops: what goes round, when they end, and what is refused.

use proptest::prelude::*;
use sage::{Environment, FeedbackError, Order, Outcome, SubmitError};

use crate::leaks::leak_free;
use crate::probes::Gate;

/// How many steps a number takes to come to 1.
fn steps(mut n: u64) -> u64 {
    let mut steps = 0;
    while n != 1 {
        n = next(n);
        steps += 1;
    }
    steps
}

const fn next(n: u64) -> u64 {
    if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 }
}

/// Each number with its steps, counted in a loop of `parallelism` replicas.
fn counted(env: &Environment, numbers: Vec<u64>, parallelism: usize) -> sage::Collected<(u64, u64)> {
    let (again, feedback) = env.feedback("again");
    let (open, done) = env
        .from_collection(numbers)
        .map(|n| (n, n, 0))
        .union(again)
        .map(|(n, at, steps)| if at == 1 { (n, at, steps) } else { (n, next(at), steps + 1) })
        .parallelism(parallelism)
        .split(|&(_, at, _)| at != 1);
    feedback.fill(open);
    done.map(|(n, _, steps)| (n, steps)).collect()
}

fn expected(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut expected: Vec<_> = numbers.iter().map(|&n| (n, steps(n))).collect();
    expected.sort_unstable();
    expected
}

fn sorted<T: Ord + Send + 'static>(collected: &sage::Collected<T>) -> Vec<T> {
    let mut records = collected.take();
    records.sort_unstable();
    records
}

#[test]
fn contract_16_a_loop_ends_with_its_last_record_and_loses_none() {
    leak_free(|_| {
        for parallelism in [1, 2, 5] {
            let env = Environment::local("collatz");
            let numbers: Vec<u64> = (1..3000).collect();
            let counts = counted(&env, numbers.clone(), parallelism);
            let report = env.run().unwrap();
            assert_eq!(sorted(&counts), expected(&numbers));
            let fed_back: u64 = numbers.iter().map(|&n| steps(n).saturating_sub(1)).sum();
            let head = report.operators.iter().find(|operator| operator.name == "again").unwrap();
            assert_eq!(head.records_in, fed_back);
        }
    });
}

#[test]
fn a_loop_without_records_ends() {
    let env = Environment::local("empty");
    let counts = counted(&env, Vec::new(), 3);
    env.run().unwrap();
    assert_eq!(counts.take(), []);
}

#[test]
fn a_loop_runs_on_one_thread_and_again_in_the_next_run() {
    let env = Environment::local("inline").inline();
    let (again, feedback) = env.feedback("again");
    let (odd, even) = env.from_factory(|_replica| [48_u64, 7].into_iter()).union(again).split(|n| !n.is_multiple_of(2));
    feedback.fill(even.map(|n| n / 2));
    let odd = odd.collect();
    for _ in 0..3 {
        env.run().unwrap();
        assert_eq!(sorted(&odd), [3, 7]);
    }
}

#[test]
fn a_loop_through_futures_and_keys_is_exact() {
    leak_free(|_| {
        let env = Environment::local("async");
        let (again, feedback) = env.feedback("again");
        let (open, done) = env
            .from_iter((0..500_u64).map(|n| (n, 0_u64)))
            .union(again)
            .map_async(16, Order::Unordered, |(n, round)| async move {
                tokio::task::yield_now().await;
                (n, round + 1)
            })
            .parallelism(2)
            .key_by(|&(n, _)| n % 7)
            .map_with_state(0_u64, |visits, (n, round)| {
                *visits += 1;
                (n, round, *visits)
            })
            .parallelism(3)
            .split(|&(n, round, _)| round <= n % 5);
        feedback.fill(open.map(|(n, round, _)| (n, round)));
        let visits =
            done.key_by(|&(n, _, _)| n % 7).fold(0_u64, |most, (_, _, visits)| *most = visits.max(*most)).collect();
        env.run().unwrap();
        let mut by_key = [0_u64; 7];
        (0..500_usize).for_each(|n| by_key[n % 7] += n as u64 % 5 + 1);
        let expected: Vec<_> = (0..7).map(|key| (key, by_key[key as usize])).collect();
        assert_eq!(sorted(&visits), expected);
    });
}

#[test]
fn two_loops_in_a_row_end_one_after_the_other() {
    let env = Environment::local("in-a-row");
    let (first, feedback) = env.feedback("first");
    let (odd, even) = env.from_iter(1..200_u64).union(first).split(|n| !n.is_multiple_of(2));
    feedback.fill(even.map(|n| n / 2));
    let (second, feedback) = env.feedback("second");
    let (open, done) = odd.union(second).split(|&n| n > 9);
    feedback.fill(open.map(|n| n - 2).on_another_thread());
    let sums = done.fold(0_u64, |sum, n| *sum += n).collect();
    env.run().unwrap();
    let odd_part = |mut n: u64| {
        while n.is_multiple_of(2) {
            n /= 2;
        }
        n
    };
    assert_eq!(sums.take(), [(1..200).map(|n| odd_part(n).min(9)).sum::<u64>()]);
}

#[test]
fn a_stream_may_be_fed_to_where_no_loop_leads() {
    let env = Environment::local("forward");
    let (later, feedback) = env.feedback("later");
    let doubled = later.map(|n: u64| n * 2).collect();
    feedback.fill(env.from_iter(0..1000_u64));
    env.run().unwrap();
    assert_eq!(doubled.take(), (0..1000).map(|n| n * 2).collect::<Vec<_>>());
}

#[test]
fn a_loop_ends_when_nobody_wants_its_records() {
    leak_free(|_| {
        let env = Environment::local("enough");
        let (again, feedback) = env.feedback("again");
        let [on, back] = env.from_iter([0_u64]).union(again).map(|n| n + 1).take(1000).tee();
        feedback.fill(back);
        let last = on.collect();
        env.run().unwrap();
        assert_eq!(last.take().last(), Some(&1000));
    });
}

#[test]
fn a_failure_in_a_loop_fails_the_job() {
    leak_free(|_| {
        let env = Environment::local("failing");
        let (again, feedback) = env.feedback("again");
        let round = env.from_iter([0_u64]).union(again).try_map(|n| if n < 100 { Ok(n + 1) } else { Err("too far") });
        let [on, back] = round.tee();
        feedback.fill(back);
        on.sink(|_| {});
        let error = env.run().unwrap_err();
        assert!(error.to_string().contains("too far") || format!("{error:?}").contains("too far"), "{error:?}");
    });
}

#[test]
fn contract_04_a_loop_that_never_ends_is_cancelled() {
    leak_free(|_| {
        let env = Environment::local("endless");
        let (again, feedback) = env.feedback("again");
        let gate = Gate::new();
        let seen_enough = gate.clone();
        let [on, back] = env.from_iter(0..50_u64).union(again).tee();
        feedback.fill(back);
        let mut seen = 0;
        on.sink(move |_| {
            seen += 1;
            if seen == 10_000 {
                seen_enough.open();
            }
        });
        let job = env.submit().unwrap();
        gate.pass();
        job.cancel();
        assert_eq!(job.wait().unwrap_err().report().unwrap().outcome, Outcome::Cancelled);
    });
}

#[test]
fn a_loop_that_makes_more_than_it_ends_fails_at_its_limit() {
    leak_free(|_| {
        let env = Environment::local("growing");
        let (again, feedback) = env.feedback("again");
        let [on, back] = env.from_iter([1_u64]).union(again).flat_map(|n| [n, n]).tee();
        feedback.limit(5_000).fill(back);
        on.sink(|_| {});
        let error = env.run().unwrap_err();
        let report = error.report().unwrap();
        let text = report.to_string();
        assert!(text.contains("again") && text.contains("more than 5000 records wait"), "{text}");
    });
}

#[test]
fn what_is_fed_back_at_the_end_of_input_fails_the_job() {
    let env = Environment::local("late");
    let (again, feedback) = env.feedback("again");
    feedback.fill(env.from_iter(0..10_u64).union(again).count());
    let error = env.run().unwrap_err();
    assert!(format!("{error}{error:?}").contains(&FeedbackError::Ended.to_string()), "{error}");
}

#[test]
fn a_loop_that_is_not_closed_is_refused() {
    let env = Environment::local("open");
    let (again, feedback) = env.feedback::<u64>("again");
    again.sink(|_| {});
    drop(feedback);
    let error = env.submit().err().unwrap();
    assert!(matches!(&error, SubmitError::OperatorOption { operator, .. } if operator == "again"), "{error}");
    assert!(error.to_string().contains("fill"), "{error}");
}

#[test]
fn loops_that_share_operators_are_refused() {
    let env = Environment::local("nested");
    let (outer, outer_end) = env.feedback::<u64>("outer");
    let (inner, inner_end) = env.feedback("inner");
    let (small, large) = env.from_iter(0..10).union(outer).union(inner).split(|n| *n < 5);
    inner_end.fill(large.map(|n| n - 1));
    outer_end.fill(small.filter(|_| false));
    let error = env.run().unwrap_err().to_string();
    assert!(error.contains("inner") && error.contains("outer"), "{error}");
}

#[test]
fn a_loop_may_hold_a_record_at_least() {
    let env = Environment::local("none");
    let (again, feedback) = env.feedback::<u64>("again");
    feedback.limit(0).fill(again.union(env.from_iter([1])).filter(|_| false));
    assert!(env.run().unwrap_err().to_string().contains("limit"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_loop_gives_what_a_loop_by_hand_gives(
        numbers in prop::collection::vec(1..100_000_u64, 0..200),
        parallelism in 1..5_usize,
        batch in 1..40_usize,
    ) {
        let env = Environment::local("collatz").block_records(batch);
        let counts = counted(&env, numbers.clone(), parallelism);
        env.run().unwrap();
        prop_assert_eq!(sorted(&counts), expected(&numbers));
    }
}
