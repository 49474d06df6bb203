//! R3: a hash exchange of (u64, u64) records between two producers and two consumers, with a sum per key.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result};
use foldhash::{HashMap, HashMapExt, fast::FixedState};
use renoir::prelude::{BatchMode, RuntimeConfig, StreamContext};
use sage::Environment;

use crate::Options;
use crate::batches::{BATCH_SIZES, Inbox, Outbox, connect};
use crate::hop::renoir_modes;
use crate::inputs::{digest_pairs, keyed_record, share};
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

pub(crate) const RECORDS: u64 = 50_000_000;
const UNIT: &str = "ns/record";

/// Producers, and consumers.
pub(crate) const REPLICAS: usize = 2;

/// Measures R3.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for batch in BATCH_SIZES {
        let run = move || timed(records, || hand(records, batch));
        contenders.push(Contender::new(Side::Hand, format!("batch {batch}"), run));
    }
    contenders.push(Contender::new(Side::Ours, "", || timed(records, || ours(records, REPLICAS))));
    for (variant, mode) in renoir_modes() {
        let run = move || timed(records, || renoir(records, mode));
        contenders.push(Contender::new(Side::Renoir, variant, run));
    }
    let measurement = alternate("r3", UNIT, options.runs(), &mut contenders)?;
    Ok(vec![
        Row::compare("r3_hand", UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.1))?,
        Row::compare("r3_renoir", UNIT, &measurement, Side::Renoir, Goal::TimesFaster(3.0))?,
    ])
}

/// Times one run up to its table of sums; the digest of the table is not part of the time.
pub(crate) fn timed(records: u64, run: impl FnOnce() -> Result<Vec<(u64, u64)>>) -> Result<Sample> {
    let start = Instant::now();
    let sums = run()?;
    let value = nanos_per(start.elapsed(), records);
    Ok(Sample { value, digest: digest_pairs(sums) })
}

fn hand(records: u64, batch: usize) -> Result<Vec<(u64, u64)>> {
    let (to_even, even) = connect::<_, REPLICAS>(batch);
    let (to_odd, odd) = connect::<_, REPLICAS>(batch);
    std::thread::scope(|scope| {
        for (index, (to_even, to_odd)) in to_even.into_iter().zip(to_odd).enumerate() {
            let numbers = share(black_box(records), index, REPLICAS);
            scope.spawn(move || produce(numbers, to_even, to_odd));
        }
        let consumers = [even, odd].map(|inbox| scope.spawn(move || sum_by_key(inbox)));
        let mut all = Vec::new();
        for consumer in consumers {
            all.extend(consumer.join().ok().context("a consumer panicked")?);
        }
        Ok(all)
    })
}

fn sum_by_key(inbox: Inbox<(u64, u64)>) -> HashMap<u64, u64> {
    let mut sums: HashMap<u64, u64> = HashMap::new();
    inbox.drain(|batch| {
        for &(key, value) in batch.iter() {
            let sum = sums.entry(key).or_default();
            *sum = sum.wrapping_add(value);
        }
    });
    sums
}

fn produce(numbers: Range<u64>, mut to_even: Outbox<(u64, u64)>, mut to_odd: Outbox<(u64, u64)>) {
    let hasher = FixedState::with_seed(0);
    for n in numbers {
        let record = keyed_record(n);
        let outbox = if hasher.hash_one(record.0) & 1 == 0 { &mut to_even } else { &mut to_odd };
        outbox.push(record);
    }
    to_even.flush();
    to_odd.flush();
}

pub(crate) fn ours(records: u64, replicas: usize) -> Result<Vec<(u64, u64)>> {
    let env = Environment::local("r3");
    let sums = env
        .from_factory(move |replica| share(black_box(records), replica, replicas))
        .parallelism(replicas)
        .map(keyed_record)
        .key_by(|record: &(u64, u64)| record.0)
        .fold(0u64, |sum, (_, value)| *sum = sum.wrapping_add(value))
        .parallelism(replicas)
        .collect();
    env.run()?;
    Ok(sums.take())
}

fn renoir(records: u64, mode: BatchMode) -> Result<Vec<(u64, u64)>> {
    let env = StreamContext::new(RuntimeConfig::local(REPLICAS as u64)?);
    let sums = env
        .stream_par_iter(0..black_box(records))
        .batch_mode(mode)
        .map(keyed_record)
        .group_by(|record| record.0)
        .fold(0u64, |sum, (_, value)| *sum = sum.wrapping_add(value))
        .collect_vec();
    env.execute_blocking();
    sums.get().context("Renoir gave no result")
}
