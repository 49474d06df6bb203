//! Operators with a state for each key, and the partitionings.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use sage::{CauseKind, Environment, RunError, SubmitError};

use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

#[test]
fn a_falsy_key_is_a_key_like_any_other() {
    leak_free(|_| {
        for parallelism in [1, 2, 4] {
            let env = Environment::local("falsy");
            let numbers =
                env.from_iter((0..1000_u32).map(|n| n % 3)).key_by(|n| *n).count().parallelism(parallelism).collect();
            let texts = env
                .from_iter(["", "0", "", "false"].map(String::from))
                .key_by_ref(|text| text.as_str())
                .count()
                .parallelism(parallelism)
                .collect();
            let nothing = env.from_iter(0..10).key_by(|_| ()).count().parallelism(parallelism).collect();
            env.run().unwrap();
            assert_eq!(sorted(numbers.take()), [(0, 334), (1, 333), (2, 333)]);
            let texts: Vec<_> = sorted(texts.take());
            assert_eq!(texts, [(String::new(), 2), ("0".to_owned(), 1), ("false".to_owned(), 1)]);
            assert_eq!(nothing.take(), [((), 10)]);
        }
    });
}

#[test]
fn a_borrowed_key_goes_where_the_owned_one_goes() {
    leak_free(|_| {
        // Each replica says which keys it had; no key may be with two.
        let env = Environment::local("borrowed");
        let homes = Arc::new(Mutex::new(BTreeMap::<String, HashSet<std::thread::ThreadId>>::new()));
        let words = || (0..2000_u32).map(|n| format!("w{}", n % 50));
        let note = |homes: &Arc<Mutex<BTreeMap<String, HashSet<_>>>>| {
            let homes = homes.clone();
            move |seen: &mut u32, word: String| {
                *seen += 1;
                homes.lock().unwrap().entry(word).or_default().insert(std::thread::current().id());
                *seen
            }
        };
        let owned = env.from_iter(words()).key_by(|word| word.clone()).map_with_state(0, note(&homes)).parallelism(3);
        let owned = owned.collect();
        // Replica i of the two operators is not the same thread, so the homes of the borrowed keys are counted apart.
        let apart = Arc::new(Mutex::new(BTreeMap::new()));
        let borrowed = env.from_iter(words()).key_by_ref(|word| word.as_str()).map_with_state(0, note(&apart));
        let borrowed = borrowed.parallelism(3).collect();
        env.run().unwrap();
        assert_eq!(borrowed.take().len(), 2000);
        let groups = |homes: &Mutex<BTreeMap<String, HashSet<_>>>| {
            let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (word, threads) in homes.lock().unwrap().iter() {
                assert_eq!(threads.len(), 1);
                groups.entry(format!("{threads:?}")).or_default().push(word.clone());
            }
            groups.into_values().collect::<BTreeSet<_>>()
        };
        assert_eq!(groups(&homes), groups(&apart), "the same words together");
        assert_eq!(owned.take().len(), 2000);
        assert!(homes.lock().unwrap().values().all(|threads| threads.len() == 1));
        let spread: HashSet<_> = homes.lock().unwrap().values().flatten().copied().collect();
        assert_eq!(spread.len(), 3, "fifty keys over three replicas");
    });
}

#[test]
fn state_is_per_key_and_in_order_of_the_key() {
    leak_free(|_| {
        for parallelism in [1, 3] {
            let env = Environment::local("state");
            let out = env
                .from_iter(0..3000_u64)
                .key_by(|n| n % 7)
                .map_with_state(Vec::new(), |seen: &mut Vec<u64>, n| {
                    assert!(seen.last().is_none_or(|last| *last < n), "a key's records in order");
                    seen.push(n);
                    (n % 7, seen.len())
                })
                .parallelism(parallelism)
                .collect();
            let report = env.run().unwrap();
            let out = sorted(out.take());
            let expected = sorted((0..3000_u64).map(|n| (n % 7, (n / 7 + 1) as usize)).collect());
            assert_eq!(out, expected);
            let operator = report.operator("map-with-state-1").unwrap();
            assert_eq!((operator.records_in, operator.records_out), (3000, 3000));
        }
    });
}

#[test]
fn flat_map_with_state_pushes_any_number() {
    leak_free(|_| {
        let env = Environment::local("sessions");
        let out = env
            .from_iter(1..=6_u32)
            .key_by(|n| n % 2)
            .flat_map_with_state(0, |total, n, out| {
                *total += n;
                out.extend((0..n % 3).map(|_| *total));
            })
            .collect();
        env.run().unwrap();
        assert_eq!(out.take(), [1, 2, 2, 6, 9, 9]);
    });
}

#[test]
fn aggregate_distinct_and_top_k() {
    leak_free(|_| {
        for parallelism in [1, 4] {
            let env = Environment::local("aggregates");
            let numbers = || (0..1000_u64).map(|n| (n % 3, n));
            let mean = env
                .from_iter(numbers())
                .key_by(|pair| pair.0)
                .aggregate((0, 0), |(sum, count), (_, n)| (*sum, *count) = (*sum + n, *count + 1), |(s, c)| s / c)
                .parallelism(parallelism)
                .collect();
            let firsts = env.from_iter(numbers()).key_by(|pair| pair.0).distinct().parallelism(parallelism).collect();
            let distinct =
                env.from_iter(numbers()).map(|pair| pair.1 % 10).distinct().parallelism(parallelism).collect();
            let top = env
                .from_iter(numbers())
                .key_by(|pair| pair.0)
                .top_k(2, |pair| pair.1)
                .parallelism(parallelism)
                .collect();
            env.run().unwrap();
            assert_eq!(sorted(mean.take()), [(0, 499), (1, 499), (2, 500)]);
            assert_eq!(sorted(firsts.take()), [(0, 0), (1, 1), (2, 2)]);
            assert_eq!(sorted(distinct.take()), (0..10).collect::<Vec<_>>());
            let expected =
                [(0, vec![(0, 999), (0, 996)]), (1, vec![(1, 997), (1, 994)]), (2, vec![(2, 998), (2, 995)])];
            assert_eq!(sorted(top.take()), expected);
        }
    });
}

#[test]
fn of_equal_ranks_the_earlier_is_kept() {
    let env = Environment::local("ties");
    let top = env.from_iter([(1, "a"), (2, "b"), (1, "c"), (2, "d"), (1, "e")]).key_by(|_| ()).top_k(3, |pair| pair.0);
    let top = top.collect();
    env.run().unwrap();
    assert_eq!(top.take(), [((), vec![(2, "b"), (2, "d"), (1, "a")])]);
}

#[test]
fn a_top_of_nothing_is_refused() {
    let env = Environment::local("none");
    env.from_iter([1]).key_by(|n| *n).top_k(0, |n| *n).sink(|_| {});
    match env.run() {
        Err(RunError::Submit(error @ SubmitError::OperatorOption { .. })) => {
            assert_eq!(error.to_string(), "`top-k-1`: it keeps at least one record of each key");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_function_that_panics_is_named() {
    leak_free(|_| {
        for parallelism in [1, 2] {
            let env = Environment::local("key-panics");
            env.from_iter(0..10_u32)
                .key_by(|n| assert!(*n < 5, "bad key"))
                .count()
                .named("count")
                .parallelism(parallelism)
                .sink(|_| {});
            let report = failed(env.run());
            let cause = report.first_cause.unwrap();
            assert_eq!(
                (cause.kind, cause.to_string().as_str()),
                (CauseKind::Panic, "operator `count`, record 6: panicked: bad key")
            );
        }
    });
}

#[test]
fn partitions_send_records_where_they_say() {
    leak_free(|_| {
        let env = Environment::local("partitions");
        let id = || std::thread::current().id();
        let by_number = env.from_iter(0..300_u32).partition_by(3, |n, replicas| *n as usize % replicas);
        let by_number = by_number.map(move |n| (n % 3, id())).collect();
        let by_key = env.from_iter(0..300_u32).key_by(|n| n % 10).partition(3).map(move |n| (n % 10, id())).collect();
        env.run().unwrap();
        let by_number: HashSet<_> = by_number.take().into_iter().collect();
        assert_eq!(by_number.len(), 3, "each number with one replica");
        assert_eq!(by_number.iter().map(|pair| pair.1).collect::<HashSet<_>>().len(), 3, "and no two with the same");
        let by_key: HashSet<_> = by_key.take().into_iter().collect();
        assert_eq!(by_key.len(), 10, "each key with one replica");
    });
}

#[test]
fn a_partition_that_is_not_there_fails_the_job() {
    leak_free(|_| {
        let env = Environment::local("nowhere").on_error(sage::ErrorPolicy::skip());
        env.from_iter(0..10_usize).map(|n| n).partition_by(3, |n, _| *n).sink(|_| {});
        let report = failed(env.run());
        let cause = report.first_cause.unwrap().to_string();
        assert_eq!(
            cause,
            "operator `partition-1`, record 4: the partitioner chose replica 3; there are 3 replicas, from 0"
        );
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Every keyed operator gives what a plain loop gives.
    #[test]
    fn keyed_operators_agree_with_a_loop(
        records in prop::collection::vec((0_u8..6, 0_u32..50), 0..200),
        parallelism in 1_usize..5,
        block_records in 1_usize..65,
        k in 1_usize..5,
    ) {
        let env = Environment::local("keyed").block_records(block_records);
        let stream = || env.from_iter(records.clone()).key_by(|pair| pair.0);
        let sums = stream().fold(0, |sum, pair| *sum += pair.1).parallelism(parallelism).collect();
        let largest = stream().reduce(|a, b| a.max(b)).parallelism(parallelism).collect();
        let distinct = env.from_iter(records.clone()).distinct().parallelism(parallelism).collect();
        let top = stream().top_k(k, |pair| pair.1).parallelism(parallelism).collect();
        env.run().unwrap();

        let mut by_key: BTreeMap<u8, Vec<(u8, u32)>> = BTreeMap::new();
        records.iter().for_each(|pair| by_key.entry(pair.0).or_default().push(*pair));
        let expected: Vec<_> = by_key.iter().map(|(key, all)| (*key, all.iter().map(|pair| pair.1).sum())).collect();
        prop_assert_eq!(sorted::<(u8, u32)>(sums.take()), expected);
        let expected: Vec<_> = by_key.iter().map(|(key, all)| (*key, *all.iter().max().unwrap())).collect();
        prop_assert_eq!(sorted(largest.take()), expected);
        let expected: BTreeSet<_> = records.iter().copied().collect();
        prop_assert_eq!(sorted(distinct.take()), expected.into_iter().collect::<Vec<_>>());
        let expected: Vec<_> = by_key.into_iter().map(|(key, mut all)| {
            all.sort_by_key(|pair| std::cmp::Reverse(pair.1));
            all.truncate(k);
            (key, all)
        }).collect();
        prop_assert_eq!(sorted(top.take()), expected);
    }
}
