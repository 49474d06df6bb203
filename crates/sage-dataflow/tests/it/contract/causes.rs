//! Clauses 2, 3 and 5: the first cause is primary and none is lost; only success and clean is `Ok`; what is wrong with
//! the declaration is said before anything is initialised.

use std::error::Error as _;
use std::io;

use sage::{CallError, CauseKind, Cleanliness, Environment, Origin, Outcome, RunError, Service, SubmitError};

use super::{add_pipeline, cancelled, left};
use crate::leaks::leak_free;
use crate::probes::{CountingSink, Gate, Journal, Probe, Probed, failed};

#[test]
fn contract_02_the_first_cause_is_primary_and_later_ones_are_attached() {
    leak_free(|_| {
        let env = Environment::local("causes");
        let journal = Journal::new();
        Probe::new("db", &journal).in_stop(|_| panic!("stop broke")).register(&env).build();
        Probe::new("cache", &journal).in_cleanup(|_| Err("cleanup broke".into())).register(&env).build();
        let sink = CountingSink { fail_in: "close", ..CountingSink::default() };
        env.from_iter(0..10_u64)
            .try_map(|n| if n == 4 { Err(io::Error::other("record broke")) } else { Ok(n) })
            .named("first")
            .sink_to(move |_| sink.clone());
        let report = failed(env.run());
        assert_eq!(report.outcome, Outcome::Failed);
        let first = report.first_cause.as_ref().unwrap();
        assert_eq!(
            (first.kind, first.to_string().as_str()),
            (CauseKind::Error, "operator `first`, record 5: record broke")
        );
        let attached: Vec<_> = report.attached.iter().map(ToString::to_string).collect();
        assert_eq!(attached.len(), 3, "{report}");
        assert_eq!(attached[0], "operator `sink-1`, while closing: fails in close");
        assert!(attached.contains(&"service `db`, in its stop: panicked: stop broke".to_owned()), "{attached:?}");
        assert!(attached.contains(&"service `cache`, in its cleanup: cleanup broke".to_owned()), "{attached:?}");
        assert_eq!(report.cleanliness, Cleanliness::Unclean);
    });
}

#[test]
fn contract_02_every_replica_that_fails_is_told() {
    leak_free(|_| {
        let env = Environment::local("causes");
        let both = std::sync::Arc::new(std::sync::Barrier::new(2));
        env.from_factory(|_| [1])
            .parallelism(2)
            .try_map(move |_| {
                both.wait();
                Err::<u64, _>("broke")
            })
            .sink(|_| {});
        let report = failed(env.run());
        let causes = report.first_cause.iter().chain(&report.attached);
        let replicas = causes.map(|cause| match &cause.origin {
            Origin::Operator { replica, .. } => *replica,
            other => panic!("{other:?}"),
        });
        assert_eq!(crate::probes::sorted(replicas.collect()), [0, 1]);
        for replica in 0..2 {
            let told = format!("operator `try-map-1` (replica {replica} of 2, counted from 0), record 1: broke");
            assert!(report.to_string().contains(&told), "{report}");
        }
        assert_eq!(report.operators[1].failed, 2);
    });
}

#[test]
fn contract_02_the_users_own_error_can_be_downcast_from_the_run_error() {
    leak_free(|_| {
        let env = Environment::local("causes");
        env.from_iter([1]).try_map(|_| Err::<u64, _>(io::Error::new(io::ErrorKind::AddrInUse, "port"))).sink(|_| {});
        let error = env.run().unwrap_err();
        assert_eq!(error.to_string(), "job `causes` failed at operator `try-map-1`, record 1");
        let source = error.source().unwrap();
        assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn contract_02_a_failing_call_names_the_service_and_keeps_its_error() {
    leak_free(|_| {
        let env = Environment::local("causes");
        let journal = Journal::new();
        let db = Probe::new("db", &journal).register(&env).build();
        env.from_iter([1])
            .try_map(move |_| db.try_call(|_| Err::<u64, _>(io::Error::other("row locked"))))
            .sink(|_| {});
        let error = env.run().unwrap_err();
        let report = error.report().unwrap();
        let cause = report.first_cause.as_ref().unwrap();
        assert_eq!(cause.to_string(), "operator `try-map-1`, record 1: service `db` failed: row locked");
        assert_eq!(report.service("db").unwrap().errors, 1);
        let call = error.source().unwrap();
        assert!(matches!(call.downcast_ref::<CallError>(), Some(CallError::Failed { .. })), "{call:?}");
        assert!(call.source().unwrap().downcast_ref::<io::Error>().is_some());
    });
}

#[test]
fn contract_03_a_job_that_is_not_clean_is_an_error_even_if_it_succeeded() {
    leak_free(|_| {
        let env = Environment::local("unclean");
        let journal = Journal::new();
        Probe::new("db", &journal).in_cleanup(|_| Err("lock file stays".into())).register(&env).build();
        add_pipeline(&env);
        let error = env.run().unwrap_err();
        let report = error.report().unwrap();
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Succeeded, Cleanliness::Unclean));
        assert_eq!(left(report), ["service `db`"]);
        assert!(!report.is_success());
        let text = error.to_string();
        assert!(text.contains("succeeded") && text.contains("is not clean: service `db`"), "{text}");
    });
}

#[test]
fn contract_03_a_cancelled_job_is_an_error_that_carries_the_report() {
    leak_free(|_| {
        let env = Environment::local("cancelled");
        super::add_endless_pipeline(&env);
        let job = env.submit().unwrap();
        let report = cancelled(&job);
        assert!(report.cleanliness == Cleanliness::Clean && !report.is_success());
        let RunError::Job(error) = job.wait().unwrap_err() else { panic!("it is a job's error") };
        assert_eq!(error.to_string(), "job `cancelled` cancelled");
    });
}

struct Idle;
impl Service for Idle {}

#[test]
fn contract_05_a_wrong_declaration_is_rejected_before_any_service_is_initialised() {
    leak_free(|_| {
        let journal = Journal::new();
        let refused = |declare: fn(&Environment)| {
            let env = Environment::local("wrong");
            Probe::new("db", &journal).register(&env).build();
            add_pipeline(&env);
            declare(&env);
            let error = env.submit().map(drop).unwrap_err();
            assert_eq!(journal.events(), [] as [&str; 0], "{error}");
            error
        };
        let cycle = refused(|env| {
            env.register_service("a", || Idle).after("b").build();
            env.register_service("b", || Idle).after("a").build();
        });
        assert!(matches!(&cycle, SubmitError::DependencyCycle { cycle } if cycle == &["a", "b", "a"]), "{cycle}");
        let unknown = refused(|env| drop(env.register_service("a", || Idle).after("nobody").build()));
        assert!(matches!(unknown, SubmitError::UnknownDependency { .. }), "{unknown}");
        let duplicate = refused(|env| drop(env.register_service("db", || Idle).build()));
        assert!(matches!(duplicate, SubmitError::DuplicateService { .. }), "{duplicate}");
        let unfinished = refused(|env| drop(env.from_iter([1])));
        assert!(matches!(unfinished, SubmitError::MissingSink { .. }), "{unfinished}");
    });
}

#[test]
fn contract_05_a_name_that_does_not_exist_is_a_typed_call_error() {
    leak_free(|_| {
        let env = Environment::local("names");
        env.register_service("store", || Idle).build();
        let error = env.service::<Idle>("stroe").map(drop).unwrap_err();
        assert_eq!(error.to_string(), "no service named `stroe` is registered");
        let error = env.service::<Idle>("Stores").map(drop).unwrap_err();
        assert_eq!(error.to_string(), "no service named `Stores` is registered; did you mean `store`?");
        let error = env.service::<Probed>("store").map(drop).unwrap_err();
        assert!(matches!(error, CallError::WrongType { .. }), "{error}");
        let store = env.service::<Idle>("store").unwrap();
        let reached = env.from_iter([1]).try_map(move |n| store.call(|_| n)).collect();
        env.run().unwrap();
        assert_eq!(reached.take(), [1]);
    });
}

#[test]
fn contract_05_a_call_outside_a_run_is_a_typed_error() {
    leak_free(|_| {
        let env = Environment::local("outside");
        let idle = env.register_service("idle", || Idle).build();
        let refused = |state| {
            let error = idle.call(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), format!("service `idle` is not serving: it is {state}"));
            assert!(idle.call_blocking(|_| async {}).is_err());
        };
        refused("registered");
        add_pipeline(&env);
        env.run().unwrap();
        refused("cleaned");
        drop(env);
        refused("cleaned");
    });
}

#[test]
fn contract_05_an_undeclared_dependency_is_started_at_the_first_nested_call_and_stopped_after_its_user() {
    leak_free(|_| {
        let env = Environment::local("observed");
        let journal = Journal::new();
        let late = Gate::new();
        late.open();
        // Registered first, it would be started first and wait; what it calls is registered after it.
        let handle: std::sync::Arc<std::sync::OnceLock<sage::ServiceHandle<Probed>>> = Default::default();
        let used = handle.clone();
        Probe::new("user", &journal)
            .in_setup(move |_| Ok(used.get().expect("registered below").call(Probed::touch)?))
            .register(&env)
            .build();
        let callee = Probe::new("callee", &journal).register(&env).build();
        assert!(handle.set(callee).is_ok());
        add_pipeline(&env);
        env.run().unwrap();
        journal.assert_order(&[
            "user setup",
            "callee call",
            "user setup ended",
            "user stop",
            "user cleanup ended",
            "callee stop",
            "callee cleanup",
        ]);
    });
}
