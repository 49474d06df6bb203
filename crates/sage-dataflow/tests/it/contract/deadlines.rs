//! Clause 4: a run ends by its own time and the sum of the phase deadlines.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sage::{CauseKind, Cleanliness, Deadlines, Environment, JobHandle, JobState, Outcome, ServiceState, StopReason};

use super::{SHORT, add_endless_pipeline, assert_in_time, await_status, impatient, left};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, failed};

#[test]
fn contract_04_a_drain_past_its_deadline_becomes_a_cancel_and_times_out() {
    leak_free(|_| {
        let env = Environment::local("drain").deadlines(Deadlines { drain: SHORT, ..Deadlines::default() });
        let journal = Journal::new();
        let read = journal.clone();
        let numbers = env.from_factory(|_| 0_u64..).inspect(move |n| {
            if *n == 2 {
                read.note("three read");
            }
        });
        // The sink takes its time for each record: three of them outlast the deadline.
        numbers.on_another_thread().sink(|_| {
            let slow = Instant::now() + SHORT / 2;
            while Instant::now() < slow {
                thread::yield_now();
            }
        });
        let job = env.submit().unwrap();
        journal.await_events("three read", 1);
        job.drain();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::TimedOut, Cleanliness::Clean), "{report}");
        assert_eq!(report.first_cause.unwrap().message, "the drain's deadline of 200ms has passed");
    });
}

#[test]
fn contract_04_a_time_limit_times_out_cleanly() {
    leak_free(|_| {
        let env = Environment::local("limit").time_limit(SHORT);
        let journal = Journal::new();
        Probe::new("db", &journal).register(&env).build();
        add_endless_pipeline(&env);
        let report = failed(env.run());
        assert_in_time(&report);
        assert_eq!((report.outcome, report.cleanliness), (Outcome::TimedOut, Cleanliness::Clean));
        assert_eq!(report.reason, StopReason::TimeLimit);
        let cause = report.first_cause.unwrap();
        assert_eq!((cause.kind, cause.message.as_str()), (CauseKind::Timeout, "the time limit of 200ms has passed"));
        journal.assert_order(&["db stop", "db cleanup", "db drop"]);
    });
}

#[test]
fn contract_04_a_source_stuck_in_the_users_iterator_is_abandoned_after_drain_and_cancel() {
    leak_free(|watch| {
        let env = Environment::local("stuck").deadlines(impatient());
        let gate = Gate::new();
        let held = gate.clone();
        let iterator = std::iter::from_fn(move || {
            held.pass();
            None::<u64>
        });
        env.from_iter(iterator).named("feed").on_another_thread().sink(|_| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.drain();
        let report = failed(job.wait());
        assert!(report.elapsed >= 2 * SHORT, "both deadlines passed: {:?}", report.elapsed);
        assert_eq!((report.outcome, left(&report)), (Outcome::TimedOut, vec!["task `feed`"]));
        watch.expect_left(&["feed"]);
        gate.open();
    });
}

#[test]
fn contract_04_hangs_in_every_phase_end_by_the_sum_of_the_deadlines() {
    leak_free(|watch| {
        let deadlines = Deadlines { setup: SHORT, drain: SHORT, cancel: SHORT, stop: SHORT, cleanup: SHORT };
        let env = Environment::local("hangs").deadlines(deadlines);
        let (journal, gate) = (Journal::new(), Gate::new());
        let hang = || {
            let gate = gate.clone();
            move |_: &sage::HookContext| {
                gate.pass();
                Ok(())
            }
        };
        for name in ["a", "b"] {
            Probe::new(name, &journal).in_stop(hang()).in_cleanup(hang()).register(&env).build();
        }
        Probe::new("c", &journal).in_stop(hang()).in_cleanup(hang()).register(&env).after("a").build();
        let held = gate.clone();
        env.from_collection(vec![1]).named("stuck").sink(move |_| held.pass());
        let started = Instant::now();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.drain();
        let report = failed(job.wait());
        // Drain, cancel, and stop and cleanup of the longest chain of two.
        let sum = 6 * SHORT;
        assert!(started.elapsed() < sum + Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(report.outcome, Outcome::TimedOut);
        for name in ["a", "b", "c"] {
            assert_eq!(report.service(name).unwrap().state, ServiceState::Abandoned);
            assert_eq!(journal.count(&format!("{name} cleanup")), 1);
        }
        watch.expect_left(&["stuck", "svc a", "svc a", "svc b", "svc b", "svc c", "svc c"]);
        gate.open();
    });
}

#[test]
fn contract_04_a_handle_that_is_dropped_by_a_task_of_its_own_job_cancels_it_and_waits_for_nothing() {
    leak_free(|watch| {
        let env = Environment::local("own").deadlines(impatient());
        let journal = Journal::new();
        Probe::new("db", &journal).register(&env).build();
        let (send, receive) = mpsc::channel::<JobHandle>();
        let receive = Arc::new(Mutex::new(receive));
        let noted = journal.clone();
        env.from_iter([1]).named("suicidal").sink(move |_| {
            let own = receive.lock().unwrap().recv().unwrap();
            drop(own);
            noted.note("dropped");
        });
        send.send(env.submit().unwrap()).unwrap();
        journal.await_events("db drop", 1);
        journal.assert_order(&["dropped", "db stop", "db cleanup", "db drop"]);
        watch.await_left(&[]);
    });
}

#[test]
fn contract_04_a_time_limit_that_passes_while_a_service_starts_ends_the_job_before_the_first_record() {
    leak_free(|_| {
        let env = Environment::local("limit").time_limit(SHORT);
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
        env.from_iter([1]).sink(move |_| records.note("record"));
        let job = env.submit().unwrap();
        await_status(&job, JobState::Stopping);
        gate.open();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::TimedOut, Cleanliness::Clean), "{report}");
        journal.assert_order(&["slow setup ended", "slow cleanup", "slow drop"]);
        assert_eq!(journal.count("record"), 0);
    });
}
