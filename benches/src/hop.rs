//! R1 with one hop between two threads, the operators before the hop (`hop_source`) or behind it (`hop_sink`).
//!
//! The hand-written hop is tried with every batch size and its fastest counts; ours runs with its defaults.

use std::hint::black_box;

use anyhow::Result;
use renoir::prelude::*;
use sage::Environment;

use crate::Options;
use crate::batches::{BATCH_SIZES, Outbox, connect};
use crate::inputs::{keep, scramble, stir};
use crate::measure::{Contender, Side, alternate};
use crate::r1::{only, per_record};
use crate::results::{Goal, Row};

const RECORDS: u64 = 100_000_000;
const UNIT: &str = "ns/record";

/// Batch sizes given to Renoir beside its adaptive default.
pub(crate) const RENOIR_BATCHES: [usize; 2] = [1024, 4096];

/// Measures the hop behind the operators.
pub(crate) fn measure_in_source(options: &Options) -> Result<Vec<Row>> {
    let programs = Programs { hand: hand_in_source, ours: ours_in_source, renoir: renoir_in_source };
    measure(options, "hop_source", &programs)
}

/// Measures the hop before the operators.
pub(crate) fn measure_in_sink(options: &Options) -> Result<Vec<Row>> {
    let programs = Programs { hand: hand_in_sink, ours: ours_in_sink, renoir: renoir_in_sink };
    measure(options, "hop_sink", &programs)
}

struct Programs {
    hand: fn(u64, usize) -> Result<u64>,
    ours: fn(u64) -> Result<u64>,
    renoir: fn(u64, BatchMode) -> Result<u64>,
}

fn measure(options: &Options, name: &str, programs: &Programs) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for batch in BATCH_SIZES {
        let run = move || per_record(records, || (programs.hand)(records, batch));
        contenders.push(Contender::new(Side::Hand, format!("batch {batch}"), run));
    }
    contenders.push(Contender::new(Side::Ours, "", || per_record(records, || (programs.ours)(records))));
    for (variant, mode) in renoir_modes() {
        let run = move || per_record(records, || (programs.renoir)(records, mode));
        contenders.push(Contender::new(Side::Renoir, variant, run));
    }
    let measurement = alternate(name, UNIT, options.runs(), &mut contenders)?;
    Ok(vec![
        Row::compare(&format!("{name}_hand"), UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.2))?,
        Row::compare(&format!("{name}_renoir"), UNIT, &measurement, Side::Renoir, Goal::TimesFaster(3.0))?,
    ])
}

/// Renoir's default and the fixed sizes its own examples choose for throughput.
pub(crate) fn renoir_modes() -> impl Iterator<Item = (String, BatchMode)> {
    let fixed = RENOIR_BATCHES.map(|size| (format!("batch {size}"), BatchMode::fixed(size)));
    std::iter::once(("default batches".to_owned(), BatchMode::default())).chain(fixed)
}

/// Runs `produce` on a thread of its own and sums what `consume` makes of every batch on this one.
fn across_one_hop(
    batch: usize,
    produce: impl FnOnce(&mut Outbox<u64>) + Send,
    mut consume: impl FnMut(&mut Vec<u64>) -> u64,
) -> u64 {
    let ([mut outbox], inbox) = connect(batch);
    let mut sum = 0u64;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            produce(&mut outbox);
            outbox.flush();
        });
        inbox.drain(|records| sum = sum.wrapping_add(consume(records)));
    });
    sum
}

fn hand_in_source(records: u64, batch: usize) -> Result<u64> {
    let produce = |outbox: &mut Outbox<u64>| {
        for n in 0..black_box(records) {
            let x = scramble(n);
            if keep(x) {
                outbox.push(stir(x));
            }
        }
    };
    let consume = |records: &mut Vec<u64>| records.iter().fold(0u64, |sum, &x| sum.wrapping_add(x));
    Ok(across_one_hop(batch, produce, consume))
}

fn hand_in_sink(records: u64, batch: usize) -> Result<u64> {
    let produce = |outbox: &mut Outbox<u64>| {
        let records = black_box(records);
        let mut next = 0;
        while next < records {
            let end = records.min(next + batch as u64);
            outbox.send_with(|out| out.extend(next..end));
            next = end;
        }
    };
    let consume = |records: &mut Vec<u64>| {
        let kept = records.iter().map(|&n| scramble(n)).filter(|&x| keep(x));
        kept.fold(0u64, |sum, x| sum.wrapping_add(stir(x)))
    };
    Ok(across_one_hop(batch, produce, consume))
}

pub(crate) fn ours_in_source(records: u64) -> Result<u64> {
    let env = Environment::local("hop-source");
    let sum = env
        .from_factory(move |_replica| 0..black_box(records))
        .map(scramble)
        .filter(|&x| keep(x))
        .map(stir)
        .on_another_thread()
        .fold(0u64, |sum, x| *sum = sum.wrapping_add(x))
        .collect();
    env.run()?;
    only(sum.take())
}

pub(crate) fn ours_in_sink(records: u64) -> Result<u64> {
    let env = Environment::local("hop-sink");
    let sum = env
        .from_factory(move |_replica| 0..black_box(records))
        .on_another_thread()
        .map(scramble)
        .filter(|&x| keep(x))
        .map(stir)
        .fold(0u64, |sum, x| *sum = sum.wrapping_add(x))
        .collect();
    env.run()?;
    only(sum.take())
}

/// Renoir's `fold` moves the stream to one replica in a block of its own: that is the hop.
fn renoir_in_source(records: u64, mode: BatchMode) -> Result<u64> {
    let env = StreamContext::new(RuntimeConfig::local(1)?);
    let sum = env
        .stream_iter(0..black_box(records))
        .batch_mode(mode)
        .map(scramble)
        .filter(|&x| keep(x))
        .map(stir)
        .fold(0u64, |sum, x| *sum = sum.wrapping_add(x))
        .collect_vec();
    env.execute_blocking();
    only(sum.get().unwrap_or_default())
}

fn renoir_in_sink(records: u64, mode: BatchMode) -> Result<u64> {
    let env = StreamContext::new(RuntimeConfig::local(1)?);
    let sum = env
        .stream_iter(0..black_box(records))
        .batch_mode(mode)
        .replication(Replication::One)
        .map(scramble)
        .filter(|&x| keep(x))
        .map(stir)
        .fold_assoc(0u64, |sum, x| *sum = sum.wrapping_add(x), |sum, x| *sum = sum.wrapping_add(x))
        .collect_vec();
    env.execute_blocking();
    only(sum.get().unwrap_or_default())
}
