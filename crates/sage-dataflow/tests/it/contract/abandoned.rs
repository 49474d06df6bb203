//! Clauses 7a and 14: what does not come back is given up at its deadline, named, and nothing is freed under it.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sage::{CauseKind, Cleanliness, Environment, JobState, Outcome, ServiceState, SubmitError};

use super::{SHORT, add_pipeline, assert_in_time, await_status, impatient, left};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

#[test]
fn contract_07a_a_task_that_never_comes_back_is_named_and_its_later_calls_are_refused() {
    leak_free(|watch| {
        let env = Environment::local("stuck").deadlines(impatient());
        let (journal, gate) = (Journal::new(), Gate::new());
        let db = Probe::new("db", &journal).register(&env).build();
        let (held, later) = (gate.clone(), journal.clone());
        env.from_collection(vec![1, 2, 3])
            .named("stuck")
            .map(move |_| {
                held.pass();
                later.note(db.call(Probed::touch).unwrap_err());
            })
            .named("holder")
            .on_another_thread()
            .sink(|()| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        let report = failed(job.wait());
        assert_in_time(&report);
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Cancelled, Cleanliness::Unclean));
        assert_eq!(left(&report), ["task `stuck`"]);
        assert!(report.left[0].why.contains("stuck → holder") && report.left[0].why.contains("200ms"), "{report}");
        // The service could end: nobody was inside.
        assert_eq!(report.service("db").unwrap().state, ServiceState::Cleaned);
        journal.assert_order(&["db stop", "db cleanup", "db drop"]);
        watch.expect_left(&["stuck"]);
        let error = env.submit().map(drop).unwrap_err();
        assert!(matches!(&error, SubmitError::LeftBehind { left, .. } if left == "task `stuck`"), "{error}");
        gate.open();
        journal.await_events("service `db` is not serving: it is cleaned", 1);
    });
}

#[test]
fn contract_07a_a_service_with_a_call_inside_is_abandoned_and_its_value_is_not_freed() {
    leak_free(|watch| {
        let env = Environment::local("stuck").deadlines(impatient());
        let (journal, gate) = (Journal::new(), Gate::new());
        let probe = || Some("  in the dark".to_owned());
        let db = Probe::new("db", &journal).register(&env).stop_timeout(SHORT).where_calls_stuck(probe).build();
        let (held, later) = (gate.clone(), journal.clone());
        env.from_iter([1])
            .named("caller")
            .map(move |_| {
                db.call(|probed| {
                    held.pass();
                    // The value is still there, whatever has become of the job.
                    probed.touch();
                })
                .unwrap();
                later.note(db.call(Probed::touch).unwrap_err());
            })
            .sink(|()| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        let report = failed(job.wait());
        assert_eq!(left(&report), ["task `caller`", "service `db`"]);
        assert!(report.left[1].why.contains("1 call was still inside"), "{report}");
        let told = "1 call was still inside; its value is not freed under them, here:\n  in the dark";
        assert!(report.attached.iter().any(|cause| cause.message == told), "{report}");
        assert_eq!(report.service("db").unwrap().state, ServiceState::Abandoned);
        journal.assert_order(&["db stop", "db cleanup"]);
        watch.expect_left(&["caller"]);
        gate.open();
        journal.await_events("service `db` is not serving: it is abandoned", 1);
        assert_eq!((journal.count("db call"), journal.count("db drop")), (1, 0));
    });
}

#[test]
fn contract_07a_a_call_in_flight_when_the_job_fails_ends_before_its_service_stops() {
    leak_free(|_| {
        let env = Environment::local("in-flight");
        let (journal, inside, failing) = (Journal::new(), Gate::new(), Gate::new());
        let db = Probe::new("db", &journal).register(&env).build();
        let (held, noted) = (inside.clone(), journal.clone());
        env.from_iter([1])
            .try_map(move |_| {
                db.call(|_| {
                    held.pass();
                    noted.note("call ended");
                })
            })
            .sink(|()| {});
        let at_fault = failing.clone();
        env.from_iter([1])
            .try_sink(move |_| {
                at_fault.pass();
                Err("broke")
            })
            .named("bad");
        let job = env.submit().unwrap();
        inside.await_arrivals(1);
        failing.open();
        await_status(&job, JobState::Draining);
        inside.open();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Failed, Cleanliness::Clean));
        assert_eq!(report.first_cause.unwrap().to_string(), "operator `bad`, record 1: broke");
        journal.assert_order(&["call ended", "db stop", "db cleanup", "db drop"]);
    });
}

#[test]
fn contract_14_a_setup_past_its_deadline_fails_the_job_and_is_cleaned_all_the_same() {
    leak_free(|watch| {
        let env = Environment::local("setup");
        let (journal, gate) = (Journal::new(), Gate::new());
        let held = gate.clone();
        Probe::new("base", &journal).register(&env).build();
        Probe::new("stuck", &journal)
            .in_setup(move |_| {
                held.pass();
                Ok(())
            })
            .register(&env)
            .after("base")
            .setup_timeout(SHORT)
            .build();
        Probe::new("user", &journal).register(&env).after("stuck").build();
        add_pipeline(&env);
        let report = failed(env.run());
        assert_in_time(&report);
        assert_eq!((report.outcome, left(&report)), (Outcome::Failed, vec!["service `stuck`"]));
        let cause = report.first_cause.as_ref().unwrap();
        assert_eq!(cause.kind, CauseKind::Timeout);
        assert_eq!(
            cause.to_string(),
            "service `stuck`, in its setup: did not come back within 200ms; its thread is left"
        );
        assert_eq!(report.service("stuck").unwrap().state, ServiceState::Abandoned);
        assert_eq!(report.service("user").unwrap().state, ServiceState::Registered);
        assert_eq!(report.service("base").unwrap().state, ServiceState::Cleaned);
        assert_eq!((journal.count("stuck cleanup"), journal.count("stuck drop")), (1, 0));
        journal.assert_order(&["stuck cleanup ended", "base stop"]);
        watch.expect_left(&["svc stuck"]);
        gate.open();
        journal.await_events("stuck setup ended", 1);
    });
}

#[test]
fn contract_14_the_host_is_asked_where_a_hook_is_stuck() {
    leak_free(|watch| {
        let (journal, gate, asked) = (Journal::new(), Gate::new(), Arc::new(Mutex::new(None)));
        let env = Environment::local("where").where_stuck({
            let asked = asked.clone();
            move |thread| {
                *asked.lock().unwrap() = Some(thread);
                Some("  in the dark".to_owned())
            }
        });
        let (held, stuck) = (gate.clone(), Arc::new(Mutex::new(None)));
        let here = stuck.clone();
        Probe::new("stuck", &journal)
            .in_setup(move |_| {
                // SAFETY: tells which thread this is.
                *here.lock().unwrap() = Some(unsafe { libc::pthread_self() });
                held.pass();
                Ok(())
            })
            .register(&env)
            .setup_timeout(SHORT)
            .build();
        add_pipeline(&env);
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap().to_string();
        assert!(cause.ends_with("its thread is left, here:\n  in the dark"), "{cause}");
        assert!(stuck.lock().unwrap().is_some() && *stuck.lock().unwrap() == *asked.lock().unwrap());
        watch.expect_left(&["svc stuck"]);
        gate.open();
        journal.await_events("stuck setup ended", 1);
    });
}

#[test]
fn contract_14_a_constructor_past_its_deadline_still_owes_its_cleanup_when_it_returns() {
    leak_free(|watch| {
        let env = Environment::local("constructor");
        let (journal, gate) = (Journal::new(), Gate::new());
        let (held, actions) = (gate.clone(), journal.clone());
        Probe::new("stuck", &journal)
            .in_constructor(move |cx| {
                let (early, late) = (actions.clone(), actions.clone());
                cx.on_cleanup(move || early.note("early action"));
                held.pass();
                cx.on_cleanup(move || late.note("late action"));
                Ok(())
            })
            .register(&env)
            .setup_timeout(SHORT)
            .build();
        add_pipeline(&env);
        let report = failed(env.run());
        assert_in_time(&report);
        assert_eq!(report.service("stuck").unwrap().state, ServiceState::Abandoned);
        assert_eq!(journal.events(), ["stuck constructor", "early action"], "what was acquired is released");
        watch.expect_left(&["svc stuck"]);
        gate.open();
        journal.await_events("stuck cleanup ended", 1);
        journal.await_events("late action", 1);
        watch.await_left(&[]);
        assert_eq!((journal.count("stuck setup"), journal.count("stuck cleanup")), (0, 1));
    });
}

#[test]
fn contract_14_a_constructor_that_fails_past_its_deadline_releases_what_it_acquired_since() {
    leak_free(|watch| {
        let env = Environment::local("constructor");
        let (journal, gate) = (Journal::new(), Gate::new());
        let (held, actions) = (gate.clone(), journal.clone());
        Probe::new("stuck", &journal)
            .in_constructor(move |cx| {
                held.pass();
                let late = actions.clone();
                cx.on_cleanup(move || late.note("late action"));
                panic!("and then it breaks");
            })
            .register(&env)
            .setup_timeout(SHORT)
            .build();
        add_pipeline(&env);
        failed(env.run());
        watch.expect_left(&["svc stuck"]);
        gate.open();
        journal.await_events("late action", 1);
        assert_eq!(journal.count("stuck cleanup"), 0, "there is no value to clean");
    });
}

#[test]
fn contract_14_a_stop_past_its_deadline_is_abandoned_and_cleaned_all_the_same() {
    leak_free(|watch| {
        let env = Environment::local("stop");
        let (journal, gate) = (Journal::new(), Gate::new());
        let held = gate.clone();
        Probe::new("base", &journal).register(&env).build();
        Probe::new("stuck", &journal)
            .in_stop(move |_| {
                held.pass();
                Ok(())
            })
            .register(&env)
            .after("base")
            .stop_timeout(SHORT)
            .build();
        add_pipeline(&env);
        let report = failed(env.run());
        assert_in_time(&report);
        assert_eq!((report.outcome, left(&report)), (Outcome::Succeeded, vec!["service `stuck`"]));
        assert_eq!(report.left[0].why, "its stop did not come back within 200ms; its thread is left");
        assert_eq!(report.service("stuck").unwrap().state, ServiceState::Abandoned);
        assert_eq!((journal.count("stuck cleanup"), journal.count("stuck drop")), (1, 0));
        journal.assert_order(&["stuck cleanup ended", "base stop", "base cleanup", "base drop"]);
        watch.expect_left(&["svc stuck"]);
        gate.open();
        journal.await_events("stuck stop ended", 1);
        watch.await_left(&[]);
        assert_eq!(journal.count("stuck cleanup"), 1, "the late stop does not clean a second time");
    });
}

#[test]
fn contract_14_a_cleanup_past_its_deadline_is_abandoned_and_keeps_no_other_from_running() {
    leak_free(|watch| {
        let env = Environment::local("cleanup");
        let (journal, gate) = (Journal::new(), Gate::new());
        let (held, actions) = (gate.clone(), journal.clone());
        Probe::new("base", &journal).register(&env).build();
        Probe::new("stuck", &journal)
            .in_setup(move |cx| {
                let action = actions.clone();
                cx.on_cleanup(move || action.note("action"));
                Ok(())
            })
            .in_cleanup(move |_| {
                held.pass();
                Ok(())
            })
            .register(&env)
            .after("base")
            .cleanup_timeout(SHORT)
            .build();
        add_pipeline(&env);
        let report = failed(env.run());
        assert_in_time(&report);
        assert_eq!((report.outcome, left(&report)), (Outcome::Succeeded, vec!["service `stuck`"]));
        assert_eq!(report.left[0].why, "its cleanup did not come back within 200ms; its thread is left");
        assert_eq!(report.service("stuck").unwrap().state, ServiceState::Abandoned);
        journal.assert_order(&["stuck cleanup", "base stop", "base cleanup", "base drop"]);
        assert_eq!(journal.count("stuck drop"), 0);
        watch.expect_left(&["svc stuck"]);
        gate.open();
        journal.await_events("stuck cleanup ended", 1);
        journal.await_events("action", 1);
    });
}

#[test]
fn contract_14_slow_hooks_that_end_in_time_are_no_failure() {
    leak_free(|_| {
        let env = Environment::local("slow");
        let journal = Journal::new();
        let slow = |_: &sage::HookContext| {
            let until = Instant::now() + Duration::from_millis(30);
            while Instant::now() < until {
                thread::yield_now();
            }
            Ok(())
        };
        Probe::new("slow", &journal)
            .in_constructor(slow)
            .in_setup(slow)
            .in_stop(slow)
            .in_cleanup(slow)
            .register(&env)
            .build();
        add_pipeline(&env);
        let report = env.run().unwrap();
        let service = report.service("slow").unwrap();
        assert!(service.setup.unwrap() >= Duration::from_millis(60), "{report}");
        assert!(service.cleanup.unwrap() >= Duration::from_millis(60), "{report}");
        assert!(report.phases.start >= Duration::from_millis(60) && report.phases.stop >= Duration::from_millis(60));
    });
}

#[test]
fn contract_14_a_drop_or_an_action_past_its_deadline_is_abandoned_as_a_cleanup_is() {
    leak_free(|watch| {
        for drops in [false, true] {
            let env = Environment::local("drop");
            let (journal, gate) = (Journal::new(), Gate::new());
            let held = gate.clone();
            let stuck = Probe::new("stuck", &journal);
            let stuck = if drops {
                stuck.in_drop(move || held.pass())
            } else {
                stuck.in_setup(move |cx| {
                    let held = held.clone();
                    cx.on_cleanup(move || held.pass());
                    Ok(())
                })
            };
            stuck.register(&env).cleanup_timeout(SHORT).build();
            Probe::new("other", &journal).register(&env).build();
            add_pipeline(&env);
            let report = failed(env.run());
            assert_in_time(&report);
            assert_eq!((report.outcome, left(&report)), (Outcome::Succeeded, vec!["service `stuck`"]));
            assert_eq!(report.service("stuck").unwrap().state, ServiceState::Abandoned);
            journal.assert_order(&["other cleanup", "other drop"]);
            watch.expect_left(&["svc stuck"]);
            gate.open();
            watch.await_left(&[]);
        }
    });
}
