//! Several streams in one operator: `connect`, `co_map`, `co_process`.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{CauseKind, Environment, In2, In3, JobState, Outcome};

use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, failed, sorted};

#[test]
fn each_stream_goes_through_its_own_function() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("co-map");
            let env = if inline { env.inline() } else { env };
            let numbers = env.from_iter([1, 2]);
            let words = env.from_iter(["a", "b"]);
            let flags = env.from_iter([true]);
            let out = numbers
                .connect(words)
                .connect(flags)
                .co_map(|n: i32| n.to_string(), |word| word.to_owned(), |flag: bool| flag.to_string())
                .collect();
            env.run().unwrap();
            assert_eq!(sorted(out.take()), ["1", "2", "a", "b", "true"]);
        }
    });
}

#[test]
fn up_to_five_streams_connect_and_equal_keys_of_all_meet() {
    leak_free(|_| {
        let env = Environment::local("five");
        let numbers = |low: u64| env.from_iter(low..low + 100);
        let sums = numbers(0)
            .map(|n| n as u8)
            .key_by(|n| u64::from(*n) % 7)
            .connect(numbers(100).map(|n| n as u16).key_by(|n| u64::from(*n) % 7))
            .connect(numbers(200).map(|n| n as u32).key_by(|n| u64::from(*n) % 7))
            .connect(numbers(300).key_by(|n| *n % 7))
            .connect(numbers(400).map(|n| n as i64).key_by(|n| *n as u64 % 7))
            .co_map(u64::from, u64::from, u64::from, |n| n, |n| n as u64)
            .parallelism(3)
            .operator(Replica::default)
            .collect();
        let five = numbers(0).connect(numbers(100)).connect(numbers(200)).connect(numbers(300)).connect(numbers(400));
        let all = five.co_map(|n| n, |n| n, |n| n, |n| n, |n| n).parallelism(2).collect();
        env.run().unwrap();
        assert_eq!(sorted(all.take()), (0..500).collect::<Vec<_>>());
        let mut replicas: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let pairs = sums.take();
        assert_eq!(pairs.len(), 500);
        pairs.into_iter().for_each(|(n, replica)| replicas.entry(n % 7).or_default().push(replica));
        for (key, mut replicas) in replicas {
            replicas.dedup();
            assert_eq!(replicas.len(), 1, "key {key}");
        }
    });
}

/// Says in which replica a record was.
#[derive(Default)]
struct Replica(usize);

impl sage::Operator for Replica {
    type In = u64;
    type Out = (u64, usize);

    fn open(&mut self, cx: &sage::OpenContext) -> Result<(), sage::Fault> {
        self.0 = cx.replica;
        Ok(())
    }
    fn process(&mut self, n: u64, out: &mut impl sage::Emit<(u64, usize)>) -> Result<(), sage::Fault> {
        out.emit((n, self.0))
    }
}

#[test]
fn keys_that_are_borrowed_and_keys_that_are_made_share_their_state() {
    leak_free(|_| {
        for replicas in 1..4 {
            let env = Environment::local("co-process");
            let words = env.from_iter(["a", "b", "a"].map(String::from)).key_by_ref(|word| word.as_str());
            let numbers = env.from_iter([('a', 5_u64), ('c', 1)]).key_by(|(letter, _)| letter.to_string());
            let last = words
                .connect(numbers)
                .co_process((0, 0), |state: &mut (u64, u64), record, out| {
                    match record {
                        In2::A(_) => state.0 += 1,
                        In2::B((_, n)) => state.1 += n,
                    }
                    out.push(*state);
                })
                .parallelism(replicas)
                .collect();
            env.run().unwrap();
            let states = last.take();
            assert_eq!(states.len(), 5);
            for state in [(2, 5), (1, 0), (0, 1)] {
                assert!(states.contains(&state), "{states:?}");
            }
        }
    });
}

#[test]
fn three_keyed_streams_share_their_state() {
    leak_free(|_| {
        let env = Environment::local("three");
        let numbers = |count: u64| env.from_iter(0..count).key_by(|n| n % 5);
        let joined = numbers(10).connect(numbers(20)).connect(numbers(30));
        let out = joined
            .co_process([0_u64; 3], |seen, record, out| {
                match record {
                    In3::A(_) => seen[0] += 1,
                    In3::B(_) => seen[1] += 1,
                    In3::C(_) => seen[2] += 1,
                }
                if *seen == [2, 4, 6] {
                    out.push(());
                }
            })
            .parallelism(2)
            .count()
            .collect();
        env.run().unwrap();
        assert_eq!(out.take(), [5], "each key has seen all its records");
    });
}

#[test]
fn take_behind_connected_streams_ends_them_all() {
    leak_free(|_| {
        let env = Environment::local("take");
        let out = env.from_iter(0_u64..).connect(env.from_iter(0_i64..)).co_map(|_| (), |_| ()).take(10).collect();
        env.run().unwrap();
        assert_eq!(out.take().len(), 10);
    });
}

#[test]
fn unions_and_tees_before_and_behind_connected_streams() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("shapes");
            let env = if inline { env.inline() } else { env };
            let numbers = env.from_iter(0..300_u64).union(env.from_iter(300..1000_u64));
            let [left, right] = numbers.tee();
            let joined = left.connect(right.map(|n| n as i64)).co_map(|n| n, |n| n as u64).parallelism(2);
            let [first, second] = joined.tee();
            let out = first.union(second.filter(|n| *n < 10)).count().collect();
            env.run().unwrap();
            assert_eq!(out.take(), [2020]);
        }
    });
}

#[test]
fn contract_15_a_failure_in_either_function_is_blamed_on_the_operator_and_record() {
    leak_free(|_| {
        for fails_in in [0, 1] {
            for keyed in [false, true] {
                let env = Environment::local("fails");
                let check = move |input: usize, n: u64| {
                    assert!(input != fails_in || n != 3, "broke");
                    n
                };
                let (left, right) = (env.from_iter(1..=3_u64), env.from_iter(1..=3_u64));
                if keyed {
                    left.key_by(|n| *n)
                        .connect(right.key_by(|n| *n))
                        .co_process((), move |(), record, out| match record {
                            In2::A(n) => out.push(check(0, n)),
                            In2::B(n) => out.push(check(1, n)),
                        })
                        .named("bad")
                        .sink(|_| {});
                } else {
                    left.connect(right).co_map(move |n| check(0, n), move |n| check(1, n)).named("bad").sink(|_| {});
                }
                let report = failed(env.run());
                let cause = report.first_cause.as_ref().unwrap();
                let place = cause.place().to_string();
                assert!(place.starts_with("operator `bad`, record "), "{place}");
                assert_eq!((cause.kind, cause.message.as_str()), (CauseKind::Panic, "broke"));
            }
        }
    });
}

#[test]
fn contract_15_a_failure_in_the_key_function_of_either_stream_is_blamed_on_the_operator() {
    leak_free(|_| {
        for fails_in in [0, 1] {
            let env = Environment::local("fails");
            let key = move |input: usize, n: u64| {
                assert!(input != fails_in || n != 3, "broke");
                n
            };
            let left = env.from_iter(1..=3_u64).key_by(move |n| key(0, *n));
            let right = env.from_iter(1..=3_u64).key_by(move |n| key(1, *n));
            left.connect(right).co_map(|n| n, |n| n).parallelism(2).named("bad").sink(|_| {});
            let report = failed(env.run());
            let place = report.first_cause.as_ref().unwrap().place().to_string();
            assert!(place.starts_with("operator `bad`"), "{place}");
        }
    });
}

#[test]
fn contract_16_connected_streams_of_which_one_is_slow_lose_nothing() {
    leak_free(|_| {
        let env = Environment::local("slow").block_records(4).queue_blocks(2);
        let gate = Gate::new();
        let held = gate.clone();
        let journal = Journal::new();
        let seen = journal.clone();
        let fast = env.from_iter(0..1000_u64);
        let slow = env.from_iter(1000..1010_i64).inspect(move |n| {
            if *n == 1005 {
                held.pass();
            }
        });
        let out = fast.connect(slow).co_map(|n| n, |n| n as u64).inspect(move |n| seen.note(n)).collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        journal.await_events("999", 1);
        journal.await_events("1004", 1);
        assert_eq!(job.status(), JobState::Running);
        gate.open();
        job.wait().unwrap();
        assert_eq!(sorted(out.take()), (0..1010).collect::<Vec<_>>());
    });
}

#[test]
fn a_cancel_ends_connected_endless_streams() {
    leak_free(|_| {
        let env = Environment::local("cancel");
        let journal = Journal::new();
        let seen = journal.clone();
        let (left, right) = (env.from_iter(0_u64..), env.from_iter(0_i64..));
        left.connect(right)
            .co_map(
                move |n| {
                    if n == 0 {
                        seen.note("first")
                    }
                },
                |_| (),
            )
            .parallelism(2)
            .sink(|()| {});
        let job = env.submit().unwrap();
        journal.await_events("first", 1);
        job.cancel();
        assert_eq!(failed(job.wait()).outcome, Outcome::Cancelled);
    });
}

#[test]
fn connected_streams_are_shown_and_their_mistakes_told_before_anything_starts() {
    let env = Environment::local("shown");
    let (left, right) = (env.from_iter([1]).named("left"), env.from_iter(["a"]).named("right"));
    let joined = left.key_by(|n| *n).connect(right.key_by(|word| word.len() as i32));
    joined.co_map(|_| (), |_| ()).parallelism(3).named("both").sink(|()| {}).named("sink");
    assert_eq!(
        env.explain().to_string(),
        "environment `shown`: 3 chains, 5 tasks\n  chain 1 ×1: left\n    → chain 3 (hash)\n  chain 2 ×1: right\n    → \
         chain 3 (hash)\n  chain 3 ×3: both → sink\n"
    );

    let env = Environment::local("foreign");
    let other = Environment::local("other");
    env.from_iter([1]).connect(other.from_iter([2]).named("theirs")).co_map(|n| n, |n| n).sink(|_| {});
    assert_eq!(
        env.run().unwrap_err().to_string(),
        "a stream of another environment comes in at `co-map-1`; declare both streams in one environment"
    );
    assert!(other.run().unwrap_err().to_string().contains("`theirs`"), "its stream ends nowhere");

    let env = Environment::local("dangling");
    let _ = env.from_iter([1]).named("one").connect(env.from_iter([2]).named("two"));
    assert!(env.run().unwrap_err().to_string().contains("`two`"));

    let env = Environment::local("no-sink");
    let _ = env.from_iter([1]).connect(env.from_iter([2])).co_map(|n| n, |n| n).named("both");
    assert!(env.run().unwrap_err().to_string().contains("`both`"));

    let env = Environment::local("zero");
    env.from_iter([1]).connect(env.from_iter([2])).co_map(|n| n, |n| n).named("both").parallelism(0).sink(|_| {});
    assert!(env.run().unwrap_err().to_string().contains("`both`"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shared_state_sees_every_record_of_its_key_in_order(
        left in vec(0..6_u64, 0..200),
        right in vec(0..6_u64, 0..200),
        replicas in 1..6_usize,
        block_records in 1..65_usize,
    ) {
        leak_free(|_| {
            let env = Environment::local("state").block_records(block_records).queue_blocks(2);
            let numbered = |records: &[u64]| records.iter().copied().zip(0..).collect::<Vec<(u64, usize)>>();
            let a = env.from_collection(numbered(&left)).key_by(|record| record.0);
            let b = env.from_collection(numbered(&right)).key_by(|record| record.0);
            let out = a
                .connect(b)
                .co_process((Vec::new(), Vec::new()), |(lefts, rights): &mut (Vec<_>, Vec<_>), record, out| {
                    let key = match record {
                        In2::A((key, at)) => { lefts.push(at); key }
                        In2::B((key, at)) => { rights.push(at); key }
                    };
                    out.push((key, lefts.clone(), rights.clone()));
                })
                .parallelism(replicas)
                .collect();
            env.run().expect("nothing in it fails");
            let out = out.take();
            assert_eq!(out.len(), left.len() + right.len());
            for key in 0..6 {
                let places = |records: &[u64]| -> Vec<usize> {
                    records.iter().enumerate().filter(|(_, other)| **other == key).map(|(at, _)| at).collect()
                };
                let expected = (places(&left), places(&right));
                let longest = out.iter().filter(|(other, ..)| *other == key).max_by_key(|(_, l, r)| l.len() + r.len());
                let (lefts, rights) = longest.map(|(_, l, r)| (l.clone(), r.clone())).unwrap_or_default();
                assert_eq!((lefts, rights), expected);
            }
        });
    }
}
