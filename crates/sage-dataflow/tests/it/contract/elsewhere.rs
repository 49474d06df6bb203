//! Clause 14, of services whose code runs in a process of its own: what the engine is told of its end.

use std::time::Duration;

use sage::{CallError, CauseKind, Cleanliness, Environment, Hook, HookEnded, Origin, Outcome, ServiceState};

use super::{add_held_pipeline, add_pipeline};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

#[test]
fn contract_14_a_service_whose_process_is_gone_takes_no_calls_and_ends_as_lost() {
    leak_free(|_| {
        let env = Environment::local("gone");
        let journal = Journal::new();
        let db = Probe::new("db", &journal)
            .in_cleanup(|_| Err("its process is gone, and nothing could be cleaned".into()))
            .register(&env)
            .build();
        Probe::new("user", &journal).register(&env).after("db").build();
        let record = Gate::new();
        add_held_pipeline(&env, &record);
        let job = env.submit().unwrap();
        record.await_arrivals(1);
        db.call(Probed::touch).unwrap();
        db.lost();
        let refused = db.call(Probed::touch).unwrap_err();
        assert!(matches!(refused, CallError::NotServing { state: ServiceState::Lost, .. }), "{refused}");
        record.open();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Succeeded, Cleanliness::Unclean));
        assert_eq!(report.service("db").unwrap().state, ServiceState::Lost);
        assert_eq!(report.service("user").unwrap().state, ServiceState::Cleaned);
        assert_eq!(report.left.len(), 1);
        assert!(report.left[0].why.contains("its process is gone"), "{report}");
        // Its hooks let go of what is here, in its turn.
        journal.assert_order(&["user cleanup ended", "db stop", "db cleanup", "db drop"]);
        // Nothing keeps the environment from another job.
        add_pipeline(&env);
        failed(env.run());
    });
}

#[test]
fn contract_14_a_hook_that_was_ended_with_all_it_had_leaves_nothing() {
    let ended = || Err(HookEnded("did not end by its deadline; its process is ended".into()).into());
    leak_free(|_| {
        for hook in [Hook::Setup, Hook::Stop, Hook::Cleanup] {
            let env = Environment::local("ended");
            let journal = Journal::new();
            let probe = Probe::new("db", &journal);
            let probe = match hook {
                Hook::Setup => probe.in_setup(move |_| ended()),
                Hook::Stop => probe.in_stop(move |_| ended()),
                _ => probe.in_cleanup(move |_| ended()),
            };
            probe.register(&env).hooks_end_within(Duration::from_secs(1)).build();
            add_pipeline(&env);
            let run = env.run();
            let report = if hook == Hook::Setup { failed(run) } else { run.unwrap() };
            let cause = report.first_cause.clone().expect("it is told");
            assert_eq!((cause.kind, cause.origin), (CauseKind::Timeout, Origin::Service { name: "db".into(), hook }));
            assert_eq!(report.cleanliness, Cleanliness::Clean, "{report}");
            assert_eq!(report.service("db").unwrap().state, ServiceState::Abandoned);
            assert_eq!(journal.count("db cleanup"), 1);
        }
    });
}

#[test]
fn contract_14_a_hook_that_ends_itself_is_waited_for_beyond_its_deadline() {
    leak_free(|_| {
        let env = Environment::local("grace");
        let journal = Journal::new();
        Probe::new("db", &journal)
            .in_setup(|cx| {
                std::thread::sleep(cx.remaining() + Duration::from_millis(20));
                Err(HookEnded("did not end by its deadline; its process is ended".into()).into())
            })
            .register(&env)
            .setup_timeout(Duration::from_millis(20))
            .hooks_end_within(Duration::from_secs(60))
            .build();
        add_pipeline(&env);
        let report = failed(env.run());
        assert_eq!(report.cleanliness, Cleanliness::Clean, "{report}");
        journal.assert_order(&["db setup", "db cleanup", "db drop"]);
    });
}
