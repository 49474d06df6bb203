//! Clauses 3, 10 and 27: how a job is brought to its end from outside, how soon, and that callers who meet get one
//! answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use sage::{CauseKind, Cleanliness, Environment, JobState, Outcome, StopReason};

use super::{add_endless_pipeline, add_held_pipeline, await_status, cancelled, running};
use crate::leaks::leak_free;
use crate::probes::{Counting, Gate, Journal, Probe, failed};

#[test]
fn contract_10_concurrent_waits_and_stops_get_the_same_report() {
    leak_free(|_| {
        for _ in 0..10 {
            let env = Environment::local("together");
            let journal = Journal::new();
            Probe::new("db", &journal).register(&env).build();
            add_endless_pipeline(&env);
            let job = Arc::new(running(&env));
            let together = Arc::new(Barrier::new(8));
            let threads = (0..8).map(|nth| {
                let (job, together) = (job.clone(), together.clone());
                thread::spawn(move || {
                    together.wait();
                    if nth % 2 == 0 {
                        job.cancel();
                    }
                    let run = match nth % 4 {
                        1 => job.wait_timeout(Duration::from_secs(60)).unwrap(),
                        _ => job.wait(),
                    };
                    serde_json::to_string(&failed(run)).unwrap()
                })
            });
            let threads: Vec<_> = threads.collect();
            let reports: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
            journal.assert_order(&["db stop", "db cleanup", "db drop"]);
            let report = failed(job.wait());
            assert!(report.attached.is_empty(), "a stop asked for four times has one cause: {report}");
        }
    });
}

#[test]
fn contract_10_a_second_kind_of_stop_only_makes_the_first_faster() {
    leak_free(|_| {
        let env = Environment::local("faster");
        let gate = Gate::new();
        add_held_pipeline(&env, &gate);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.drain();
        job.drain();
        job.cancel();
        job.drain();
        gate.open();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Cancelled, Cleanliness::Clean));
    });
}

#[test]
fn contract_03_a_drain_succeeds_and_finishes_what_is_in_flight() {
    leak_free(|_| {
        let env = Environment::local("drain");
        let (journal, counting) = (Journal::new(), Counting::default());
        let (read, counts) = (journal.clone(), counting.counts.clone());
        let out = env
            .from_factory(|_| 0_u64..)
            .inspect(move |_| read.note("read"))
            .operator(move || counting.clone())
            .parallelism(3)
            .collect();
        let job = env.submit().unwrap();
        journal.await_events("read", 1000);
        job.drain();
        let report = job.wait().unwrap();
        assert_eq!(
            (report.outcome, report.reason, report.first_cause.is_none()),
            (Outcome::Succeeded, StopReason::Drain, true)
        );
        assert_eq!(counts.finished(), 3, "a drain finishes");
        assert_eq!(crate::probes::sorted(out.take()), (0..journal.count("read") as u64).collect::<Vec<_>>());
    });
}

#[test]
fn contract_03_a_cancel_drops_what_is_in_flight_and_says_so() {
    leak_free(|_| {
        let env = Environment::local("cancel");
        let journal = Journal::new();
        let read = journal.clone();
        env.from_factory(|_| 0_u64..).inspect(move |_| read.note("read")).on_another_thread().sink(|_| {});
        let job = env.submit().unwrap();
        journal.await_events("read", 1000);
        let report = cancelled(&job);
        assert_eq!(report.reason, StopReason::Cancel);
        let cause = report.first_cause.unwrap();
        assert_eq!((cause.kind, cause.message.as_str()), (CauseKind::Stopped, "stopped: cancel requested"));
    });
}

#[test]
fn contract_03_a_failure_during_a_drain_fails_the_job() {
    leak_free(|_| {
        let env = Environment::local("drain");
        let gate = Gate::new();
        let held = gate.clone();
        env.from_factory(|_| 0_u64..)
            .try_map(move |_| {
                held.pass();
                Err::<u64, _>("broke")
            })
            .sink(|_| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.drain();
        gate.open();
        let report = failed(job.wait());
        assert_eq!(report.outcome, Outcome::Failed);
    });
}

#[test]
fn contract_03_a_stop_before_the_first_record_ends_cleanly() {
    leak_free(|_| {
        for cancel in [false, true] {
            let env = Environment::local("early");
            let (journal, gate) = (Journal::new(), Gate::new());
            let held = gate.clone();
            Probe::new("slow", &journal)
                .in_setup(move |_| {
                    held.pass();
                    Ok(())
                })
                .register(&env)
                .build();
            let records = journal.clone();
            env.from_collection(vec![1]).sink(move |_| records.note("record"));
            let job = env.submit().unwrap();
            gate.await_arrivals(1);
            if cancel {
                job.cancel()
            } else {
                job.drain()
            }
            gate.open();
            let report = match job.wait() {
                Ok(report) => report,
                Err(error) => error.report().unwrap().clone(),
            };
            let expected = if cancel { Outcome::Cancelled } else { Outcome::Succeeded };
            assert_eq!((report.outcome, report.cleanliness), (expected, Cleanliness::Clean));
            assert_eq!(journal.count("record"), 0);
            journal.assert_order(&["slow setup ended", "slow cleanup", "slow drop"]);
        }
    });
}

#[test]
fn contract_03_a_source_that_waits_is_woken_by_every_kind_of_stop() {
    use sage::{BoxError, Next, Source, SourceContext};
    struct Waits(Gate);
    impl Source for Waits {
        type Item = u64;
        fn next(&mut self, cx: &SourceContext) -> Result<Next<u64>, BoxError> {
            self.0.open();
            assert!(!cx.wait(Duration::from_secs(3600)), "nobody waits for an hour");
            Ok(Next::Idle)
        }
    }
    leak_free(|_| {
        for stop in ["drain", "cancel", "pause"] {
            let env = Environment::local("waits");
            let gate = Gate::new();
            let opened = gate.clone();
            env.from_source(move |_| Waits(opened.clone())).sink(|_| {});
            let job = env.submit().unwrap();
            gate.pass();
            match stop {
                "drain" => job.drain(),
                "cancel" => job.cancel(),
                _ => {
                    job.pause();
                    job.resume();
                    job.drain();
                }
            }
            let run = job.wait();
            assert_eq!(run.is_ok(), stop != "cancel");
        }
    });
}

#[test]
fn contract_03_a_cancel_is_seen_at_the_next_record() {
    type Declare = fn(&Environment, Counting, Gate);
    let shapes: [(&str, Declare); 4] = [
        ("its own chain", |env, counting, held| {
            let numbers = env.from_factory(|_| 0_u64..);
            numbers.operator(move || counting.clone()).sink(move |_| held.pass());
        }),
        ("after an exchange", |env, counting, held| {
            let numbers = env.from_factory(|_| 0_u64..).on_another_thread();
            numbers.operator(move || counting.clone()).sink(move |_| held.pass());
        }),
        ("many of one record", |env, counting, held| {
            let numbers = env.from_collection(vec![()]).flat_map(|()| 0_u64..);
            numbers.operator(move || counting.clone()).sink(move |_| held.pass());
        }),
        ("many of one record, into a buffer", |env, counting, held| {
            let numbers = env.from_collection(vec![()]).flat_map_into(|(), out| out.extend(0..10_000_u64));
            numbers.operator(move || counting.clone()).sink(move |_| held.pass());
        }),
    ];
    leak_free(|_| {
        for (shape, declare) in shapes {
            let env = Environment::local("prompt");
            let (counting, gate) = (Counting::default(), Gate::new());
            let counts = counting.counts.clone();
            declare(&env, counting, gate.clone());
            let job = env.submit().unwrap();
            gate.await_arrivals(1);
            job.cancel();
            await_status(&job, JobState::Draining);
            // The sink comes back only now, and could then go on for ever.
            gate.open();
            cancelled(&job);
            assert!(counts.processed() <= 2, "{} records of {shape}", counts.processed());
        }
    });
}

/// The record at which a chain that was quick turns slow: a
/// multiple of eight, as records are taken in runs of eight while they are quick.
const TURNS_SLOW: u64 = 100_000;

/// Holds the record at which a chain turns slow at the gate, and counts those that come behind it.
fn turns_slow(gate: &Gate, behind: &Arc<AtomicU64>) -> impl Fn(&u64) + Clone + Send + Sync + use<> {
    let (gate, behind) = (gate.clone(), behind.clone());
    move |&n| {
        if n == TURNS_SLOW {
            gate.pass();
        }
        if n > TURNS_SLOW {
            behind.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn contract_27_a_source_whose_quick_records_turn_slow_stops_behind_the_one_that_is_worked_on() {
    leak_free(|_| {
        for drain in [false, true] {
            for hop in [false, true] {
                let env = Environment::local("turns slow");
                let (gate, behind) = (Gate::new(), Arc::default());
                let numbers = env.from_factory(|_| 0_u64..).inspect(turns_slow(&gate, &behind));
                if hop {
                    numbers.on_another_thread().sink(|_| {});
                } else {
                    numbers.sink(|_| {});
                }
                let job = env.submit().unwrap();
                gate.await_arrivals(1);
                if drain {
                    job.drain()
                } else {
                    job.cancel()
                }
                await_status(&job, JobState::Draining);
                gate.open();
                let run = job.wait();
                assert_eq!(run.is_ok(), drain);
                assert_eq!(behind.load(Ordering::Relaxed), 0, "drain: {drain}, hop: {hop}");
            }
        }
    });
}

#[test]
fn contract_27_a_chain_behind_a_hop_that_turns_slow_is_cancelled_behind_the_record_that_is_worked_on() {
    leak_free(|_| {
        let env = Environment::local("turns slow");
        let (gate, behind) = (Gate::new(), Arc::default());
        env.from_factory(|_| 0_u64..).on_another_thread().inspect(turns_slow(&gate, &behind)).sink(|_| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        await_status(&job, JobState::Draining);
        gate.open();
        cancelled(&job);
        assert_eq!(behind.load(Ordering::Relaxed), 0);
    });
}
