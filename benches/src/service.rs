//! What managed services cost: one call through a handle beside a plain `Arc<dyn Trait>` call (`service_call_1`,
//! `service_call_2`), and the time `run` needs to bring three of them down (`return_three_services`).

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use sage::{BoxError, CloseContext, Environment, Service, ServiceHandle, Sink};

use crate::Options;
use crate::inputs::{share, stir};
use crate::measure::{Contender, Sample, Side, alternate, median, nanos_per};
use crate::results::{Goal, Row};

/// What the service computes, as a trait, so that a plain call goes through `Arc<dyn Oracle>`.
trait Oracle: Send + Sync {
    fn answer(&self, question: u64) -> u64;
}

struct Multiplier {
    factor: u64,
}

impl Multiplier {
    fn new() -> Self {
        Self { factor: black_box(0x9E37_79B9_7F4A_7C15) }
    }
}

impl Oracle for Multiplier {
    /// Never inlined, so that both ways of calling it make one real call.
    #[inline(never)]
    fn answer(&self, question: u64) -> u64 {
        stir(question).wrapping_mul(self.factor)
    }
}

impl Service for Multiplier {}

const CALLS: u64 = 50_000_000;
const CALL_UNIT: &str = "ns/call";
const OVERHEAD_LIMIT_NANOS: f64 = 12.0;

/// Measures one call from one caller and from two at once.
pub(crate) fn measure_calls(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for callers in [1, 2] {
        rows.push(calls(options, callers)?);
    }
    Ok(rows)
}

fn calls(options: &Options, callers: usize) -> Result<Row> {
    let name = format!("service_call_{callers}");
    let calls = options.size(CALLS);
    let timed = |run: fn(u64, usize) -> Result<u64>| {
        move || {
            let start = Instant::now();
            let digest = run(calls, callers)?;
            // Callers run side by side, each with its share of the calls.
            Ok(Sample { value: nanos_per(start.elapsed(), calls / callers as u64), digest })
        }
    };
    let measurement = alternate(
        &name,
        CALL_UNIT,
        options.runs(),
        &mut [
            Contender::new(Side::Ours, "ServiceHandle", timed(through_handle)),
            Contender::new(Side::Hand, "Arc<dyn Trait>", timed(through_dyn)),
        ],
    )?;
    let (handle, plain) = (measurement.best(Side::Ours)?, measurement.best(Side::Hand)?);
    let overhead = handle.median - plain.median;
    let unit = "ns over a plain call";
    let versus = ("Arc<dyn Trait> in the same pipeline, ns/record", plain.median);
    let ratio = handle.median / plain.median;
    let row = Row::derived(&name, unit, overhead, versus, ratio, Goal::AtMost(OVERHEAD_LIMIT_NANOS));
    Ok(row.with_spreads(handle.spread, plain.spread))
}

fn through_handle(calls: u64, callers: usize) -> Result<u64> {
    let env = Environment::local("service-call");
    let oracle: ServiceHandle<Multiplier> = env.register_service("oracle", Multiplier::new).build();
    let total = Arc::new(AtomicU64::new(0));
    let into = total.clone();
    env.from_factory(move |replica| share(calls, replica, callers))
        .parallelism(callers)
        .try_map(move |question| oracle.call(|oracle| oracle.answer(question)))
        .sink_to(move |_replica| Sum::new(&into));
    env.run()?;
    Ok(total.load(Ordering::Relaxed))
}

fn through_dyn(calls: u64, callers: usize) -> Result<u64> {
    let env = Environment::local("plain-call");
    let oracle: Arc<dyn Oracle> = black_box(Arc::new(Multiplier::new()));
    let total = Arc::new(AtomicU64::new(0));
    let into = total.clone();
    env.from_factory(move |replica| share(calls, replica, callers))
        .parallelism(callers)
        .map(move |question| oracle.answer(question))
        .sink_to(move |_replica| Sum::new(&into));
    env.run()?;
    Ok(total.load(Ordering::Relaxed))
}

/// Adds up what one replica sees, and adds that to the total when it closes.
struct Sum {
    sum: u64,
    total: Arc<AtomicU64>,
}

impl Sum {
    fn new(total: &Arc<AtomicU64>) -> Self {
        Self { sum: 0, total: total.clone() }
    }
}

impl Sink for Sum {
    type In = u64;

    fn write(&mut self, record: u64) -> Result<(), BoxError> {
        self.sum = self.sum.wrapping_add(record);
        Ok(())
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.total.fetch_add(self.sum, Ordering::Relaxed);
        Ok(())
    }
}

/// Records of a job whose return is timed, and such jobs per timed run.
const RETURN_RECORDS: u64 = 1000;
const RETURN_JOBS: u64 = 200;
const RETURN_UNIT: &str = "µs";
const RETURN_LIMIT_MICROS: f64 = 1000.0;

/// Measures how long `run` takes to return once the sink has seen the last record.
pub(crate) fn measure_return(options: &Options) -> Result<Vec<Row>> {
    let jobs = options.size(RETURN_JOBS);
    let name = "return_three_services";
    let median_return = || {
        let mut micros = Vec::new();
        let mut digest = 0;
        for _ in 0..jobs {
            let (elapsed, sum) = job_with_three_services()?;
            micros.push(elapsed.as_secs_f64() * 1e6);
            digest = sum;
        }
        Ok(Sample { value: median(&mut micros), digest })
    };
    let contenders = &mut [Contender::new(Side::Ours, "", median_return)];
    let measurement = alternate(name, RETURN_UNIT, options.runs(), contenders)?;
    Ok(vec![Row::against_limit(name, RETURN_UNIT, measurement.best(Side::Ours)?, RETURN_LIMIT_MICROS)])
}

fn job_with_three_services() -> Result<(Duration, u64)> {
    let env = Environment::local("three-services");
    let first = env.register_service("first", Multiplier::new).build();
    let second = env.register_service("second", Multiplier::new).after(&first).build();
    let third = env.register_service("third", Multiplier::new).after(&second).build();
    let seen = Arc::new(Mutex::new((Instant::now(), 0u64)));
    let sink = seen.clone();
    env.from_iter(0..RETURN_RECORDS)
        .try_map(move |n| first.call(|oracle| oracle.answer(n)))
        .try_map(move |n| second.call(|oracle| oracle.answer(n)))
        .try_map(move |n| third.call(|oracle| oracle.answer(n)))
        .sink(move |n| {
            let mut seen = sink.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = (Instant::now(), seen.1.wrapping_add(n));
        });
    env.run()?;
    let returned = Instant::now();
    let (last_record, sum) = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((returned - last_record, sum))
}
