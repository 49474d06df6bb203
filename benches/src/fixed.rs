//! What a job costs before its first record: ten records, from declaring the environment to `run` returning.
//!
//! One timed run is the median of many jobs.

use std::time::Instant;

use anyhow::Result;
use renoir::prelude::*;
use sage::Environment;

use crate::Options;
use crate::measure::{Contender, Sample, Side, alternate, median};
use crate::r1::only;
use crate::results::{Goal, Row};

const RECORDS: u64 = 10;
const UNIT: &str = "µs";
const LIMIT_MICROS: f64 = 100.0;

/// Jobs per timed run. Renoir's take milliseconds each.
const OUR_JOBS: u64 = 2000;
const RENOIR_JOBS: u64 = 100;

/// Measures a job of one task and one with a hop.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let mut rows = jobs(options, "fixed_ten_records", ours_one_task, renoir_one_block)?;
    rows.extend(jobs(options, "fixed_one_hop", ours_one_hop, renoir_one_hop)?);
    Ok(rows)
}

fn jobs(options: &Options, name: &str, ours: fn() -> Result<u64>, renoir: fn() -> Result<u64>) -> Result<Vec<Row>> {
    let (our_jobs, renoir_jobs) = (options.size(OUR_JOBS), options.size(RENOIR_JOBS));
    let measurement = alternate(
        name,
        UNIT,
        options.runs(),
        &mut [
            Contender::new(Side::Ours, "", || median_job(our_jobs, ours)),
            Contender::new(Side::Renoir, "", || median_job(renoir_jobs, renoir)),
        ],
    )?;
    let ours = measurement.best(Side::Ours)?;
    Ok(vec![
        Row::against_limit(name, UNIT, ours, LIMIT_MICROS),
        Row::compare(&format!("{name}_renoir"), UNIT, &measurement, Side::Renoir, Goal::Reported)?,
    ])
}

fn median_job(jobs: u64, job: fn() -> Result<u64>) -> Result<Sample> {
    let mut micros = Vec::new();
    let mut digest = 0;
    for _ in 0..jobs {
        let start = Instant::now();
        digest = job()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Sample { value: median(&mut micros), digest })
}

fn ours_one_task() -> Result<u64> {
    let env = Environment::local("ten-records");
    let sum = env.from_iter(0..RECORDS).map(|n| n + 1).fold(0, |sum, n| *sum += n).collect();
    env.run()?;
    only(sum.take())
}

fn ours_one_hop() -> Result<u64> {
    let env = Environment::local("ten-records-one-hop");
    let sum = env.from_iter(0..RECORDS).map(|n| n + 1).on_another_thread().fold(0, |sum, n| *sum += n).collect();
    env.run()?;
    only(sum.take())
}

fn renoir_one_block() -> Result<u64> {
    let env = StreamContext::new(RuntimeConfig::local(1)?);
    let sum =
        env.stream_iter(0..RECORDS).map(|n| n + 1).fold_assoc(0, |sum, n| *sum += n, |sum, n| *sum += n).collect_vec();
    env.execute_blocking();
    only(sum.get().unwrap_or_default())
}

fn renoir_one_hop() -> Result<u64> {
    let env = StreamContext::new(RuntimeConfig::local(1)?);
    let sum = env.stream_iter(0..RECORDS).map(|n| n + 1).fold(0, |sum, n| *sum += n).collect_vec();
    env.execute_blocking();
    only(sum.get().unwrap_or_default())
}
