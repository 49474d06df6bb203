//! Joins: exactly the pairs a brute-force loop finds, whatever the interleaving.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{CauseKind, Environment, JobState, Outcome};

use crate::contract::cancelled;
use crate::leaks::leak_free;
use crate::probes::{Counting, CountingSink, Gate, Journal, failed, sorted};

/// A record that owns memory: a key and where it stood.
type Record = (String, usize);

fn records(keys: &[u8]) -> Vec<Record> {
    keys.iter().enumerate().map(|(at, key)| (format!("key {key}"), at)).collect()
}

type Full = (String, Option<Record>, Option<Record>);

/// Every pair by comparing each with each.
fn reference(left: &[Record], right: &[Record], lefts: bool, rights: bool) -> Vec<Full> {
    let mut out = Vec::new();
    for a in left {
        let matches: Vec<_> = right.iter().filter(|b| a.0 == b.0).collect();
        out.extend(matches.iter().map(|b| (a.0.clone(), Some(a.clone()), Some((*b).clone()))));
        if matches.is_empty() && lefts {
            out.push((a.0.clone(), Some(a.clone()), None));
        }
    }
    for b in right.iter().filter(|b| rights && !left.iter().any(|a| a.0 == b.0)) {
        out.push((b.0.clone(), None, Some(b.clone())));
    }
    sorted(out)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Inner,
    Left,
    Full,
}

#[derive(Debug, Clone)]
struct Case {
    left: Vec<u8>,
    right: Vec<u8>,
    sources: usize,
    replicas: usize,
    block_records: usize,
    inline: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let side = || prop_oneof![vec(0..4_u8, 0..30), vec(0..60_u8, 0..120), vec(any::<u8>(), 0..3)];
    (side(), side(), 1..3_usize, 1..6_usize, 1..65_usize, prop::bool::weighted(0.2)).prop_map(
        |(left, right, sources, replicas, block_records, inline)| Case {
            left,
            right,
            sources,
            replicas,
            block_records,
            inline,
        },
    )
}

/// The records of one of several replicas of a source.
fn part(records: &[Record], replica: usize, replicas: usize) -> Vec<Record> {
    records.iter().skip(replica).step_by(replicas).cloned().collect()
}

fn run(case: &Case, kind: Kind) -> Vec<Full> {
    let env = Environment::local("join").block_records(case.block_records).queue_blocks(2);
    let env = if case.inline { env.inline() } else { env };
    let (left, right, sources) = (records(&case.left), records(&case.right), case.sources);
    let left = env.from_factory(move |replica| part(&left, replica, sources)).parallelism(sources);
    let right = env.from_factory(move |replica| part(&right, replica, sources)).parallelism(sources);
    // One key borrowed, one made.
    let joined = left.key_by_ref(|record| record.0.as_str()).join(right.key_by(|record| record.0.clone()));
    let out = match kind {
        Kind::Inner => joined.inner().parallelism(case.replicas).map(|(key, a, b)| (key, Some(a), Some(b))).collect(),
        Kind::Left => joined.left().parallelism(case.replicas).map(|(key, a, b)| (key, Some(a), b)).collect(),
        Kind::Full => joined.full().parallelism(case.replicas).collect(),
    };
    env.run().expect("nothing in it fails");
    sorted(out.take())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn joins_give_what_comparing_each_with_each_gives(case in case()) {
        leak_free(|_| {
            let (left, right) = (records(&case.left), records(&case.right));
            assert_eq!(run(&case, Kind::Inner), reference(&left, &right, false, false));
            assert_eq!(run(&case, Kind::Left), reference(&left, &right, true, false));
            assert_eq!(run(&case, Kind::Full), reference(&left, &right, true, true));
        });
    }

    #[test]
    fn a_source_joined_with_itself_through_a_tee_ends(
        keys in vec(0..20_u64, 0..600),
        replicas in 1..4_usize,
        block_records in 1..9_usize,
        inline in any::<bool>(),
    ) {
        leak_free(|_| {
            let env = Environment::local("diamond").block_records(block_records).queue_blocks(2);
            let env = if inline { env.inline() } else { env };
            let expected = keys.iter().map(|key| keys.iter().filter(|other| *other == key).count() as u64).sum::<u64>();
            let [left, right] = env.from_collection(keys).tee();
            let pairs = left.key_by(|n| *n).join(right.map(|n| n).key_by(|n| *n)).inner().parallelism(replicas);
            let count = pairs.count().collect();
            env.run().expect("nothing in it fails");
            assert_eq!(count.take(), [expected]);
        });
    }
}

#[test]
fn joins_follow_joins_unions_and_tees() {
    leak_free(|_| {
        let env = Environment::local("shapes");
        let [ours, theirs] = env.from_iter(0..500_u64).union(env.from_iter(500..1000_u64)).tee();
        let third = env.from_iter((0..1000_u64).step_by(10));
        let pairs = ours.key_by(|n| *n).join(theirs.key_by(|n| *n)).inner().parallelism(2);
        let triples = pairs.key_by(|pair| pair.0).join(third.key_by(|n| *n)).left().parallelism(3);
        let [matched, alone] = triples.tee();
        let (matched, alone) = (matched.filter(|(_, _, n)| n.is_some()), alone.filter(|(_, _, n)| n.is_none()));
        let counts = matched.count().union(alone.count()).collect();
        env.run().unwrap();
        assert_eq!(sorted(counts.take()), [100, 900]);
    });
}

#[test]
fn a_job_with_a_join_runs_again() {
    leak_free(|_| {
        let env = Environment::local("again");
        let left = env.from_factory(|_| 0..100_u64).key_by(|n| n % 10);
        let right = env.from_factory(|_| 0..10_u64).key_by(|n| *n);
        let count = left.join(right).full().count().collect();
        for _ in 0..3 {
            env.run().unwrap();
            assert_eq!(count.take(), [100]);
        }
    });
}

#[test]
fn take_behind_a_join_ends_its_streams_also_while_it_emits_what_it_gathered() {
    leak_free(|_| {
        let env = Environment::local("take");
        let left = env.from_iter(0..1000_u64).key_by(|n| n % 2);
        let right = env.from_iter(0..1000_u64).key_by(|n| n % 2);
        let taken = left.join(right).full().take(7).collect();
        // Here the probe side never ends by itself.
        let endless = env.from_iter(0_u64..).key_by(|n| n % 2);
        let short = env.from_iter(0..3_u64).key_by(|n| n % 2);
        let joined = endless.join(short).inner().parallelism(2).take(100).collect();
        env.run().unwrap();
        assert_eq!((taken.take().len(), joined.take().len()), (7, 100));
    });
}

#[test]
fn left_records_stream_once_the_right_side_has_ended() {
    leak_free(|_| {
        let env = Environment::local("streams");
        let (gate, journal) = (Gate::new(), Journal::new());
        let (held, seen) = (gate.clone(), journal.clone());
        let left = env.from_iter(0..10_u64).inspect(move |n| {
            if *n == 5 {
                held.pass();
            }
        });
        let right = env.from_iter(0..10_u64);
        left.key_by(|n| *n).join(right.key_by(|n| *n)).inner().sink(move |(key, _, _)| seen.note(key));
        let job = env.submit().unwrap();
        // The left source is still held, and what it sent before is through.
        journal.await_events("4", 1);
        gate.await_arrivals(1);
        assert_eq!(job.status(), JobState::Running);
        gate.open();
        job.wait().unwrap();
        assert_eq!(journal.events().len(), 10);
    });
}

#[test]
fn contract_16_joined_sources_of_which_either_is_slow_lose_nothing() {
    leak_free(|_| {
        for slow_is_left in [false, true] {
            for replicas in [1, 3] {
                let env = Environment::local("slow").block_records(4).queue_blocks(2);
                let (gate, journal) = (Gate::new(), Journal::new());
                let (held, seen) = (gate.clone(), journal.clone());
                let slow = env.from_iter(0..1000_u64).inspect(move |n| {
                    if *n == 500 {
                        held.pass();
                    }
                });
                let fast = env.from_iter(0..2000_u64).inspect(move |n| {
                    if *n == 1999 {
                        seen.note("fast is through");
                    }
                });
                let (slow, fast) = (slow.on_another_thread(), fast.on_another_thread());
                let (left, right) = if slow_is_left { (slow, fast) } else { (fast, slow) };
                let out = left.key_by(|n| *n).join(right.key_by(|n| *n)).full().parallelism(replicas).collect();
                let job = env.submit().unwrap();
                gate.await_arrivals(1);
                journal.await_events("fast is through", 1);
                gate.open();
                job.wait().unwrap();
                let out = sorted(out.take());
                assert_eq!(out.iter().map(|row| row.0).collect::<Vec<_>>(), (0..2000).collect::<Vec<_>>());
                let pairs = out.iter().filter(|(_, left, right)| left == right).count();
                assert_eq!(pairs, 1000);
            }
        }
    });
}

#[test]
fn a_side_too_large_for_its_limit_fails_the_job_and_says_which() {
    leak_free(|_| {
        for side in ["left", "right"] {
            let env = Environment::local("limit");
            let big = env.from_iter(0..11_u64);
            // Has no record and never ends by itself: left records are only gathered until the right side ends.
            let silent = env.from_iter(0_u64..).filter(|_| false);
            let (big, silent) = (big.on_another_thread(), silent.on_another_thread());
            let (left, right) = if side == "left" { (big, silent) } else { (silent, big) };
            let joined = left.key_by(|n| *n).join(right.key_by(|n| *n)).max_records(10).inner();
            joined.named("big-join").sink(|_| {});
            let report = failed(env.run());
            let cause = report.first_cause.as_ref().unwrap();
            assert_eq!(cause.place().to_string(), "operator `big-join`, record 11");
            assert_eq!(cause.kind, CauseKind::Error);
            assert!(cause.message.contains(&format!("10 records of the {side} stream")), "{}", cause.message);
            assert!(cause.message.contains("`max_records`"));
        }
        let env = Environment::local("at-the-limit");
        let left = env.from_iter(0..10_u64).key_by(|n| *n);
        let out = left.join(env.from_iter(0..10_u64).key_by(|n| *n)).max_records(10).inner().count().collect();
        env.run().unwrap();
        assert_eq!(out.take(), [10]);
    });
}

#[test]
fn contract_15_a_failing_key_function_is_blamed_on_the_join() {
    leak_free(|_| {
        for fails_in in [0, 1] {
            for replicas in [1, 2] {
                let env = Environment::local("fails");
                let key = move |input: usize, n: u64| {
                    assert!(input != fails_in || n != 3, "broke");
                    n
                };
                let left = env.from_iter(1..=3_u64).key_by(move |n| key(0, *n));
                let right = env.from_iter(1..=3_u64).key_by(move |n| key(1, *n));
                left.join(right).inner().parallelism(replicas).named("bad").sink(|_| {});
                let report = failed(env.run());
                let place = report.first_cause.as_ref().unwrap().place().to_string();
                assert!(place.starts_with("operator `bad`"), "{place}");
            }
        }
    });
}

#[test]
fn a_cancel_ends_a_join_that_gathers_and_one_that_emits() {
    leak_free(|_| {
        let env = Environment::local("gathers");
        let journal = Journal::new();
        let seen = journal.clone();
        let left = env.from_iter(0_u64..).inspect(move |n| {
            if *n == 10_000 {
                seen.note("gathered");
            }
        });
        left.key_by(|n| *n).join(env.from_iter(0_u64..).key_by(|n| *n)).inner().sink(|_| {});
        let job = env.submit().unwrap();
        journal.await_events("gathered", 1);
        job.cancel();
        assert_eq!(failed(job.wait()).outcome, Outcome::Cancelled);

        // A thousand million pairs.
        let env = Environment::local("emits");
        let journal = Journal::new();
        let seen = journal.clone();
        let side = || env.from_iter(0..30_000_u64).key_by(|_| ());
        let mut pairs = 0;
        side().join(side()).inner().sink(move |_| {
            pairs += 1;
            if pairs == 1000 {
                seen.note("emitted");
            }
        });
        let job = env.submit().unwrap();
        journal.await_events("emitted", 1);
        job.cancel();
        assert_eq!(failed(job.wait()).outcome, Outcome::Cancelled);
    });
}

/// A thousand million pairs, of which those of even sum fail, with dead letters either of the join itself or of what
/// comes behind it.
#[test]
fn a_cancel_ends_a_long_join_with_dead_letters() {
    leak_free(|_| {
        for of_the_join in [true, false] {
            let env = Environment::local("letters");
            let journal = Journal::new();
            let side = || env.from_iter(0..30_000_u64).key_by(|_| ());
            let (counting, letters) = (Counting::default(), CountingSink::default());
            let (hooks, letter_hooks) = (counting.counts.clone(), letters.counts.clone());
            let seen = journal.clone();
            let fails = move |left: u64, right: u64| {
                if left == right && left.is_multiple_of(1000) {
                    seen.note("pair");
                }
                if (left + right).is_multiple_of(2) { Err("even") } else { Ok(left) }
            };
            let pairs = side().join(side()).inner();
            if of_the_join {
                let (pairs, dead) = pairs.dead_letters();
                pairs
                    .try_map(move |((), left, right)| fails(left, right))
                    .on_error(sage::ErrorPolicy::skip())
                    .operator(move || counting.clone())
                    .sink(|_| {});
                dead.map(|letter| letter.position).sink_to(move |_| letters.clone());
            } else {
                let (pairs, dead) = pairs.try_map(move |((), left, right)| fails(left, right)).dead_letters();
                pairs.operator(move || counting.clone()).sink(|_| {});
                dead.map(|letter| letter.position).sink_to(move |_| letters.clone());
            }
            let job = env.submit().unwrap();
            journal.await_events("pair", 1);
            let report = cancelled(&job);
            assert!(report.elapsed < Duration::from_secs(8), "not by the deadline: {report}");
            for hooks in [hooks, letter_hooks] {
                assert_eq!((hooks.opened(), hooks.finished(), hooks.closed()), (1, 0, 1));
            }
            assert_eq!(report.attached.len(), 0, "{report}");
        }
    });
}

#[test]
fn a_drain_joins_what_has_come() {
    leak_free(|_| {
        let env = Environment::local("drain");
        let journal = Journal::new();
        let (left_seen, right_seen) = (journal.clone(), journal.clone());
        let left = env.from_iter(0_u64..).inspect(move |n| {
            if *n == 1000 {
                left_seen.note("left");
            }
        });
        let right = env.from_iter([5_u64]).inspect(move |_| right_seen.note("right"));
        let out = left.key_by(|n| *n).join(right.key_by(|n| *n)).inner().collect();
        let job = env.submit().unwrap();
        // A source that is told to drain before its first record has none.
        journal.await_events("left", 1);
        journal.await_events("right", 1);
        job.drain();
        job.wait().unwrap();
        assert_eq!(out.take(), [(5, 5, 5)]);
    });
}

#[test]
fn joins_are_shown_and_foreign_streams_told_before_anything_starts() {
    let env = Environment::local("shown");
    let (left, right) = (env.from_iter([1]).named("left"), env.from_iter([1]).named("right"));
    left.key_by(|n| *n).join(right.key_by(|n| *n)).full().parallelism(2).sink(|_| {}).named("sink");
    assert_eq!(
        env.explain().to_string(),
        "environment `shown`: 3 chains, 4 tasks\n  chain 1 ×1: left\n    → chain 3 (hash)\n  chain 2 ×1: right\n    → \
         chain 3 (hash)\n  chain 3 ×2: full-join-1 → sink\n"
    );

    let env = Environment::local("foreign");
    let other = Environment::local("other");
    env.from_iter([1]).key_by(|n| *n).join(other.from_iter([2]).key_by(|n| *n)).inner().sink(|_| {});
    assert_eq!(
        env.run().unwrap_err().to_string(),
        "a stream of another environment comes in at `inner-join-1`; declare both streams in one environment"
    );
}
