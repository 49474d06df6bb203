//! Many services and many operators: what the engine does for them grows with their number, and no faster.

use std::sync::Arc;
use std::time::Duration;

use sage::{CauseKind, Environment, Service, ServiceHandle, ServiceState};

use crate::leaks::leak_free;

/// How long the calling thread has used a processor so far, whatever else that did meanwhile.
fn used() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time`, which outlives it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    let whole = |part: i64| u64::try_from(part).expect("time has passed");
    Duration::from_secs(whole(time.tv_sec)) + Duration::from_nanos(whole(time.tv_nsec))
}

/// A service that calls the one before it when it is called.
struct Nested(Option<ServiceHandle<Nested>>);

impl Nested {
    fn depth(&self) -> usize {
        1 + self.0.as_ref().map_or(0, |before| before.call(Nested::depth).expect("it serves"))
    }
}

impl Service for Nested {}

/// How services depend on each other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    /// Each on the one before it, as declared.
    Chain,
    /// Likewise, and nothing was declared: they call each other.
    Calls,
    /// Not at all.
    Wide,
    /// In threes, each on both that come before it.
    Diamonds,
}

/// Declares so many services and runs a job, on the calling thread as its dispatcher.
fn services(shape: Shape, count: usize) -> Duration {
    let began = used();
    let env = Environment::local("many");
    let mut before: Vec<ServiceHandle<Nested>> = Vec::new();
    for nth in 0..count {
        let uses: Vec<_> = match shape {
            Shape::Wide => Vec::new(),
            Shape::Chain | Shape::Calls => before.last().into_iter().cloned().collect(),
            Shape::Diamonds => before.iter().rev().take(if nth % 3 == 2 { 2 } else { 1 }).cloned().collect(),
        };
        let next = uses.first().filter(|_| shape == Shape::Calls).cloned();
        let mut builder = env.register_service(format!("s{nth}"), move || Nested(next.clone()));
        for uses in uses.iter().filter(|_| shape != Shape::Calls) {
            builder = builder.after(uses);
        }
        before.push(builder.build());
    }
    let last = before.pop().expect("there is one");
    env.from_iter([()]).sink(move |()| {
        let depth = last.call(Nested::depth).expect("it serves");
        assert_eq!(depth, if shape == Shape::Calls { count } else { 1 });
    });
    let report = env.run().expect("nothing fails");
    assert_eq!(report.services.len(), count);
    assert!(report.services.iter().all(|service| service.state == ServiceState::Cleaned));
    drop((env, before));
    used() - began
}

/// Runs on a thread whose stack is large enough for calls that are nested that deep, by the test and not by the engine.
fn on_a_deep_stack<R: Send>(code: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, code);
        thread.expect("there is a thread to be had").join().expect("it does not panic")
    })
}

#[test]
fn contract_06_the_work_for_services_grows_with_their_number() {
    leak_free(|_| {
        for shape in [Shape::Chain, Shape::Wide, Shape::Diamonds, Shape::Calls] {
            // Calls are nested on the stack of the task.
            let (few, many) = if shape == Shape::Calls { (100, 400) } else { (300, 1200) };
            // The least of three: what else there was to do is no part of it.
            let least = |count| (0..3).map(|_| on_a_deep_stack(|| services(shape, count))).min().unwrap();
            let (few, many) = (least(few), least(many));
            // In proportion it would be 4; by the square, 16.
            assert!(many < 9 * few, "{shape:?}: {few:?} and {many:?}");
        }
    });
}

#[test]
fn contract_06_ten_thousand_services_in_a_chain_start_stop_and_are_let_go_of() {
    leak_free(|_| {
        let env = Environment::local("long");
        let mut last: Option<ServiceHandle<Nested>> = None;
        for nth in 0..10_000 {
            let its_own = last.clone();
            let mut builder = env.register_service(format!("s{nth}"), move || Nested(its_own.clone()));
            if let Some(last) = &last {
                builder = builder.after(last);
            }
            last = Some(builder.build());
        }
        env.from_iter([()]).sink(|()| {});
        let report = env.run().unwrap();
        assert!(report.services.iter().all(|service| service.state == ServiceState::Cleaned));
        // Constructors hold each other's handles; letting go of one must not take the stack of all.
        drop(env);
        drop(last);
    });
}

#[test]
fn contract_05_a_long_cycle_is_found() {
    let env = Environment::local("round");
    let next = |nth: usize| format!("s{}", (nth + 1) % 50_000);
    for nth in 0..50_000 {
        env.register_service(format!("s{nth}"), || Nested(None)).after(next(nth).as_str()).build();
    }
    env.from_iter([()]).sink(|()| {});
    match env.submit() {
        Err(sage::SubmitError::DependencyCycle { cycle }) => assert_eq!(cycle.len(), 50_001),
        other => panic!("{:?}", other.map(drop)),
    }
}

/// Declares so many pipelines, has them explained, and runs them.
fn pipelines(count: u64) -> Duration {
    let began = used();
    let env = Environment::local("many").inline();
    let sums: Vec<_> = (0..count).map(|n| env.from_iter([n]).map(|n| n + 1).collect()).collect();
    assert_eq!(env.explain().to_string().lines().count() as u64, count + 1);
    assert_eq!(env.explain().dot().lines().count() as u64, count + 4);
    let report = env.run().expect("nothing fails");
    assert_eq!(report.operators.len() as u64, 3 * count);
    assert_eq!(report.to_string().lines().count() as u64, 3 * count + 2);
    for (n, sum) in (0..).zip(sums) {
        assert_eq!(sum.take(), [n + 1]);
    }
    used() - began
}

#[test]
fn the_work_for_operators_grows_with_their_number() {
    leak_free(|_| {
        let least = |count| (0..3).map(|_| pipelines(count)).min().expect("there are three");
        let (few, many) = (least(1_000), least(4_000));
        // In proportion it would be 4; by the square, 16.
        assert!(many < 9 * few, "{few:?} and {many:?}");
    });
}

#[test]
fn contract_03_ten_thousand_operators_that_wait_for_each_other_run_or_say_what_is_missing() {
    leak_free(|_| {
        let env = Environment::local("threads");
        let mut stream = env.from_iter(0..3_u64).on_another_thread();
        for _ in 0..5_000 {
            stream = stream.map(|n| n + 1).on_another_thread();
        }
        let last = stream.collect();
        match env.run() {
            Ok(report) => {
                assert_eq!(report.operators.len(), 5_002);
                assert_eq!(last.take(), [5_000, 5_001, 5_002]);
            }
            // Where the system does not give so many threads.
            Err(error) => {
                let report = error.report().expect("it was started");
                let cause = report.first_cause.as_ref().expect("it failed");
                assert_eq!((cause.kind, report.left.as_slice()), (CauseKind::Spawn, &[][..]), "{cause}");
            }
        }
    });
}

#[test]
fn contract_03_names_of_any_length_make_no_job_fail_and_no_table_wide() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let name = |letter: &str| letter.repeat(70_000);
        let env = Environment::local(name("e")).log_files(dir.path());
        let service = env.register_service(name("s"), || Nested(None)).build();
        env.from_iter(0..3).named(name("ä")).map(|n| n).named(name("m")).sink(move |_| {
            service.call(|_| ()).unwrap();
        });
        let report = env.run().unwrap();
        assert_eq!(report.operators[0].name, name("ä"));
        let text = report.to_string();
        assert!(text.contains(&format!("  {}…  ", "ä".repeat(59))), "{text}");
        assert!(text.lines().all(|line| line.chars().count() < 400), "{text}");
        // And in a failure, as the error says it.
        let env = Environment::local(name("e")).log_files(dir.path());
        env.from_iter(0..3).named(name("n")).try_map(|_| Err::<i32, _>("no")).named(name("o")).sink(|_| {});
        let error = env.run().unwrap_err();
        assert!(error.to_string().chars().count() < 1_000);
        assert!(
            error.report().unwrap().to_string().contains(&format!("operator `{}…`, record 1: no", "o".repeat(199)))
        );
    });
}

/// A service whose constructor has its own handle is let go of with its environment.
#[test]
fn contract_24_constructors_that_hold_each_others_handles_are_dropped_with_the_environment() {
    let kept = Arc::new(());
    let env = Environment::local("round");
    let own: Arc<std::sync::OnceLock<ServiceHandle<Nested>>> = Arc::default();
    let (its_own, held) = (own.clone(), kept.clone());
    let handle = env.register_service("s", move || {
        let _held = &held;
        Nested(its_own.get().cloned())
    });
    assert!(own.set(handle.build()).is_ok());
    drop(own);
    drop(env);
    assert_eq!(Arc::strong_count(&kept), 1);
}
