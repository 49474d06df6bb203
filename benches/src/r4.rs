//! R4: an inner hash join of (u64, u64) records with unique shuffled keys on both sides, and a sum over its pairs.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use foldhash::{HashMap, HashMapExt, fast::FixedState};
use renoir::prelude::{BatchMode, RuntimeConfig, StreamContext};
use sage::Environment;

use crate::Options;
use crate::batches::{Inbox, Outbox, connect};
use crate::hop::renoir_modes;
use crate::inputs::{scramble, share, stir};
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

/// Records of each side.
pub(crate) const RECORDS: u64 = 5_000_000;
/// Of both sides together.
const UNIT: &str = "ns/record";

/// Producers, and consumers, of the contenders that use two threads at a time.
pub(crate) const REPLICAS: usize = 2;
/// The batch sizes of the hand-written exchange.
const BATCHES: [usize; 2] = [1024, 8192];

/// Measures R4.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    contenders.push(Contender::new(Side::Hand, "one thread", || timed(records, || Ok(hand(records)))));
    for batch in BATCHES {
        let run = move || timed(records, || hand_exchanging(records, batch));
        contenders.push(Contender::new(Side::Hand, format!("exchange, batch {batch}"), run));
    }
    for replicas in [1, REPLICAS] {
        let run = move || timed(records, || ours(records, replicas));
        contenders.push(Contender::new(Side::Ours, format!("{replicas} × join"), run));
    }
    for (replicas, label) in [(1, "1 core"), (REPLICAS, "2 cores")] {
        for (variant, mode) in renoir_modes() {
            let run = move || timed(records, || renoir(records, replicas, mode));
            contenders.push(Contender::new(Side::Renoir, format!("{label}, {variant}"), run));
        }
    }
    let measurement = alternate("r4", UNIT, options.runs(), &mut contenders)?;
    Ok(vec![
        Row::compare("r4_hand", UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.1))?,
        Row::compare("r4_renoir", UNIT, &measurement, Side::Renoir, Goal::TimesFaster(3.0))?,
    ])
}

fn timed(records: u64, run: impl FnOnce() -> Result<u64>) -> Result<Sample> {
    let start = Instant::now();
    let digest = run()?;
    Ok(Sample { value: nanos_per(start.elapsed(), 2 * records), digest })
}

/// The `n`th right record. A multiplication by an odd number is one to one, and so is `stir`: no key comes twice.
#[inline(always)]
pub(crate) fn right_record(n: u64) -> (u64, u64) {
    (stir(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)), n)
}

/// The `n`th left record: the same keys in another order, as the prime divides no number of records used here.
#[inline(always)]
pub(crate) fn left_record(n: u64, records: u64) -> (u64, u64) {
    let (key, _) = right_record(n * 2_654_435_761 % records);
    (key, scramble(n))
}

/// What a pair adds to the answer: of its three parts, and nothing that an engine of columns lacks.
#[inline(always)]
fn weight(key: u64, left: u64, right: u64) -> u64 {
    key ^ left ^ right
}

fn hand(records: u64) -> u64 {
    let records = black_box(records);
    let mut table: HashMap<u64, u64> = HashMap::with_capacity(capacity(records));
    for (key, value) in (0..records).map(right_record) {
        table.insert(key, value);
    }
    probe(&table, (0..records).map(|n| left_record(n, records)))
}

fn probe(table: &HashMap<u64, u64>, left: impl Iterator<Item = (u64, u64)>) -> u64 {
    left.fold(0, |sum, (key, left)| match table.get(&key) {
        Some(&right) => sum.wrapping_add(weight(key, left, right)),
        None => sum,
    })
}

fn capacity(records: u64) -> usize {
    usize::try_from(records).expect("a table of them fits into memory")
}

/// Two producers that send each record to the consumer of its key; a consumer takes all of the right side first.
fn hand_exchanging(records: u64, batch: usize) -> Result<u64> {
    let records = black_box(records);
    let (right_to_even, right_even) = connect::<_, REPLICAS>(batch);
    let (right_to_odd, right_odd) = connect::<_, REPLICAS>(batch);
    let (left_to_even, left_even) = connect::<_, REPLICAS>(batch);
    let (left_to_odd, left_odd) = connect::<_, REPLICAS>(batch);
    let rights = right_to_even.into_iter().zip(right_to_odd);
    let lefts = left_to_even.into_iter().zip(left_to_odd);
    std::thread::scope(|scope| {
        for (index, (right, left)) in rights.zip(lefts).enumerate() {
            let numbers = share(records, index, REPLICAS);
            scope.spawn(move || {
                produce(numbers.clone().map(right_record), right);
                produce(numbers.map(|n| left_record(n, records)), left);
            });
        }
        let consumers = [(right_even, left_even), (right_odd, left_odd)]
            .map(|(right, left)| scope.spawn(move || join_batches(records, right, left)));
        let mut sum = 0u64;
        for consumer in consumers {
            sum = sum.wrapping_add(consumer.join().ok().context("a consumer panicked")?);
        }
        Ok(sum)
    })
}

fn produce(records: impl Iterator<Item = (u64, u64)>, to: (Outbox<(u64, u64)>, Outbox<(u64, u64)>)) {
    let hasher = FixedState::with_seed(0);
    let (mut to_even, mut to_odd) = to;
    for record in records {
        let outbox = if hasher.hash_one(record.0) & 1 == 0 { &mut to_even } else { &mut to_odd };
        outbox.push(record);
    }
    to_even.flush();
    to_odd.flush();
}

fn join_batches(records: u64, right: Inbox<(u64, u64)>, left: Inbox<(u64, u64)>) -> u64 {
    // A little more than half: keys fall evenly.
    let mut table: HashMap<u64, u64> = HashMap::with_capacity(capacity(records) / REPLICAS * 33 / 32);
    right.drain(|batch| table.extend(batch.iter().copied()));
    let mut sum = 0u64;
    left.drain(|batch| sum = sum.wrapping_add(probe(&table, batch.iter().copied())));
    sum
}

pub(crate) fn ours(records: u64, replicas: usize) -> Result<u64> {
    let env = Environment::local("r4");
    let records = black_box(records);
    let right = env.from_factory(move |replica| share(records, replica, replicas)).parallelism(replicas);
    let right = right.map(right_record).key_by(|record: &(u64, u64)| record.0);
    let left = env.from_factory(move |replica| share(records, replica, replicas)).parallelism(replicas);
    let left = left.map(move |n| left_record(n, records)).key_by(|record: &(u64, u64)| record.0);
    let sum = left
        .join(right)
        .inner()
        .map(|(key, (_, left), (_, right))| weight(key, left, right))
        .fold(0u64, |sum, weight| *sum = sum.wrapping_add(weight))
        .collect();
    env.run()?;
    sum.take().pop().context("a fold gives one record")
}

fn renoir(records: u64, replicas: usize, mode: BatchMode) -> Result<u64> {
    let env = StreamContext::new(RuntimeConfig::local(replicas as u64)?);
    let records = black_box(records);
    let right = env.stream_par_iter(0..records).batch_mode(mode).map(right_record);
    let left = env.stream_par_iter(0..records).batch_mode(mode).map(move |n| left_record(n, records));
    let sum = left
        .join(right, |record| record.0, |record| record.0)
        .map(|(&key, ((_, left), (_, right)))| weight(key, left, right))
        .drop_key()
        .fold_assoc(0u64, |sum, weight| *sum = sum.wrapping_add(weight), |sum, weight| *sum = sum.wrapping_add(weight))
        .collect_vec();
    env.execute_blocking();
    sum.get().and_then(|mut sums| sums.pop()).context("Renoir gave no result")
}
