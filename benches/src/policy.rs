//! What a policy costs where nothing waits: a call through a method of a service, with no layer (`policy_off`), with
//! the layers in memory (`policy_layers`), and with timeout and deadline as well (`policy_all`); each beside an async
//! call through the handle of a service without a policy. And dynamic batches (`batch`): requests to a service that
//! takes 5 ms for a batch of any size, beside as many batches in a row as there have to be.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use sage::{
    Batch, Batching, BoxError, Concurrency, Environment, Method, Order, Policy, PolicyService, Rate, Retry, Service,
};

use crate::Options;
use crate::inputs::stir;
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

struct Oracle;

impl Service for Oracle {}

impl Oracle {
    #[inline(never)]
    fn answer(&self, question: u64) -> u64 {
        stir(question)
    }
}

const CALLS: u64 = 2_000_000;
const UNIT: &str = "ns/call";
const HOUR: Duration = Duration::from_secs(3600);

/// Limits that nothing comes near to.
fn layers() -> Policy {
    let rates = Policy::new().rate(Rate::calls(1_000_000_000, HOUR).burst(1_000_000_000));
    rates.concurrency(Concurrency::at_most(64)).retry(Retry::up_to(4))
}

/// Measures a call with no layer, with those in memory, and with all.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let policies: [(&str, fn() -> Policy, f64); 3] = [
        ("policy_off", Policy::new, 150.0),
        ("policy_layers", layers, 150.0),
        ("policy_all", || layers().timeout(HOUR).deadline(HOUR), 1500.0),
    ];
    let calls = options.size(CALLS);
    let mut rows = Vec::new();
    for (name, policy, limit) in policies {
        let measurement = alternate(
            name,
            UNIT,
            options.runs(),
            &mut [
                Contender::new(Side::Ours, "Method", || timed(calls, |env| through_method(env, policy(), calls))),
                Contender::new(Side::Hand, "ServiceHandle", || timed(calls, |env| through_handle(env, calls))),
            ],
        )?;
        let (ours, plain) = (measurement.best(Side::Ours)?, measurement.best(Side::Hand)?);
        let over = ours.median - plain.median;
        let versus = ("an async call without a policy, ns/call", plain.median);
        let unit = "ns over a call without a policy";
        let row = Row::derived(name, unit, over, versus, ours.median / plain.median, Goal::AtMost(limit));
        rows.push(row.with_spreads(ours.spread, plain.spread));
    }
    Ok(rows)
}

/// Runs what was declared, whose one record is the digest of all calls.
fn timed(calls: u64, declare: impl FnOnce(&Environment) -> sage::Collected<u64>) -> Result<Sample> {
    let env = Environment::local("policy");
    let digest = declare(&env);
    let start = Instant::now();
    env.run()?;
    Ok(Sample { value: nanos_per(start.elapsed(), calls), digest: digest.take()[0] })
}

/// One future makes all calls in turn, so that nothing but they is measured.
fn through_method(env: &Environment, policy: Policy, calls: u64) -> sage::Collected<u64> {
    let oracle: PolicyService<Oracle> = env.register_service("oracle", || Oracle).policy(policy).build();
    let answer = oracle.method("answer", |oracle, n: u64| async move { Ok::<_, BoxError>(oracle.answer(n)) });
    let answer: Method<u64, u64> = answer.build();
    let all = move |first: u64| {
        let answer = answer.clone();
        async move {
            let mut digest = 0_u64;
            for n in first..calls {
                digest = digest.wrapping_add(answer.call(n).await?);
            }
            Ok::<_, BoxError>(digest)
        }
    };
    env.from_iter([black_box(0)]).try_map_async(1, Order::Ordered, all).collect()
}

fn through_handle(env: &Environment, calls: u64) -> sage::Collected<u64> {
    let oracle = env.register_service("oracle", || Oracle).build();
    let all = move |first: u64| {
        let oracle = oracle.clone();
        async move {
            let mut digest = 0_u64;
            for n in first..calls {
                digest = digest.wrapping_add(oracle.call_async(|oracle| async move { oracle.answer(n) }).await?);
            }
            Ok::<_, BoxError>(digest)
        }
    };
    env.from_iter([black_box(0)]).try_map_async(1, Order::Ordered, all).collect()
}

const REQUESTS: u64 = 20_000;
const BATCH: usize = 64;
const TAKES: Duration = Duration::from_millis(5);

/// Measures batches of all callers beside the same batches by hand. As many requests are in flight as a batch has, so
/// that each batch is full, and waits for nobody.
pub(crate) fn measure_batches(options: &Options) -> Result<Vec<Row>> {
    let requests = options.size(REQUESTS);
    let measurement = alternate(
        "batch",
        "ns/request",
        options.runs(),
        &mut [
            Contender::new(Side::Ours, "", || timed(requests, |env| batched(env, requests))),
            Contender::new(Side::Hand, "batches in a row", || by_hand(requests)),
        ],
    )?;
    Ok(vec![Row::compare("batch", "ns/request", &measurement, Side::Hand, Goal::RatioAtMost(1.0 / 0.9))?])
}

fn batched(env: &Environment, requests: u64) -> sage::Collected<u64> {
    let oracle = env.register_service("oracle", || Oracle).policy(Policy::new()).build();
    let batching = Batching::of(BATCH).within(TAKES);
    let answer = oracle.batch_method("answer", batching, |oracle, batch: Batch<u64>| async move {
        tokio::time::sleep(TAKES).await;
        Ok::<_, BoxError>(batch.iter().map(|n| Ok(oracle.answer(*n))).collect())
    });
    let answer = answer.build();
    let one = move |n| {
        let answer = answer.clone();
        async move { answer.call(n).await }
    };
    let answered = env.from_factory(move |_replica| 0..black_box(requests)).try_map_async(BATCH, Order::Unordered, one);
    answered.fold(0, |digest, answer| *digest = u64::wrapping_add(*digest, answer)).collect()
}

fn by_hand(requests: u64) -> Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let start = Instant::now();
    let digest = runtime.block_on(async {
        let mut digest = 0_u64;
        for first in (0..black_box(requests)).step_by(BATCH) {
            tokio::time::sleep(TAKES).await;
            let answers = (first..requests.min(first + BATCH as u64)).map(|n| Oracle.answer(n));
            digest = answers.fold(digest, u64::wrapping_add);
        }
        digest
    });
    Ok(Sample { value: nanos_per(start.elapsed(), requests), digest })
}
