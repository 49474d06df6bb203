//! Clauses 6 and 7: services start in dependency order and stop in the reverse, after every task.

use std::sync::{Arc, Barrier, OnceLock};

use sage::{CallError, Environment, Outcome, ServiceHandle};

use super::add_pipeline;
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

#[test]
fn contract_06_services_start_in_dependency_order_and_stop_in_the_reverse() {
    leak_free(|_| {
        let env = Environment::local("order");
        let journal = Journal::new();
        // Registered in the wrong order, declared by name and by handle.
        Probe::new("top", &journal).register(&env).after("left").after("right").build();
        let bottom = Probe::new("bottom", &journal).register(&env).build();
        Probe::new("left", &journal).register(&env).after(&bottom).build();
        Probe::new("right", &journal).register(&env).after("bottom").build();
        let records = journal.clone();
        env.from_collection(vec![()]).sink(move |()| records.note("record"));
        env.run().unwrap();
        for side in ["left", "right"] {
            let event = |what: &str| format!("{side} {what}");
            journal.assert_order(&[
                "bottom setup ended",
                &event("constructor"),
                &event("setup ended"),
                "top constructor",
                "top setup ended",
                "record",
                "top stop",
                "top cleanup ended",
                "top drop",
                &event("stop"),
                &event("cleanup ended"),
                &event("drop"),
                "bottom stop",
                "bottom drop",
            ]);
        }
    });
}

#[test]
fn contract_06_independent_services_start_and_stop_in_parallel() {
    leak_free(|_| {
        let env = Environment::local("parallel");
        let journal = Journal::new();
        let (starting, cleaning) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
        for name in ["a", "b", "c"] {
            let (starting, cleaning) = (starting.clone(), cleaning.clone());
            // Each waits for the other two: one after the other, none would ever get on.
            Probe::new(name, &journal)
                .in_setup(move |_| {
                    starting.wait();
                    Ok(())
                })
                .in_cleanup(move |_| {
                    cleaning.wait();
                    Ok(())
                })
                .register(&env)
                .build();
        }
        add_pipeline(&env);
        env.run().unwrap();
    });
}

#[test]
fn contract_06_no_record_is_read_before_every_service_is_ready() {
    leak_free(|_| {
        let env = Environment::local("slow-setup");
        let journal = Journal::new();
        let gate = Gate::new();
        let held = gate.clone();
        Probe::new("slow", &journal)
            .in_setup(move |_| {
                held.pass();
                Ok(())
            })
            .register(&env)
            .build();
        Probe::new("fast", &journal).register(&env).build();
        let records = journal.clone();
        env.from_iter([()]).inspect(move |()| records.note("record")).sink(|()| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        journal.await_events("fast setup ended", 1);
        gate.open();
        job.wait().unwrap();
        journal.assert_order(&["slow setup ended", "record", "slow stop"]);
    });
}

#[test]
fn contract_06_a_callee_started_for_a_nested_call_still_waits_for_what_it_depends_on() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("nested");
            let env = if inline { env.inline() } else { env };
            let journal = Journal::new();
            let middle: Arc<OnceLock<ServiceHandle<Probed>>> = Default::default();
            let calling = Gate::new();
            let (used, at_call) = (middle.clone(), calling.clone());
            Probe::new("user", &journal)
                .in_setup(move |_| {
                    at_call.open();
                    Ok(used.get().expect("registered below").call(Probed::touch)?)
                })
                .register(&env)
                .build();
            let registered = Probe::new("middle", &journal).register(&env).after("base").build();
            assert!(middle.set(registered).is_ok());
            Probe::new("base", &journal)
                .in_setup(move |_| {
                    // On threads, the nested call has been made before this is ready.
                    if !inline {
                        calling.pass();
                    }
                    Ok(())
                })
                .register(&env)
                .build();
            add_pipeline(&env);
            env.run().unwrap();
            journal.assert_order(&["base setup ended", "middle constructor", "middle call", "user setup ended"]);
            journal.assert_order(&["user cleanup ended", "middle stop", "middle cleanup ended", "base stop"]);
        }
    });
}

#[test]
fn contract_05_a_service_that_calls_itself_while_it_starts_gets_a_cyclic_call_error() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("self");
            let env = if inline { env.inline() } else { env };
            let journal = Journal::new();
            let own: Arc<OnceLock<ServiceHandle<Probed>>> = Default::default();
            let (used, seen) = (own.clone(), journal.clone());
            let registered = Probe::new("own", &journal)
                .in_setup(move |_| {
                    let refused = used.get().expect("registered below").call(Probed::touch).unwrap_err();
                    assert!(matches!(refused, CallError::CyclicCall { .. }), "{refused}");
                    seen.note("refused");
                    Ok(())
                })
                .register(&env)
                .build();
            assert!(own.set(registered).is_ok());
            add_pipeline(&env);
            env.run().unwrap();
            assert_eq!(journal.count("refused"), 1);
        }
    });
}

#[test]
fn contract_05_services_that_call_each_other_while_they_start_get_a_cyclic_call_error_not_a_hang() {
    leak_free(|_| {
        let env = Environment::local("mutual");
        let journal = Journal::new();
        let handles: Arc<[OnceLock<ServiceHandle<Probed>>; 2]> = Default::default();
        let both = Arc::new(Barrier::new(2));
        for (own, name) in ["a", "b"].into_iter().enumerate() {
            let (used, both) = (handles.clone(), both.clone());
            let registered = Probe::new(name, &journal)
                .in_setup(move |_| {
                    both.wait();
                    Ok(used[1 - own].get().expect("registered below").call(Probed::touch)?)
                })
                .register(&env)
                .build();
            assert!(handles[own].set(registered).is_ok());
        }
        add_pipeline(&env);
        let report = failed(env.run());
        assert_eq!(report.outcome, Outcome::Failed);
        let cyclic = report.first_cause.iter().chain(&report.attached).filter(|cause| {
            let error = cause.error.as_ref().and_then(|error| error.downcast_ref::<CallError>());
            matches!(error, Some(CallError::CyclicCall { .. }))
        });
        assert_eq!(cyclic.count(), 1, "one of the two closed the cycle: {report}");
        assert_eq!((journal.count("a cleanup"), journal.count("b cleanup")), (1, 1));
    });
}

#[test]
fn contract_07_an_operator_that_closes_can_still_call_its_service() {
    use sage::{BoxError, CloseContext, Emit, Fault, Operator};
    struct Closer(ServiceHandle<Probed>);
    impl Operator for Closer {
        type In = u64;
        type Out = u64;
        fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
            out.emit(record)
        }
        fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
            Ok(self.0.call(Probed::touch)?)
        }
    }
    leak_free(|_| {
        for fails in [false, true] {
            let env = Environment::local("close");
            let journal = Journal::new();
            let db = Probe::new("db", &journal).register(&env).build();
            env.from_iter(0..10_u64)
                .operator(move || Closer(db.clone()))
                .parallelism(3)
                .try_sink(move |n| if fails && n == 5 { Err("broke") } else { Ok(()) });
            let run = env.run();
            assert_eq!(run.is_ok(), !fails);
            assert_eq!(journal.count("db call"), 3);
            let events = journal.events();
            let last_call = events.iter().rposition(|event| event == "db call").unwrap();
            assert!(last_call < journal.position("db stop"), "{events:?}");
        }
    });
}

#[test]
fn contract_07_a_service_serves_until_every_service_that_uses_it_is_cleaned() {
    leak_free(|_| {
        let env = Environment::local("users");
        let journal = Journal::new();
        let base = Probe::new("base", &journal).register(&env).build();
        let (in_stop, in_cleanup) = (base.clone(), base.clone());
        Probe::new("user", &journal)
            .in_stop(move |_| Ok(in_stop.call(Probed::touch)?))
            .in_cleanup(move |_| Ok(in_cleanup.call(Probed::touch)?))
            .register(&env)
            .after(&base)
            .build();
        add_pipeline(&env);
        env.run().unwrap();
        assert_eq!(journal.count("base call"), 2);
        journal.assert_order(&["user drop", "base stop"]);
    });
}

#[test]
fn contract_07_a_use_that_is_first_seen_in_a_record_counts_for_the_stop_order() {
    leak_free(|_| {
        let env = Environment::local("observed");
        let journal = Journal::new();
        // Registered first, `base` would be stopped first if nobody knew that it is used.
        let base = Probe::new("base", &journal).register(&env).build();
        let user = Probe::new("user", &journal).register(&env).build();
        env.from_collection(vec![()])
            .try_map(move |()| user.call(|_| base.call(Probed::touch)).flatten())
            .sink(|()| {});
        for _ in 0..20 {
            env.run().unwrap();
        }
        let events = journal.events();
        for run in events.chunks(events.len() / 20) {
            let at = |event: &str| run.iter().position(|noted| noted == event).unwrap();
            assert!(at("user drop") < at("base stop"), "{run:?}");
        }
    });
}

#[test]
fn contract_06_a_long_chain_of_services_starts_and_stops_in_order() {
    leak_free(|_| {
        let env = Environment::local("chain");
        let journal = Journal::new();
        let names: Vec<&'static str> = (0..60).map(|nth| -> &'static str { format!("s{nth}").leak() }).collect();
        // Registered from the end, so that the order of registration is of no help.
        for nth in (0..names.len()).rev() {
            let builder = Probe::new(names[nth], &journal).register(&env);
            if nth == 0 {
                builder.build()
            } else {
                builder.after(names[nth - 1]).build()
            };
        }
        add_pipeline(&env);
        env.run().unwrap();
        let started = names.iter().map(|name| format!("{name} setup"));
        let stopped = names.iter().rev().map(|name| format!("{name} cleanup"));
        let expected: Vec<String> = started.chain(stopped).collect();
        journal.assert_order(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    });
}

#[test]
fn contract_06_a_service_that_fails_to_start_for_a_nested_call_fails_the_job_even_if_its_caller_goes_on() {
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("nested");
            let env = if inline { env.inline() } else { env };
            let journal = Journal::new();
            let bad: Arc<OnceLock<ServiceHandle<Probed>>> = Default::default();
            let (used, records) = (bad.clone(), journal.clone());
            Probe::new("user", &journal)
                .in_setup(move |_| {
                    assert!(used.get().expect("registered below").call(Probed::touch).is_err());
                    Ok(())
                })
                .register(&env)
                .build();
            let registered =
                Probe::new("bad", &journal).in_setup(|_| Err("broke".into())).register(&env).after("base").build();
            assert!(bad.set(registered).is_ok());
            Probe::new("base", &journal).register(&env).build();
            env.from_collection(vec![()]).sink(move |()| records.note("record"));
            let report = failed(env.run());
            assert_eq!(report.outcome, Outcome::Failed, "{report}");
            assert_eq!(report.first_cause.as_ref().unwrap().to_string(), "service `bad`, in its setup: broke");
            assert!(report.left.is_empty(), "{report}");
            assert_eq!(journal.count("record"), 0);
            for name in ["user", "bad", "base"] {
                journal.assert_order(&[&format!("{name} setup"), &format!("{name} cleanup"), &format!("{name} drop")]);
            }
            journal.assert_order(&["bad drop", "base stop"]);
        }
    });
}
