//! `iterate`: rounds over the states of keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use sage::{Collected, Environment, SubmitError};

use crate::contract::cancelled;
use crate::leaks::leak_free;
use crate::probes::{Journal, failed, sorted};

/// What each node is told by its neighbours until nothing changes: the smallest node it hangs together with.
fn smallest(env: &Environment, edges: Vec<(u32, u32)>, parallelism: usize) -> Collected<(u32, u32)> {
    env.from_collection(edges)
        .flat_map(|(a, b)| [(a, b), (b, a)])
        .rebalance(parallelism)
        .key_by(|edge| edge.0)
        .iterate(
            u64::MAX,
            (Vec::new(), u32::MAX),
            |(neighbours, _), edge| neighbours.push(edge.1),
            |(neighbours, smallest), told: Vec<u32>, round| {
                let least = told.into_iter().chain([*round.key()]).min().expect("the key is one");
                if least < *smallest {
                    *smallest = least;
                    neighbours.iter().for_each(|&to| round.send(to, least));
                }
            },
        )
        .map(|(node, (_, smallest))| (node, smallest))
        .collect()
}

/// The same, computed directly.
fn smallest_of(edges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut smallest: BTreeMap<u32, u32> = edges.iter().flat_map(|&(a, b)| [(a, a), (b, b)]).collect();
    loop {
        let before = smallest.clone();
        for (a, b) in edges {
            let least = smallest[a].min(smallest[b]);
            smallest.insert(*a, least);
            smallest.insert(*b, least);
        }
        if smallest == before {
            return smallest.into_iter().collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_hangs_together_is_found_in_any_graph(
        edges in prop::collection::vec((0_u32..40, 0_u32..40), 0..60),
        parallelism in 1_usize..5,
        inline: bool,
    ) {
        let env = Environment::local("components");
        let env = if inline { env.inline() } else { env };
        let found = smallest(&env, edges.clone(), parallelism);
        env.run().unwrap();
        prop_assert_eq!(sorted(found.take()), smallest_of(&edges));
        // And again, from the beginning.
        env.run().unwrap();
        prop_assert_eq!(sorted(found.take()), smallest_of(&edges));
    }
}

#[test]
fn a_round_begins_when_all_replicas_are_done_with_the_one_before_and_there_are_as_many_as_was_said() {
    leak_free(|_| {
        for rounds in [1, 2, 9] {
            let env = Environment::local("rounds");
            let (latest, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let (seen, called) = (latest.clone(), calls.clone());
            let out = env
                .from_iter(0..100_u64)
                .key_by(|n| *n)
                .iterate(
                    rounds,
                    0,
                    |_, _| {},
                    move |got: &mut usize, told: Vec<u64>, round| {
                        called.fetch_add(1, Ordering::SeqCst);
                        let before = seen.fetch_max(round.number(), Ordering::SeqCst);
                        assert!(before <= round.number(), "round {before} has begun");
                        assert!(told.iter().all(|sent| sent + 1 == round.number()), "{told:?}");
                        *got += told.len();
                        // To two keys, one of which is that of another replica in most cases.
                        let (number, key) = (round.number(), *round.key());
                        round.send((key + 1) % 100, number);
                        round.send((key + 50) % 100, number);
                    },
                )
                .parallelism(3)
                .collect();
            env.run().unwrap();
            assert_eq!(calls.load(Ordering::SeqCst), 100 * rounds);
            let expected: Vec<_> = (0..100).map(|n| (n, 2 * (rounds as usize - 1))).collect();
            assert_eq!(sorted(out.take()), expected);
        }
    });
}

#[test]
fn a_message_makes_a_key_and_a_round_without_messages_is_the_last() {
    leak_free(|_| {
        let env = Environment::local("countdown");
        let out = env
            .from_iter([3_u32])
            .key_by(|n| *n)
            .iterate(
                u64::MAX,
                Vec::new(),
                |rounds: &mut Vec<u64>, _| rounds.clear(),
                |rounds, told: Vec<()>, round| {
                    rounds.push(round.number());
                    let key = *round.key();
                    if key > 0 && (round.number() == 0 || !told.is_empty()) {
                        round.send(key - 1, ());
                    }
                },
            )
            .collect();
        env.run().unwrap();
        assert_eq!(sorted(out.take()), [(0, vec![3]), (1, vec![2, 3]), (2, vec![1, 2, 3]), (3, vec![0, 1, 2, 3])]);
    });
}

#[test]
fn no_records_are_no_keys() {
    leak_free(|_| {
        let env = Environment::local("empty");
        let out = smallest(&env, Vec::new(), 3);
        env.run().unwrap();
        assert_eq!(out.take(), []);
    });
}

#[test]
fn no_rounds_are_refused() {
    let env = Environment::local("none");
    env.from_iter([1]).key_by(|n| *n).iterate(0, 0, |_, _| {}, |_, _: Vec<()>, _| {}).sink(|_| {});
    let error = env.submit().unwrap_err();
    assert!(matches!(error, SubmitError::OperatorOption { .. }), "{error}");
    assert!(error.to_string().contains("give `iterate` 1 at least"), "{error}");
}

#[test]
fn contract_27_a_cancel_ends_rounds_that_never_end() {
    leak_free(|_| {
        let env = Environment::local("endless");
        let journal = Journal::new();
        let seen = journal.clone();
        env.from_iter(0..10_u32)
            .key_by(|n| *n)
            .iterate(
                u64::MAX,
                (),
                |(), _| {},
                move |(), _: Vec<()>, round| {
                    if round.number() == 5 {
                        seen.note("round 5");
                    }
                    round.send(*round.key(), ());
                },
            )
            .parallelism(2)
            .sink(|_| {});
        let job = env.submit().unwrap();
        journal.await_events("round 5", 1);
        cancelled(&job);
    });
}

#[test]
fn contract_15_a_function_of_rounds_that_panics_fails_the_job_and_is_named() {
    leak_free(|_| {
        let env = Environment::local("panics");
        env.from_iter(0..10_u32)
            .key_by(|n| *n)
            .iterate(
                5,
                (),
                |(), _| {},
                |(), _: Vec<()>, round| {
                    assert!(round.number() < 2, "no third round");
                    round.send(*round.key(), ());
                },
            )
            .named("pagerank")
            .sink(|_| {});
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap();
        assert!(cause.place().to_string().contains("operator `pagerank`"), "{report}");
        assert!(cause.message.contains("no third round") && report.left.is_empty(), "{report}");
    });
}
