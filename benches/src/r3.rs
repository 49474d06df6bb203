//! R3: a hash exchange of (u64, u64) records between two producers and two consumers, with a sum per key; and the same
//! sums in whatever way (`r3_parallel`).

use std::hint::black_box;

use anyhow::{Context, Result};
use foldhash::{HashMap, HashMapExt};
use renoir::prelude::{BatchMode, RuntimeConfig, StreamContext};
use sage::Environment;

use crate::Options;
use crate::batches::BATCH_SIZES;
use crate::exchange::{exchange, sums, timed_table};
use crate::hop::renoir_modes;
use crate::inputs::{keyed_record, share};
use crate::measure::{Contender, Side, alternate};
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
        let run = move || timed_table(records, || hand::<REPLICAS>(records, batch));
        contenders.push(Contender::new(Side::Hand, format!("batch {batch}"), run));
    }
    contenders.push(Contender::new(Side::Ours, "", || timed_table(records, || ours(records, REPLICAS))));
    for (variant, mode) in renoir_modes() {
        let run = move || timed_table(records, || renoir(records, mode));
        contenders.push(Contender::new(Side::Renoir, variant, run));
    }
    let measurement = alternate("r3", UNIT, options.runs(), &mut contenders)?;
    Ok(vec![
        Row::compare("r3_hand", UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.0))?,
        Row::compare("r3_renoir", UNIT, &measurement, Side::Renoir, Goal::TimesFaster(3.0))?,
    ])
}

/// Measures the same sums where a producer may add up before it sends.
pub(crate) fn measure_parallel(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let mut contenders = [
        Contender::new(Side::Hand, "a table in each thread", || timed_table(records, || hand_parallel(records))),
        Contender::new(Side::Ours, "", || timed_table(records, || ours_parallel(records))),
    ];
    let measurement = alternate("r3_parallel", UNIT, options.runs(), &mut contenders)?;
    Ok(vec![Row::compare("r3_parallel_hand", UNIT, &measurement, Side::Hand, Goal::Reported)?])
}

/// `N` producers and `N` consumers.
pub(crate) fn hand<const N: usize>(records: u64, batch: usize) -> Result<Vec<(u64, u64)>> {
    let produce = |index| share(black_box(records), index, N).map(keyed_record);
    let sums = exchange::<_, _, _, _, N>(batch, produce, |record| &record.0, |inbox| sums(inbox, |record| record))?;
    Ok(sums.into_iter().flatten().collect())
}

/// Two threads that sum half of the records each, and one of them adds the sums of the other to its own.
fn hand_parallel(records: u64) -> Result<Vec<(u64, u64)>> {
    let part = |index| {
        let mut sums: HashMap<u64, u64> = HashMap::new();
        for (key, value) in share(black_box(records), index, REPLICAS).map(keyed_record) {
            let sum = sums.entry(key).or_default();
            *sum = sum.wrapping_add(value);
        }
        sums
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..REPLICAS).map(|index| scope.spawn(move || part(index))).collect();
        let mut all = part(0);
        for other in others {
            for (key, sum) in other.join().ok().context("a thread panicked")? {
                *all.entry(key).or_default() += sum;
            }
        }
        Ok(all.into_iter().collect())
    })
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

pub(crate) fn ours_parallel(records: u64) -> Result<Vec<(u64, u64)>> {
    let env = Environment::local("r3-parallel");
    let sums = env
        .from_factory(move |replica| share(black_box(records), replica, REPLICAS))
        .parallelism(REPLICAS)
        .map(keyed_record)
        .key_by(|record: &(u64, u64)| record.0)
        .sum(|record| record.1)
        .parallelism(REPLICAS)
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
