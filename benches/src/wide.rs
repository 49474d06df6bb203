//! Records of 128 and 256 bytes through R3's exchange, and a sum by key of the latter.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use sage::Environment;

use crate::Options;
use crate::exchange::{REPLICAS, Total, beside_hand, exchange, sums, timed_table, total};
use crate::inputs::{keyed_record, share};
use crate::r1::per_record;
use crate::results::Row;

const RECORDS: u64 = 40_000_000;

/// The batch sizes of the exchange by hand: the largest are of a megabyte.
const BATCHES: [usize; 4] = [64, 256, 1024, 4096];

/// A key, a value, and what a message has besides.
#[derive(Clone)]
struct Wide<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Wide<WORDS> {
    #[inline(always)]
    fn new(n: u64) -> Self {
        let (key, value) = keyed_record(n);
        Self(std::array::from_fn(|word| match word {
            0 => key,
            1 => value,
            _ => n ^ word as u64,
        }))
    }

    /// Reads both ends.
    #[inline(always)]
    fn weight(&self) -> u64 {
        self.0[1] ^ self.0[WORDS - 1]
    }
}

/// Measures the exchange.
pub(crate) fn measure_exchange(options: &Options) -> Result<Vec<Row>> {
    let mut rows = exchanged::<16>("wide_128", options)?;
    rows.extend(exchanged::<32>("wide_256", options)?);
    Ok(rows)
}

fn exchanged<const WORDS: usize>(name: &str, options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let hand = move |batch| per_record(records, || by_hand::<WORDS>(records, batch));
    beside_hand(name, options, &BATCHES, hand, || per_record(records, || ours::<WORDS>(records)))
}

/// Measures the sum by key.
pub(crate) fn measure_sums(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let hand = move |batch| timed_table(records, || sums_by_hand::<32>(records, batch));
    beside_hand("wide_sums", options, &BATCHES, hand, || timed_table(records, || ours_sums::<32>(records)))
}

fn by_hand<const WORDS: usize>(records: u64, batch: usize) -> Result<u64> {
    let produce = |index| share(black_box(records), index, REPLICAS).map(Wide::<WORDS>::new);
    let consume = |inbox| total(inbox, Wide::weight);
    let totals = exchange::<_, _, _, _, REPLICAS>(batch, produce, |record| &record.0[0], consume)?;
    Ok(totals.into_iter().fold(0, u64::wrapping_add))
}

fn sums_by_hand<const WORDS: usize>(records: u64, batch: usize) -> Result<Vec<(u64, u64)>> {
    let produce = |index| share(black_box(records), index, REPLICAS).map(Wide::<WORDS>::new);
    let consume = |inbox| sums(inbox, |record: Wide<WORDS>| (record.0[0], record.weight()));
    let sums = exchange::<_, _, _, _, REPLICAS>(batch, produce, |record| &record.0[0], consume)?;
    Ok(sums.into_iter().flatten().collect())
}

fn ours<const WORDS: usize>(records: u64) -> Result<u64> {
    let env = Environment::local("wide");
    let all = Arc::new(AtomicU64::new(0));
    let into = all.clone();
    env.from_factory(move |replica| share(black_box(records), replica, REPLICAS))
        .parallelism(REPLICAS)
        .map(Wide::<WORDS>::new)
        .key_by(|record: &Wide<WORDS>| record.0[0])
        .partition(REPLICAS)
        .sink_to(move |_replica| Total::new(Wide::weight, &into));
    env.run()?;
    Ok(all.load(Ordering::Relaxed))
}

fn ours_sums<const WORDS: usize>(records: u64) -> Result<Vec<(u64, u64)>> {
    let env = Environment::local("wide-sums");
    let sums = env
        .from_factory(move |replica| share(black_box(records), replica, REPLICAS))
        .parallelism(REPLICAS)
        .map(Wide::<WORDS>::new)
        .key_by(|record: &Wide<WORDS>| record.0[0])
        .fold(0u64, |sum, record| *sum = sum.wrapping_add(record.weight()))
        .parallelism(REPLICAS)
        .collect();
    env.run()?;
    Ok(sums.take())
}
