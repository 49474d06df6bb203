//! What comes out, in which order, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{Environment, Order};

use super::Desk;
use crate::leaks::leak_free;
use crate::probes::{CountingSink, Gate, Journal, sorted};

/// Gives control away as often as `number` says, so that futures complete out of order without a clock.
async fn wander(number: u64) -> u64 {
    for _ in 0..number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61 {
        tokio::task::yield_now().await;
    }
    number
}

#[test]
fn in_order_nothing_overtakes_whatever_completes_first() {
    leak_free(|_| {
        let env = Environment::local("ordered");
        let (desk, journal) = (Desk::new(), Journal::new());
        let (held, noted) = (desk.clone(), journal.clone());
        env.from_iter(0..8_u64)
            .map_async(4, Order::Ordered, move |n| held.visit(n))
            .sink(move |n| noted.note(format_args!("{n}")));
        let job = env.submit().unwrap();
        for n in [3, 1, 2] {
            desk.release(n);
        }
        // Three results wait for the first one and keep their slots.
        desk.await_waiting(1);
        assert!(journal.events().is_empty());
        desk.release(0);
        journal.await_events("3", 1);
        for n in [7, 6, 5, 4] {
            desk.release(n);
        }
        let report = job.wait().unwrap();
        assert_eq!(journal.events(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!((desk.most(), desk.made(), desk.alive()), (4, 8, 0));
        let operator = report.operator("map-async-1").unwrap();
        assert_eq!((operator.records_in, operator.records_out, operator.failed), (8, 8, 0));
    });
}

#[test]
fn out_of_order_results_leave_as_they_complete() {
    leak_free(|_| {
        let env = Environment::local("unordered");
        let (desk, journal) = (Desk::new(), Journal::new());
        let (held, noted) = (desk.clone(), journal.clone());
        env.from_iter(0..4_u64)
            .map_async(4, Order::Unordered, move |n| held.visit(n))
            .sink(move |n| noted.note(format_args!("{n}")));
        let job = env.submit().unwrap();
        for n in [2, 0, 3, 1] {
            desk.release(n);
            journal.await_events(&n.to_string(), 1);
        }
        job.wait().unwrap();
        assert_eq!(journal.events(), ["2", "0", "3", "1"]);
    });
}

#[test]
fn the_capacity_is_used_and_never_exceeded() {
    leak_free(|_| {
        for (order, inline) in [(Order::Ordered, false), (Order::Unordered, false), (Order::Ordered, true)] {
            let env = Environment::local("capacity").block_records(5);
            let env = if inline { env.inline() } else { env };
            let desk = Desk::new();
            let counted = desk.clone();
            let out = env
                .from_iter(0..2000_u64)
                .map_async(7, order, move |n| {
                    let visit = counted.enter();
                    async move {
                        wander(n).await;
                        drop(visit);
                        n
                    }
                })
                .collect();
            env.run().unwrap();
            let out = out.take();
            let out = if order == Order::Unordered { sorted(out) } else { out };
            assert_eq!(out, (0..2000).collect::<Vec<_>>());
            assert_eq!((desk.most(), desk.made(), desk.alive()), (7, 2000, 0));
        }
    });
}

#[test]
fn a_full_operator_takes_no_more_records() {
    leak_free(|_| {
        let env = Environment::local("backpressure").block_records(1).queue_blocks(2);
        let desk = Desk::new();
        let (read, lead) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (reading, leading, held, done) = (read.clone(), lead.clone(), desk.clone(), Arc::new(AtomicU64::new(0)));
        let left = done.clone();
        let source = (0..50_u64).inspect(move |_| {
            let read = reading.fetch_add(1, Ordering::SeqCst) + 1;
            leading.fetch_max(read - left.load(Ordering::SeqCst), Ordering::SeqCst);
        });
        env.from_iter(source).map_async(3, Order::Ordered, move |n| held.visit(n)).sink(|_| {});
        let job = env.submit().unwrap();
        for n in 0..50 {
            desk.await_waiting(3.min(50 - n as usize));
            done.store(n + 1, Ordering::SeqCst);
            desk.release(n);
        }
        job.wait().unwrap();
        assert_eq!(read.load(Ordering::SeqCst), 50);
        // Those in flight, two in the lane, one being read, and the one whose result is leaving.
        assert!(lead.load(Ordering::SeqCst) <= 3 + 2 + 1 + 1, "{}", lead.load(Ordering::SeqCst));
    });
}

#[test]
fn results_leave_while_the_source_is_stuck_in_its_iterator() {
    leak_free(|_| {
        for order in [Order::Ordered, Order::Unordered] {
            let env = Environment::local("idle");
            let (desk, journal, gate) = (Desk::new(), Journal::new(), Gate::new());
            let (held, noted, stuck) = (desk.clone(), journal.clone(), gate.clone());
            let source = (0..4_u64).inspect(move |&n| {
                if n == 3 {
                    stuck.pass();
                }
            });
            env.from_iter(source)
                .map_async(100, order, move |n| held.visit(n))
                .map(|n| n + 10)
                .sink(move |n| noted.note(format_args!("{n}")));
            let job = env.submit().unwrap();
            gate.await_arrivals(1);
            for n in 0..3 {
                desk.release(n);
                journal.await_events(&format!("{}", n + 10), 1);
            }
            gate.open();
            desk.release(3);
            job.wait().unwrap();
            assert_eq!(journal.events(), ["10", "11", "12", "13"]);
        }
    });
}

#[test]
fn a_sink_is_flushed_when_nothing_is_complete() {
    leak_free(|_| {
        let env = Environment::local("flush");
        let (desk, sink) = (Desk::new(), CountingSink::default());
        let (held, counts) = (desk.clone(), sink.counts.clone());
        env.from_iter(0..2_u64).map_async(2, Order::Ordered, move |n| held.visit(n)).sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        desk.release(0);
        while counts.flushed() == 0 || counts.processed() == 0 {
            std::thread::yield_now();
        }
        desk.release(1);
        job.wait().unwrap();
        assert_eq!(counts.processed(), 2);
    });
}

#[test]
fn each_replica_has_a_capacity_and_an_order_of_its_own() {
    leak_free(|_| {
        let env = Environment::local("replicas").block_records(3);
        let desk = Desk::new();
        let held = desk.clone();
        let out = env
            .from_iter(0..12_u64)
            .map_async(4, Order::Ordered, move |n| held.visit(n))
            .parallelism(3)
            .map(|n| n * 2)
            .collect();
        let job = env.submit().unwrap();
        desk.await_waiting(12);
        (0..12).rev().for_each(|n| desk.release(n));
        let report = job.wait().unwrap();
        let out = out.take();
        for replica in 0..3 {
            let channel: Vec<_> = out.iter().filter(|n| **n / 2 % 3 == replica).collect();
            assert!(channel.is_sorted(), "{out:?}");
        }
        assert_eq!(sorted(out), (0..12).map(|n| n * 2).collect::<Vec<_>>());
        let operator = report.operator("map-async-1").unwrap();
        assert_eq!((operator.parallelism, operator.records_in, operator.records_out), (3, 12, 12));
    });
}

#[test]
fn it_stands_anywhere_in_a_pipeline_and_runs_again() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("anywhere").block_records(2).queue_blocks(2);
            let env = if inline { env.inline() } else { env };
            let [left, right] = env.from_collection((0..40_u64).collect()).tee();
            let left = left.map_async(3, Order::Unordered, wander);
            let right = right.map_async(1, Order::Ordered, wander).named("right").map_async(5, Order::Ordered, wander);
            let both = left.union(right).map_async(4, Order::Unordered, wander);
            let counts = both.key_by(|n| *n).count().parallelism(2);
            let copies =
                counts.broadcast(2).map_async(2, Order::Unordered, |pair| async move { pair }).on_another_thread();
            let out = copies.map_async(9, Order::Ordered, |pair| async move { pair }).collect();
            for _ in 0..2 {
                env.run().unwrap();
                let expected: Vec<_> = (0..40).flat_map(|n| [(n, 2), (n, 2)]).collect();
                assert_eq!(sorted(out.take()), expected);
            }
        }
    });
}

#[test]
fn it_begins_a_chain_at_an_inlet_that_is_there_already() {
    let env = Environment::local("explain");
    env.from_iter(0..3_u64).on_another_thread().map_async(2, Order::Ordered, wander).map(|n| n).sink(|_| {});
    env.from_iter(0..3_u64).map(|n| n).map_async(2, Order::Ordered, wander).parallelism(2).sink(|_| {});
    insta::assert_snapshot!(env.explain().to_string(), @r"
    environment `explain`: 4 chains, 5 tasks
      chain 1 ×1: iter-1
        → chain 2 (forward)
      chain 2 ×1: map-async-1 → map-1 → sink-1
      chain 3 ×1: iter-2 → map-2
        → chain 4 (round robin)
      chain 4 ×2: map-async-2 → sink-2
    ");
}

#[test]
fn what_stands_behind_it_in_its_chain_may_block() {
    leak_free(|_| {
        let env = Environment::local("blocking");
        let unit = env.register_service("unit", || Unit).build();
        let out = env
            .from_iter(0..20_u64)
            .map_async(4, Order::Ordered, wander)
            .try_map(move |n| unit.call_blocking(|_| async move { wander(n).await + 1 }))
            .collect();
        env.run().unwrap();
        assert_eq!(out.take(), (1..=20).collect::<Vec<_>>());
    });
}

struct Unit;
impl sage::Service for Unit {}

#[test]
fn full_lanes_behind_it_are_waited_for() {
    leak_free(|_| {
        let env = Environment::local("narrow").block_records(1).queue_blocks(2);
        let out = env
            .from_iter(0..3000_u64)
            .map_async(64, Order::Ordered, wander)
            .flat_map(|n| [n, n])
            .on_another_thread()
            .map(|n| n)
            .broadcast(2)
            .map(|n| n)
            .collect();
        env.run().unwrap();
        assert_eq!(sorted(out.take()), (0..3000).flat_map(|n| [n; 4]).collect::<Vec<_>>());
    });
}

#[test]
fn results_leave_while_records_keep_the_task_busy() {
    leak_free(|_| {
        for late in [false, true] {
            let env = Environment::local("busy");
            let (left, lead) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let (leaving, leading) = (left.clone(), lead.clone());
            let compute = move |n: u64| {
                let (left, lead) = (left.clone(), lead.clone());
                async move {
                    if late {
                        // All have begun by now, and are woken at once.
                        tokio::task::yield_now().await;
                    }
                    lead.fetch_max(n - left.load(Ordering::SeqCst), Ordering::SeqCst);
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(2) {
                        std::hint::spin_loop();
                    }
                }
            };
            env.from_iter(0..20_u64)
                .map_async(100, Order::Ordered, compute)
                .sink(move |()| _ = leaving.fetch_add(1, Ordering::SeqCst));
            env.run().unwrap();
            assert!(leading.load(Ordering::SeqCst) <= 1, "{} results were held back", leading.load(Ordering::SeqCst));
        }
    });
}

#[test]
fn timers_and_threads_wake_it() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("timers");
            let env = if inline { env.inline() } else { env };
            let out = env
                .from_iter(0..200_u64)
                .map_async(50, Order::Ordered, |n| async move {
                    match n % 3 {
                        0 => tokio::time::sleep(Duration::from_millis(n % 5)).await,
                        1 => tokio::task::spawn_blocking(|| ()).await.expect("it does not panic"),
                        _ => tokio::spawn(async { tokio::task::yield_now().await }).await.expect("nor does this"),
                    }
                    n
                })
                .collect();
            env.run().unwrap();
            assert_eq!(out.take(), (0..200).collect::<Vec<_>>());
        }
    });
}

#[test]
fn on_the_inline_backend_another_thread_decides_the_order() {
    leak_free(|_| {
        let env = Environment::local("inline").inline();
        let (desk, journal) = (Desk::new(), Journal::new());
        let (held, noted) = (desk.clone(), journal.clone());
        env.from_iter(0..3_u64)
            .map_async(2, Order::Unordered, move |n| held.visit(n))
            .sink(move |n| noted.note(format_args!("{n}")));
        let job = env.submit().unwrap();
        for n in [1, 2, 0] {
            desk.release(n);
            journal.await_events(&n.to_string(), 1);
        }
        job.wait().unwrap();
        assert_eq!((journal.events(), desk.most()), (["1", "2", "0"].map(String::from).to_vec(), 2));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ten_thousand_records_come_out_as_of_a_plain_map(
        delays in vec(0..6_u8, 64),
        capacity in 1..300_usize,
        replicas in 1..4_usize,
        ordered in any::<bool>(),
        inline in prop::bool::weighted(0.2),
        block_records in prop::option::of(1..50_usize),
    ) {
        leak_free(|_| {
            let env = Environment::local("property");
            let env = if inline { env.inline() } else { env };
            let env = match block_records {
                Some(records) => env.block_records(records).queue_blocks(2),
                None => env,
            };
            let order = if ordered { Order::Ordered } else { Order::Unordered };
            let delays: Arc<[u8]> = delays.into();
            let out = env
                .from_iter(0..10_000_u64)
                .map_async(capacity, order, move |n| {
                    let delay = delays[(n % 64) as usize];
                    async move {
                        match delay {
                            0 => {}
                            5 if n % 7 == 0 => tokio::time::sleep(Duration::from_millis(1)).await,
                            times => for _ in 0..times { tokio::task::yield_now().await },
                        }
                        n.wrapping_mul(3)
                    }
                })
                .parallelism(replicas)
                .collect();
            let report = env.run().expect("nothing in it fails");
            let operator = report.operator("map-async-1").expect("there is one");
            assert_eq!((operator.records_in, operator.records_out, operator.failed), (10_000, 10_000, 0));
            let expected: Vec<_> = (0..10_000_u64).map(|n| n.wrapping_mul(3)).collect();
            let out = out.take();
            if ordered && replicas == 1 {
                assert_eq!(out, expected);
            } else {
                assert_eq!(sorted(out), expected);
            }
        });
    }
}
