//! Clauses 12 and 15: whatever fails, wherever, by an error or a panic, is attributed, and keeps nothing else from its
//! cleanup.

use std::panic::panic_any;

use sage::{
    BoxError, CauseKind, CloseContext, Environment, JobReport, Next, Outcome, ServiceState, Source, SourceContext,
};

use super::{add_pipeline, left};
use crate::leaks::leak_free;
use crate::probes::{Counting, CountingSink, Journal, Probe, failed};

/// Fails by an error or a panic.
fn fault(panics: bool) -> Result<(), BoxError> {
    assert!(!panics, "broke");
    Err("broke".into())
}

/// Runs pipelines that fail, on threads and inline, beside a service that must be cleaned and a pipeline that must be
/// closed all the same.
#[track_caller]
fn run_faulty(declare: impl Fn(&Environment)) -> JobReport {
    let inline = run_faulty_in(Environment::local("faulty").inline(), &declare);
    let report = run_faulty_in(Environment::local("faulty"), &declare);
    let first = |report: &JobReport| report.first_cause.as_ref().expect("it failed").to_string();
    assert_eq!(first(&inline), first(&report));
    report
}

#[track_caller]
fn run_faulty_in(env: Environment, declare: impl Fn(&Environment)) -> JobReport {
    let journal = Journal::new();
    Probe::new("bystander", &journal).register(&env).build();
    let bystander = CountingSink::default();
    let counts = bystander.counts.clone();
    env.from_iter(0_u64..).on_another_thread().sink_to(move |_| bystander.clone()).named("beside");
    declare(&env);
    let report = failed(env.run());
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
    journal.assert_order(&["bystander stop", "bystander cleanup", "bystander drop"]);
    assert_eq!((counts.opened(), counts.closed()), (1, 1));
    report
}

#[track_caller]
fn assert_first_cause(report: &JobReport, place: &str, panics: bool) {
    let cause = report.first_cause.as_ref().expect("it failed");
    assert_eq!(cause.place().to_string(), place);
    assert_eq!(cause.kind, if panics { CauseKind::Panic } else { CauseKind::Error });
    assert_eq!(cause.message, "broke");
}

#[test]
fn contract_15_a_failing_function_is_attributed_to_its_operator_and_record() {
    leak_free(|_| {
        for panics in [false, true] {
            let report = run_faulty(|env| {
                let fails = move |n| if n == 7 { fault(panics).map(|()| n) } else { Ok(n) };
                env.from_iter(1..=20_u64).on_another_thread().map(|n| n).try_map(fails).named("bad").sink(|_| {});
            });
            assert_first_cause(&report, "operator `bad`, record 7", panics);
            let bad = report.operator("bad").unwrap();
            assert_eq!((bad.records_in, bad.failed, bad.records_out), (7, 1, 6));
        }
    });
}

#[test]
fn contract_15_a_panic_in_every_kind_of_function_names_its_operator() {
    leak_free(|_| {
        let assert_named = |declare: fn(&Environment)| {
            let report = run_faulty(declare);
            let cause = report.first_cause.as_ref().unwrap();
            assert_eq!(cause.kind, CauseKind::Panic, "{report}");
            assert!(cause.place().to_string().starts_with("operator `bad`"), "{report}");
        };
        assert_named(|env| drop(env.from_iter([1]).map(|_| panic!("map")).named("bad").sink(|()| {})));
        assert_named(|env| drop(env.from_iter([1]).filter(|_| panic!("filter")).named("bad").sink(|_| {})));
        assert_named(|env| drop(env.from_iter([1]).inspect(|_| panic!("inspect")).named("bad").sink(|_| {})));
        assert_named(|env| {
            let exploding = |_| std::iter::from_fn(|| -> Option<u64> { panic!("flat-map") });
            env.from_iter([1]).flat_map(exploding).named("bad").sink(|_| {});
        });
        assert_named(|env| {
            env.from_iter([1])
                .flat_map_into(|_, _: &mut sage::Output<'_, u64>| panic!("into"))
                .named("bad")
                .sink(|_| {});
        });
        assert_named(|env| drop(env.from_iter([1]).fold(0, |_, _| panic!("fold")).named("bad").sink(|_: u64| {})));
        assert_named(|env| drop(env.from_iter([1, 2]).reduce(|_, _| panic!("reduce")).named("bad").sink(|_| {})));
        assert_named(|env| {
            let key = |_: &u64| -> u64 { panic!("key") };
            env.from_iter([1]).key_by(key).count().named("bad").sink(|_| {});
        });
        assert_named(|env| {
            let key = |_: &u64| -> u64 { panic!("key") };
            env.from_iter([1]).key_by(key).count().parallelism(3).named("bad").sink(|_| {});
        });
        assert_named(|env| drop(env.from_iter([1]).sink(|_| panic!("sink")).named("bad")));
        assert_named(|env| {
            let iterator = std::iter::from_fn(|| -> Option<u64> { panic!("iterator") });
            env.from_iter(iterator).named("bad").sink(|_| {});
        });
        assert_named(|env| {
            let generator = || -> Result<Option<u64>, BoxError> { panic!("generator") };
            env.from_generator(generator).named("bad").sink(|_| {});
        });
    });
}

#[test]
fn contract_15_a_failing_key_function_before_an_exchange_counts_as_its_operators_failure() {
    leak_free(|_| {
        let report = run_faulty(|env| {
            let key = |n: &u64| if *n == 3 { panic!("broke") } else { *n };
            env.from_iter(1..10_u64).key_by(key).count().parallelism(2).named("bad").sink(|_| {});
        });
        assert_first_cause(&report, "operator `bad`, record 3", true);
        assert_eq!(report.operator("bad").unwrap().failed, 1);
    });
}

#[test]
fn contract_15_a_failing_hook_of_an_operator_or_sink_is_attributed_to_it() {
    leak_free(|_| {
        for panics in [false, true] {
            for (fail_in, while_) in [("open", "opening"), ("finish", "finishing"), ("close", "closing")] {
                let report = run_faulty(|env| {
                    let bad = Counting { fail_in, panics, ..Counting::default() };
                    env.from_iter([1_u64]).operator(move || bad.clone()).named("bad").sink(|_| {});
                });
                let cause = report.first_cause.as_ref().unwrap();
                assert_eq!(cause.place().to_string(), format!("operator `bad`, while {while_}"));
                assert_eq!(cause.kind, if panics { CauseKind::Panic } else { CauseKind::Error });
                assert_eq!(report.left.is_empty(), fail_in != "close", "what was not closed is left: {report}");
            }
            for (fail_in, place) in [
                ("open", "operator `bad`, while opening"),
                ("write", "operator `bad`, record 1"),
                ("flush", "operator `bad`, while finishing"),
                ("finish", "operator `bad`, while finishing"),
                ("close", "operator `bad`, while closing"),
            ] {
                let report = run_faulty(|env| {
                    let bad = CountingSink { fail_in, panics, ..CountingSink::default() };
                    env.from_iter([1_u64]).sink_to(move |_| bad.clone()).named("bad");
                });
                assert_eq!(report.first_cause.as_ref().unwrap().place().to_string(), place);
            }
        }
    });
}

/// A source that fails in one of its hooks.
#[derive(Clone)]
struct BadSource {
    fail_in: &'static str,
    panics: bool,
    left: u64,
    journal: Journal,
}

impl BadSource {
    fn hook(&self, hook: &str) -> Result<(), BoxError> {
        self.journal.note(hook);
        if self.fail_in == hook { fault(self.panics) } else { Ok(()) }
    }
}

impl Source for BadSource {
    type Item = u64;
    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        self.hook("open")
    }
    fn next(&mut self, _cx: &SourceContext) -> Result<Next<u64>, BoxError> {
        self.hook("next")?;
        self.left = self.left.saturating_sub(1);
        Ok(if self.left == 0 { Next::End } else { Next::Record(self.left) })
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.hook("close")
    }
}

#[test]
fn contract_15_a_failing_source_is_named_and_closed_once() {
    leak_free(|_| {
        for panics in [false, true] {
            for fail_in in ["open", "next", "close"] {
                let journal = Journal::new();
                let bad = BadSource { fail_in, panics, left: 3, journal: journal.clone() };
                let report = run_faulty(|env| {
                    let bad = bad.clone();
                    env.from_source(move |_| bad.clone()).named("bad").sink(|_| {});
                });
                let cause = report.first_cause.as_ref().unwrap();
                assert!(cause.place().to_string().starts_with("operator `bad`"), "{report}");
                assert_eq!(cause.message, "broke");
                assert_eq!((journal.count("open"), journal.count("close")), (2, 2), "once in each of the two runs");
            }
        }
    });
}

#[test]
fn contract_15_a_panic_with_any_payload_is_caught() {
    struct Explosive;
    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("the payload explodes as well");
        }
    }
    leak_free(|_| {
        let report = run_faulty(|env| drop(env.from_iter([1]).map(|_| panic_any(42)).named("bad").sink(|()| {})));
        assert_eq!(report.first_cause.unwrap().message, "a value that is not a string");
        let report =
            run_faulty(|env| drop(env.from_iter([1]).map(|_| panic_any(Explosive)).named("bad").sink(|()| {})));
        assert_eq!(report.first_cause.unwrap().kind, CauseKind::Panic);
    });
}

/// A value whose drop panics, unless it is one that was taken apart.
struct PanicsInDrop(bool);

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if self.0 && !std::thread::panicking() {
            panic!("drop broke");
        }
    }
}

#[test]
fn contract_15_a_panic_with_an_error_is_that_error() {
    leak_free(|_| {
        let env = Environment::local("thrown");
        env.from_iter(1..5_i32)
            .key_by(|n| *n)
            .fold(0, |_, n| {
                if n == 3 {
                    let error: BoxError = std::io::Error::other("no threes").into();
                    std::panic::resume_unwind(Box::new(error));
                }
            })
            .collect();
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap();
        assert_eq!((cause.kind, &*cause.message), (CauseKind::Error, "no threes"), "{report}");
        assert!(cause.error.as_ref().is_some_and(|error| error.is::<std::io::Error>()), "{report}");
    });
}

#[test]
fn contract_15_a_panic_in_the_drop_of_a_record_is_caught() {
    leak_free(|_| {
        let report = run_faulty(|env| {
            env.from_iter(0..10).map(|n| PanicsInDrop(n == 4)).on_another_thread().sink(drop).named("bad");
        });
        let cause = report.first_cause.unwrap();
        assert_eq!(cause.to_string(), "operator `bad`, record 5: panicked: drop broke");
        // Records that nobody takes any more are dropped as well.
        let report = run_faulty(|env| {
            env.from_iter(0..).map(|_| PanicsInDrop(true)).on_another_thread().sink(std::mem::forget);
            env.from_iter(0..100).try_sink(|n| if n == 99 { Err("broke") } else { Ok(()) });
        });
        assert!(report.first_cause.is_some());
    });
}

#[test]
fn contract_15_a_panic_in_a_factory_is_an_error_and_no_unwinding() {
    leak_free(|_| {
        let assert_caught = |declare: fn(&Environment)| {
            let env = Environment::local("factory");
            let journal = Journal::new();
            Probe::new("db", &journal).register(&env).build();
            declare(&env);
            let error = env.run().unwrap_err().to_string();
            assert!(error.contains("bad") && error.contains("factory broke"), "{error}");
            assert_eq!(journal.count("db constructor"), journal.count("db drop"));
            assert!(env.run().is_err(), "the environment is as usable as before");
        };
        assert_caught(|env| {
            drop(env.from_factory(|_| -> [u64; 1] { panic!("factory broke") }).named("bad").sink(|_| {}))
        });
        assert_caught(|env| {
            env.from_source(|_| -> BadSource { panic!("factory broke") }).named("bad").sink(|_| {});
        });
        assert_caught(|env| {
            env.from_collection(vec![1]).operator(|| -> Counting { panic!("factory broke") }).named("bad").sink(|_| {});
        });
        assert_caught(|env| {
            env.from_collection(vec![1]).sink_to(|_| -> CountingSink { panic!("factory broke") }).named("bad");
        });
    });
}

#[test]
fn contract_15_a_failing_hook_of_a_service_is_attributed_to_it() {
    leak_free(|_| {
        for panics in [false, true] {
            type Declare = fn(Probe, bool) -> Probe;
            let hooks: [(&str, Declare, ServiceState); 4] = [
                ("constructor", |probe, panics| probe.in_constructor(move |_| fault(panics)), ServiceState::Cleaned),
                ("setup", |probe, panics| probe.in_setup(move |_| fault(panics)), ServiceState::Cleaned),
                ("stop", |probe, panics| probe.in_stop(move |_| fault(panics)), ServiceState::Cleaned),
                ("cleanup", |probe, panics| probe.in_cleanup(move |_| fault(panics)), ServiceState::CleanupFailed),
            ];
            for (hook, declare, state) in hooks {
                let env = Environment::local("hooks");
                let journal = Journal::new();
                declare(Probe::new("bad", &journal), panics).register(&env).build();
                add_pipeline(&env);
                let report = failed(env.run());
                assert_first_cause(&report, &format!("service `bad`, in its {hook}"), panics);
                assert_eq!(report.service("bad").unwrap().state, state, "{hook}: {report}");
                let starting = hook == "constructor" || hook == "setup";
                assert_eq!(report.outcome, if starting { Outcome::Failed } else { Outcome::Succeeded });
                assert_eq!(report.left.is_empty(), starting, "{hook}: {report}");
                let constructed = usize::from(hook != "constructor");
                assert_eq!((journal.count("bad cleanup"), journal.count("bad drop")), (constructed, constructed));
            }
        }
    });
}

#[test]
fn contract_15_a_panic_in_the_drop_of_a_service_is_reported() {
    leak_free(|_| {
        let env = Environment::local("drop");
        let journal = Journal::new();
        Probe::new("bad", &journal).in_drop(|| panic!("broke")).register(&env).build();
        add_pipeline(&env);
        let report = failed(env.run());
        assert_first_cause(&report, "service `bad`, in its drop", true);
        assert_eq!(left(&report), ["service `bad`"]);
    });
}

#[test]
fn contract_15_a_call_that_panics_fails_its_operator_and_leaves_the_service_usable() {
    leak_free(|_| {
        let env = Environment::local("calls");
        let journal = Journal::new();
        let db = Probe::new("db", &journal).register(&env).build();
        env.from_iter(0..10_u64)
            .try_map(move |n| db.call(|_| if n == 3 { panic!("call broke") } else { n }))
            .named("caller")
            .sink(|_| {});
        let report = failed(env.run());
        assert_eq!(
            report.first_cause.as_ref().unwrap().to_string(),
            "operator `caller`, record 4: panicked: call broke"
        );
        let db = report.service("db").unwrap();
        assert_eq!((db.state, db.calls, db.errors), (ServiceState::Cleaned, 4, 1));
    });
}

#[test]
fn contract_12_a_cleanup_that_panics_keeps_no_other_from_running() {
    leak_free(|_| {
        for panics in [false, true] {
            let env = Environment::local("cleanups");
            let journal = Journal::new();
            Probe::new("base", &journal).register(&env).build();
            Probe::new("bad", &journal).in_cleanup(move |_| fault(panics)).register(&env).after("base").build();
            Probe::new("top", &journal).register(&env).after("bad").build();
            Probe::new("other", &journal).register(&env).build();
            add_pipeline(&env);
            let report = failed(env.run());
            assert_eq!(left(&report), ["service `bad`"]);
            for name in ["base", "bad", "top", "other"] {
                journal.assert_order(&[&format!("{name} stop"), &format!("{name} cleanup"), &format!("{name} drop")]);
            }
        }
    });
}

#[test]
fn contract_12_an_action_that_panics_keeps_no_other_from_running() {
    leak_free(|_| {
        let env = Environment::local("actions");
        let journal = Journal::new();
        let actions = journal.clone();
        Probe::new("bad", &journal)
            .in_setup(move |cx| {
                let (first, last) = (actions.clone(), actions.clone());
                cx.on_cleanup(move || first.note("first"));
                cx.on_cleanup(|| panic!("broke"));
                cx.on_cleanup(move || last.note("last"));
                Ok(())
            })
            .in_cleanup(|_| Err("cleanup too".into()))
            .register(&env)
            .build();
        add_pipeline(&env);
        let report = failed(env.run());
        journal.assert_order(&["bad cleanup ended", "last", "first", "bad drop"]);
        assert_eq!(report.service("bad").unwrap().state, ServiceState::CleanupFailed);
        let causes: Vec<_> = report.first_cause.iter().chain(&report.attached).map(ToString::to_string).collect();
        assert_eq!(causes.len(), 2, "neither failure is lost: {causes:?}");
    });
}

#[test]
fn contract_12_a_close_that_panics_keeps_no_other_from_running() {
    leak_free(|_| {
        let env = Environment::local("closes");
        let all: Vec<_> = (0..3).map(|_| Counting { fail_in: "close", panics: true, ..Counting::default() }).collect();
        let counts: Vec<_> = all.iter().map(|counting| counting.counts.clone()).collect();
        let mut all = all.into_iter();
        let mut next = move || all.next().unwrap();
        let (a, b, c) = (next(), next(), next());
        env.from_iter([1_u64])
            .operator(move || a.clone())
            .operator(move || b.clone())
            .operator(move || c.clone())
            .sink(|_| {});
        let report = failed(env.run());
        assert!(counts.iter().all(|counts| counts.closed() == 1));
        assert_eq!(report.attached.len(), 2);
    });
}
