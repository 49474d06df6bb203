//! R3's exchange with other keys: texts of any length, one key that most records have, and as many keys as do not fit
//! into any cache.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::Result;
use sage::Environment;

use crate::Options;
use crate::exchange::{BATCHES, REPLICAS, Total, beside_hand, exchange, sums, timed_table, total};
use crate::inputs::{Random, keyed_record, scramble, share, stir};
use crate::r1::per_record;
use crate::results::Row;

const TEXT_RECORDS: u64 = 2_000_000;
const TEXTS: usize = 1 << 16;
const LONGEST_TEXT_BYTES: usize = 200;

const SKEWED_RECORDS: u64 = 100_000_000;
/// The key that nine of ten records have.
const HOT: u64 = 0;

const MANY_RECORDS: u64 = 20_000_000;
/// Each key has so many records, far apart.
const RECORDS_PER_KEY: u64 = 2;

/// Measures sums by texts of 1 to 200 bytes.
pub(crate) fn measure_texts(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(TEXT_RECORDS);
    // The texts are made before the time runs.
    LazyLock::force(&TEXT);
    let hand = move |batch| timed_table(records, || sums_by_hand(records, batch, text_record, |record| &record.0));
    beside_hand("texts", options, &BATCHES, hand, || timed_table(records, || ours_by_text(records)))
}

/// Measures sums where one key has nine of ten records.
pub(crate) fn measure_skewed_sums(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(SKEWED_RECORDS);
    let hand = move |batch| timed_table(records, || sums_by_hand(records, batch, skewed_record, |record| &record.0));
    let ours = || timed_table(records, || ours_sums(records, skewed_record));
    beside_hand("skewed_sums", options, &BATCHES, hand, ours)
}

/// Measures the exchange of the same records, without a sum by key behind it.
pub(crate) fn measure_skewed_exchange(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(SKEWED_RECORDS);
    let hand = move |batch| per_record(records, || skewed_by_hand(records, batch));
    beside_hand("skewed_exchange", options, &BATCHES, hand, || per_record(records, || ours_skewed(records)))
}

/// Measures sums by ten million keys.
pub(crate) fn measure_many_sums(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(MANY_RECORDS);
    let record = move |n| many_record(n, records);
    let hand = move |batch| timed_table(records, || sums_by_hand(records, batch, record, |record| &record.0));
    beside_hand("many_keys_sum", options, &BATCHES, hand, || timed_table(records, || ours_sums(records, record)))
}

/// Measures counts of ten million keys.
pub(crate) fn measure_many_counts(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(MANY_RECORDS);
    let key = move |n| many_record(n, records).0;
    let hand = move |batch| timed_table(records, || counts_by_hand(records, batch, key));
    beside_hand("many_keys_count", options, &BATCHES, hand, || timed_table(records, || ours_counts(records, key)))
}

/// Texts of every length from 1 byte up, the same every time.
static TEXT: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut random = Random(7);
    let mut text = |bytes: usize| (0..bytes).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    (0..TEXTS).map(|index| text(1 + index % LONGEST_TEXT_BYTES)).collect()
});

/// A text of its own, as one that comes from a line or a message is.
fn text_record(n: u64) -> (String, u64) {
    let (key, value) = keyed_record(n);
    (TEXT[key as usize % TEXTS].clone(), value)
}

#[inline(always)]
fn skewed_record(n: u64) -> (u64, u64) {
    let (key, value) = keyed_record(n);
    (if scramble(n).is_multiple_of(10) { key } else { HOT }, value)
}

/// The prime divides no number of records used here, so that each of `0..records` comes once, in a scattered order.
#[inline(always)]
fn many_record(n: u64, records: u64) -> (u64, u64) {
    let scattered = n * 2_654_435_761 % records;
    (stir(scattered / RECORDS_PER_KEY + 1), n)
}

fn sums_by_hand<K: std::hash::Hash + Eq + Send>(
    records: u64,
    batch: usize,
    record: impl Fn(u64) -> (K, u64) + Copy + Sync,
    key: impl Fn(&(K, u64)) -> &K + Copy + Send,
) -> Result<Vec<(K, u64)>> {
    let produce = |index| share(black_box(records), index, REPLICAS).map(record);
    let sums = exchange::<_, _, _, _, REPLICAS>(batch, produce, key, |inbox| sums(inbox, |record| record))?;
    Ok(sums.into_iter().flatten().collect())
}

fn counts_by_hand(records: u64, batch: usize, key: impl Fn(u64) -> u64 + Copy + Sync) -> Result<Vec<(u64, u64)>> {
    let produce = |index| share(black_box(records), index, REPLICAS).map(key);
    let counts = exchange::<_, _, _, _, REPLICAS>(batch, produce, |key| key, |inbox| sums(inbox, |key| (key, 1)))?;
    Ok(counts.into_iter().flatten().collect())
}

fn skewed_by_hand(records: u64, batch: usize) -> Result<u64> {
    let produce = |index| share(black_box(records), index, REPLICAS).map(skewed_record);
    let totals = exchange::<_, _, _, _, REPLICAS>(batch, produce, |record| &record.0, |inbox| total(inbox, weight))?;
    Ok(totals.into_iter().fold(0, u64::wrapping_add))
}

#[inline(always)]
fn weight(record: &(u64, u64)) -> u64 {
    stir(record.0 ^ record.1)
}

fn ours_by_text(records: u64) -> Result<Vec<(String, u64)>> {
    let env = Environment::local("texts");
    let sums = env
        .from_factory(move |replica| share(black_box(records), replica, REPLICAS))
        .parallelism(REPLICAS)
        .map(text_record)
        .key_by_ref(|record: &(String, u64)| &record.0)
        .fold(0u64, |sum, (_, value)| *sum = sum.wrapping_add(value))
        .parallelism(REPLICAS)
        .collect();
    env.run()?;
    Ok(sums.take())
}

fn ours_sums(records: u64, record: impl Fn(u64) -> (u64, u64) + Clone + Send + 'static) -> Result<Vec<(u64, u64)>> {
    let env = Environment::local("sums");
    let sums = env
        .from_factory(move |replica| share(black_box(records), replica, REPLICAS))
        .parallelism(REPLICAS)
        .map(record)
        .key_by(|record: &(u64, u64)| record.0)
        .fold(0u64, |sum, (_, value)| *sum = sum.wrapping_add(value))
        .parallelism(REPLICAS)
        .collect();
    env.run()?;
    Ok(sums.take())
}

fn ours_counts(records: u64, key: impl Fn(u64) -> u64 + Clone + Send + 'static) -> Result<Vec<(u64, u64)>> {
    let env = Environment::local("counts");
    let counts = env
        .from_factory(move |replica| share(black_box(records), replica, REPLICAS))
        .parallelism(REPLICAS)
        .map(key)
        .key_by(|key: &u64| *key)
        .count()
        .parallelism(REPLICAS)
        .collect();
    env.run()?;
    Ok(counts.take())
}

fn ours_skewed(records: u64) -> Result<u64> {
    let env = Environment::local("skewed");
    let all = Arc::new(AtomicU64::new(0));
    let into = all.clone();
    env.from_factory(move |replica| share(black_box(records), replica, REPLICAS))
        .parallelism(REPLICAS)
        .map(skewed_record)
        .key_by(|record: &(u64, u64)| record.0)
        .partition(REPLICAS)
        .sink_to(move |_replica| Total::new(weight, &into));
    env.run()?;
    Ok(all.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use foldhash::{HashMap, HashMapExt};

    use super::*;

    #[test]
    fn nine_of_ten_records_have_the_hot_key() {
        let hot = (0..100_000).filter(|&n| skewed_record(n).0 == HOT).count();
        assert!((89_500..90_500).contains(&hot), "{hot}");
    }

    #[test]
    fn every_key_of_many_has_as_many_records() {
        let mut counts: HashMap<u64, u64> = HashMap::new();
        (0..1000).for_each(|n| *counts.entry(many_record(n, 1000).0).or_default() += 1);
        assert_eq!(counts.len(), 500);
        assert!(counts.values().all(|&count| count == RECORDS_PER_KEY));
    }

    #[test]
    fn texts_have_every_length() {
        let lengths = |wanted| TEXT.iter().filter(|text| text.len() == wanted).count();
        assert!((1..=LONGEST_TEXT_BYTES).all(|bytes| lengths(bytes) > 300));
    }
}
