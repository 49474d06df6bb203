//! R1: a narrow chain on one thread, `map → filter → map → sum` over u64.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use renoir::prelude::*;
use sage::Environment;

use crate::Options;
use crate::inputs::{keep, scramble, stir};
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

const RECORDS: u64 = 100_000_000;
const UNIT: &str = "ns/record";

/// Measures R1.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let timed = |run: fn(u64) -> Result<u64>| move || per_record(records, || run(records));
    let measurement = alternate(
        "r1",
        UNIT,
        options.runs(),
        &mut [
            Contender::new(Side::Hand, "for loop", timed(hand_loop)),
            Contender::new(Side::Hand, "iterator", timed(hand_iterator)),
            Contender::new(Side::Ours, "", timed(ours)),
            Contender::new(Side::Renoir, "", timed(renoir)),
        ],
    )?;
    Ok(vec![
        Row::compare("r1_hand", UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.05))?,
        Row::compare("r1_renoir", UNIT, &measurement, Side::Renoir, Goal::Reported)?,
    ])
}

/// Times one run and divides by the number of records; the answer is its own digest.
pub(crate) fn per_record(records: u64, run: impl FnOnce() -> Result<u64>) -> Result<Sample> {
    let start = Instant::now();
    let digest = run()?;
    let value = nanos_per(start.elapsed(), records);
    Ok(Sample { value, digest })
}

fn hand_loop(records: u64) -> Result<u64> {
    let mut sum = 0u64;
    for n in 0..black_box(records) {
        let x = scramble(n);
        if keep(x) {
            sum = sum.wrapping_add(stir(x));
        }
    }
    Ok(sum)
}

fn hand_iterator(records: u64) -> Result<u64> {
    let chain = (0..black_box(records)).map(scramble).filter(|&x| keep(x)).map(stir);
    Ok(chain.fold(0u64, u64::wrapping_add))
}

pub(crate) fn ours(records: u64) -> Result<u64> {
    let env = Environment::local("r1");
    let sum = env
        .from_factory(move |_replica| 0..black_box(records))
        .map(scramble)
        .filter(|&x| keep(x))
        .map(stir)
        .fold(0u64, |sum, x| *sum = sum.wrapping_add(x))
        .collect();
    env.run()?;
    only(sum.take())
}

/// `fold_assoc` keeps the sum in the source's block; `fold` would put a hop before it.
fn renoir(records: u64) -> Result<u64> {
    let env = StreamContext::new(RuntimeConfig::local(1)?);
    let sum = env
        .stream_iter(0..black_box(records))
        .map(scramble)
        .filter(|&x| keep(x))
        .map(stir)
        .fold_assoc(0u64, |sum, x| *sum = sum.wrapping_add(x), |sum, x| *sum = sum.wrapping_add(x))
        .collect_vec();
    env.execute_blocking();
    only(sum.get().unwrap_or_default())
}

/// The single record a job gave.
pub(crate) fn only<T>(mut collected: Vec<T>) -> Result<T> {
    collected.pop().context("the job gave no result")
}
