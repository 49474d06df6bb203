//! How long a retry waits, and how many there may be.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::retry_budget::{Refusal, Retries, RetryBudget};
use super::super::time::Time;
use super::super::time::tests::ManualTime;
use crate::Retry;

const SECOND: Duration = Duration::from_secs(1);

fn retry() -> Retry {
    Retry::up_to(u32::MAX).backoff(SECOND, SECOND * 8)
}

/// How many retries are scheduled of so many that are wanted.
fn scheduled(retries: &Retries, now: Instant, wanted: usize) -> usize {
    (0..wanted).filter(|_| retries.schedule(&retry(), 1, None, now, None).is_ok()).count()
}

fn called(retries: &Retries, calls: usize) {
    (0..calls).for_each(|_| retries.called());
}

#[test]
fn a_wait_is_a_random_part_of_the_backoff_and_the_same_for_the_same_seed() {
    let now = ManualTime::new().now();
    let waits = |seed, failures| {
        let retries = Retries::new(RetryBudget::unlimited(), seed, now);
        let wait = |_| retries.schedule(&retry(), failures, None, now, None).expect("there is no limit") - now;
        (0..10_000).map(wait).collect::<Vec<_>>()
    };
    for (failures, most) in [(1, SECOND), (2, SECOND * 2), (3, SECOND * 4), (4, SECOND * 8), (u32::MAX, SECOND * 8)] {
        let waits = waits(7, failures);
        assert!(waits.iter().all(|&wait| wait >= most / 2 && wait <= most));
        for tenth in 10..20 {
            let within = |wait: &&Duration| (most / 20 * tenth..most / 20 * (tenth + 1)).contains(*wait);
            let waits = waits.iter().filter(within).count();
            assert!((800..1_200).contains(&waits), "{waits} of 10,000 in tenth {tenth}");
        }
    }
    assert_eq!(waits(7, 1), waits(7, 1));
    assert_ne!(waits(7, 1), waits(8, 1));
}

#[test]
fn the_delay_that_a_service_asks_for_is_obeyed_up_to_two_minutes() {
    let since = ManualTime::new().now();
    let retries = Retries::new(RetryBudget::default(), 0, since);
    let retry = retry();
    let asks = |asked| retries.schedule(&retry, 1, Some(asked), since, None);
    assert_eq!(asks(SECOND * 20), Ok(since + SECOND * 20));
    assert_eq!(asks(Duration::ZERO), Ok(since));
    assert_eq!(asks(SECOND * 121), Ok(since + SECOND * 120));
    assert_eq!(asks(Duration::MAX), Ok(since + SECOND * 120));
    assert_eq!((retries.figures().scheduled, retries.figures().delayed), (4, 4));
}

#[test]
fn a_delay_past_the_deadline_fails_at_once_and_costs_nothing() {
    let now = ManualTime::new().now();
    let retries = Retries::new(RetryBudget::share(0.0).at_least(1), 0, now);
    let by = |deadline| retries.schedule(&retry(), 1, Some(SECOND * 20), now, Some(now + deadline));
    for _ in 0..20 {
        assert_eq!(by(SECOND * 19), Err(Refusal::PastDeadline { wait: SECOND * 20 }));
    }
    assert_eq!(by(SECOND * 20), Ok(now + SECOND * 20));
    assert_eq!((retries.figures().too_late, retries.figures().scheduled), (20, 1));
    let endless = Retry::up_to(2).backoff(Duration::MAX, Duration::MAX);
    assert!(matches!(retries.schedule(&endless, 1, None, now, Some(now)), Err(Refusal::PastDeadline { .. })));
}

#[test]
fn retries_are_a_share_of_calls_and_some_a_second_besides() {
    let now = ManualTime::new().now();
    let retries = Retries::new(RetryBudget::default(), 0, now);
    assert_eq!(scheduled(&retries, now, 100), 10, "those of ten seconds");
    called(&retries, 50);
    assert_eq!(scheduled(&retries, now, 100), 10, "a fifth of 50");
    called(&retries, 1_000_000);
    assert_eq!(scheduled(&retries, now, 200), 100, "no more add up");
    assert_eq!(scheduled(&retries, now + SECOND * 3, 100), 3);
    assert_eq!(scheduled(&retries, now + SECOND * 60 * 60, 100), 10);
    let figures = retries.figures();
    assert_eq!((figures.scheduled, figures.over_budget), (133, 467));
    assert_eq!(retries.schedule(&retry(), 1, None, now, None), Err(Refusal::BudgetSpent));
}

#[test]
fn the_smallest_and_the_greatest_budgets_work_and_those_beyond_are_mistakes() {
    let told = |budget: RetryBudget| budget.mistake().unwrap_or_default();
    for share in [-0.1, 1_000.1, f64::NAN, f64::INFINITY] {
        assert!(told(RetryBudget::share(share)).ends_with(&format!("from 0 to 1000, not {share}")));
    }
    assert!(told(RetryBudget::share(1.0).at_least(1_001)).ends_with("1000 retries a second besides, not 1001"));
    let none = "a budget of no retries: leave out the retry instead";
    assert_eq!(told(RetryBudget::share(0.0).at_least(0)), none);
    let now = ManualTime::new().now();
    for (budget, calls, allowed) in [
        (RetryBudget::share(0.0).at_least(1), 1_000, 10),
        (RetryBudget::share(1.0).at_least(0), 7, 7),
        (RetryBudget::share(1_000.0).at_least(1_000), 1, 11_000),
        (RetryBudget::unlimited(), 0, 20_000),
        (RetryBudget::unlimited().at_least(0), 1, 20_000),
    ] {
        assert_eq!(told(budget), "");
        let retries = Retries::new(budget, 0, now);
        called(&retries, calls);
        assert_eq!(scheduled(&retries, now, 20_000), allowed, "{budget:?}");
    }
}

proptest! {
    #[test]
    fn no_more_retries_are_scheduled_than_calls_and_seconds_allow(
        percent in 0_u64..300,
        floor in 0_u32..5,
        steps in prop::collection::vec((0_u8..3, 0_u64..400), 1..60),
    ) {
        let time = ManualTime::new();
        let retries = Retries::new(RetryBudget::share(percent as f64 / 100.0).at_least(floor), 0, time.now());
        // In hundredths of a retry, and in thousandths: what calls earned, and what seconds did.
        let (mut earned, mut saved) = (0_u64, u64::from(floor) * 10_000);
        for (what, count) in steps {
            match what {
                0 => for _ in 0..count {
                    retries.called();
                    earned += if earned < 10_000 { percent } else { 0 };
                },
                1 => {
                    time.advance(Duration::from_millis(count));
                    saved = (saved + count * u64::from(floor)).min(u64::from(floor) * 10_000);
                }
                _ => for _ in 0..count {
                    let allowed = earned >= 100 || saved >= 1_000;
                    if earned >= 100 {
                        earned -= 100;
                    } else if allowed {
                        saved -= 1_000;
                    }
                    prop_assert_eq!(scheduled(&retries, time.now(), 1) == 1, allowed);
                },
            }
        }
    }
}
