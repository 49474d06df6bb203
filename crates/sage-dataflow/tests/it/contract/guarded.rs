//! Clause 26: nothing of a user's can stop the engine from stopping. Each kind of code that a user can hand to the
//! engine panics, or does not come back, on threads, in the background and inline; every job ends, cleaned, and says
//! what it was.

use std::cell::RefCell;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use sage::{
    BoxError, Cleanliness, CloseContext, Deadlines, Emit, Environment, ErrorPolicy, Fault, JobReport, JobState, Next,
    Operator, Outcome, RunError, ServiceState, Sink, Source, SourceContext,
};

use super::{SHORT, await_status, impatient, left};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, failed};

/// The three ways in which a job can run.
const WAYS: [(&str, bool, bool); 3] = [("run", false, false), ("submit", false, true), ("inline", true, false)];

/// Runs pipelines beside a service that must be cleaned and an endless one that must end, in each way.
#[track_caller]
fn in_each_way(declare: impl Fn(&Environment), check: impl Fn(&JobReport)) {
    for (way, inline, background) in WAYS {
        let env =
            Environment::local(way).deadlines(Deadlines { cancel: Duration::from_secs(5), ..Deadlines::default() });
        let env = if inline { env.inline() } else { env };
        let journal = Journal::new();
        Probe::new("bystander", &journal).register(&env).build();
        let running = Arc::new(AtomicBool::new(false));
        let its_own = running.clone();
        env.from_iter(0_u64..)
            .on_another_thread()
            .inspect(move |_| its_own.store(true, Ordering::SeqCst))
            .named("beside")
            .sink(|_| {});
        declare(&env);
        let result = if background { env.submit().expect("nothing is wrong with it").wait() } else { env.run() };
        assert!(!matches!(result, Err(RunError::Engine)), "{way}: the engine itself failed");
        let report = failed(result);
        journal.assert_order(&["bystander constructor", "bystander cleanup", "bystander drop"]);
        // No task is left that could set it again.
        running.store(false, Ordering::SeqCst);
        thread::yield_now();
        assert!(!running.load(Ordering::SeqCst), "{way}: a task still runs");
        check(&report);
        // Nothing of the job holds the environment: the next one is refused for what it is, or runs.
        drop(report);
        assert!(
            !matches!(env.submit().map(|job| job.cancel()), Err(sage::SubmitError::AlreadyRunning { .. })),
            "{way}"
        );
    }
}

/// The job has failed, is clean, and its first cause says these words.
#[track_caller]
fn fails_saying(words: &'static [&'static str]) -> impl Fn(&JobReport) {
    move |report| {
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Failed, Cleanliness::Clean), "{report}");
        let cause = report.first_cause.as_ref().expect("it failed").to_string();
        assert!(words.iter().all(|word| cause.contains(word)), "{cause}");
    }
}

/// An error that does what it is told when it is asked for something.
#[derive(Debug)]
struct Odd(&'static str);

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(self.0 != "display", "no text");
        f.write_str("odd")
    }
}

impl Error for Odd {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        assert!(self.0 != "source", "no source");
        (self.0 == "endless").then_some(self)
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        assert!(self.0 != "drop", "no end");
    }
}

#[test]
fn contract_26_an_error_whose_text_panics_is_told_as_such() {
    leak_free(|_| {
        for (odd, words) in [
            ("display", &["operator `bad`, record 6", "an error whose `Display` panicked: no text"][..]),
            ("source", &["odd: an error whose `source` panicked: no source"][..]),
            ("endless", &["odd: and so on"][..]),
        ] {
            in_each_way(
                |env| {
                    let fails = move |n| if n == 5 { Err(Odd(odd)) } else { Ok(n) };
                    env.from_iter(0..10).try_map(fails).named("bad").sink(|_: i32| {});
                },
                fails_saying(words),
            );
        }
    });
}

struct OddSink(&'static str);

impl OddSink {
    fn hook(&self, hook: &str) -> Result<(), BoxError> {
        if self.0 == hook { Err(Odd("display").into()) } else { Ok(()) }
    }
}

impl Sink for OddSink {
    type In = i32;

    fn write(&mut self, _record: i32) -> Result<(), BoxError> {
        self.hook("write")
    }
    fn finish(&mut self, _cx: &sage::FinishContext) -> Result<(), BoxError> {
        self.hook("finish")
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.hook("close")
    }
}

#[test]
fn contract_26_wherever_such_an_error_comes_from() {
    let says = || fails_saying(&["whose `Display` panicked: no text"]);
    leak_free(|_| {
        in_each_way(|env| drop(env.from_generator(|| Err::<Option<i32>, _>(Odd("display"))).sink(|_| {})), says());
        in_each_way(|env| drop(env.from_iter([1]).try_sink(|_| Err::<(), _>(Odd("display")))), says());
        for hook in ["write", "finish"] {
            in_each_way(|env| drop(env.from_collection(vec![1]).sink_to(move |_| OddSink(hook))), says());
        }
        // What does not close may have left something.
        in_each_way(
            |env| drop(env.from_collection(vec![1]).sink_to(|_| OddSink("close"))),
            |report| {
                assert_eq!((report.outcome, left(report)), (Outcome::Failed, vec!["task `collection-1`"]), "{report}");
                assert!(report.left[0].why.contains("whose `Display` panicked"), "{report}");
            },
        );
        let fails = || |_: &sage::HookContext| Err(Odd("display").into());
        in_each_way(|env| drop(Probe::new("s", &Journal::new()).in_constructor(fails()).register(env).build()), says());
        in_each_way(|env| drop(Probe::new("s", &Journal::new()).in_setup(fails()).register(env).build()), says());
        in_each_way(
            |env| {
                Probe::new("s", &Journal::new()).in_stop(fails()).in_cleanup(fails()).register(env).build();
                env.from_iter([1]).try_map(|_| Err::<i32, _>("stop")).sink(|_| {});
            },
            |report| {
                assert_eq!(report.service("s").unwrap().state, ServiceState::CleanupFailed);
                let told = report.attached.iter().filter(|cause| cause.message.contains("whose `Display` panicked"));
                assert_eq!(told.count(), 2, "{report}");
            },
        );
    });
}

#[test]
fn contract_26_a_skipped_error_may_have_no_text_and_its_drop_may_panic() {
    leak_free(|_| {
        let skipping = |odd| {
            let env = Environment::local("skipping");
            let fails = move |n| if n == 1 { Err(Odd(odd)) } else { Ok(n) };
            let kept = env.from_iter(0..3).try_map(fails).on_error(ErrorPolicy::skip()).named("bad").collect();
            (env.run(), kept)
        };
        let (report, kept) = skipping("display");
        let report = report.unwrap();
        assert_eq!(kept.take(), [0, 2]);
        let first = report.operator("bad").unwrap().first_error.as_deref();
        assert_eq!(first, Some("an error whose `Display` panicked: no text"));
        // The function itself would panic like that.
        let report = failed(skipping("drop").0);
        fails_saying(&["operator `bad`", "panicked: no end"])(&report);
    });
}

/// A payload whose `Drop` panics with another one, and so on.
struct Endless;

impl Drop for Endless {
    fn drop(&mut self) {
        panic_any(Endless);
    }
}

#[test]
fn contract_26_a_panics_payload_may_panic_when_it_is_dropped() {
    leak_free(|_| {
        in_each_way(
            |env| drop(env.from_iter([1]).map(|_| panic_any(Endless)).named("bad").sink(|()| {})),
            fails_saying(&["operator `bad`, record 1", "panicked: a value that is not a string"]),
        );
    });
}

/// Panics when it is dropped.
struct Sore;

impl Drop for Sore {
    fn drop(&mut self) {
        // A second panic while another unwinds ends the process, wherever it is: that is the language's rule.
        if !thread::panicking() {
            panic!("sore");
        }
    }
}

struct SoreSource(Sore, bool);

impl Source for SoreSource {
    type Item = i32;
    fn next(&mut self, _cx: &SourceContext) -> Result<Next<i32>, BoxError> {
        Ok(if std::mem::replace(&mut self.1, true) { Next::End } else { Next::Record(1) })
    }
}

struct SoreOperator(Sore);

impl Operator for SoreOperator {
    type In = i32;
    type Out = i32;
    fn process(&mut self, record: i32, out: &mut impl Emit<i32>) -> Result<(), Fault> {
        out.emit(record)
    }
}

/// A sink that has something to drop.
struct Holding<T>(T);

impl<T: Send + 'static> Sink for Holding<T> {
    type In = i32;
    fn write(&mut self, _record: i32) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn contract_26_every_drop_of_a_chain_may_panic() {
    leak_free(|_| {
        in_each_way(
            |env| {
                let operators = env.from_source(|_| SoreSource(Sore, false)).named("source");
                let operators = operators.operator(|| SoreOperator(Sore)).named("first");
                let operators = operators.operator(|| SoreOperator(Sore)).named("second");
                operators.sink_to(|_| Holding(Sore)).named("sink");
            },
            |report| {
                fails_saying(&["while being dropped", "a `Drop` panicked: sore"])(report);
                let causes = report.first_cause.iter().chain(&report.attached);
                let places: HashSet<_> = causes.map(|cause| cause.place().to_string()).collect();
                let expected = ["source", "first", "second", "sink"];
                let expected = expected.map(|name| format!("operator `{name}`, while being dropped"));
                assert_eq!(places, HashSet::from(expected), "{report}");
            },
        );
    });
}

#[test]
fn contract_26_records_that_nobody_takes_may_panic_when_they_are_dropped() {
    leak_free(|_| {
        let env = Environment::local("lane");
        let gate = Gate::new();
        let (sink_gate, dropped) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
        struct Counted(Arc<AtomicUsize>, bool);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
                assert!(!self.1, "left in a lane");
            }
        }
        let counts = dropped.clone();
        let records = (0..100).map(move |n| Counted(counts.clone(), n > 0));
        env.from_iter(records)
            .named("source")
            .on_another_thread()
            .map(move |record| {
                sink_gate.pass();
                std::mem::forget(record);
            })
            .sink(|()| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        // Two wait behind the one that is worked on.
        while job.unfinished() < 3 {
            std::thread::yield_now();
        }
        job.cancel();
        await_status(&job, JobState::Draining);
        gate.open();
        let report = failed(job.wait());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Cancelled, Cleanliness::Clean), "{report}");
        assert!(
            report.attached.iter().any(|cause| cause.message.contains("`Drop` panicked: left in a lane")),
            "{report}"
        );
        // Each is dropped, whatever the one before it did.
        assert!(dropped.load(Ordering::SeqCst) > 1);
    });
}

/// A key, or a record, whose traits panic.
#[derive(Debug)]
struct Touchy(&'static str);

impl Clone for Touchy {
    fn clone(&self) -> Self {
        assert!(self.0 != "clone", "no copy");
        Self(self.0)
    }
}

impl PartialEq for Touchy {
    fn eq(&self, _other: &Self) -> bool {
        assert!(self.0 != "eq", "not equal");
        true
    }
}

impl Eq for Touchy {}

impl Hash for Touchy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(self.0 != "hash", "no hash");
        state.write_u8(1);
    }
}

#[test]
fn contract_26_traits_of_records_and_keys_may_panic() {
    leak_free(|_| {
        for (touchy, words) in [("hash", &["panicked: no hash"][..]), ("eq", &["panicked: not equal"][..])] {
            in_each_way(
                move |env| {
                    let keyed = env.from_iter(0..3).key_by(move |_| Touchy(touchy));
                    keyed.reduce(|sum: i32, n| sum + n).sink(|_| {});
                },
                fails_saying(words),
            );
        }
        in_each_way(
            |env| {
                let [one, other] = env.from_factory(|_| [Touchy("clone")]).tee();
                one.sink(|_| {});
                other.sink(|_| {});
            },
            fails_saying(&["panicked: no copy"]),
        );
    });
}

#[test]
fn contract_26_what_was_never_started_is_dropped_off_the_dispatchers_thread() {
    struct Tells(Arc<std::sync::Mutex<Vec<ThreadId>>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(thread::current().id());
            panic!("never used");
        }
    }
    leak_free(|_| {
        let threads: Arc<std::sync::Mutex<Vec<ThreadId>>> = Arc::default();
        let env = Environment::local("waiting");
        Probe::new("s", &Journal::new()).in_setup(|_| Err("no".into())).register(&env).build();
        for _ in 0..2 {
            let threads = Arc::clone(&threads);
            env.from_iter([1]).sink_to(move |_| Holding(Tells(threads.clone())));
        }
        let report = failed(env.run());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Failed, Cleanliness::Clean), "{report}");
        let told: Vec<_> = report.attached.iter().map(|cause| cause.message.as_str()).collect();
        let message = "a value that was not used panicked when it was dropped: never used";
        assert_eq!(told, [message, message]);
        // `run` dispatches on the calling thread.
        assert!(threads.lock().unwrap().iter().all(|thread| *thread != thread::current().id()));
    });
}

#[test]
fn contract_26_a_drop_that_never_returns_is_named() {
    struct Hangs(Gate);
    impl Drop for Hangs {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    leak_free(|watch| {
        let gate = Gate::new();
        let env = Environment::local("waiting").deadlines(impatient());
        Probe::new("s", &Journal::new()).in_setup(|_| Err("no".into())).register(&env).build();
        let its_own = gate.clone();
        env.from_iter([1]).sink_to(move |_| Holding(Hangs(its_own.clone())));
        let report = failed(env.run());
        assert_eq!(left(&report), ["the `Drop` of a value that was not used"], "{report}");
        assert_eq!(report.service("s").unwrap().state, ServiceState::Cleaned);
        watch.expect_left(&["sage-discard"]);
        gate.open();
        watch.await_left(&[]);
    });
}

thread_local! {
    static KEPT: RefCell<Option<AtThreadsEnd>> = const { RefCell::new(None) };
}

struct AtThreadsEnd(Gate);

impl Drop for AtThreadsEnd {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[test]
fn contract_26_a_thread_that_does_not_end_after_its_work_is_named() {
    leak_free(|watch| {
        for in_service in [false, true] {
            let gate = Gate::new();
            let keep = {
                let gate = gate.clone();
                move || KEPT.set(Some(AtThreadsEnd(gate.clone())))
            };
            let env = Environment::local("thread-local").deadlines(impatient());
            let journal = Journal::new();
            let its_own = keep.clone();
            Probe::new("s", &journal)
                .in_cleanup(move |_| {
                    if in_service {
                        its_own();
                    }
                    Ok(())
                })
                .register(&env)
                .build();
            env.from_iter([1]).named("t").sink(move |_| {
                if !in_service {
                    keep();
                }
            });
            let report = failed(env.run());
            assert_eq!(report.outcome, Outcome::Succeeded);
            let (what, thread) =
                if in_service { ("a thread of service `s`", "svc s") } else { ("the thread of task `t`", "t") };
            assert_eq!(left(&report), [what], "{report}");
            assert!(report.left[0].why.contains("thread-local"), "{report}");
            assert_eq!(journal.count("s cleanup"), 1);
            watch.expect_left(&[thread]);
            gate.open();
            watch.await_left(&[]);
        }
    });
}

#[test]
fn contract_26_probes_may_panic_or_hang() {
    leak_free(|watch| {
        for hangs in [false, true] {
            let (gate, probe_gate) = (Gate::new(), Gate::new());
            let (held, its_own) = (gate.clone(), probe_gate.clone());
            let env = Environment::local("probed").deadlines(impatient()).where_stuck(move |_| {
                if hangs {
                    its_own.pass();
                }
                panic!("no place")
            });
            Probe::new("s", &Journal::new()).register(&env).build();
            env.from_iter([1]).named("t").sink(move |_| held.pass());
            let job = env.submit().unwrap();
            gate.await_arrivals(1);
            job.cancel();
            let report = failed(job.wait());
            let told = report.attached.iter().map(ToString::to_string).collect::<String>();
            if hangs {
                assert_eq!(left(&report), ["task `t`", "the probe that tells where something is stuck"], "{report}");
                watch.expect_left(&["sage-probe", "t"]);
            } else {
                assert!(told.contains("the probe panicked: no place"), "{told}");
                watch.expect_left(&["t"]);
            }
            assert_eq!(report.service("s").unwrap().state, ServiceState::Cleaned);
            gate.open();
            probe_gate.open();
            watch.await_left(&[]);
        }
    });
}

#[test]
fn contract_26_a_probe_for_calls_may_panic() {
    leak_free(|watch| {
        let gate = Gate::new();
        let env = Environment::local("calls");
        let service = Probe::new("s", &Journal::new()).register(&env).stop_timeout(SHORT);
        let service = service.where_calls_stuck(|| panic!("no place")).build();
        let (held, ready) = (gate.clone(), Gate::new());
        let calls = ready.clone();
        env.from_iter([1]).sink(move |_| calls.pass());
        let job = env.submit().unwrap();
        ready.await_arrivals(1);
        let caller = thread::spawn(move || service.call(|_| held.pass()));
        gate.await_arrivals(1);
        ready.open();
        let report = failed(job.wait());
        assert_eq!((report.outcome, left(&report)), (Outcome::Succeeded, vec!["service `s`"]), "{report}");
        assert_eq!(report.services[0].calls, 1);
        assert!(report.to_string().contains("the probe panicked: no place"), "{report}");
        gate.open();
        caller.join().unwrap().unwrap();
        watch.await_left(&[]);
    });
}

#[test]
fn contract_26_a_waker_that_panics_keeps_no_other_from_being_woken() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("no waking");
        }
    }
    struct Unparks(thread::Thread);
    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    leak_free(|_| {
        let gate = Gate::new();
        let env = Environment::local("woken");
        let held = gate.clone();
        env.from_iter([1]).sink(move |_| held.pass());
        let job = env.submit().unwrap();
        let mut waits =
            [Waker::from(Arc::new(Panics)), Waker::from(Arc::new(Unparks(thread::current())))].map(|waker| {
                let mut wait = Box::pin(job.wait_async());
                assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                wait
            });
        gate.open();
        let report = loop {
            if let Poll::Ready(report) = waits[1].as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break report;
            }
            thread::park_timeout(Duration::from_millis(100));
        };
        assert!(report.unwrap().is_success());
    });
}

/// Whoever listens to a program's events is its user's code as well.
struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}
    fn event(&self, _event: &tracing::Event<'_>) {
        panic!("no listener");
    }
    fn enter(&self, _span: &tracing::span::Id) {}
    fn exit(&self, _span: &tracing::span::Id) {}
}

#[test]
fn contract_26_who_listens_to_the_jobs_events_may_panic() {
    leak_free(|_| {
        let env = Environment::local("heard");
        Probe::new("s", &Journal::new()).register(&env).build();
        env.from_iter([1]).sink(|_| {});
        let report = tracing::subscriber::with_default(Listener, || env.run()).unwrap();
        assert!(report.is_success());
    });
}

#[test]
fn contract_26_actions_and_services_may_panic_when_they_are_dropped() {
    leak_free(|_| {
        let journal = Journal::new();
        let env = Environment::local("dropped");
        let registers = |cx: &sage::HookContext| {
            cx.on_cleanup(|| panic!("no undoing"));
            Ok(())
        };
        Probe::new("s", &journal).in_setup(registers).in_drop(|| panic!("no end")).register(&env).build();
        env.from_iter([1]).sink(|_| {});
        let report = failed(env.run());
        assert_eq!(
            (report.outcome, left(&report)),
            (Outcome::Succeeded, vec!["service `s`", "service `s`"]),
            "{report}"
        );
        assert!(report.left[0].why.contains("panicked") || report.left[0].why.contains("no undoing"), "{report}");
    });
}
