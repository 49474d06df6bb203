//! `zip`: the i-th with the i-th, and the end of both with that of the shorter one.

use proptest::prelude::*;
use sage::{CauseKind, Environment, JobState};

use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, failed};

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn zip_pairs_as_iterators_do(
        left in 0..300_u64,
        right in 0..300_u64,
        block_records in 1..65_usize,
        inline in any::<bool>(),
    ) {
        leak_free(|_| {
            let env = Environment::local("zip").block_records(block_records).queue_blocks(2);
            let env = if inline { env.inline() } else { env };
            let pairs = env.from_iter(0..left).zip(env.from_iter((0..right).map(|n| n.to_string()))).collect();
            env.run().expect("nothing in it fails");
            let expected: Vec<_> = (0..left).zip((0..right).map(|n| n.to_string())).collect();
            assert_eq!(pairs.take(), expected);
        });
    }

    #[test]
    fn both_branches_of_a_tee_meet_again(records in 0..500_u64, block_records in 1..9_usize, inline in any::<bool>()) {
        leak_free(|_| {
            let env = Environment::local("diamond").block_records(block_records).queue_blocks(2);
            let env = if inline { env.inline() } else { env };
            let [left, right] = env.from_iter(0..records).tee();
            // The branches are of unequal length, in chains and in what they hold.
            let pairs = left.zip(right.on_another_thread().map(|n| n * 2).on_another_thread()).collect();
            env.run().expect("nothing in it fails");
            assert_eq!(pairs.take(), (0..records).map(|n| (n, n * 2)).collect::<Vec<_>>());
        });
    }
}

#[test]
fn the_end_of_the_shorter_stream_ends_an_endless_one() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("ends");
            let env = if inline { env.inline() } else { env };
            let left = env.from_iter(0_u64..).zip(env.from_iter(["a", "b"])).collect();
            let right = env.from_iter(["a", "b"]).zip(env.from_iter(0_u64..)).collect();
            let none = env.from_iter(0_u64..).zip(env.from_iter(0..0_u64)).count().collect();
            env.run().unwrap();
            assert_eq!(left.take(), [(0, "a"), (1, "b")]);
            assert_eq!(right.take(), [("a", 0), ("b", 1)]);
            assert_eq!(none.take(), [0]);
        }
    });
}

#[test]
fn the_end_of_the_shorter_stream_ends_one_that_has_nothing_more_to_send() {
    leak_free(|_| {
        let env = Environment::local("silent");
        // After the tenth record nothing passes the filter, so the source never meets the end by sending.
        let pairs =
            env.from_iter(0_u64..).filter(|n| *n < 10).on_another_thread().zip(env.from_iter(0..10_u64)).collect();
        env.run().unwrap();
        assert_eq!(pairs.take().len(), 10);
    });
}

#[test]
fn wide_streams_are_gathered_and_take_ends_all() {
    leak_free(|_| {
        let env = Environment::local("wide");
        let wide = env.from_factory(|replica| (0_u64..).map(move |n| (replica, n))).parallelism(3);
        let pairs = wide.zip(env.from_iter(0_u64..).union(env.from_iter(0_u64..))).take(100).collect();
        env.run().unwrap();
        assert_eq!(pairs.take().len(), 100);
    });
}

#[test]
fn contract_16_zipped_streams_of_which_one_is_slow_lose_nothing() {
    leak_free(|_| {
        let env = Environment::local("slow").block_records(4).queue_blocks(2);
        let (gate, journal) = (Gate::new(), Journal::new());
        let (held, seen) = (gate.clone(), journal.clone());
        let slow = env.from_iter(0..1000_u64).inspect(move |n| {
            if *n == 500 {
                held.pass();
            }
        });
        let fast = env.from_iter(0..1000_u64).inspect(move |n| {
            if *n == 999 {
                seen.note("fast is through");
            }
        });
        let pairs = slow.on_another_thread().zip(fast.on_another_thread()).collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        journal.await_events("fast is through", 1);
        assert_eq!(job.status(), JobState::Running);
        gate.open();
        job.wait().unwrap();
        assert_eq!(pairs.take(), (0..1000).zip(0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_stream_too_far_ahead_fails_the_job_and_says_which() {
    leak_free(|_| {
        for side in ["left", "right"] {
            let env = Environment::local("ahead");
            // Has no record and never ends by itself.
            let silent = env.from_iter(0_u64..).filter(|_| false).on_another_thread();
            let fast = env.from_iter(0..11_u64).on_another_thread();
            let (left, right) = if side == "left" { (fast, silent) } else { (silent, fast) };
            left.zip(right).max_ahead(10).named("pairs").sink(|_| {});
            let report = failed(env.run());
            let cause = report.first_cause.as_ref().unwrap();
            assert_eq!(
                (cause.kind, cause.place().to_string().as_str()),
                (CauseKind::Error, "operator `pairs`, record 11")
            );
            assert_eq!(
                cause.message,
                format!("the {side} stream is more than 10 records ahead of the other; see `max_ahead`")
            );
        }
    });
}

#[test]
fn zips_are_shown_and_foreign_streams_told_before_anything_starts() {
    let env = Environment::local("shown");
    let (left, right) = (env.from_iter([1]).named("left"), env.from_iter([1]).named("right"));
    left.zip(right).sink(|_| {}).named("sink");
    assert_eq!(
        env.explain().to_string(),
        "environment `shown`: 3 chains, 3 tasks\n  chain 1 ×1: left\n    → chain 3 (gather)\n  chain 2 ×1: right\n    \
         → chain 3 (gather)\n  chain 3 ×1: zip-1 → sink\n"
    );

    let env = Environment::local("foreign");
    env.from_iter([1]).zip(Environment::local("other").from_iter([2])).sink(|_| {});
    assert_eq!(
        env.run().unwrap_err().to_string(),
        "a stream of another environment comes in at `zip-1`; declare both streams in one environment"
    );
}
