//! How near to its rate a service is called (`limiter`), and how evenly eight tasks that want more get their part
//! (`limiter_fair`): over a minute of a clock that is moved by hand, so that the figures do not depend on the machine.
//! The parts are counted once all eight wait: the first burst goes to whoever comes first.

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
    // Of each task: all its calls, and those since all wait.
    let granted: Arc<[[AtomicU64; 2]; TASKS]> = Arc::default();
    let (over, counts, time) = (is_over.clone(), granted.clone(), clock.clone());
    let task = move |task: usize| {
        let (answer, over, counts, time) = (answer.clone(), over.clone(), counts.clone(), time.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                answer.call(()).await?;
                let now = time.now().millis();
                for (since, count) in [0, 1_000].into_iter().zip(&counts[task]) {
                    count.fetch_add(u64::from((since..=MINUTE).contains(&now)), Ordering::Relaxed);
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

    let counted = |which: usize| granted.each_ref().map(|counts| counts[which].load(Ordering::Relaxed) as f64);
    let (all, parts) = (counted(0).iter().sum::<f64>(), counted(1));
    let (wanted, part) = ((CALLS_A_SECOND * 60) as f64, parts.iter().sum::<f64>() / TASKS as f64);
    ensure!(part > 0.0, "the limiter lets no call through");
    let farthest = parts.iter().map(|count| (count - part).abs()).fold(0.0, f64::max);
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
