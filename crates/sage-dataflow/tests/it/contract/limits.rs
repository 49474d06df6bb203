//! Clause 15, for what the system refuses: no more threads, no more descriptors. Each test plays its part in a child of
//! its own, whose limits it may spoil.

use std::process::Command;

use sage::{AsyncService, CauseKind, Environment, RunError, ServiceState, SignalPolicy, SubmitError};

use super::add_pipeline;
use crate::leaks::leak_free;
use crate::probes::{Journal, Probe, failed};

const PART: &str = "SAGE_LIMITS_PART";

/// Runs `part` in a child that is this test again, and fails as it does.
pub(super) fn in_child(test: &str, variables: &[(&str, &str)], part: impl FnOnce()) {
    if std::env::var_os(PART).is_some() {
        return part();
    }
    let mut child = Command::new(std::env::current_exe().expect("Linux tells it"));
    // One test thread: the test runs on the main one, which is there already.
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(PART, "1").envs(variables.iter().copied());
    let output = child.output().expect("this program can be run");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn contract_15_a_job_that_gets_no_thread_fails_cleanly() {
    let test = "contract::limits::contract_15_a_job_that_gets_no_thread_fails_cleanly";
    // No address space has room for such a stack.
    in_child(test, &[("RUST_MIN_STACK", "4611686018427387904")], || {
        leak_free(|_| {
            let journal = Journal::new();
            let env = Environment::local("no-threads");
            let db = Probe::new("db", &journal).register(&env).build();
            add_pipeline(&env);
            // The listener for signals is the first thread that is asked for.
            let refused = env.run().unwrap_err();
            assert!(matches!(refused, RunError::Submit(SubmitError::Threads(_))), "{refused}");
            let env = env.signals(SignalPolicy::Off);
            assert!(matches!(env.submit().map(drop), Err(SubmitError::Threads(_))));
            let report = failed(env.run());
            let cause = report.first_cause.as_ref().unwrap();
            assert_eq!(cause.kind, CauseKind::Spawn, "{report}");
            assert!(report.left.is_empty(), "{report}");
            assert_eq!((db.state(), journal.events().len()), (ServiceState::Cleaned, 0));
        });
    });
}

struct Remote;
impl AsyncService for Remote {}

#[test]
fn contract_15_an_async_runtime_that_gets_no_thread_fails_its_service_and_the_job_cleanly() {
    let test =
        "contract::limits::contract_15_an_async_runtime_that_gets_no_thread_fails_its_service_and_the_job_cleanly";
    in_child(test, &[("RUST_MIN_STACK", "4611686018427387904")], || {
        leak_free(|_| {
            // Inline, as nothing else would get as far as the runtime.
            let env = Environment::local("no-threads").signals(SignalPolicy::Off).inline();
            env.register_async_service("remote", || Remote).build();
            add_pipeline(&env);
            let report = failed(env.run());
            let place = report.first_cause.as_ref().unwrap().place().to_string();
            assert_eq!(place, "service `remote`, in its setup", "{report}");
        });
    });
}

#[test]
fn contract_15_tasks_that_get_no_thread_fail_the_job_cleanly() {
    let test = "contract::limits::contract_15_tasks_that_get_no_thread_fail_the_job_cleanly";
    in_child(test, &[("RUST_MIN_STACK", "4611686018427387904")], || {
        leak_free(|_| {
            let env = Environment::local("no-threads").signals(SignalPolicy::Off);
            env.from_collection(vec![1]).map(|n| n).parallelism(2).sink(|_| {});
            for _ in 0..2 {
                let report = failed(env.run());
                let cause = report.first_cause.as_ref().unwrap();
                assert_eq!(cause.kind, CauseKind::Spawn, "{report}");
                assert!(cause.message.contains("`collection-1`") && report.left.is_empty(), "{report}");
            }
        });
    });
}

/// Lets this process open no descriptor beyond those it has.
fn spoil_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = 3;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[test]
fn contract_15_a_job_that_gets_no_descriptor_fails_cleanly() {
    let test = "contract::limits::contract_15_a_job_that_gets_no_descriptor_fails_cleanly";
    in_child(test, &[], || {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("in"), "a\n").unwrap();
        spoil_descriptors();
        let journal = Journal::new();
        let run = |declare: &dyn Fn(&Environment)| {
            let env = Environment::local("no-descriptors");
            Probe::new("db", &journal).register(&env).build();
            declare(&env);
            let report = failed(env.run());
            assert!(report.left.is_empty(), "{report}");
            report.first_cause.unwrap().to_string()
        };
        let reading = run(&|env| drop(env.read_lines(dir.path().join("in").to_str().unwrap()).sink(|_| {})));
        assert!(reading.contains("Too many open files"), "{reading}");
        let writing = run(&|env| drop(env.from_iter([1]).write_lines(dir.path().join("out"))));
        assert!(writing.contains("Too many open files"), "{writing}");
        assert_eq!(journal.count("db constructor"), journal.count("db drop"));
    });
}

#[test]
fn contract_15_a_job_that_needs_more_threads_than_the_system_has_room_for_is_refused_before_anything_starts() {
    leak_free(|_| {
        let journal = Journal::new();
        let env = Environment::local("many");
        let db = Probe::new("db", &journal).register(&env).build();
        // Together more than any system has room for, and each no more than an operator may have.
        for _ in 0..200 {
            let journal = journal.clone();
            let made = move |_| {
                journal.note("made");
                Some(1)
            };
            env.from_factory(made).parallelism(65_536).sink(|_| {});
        }
        for _ in 0..2 {
            let refused = env.submit().map(drop).unwrap_err();
            let SubmitError::TooManyThreads { threads, ref limit, room } = refused else { panic!("{refused}") };
            assert_eq!(threads, 200 * 65_536 + 1);
            assert!(!limit.is_empty() && room < threads as u64, "{refused}");
            let told =
                format!("the job needs 13107201 threads, and `{limit}` leaves room for {room}; give operators fewer");
            assert!(refused.to_string().starts_with(&told), "{refused}");
        }
        assert_eq!((db.state(), journal.events().len()), (ServiceState::Registered, 0));
    });
}
