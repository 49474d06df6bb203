//! How near to its rate a service is called (`limiter`), and how evenly eight tasks that want more get their part
//! (`limiter_fair`): over a minute of a clock that is moved by hand, so that the figures do not depend on the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use sage::{BoxError, Environment, Method, Order, Policy, Rate, Service, Timestamp, testing};

use crate::Options;
use crate::results::{Goal, Row};

struct Oracle;

impl Service for Oracle {}

const TASKS: usize = 8;
const CALLS_A_SECOND: u64 = 100;
const MINUTE: i64 = 60_000;
const STEP: Duration = Duration::from_millis(10);

/// Measures both.
pub(crate) fn measure(_options: &Options) -> Result<Vec<Row>> {
    let (hands, clock) = testing::clock(Timestamp::from_millis(0));
    let env = Environment::local("limiter").clock(clock.clone());
    let rate = Rate::calls(CALLS_A_SECOND, Duration::from_secs(1));
    let oracle = env.register_service("oracle", || Oracle).policy(Policy::new().rate(rate)).build();
    let answer: Method<(), ()> = oracle.method("answer", |_, ()| async { Ok::<_, BoxError>(()) }).build();
    let is_over = Arc::new(AtomicBool::new(false));
    let granted: Arc<[AtomicU64; TASKS]> = Arc::default();
    let (over, counts, time) = (is_over.clone(), granted.clone(), clock.clone());
    let task = move |task: usize| {
        let (answer, over, counts, time) = (answer.clone(), over.clone(), counts.clone(), time.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                answer.call(()).await?;
                if time.now().millis() <= MINUTE {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok::<_, BoxError>(())
        }
    };
    env.from_iter(0..TASKS).try_map_async(TASKS, Order::Unordered, task).sink(|()| {});
    let job = env.submit()?;
    while clock.now().millis() <= MINUTE {
        // The head of the queue waits for its moment: whoever could go before has gone.
        hands.await_calls(1);
        hands.advance(STEP);
    }
    is_over.store(true, Ordering::Relaxed);
    loop {
        hands.advance(STEP);
        if let Some(ended) = job.wait_timeout(Duration::from_millis(1)) {
            ended?;
            break;
        }
    }

    let counts: Vec<u64> = granted.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let (all, wanted) = (counts.iter().sum::<u64>() as f64, (CALLS_A_SECOND * MINUTE.unsigned_abs() / 1_000) as f64);
    ensure!(all > 0.0, "the limiter lets no call through");
    let part = all / TASKS as f64;
    let farthest = counts.iter().map(|count| (*count as f64 - part).abs()).fold(0.0, f64::max);
    let off = |value: f64, from: f64| (value - from).abs() / from * 100.0;
    Ok(vec![
        Row::derived(
            "limiter",
            "% off",
            off(all, wanted),
            ("the rate, calls", wanted),
            all / wanted,
            Goal::AtMost(1.0),
        ),
        Row::derived(
            "limiter_fair",
            "% off",
            farthest / part * 100.0,
            ("an equal part, calls", part),
            (part + farthest) / part,
            Goal::AtMost(5.0),
        ),
    ])
}
