//! Clause 1: the changes of state that a job tells are all there are, in their order, and all legal.

use std::collections::HashMap;
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use sage::{
    Environment, JobHandle, JobState, Outcome, ServiceHandle, ServiceState, StateChange, TaskState, Transition,
};

use super::{add_endless_pipeline, add_held_pipeline, add_pipeline, await_status, cancelled, impatient, running};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

/// The states of each subject in their order. Fails unless each begins where the one before ended, and at a beginning.
#[track_caller]
fn states(changes: &[StateChange]) -> HashMap<String, Vec<String>> {
    let mut states: HashMap<String, Vec<String>> = HashMap::new();
    let mut before = SystemTime::UNIX_EPOCH;
    for StateChange { at, transition, .. } in changes {
        assert!(*at >= before, "{changes:#?}");
        before = *at;
        let (subject, from, to, first) = match transition {
            Transition::Job { from, to } => ("job".to_owned(), from.to_string(), to.to_string(), "created"),
            Transition::Task { name, from, to } => {
                (format!("task {name}"), from.to_string(), to.to_string(), "created")
            }
            Transition::Service { name, from, to } => {
                (format!("service {name}"), from.to_string(), to.to_string(), "registered")
            }
            other => panic!("nobody knows {other:?}"),
        };
        let known = states.entry(subject).or_insert_with(|| vec![first.to_owned()]);
        assert_eq!(known.last(), Some(&from), "{changes:#?}");
        known.push(to);
    }
    states
}

/// The changes of a job, to its end.
fn all(job: &JobHandle) -> Vec<StateChange> {
    job.changes().collect()
}

#[track_caller]
fn assert_states(states: &HashMap<String, Vec<String>>, subject: &str, expected: &[&str]) {
    assert_eq!(states.get(subject).map(Vec::as_slice).unwrap_or_default(), expected, "{subject} in {states:?}");
}

const WHOLE_SERVICE: [&str; 6] = ["registered", "initialising", "ready", "stopping", "cleaning", "cleaned"];

#[test]
fn contract_01_a_job_that_succeeds_tells_every_change_in_order() {
    leak_free(|_| {
        let env = Environment::local("changes");
        let journal = Journal::new();
        let db = Probe::new("db", &journal).register(&env).build();
        Probe::new("cache", &journal).register(&env).after(&db).build();
        env.from_collection((0..100_u64).collect()).rebalance(2).sink(|_| {}).named("shop");
        let job = env.submit().unwrap();
        let during = all(&job);
        job.wait().unwrap();
        assert_eq!(all(&job), during, "whoever comes later is told the same");
        let states = states(&during);
        assert_states(&states, "job", &["created", "starting", "running", "stopping", "ended"]);
        assert_states(&states, "service db", &WHOLE_SERVICE);
        assert_states(&states, "service cache", &WHOLE_SERVICE);
        let tasks = &job.graph().tasks;
        for task in tasks {
            assert_states(&states, &format!("task {}", task.name), &["created", "running", "finished"]);
        }
        assert_eq!((states.len(), tasks.len()), (3 + 3, 3));
        // What depends on another starts after it and is cleaned before it; tasks run in between.
        let place = |wanted: Transition| during.iter().position(|change| change.transition == wanted).unwrap();
        let service = |name: &str, from, to| place(Transition::Service { name: name.to_owned(), from, to });
        let (initialising, ready) = (ServiceState::Initialising, ServiceState::Ready);
        assert!(service("db", initialising, ready) < service("cache", ServiceState::Registered, initialising));
        let runs = place(Transition::Job { from: JobState::Starting, to: JobState::Running });
        assert!(service("cache", initialising, ready) < runs);
        let cleaned = |name| service(name, ServiceState::Cleaning, ServiceState::Cleaned);
        assert!(cleaned("cache") < service("db", ready, ServiceState::Stopping));
        assert!(cleaned("db") < place(Transition::Job { from: JobState::Stopping, to: JobState::Ended }));
    });
}

#[test]
fn contract_01_a_job_that_fails_tells_who_failed() {
    leak_free(|_| {
        let env = Environment::local("changes");
        let journal = Journal::new();
        Probe::new("db", &journal).in_cleanup(|_| Err("lock stays".into())).register(&env).build();
        env.from_factory(|_| 0_u64..)
            .on_another_thread()
            .try_sink(|n| if n == 100 { Err("broke") } else { Ok(()) })
            .named("shop");
        let job = env.submit().unwrap();
        failed(job.wait());
        let states = states(&all(&job));
        assert_states(&states, "job", &["created", "starting", "running", "draining", "stopping", "ended"]);
        assert_states(&states, "task shop", &["created", "running", "failed"]);
        assert_states(&states, "task iter-1", &["created", "running", "cancelled"]);
        let expected = ["registered", "initialising", "ready", "stopping", "cleaning", "cleanup failed"];
        assert_states(&states, "service db", &expected);
    });
}

#[test]
fn contract_01_a_job_whose_service_does_not_start_cancels_tasks_that_never_ran() {
    leak_free(|_| {
        let env = Environment::local("changes");
        let journal = Journal::new();
        let db = Probe::new("db", &journal).in_setup(|_| Err("no room".into())).register(&env).build();
        Probe::new("cache", &journal).register(&env).after(&db).build();
        add_pipeline(&env);
        let job = env.submit().unwrap();
        failed(job.wait());
        let states = states(&all(&job));
        assert_states(&states, "job", &["created", "starting", "stopping", "ended"]);
        assert_states(&states, "service db", &["registered", "initialising", "cleaning", "cleaned"]);
        assert!(!states.contains_key("service cache"), "it was never started");
        let task = format!("task {}", job.graph().tasks[0].name);
        assert_states(&states, &task, &["created", "cancelled"]);
    });
}

#[test]
fn contract_01_a_cancelled_job_tells_who_was_cancelled_and_who_was_abandoned() {
    leak_free(|watch| {
        let env = Environment::local("changes");
        add_endless_pipeline(&env);
        let job = running(&env);
        cancelled(&job);
        let told = all(&job);
        assert!(told.iter().all(|change| !matches!(
            &change.transition,
            Transition::Task { to, .. } if to.is_terminal() && *to != TaskState::Cancelled
        )));
        assert_states(&states(&told), "job", &["created", "starting", "running", "draining", "stopping", "ended"]);

        let env = Environment::local("stuck").deadlines(impatient());
        let gate = Gate::new();
        add_held_pipeline(&env, &gate);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        failed(job.wait());
        let task = format!("task {}", job.graph().tasks[0].name);
        assert_states(&states(&all(&job)), &task, &["created", "running", "abandoned"]);
        watch.expect_left(&["collection-1"]);
        gate.open();
    });
}

#[test]
fn contract_01_services_that_are_started_by_a_nested_call_tell_every_change_as_well() {
    leak_free(|_| {
        let env = Environment::local("nested").inline();
        let journal = Journal::new();
        let inner: Arc<OnceLock<ServiceHandle<Probed>>> = Arc::default();
        let called = inner.clone();
        let call = move |_: &sage::HookContext| Ok(called.get().expect("set before the run").call(Probed::touch)?);
        Probe::new("outer", &journal).in_setup(call).register(&env).build();
        assert!(inner.set(Probe::new("inner", &journal).register(&env).build()).is_ok());
        add_pipeline(&env);
        let job = env.submit().unwrap();
        job.wait().unwrap();
        let states = states(&all(&job));
        assert_states(&states, "service outer", &WHOLE_SERVICE);
        assert_states(&states, "service inner", &WHOLE_SERVICE);
    });
}

#[test]
fn contract_01_changes_are_told_as_they_come_to_readers_that_wait() {
    leak_free(|_| {
        let env = Environment::local("changes");
        let gate = Gate::new();
        add_held_pipeline(&env, &gate);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let mut changes = job.changes();
        let until_running = changes
            .by_ref()
            .find(|change| matches!(&change.transition, Transition::Task { to: TaskState::Running, .. }));
        assert!(until_running.is_some());
        assert_eq!(changes.next_timeout(Duration::from_millis(1)), None, "nothing happens while it is held");
        let started = Barrier::new(4);
        thread::scope(|scope| {
            let readers = [(); 3].map(|()| {
                scope.spawn(|| {
                    started.wait();
                    all(&job)
                })
            });
            started.wait();
            gate.open();
            let [one, two, three] = readers.map(|reader| reader.join().unwrap());
            assert_eq!((&one, &one), (&two, &three));
            assert!(matches!(
                one.last().unwrap().transition,
                Transition::Job { from: JobState::Stopping, to: JobState::Ended }
            ));
        });
        assert_eq!((changes.count() > 0, job.changes().missed()), (true, 0));
        job.wait().unwrap();
    });
}

#[test]
fn contract_01_a_thread_of_the_job_does_not_wait_for_changes_of_the_job() {
    leak_free(|_| {
        let env = Environment::local("itself");
        let job: Arc<OnceLock<JobHandle>> = Arc::default();
        let (own, gate, journal) = (job.clone(), Gate::new(), Journal::new());
        let (held, seen) = (gate.clone(), journal.clone());
        env.from_collection(vec![1]).sink(move |_| {
            held.pass();
            let told = own.get().expect("set before the gate opens").changes();
            seen.note(
                told.last()
                    .is_some_and(|change| !matches!(change.transition, Transition::Job { to: JobState::Ended, .. })),
            );
        });
        assert!(job.set(env.submit().unwrap()).is_ok());
        gate.open();
        job.get().unwrap().wait().unwrap();
        assert_eq!(journal.events(), ["true"]);
    });
}

#[test]
fn contract_01_a_reader_is_told_how_many_changes_were_let_go_of() {
    leak_free(|_| {
        let env = Environment::local("pauses");
        add_endless_pipeline(&env);
        let job = running(&env);
        let (mut quick, mut late) = (job.changes(), job.changes());
        assert!(late.next().is_some());
        let mut read = 0;
        for _ in 0..1_000 {
            job.pause();
            await_status(&job, JobState::Paused);
            job.resume();
            await_status(&job, JobState::Running);
            while quick.next_timeout(Duration::ZERO).is_some() {
                read += 1;
            }
        }
        assert_eq!(cancelled(&job).outcome, Outcome::Cancelled);
        read += quick.by_ref().count() as u64;
        let kept = late.by_ref().count() as u64;
        assert_eq!(quick.missed(), 0);
        assert!(late.missed() > 900, "{}", late.missed());
        assert_eq!(1 + late.missed() + kept, read);
    });
}

#[test]
fn a_change_survives_json() {
    leak_free(|_| {
        let env = Environment::local("changes");
        let journal = Journal::new();
        Probe::new("db", &journal).register(&env).build();
        add_pipeline(&env);
        let job = env.submit().unwrap();
        job.wait().unwrap();
        let told = all(&job);
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Vec<StateChange>>(&json).unwrap(), told);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value[0]["job"]["from"], &value[0]["job"]["to"]), (&"created".into(), &"starting".into()));
        assert_eq!(value[1]["service"]["name"], "db");
    });
}
