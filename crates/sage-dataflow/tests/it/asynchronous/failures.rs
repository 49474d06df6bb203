//! What fails, whom the report names, timeouts and retries, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use sage::{
    AsyncError, BoxError, CauseKind, Environment, ErrorPolicy, Fatal, Order, Outcome, RetriesExhausted, Retry,
    SubmitError,
};

use super::Desk;
use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

/// A pipeline of 20 numbers, ten of which wait at the desk when record 4 is released and does what `end` says.
#[track_caller]
fn record_four(order: Order, inline: bool, expected: &str, end: fn(u64) -> Result<u64, BoxError>) {
    leak_free(|_| {
        let env = Environment::local("fetch");
        let env = if inline { env.inline() } else { env };
        let desk = Desk::new();
        let held = desk.clone();
        env.from_iter(1..=20_u64)
            .try_map_async(10, order, move |n| {
                let visit = held.visit(n);
                async move { end(visit.await) }
            })
            .named("fetch")
            .sink(|_| {});
        let job = env.submit().expect("nothing is wrong with it");
        desk.await_waiting(10);
        desk.release(4);
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.left.len()), (Outcome::Failed, 0));
        assert_eq!(report.first_cause.as_ref().map(ToString::to_string).as_deref(), Some(expected));
        assert!(report.attached.is_empty(), "{report}");
        let operator = report.operator("fetch").expect("there is one");
        assert_eq!((operator.records_in, operator.records_out, operator.failed), (10, 0, 1));
        assert_eq!((desk.alive(), desk.made()), (0, 10));
    });
}

#[test]
fn an_error_names_its_own_record_though_others_were_taken_since() {
    for (order, inline) in [(Order::Ordered, false), (Order::Unordered, false), (Order::Unordered, true)] {
        record_four(order, inline, "operator `fetch`, record 4: no such page", |_| Err("no such page".into()));
    }
}

#[test]
fn contract_15_a_panic_while_a_future_is_polled_names_its_operator_and_record() {
    for (order, inline) in [(Order::Ordered, false), (Order::Unordered, false), (Order::Ordered, true)] {
        record_four(order, inline, "operator `fetch`, record 4: panicked: boom", |_| panic!("boom"));
    }
}

#[test]
fn contract_15_a_panic_when_a_future_is_made_or_dropped_names_its_operator() {
    leak_free(|_| {
        let env = Environment::local("made");
        let make = |n: u64| {
            assert!(n != 3, "boom");
            std::future::pending::<u64>()
        };
        env.from_iter(1..9_u64).map_async(10, Order::Ordered, make).named("make").sink(|_| {});
        let report = failed(env.run());
        assert_eq!(report.first_cause.unwrap().to_string(), "operator `make`, record 3: panicked: boom");
        assert_eq!(report.operators[1].records_in, 3);
    });
    leak_free(|_| {
        struct Bomb(Arc<AtomicUsize>);
        impl Drop for Bomb {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
                panic!("boom");
            }
        }
        let env = Environment::local("dropped");
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = dropped.clone();
        let hold = move |_: u64| {
            let bomb = Bomb(counted.clone());
            async move {
                std::future::pending::<()>().await;
                drop(bomb);
            }
        };
        // Nothing is wanted any more, but for what there is no result of.
        env.from_iter(1..=3_u64).map_async(10, Order::Ordered, hold).named("hold").sink(|()| {});
        let job = env.submit().unwrap();
        while job.metrics().operator("hold").unwrap().records_in < 3 {
            std::thread::yield_now();
        }
        job.cancel();
        let report = failed(job.wait());
        let causes: Vec<_> = report.attached.iter().map(ToString::to_string).collect();
        assert_eq!(causes, ["operator `hold`, while closing: panicked: boom"; 3]);
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_failure_behind_it_names_the_record_whose_result_it_was() {
    for fails in [|n: u64| -> Result<u64, BoxError> { Err(format!("{n} is odd").into()) }, |n| panic!("{n} is odd")] {
        leak_free(|_| {
            let env = Environment::local("behind");
            let desk = Desk::new();
            let held = desk.clone();
            env.from_iter(1..=20_u64)
                .map_async(10, Order::Unordered, move |n| held.visit(n))
                .try_map(move |n| if n == 7 { fails(n) } else { Ok(n) })
                .named("check")
                .sink(|_| {});
            let job = env.submit().unwrap();
            desk.await_waiting(10);
            desk.release(9);
            desk.release(7);
            let report = failed(job.wait());
            let cause = report.first_cause.as_ref().unwrap().to_string();
            assert!(cause.starts_with("operator `check`, record 7: "), "{cause}");
            assert!(cause.ends_with("7 is odd"), "{cause}");
            let [operator, check] = ["map-async-1", "check"].map(|name| report.operator(name).unwrap());
            assert_eq!((operator.records_out, operator.failed, check.records_in, check.failed), (2, 0, 2, 1));
            assert_eq!(desk.alive(), 0);
        });
    }
}

#[test]
fn a_record_past_its_timeout_is_a_typed_error_and_its_future_is_dropped() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("timeout");
            let env = if inline { env.inline() } else { env };
            let desk = Desk::new();
            let held = desk.clone();
            let slow = move |n: u64| {
                let visit = held.enter();
                async move {
                    if n == 2 {
                        std::future::pending::<()>().await;
                    }
                    drop(visit);
                    n
                }
            };
            let limit = Duration::from_millis(30);
            let seen = Arc::new(AtomicUsize::new(0));
            let counted = seen.clone();
            env.from_iter(1..=100_u64)
                .map_async(4, Order::Unordered, slow)
                .timeout(limit)
                .named("slow")
                .sink(move |_| _ = counted.fetch_add(1, Ordering::SeqCst));
            let report = failed(env.run());
            let cause = report.first_cause.unwrap();
            assert_eq!(
                cause.to_string(),
                "operator `slow`, record 2: its future did not complete within 30ms and was dropped"
            );
            assert!(matches!(
                cause.error.as_ref().and_then(|error| error.downcast_ref()),
                Some(AsyncError::TimedOut { limit: named }) if *named == limit
            ));
            assert_eq!((desk.alive(), seen.load(Ordering::SeqCst), cause.kind), (0, 99, CauseKind::Error));
            let operator = report.operators[1].clone();
            assert_eq!((operator.records_in, operator.records_out, operator.failed), (100, 99, 1));
        }
    });
}

#[test]
fn a_timeout_does_no_harm_to_records_in_time() {
    leak_free(|_| {
        for limit in [Duration::MAX, Duration::from_secs(60), Duration::ZERO] {
            let env = Environment::local("in-time");
            let ready = limit.is_zero();
            let out = env
                .from_iter(0..500_u64)
                .map_async(3, Order::Ordered, move |n| async move {
                    if !ready {
                        tokio::task::yield_now().await;
                    }
                    n
                })
                .timeout(limit)
                .collect();
            env.run().unwrap();
            assert_eq!(out.take(), (0..500).collect::<Vec<_>>());
        }
    });
}

fn quick(attempts: u32) -> Retry {
    Retry::up_to(attempts).backoff(Duration::ZERO, Duration::from_millis(1))
}

#[test]
fn a_record_is_tried_again_until_it_succeeds() {
    leak_free(|_| {
        for (order, inline) in [(Order::Ordered, false), (Order::Unordered, false), (Order::Ordered, true)] {
            let env = Environment::local("retry");
            let env = if inline { env.inline() } else { env };
            let tries: Arc<[AtomicU32]> = (0..100).map(|_| AtomicU32::new(0)).collect();
            let counted = tries.clone();
            let out = env
                .from_iter(0..100_u64)
                .try_map_async(8, order, move |n| {
                    let before = counted[n as usize].fetch_add(1, Ordering::SeqCst);
                    async move {
                        tokio::task::yield_now().await;
                        if u64::from(before) < n % 3 { Err("not yet") } else { Ok(n) }
                    }
                })
                .retry(quick(3))
                .timeout(Duration::from_secs(60))
                .collect();
            let report = env.run().unwrap();
            let out = if order == Order::Ordered { out.take() } else { sorted(out.take()) };
            assert_eq!(out, (0..100).collect::<Vec<_>>());
            for (n, tries) in tries.iter().enumerate() {
                assert_eq!(tries.load(Ordering::SeqCst) as usize, n % 3 + 1);
            }
            assert_eq!(report.operators[1].failed, 0);
        }
    });
}

#[test]
fn the_last_attempt_decides_and_keeps_its_error() {
    leak_free(|_| {
        let env = Environment::local("gave-up");
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        env.from_iter(["1", "2", "x", "4"])
            .try_map_async(2, Order::Ordered, move |text| {
                counted.fetch_add(u32::from(text == "x"), Ordering::SeqCst);
                async move { text.parse::<u64>() }
            })
            .retry(quick(4))
            .sink(|_| {});
        let report = failed(env.run());
        let cause = report.first_cause.unwrap();
        assert_eq!(
            cause.to_string(),
            "operator `try-map-async-1`, record 3: gave up after 4 attempts: invalid digit found in string"
        );
        assert_eq!(tries.load(Ordering::SeqCst), 4);
        let error = cause.error.unwrap();
        let Some(RetriesExhausted { attempts: 4, source }) = error.downcast_ref() else { panic!("{error:?}") };
        assert!(source.is::<std::num::ParseIntError>());
    });
}

#[test]
fn an_async_record_is_tried_again_after_the_errors_that_the_retry_is_for_and_a_fatal_one_ends_the_job() {
    leak_free(|_| {
        let env = Environment::local("when");
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        let (out, dead) = env
            .from_iter(["1", "busy", "wrong"])
            .try_map_async(2, Order::Ordered, move |text| {
                counted.fetch_add(u32::from(text == "wrong"), Ordering::SeqCst);
                async move { if text == "1" { Ok(text) } else { Err(text) } }
            })
            .retry(quick(3).when(|error| error.to_string() == "busy"))
            .dead_letters();
        let (out, dead) = (out.collect(), dead.collect());
        env.run().unwrap();
        assert_eq!(out.take(), ["1"]);
        assert_eq!(dead.take().iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(tries.load(Ordering::SeqCst), 1);
    });
    for letters in [false, true] {
        leak_free(|_| {
            let env = Environment::local("fatal");
            let stream = env
                .from_iter([1, 2, 3])
                .try_map_async(2, Order::Ordered, |n| async move {
                    if n == 3 { Err(BoxError::from(Fatal::new("stop here"))) } else { Err("odd".into()) }
                })
                .retry(quick(3))
                .on_error(ErrorPolicy::skip());
            if letters {
                let (stream, dead) = stream.dead_letters();
                stream.sink(|()| {});
                dead.sink(|_| {});
            } else {
                stream.sink(|()| {});
            }
            let cause = failed(env.run()).first_cause.unwrap();
            assert_eq!(cause.to_string(), "operator `try-map-async-1`, record 3: stop here");
        });
    }
}

#[test]
fn a_panic_is_not_tried_again_and_a_timeout_spans_all_attempts() {
    leak_free(|_| {
        let env = Environment::local("once");
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        env.from_iter([()])
            .try_map_async(2, Order::Ordered, move |()| {
                let tries = counted.fetch_add(1, Ordering::SeqCst);
                async move { if tries == 1 { panic!("boom") } else { Err::<(), _>("again") } }
            })
            .retry(quick(9))
            .sink(|()| {});
        let report = failed(env.run());
        assert_eq!(report.first_cause.unwrap().to_string(), "operator `try-map-async-1`, record 1: panicked: boom");
        assert_eq!(tries.load(Ordering::SeqCst), 2);
    });
    leak_free(|_| {
        let env = Environment::local("spans");
        env.from_iter([()])
            .try_map_async(2, Order::Ordered, |()| async { Err::<(), _>("again") })
            .retry(Retry::up_to(u32::MAX).backoff(Duration::from_secs(60), Duration::from_secs(60)))
            .timeout(Duration::from_millis(20))
            .sink(|()| {});
        let report = failed(env.run());
        let cause = report.first_cause.unwrap().to_string();
        assert!(cause.contains("did not complete within 20ms"), "{cause}");
    });
}

#[test]
fn contract_05_a_capacity_or_number_of_attempts_out_of_range_is_refused_before_anything_starts() {
    leak_free(|_| {
        for (capacity, attempts, expected) in [
            (0, 1, "`fetch`: `in_flight` is 0; it may be 1 to 1048576"),
            ((1 << 20) + 1, 1, "`fetch`: `in_flight` is 1048577; it may be 1 to 1048576"),
            (1, 0, "`fetch`: a retry makes at least one attempt in all"),
        ] {
            let env = Environment::local("refused");
            let started = Arc::new(AtomicUsize::new(0));
            let counted = started.clone();
            env.register_service_with("service", move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(Unit)
            })
            .build();
            env.from_iter(0..3_u64)
                .try_map_async(capacity, Order::Ordered, |n| async move { Ok::<_, BoxError>(n) })
                .retry(Retry::up_to(attempts))
                .named("fetch")
                .sink(|_| {});
            let error = env.submit().unwrap_err();
            assert!(matches!(error, SubmitError::OperatorOption { .. }));
            assert_eq!((error.to_string().as_str(), started.load(Ordering::SeqCst)), (expected, 0));
        }
    });
}

struct Unit;
impl sage::Service for Unit {}

#[test]
fn records_that_fail_are_let_pass_where_the_policy_says_so() {
    leak_free(|_| {
        for order in [Order::Ordered, Order::Unordered] {
            for parallelism in [1, 2] {
                let env = Environment::local("lenient").on_error(sage::ErrorPolicy::skip());
                let out = env
                    .from_iter(0..500_u64)
                    .try_map_async(7, order, |n| async move {
                        if n % 2 == 0 {
                            tokio::task::yield_now().await;
                        }
                        if n % 5 == 0 { Err("every fifth") } else { Ok(n) }
                    })
                    .named("fetch")
                    .parallelism(parallelism)
                    .collect();
                let report = env.run().unwrap();
                let (out, expected) = (out.take(), (0..500).filter(|n| n % 5 != 0).collect::<Vec<_>>());
                if order == Order::Ordered && parallelism == 1 {
                    assert_eq!(out, expected);
                }
                assert_eq!(sorted(out), expected);
                let fetch = report.operator("fetch").unwrap();
                assert_eq!((fetch.records_in, fetch.records_out, fetch.failed), (500, 400, 100));
            }
        }
    });
}

/// A future that begins when its turn comes: one at a time, each for 30 ms, as on one thread.
struct Queued {
    begun: Arc<std::sync::OnceLock<std::time::Instant>>,
    future: std::pin::Pin<Box<dyn Future<Output = Result<u64, BoxError>> + Send>>,
}

impl Future for Queued {
    type Output = Result<u64, BoxError>;
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.future.as_mut().poll(cx)
    }
}

#[test]
fn the_time_of_a_record_that_waits_for_its_turn_elsewhere_does_not_run() {
    leak_free(|_| {
        let env = Environment::local("queued");
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let ask = move |n: u64| {
            let (turn, begun) = (turn.clone(), Arc::new(std::sync::OnceLock::new()));
            let begins = begun.clone();
            let future = Box::pin(async move {
                let _turn = turn.lock().await;
                begins.get_or_init(std::time::Instant::now);
                tokio::time::sleep(Duration::from_millis(if n == 7 { 3_600_000 } else { 30 })).await;
                Ok(n)
            });
            Queued { begun, future }
        };
        // Ten of 30 ms, one after the other, are more than the limit.
        let out = env
            .from_iter(0..20_u64)
            .try_map_async(20, Order::Ordered, ask)
            .timeout_since(Duration::from_millis(250), |queued: &Queued| queued.begun.get().copied())
            .on_error(sage::ErrorPolicy::skip())
            .collect();
        let report = env.run().unwrap();
        assert_eq!(out.take(), (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
        assert_eq!(report.operators[1].failed, 1);
    });
}
