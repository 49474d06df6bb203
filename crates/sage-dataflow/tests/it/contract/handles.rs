//! Clauses 11 and 22: dropping anything at any moment ends the job cleanly, and what was lent is not closed.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::{Arc, mpsc};
use std::thread;

use sage::{Environment, JobState};

use super::{add_endless_pipeline, add_held_pipeline, add_pipeline, running};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

#[test]
fn contract_11_dropping_a_job_handle_while_it_starts_ends_the_job_cleanly() {
    leak_free(|_| {
        let env = Environment::local("dropped");
        let (journal, gate) = (Journal::new(), Gate::new());
        let held = gate.clone();
        Probe::new("slow", &journal)
            .in_setup(move |_| {
                held.pass();
                Ok(())
            })
            .register(&env)
            .build();
        add_pipeline(&env);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let dropping = thread::spawn(move || drop(job));
        gate.open();
        dropping.join().unwrap();
        journal.assert_order(&["slow setup ended", "slow cleanup", "slow drop"]);
    });
}

#[test]
fn contract_11_dropping_a_job_handle_while_it_runs_is_paused_or_drains_ends_the_job_cleanly() {
    leak_free(|_| {
        for before in ["run", "pause", "drain"] {
            let env = Environment::local("dropped");
            let journal = Journal::new();
            Probe::new("db", &journal).register(&env).build();
            add_endless_pipeline(&env);
            let job = running(&env);
            match before {
                "run" => {}
                "pause" => job.pause(),
                _ => job.drain(),
            }
            drop(job);
            journal.assert_order(&["db stop", "db cleanup", "db drop"]);
            // The environment is free again.
            drop(env.submit().unwrap());
        }
    });
}

#[test]
fn contract_11_dropping_a_job_handle_while_it_stops_waits_for_the_cleanup() {
    leak_free(|_| {
        let env = Environment::local("dropped");
        let (journal, gate) = (Journal::new(), Gate::new());
        let held = gate.clone();
        Probe::new("db", &journal)
            .in_cleanup(move |_| {
                held.pass();
                Ok(())
            })
            .register(&env)
            .build();
        add_pipeline(&env);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        assert_eq!(job.status(), JobState::Stopping);
        let dropping = thread::spawn(move || drop(job));
        gate.open();
        dropping.join().unwrap();
        journal.assert_order(&["db cleanup ended", "db drop"]);
    });
}

#[test]
fn contract_11_dropping_the_environment_and_every_handle_leaves_the_job_running() {
    leak_free(|_| {
        let env = Environment::local("dropped");
        let (journal, gate) = (Journal::new(), Gate::new());
        let db = Probe::new("db", &journal).register(&env).build();
        let (held, in_operator) = (gate.clone(), db.clone());
        let out = env
            .from_iter(0..10_u64)
            .try_map(move |n| {
                held.pass();
                in_operator.call(Probed::touch).map(|()| n)
            })
            .on_another_thread()
            .collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        drop((env, db));
        gate.open();
        let report = job.wait().unwrap();
        assert_eq!(out.take().len(), 10);
        assert_eq!(report.service("db").unwrap().calls, 10);
    });
}

#[test]
fn contract_11_an_environment_that_is_never_run_leaves_nothing() {
    leak_free(|_| {
        let lent = Arc::new(());
        let env = Environment::local("unused");
        let journal = Journal::new();
        let kept = lent.clone();
        Probe::new("db", &journal).register(&env).build();
        env.from_iter([1]).inspect(move |_| drop(kept.clone())).sink(|_| {});
        drop(env);
        assert_eq!(Arc::strong_count(&lent), 1);
        assert_eq!(journal.events(), [] as [&str; 0]);
    });
}

#[test]
fn contract_11_dropping_an_async_run_cancels_the_job_and_cleans_up() {
    leak_free(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let env = Environment::local("dropped");
        let journal = Journal::new();
        Probe::new("db", &journal).register(&env).build();
        add_endless_pipeline(&env);
        runtime.block_on(async {
            let run = env.run_async();
            assert!(tokio::time::timeout(std::time::Duration::from_millis(20), run).await.is_err());
        });
        let events = journal.events();
        assert_eq!(journal.count("db constructor"), journal.count("db drop"), "{events:?}");
    });
}

#[test]
fn contract_11_a_job_handle_dropped_by_a_panic_ends_the_job_cleanly() {
    leak_free(|_| {
        let journal = Journal::new();
        let noted = journal.clone();
        let panicking = thread::spawn(move || {
            let env = Environment::local("dropped");
            Probe::new("db", &noted).register(&env).build();
            add_endless_pipeline(&env);
            let _job = running(&env);
            panic!("the host breaks");
        });
        assert!(panicking.join().is_err());
        journal.assert_order(&["db stop", "db cleanup", "db drop"]);
    });
}

#[test]
fn contract_22_a_file_that_was_lent_stays_open_and_one_the_engine_opened_is_closed() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let lent =
            Arc::new(File::options().read(true).write(true).create_new(true).open(dir.path().join("lent")).unwrap());
        let env = Environment::local("files").log_files(dir.path());
        let sink = lent.clone();
        env.from_collection(vec!["a", "b"]).try_sink(move |text| writeln!(&*sink, "{text}"));
        env.from_collection(vec!["c"]).write_lines(dir.path().join("own"));
        env.read_lines(dir.path().join("l*").to_str().unwrap()).sink(|_| {});
        env.run().unwrap();
        env.run().unwrap();
        drop(env);
        let mut text = String::new();
        (&*lent).rewind().unwrap();
        (&*lent).read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\nb\na\nb\n");
        assert_eq!(Arc::strong_count(&lent), 1);
    });
}

#[test]
fn contract_22_a_channel_that_was_lent_stays_connected() {
    leak_free(|_| {
        let (send, receive) = mpsc::channel();
        for fails in [false, true] {
            let env = Environment::local("channel");
            let lent = send.clone();
            env.from_iter(0..3).try_sink(move |n| {
                lent.send(n).map_err(drop).and(if fails { Err(()) } else { Ok(()) }).map_err(|()| "broke")
            });
            assert_eq!(env.run().is_err(), fails);
        }
        send.send(99).unwrap();
        assert_eq!(receive.try_iter().last(), Some(99));
    });
}

#[test]
fn contract_22_a_service_shared_through_its_handle_serves_another_environment_while_it_runs() {
    leak_free(|_| {
        let (owner, guest) = (Environment::local("owner"), Environment::local("guest"));
        let (journal, gate) = (Journal::new(), Gate::new());
        let db = Probe::new("db", &journal).register(&owner).build();
        add_held_pipeline(&owner, &gate);
        let lent = db.clone();
        guest.from_collection(vec![()]).try_sink(move |()| lent.call(Probed::touch));
        let job = owner.submit().unwrap();
        gate.await_arrivals(1);
        guest.run().unwrap();
        assert_eq!((journal.count("db call"), journal.count("db stop")), (1, 0), "the guest's end does not stop it");
        gate.open();
        job.wait().unwrap();
        let report = failed(guest.run());
        let cause = report.first_cause.unwrap().to_string();
        assert_eq!(cause, "operator `sink-1`, record 1: service `db` is not serving: it is cleaned");
    });
}
