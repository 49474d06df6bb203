//! Clauses 8, 9, 11 and 13: what each hook is for, what an attempt owes, and what hooks are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sage::{BoxError, Deadlines, Environment, HookContext, Outcome, ServiceState};

use super::{SHORT, add_endless_pipeline, add_held_pipeline, add_pipeline, cancelled, ended, running};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

#[test]
fn contract_08_stop_refuses_new_calls_and_cleanup_waits_for_those_inside() {
    leak_free(|_| {
        let env = Environment::local("stop");
        let (journal, inside, end) = (Journal::new(), Gate::new(), Gate::new());
        let (in_stop, stop_end) = (inside.clone(), end.clone());
        let db = Probe::new("db", &journal)
            .in_stop(move |_| {
                stop_end.pass();
                in_stop.open();
                Ok(())
            })
            .register(&env)
            .build();
        let record = Gate::new();
        add_held_pipeline(&env, &record);
        let job = env.submit().unwrap();
        record.await_arrivals(1);
        // A call from outside the job, whose end only `stop` brings about.
        let call = thread::spawn({
            let (db, journal, inside) = (db.clone(), journal.clone(), inside.clone());
            move || {
                let called = db.call(|_| {
                    inside.pass();
                    journal.note("call ended");
                });
                called.unwrap();
            }
        });
        inside.await_arrivals(1);
        record.open();
        end.await_arrivals(1);
        assert_eq!(db.state(), ServiceState::Stopping);
        assert!(db.call(Probed::touch).is_err(), "new calls are refused");
        end.open();
        let report = job.wait().unwrap();
        call.join().unwrap();
        journal.assert_order(&["db stop", "call ended", "db cleanup", "db cleanup ended", "db drop"]);
        assert_eq!(report.service("db").unwrap().calls, 1, "a refused call is none");
    });
}

#[test]
fn contract_09_a_failed_setup_is_cleaned_once_and_never_stopped() {
    leak_free(|_| {
        for panics in [false, true] {
            let env = Environment::local("setup");
            let journal = Journal::new();
            let actions = journal.clone();
            Probe::new("db", &journal)
                .in_setup(move |cx| {
                    let (first, second) = (actions.clone(), actions.clone());
                    cx.on_cleanup(move || first.note("first action"));
                    cx.on_cleanup(move || second.note("second action"));
                    assert!(!panics, "setup broke");
                    Err("setup broke".into())
                })
                .register(&env)
                .build();
            Probe::new("user", &journal).register(&env).after("db").build();
            add_pipeline(&env);
            let report = failed(env.run());
            assert_eq!(report.outcome, Outcome::Failed);
            assert!(report.left.is_empty(), "it failed cleanly: {report}");
            assert_eq!(report.service("db").unwrap().state, ServiceState::Cleaned);
            assert_eq!(report.service("user").unwrap().state, ServiceState::Registered);
            journal.assert_order(&["db setup", "db cleanup", "second action", "first action", "db drop"]);
            assert_eq!((journal.count("db stop"), journal.count("user constructor")), (0, 0));
        }
    });
}

#[test]
fn contract_09_what_a_constructor_acquired_before_it_failed_is_released() {
    leak_free(|_| {
        for panics in [false, true] {
            let env = Environment::local("constructor");
            let journal = Journal::new();
            let actions = journal.clone();
            Probe::new("db", &journal)
                .in_constructor(move |cx| {
                    let action = actions.clone();
                    cx.on_cleanup(move || action.note("released"));
                    assert!(!panics, "constructor broke");
                    Err("constructor broke".into())
                })
                .register(&env)
                .build();
            add_pipeline(&env);
            let report = failed(env.run());
            assert!(report.left.is_empty(), "it failed cleanly: {report}");
            let cause = report.first_cause.unwrap().to_string();
            assert!(cause.starts_with("service `db`, in its constructor: "), "{cause}");
            assert_eq!(journal.events(), ["db constructor", "released"], "there is nothing to clean or drop");
        }
    });
}

#[test]
fn contract_09_actions_run_after_cleanup_on_every_ordinary_end_and_may_register_more() {
    leak_free(|_| {
        let env = Environment::local("actions");
        let journal = Journal::new();
        let actions = journal.clone();
        Probe::new("db", &journal)
            .in_cleanup(move |cx| {
                let (cx_of_action, actions) = (cx.clone(), actions.clone());
                cx.on_cleanup(move || {
                    actions.note("outer");
                    cx_of_action.on_cleanup(move || actions.note("inner"));
                });
                Ok(())
            })
            .register(&env)
            .build();
        add_pipeline(&env);
        env.run().unwrap();
        journal.assert_order(&["db cleanup ended", "outer", "inner", "db drop"]);
    });
}

#[test]
fn contract_09_actions_run_though_cleanup_hangs() {
    leak_free(|watch| {
        // A backtrace takes longer than the deadline.
        std::panic::set_hook(Box::new(|_| {}));
        for fails in ["nothing", "an action", "all"] {
            let env = Environment::local("hung").deadlines(Deadlines::default());
            let (journal, gate) = (Journal::new(), Gate::new());
            let (actions, held, held_too) = (journal.clone(), gate.clone(), gate.clone());
            Probe::new("db", &journal)
                .in_constructor(move |cx| {
                    let (first, last, held) = (actions.clone(), actions.clone(), held_too.clone());
                    cx.on_cleanup(move || {
                        if fails == "all" {
                            held.pass();
                        }
                        first.note("first action");
                    });
                    cx.on_cleanup(move || {
                        last.note("last action");
                        assert!(fails != "an action", "an action broke");
                    });
                    Ok(())
                })
                .in_cleanup(move |_| {
                    held.pass();
                    Ok(())
                })
                .register(&env)
                .cleanup_timeout(SHORT)
                .build();
            Probe::new("other", &journal).register(&env).build();
            add_pipeline(&env);
            let error = env.run().unwrap_err();
            let report = error.report().unwrap();
            assert_eq!(report.service("db").unwrap().state, ServiceState::Abandoned);
            assert_eq!(report.service("other").unwrap().state, ServiceState::Cleaned);
            let left = report.left.iter().map(|left| left.why.as_str()).collect::<Vec<_>>().join("; ");
            assert!(left.contains("its cleanup did not come back"), "{left}");
            assert_eq!(left.contains("its on_cleanup failed: an action broke"), fails == "an action", "{left}");
            assert_eq!(left.contains("its on_cleanup did not come back"), fails == "all", "{left}");
            assert_eq!((journal.count("last action"), journal.count("first action")), (1, usize::from(fails != "all")));
            assert_eq!(journal.count("db drop"), 0, "`cleanup` may be using the value");
            gate.open();
            journal.await_events("db cleanup ended", 1);
            journal.await_events("first action", 1);
            watch.await_left(&[]);
        }
        drop(std::panic::take_hook());
    });
}

#[test]
fn contract_09_each_run_makes_a_new_value_and_cleans_it_once() {
    leak_free(|_| {
        let env = Environment::local("again");
        let journal = Journal::new();
        Probe::new("db", &journal).register(&env).build();
        add_pipeline(&env);
        for run in 1..=3 {
            env.run().unwrap();
            for event in ["db constructor", "db setup", "db stop", "db cleanup", "db drop"] {
                assert_eq!(journal.count(event), run);
            }
        }
    });
}

#[test]
fn contract_11_no_service_starts_once_another_has_failed() {
    leak_free(|_| {
        let env = Environment::local("no-start");
        let (journal, gate) = (Journal::new(), Gate::new());
        let held = gate.clone();
        Probe::new("slow", &journal)
            .in_setup(move |_| {
                held.pass();
                Ok(())
            })
            .register(&env)
            .build();
        Probe::new("after-slow", &journal).register(&env).after("slow").build();
        Probe::new("broken", &journal).in_setup(|_| Err("broke".into())).register(&env).build();
        let built = Arc::new(AtomicUsize::new(0));
        let counter = built.clone();
        env.from_iter([1]).sink(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        journal.await_events("broken drop", 1);
        gate.open();
        let report = failed(ended(job));
        assert!(report.left.is_empty(), "{report}");
        assert_eq!(report.service("slow").unwrap().state, ServiceState::Cleaned);
        assert_eq!(report.service("after-slow").unwrap().state, ServiceState::Registered);
        journal.assert_order(&["slow setup ended", "slow cleanup", "slow drop"]);
        assert_eq!((journal.count("after-slow constructor"), built.load(Ordering::SeqCst)), (0, 0));
    });
}

#[test]
fn contract_11_a_service_that_waits_for_another_to_start_is_told_when_that_will_not_happen() {
    leak_free(|_| {
        let env = Environment::local("no-start");
        let journal = Journal::new();
        let waiting = Gate::new();
        let callee = Arc::new(std::sync::OnceLock::new());
        let (used, at_call) = (callee.clone(), waiting.clone());
        Probe::new("user", &journal)
            .in_setup(move |_| {
                at_call.open();
                let callee: &sage::ServiceHandle<Probed> = used.get().expect("registered below");
                Ok(callee.call(Probed::touch)?)
            })
            .register(&env)
            .build();
        // `broken` never gets ready, so `callee`, which comes after it, never starts.
        Probe::new("broken", &journal)
            .in_setup(move |_| {
                waiting.pass();
                Err("broke".into())
            })
            .register(&env)
            .build();
        let registered = Probe::new("callee", &journal).register(&env).after("broken").build();
        assert!(callee.set(registered).is_ok());
        add_pipeline(&env);
        let started = Instant::now();
        let report = failed(env.run());
        assert!(started.elapsed() < Duration::from_secs(20), "it did not wait for the deadline of 60 s");
        assert_eq!(report.first_cause.as_ref().unwrap().to_string(), "service `broken`, in its setup: broke");
        assert_eq!(journal.count("callee constructor"), 0);
        assert_eq!((journal.count("user cleanup"), journal.count("broken cleanup")), (1, 1));
    });
}

#[test]
fn contract_11_a_call_made_while_stopping_starts_nothing() {
    leak_free(|_| {
        let env = Environment::local("stopping");
        let journal = Journal::new();
        let other = Arc::new(std::sync::OnceLock::new());
        let (used, noted) = (other.clone(), journal.clone());
        Probe::new("broken", &journal)
            .in_setup(|_| Err("broke".into()))
            .in_cleanup(move |_| {
                let other: &sage::ServiceHandle<Probed> = used.get().expect("registered below");
                noted.note(other.call(Probed::touch).unwrap_err());
                Ok(())
            })
            .register(&env)
            .build();
        let registered = Probe::new("other", &journal).register(&env).after("broken").build();
        assert!(other.set(registered).is_ok());
        add_pipeline(&env);
        failed(env.run());
        let events = journal.events();
        assert!(events.iter().any(|event| event.starts_with("service `other` ")), "{events:?}");
        assert_eq!(journal.count("other constructor"), 0);
    });
}

/// Notes the reason and the time left in every hook.
fn telling(name: &'static str, journal: &Journal) -> Probe {
    let note = |hook: &'static str| {
        let journal = journal.clone();
        move |cx: &HookContext| -> Result<(), BoxError> {
            let reason = cx.reason().map_or("none".to_owned(), ToString::to_string);
            journal.note(format_args!("{hook}: {reason}"));
            assert!(cx.remaining() > Duration::from_secs(80) && cx.remaining() <= Duration::from_secs(100));
            assert!(cx.deadline() <= Instant::now() + Duration::from_secs(100));
            Ok(())
        }
    };
    Probe::new(name, &Journal::new())
        .in_constructor(note("constructor"))
        .in_setup(note("setup"))
        .in_stop(note("stop"))
        .in_cleanup(note("cleanup"))
}

#[test]
fn contract_13_every_hook_is_told_the_reason_and_its_deadline() {
    leak_free(|_| {
        let hundred = Duration::from_secs(100);
        let deadlines = Deadlines { setup: hundred, stop: hundred, cleanup: hundred, ..Deadlines::default() };
        let told = |declare: fn(&Environment), end: fn(&Environment), limit: Option<Duration>| {
            let journal = Journal::new();
            let env = Environment::local("reasons").deadlines(deadlines);
            let env = if let Some(limit) = limit { env.time_limit(limit) } else { env };
            telling("db", &journal).register(&env).build();
            declare(&env);
            end(&env);
            let events = journal.events();
            assert_eq!(events[..2], ["constructor: none", "setup: none"]);
            events[2..].to_vec()
        };
        let both = |reason: &str| vec![format!("stop: {reason}"), format!("cleanup: {reason}")];
        let run = |env: &Environment| drop(env.run());
        assert_eq!(told(add_pipeline, run, None), both("end of input"));
        let failing = |env: &Environment| drop(env.from_iter([1]).try_sink(|_| Err("broke")));
        assert_eq!(told(failing, run, None), both("failure"));
        assert_eq!(told(add_endless_pipeline, run, Some(SHORT)), both("time limit"));
        let cancel = |env: &Environment| drop(cancelled(&running(env)));
        assert_eq!(told(add_endless_pipeline, cancel, None), both("cancel requested"));
        let drain = |env: &Environment| {
            let job = running(env);
            job.drain();
            job.wait().unwrap();
        };
        assert_eq!(told(add_endless_pipeline, drain, None), both("drain requested"));
    });
}

#[test]
fn contract_13_a_closing_operator_is_told_the_reason_and_its_deadline() {
    use sage::{CloseContext, Sink};
    struct Told(Journal);
    impl Sink for Told {
        type In = u64;
        fn write(&mut self, _record: u64) -> Result<(), BoxError> {
            Ok(())
        }
        fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
            self.0.note(format_args!("{}, deadline: {}", cx.reason(), cx.deadline().is_some()));
            Ok(())
        }
    }
    leak_free(|_| {
        let journal = Journal::new();
        let sink = |journal: &Journal| {
            let journal = journal.clone();
            move |_replica| Told(journal.clone())
        };
        let env = Environment::local("close");
        env.from_iter(0..3_u64).sink_to(sink(&journal));
        env.run().unwrap();
        for (end, of_source) in [(true, false), (false, false), (false, true)] {
            let env = Environment::local("close");
            let numbers = env.from_factory(|_| 0_u64..);
            if of_source {
                // The source's own chain fails; the sink is another task.
                numbers
                    .try_map(|n| if n == 9 { Err("broke") } else { Ok(n) })
                    .on_another_thread()
                    .sink_to(sink(&journal));
                failed(env.run());
                continue;
            }
            numbers.on_another_thread().sink_to(sink(&journal));
            let job = running(&env);
            if end {
                job.drain();
                job.wait().unwrap();
            } else {
                cancelled(&job);
            }
        }
        let expected =
            ["end of input, deadline: false", "drain requested, deadline: true", "cancel requested, deadline: true"];
        let events = journal.events();
        assert_eq!(events[..3], expected);
        assert!(events[3].starts_with("failure"), "{events:?}");
    });
}
