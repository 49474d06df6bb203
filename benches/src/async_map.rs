//! 100,000 records that each wait 5 ms for a timer, 2,000 of them at once: `map_async` in order (`async_ordered`) and
//! as they complete (`async_unordered`).
//!
//! Two programs by hand stand beside each: futures polled in one place, and a tokio task per record. The faster one
//! counts. All have a runtime of two workers, as the engine's jobs have, and make it within the measured time.

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::stream::{StreamExt, iter};
use sage::{Environment, Order};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::Options;
use crate::inputs::stir;
use crate::measure::{Contender, Side, alternate};
use crate::r1::{only, per_record};
use crate::results::{Goal, Row};

const RECORDS: u64 = 100_000;
const IN_FLIGHT: usize = 2000;
const WAIT: Duration = Duration::from_millis(5);
const UNIT: &str = "ns/record";
const GOAL: Goal = Goal::RatioAtMost(1.3);

/// Measures both orders.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let programs: [(&str, [fn(u64) -> Result<u64>; 3]); 2] = [
        ("async_ordered", [ours_ordered, polled_ordered, spawned_ordered]),
        ("async_unordered", [ours_unordered, polled_unordered, spawned_unordered]),
    ];
    let records = options.size(RECORDS);
    let mut rows = Vec::new();
    for (name, [ours, polled, spawned]) in programs {
        let contenders = &mut [
            Contender::new(Side::Ours, "", || per_record(records, || ours(records))),
            Contender::new(Side::Hand, "polled in one place", || per_record(records, || polled(records))),
            Contender::new(Side::Hand, "a task per record", || per_record(records, || spawned(records))),
        ];
        let measurement = alternate(name, UNIT, options.runs(), contenders)?;
        rows.push(Row::compare(name, UNIT, &measurement, Side::Hand, GOAL)?);
    }
    Ok(rows)
}

async fn work(n: u64) -> u64 {
    tokio::time::sleep(WAIT).await;
    stir(n)
}

/// Depends on the order.
fn chained(digest: u64, x: u64) -> u64 {
    stir(digest) ^ x
}

/// Does not.
fn summed(digest: u64, x: u64) -> u64 {
    digest.wrapping_add(x)
}

fn ours_ordered(records: u64) -> Result<u64> {
    ours(records, Order::Ordered, chained)
}

fn ours_unordered(records: u64) -> Result<u64> {
    ours(records, Order::Unordered, summed)
}

fn ours(records: u64, order: Order, fold: fn(u64, u64) -> u64) -> Result<u64> {
    let env = Environment::local("async-map");
    let digest = env
        .from_factory(move |_replica| 0..black_box(records))
        .map_async(IN_FLIGHT, order, work)
        .fold(0, move |digest, x| *digest = fold(*digest, x))
        .collect();
    env.run()?;
    only(digest.take())
}

fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().context("no runtime")
}

fn polled_ordered(records: u64) -> Result<u64> {
    let futures = iter(0..black_box(records)).map(work).buffered(IN_FLIGHT);
    Ok(runtime()?.block_on(futures.fold(0, |digest, x| std::future::ready(chained(digest, x)))))
}

fn polled_unordered(records: u64) -> Result<u64> {
    let futures = iter(0..black_box(records)).map(work).buffer_unordered(IN_FLIGHT);
    Ok(runtime()?.block_on(futures.fold(0, |digest, x| std::future::ready(summed(digest, x)))))
}

/// Runs on a worker, where waking another task costs least.
fn on_worker(program: impl Future<Output = Result<u64>> + Send + 'static) -> Result<u64> {
    let runtime = runtime()?;
    let program = runtime.spawn(program);
    runtime.block_on(program)?
}

fn spawned_ordered(records: u64) -> Result<u64> {
    on_worker(async move {
        let mut in_flight = VecDeque::with_capacity(IN_FLIGHT);
        let mut digest = 0;
        for n in 0..black_box(records) {
            if in_flight.len() == IN_FLIGHT
                && let Some(oldest) = in_flight.pop_front()
            {
                digest = chained(digest, oldest.await?);
            }
            in_flight.push_back(tokio::spawn(work(n)));
        }
        for task in in_flight {
            digest = chained(digest, task.await?);
        }
        Ok(digest)
    })
}

fn spawned_unordered(records: u64) -> Result<u64> {
    on_worker(async move {
        let mut in_flight = JoinSet::new();
        let mut digest = 0;
        for n in 0..black_box(records) {
            if in_flight.len() == IN_FLIGHT
                && let Some(done) = in_flight.join_next().await
            {
                digest = summed(digest, done?);
            }
            in_flight.spawn(work(n));
        }
        while let Some(done) = in_flight.join_next().await {
            digest = summed(digest, done?);
        }
        Ok(digest)
    })
}
