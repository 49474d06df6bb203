//! What SAGE, the Python engine this replaces, does wrong, and this one does right: a test for each row of the table.
//!
//! | what happens | there | here, and the test that says so |
//! |---|---|---|
//! | a function of a map, filter, sink, source or `co_map` raises | its record is lost, the job succeeds | [`parity_a_function_that_fails_fails_the_job_with_its_error_and_place`]; by policy [`parity_a_policy_skips_retries_or_sets_aside_and_counts`] |
//! | a source always raises | the job never ends | [`parity_a_source_that_always_fails_fails_the_job_at_once`] |
//! | the constructor of a function raises | a generic error, services are not cleaned | [`parity_a_function_that_cannot_be_made_or_opened_is_the_error_and_services_are_cleaned`] |
//! | a service's method raises | the type of the error is lost | [`parity_a_service_method_that_fails_gives_the_caller_its_own_error`] |
//! | a service's `setup` raises | the job runs, each call waits 10 s | [`parity_a_setup_that_fails_fails_the_job_before_any_task_and_is_cleaned_once`] |
//! | a `cleanup` raises | not told | [`parity_a_cleanup_that_fails_is_told_and_the_others_are_cleaned`] |
//! | a `cleanup` hangs | the job never ends | [`parity_a_cleanup_that_hangs_is_left_by_its_deadline_and_named`] |
//! | a service uses another | the one that is used is cleaned first | [`parity_a_service_is_cleaned_before_the_one_it_uses`] |
//! | a service calls itself | a deadlock until a timeout | [`parity_a_service_may_call_itself`] |
//! | an async call is not awaited | 31 s, then timeouts | [`parity_an_async_call_in_flight_is_drained_and_one_that_is_dropped_holds_nothing_up`] |
//! | `None` is in a list | it ends the list | [`parity_none_zero_and_empty_text_are_data`] |
//! | two environments in two threads | the first gets nothing | [`parity_two_environments_in_two_threads_both_get_all_records`] |
//! | a job takes longer than 300 s | the call returns, the job goes on | [`parity_waiting_for_a_job_ends_with_the_job_and_not_before`]; with a clock that jumps, `parity_a_job_may_take_longer_than_300_seconds` in `job/dispatcher/tests.rs` |
//! | a stop with a pipeline as a service | 300 s | [`parity_a_pipeline_that_serves_another_ends_when_the_work_is_done`] |
//! | one of two replicas is slow | 6 of 12 records | [`parity_a_slow_replica_loses_nothing`] |
//! | one of two connected sources is slow | 5 of 15 records | [`parity_a_slow_connected_source_loses_nothing`] |
//! | a join of lists of unequal length | never ends | [`parity_a_join_of_lists_of_unequal_length_is_exact`] |
//! | a sink stalls behind a full queue | a record is lost | [`parity_a_sink_that_stalls_behind_a_full_queue_loses_nothing`] |
//! | keys are falsy, or made by a lambda | spread over replicas, refused | [`parity_falsy_keys_stay_together_and_a_closure_makes_them`] |
//! | SIGINT, SIGTERM | exit code 0 | `signals.rs`, which starts processes and signals them |
//! | descriptors | 15 are leaked by each job | [`parity_jobs_leak_no_descriptor`] |
//! | logs | 9 kB for each record | [`parity_nothing_is_logged_per_record`] |
//!
//! Left to the Python package: that code written for SAGE's API gets the same, that its exception comes out with its
//! own traceback, that only the `None` of a `BatchFunction` ends a batch, and `keyby` with a Python lambda. Left to the
//! command line: the exit codes of its own commands.

use std::error::Error;
use std::io;
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use sage::testing::Census;
use sage::{
    BoxError, CallError, CauseKind, Cleanliness, Emit, Environment, ErrorPolicy, Fault, JobState, Next, OpenContext,
    Operator, Order, Outcome, Retry, RunError, Service, ServiceHandle, ServiceRef, ServiceState, Source, SourceContext,
    SubmitError,
};

use crate::leaks::leak_free;
use crate::probes::{Counting, Gate, Journal, PATIENCE, Probe, Probed, failed, sorted};

/// The error of a user's function, that of the third record.
fn broken(n: u64) -> io::Result<u64> {
    if n == 3 { Err(io::Error::new(io::ErrorKind::AddrInUse, "broke")) } else { Ok(n) }
}

#[test]
fn parity_a_function_that_fails_fails_the_job_with_its_error_and_place() {
    leak_free(|_| {
        let error_of = |declare: fn(&Environment)| {
            let env = Environment::local("raises");
            let journal = Journal::new();
            Probe::new("db", &journal).register(&env).build();
            declare(&env);
            let error = env.run().expect_err("a function fails");
            assert_eq!(journal.count("db cleanup"), 1, "{error}");
            error
        };
        let failures: [(&str, fn(&Environment)); 4] = [
            ("operator `bad`, record 3", |env| drop(env.from_iter(1..9).try_map(broken).named("bad").sink(|_| {}))),
            ("operator `bad`, record 3", |env| {
                env.from_iter(1..9).try_sink(|n| broken(n).map(drop)).named("bad");
            }),
            ("operator `bad`, record 3", |env| {
                let mut n = 0;
                let generator = move || {
                    n += 1;
                    broken(n).map(Some)
                };
                env.from_generator(generator).named("bad").sink(|_| {});
            }),
            ("operator `bad`, record 3", |env| {
                let connected = env.from_iter(1..9).connect(env.from_iter(["a"; 0]));
                connected.co_map(broken, |_| Ok(0)).try_map(|n| n).named("bad").sink(|_| {});
            }),
        ];
        for (place, declare) in failures {
            let error = error_of(declare);
            let cause = error.report().and_then(|report| report.first_cause.clone()).expect("a job that failed");
            assert_eq!((cause.place().to_string().as_str(), cause.kind), (place, CauseKind::Error));
            let own = error.source().and_then(|source| source.downcast_ref::<io::Error>()).expect("the user's own");
            assert_eq!(own.kind(), io::ErrorKind::AddrInUse);
        }
        // A predicate, and a function of `co_map`, can only panic.
        let panics: [fn(&Environment); 2] = [
            |env| drop(env.from_iter(1..9).filter(|n| broken(*n).unwrap() > 0).named("bad").sink(|_| {})),
            |env| {
                let connected = env.from_iter(1..9).connect(env.from_iter(["a"; 0]));
                connected.co_map(|n| broken(n).unwrap(), |_| 0).named("bad").sink(|_| {});
            },
        ];
        for declare in panics {
            let error = error_of(declare);
            let cause = error.report().and_then(|report| report.first_cause.clone()).expect("a job that failed");
            assert_eq!(
                (cause.place().to_string().as_str(), cause.kind),
                ("operator `bad`, record 3", CauseKind::Panic)
            );
        }
    });
}

#[test]
fn parity_a_policy_skips_retries_or_sets_aside_and_counts() {
    leak_free(|_| {
        let env = Environment::local("policies");
        let rest = env.from_iter(1..9).try_map(broken).named("skips").on_error(ErrorPolicy::skip()).collect();
        let mut failures = 2;
        let sometimes = move |n| {
            let failed = n == 3 && failures > 0;
            failures -= u32::from(failed);
            if failed { Err("not yet") } else { Ok(n) }
        };
        let retry = Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO);
        let all = env.from_iter(1..9_u64).try_map(sometimes).named("retries").retry(retry).collect();
        let (alive, dead) = env.from_iter(1..9).try_map(broken).named("sets aside").dead_letters();
        let (alive, dead) = (alive.collect(), dead.map(|letter| letter.record).collect());
        let report = env.run().unwrap();
        let without: Vec<u64> = (1..9).filter(|n| *n != 3).collect();
        assert_eq!((rest.take(), alive.take(), dead.take()), (without.clone(), without, vec![3]));
        assert_eq!(all.take(), (1..9).collect::<Vec<_>>());
        let failed = |name: &str| report.operator(name).map(|operator| (operator.failed, operator.retries));
        assert_eq!(failed("skips"), Some((1, 0)));
        assert_eq!(failed("retries"), Some((0, 2)));
        assert_eq!(failed("sets aside"), Some((1, 0)));
    });
}

#[test]
fn parity_a_source_that_always_fails_fails_the_job_at_once() {
    leak_free(|_| {
        let env = Environment::local("source");
        env.from_generator(|| Err::<Option<u64>, _>("broke")).named("bad").sink(|_| {});
        let cause = failed(env.run()).first_cause.expect("it failed");
        assert_eq!((cause.message.as_str(), cause.kind), ("broke", CauseKind::Error));
        assert!(cause.place().to_string().starts_with("operator `bad`"), "{cause}");
    });
}

#[test]
fn parity_a_function_that_cannot_be_made_or_opened_is_the_error_and_services_are_cleaned() {
    leak_free(|_| {
        let journal = Journal::new();
        let environment = || {
            let env = Environment::local("constructor");
            Probe::new("db", &journal).register(&env).build();
            env
        };
        let env = environment();
        env.from_iter(1..9).operator(|| -> Counting { panic!("no model") }).named("bad").sink(|_| {});
        match env.run() {
            Err(RunError::Submit(SubmitError::Factory { operator, message, .. })) => {
                assert_eq!((operator.as_str(), message.as_str()), ("bad", "no model"));
            }
            other => panic!("{other:?}"),
        }
        assert!(journal.events().is_empty(), "nothing was started that would need a cleanup");

        let env = environment();
        env.from_iter(1..9).operator(|| Counting { fail_in: "open", ..Counting::default() }).named("bad").sink(|_| {});
        let cause = failed(env.run()).first_cause.expect("it failed");
        assert_eq!(cause.to_string(), "operator `bad`, while opening: fails in open");
        journal.assert_order(&["db setup", "db stop", "db cleanup", "db drop"]);
    });
}

#[test]
fn parity_a_service_method_that_fails_gives_the_caller_its_own_error() {
    leak_free(|_| {
        let env = Environment::local("method");
        let db = Probe::new("db", &Journal::new()).register(&env).build();
        let kind_of = move |n| match db.try_call(|_| broken(n)) {
            Ok(n) => (n, None),
            Err(CallError::Failed { source, .. }) => (n, source.downcast_ref::<io::Error>().map(io::Error::kind)),
            Err(other) => panic!("{other}"),
        };
        let kinds = env.from_iter(2..5).map(kind_of).collect();
        env.run().unwrap();
        assert_eq!(kinds.take(), [(2, None), (3, Some(io::ErrorKind::AddrInUse)), (4, None)]);
    });
}

#[test]
fn parity_a_setup_that_fails_fails_the_job_before_any_task_and_is_cleaned_once() {
    leak_free(|_| {
        let env = Environment::local("setup");
        let journal = Journal::new();
        Probe::new("db", &journal).in_setup(|_| Err(broken(3).unwrap_err().into())).register(&env).build();
        let read = journal.clone();
        env.from_iter(1..9_u64).inspect(move |_| read.note("record")).sink(|_| {});
        let error = env.run().unwrap_err();
        assert!(error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some(), "{error:?}");
        assert_eq!((journal.count("db cleanup"), journal.count("record")), (1, 0));
    });
}

#[test]
fn parity_a_cleanup_that_fails_is_told_and_the_others_are_cleaned() {
    leak_free(|_| {
        let env = Environment::local("cleanup");
        let journal = Journal::new();
        Probe::new("inner", &journal).register(&env).build();
        Probe::new("db", &journal).in_cleanup(|_| Err("broke".into())).register(&env).after("inner").build();
        let got = env.from_iter(1..9_u64).collect();
        let report = failed(env.run());
        assert_eq!(got.take().len(), 8);
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Succeeded, Cleanliness::Unclean));
        assert!(
            report
                .first_cause
                .iter()
                .chain(&report.attached)
                .any(|cause| cause.to_string() == "service `db`, in its cleanup: broke")
        );
        assert_eq!(journal.count("inner cleanup ended"), 1);
    });
}

#[test]
fn parity_a_cleanup_that_hangs_is_left_by_its_deadline_and_named() {
    leak_free(|watch| {
        let env = Environment::local("hangs");
        let (journal, gate) = (Journal::new(), Gate::new());
        let held = gate.clone();
        let stuck = Probe::new("stuck", &journal).in_cleanup(move |_| {
            held.pass();
            Ok(())
        });
        stuck.register(&env).cleanup_timeout(Duration::from_millis(50)).build();
        Probe::new("db", &journal).register(&env).build();
        env.from_iter(1..9_u64).sink(|_| {});
        let report = failed(env.run());
        let left: Vec<&str> = report.left.iter().map(|left| left.what.as_str()).collect();
        assert_eq!((report.cleanliness, left), (Cleanliness::Unclean, vec!["service `stuck`"]));
        assert_eq!(journal.count("db cleanup ended"), 1);
        watch.expect_left(&["svc stuck"]);
        gate.open();
        journal.await_events("stuck cleanup ended", 1);
    });
}

#[test]
fn parity_a_service_is_cleaned_before_the_one_it_uses() {
    leak_free(|_| {
        let env = Environment::local("order");
        let journal = Journal::new();
        // Registered first, and not declared to be used: the first call tells.
        let inner = Probe::new("inner", &journal).register(&env).build();
        let outer = Probe::new("outer", &journal).register(&env).build();
        env.from_iter(1..9_u64)
            .try_map(move |_| outer.call(|_| inner.call(Probed::touch)).and_then(|called| called))
            .sink(|()| {});
        env.run().unwrap();
        journal.assert_order(&["outer cleanup", "outer cleanup ended", "inner cleanup", "inner cleanup ended"]);
    });
}

#[test]
fn parity_a_service_may_call_itself() {
    /// Counts down by calling itself.
    struct Countdown(Arc<OnceLock<ServiceHandle<Countdown>>>);
    impl Service for Countdown {}
    impl Countdown {
        fn down(&self, n: u64) -> Result<u64, CallError> {
            if n == 0 {
                return Ok(0);
            }
            let own = self.0.get().expect("registered below");
            own.call(|own| own.down(n - 1))?.map(|steps| steps + 1)
        }
    }
    leak_free(|_| {
        let env = Environment::local("itself");
        let own: Arc<OnceLock<ServiceHandle<Countdown>>> = Default::default();
        let used = own.clone();
        let countdown = env.register_service("countdown", move || Countdown(used.clone())).build();
        assert!(own.set(countdown.clone()).is_ok());
        let steps = env.from_iter([3, 5]).try_map(move |n| countdown.try_call(|it| it.down(n))).collect();
        env.run().unwrap();
        assert_eq!(steps.take(), [3, 5]);
    });
}

#[test]
fn parity_an_async_call_in_flight_is_drained_and_one_that_is_dropped_holds_nothing_up() {
    struct Remote;
    impl Service for Remote {}
    impl Remote {
        async fn double(&self, n: u64) -> u64 {
            tokio::task::yield_now().await;
            n * 2
        }
    }
    leak_free(|_| {
        let env = Environment::local("async");
        let remote = env.register_service("remote", || Remote).build();
        let forgotten = remote.clone();
        let doubled = env
            .from_iter(1..=20)
            .inspect(move |_| drop(forgotten.call_async(|_: ServiceRef<Remote>| std::future::pending::<()>())))
            .try_map_async(20, Order::Ordered, move |n| {
                let remote = remote.clone();
                async move { remote.call_async(|remote| async move { remote.double(n).await }).await }
            })
            .collect();
        let report = env.run().unwrap();
        assert_eq!(doubled.take(), (1..=20).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(report.service("remote").map(|it| (it.calls, it.state)), Some((20, ServiceState::Cleaned)));
    });
}

#[test]
fn parity_none_zero_and_empty_text_are_data() {
    leak_free(|_| {
        let env = Environment::local("falsy");
        let nones = env
            .from_iter([Some(1), None, Some(0)])
            .on_another_thread()
            .map(|it| it)
            .parallelism(2)
            .on_another_thread()
            .collect();
        let zeros = env.from_iter([0, 1, 0]).on_another_thread().collect();
        let texts = env.from_iter(["", "a", ""]).on_another_thread().collect();
        let flags = env.from_iter([false, true, false]).on_another_thread().collect();
        env.run().unwrap();
        assert_eq!(sorted(nones.take()), [None, Some(0), Some(1)]);
        assert_eq!((zeros.take(), flags.take()), (vec![0, 1, 0], vec![false, true, false]));
        assert_eq!(texts.take(), ["", "a", ""]);
    });
}

#[test]
fn parity_two_environments_in_two_threads_both_get_all_records() {
    leak_free(|_| {
        let both = Arc::new(Barrier::new(2));
        let threads = [0_u64, 1000].map(|base| {
            let both = both.clone();
            thread::spawn(move || {
                let env = Environment::local(format!("from {base}"));
                // Each holds its first record until the other has one: both run at once.
                let meet = move |n: &u64| {
                    if *n == base {
                        both.wait();
                    }
                };
                let got = env.from_iter(base..base + 100).inspect(meet).on_another_thread().collect();
                env.run().unwrap();
                got.take()
            })
        });
        let [one, other] = threads.map(|thread| thread.join().unwrap());
        assert_eq!((one, other), ((0..100).collect(), (1000..1100).collect()));
    });
}

#[test]
fn parity_waiting_for_a_job_ends_with_the_job_and_not_before() {
    leak_free(|_| {
        let env = Environment::local("long");
        let gate = Gate::new();
        let held = gate.clone();
        let got = env.from_iter([1]).inspect(move |_| held.pass()).collect();
        let job = Arc::new(env.submit().unwrap());
        gate.await_arrivals(1);
        let (told, ended) = mpsc::channel();
        let waited = job.clone();
        let waiter = thread::spawn(move || told.send(waited.wait().map(|report| report.is_success())));
        assert!(job.wait_timeout(Duration::ZERO).is_none());
        assert!(ended.try_recv().is_err(), "it runs still");
        assert_eq!(job.status(), JobState::Running);
        gate.open();
        assert!(ended.recv().unwrap().unwrap());
        assert!(waiter.join().unwrap().is_ok());
        assert_eq!(got.take(), [1]);
    });
}

/// A request, and where its answer is awaited.
type Request = (u64, mpsc::Sender<u64>);

/// The queue between a pipeline's service and the pipeline that serves it. It is closed when the service stops.
#[derive(Clone, Default)]
struct Bridge(Arc<Mutex<(Vec<Request>, bool, Option<thread::Thread>)>>);

impl Bridge {
    fn with<R>(&self, change: impl FnOnce(&mut (Vec<Request>, bool, Option<thread::Thread>)) -> R) -> R {
        let mut queue = self.0.lock().expect("no holder of the queue panics");
        let changed = change(&mut queue);
        queue.2.iter().for_each(thread::Thread::unpark);
        changed
    }

    /// Asks the other pipeline, and waits for what its sink answers.
    fn ask(&self, n: u64) -> Result<u64, mpsc::RecvTimeoutError> {
        let (answer, answered) = mpsc::channel();
        self.with(|queue| queue.0.push((n, answer)));
        answered.recv_timeout(PATIENCE)
    }
}

impl Service for Bridge {}

/// Reads the requests.
struct Requests(Bridge);

impl Source for Requests {
    type Item = Request;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        self.0.with(|queue| queue.2 = Some(thread::current()));
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<Request>, BoxError> {
        let queue = &self.0;
        cx.wait_until(|| queue.0.lock().is_ok_and(|queue| queue.1 || !queue.0.is_empty()));
        Ok(queue.with(|queue| match queue.0.pop() {
            Some(request) => Next::Record(request),
            None if queue.1 => Next::End,
            None => Next::Idle,
        }))
    }
}

/// Says so when the records have ended.
struct AtEnd<F>(F);

impl<F: FnMut() + Send + 'static> Operator for AtEnd<F> {
    type In = u64;
    type Out = u64;

    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(record)
    }

    fn finish(&mut self, _out: &mut impl Emit<u64>) -> Result<(), Fault> {
        (self.0)();
        Ok(())
    }
}

#[test]
fn parity_a_pipeline_that_serves_another_ends_when_the_work_is_done() {
    leak_free(|_| {
        let env = Environment::local("bridge");
        let bridge = Bridge::default();
        let (served, ended) = (bridge.clone(), bridge.clone());
        let service = env.register_service("pipeline", move || served.clone()).build();
        let asked = env.from_iter(0..50).try_map(move |n| service.try_call(|bridge| bridge.ask(n)));
        // The one that asks tells when nobody is going to ask again.
        let asked = asked.operator(move || {
            let bridge = ended.clone();
            AtEnd(move || bridge.with(|queue| queue.1 = true))
        });
        let answers = asked.collect();
        env.from_source(move |_| Requests(bridge.clone()))
            .map(|(n, answer)| (n * n, answer))
            .on_another_thread()
            .try_sink(|(n, answer): Request| answer.send(n));
        let report = env.run().unwrap();
        assert_eq!(answers.take(), (0..50).map(|n| n * n).collect::<Vec<_>>());
        assert!(report.is_success());
    });
}

/// Holds every record of its first replica at a gate.
struct SlowReplica {
    gate: Gate,
    slow: bool,
}

impl Operator for SlowReplica {
    type In = u64;
    type Out = u64;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.slow = cx.replica == 0;
        Ok(())
    }

    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        if self.slow {
            self.gate.pass();
        }
        out.emit(record)
    }
}

#[test]
fn parity_a_slow_replica_loses_nothing() {
    leak_free(|_| {
        let env = Environment::local("replicas").block_records(1);
        let gate = Gate::new();
        let (held, read) = (gate.clone(), Journal::new());
        let last = read.clone();
        let got = env
            .from_iter(0..4_u64)
            .inspect(move |n| last.note(n))
            .rebalance(2)
            .operator(move || SlowReplica { gate: held.clone(), slow: false })
            .collect();
        let job = env.submit().unwrap();
        // One replica holds its first record while the source has ended.
        gate.await_arrivals(1);
        read.await_events("3", 1);
        gate.open();
        job.wait().unwrap();
        assert_eq!(sorted(got.take()), (0..4).collect::<Vec<_>>());
    });
}

#[test]
fn parity_a_slow_connected_source_loses_nothing() {
    leak_free(|_| {
        let env = Environment::local("sources");
        let (gate, journal) = (Gate::new(), Journal::new());
        let (held, seen) = (gate.clone(), journal.clone());
        let slow = env.from_iter(0..5_u64).inspect(move |n| {
            if *n == 1 {
                held.pass();
            }
        });
        let fast = env.from_iter(["text"; 10]);
        let got =
            slow.connect(fast).co_map(|n| n.to_string(), str::to_owned).inspect(move |it| seen.note(it)).collect();
        let job = env.submit().unwrap();
        // The fast source is through before the slow one goes on.
        gate.await_arrivals(1);
        journal.await_events("text", 10);
        gate.open();
        job.wait().unwrap();
        assert_eq!(got.take().len(), 15);
    });
}

#[test]
fn parity_a_join_of_lists_of_unequal_length_is_exact() {
    leak_free(|_| {
        let env = Environment::local("join");
        let users = env.from_iter([(1, "ada"), (2, "grace")]).key_by(|user| user.0);
        let events = env.from_iter([(1, "in"), (2, "in"), (1, "out"), (3, "in"), (1, "in")]).key_by(|event| event.0);
        let joined = events.join(users).inner().map(|(_, event, user)| (user.1, event.1)).collect();
        env.run().unwrap();
        assert_eq!(sorted(joined.take()), [("ada", "in"), ("ada", "in"), ("ada", "out"), ("grace", "in")]);
    });
}

#[test]
fn parity_a_sink_that_stalls_behind_a_full_queue_loses_nothing() {
    leak_free(|_| {
        let env = Environment::local("stall").block_records(1).queue_blocks(2);
        let gate = Gate::new();
        let (held, got) = (gate.clone(), Arc::new(Mutex::new(Vec::new())));
        let kept = got.clone();
        let read = Journal::new();
        let noted = read.clone();
        env.from_iter(0..1000_u64).inspect(move |n| noted.note(n)).on_another_thread().sink(move |n| {
            held.pass();
            kept.lock().unwrap().push(n);
        });
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        // The sink holds one, and the next waits behind it: a thousand do not fit into the queue.
        read.await_events("1", 1);
        gate.open();
        job.wait().unwrap();
        assert_eq!(*got.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn parity_falsy_keys_stay_together_and_a_closure_makes_them() {
    /// Notes which replica it is.
    struct Replica(usize);
    impl Operator for Replica {
        type In = (Option<&'static str>, u64);
        type Out = (Option<&'static str>, usize);
        fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
            self.0 = cx.replica;
            Ok(())
        }
        fn process(&mut self, record: Self::In, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
            out.emit((record.0, self.0))
        }
    }
    leak_free(|_| {
        let env = Environment::local("keys");
        let keys = [None, Some(""), Some("a"), Some("0")];
        let shift = 4;
        let records = (0..40_u64).map(move |n| (keys[n as usize % shift], n));
        let places = env.from_iter(records).key_by(|record| record.0).partition(3).operator(|| Replica(0)).collect();
        let counts = env.from_iter(0..40_u64).key_by(move |n| n % 2 == shift as u64).count().parallelism(3).collect();
        env.run().unwrap();
        let mut places = sorted(places.take());
        assert_eq!(places.len(), 40);
        places.dedup();
        assert_eq!(places.len(), keys.len(), "each key in one replica: {places:?}");
        assert_eq!(counts.take(), [(false, 40)]);
    });
}

#[test]
fn parity_jobs_leak_no_descriptor() {
    leak_free(|_| {
        let job = || {
            let env = Environment::local("descriptors");
            let db = Probe::new("db", &Journal::new()).register(&env).build();
            env.from_iter(0..100_u64).try_map(move |n| db.call(|_| n)).rebalance(2).on_another_thread().sink(|_| {});
            env.run().unwrap();
        };
        job();
        let before = Census::take();
        (0..20).for_each(|_| job());
        // Other tests open some where they share the process.
        if std::env::var_os("NEXTEST").is_some() {
            assert_eq!(Census::take().descriptor_count(), before.descriptor_count());
        }
    });
}

#[test]
fn parity_nothing_is_logged_per_record() {
    leak_free(|_| {
        let lines_of = |records: u64| {
            let dir = tempfile::tempdir().unwrap();
            let env = Environment::local("logs").log_files(dir.path());
            env.from_iter(0..records).on_another_thread().sink(|_| {});
            env.run().unwrap();
            let session = std::fs::read_dir(dir.path().join("jobmanager")).unwrap().next().unwrap().unwrap();
            let logs = ["Dispatcher.log", "Error.log"].map(|name| session.path().join(name));
            logs.map(|log| std::fs::read_to_string(log).unwrap().lines().count())
        };
        assert_eq!(lines_of(10), lines_of(10_000));
    });
}
