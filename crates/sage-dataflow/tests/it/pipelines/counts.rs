//! `count` and `sum` by key: fused, and over several replicas, which add up before they send.

use std::collections::HashMap;
use std::time::Duration;

use sage::{CauseKind, Environment, ErrorPolicy, OutOfOrder, Pipe, Retry, Stream, Timestamp};

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

/// A stream of the records, from so many sources.
fn in_parts(env: &Environment, records: &[u64], sources: usize) -> Stream<impl Pipe<Out = u64>> {
    let records = records.to_vec();
    env.from_factory(move |replica| {
        let part = records.len() * replica / sources..records.len() * (replica + 1) / sources;
        records[part].to_vec()
    })
    .parallelism(sources)
}

#[test]
fn counts_and_sums_are_exact_however_many_replicas_count() {
    leak_free(|_| {
        for input in inputs() {
            let expected = reference(&input);
            let replicas = [(1, 2), (2, 1), (2, 3), (1, 1)];
            let of_many = if input.len() > 1_000_000 { 1 } else { replicas.len() };
            for (sources, counters) in replicas.into_iter().take(of_many) {
                let env = Environment::local("counts");
                let keyed = || in_parts(&env, &input, sources).key_by(|key| *key);
                let counts = keyed().count().parallelism(counters).collect();
                let value = |key: u64| u128::from(key) + 1;
                // The longest input once is enough.
                let sums = (of_many > 1).then(|| keyed().sum(move |key| value(*key)).parallelism(counters).collect());
                env.run().unwrap();
                let what = format!("{} records, {sources} to {counters}", input.len());
                assert!(sorted(counts.take()) == expected, "{what}");
                if let Some(sums) = sums {
                    let expected = expected.iter().map(|(key, count)| (*key, value(*key) * u128::from(*count)));
                    assert!(sorted(sums.take()).into_iter().eq(expected), "{what}");
                }
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
                .with_timestamps(|_| Timestamp::from_millis(1), OutOfOrder::by(Duration::ZERO))
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
fn the_report_counts_the_records_of_counts_and_sums_and_not_what_was_sent_of_them() {
    leak_free(|_| {
        for counters in [1, 2] {
            let env = Environment::local("figures");
            let keyed = || in_parts(&env, &[7; 1000], 2).key_by(|key| *key);
            keyed().count().parallelism(counters).named("count").sink(|_| {});
            keyed().sum(|key| *key).parallelism(counters).named("sum").sink(|_| {});
            let report = env.run().unwrap();
            for name in ["count", "sum"] {
                let found = report.operators.iter().find(|operator| operator.name == name).unwrap();
                assert_eq!((found.records_in, found.records_out), (1000, 1), "{name} in {counters}");
            }
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

#[test]
fn numbers_of_all_kinds_are_summed() {
    leak_free(|_| {
        for counters in [1, 2] {
            let env = Environment::local("sums");
            let keyed = || env.from_iter(1..=100_i64).key_by(|n| *n % 2 == 0);
            let whole = keyed().sum(|n| -n).parallelism(counters).collect();
            let small = keyed().sum(|_| 1_u8).parallelism(counters).collect();
            let real = keyed().sum(|n| *n as f64 / 2.0).parallelism(counters).collect();
            let time = keyed().sum(|n| Duration::from_millis(n.unsigned_abs())).parallelism(counters).collect();
            env.run().unwrap();
            assert_eq!(sorted(whole.take()), [(false, -2500), (true, -2550)]);
            assert_eq!(sorted(small.take()), [(false, 50), (true, 50)]);
            let mut real = real.take();
            real.sort_by_key(|sum| sum.0);
            assert_eq!(real, [(false, 1250.0), (true, 1275.0)]);
            let ms = Duration::from_millis;
            assert_eq!(sorted(time.take()), [(false, ms(2500)), (true, ms(2550))]);
        }
    });
}

/// Of records, of records before an exchange, and of sums that were sent: a wrong sum never comes out.
#[test]
fn a_sum_that_its_type_has_no_room_for_fails_the_job_whatever_the_policy() {
    // Beyond it in one source; and only where the sums of both come together.
    for (each, sources, counters) in [(150_u8, 1, 1), (150, 1, 2), (75, 2, 2), (75, 2, 1)] {
        leak_free(|_| {
            let env = Environment::local("sums");
            let keyed = in_parts(&env, &[1, 1, 1, 1], sources).key_by(|key| *key);
            let sums = keyed.sum(move |_| each).parallelism(counters).on_error(ErrorPolicy::skip());
            let out = sums.named("total").collect();
            let report = failed(env.run());
            let cause = report.first_cause.clone().unwrap();
            assert_eq!(cause.kind, CauseKind::Error);
            let text = cause.to_string();
            assert!(text.starts_with("operator `total`"), "{text}");
            assert!(text.contains("no room in `u8`") && text.contains("wider type"), "{text}");
            assert!(out.take().is_empty());
        });
    }
}

#[test]
fn a_value_function_that_panics_before_the_exchange_is_told_by_the_name_of_the_sum() {
    leak_free(|_| {
        for counters in [1, 2] {
            let env = Environment::local("sums");
            let keyed = env.from_iter(0..100_u64).key_by(|n| n % 2);
            let sums = keyed.sum(|n| if *n == 41 { panic!("no value of {n}") } else { *n });
            sums.parallelism(counters).named("total").sink(|_| {});
            let report = failed(env.run());
            let cause = report.first_cause.clone().unwrap();
            assert!(cause.to_string().starts_with("operator `total`, record 42"), "{cause}");
        }
    });
}
