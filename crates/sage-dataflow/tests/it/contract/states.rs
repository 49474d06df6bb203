//! Clause 1: legal transitions only; what is over stays over.

use std::sync::{Arc, OnceLock};
use std::thread;

use sage::{Environment, HookContext, JobState, Outcome, ServiceHandle, ServiceState, StopReason};

use super::{add_endless_pipeline, add_held_pipeline, add_pipeline, await_status, cancelled, running};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed};

#[test]
fn contract_01_a_job_passes_through_its_states_in_order() {
    leak_free(|_| {
        let env = Environment::local("states");
        let (journal, setup, record, cleanup) = (Journal::new(), Gate::new(), Gate::new(), Gate::new());
        let (in_setup, in_cleanup) = (setup.clone(), cleanup.clone());
        Probe::new("db", &journal)
            .in_setup(move |_| {
                in_setup.pass();
                Ok(())
            })
            .in_cleanup(move |_| {
                in_cleanup.pass();
                Ok(())
            })
            .register(&env)
            .build();
        add_held_pipeline(&env, &record);
        let job = env.submit().unwrap();
        setup.await_arrivals(1);
        assert_eq!(job.status(), JobState::Starting);
        setup.open();
        record.await_arrivals(1);
        assert_eq!(job.status(), JobState::Running);
        record.open();
        cleanup.await_arrivals(1);
        assert_eq!(job.status(), JobState::Stopping);
        cleanup.open();
        job.wait().unwrap();
        assert_eq!(job.status(), JobState::Ended);
    });
}

#[test]
fn contract_01_a_service_passes_through_its_states_in_order() {
    leak_free(|_| {
        let env = Environment::local("states");
        let journal = Journal::new();
        let states = Journal::new();
        let own: Arc<OnceLock<ServiceHandle<Probed>>> = Arc::default();
        let note = |hook: &'static str| {
            let (states, own) = (states.clone(), own.clone());
            move |_: &HookContext| {
                states.note(format_args!("{hook}: {}", own.get().expect("set before the run").state()));
                Ok(())
            }
        };
        let db = Probe::new("db", &journal)
            .in_constructor(note("constructor"))
            .in_setup(note("setup"))
            .in_stop(note("stop"))
            .in_cleanup(note("cleanup"))
            .register(&env)
            .build();
        assert!(own.set(db.clone()).is_ok());
        let seen = states.clone();
        let in_record = db.clone();
        env.from_collection(vec![()]).sink(move |()| seen.note(format_args!("record: {}", in_record.state())));
        assert_eq!(db.state(), ServiceState::Registered);
        env.run().unwrap();
        assert_eq!(db.state(), ServiceState::Cleaned);
        let expected = [
            "constructor: initialising",
            "setup: initialising",
            "record: ready",
            "stop: stopping",
            "cleanup: cleaning",
        ];
        assert_eq!(states.events(), expected);
        env.run().unwrap();
        assert_eq!(states.events(), [expected, expected].concat(), "a second run begins anew");
    });
}

#[test]
fn contract_01_a_paused_job_takes_no_records_until_it_is_resumed() {
    leak_free(|_| {
        let env = Environment::local("pause");
        let journal = Journal::new();
        let noted = journal.clone();
        env.from_factory(|_| 0_u64..).on_another_thread().sink(move |n| {
            if n % 1000 == 0 {
                noted.note("thousand")
            }
        });
        let job = env.submit().unwrap();
        journal.await_events("thousand", 1);
        job.pause();
        await_status(&job, JobState::Paused);
        // What was in flight is processed; then the count stands still.
        let mut in_flight = settled(&job);
        assert_eq!(settled(&job), in_flight);
        job.pause();
        job.resume();
        journal.await_events("thousand", journal.count("thousand") + 1);
        await_status(&job, JobState::Running);
        job.pause();
        await_status(&job, JobState::Paused);
        in_flight = settled(&job);
        assert!(in_flight > 0);
        assert_eq!(cancelled(&job).reason, StopReason::Cancel);
    });
}

/// The source's count when it has stood still for ten milliseconds.
fn settled(job: &sage::JobHandle) -> u64 {
    let count = || job.metrics().operators[0].records_out;
    loop {
        let before = count();
        assert!(job.wait_timeout(std::time::Duration::from_millis(10)).is_none(), "it is paused");
        if count() == before {
            return before;
        }
    }
}

#[test]
fn contract_01_a_paused_job_can_be_drained_and_every_record_read_reaches_the_sink() {
    leak_free(|_| {
        let env = Environment::local("pause");
        let journal = Journal::new();
        let noted = journal.clone();
        let out = env.from_factory(|_| 0_u64..).inspect(move |_| noted.note("read")).on_another_thread().collect();
        let job = env.submit().unwrap();
        journal.await_events("read", 100);
        job.pause();
        await_status(&job, JobState::Paused);
        job.drain();
        let report = job.wait().unwrap();
        assert_eq!((report.outcome, report.reason), (Outcome::Succeeded, StopReason::Drain));
        assert_eq!(out.take(), (0..journal.count("read") as u64).collect::<Vec<_>>());
    });
}

#[test]
fn contract_01_an_ended_job_absorbs_every_later_command() {
    leak_free(|_| {
        let env = Environment::local("ended");
        let journal = Journal::new();
        Probe::new("db", &journal).register(&env).build();
        add_pipeline(&env);
        let job = env.submit().unwrap();
        let report = job.wait().unwrap();
        let events = journal.events();
        job.pause();
        job.resume();
        job.drain();
        job.cancel();
        assert_eq!(job.status(), JobState::Ended);
        let again = job.wait().unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), serde_json::to_string(&again).unwrap());
        assert_eq!(journal.events(), events);
        assert!(job.health().iter().all(|(_, health)| health.is_err()), "nothing serves any more");
    });
}

#[test]
fn contract_01_a_storm_of_commands_from_many_threads_ends_in_one_clean_end() {
    leak_free(|_| {
        for round in 0..20 {
            let env = Environment::local("storm");
            let journal = Journal::new();
            Probe::new("db", &journal).register(&env).build();
            add_endless_pipeline(&env);
            let job = Arc::new(running(&env));
            let threads = (0..4).map(|nth| {
                let job = job.clone();
                thread::spawn(move || {
                    for command in 0..50 {
                        match (command * 7 + nth * 3 + round) % 4 {
                            0 => job.pause(),
                            1 => job.resume(),
                            2 => drop(job.status()),
                            _ => drop(job.metrics()),
                        }
                    }
                    if nth % 2 == 0 { job.drain() } else { job.cancel() }
                })
            });
            threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
            let report = match job.wait() {
                Ok(report) => report,
                Err(error) => error.report().unwrap().clone(),
            };
            assert!(report.left.is_empty(), "{report}");
            journal.assert_order(&["db constructor", "db setup", "db stop", "db cleanup", "db drop"]);
        }
    });
}
