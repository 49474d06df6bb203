//! What becomes of the futures in flight when a job ends, early or not.

use std::time::Duration;

use sage::{Deadlines, Environment, JobHandle, JobState, Order, Outcome};

use super::Desk;
use crate::leaks::leak_free;
use crate::probes::{Journal, Probe, failed, sorted};

/// Both backends; the inline one runs on the dispatcher's thread.
fn backends(test: impl Fn(Environment)) {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("endings").block_records(4).queue_blocks(2);
            test(if inline { env.inline() } else { env });
        }
    });
}

#[track_caller]
fn cancelled(job: &JobHandle) {
    job.cancel();
    let report = failed(job.wait());
    assert_eq!((report.outcome, report.left.len(), report.first_cause.is_some()), (Outcome::Cancelled, 0, true));
    let operator = report.operator("map-async-1").expect("there is one");
    assert_eq!((operator.records_out, operator.failed), (0, 0), "{report}");
}

#[test]
fn a_cancel_drops_what_is_in_flight() {
    for (order, capacity) in [(Order::Ordered, 5), (Order::Unordered, 100)] {
        backends(|env| {
            let desk = Desk::new();
            let held = desk.clone();
            env.from_iter(0..40_u64).map_async(capacity, order, move |n| held.visit(n)).sink(|_| {});
            let job = env.submit().unwrap();
            desk.await_waiting(capacity.min(40));
            cancelled(&job);
            assert_eq!(desk.alive(), 0);
        });
    }
}

#[test]
fn a_cancel_ends_futures_that_wake_themselves_for_ever() {
    backends(|env| {
        let desk = Desk::new();
        let held = desk.clone();
        let spin = move |_| {
            let visit = held.enter();
            async move {
                loop {
                    tokio::task::yield_now().await;
                    assert!(visit.0.alive() > 0);
                }
            }
        };
        env.from_iter(0..3_u64).map_async(5, Order::Ordered, spin.clone()).sink(|()| {});
        env.from_iter(0..3_u64).map_async(5, Order::Unordered, spin).sink(|()| {});
        let job = env.submit().unwrap();
        while desk.made() < 6 {
            std::thread::yield_now();
        }
        cancelled(&job);
        assert_eq!(desk.alive(), 0);
    });
}

#[test]
fn contract_16_the_end_of_input_waits_for_every_future() {
    backends(|env| {
        let desk = Desk::new();
        let held = desk.clone();
        let out = env.from_iter(0..30_u64).map_async(100, Order::Unordered, move |n| held.visit(n)).collect();
        let job = env.submit().unwrap();
        // All of the input has been read.
        desk.await_waiting(30);
        (0..30).for_each(|n| desk.release(n));
        let report = job.wait().unwrap();
        assert_eq!(sorted(out.take()), (0..30).collect::<Vec<_>>());
        assert_eq!(report.operators[1].records_out, 30);
    });
}

#[test]
fn a_drain_finishes_what_is_in_flight() {
    backends(|env| {
        let desk = Desk::new();
        let held = desk.clone();
        let journal = Journal::new();
        let noted = journal.clone();
        // Ends only because it is told to; it goes on when a record is noted.
        let mut next = 0_u64;
        let mut asked = 0_u64;
        let source = move || {
            asked += 1;
            if next < 6 && asked % 2 == 1 {
                next += 1;
                return Some(next - 1);
            }
            std::thread::yield_now();
            Some(u64::MAX)
        };
        let out = env
            .from_iter(std::iter::from_fn(source))
            .filter(|n| *n != u64::MAX)
            .map_async(6, Order::Ordered, move |n| {
                noted.note("taken");
                held.visit(n)
            })
            .collect();
        let job = env.submit().unwrap();
        desk.await_waiting(6);
        job.drain();
        while !matches!(job.status(), JobState::Draining) {
            std::thread::yield_now();
        }
        (0..6).rev().for_each(|n| desk.release(n));
        let report = job.wait().unwrap();
        assert_eq!((report.outcome, out.take()), (Outcome::Succeeded, (0..6).collect::<Vec<_>>()));
        assert_eq!(journal.count("taken"), 6);
    });
}

#[test]
fn contract_04_a_drain_past_its_deadline_drops_what_is_in_flight() {
    backends(|env| {
        let short = Deadlines { drain: Duration::from_millis(100), ..Deadlines::default() };
        let env = env.deadlines(short);
        let desk = Desk::new();
        let held = desk.clone();
        env.from_iter(0..3_u64).map_async(3, Order::Ordered, move |n| held.visit(n)).sink(|_| {});
        let job = env.submit().unwrap();
        desk.await_waiting(3);
        job.drain();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.left.len(), desk.alive()), (Outcome::TimedOut, 0, 0), "{report}");
    });
}

#[test]
fn nothing_is_waited_for_that_nobody_wants() {
    backends(|env| {
        let desk = Desk::new();
        let held = desk.clone();
        let taken = env.from_iter(0..).map_async(8, Order::Unordered, move |n| held.visit(n)).take(2).collect();
        let job = env.submit().unwrap();
        desk.release(5);
        desk.release(3);
        let report = job.wait().unwrap();
        assert_eq!((taken.take(), desk.alive()), (vec![5, 3], 0));
        assert_eq!(report.operators[1].records_out, 2);
    });
}

#[test]
fn a_task_that_waits_for_futures_sees_that_its_reader_has_ended() {
    leak_free(|_| {
        let env = Environment::local("gone");
        let (desk, gate) = (Desk::new(), Desk::new());
        let (held, other) = (desk.clone(), gate.clone());
        let waits = env.from_iter(0..4_u64).map_async(4, Order::Ordered, move |n| held.visit(n)).on_another_thread();
        let goes = env.from_iter(4..5_u64).map_async(4, Order::Ordered, move |n| other.visit(n)).on_another_thread();
        let taken = waits.union(goes).take(1).collect();
        let job = env.submit().unwrap();
        desk.await_waiting(4);
        gate.release(4);
        job.wait().unwrap();
        assert_eq!((taken.take(), desk.alive()), (vec![4], 0));
    });
}

#[test]
fn a_failure_elsewhere_drops_what_is_in_flight() {
    leak_free(|_| {
        let env = Environment::local("elsewhere");
        let (desk, gate) = (Desk::new(), crate::probes::Gate::new());
        let (held, closed) = (desk.clone(), gate.clone());
        env.from_iter(0..4_u64).map_async(9, Order::Ordered, move |n| held.visit(n)).sink(|_| {});
        env.from_iter([()]).sink(move |()| {
            closed.pass();
            panic!("boom");
        });
        let job = env.submit().unwrap();
        desk.await_waiting(4);
        gate.open();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.left.len(), desk.alive()), (Outcome::Failed, 0, 0));
    });
}

#[test]
fn contract_07_calls_in_flight_end_before_their_service_stops() {
    for drain in [false, true] {
        backends(|env| {
            let (desk, journal) = (Desk::new(), Journal::new());
            let service = Probe::new("db", &journal).register(&env).build();
            let (held, noted) = (desk.clone(), journal.clone());
            let out = env
                .from_iter(0..8_u64)
                .try_map_async(4, Order::Ordered, move |n| {
                    let (service, held, over) = (service.clone(), held.clone(), Over(noted.clone()));
                    async move {
                        let called = service.call_async(|db| async move {
                            db.touch();
                            held.visit(n).await
                        });
                        let called = called.await;
                        drop(over);
                        called
                    }
                })
                .collect();
            let job = env.submit().unwrap();
            desk.await_waiting(4);
            let report = if drain {
                job.drain();
                // The source may have sent on all eight by then, or fewer.
                while job.status() != JobState::Ended {
                    let waiting: Vec<_> = desk.lock().waiting.keys().copied().collect();
                    waiting.into_iter().for_each(|n| desk.release(n));
                    std::thread::yield_now();
                }
                job.wait().unwrap()
            } else {
                job.cancel();
                failed(job.wait())
            };
            let events = journal.events();
            let last_over = events.iter().rposition(|event| event == "over").expect("there were calls");
            assert!(last_over < journal.position("db stop"), "{events:?}");
            assert_eq!((report.left.len(), desk.alive()), (0, 0));
            let service = report.service("db").unwrap();
            assert_eq!(service.calls as usize, desk.made());
            assert_eq!(out.take().len(), if drain { desk.made() } else { 0 });
        });
    }
}

/// Notes when its future is over, completed or dropped.
struct Over(Journal);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.note("over");
    }
}
