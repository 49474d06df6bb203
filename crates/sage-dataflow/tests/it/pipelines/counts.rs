//! `count` by key: fused, and over several replicas, which count before they send.

use std::collections::HashMap;

use sage::{Environment, OutOfOrder, Retry, Timestamp};

use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

/// Keys that repeat, keys that do not, and both in turn; more than are counted before an exchange at a time.
fn inputs() -> Vec<Vec<u64>> {
    vec![
        vec![],
        vec![7],
        (0..10_000).map(|n| n % 17).collect(),
        // Twice as many as that, and those that pass in between.
        (0..1_350_000).collect(),
        (0..200_000).chain((0..400_000).map(|n| n % 3)).chain(150_000..300_000).collect(),
    ]
}

fn reference(input: &[u64]) -> Vec<(u64, u64)> {
    let mut counts = HashMap::new();
    input.iter().for_each(|key| *counts.entry(*key).or_default() += 1);
    sorted(counts.into_iter().collect())
}

#[test]
fn counts_are_exact_however_many_replicas_count() {
    leak_free(|_| {
        for input in inputs() {
            let expected = reference(&input);
            let replicas = [(1, 2), (2, 1), (2, 3), (1, 1)];
            let of_many = if input.len() > 1_000_000 { 1 } else { replicas.len() };
            for (sources, counters) in replicas.into_iter().take(of_many) {
                let env = Environment::local("counts");
                let records = input.clone();
                let counts = env
                    .from_factory(move |replica| {
                        let part = records.len() * replica / sources..records.len() * (replica + 1) / sources;
                        records[part].to_vec()
                    })
                    .parallelism(sources)
                    .key_by(|key| *key)
                    .count()
                    .parallelism(counters)
                    .collect();
                env.run().unwrap();
                let counts = sorted(counts.take());
                assert!(counts == expected, "{} records, {sources} to {counters}", input.len());
            }
        }
    });
}

#[test]
fn borrowed_keys_and_keys_of_timed_records_are_counted() {
    leak_free(|_| {
        let words = || ["b", "a", "b", "a long word that no small string holds", "b"].map(String::from);
        let expected = [("a", 1), ("a long word that no small string holds", 1), ("b", 3)];
        let expected = expected.map(|(word, count)| (word.to_owned(), count));
        for counters in [1, 2] {
            let env = Environment::local("counts");
            let counts = env.from_iter(words()).key_by_ref(String::as_str).count().parallelism(counters).collect();
            let timed = env
                .from_iter(words())
                .with_timestamps(|_| Timestamp::from_millis(1), OutOfOrder::by(std::time::Duration::ZERO))
                .key_by(|word| word.value.clone())
                .count()
                .parallelism(counters)
                .collect();
            env.run().unwrap();
            assert_eq!(sorted(counts.take()), expected);
            assert_eq!(sorted(timed.take()), expected);
        }
    });
}

/// A count never fails, so there are none; but who asks gets a stream that ends.
#[test]
fn a_count_has_dead_letters_whether_it_is_asked_before_its_replicas_or_after() {
    leak_free(|_| {
        let env = Environment::local("counts");
        let keyed = |name: &str| env.from_iter(0..100).named(name).key_by(|n| n % 3);
        let (one, none) = keyed("a").count().dead_letters();
        let (before, first) = keyed("b").count().dead_letters();
        let (after, second) = keyed("c").count().parallelism(2).retry(Retry::up_to(2)).dead_letters();
        let outs = [one.collect(), before.parallelism(2).collect(), after.parallelism(3).collect()];
        let letters = [none, first, second].map(|letters| letters.map(|_| ()).collect());
        env.run().unwrap();
        for out in outs {
            assert_eq!(sorted(out.take()), [(0, 34), (1, 33), (2, 33)]);
        }
        for letters in letters {
            assert!(letters.take().is_empty());
        }
    });
}

#[test]
fn a_key_function_that_panics_before_the_exchange_is_told_by_the_name_of_the_count() {
    leak_free(|_| {
        for counters in [1, 2] {
            let env = Environment::local("counts");
            let keyed = env.from_iter(0..100).key_by(|n| if *n == 41 { panic!("no key for {n}") } else { *n });
            keyed.count().parallelism(counters).named("per number").sink(|_| {});
            let report = failed(env.run());
            let cause = report.first_cause.clone().unwrap();
            assert!(cause.to_string().starts_with("operator `per number`, record 42"), "{cause}");
        }
    });
}
