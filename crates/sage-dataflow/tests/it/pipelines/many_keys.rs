//! Folds by key behind an exchange: once their table is large, they look at keys ahead of the records' turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sage::{BoxError, CauseKind, Environment, ErrorPolicy, FoldFunction, Retry};

use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

/// Keys in an order without a pattern, each several times. With a sum of 64 bytes each they take more than 1 MiB, also
/// shared by three replicas.
const KEYS: u64 = 60_000;

type Sum = [u64; 8];

fn records(count: u64) -> impl Iterator<Item = (u64, u64)> + Send {
    (0..count).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % KEYS).zip(0..)
}

fn reference(records: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, Sum)> {
    let mut sums: HashMap<u64, Sum> = HashMap::new();
    records.for_each(|(key, n)| sums.entry(key).or_default()[n as usize % 8] += n);
    sorted(sums.into_iter().collect())
}

#[test]
fn folds_of_many_keys_are_exact() {
    leak_free(|_| {
        let count = 200_000;
        let expected = reference(records(count));
        for replicas in [1, 2, 3] {
            let env = Environment::local("many keys");
            let [numbers, texts, parts] = env.from_iter(records(count)).on_another_thread().tee();
            let by_number = numbers.key_by(|record| record.0);
            let by_number = by_number.fold(Sum::default(), add).parallelism(replicas).collect();
            let by_text = texts.key_by(|record| record.0.to_string());
            let by_text = by_text.fold(Sum::default(), add).parallelism(replicas).collect();
            let by_part = parts.map(|(key, n)| (key.to_string(), n)).on_another_thread();
            let by_part = by_part.key_by_ref(|record: &(String, u64)| record.0.as_str());
            let by_part = by_part.fold(Sum::default(), add).parallelism(replicas).collect();
            let numbers =
                |sums: Vec<(String, Sum)>| sums.into_iter().map(|(key, sum)| (key.parse().unwrap(), sum)).collect();
            env.run().unwrap();
            assert!(sorted(by_number.take()) == expected, "{replicas} replicas");
            assert!(sorted(numbers(by_text.take())) == expected, "{replicas} replicas");
            assert!(sorted(numbers(by_part.take())) == expected, "{replicas} replicas");
        }
    });
}

#[test]
fn a_key_is_asked_for_once_a_record_and_fails_as_the_record_it_was_asked_for() {
    leak_free(|_| {
        let count = 140_000;
        for fails_at in [None, Some(0), Some(120_007), Some(count - 1)] {
            let env = Environment::local("many keys");
            let asked = Arc::new(AtomicU64::new(0));
            let ask = asked.clone();
            let key = move |record: &(u64, u64)| {
                ask.fetch_add(1, Ordering::Relaxed);
                if Some(record.1) == fails_at { panic!("no key") } else { record.0 }
            };
            let sums = env.from_iter(records(count)).on_another_thread().key_by(key).fold(Sum::default(), add);
            let sums = sums.named("sums").collect();
            let Some(fails_at) = fails_at else {
                env.run().unwrap();
                assert!(sorted(sums.take()) == reference(records(count)));
                assert_eq!(asked.load(Ordering::Relaxed), count);
                continue;
            };
            let report = failed(env.run());
            let cause = report.first_cause.clone().unwrap();
            assert_eq!(cause.kind, CauseKind::Panic);
            assert_eq!(cause.place().to_string(), format!("operator `sums`, record {}", fails_at + 1));
            assert_eq!(asked.load(Ordering::Relaxed), fails_at + 1);
        }
    });
}

fn add<K>(sum: &mut Sum, (_, n): (K, u64)) {
    sum[n as usize % 8] += n;
}

/// A sum that refuses some records: always, or the first time each.
#[derive(Clone)]
struct Refusing {
    refuses: fn(u64) -> bool,
    once: bool,
    refused: bool,
}

impl FoldFunction<Sum, (u64, u64)> for Refusing {
    fn fold(&mut self, sum: &mut Sum, (key, n): (u64, u64)) -> Result<(), BoxError> {
        if (self.refuses)(n) && !(self.once && self.refused) {
            self.refused = true;
            return Err("refused".into());
        }
        self.refused = false;
        add(sum, (key, n));
        Ok(())
    }
}

#[test]
fn a_fold_of_many_keys_that_fails_tells_the_record() {
    leak_free(|_| {
        let env = Environment::local("many keys");
        let sum = Refusing { refuses: |n| n == 120_007, once: false, refused: false };
        let keyed = env.from_iter(records(140_000)).on_another_thread().key_by(|record| record.0);
        keyed.fold_with(Sum::default(), sum).named("sums").sink(|_| {});
        let cause = failed(env.run()).first_cause.clone().unwrap();
        assert_eq!(cause.place().to_string(), "operator `sums`, record 120008");
    });
}

#[test]
fn a_fold_of_many_keys_tries_again_and_skips() {
    leak_free(|_| {
        let count = 140_000;
        let refuses = |n| n % 20_000 == 7;
        let keyed = |env: &Environment| env.from_iter(records(count)).on_another_thread().key_by(|record| record.0);

        let env = Environment::local("many keys");
        let sum = Refusing { refuses, once: true, refused: false };
        let sums = keyed(&env).fold_with(Sum::default(), sum).retry(Retry::up_to(2)).collect();
        env.run().unwrap();
        assert!(sorted(sums.take()) == reference(records(count)));

        let env = Environment::local("many keys");
        let sum = Refusing { refuses, once: false, refused: false };
        let sums = keyed(&env).fold_with(Sum::default(), sum).on_error(ErrorPolicy::skip()).named("sums").collect();
        let report = env.run().unwrap();
        assert_eq!(report.operator("sums").unwrap().failed, count / 20_000);
        let taken = records(count).map(|(key, n)| (key, if refuses(n) { 0 } else { n }));
        assert!(sorted(sums.take()) == reference(taken));
    });
}
