//! Error policies of async operators, against a reference that knows nothing of futures: what leaves, in which order,
//! as a result or as a dead letter, and what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{BudgetExceeded, DeadLetter, Environment, ErrorPolicy, Order, Outcome, Retry};

use super::Desk;
use crate::contract::cancelled;
use crate::leaks::leak_free;
use crate::probes::{CountingSink, Gate, failed, sorted};

/// How a record fares: how often its future fails before it succeeds, and how often it yields each time.
type Fate = (u32, u8);

#[derive(Debug, Clone)]
struct Case {
    fates: Vec<Fate>,
    capacity: usize,
    order: Order,
    replicas: usize,
    /// Without a retry, one.
    attempts: Option<u32>,
    block_records: usize,
}

impl Case {
    fn attempts(&self) -> u32 {
        self.attempts.unwrap_or(1)
    }

    fn succeeds(&self, record: usize) -> bool {
        self.fates[record].0 < self.attempts()
    }

    /// Whether the order of what leaves is that of the records.
    fn is_exact(&self) -> bool {
        self.order == Order::Ordered && self.replicas == 1
    }

    fn good(&self) -> Vec<usize> {
        (0..self.fates.len()).filter(|record| self.succeeds(*record)).collect()
    }

    fn bad(&self) -> Vec<usize> {
        (0..self.fates.len()).filter(|record| !self.succeeds(*record)).collect()
    }

    fn retries(&self) -> u64 {
        self.fates.iter().map(|fate| u64::from(fate.0.min(self.attempts() - 1))).sum()
    }
}

fn case() -> impl Strategy<Value = Case> {
    let fates = vec((prop_oneof![3 => Just(0_u32), 2 => 1..4_u32], 0..4_u8), 0..120);
    let order = prop_oneof![Just(Order::Ordered), Just(Order::Unordered)];
    let attempts = prop_oneof![Just(None), (1..4_u32).prop_map(Some)];
    (fates, 1..9_usize, order, 1..4_usize, attempts, 1..20_usize).prop_map(
        |(fates, capacity, order, replicas, attempts, block_records)| Case {
            fates,
            capacity,
            order,
            replicas,
            attempts,
            block_records,
        },
    )
}

/// Counts the futures that live, and the most that did at once.
#[derive(Clone, Default)]
struct Alive(Arc<(AtomicUsize, AtomicUsize)>);

impl Alive {
    fn enter(&self) -> Self {
        let alive = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(alive, Ordering::SeqCst);
        self.clone()
    }

    fn leave(&self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

macro_rules! fetch {
    ($env:expr, $case:expr, $alive:expr) => {{
        let fates: Arc<[Fate]> = $case.fates.clone().into();
        let failures: Arc<[AtomicU32]> = fates.iter().map(|_| AtomicU32::new(0)).collect();
        let alive = $alive.clone();
        let stream = $env
            .from_iter(0..$case.fates.len())
            .try_map_async($case.capacity, $case.order, move |record: usize| {
                let ((fails, yields), alive) = (fates[record], alive.enter());
                let failed_before = failures[record].fetch_add(1, Ordering::SeqCst);
                async move {
                    for _ in 0..yields {
                        tokio::task::yield_now().await;
                    }
                    alive.leave();
                    if failed_before < fails { Err("failed") } else { Ok(record) }
                }
            })
            .named("fetch")
            .parallelism($case.replicas);
        match $case.attempts {
            Some(attempts) => stream.retry(Retry::up_to(attempts).backoff(Duration::ZERO, Duration::ZERO)),
            None => stream,
        }
    }};
}

/// Those of a replica are in the order of the records, where that is kept.
fn check_order(case: &Case, mut left: Vec<usize>, expected: &[usize]) {
    if !case.is_exact() {
        left.sort_unstable();
    }
    assert_eq!(left, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dead_letters_and_results_are_what_a_loop_gives(case in case()) {
        leak_free(|_| {
            let env = Environment::local("letters").block_records(case.block_records);
            let alive = Alive::default();
            let (good, dead) = fetch!(env, case, alive).dead_letters();
            let (good, dead) = (good.collect(), dead.collect());
            let report = env.run().unwrap();
            check_order(&case, good.take(), &case.good());
            let dead: Vec<DeadLetter<usize>> = dead.take();
            check_order(&case, dead.iter().map(|letter| letter.record).collect(), &case.bad());
            for letter in &dead {
                assert_eq!((letter.operator.as_str(), letter.attempts), ("fetch", case.attempts()));
                assert!(letter.replica < case.replicas && letter.time_ms > 1_700_000_000_000);
                if case.replicas == 1 {
                    assert_eq!(letter.position, letter.record as u64 + 1);
                }
                let gave_up = case.attempts.map(|attempts| format!("gave up after {attempts} attempts"));
                assert_eq!(letter.errors, gave_up.into_iter().chain(["failed".to_owned()]).collect::<Vec<_>>());
            }
            let fetch = report.operator("fetch").unwrap();
            let counted = [fetch.records_in, fetch.records_out, fetch.failed, fetch.retries];
            let [all, good, bad] = [case.fates.len(), case.good().len(), case.bad().len()].map(|count| count as u64);
            assert_eq!(counted, [all, good, bad, case.retries()]);
            assert!(alive.most() <= case.capacity * case.replicas, "{} alive", alive.most());
        });
    }

    #[test]
    fn what_is_skipped_is_left_out_within_its_budget(case in case(), allowed in 0..40_u64) {
        leak_free(|_| {
            let case = Case { replicas: 1, ..case.clone() };
            let env = Environment::local("skipped").block_records(case.block_records);
            let alive = Alive::default();
            let stream = fetch!(env, case, alive).on_error(ErrorPolicy::skip().at_most(allowed));
            let good = stream.collect();
            let bad = case.bad().len() as u64;
            assert!(alive.most() <= case.capacity);
            if bad > allowed {
                let report = failed(env.run());
                let cause = report.first_cause.as_ref().unwrap();
                let error = cause.error.as_ref().unwrap();
                let Some(BudgetExceeded { skipped, .. }) = error.downcast_ref() else { panic!("{cause}") };
                assert_eq!((*skipped, report.outcome), (allowed, Outcome::Failed));
                assert!(report.left.is_empty(), "{report}");
                return;
            }
            let report = env.run().unwrap();
            check_order(&case, good.take(), &case.good());
            let fetch = report.operator("fetch").unwrap();
            assert_eq!((fetch.failed, fetch.retries), (bad, case.retries()));
            assert!(alive.most() <= case.capacity);
        });
    }
}

#[test]
fn a_letter_waits_for_its_turn_and_counts_towards_the_capacity() {
    leak_free(|_| {
        let (desk, env) = (Desk::new(), Environment::local("turn"));
        let visited = desk.clone();
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let (good, dead) = env
            .from_iter(0..20_u64)
            .try_map_async(3, Order::Ordered, move |n| {
                counted.fetch_add(1, Ordering::SeqCst);
                let visit = (n == 0).then(|| visited.visit(0));
                async move {
                    match visit {
                        Some(visit) => Ok(visit.await),
                        None => Err("no"),
                    }
                }
            })
            .dead_letters();
        let (good, letters) = (good.collect(), dead.collect());
        let job = env.submit().unwrap();
        desk.await_waiting(1);
        // Whenever one looks: the letters of records 1 and 2 have the other slots, and none has left.
        assert!(made.load(Ordering::SeqCst) <= 3);
        desk.release(0);
        job.wait().unwrap();
        assert_eq!(good.take(), [0]);
        assert_eq!(letters.take().iter().map(|letter| letter.record).collect::<Vec<_>>(), (1..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_record_past_its_timeout_becomes_a_letter_with_the_attempts_it_had() {
    leak_free(|_| {
        for order in [Order::Ordered, Order::Unordered] {
            let env = Environment::local("late");
            let (good, dead) = env
                .from_iter([1_u64, 2, 3])
                .try_map_async(4, order, |n| async move {
                    match n {
                        1 => Ok(n),
                        // The second attempt would come in an hour.
                        2 => Err("not yet"),
                        _ => std::future::pending().await,
                    }
                })
                .retry(Retry::up_to(3).backoff(Duration::from_secs(3600), Duration::from_secs(3600)))
                .timeout(Duration::from_millis(30))
                .dead_letters();
            let (good, dead) = (good.collect(), dead.collect());
            let report = env.run().unwrap();
            assert_eq!(good.take(), [1]);
            let dead = dead.take();
            let told = dead.iter().map(|letter| (letter.record, letter.attempts)).collect();
            assert_eq!(sorted(told), [(2, 1), (3, 1)]);
            assert!(
                dead.iter().all(|letter| letter.errors == ["its future did not complete within 30ms and was dropped"])
            );
            assert_eq!(report.operators[1].retries, 0);
        }
    });
}

#[test]
fn futures_that_cannot_fail_have_dead_letters_when_they_take_too_long() {
    leak_free(|_| {
        let env = Environment::local("sure");
        let (good, dead) = env
            .from_iter([1_u64, 2])
            .map_async(4, Order::Ordered, |n| async move {
                if n == 1 {
                    std::future::pending::<()>().await;
                }
                n
            })
            .timeout(Duration::from_millis(30))
            .dead_letters();
        let (good, dead) = (good.collect(), dead.collect());
        env.run().unwrap();
        assert_eq!((good.take(), dead.take()[0].record), (vec![2], 1));
    });
}

#[test]
fn a_future_past_its_timeout_is_dropped_before_its_letter_leaves() {
    leak_free(|_| {
        for order in [Order::Ordered, Order::Unordered] {
            let env = Environment::local("dropped");
            let (desk, arrived, gate) = (Desk::new(), Gate::new(), Gate::new());
            let (held, visits, letters) = (gate.clone(), desk.clone(), arrived.clone());
            // The job goes on meanwhile, so that it is not its end that drops the future, nor another record.
            let records = env.from_iter([1_u64, 2].into_iter().inspect(move |n| {
                if *n == 2 {
                    held.pass()
                }
            }));
            let late = move |n: u64| {
                let visit = visits.enter();
                async move {
                    if n == 1 {
                        std::future::pending::<()>().await;
                    }
                    drop(visit);
                }
            };
            let (good, dead) = records.map_async(4, order, late).timeout(Duration::from_millis(30)).dead_letters();
            good.sink(|()| {});
            dead.sink(move |_| letters.pass());
            let job = env.submit().unwrap();
            arrived.await_arrivals(1);
            let alive = desk.alive();
            arrived.open();
            gate.open();
            job.wait().unwrap();
            assert_eq!(alive, 0, "{order:?}");
        }
    });
}

#[test]
fn a_panic_is_no_dead_letter_and_either_way_may_end_first() {
    leak_free(|_| {
        let env = Environment::local("panics");
        let (good, dead) = env
            .from_iter(0..10_u64)
            .try_map_async(2, Order::Ordered, |n| async move {
                assert!(n != 4, "broke");
                Ok::<_, String>(n)
            })
            .dead_letters();
        good.sink(|_| {});
        dead.sink(|_| {});
        assert_eq!(failed(env.run()).first_cause.unwrap().kind, sage::CauseKind::Panic);

        for (good_ends, dead_ends) in [(3, u64::MAX), (u64::MAX, 3), (3, 3)] {
            let env = Environment::local("ends");
            let (good, dead) = env
                .from_iter(0..10_000_u64)
                .try_map_async(4, Order::Ordered, |n| async move { if n % 2 == 0 { Ok(n) } else { Err("odd") } })
                .dead_letters();
            let (good, dead) = (good.take(good_ends).count().collect(), dead.take(dead_ends).count().collect());
            env.run().unwrap();
            assert_eq!((good.take(), dead.take()), (vec![good_ends.min(5000)], vec![dead_ends.min(5000)]));
        }
    });
}

#[test]
fn contract_04_a_cancel_ends_an_async_operator_whose_letters_have_no_room() {
    leak_free(|_| {
        let env = Environment::local("full").block_records(1).queue_blocks(2);
        let gate = crate::probes::Gate::new();
        let held = gate.clone();
        let sink = CountingSink::default();
        let counts = sink.counts.clone();
        let (good, dead) = env
            .from_factory(|_| 0_u64..)
            .try_map_async(4, Order::Unordered, |n| async move { if n % 2 == 0 { Ok(n) } else { Err("odd") } })
            .dead_letters();
        good.sink_to(move |_| sink.clone());
        dead.sink(move |_| held.pass());
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        crate::contract::await_status(&job, sage::JobState::Draining);
        gate.open();
        cancelled(&job);
        assert_eq!((counts.opened(), counts.finished(), counts.closed()), (1, 0, 1));
    });
}
