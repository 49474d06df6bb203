//! What a run tells: figures, words, JSON, log files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sage::{
    CallError, Called, Cause, Doing, Environment, JobHandle, JobMetrics, JobReport, JobView, Origin, Outcome,
    ServiceHandle, ServiceState, SubmitError,
};

use super::{add_pipeline, cancelled};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

/// Records in, out and failed, per operator.
fn figures(report: &JobReport) -> Vec<(&str, u64, u64, u64)> {
    report.operators.iter().map(|op| (op.name.as_str(), op.records_in, op.records_out, op.failed)).collect()
}

#[test]
fn the_figures_of_every_operator_are_exact() {
    leak_free(|_| {
        let env = Environment::local("figures");
        let [left, right] = env.from_iter(0..100_u64).filter(|n| n % 2 == 0).tee();
        left.flat_map(|n| [n, n]).parallelism(2).key_by(|n| n % 10).count().parallelism(3).sink(|_| {});
        right.take(7).union(env.from_iter(0..5)).sink(|_| {});
        let report = env.run().unwrap();
        let expected = [
            ("iter-1", 100, 100, 0),
            ("filter-1", 100, 50, 0),
            ("flat-map-1", 50, 100, 0),
            ("keyed-count-1", 100, 5, 0),
            ("sink-1", 5, 5, 0),
            ("take-1", 7, 7, 0),
            ("iter-2", 5, 5, 0),
            ("sink-2", 12, 12, 0),
        ];
        assert_eq!(figures(&report), expected);
        assert_eq!(report.operators.iter().map(|op| op.parallelism).collect::<Vec<_>>(), [1, 1, 2, 3, 3, 1, 1, 1]);
    });
}

#[test]
fn the_figures_of_a_failed_job_count_what_was_taken_and_what_failed() {
    leak_free(|_| {
        let env = Environment::local("figures");
        env.from_iter(0..100_u64).flat_map(|n| [n, n]).try_sink(|n| if n == 20 { Err("broke") } else { Ok(()) });
        let report = failed(env.run());
        assert_eq!(figures(&report), [("iter-1", 21, 21, 0), ("flat-map-1", 21, 41, 0), ("sink-1", 41, 40, 1)]);
    });
}

#[test]
fn live_metrics_show_the_work_so_far() {
    leak_free(|_| {
        let env = Environment::local("live");
        let (gate, journal) = (Gate::new(), Journal::new());
        let (held, seen) = (gate.clone(), journal.clone());
        env.from_iter(0..1000_u64)
            .inspect(move |n| {
                if *n == 500 {
                    held.pass()
                }
            })
            .on_another_thread()
            .sink(move |_| seen.note("seen"));
        let job = env.submit().unwrap();
        journal.await_events("seen", 500);
        let metrics = job.metrics();
        assert!(metrics.operator("iter-1").unwrap().records_out <= 501, "{metrics:?}");
        assert!(metrics.operator("nobody").is_none());
        gate.open();
        job.wait().unwrap();
        assert_eq!(job.metrics().operator("sink-1").unwrap().records_in, 1000);
    });
}

#[test]
fn live_metrics_of_a_service_are_those_of_the_report_so_far() {
    leak_free(|_| {
        let env = Environment::local("live");
        let (gate, journal) = (Gate::new(), Journal::new());
        let db = Probe::new("db", &journal).register(&env).build();
        Probe::new("idle", &journal).register(&env).build();
        let held = gate.clone();
        env.from_collection(vec![1, 2, 3]).try_sink(move |n| {
            db.try_call(|_| {
                if n == 2 {
                    held.pass();
                }
                if n == 1 { Err("one") } else { Ok(()) }
            })
            .or_else(|error| if n == 1 { Ok(()) } else { Err(error) })
        });
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let metrics = job.metrics();
        let db = metrics.service("db").unwrap();
        assert_eq!((db.state, db.calls, db.calls_inside, db.errors), (ServiceState::Ready, 2, 1, 1));
        assert!(db.setup.is_some() && db.cleanup.is_none());
        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<JobMetrics>(&json).unwrap(), metrics);
        gate.open();
        let report = job.wait().unwrap();
        let db = report.service("db").unwrap();
        assert_eq!((db.state, db.calls, db.calls_inside, db.errors), (ServiceState::Cleaned, 3, 0, 1));
        assert_eq!(job.metrics().services, report.services);
        env.run().unwrap();
        assert_eq!(job.metrics().services, report.services, "another job of the environment is not this one's affair");
    });
}

#[test]
fn a_call_may_say_that_it_has_failed_or_that_something_goes_on() {
    leak_free(|_| {
        let env = Environment::local("judged");
        let (gate, journal) = (Gate::new(), Journal::new());
        let db = Probe::new("db", &journal).register(&env).build();
        let held = gate.clone();
        env.from_iter(0..200_u64).try_sink(move |n| {
            let judge = |n: &u64| if n.is_multiple_of(2) { Called::Failed } else { Called::GoesOn };
            db.call_judged(|_| n, judge).map(|_| ())?;
            if n == 150 {
                let _ongoing = db.ongoing();
                held.pass();
            }
            Ok::<_, CallError>(())
        });
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let told = job.metrics().services.remove(0);
        assert_eq!((told.calls, told.calls_inside, told.errors), (151, 1, 76));
        gate.open();
        let report = job.wait().unwrap();
        let told = report.service("db").unwrap();
        assert_eq!((told.calls, told.calls_inside, told.errors), (200, 0, 100));
        assert!(told.p99.is_some(), "what went on is timed: {told:?}");
    });
}

#[test]
fn a_call_that_is_begun_and_ended_by_two_calls_counts_as_any_other() {
    leak_free(|_| {
        let env = Environment::local("begun");
        let (gate, journal) = (Gate::new(), Journal::new());
        let db = Probe::new("db", &journal).register(&env).build();
        let held = gate.clone();
        env.from_iter(0..200_u64).try_sink(move |n| {
            let call = db.begin_call()?;
            assert!(call.is_here());
            if n == 150 {
                held.pass();
            }
            match n % 4 {
                0 => call.end(Called::Failed),
                1 => drop(call),
                2 => call.end(Called::GoesOn),
                _ => call.end(Called::Returned),
            }
            Ok::<_, CallError>(())
        });
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let told = job.metrics().services.remove(0);
        assert_eq!((told.calls, told.calls_inside, told.errors), (151, 1, 76));
        gate.open();
        let report = job.wait().unwrap();
        let told = report.service("db").unwrap();
        assert_eq!((told.calls, told.calls_inside, told.errors), (200, 0, 100));
        assert!(told.p99.is_some(), "some of them are timed: {told:?}");
    });
}

#[test]
fn calls_and_errors_of_a_service_are_counted_over_all_handles_and_per_run() {
    leak_free(|_| {
        let env = Environment::local("calls");
        let journal = Journal::new();
        let db = Probe::new("db", &journal).register(&env).build();
        let fallible = db.clone();
        env.from_collection((0..300_u64).collect())
            .try_map(move |n| db.call(Probed::touch).map(|()| n))
            .parallelism(3)
            .map(move |n| fallible.try_call(|_| if n % 3 == 0 { Err("third") } else { Ok(()) }).is_ok())
            .sink(|_| {});
        for _ in 0..3 {
            let report = env.run().unwrap();
            let db = report.service("db").unwrap();
            assert_eq!((db.calls, db.errors), (600, 100));
            assert!(db.p50.unwrap() <= db.p99.unwrap());
            assert!(db.setup.is_some() && db.cleanup.is_some());
        }
    });
}

#[test]
fn calls_through_one_handle_from_many_threads_are_counted_exactly() {
    leak_free(|_| {
        let env = Environment::local("calls");
        let (journal, gate) = (Journal::new(), Gate::new());
        let db = Probe::new("db", &journal).register(&env).build();
        super::add_held_pipeline(&env, &gate);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        std::thread::scope(|scope| {
            let call = || (0..5000).for_each(|n| assert_eq!(db.call(|_| n).unwrap(), n));
            let threads = [(); 4].map(|()| scope.spawn(call));
            // The scope alone would not wait for the threads' very ends.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        // A service may call itself while it serves.
        db.call(|_| db.call(|_| ())).unwrap().unwrap();
        gate.open();
        let report = job.wait().unwrap();
        assert_eq!(report.service("db").unwrap().calls, 20_002);
    });
}

#[test]
fn calls_of_a_nested_service_are_counted_as_well() {
    leak_free(|_| {
        let env = Environment::local("nested");
        let journal = Journal::new();
        let inner: Arc<OnceLock<ServiceHandle<Probed>>> = Arc::default();
        let outer = Probe::new("outer", &journal).register(&env).after("inner").build();
        assert!(inner.set(Probe::new("inner", &journal).register(&env).build()).is_ok());
        env.from_iter(0..50_u64)
            .try_map(move |_| outer.call(|_| inner.get().unwrap().call(Probed::touch)).flatten())
            .sink(drop);
        let report = env.run().unwrap();
        assert_eq!((report.service("outer").unwrap().calls, report.service("inner").unwrap().calls), (50, 50));
    });
}

/// A report with something in every field.
fn eventful_report() -> JobReport {
    let env = Environment::local("eventful");
    let journal = Journal::new();
    let db = Probe::new("db", &journal).in_cleanup(|_| panic!("lock stays")).register(&env).build();
    env.from_iter(0..200_u64)
        .try_map(move |n| db.try_call(|_| if n == 150 { Err("row 150") } else { Ok(n) }))
        .named("look up")
        .on_another_thread()
        .sink(|_| {});
    failed(env.run())
}

#[test]
fn a_report_survives_json_but_for_the_users_own_errors() {
    leak_free(|_| {
        let report = eventful_report();
        let json = serde_json::to_string(&report).unwrap();
        let read: JobReport = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        assert_eq!((read.outcome, &read.left, &read.services), (report.outcome, &report.left, &report.services));
        assert_eq!((&read.operators, read.elapsed, read.started), (&report.operators, report.elapsed, report.started));
        let cause = read.first_cause.unwrap();
        assert!(cause.error.is_none() && report.first_cause.unwrap().error.is_some());
        let Origin::Operator { name, record, .. } = &cause.origin else { panic!("{cause}") };
        assert_eq!((name.as_str(), *record), ("look up", Some(151)));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["outcome"], &value["cleanliness"]), (&"failed".into(), &"unclean".into()));
        assert_eq!(value["services"][0]["state"], "cleanup_failed");
    });
}

#[test]
fn a_report_in_words_names_outcome_causes_leftovers_operators_and_services() {
    leak_free(|_| {
        let text = eventful_report().to_string();
        for part in [
            "job `eventful` failed and is NOT clean, after ",
            "  cause: operator `look up`, record 151: service `db` failed: row 150\n",
            "  also:  service `db`, in its cleanup: panicked: lock stays\n",
            "  left:  service `db`: its cleanup failed: lock stays\n",
            "  service db: cleanup failed, 151 calls, 1 error, ",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        let header = text.lines().find(|line| line.starts_with("  operator ")).unwrap();
        assert!(header.contains("in") && header.contains("out") && header.contains("failed"));
    });
}

#[test]
fn an_error_that_main_returns_is_printed_as_the_report() {
    leak_free(|_| {
        let env = Environment::local("main");
        env.from_iter([1]).try_sink(|_| Err("broke"));
        let text = format!("{:?}", env.run().unwrap_err());
        assert!(text.contains("job `main` failed and is clean") && text.contains("record 1: broke"), "{text}");
    });
}

#[test]
fn a_report_says_how_long_each_phase_took() {
    leak_free(|_| {
        let env = Environment::local("phases");
        add_pipeline(&env);
        let report = env.run().unwrap();
        let phases = report.phases;
        assert!(phases.start + phases.run + phases.drain + phases.stop <= report.elapsed + Duration::from_millis(1));
        assert_eq!(report.environment, "phases");
        assert!(report.started <= std::time::SystemTime::now());
        assert_ne!(report.job, env.run().unwrap().job, "every job has an id of its own");
    });
}

/// The files below a directory and their contents.
fn files(dir: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            let name = entry.file_name().into_string().expect("log files have plain names");
            found.push((name, fs::read_to_string(entry.path()).expect("log files can be read")));
        }
    }
    found.sort();
    found
}

#[test]
fn log_files_are_written_only_if_asked_and_hold_nothing_per_record() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let lines_of = |records: u64| {
            let logs = dir.path().join(records.to_string());
            let env = Environment::local("logs").log_files(&logs);
            let journal = Journal::new();
            Probe::new("db", &journal).register(&env).build();
            env.from_iter(0..records).on_another_thread().sink(|_| {});
            env.run().unwrap();
            let session = fs::read_dir(logs.join("jobmanager")).unwrap().next().unwrap().unwrap();
            assert!(session.path().join("env_logs").is_dir(), "a folder for what functions write");
            assert!(session.file_name().to_str().unwrap().starts_with("session_"));
            for name in ["Dispatcher.log", "Error.log"] {
                let mode = fs::metadata(session.path().join(name)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{name}");
            }
            let found = files(&logs);
            assert_eq!(
                found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
                ["Dispatcher.log", "Error.log"]
            );
            assert_eq!(found[1].1, "", "nothing went wrong");
            let told =
                ["tasks ended: 2 finished", "services to clean: 1", "service db cleaned", "services cleaned: 1 of 1"];
            let places: Vec<_> = told.iter().map(|line| found[0].1.find(line).expect(line)).collect();
            assert!(places.is_sorted() && found[0].1.contains("job ended"), "{}", found[0].1);
            found[0].1.lines().count()
        };
        assert_eq!(lines_of(10), lines_of(10_000));
    });
}

#[test]
fn log_files_of_a_failure_name_it_and_two_sessions_at_once_do_not_mix() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment::local("logs").log_files(dir.path());
        env.from_collection(vec![1]).try_sink(|_| Err("broke"));
        failed(env.run());
        failed(env.run());
        let found = files(dir.path());
        let errors: Vec<_> = found.iter().filter(|(name, _)| name == "Error.log").map(|(_, text)| text).collect();
        assert_eq!(errors.len(), 2);
        assert!(
            errors.iter().all(|text| text.contains("operator `sink-1`, record 1: broke") && text.lines().count() == 1)
        );
    });
}

#[test]
fn a_prepared_job_tells_what_it_will_be_and_one_that_is_dropped_runs_nothing() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment::local("to/come").log_files(dir.path());
        let journal = Journal::new();
        Probe::new("db", &journal).register(&env).build();
        let taken = env.from_iter(0..3).on_another_thread().collect();
        drop(env.prepare().unwrap());
        assert!(journal.events().is_empty(), "no service was made");

        let again = Environment::local("to/come").log_files(dir.path());
        let taken_again = again.from_iter(0..3).on_another_thread().collect();
        let prepared = again.prepare().unwrap();
        assert!(matches!(again.submit(), Err(SubmitError::AlreadyRunning { .. })));
        let (id, tasks) = (prepared.id().to_owned(), prepared.graph().tasks.len());
        let folder = prepared.log_dir().expect("log files were asked for").to_owned();
        assert_eq!((tasks, folder.file_name().and_then(|name| name.to_str())), (2, Some("env_to_come")));
        let job = prepared.start().unwrap();
        assert_eq!((job.id(), job.log_dir()), (id.as_str(), Some(folder.as_path())));
        job.wait().unwrap();
        assert_eq!((taken.take(), taken_again.take()), (vec![], vec![0, 1, 2]));
    });
}

#[test]
fn no_file_is_written_unless_asked() {
    leak_free(|_| {
        let before = files(std::path::Path::new(".sage"));
        let env = Environment::local("silent");
        add_pipeline(&env);
        env.run().unwrap();
        assert_eq!(files(std::path::Path::new(".sage")), before);
    });
}

#[test]
fn causes_say_what_happened_without_repeating_their_place() {
    leak_free(|_| {
        let env = Environment::local("causes");
        super::add_endless_pipeline(&env);
        let job: JobHandle = env.submit().unwrap();
        let report = cancelled(&job);
        assert_eq!(report.signal(), None);
        let cause: Cause = report.first_cause.unwrap();
        assert_eq!((cause.origin.clone(), cause.to_string().as_str()), (Origin::Job, "stopped: cancel requested"));
        assert_eq!(report.outcome, Outcome::Cancelled);
    });
}

/// Counts what is told through `tracing`.
#[derive(Clone, Default)]
struct Listener(Journal);

impl tracing::Subscriber for Listener {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.0.note(format_args!("span {}", span.metadata().name()));
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.note(format_args!("{} {}", event.metadata().level(), event.metadata().target()));
    }
    fn enter(&self, _span: &tracing::span::Id) {}
    fn exit(&self, _span: &tracing::span::Id) {}
}

#[test]
fn the_hosts_own_tracing_subscriber_hears_of_the_job_and_nothing_per_record() {
    leak_free(|_| {
        let heard = |records: u64, fails: bool| {
            let listener = Listener::default();
            let env = Environment::local("traced");
            let journal = Journal::new();
            Probe::new("db", &journal).register(&env).build();
            env.from_iter(0..records)
                .on_another_thread()
                .try_sink(move |n| if fails && n == 5 { Err("broke") } else { Ok(()) });
            let run = tracing::subscriber::with_default(listener.clone(), || env.run());
            assert_eq!(run.is_err(), fails);
            listener.0
        };
        let (few, many) = (heard(10, false), heard(10_000, false));
        assert_eq!(few.events(), many.events());
        assert_eq!(few.count("span job"), 1);
        assert!(few.events().iter().any(|event| event.starts_with("INFO sage::job")), "{:?}", few.events());
        let of_failure = heard(10, true);
        assert!(
            of_failure.events().iter().any(|event| event.starts_with("ERROR sage::job")),
            "{:?}",
            of_failure.events()
        );
    });
}

/// What a job's tasks are doing, as names.
fn doing(job: &JobHandle) -> Vec<(String, Doing)> {
    job.metrics().tasks.into_iter().map(|task| (task.name, task.doing)).collect()
}

/// Waits until the tasks are doing this: a task says so just before it parks, which nothing else tells.
fn wait_until(job: &JobHandle, expected: &[(&str, Doing)]) {
    let is_so = || doing(job).iter().map(|(name, doing)| (name.as_str(), *doing)).eq(expected.iter().copied());
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?} in place of {expected:?}", doing(job));
        std::thread::yield_now();
    }
}

#[test]
fn what_tasks_are_doing_can_be_asked_at_any_moment() {
    let env = Environment::local("doing");
    let gate = Gate::new();
    let held = gate.clone();
    // More than the lane holds.
    env.from_iter(0..10_000_000_u64).on_another_thread().sink(move |_| held.pass());
    let job = env.submit().unwrap();
    let names: Vec<_> = job.graph().tasks.iter().map(|task| task.name.clone()).collect();
    let [first, second] = [names[0].as_str(), names[1].as_str()];
    wait_until(&job, &[(first, Doing::Blocked), (second, Doing::Busy)]);
    let metrics = job.metrics();
    let task = &metrics.tasks[0];
    assert!(task.blocked_by.is_some() && task.chain == 1, "{task:?}");
    assert!(task.busy > Duration::ZERO && task.blocked >= task.since, "{task:?}");
    let [queue] = &metrics.queues[..] else { panic!("{metrics:?}") };
    assert_eq!((queue.operator.as_str(), queue.from, queue.to), ("iter-1", 1, 2));
    assert!(queue.records > 0, "{queue:?}");
    job.pause();
    gate.open();
    wait_until(&job, &[(first, Doing::Paused), (second, Doing::Idle)]);
    job.resume();
    job.drain();
    let view = JobView::clone(&job);
    job.wait().unwrap();
    let JobMetrics { tasks, queues, .. } = view.metrics();
    assert!(tasks.iter().all(|task| task.doing == Doing::Ended), "{tasks:?}");
    // They are over, so these change no more.
    assert!(tasks[0].busy > Duration::ZERO && tasks[0].blocked > Duration::ZERO && tasks[1].idle > Duration::ZERO);
    assert_eq!(view.metrics().tasks[0].busy, tasks[0].busy);
    assert_eq!(queues[0].records, 0);
}
