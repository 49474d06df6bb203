//! Clause 4: a job does not wait for itself; and what an operator has left behind does not fail the rest of the job.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use sage::{
    BoxError, Cleanliness, CloseContext, Emit, Environment, Fault, HookContext, JobHandle, LeftBehind, Operator, Order,
    Outcome, RunError, WorksFor,
};

use crate::leaks::leak_free;
use crate::probes::{Journal, Probe, failed};

type Place = Arc<OnceLock<Weak<JobHandle>>>;

/// What waiting for the job in `place` comes to, from the calling thread.
fn waited(place: &Place) -> Result<(), String> {
    let job = place.wait().upgrade().expect("the test holds it");
    let refused = |error: RunError| match error {
        RunError::WaitsForItself { .. } => "refused".to_owned(),
        other => other.to_string(),
    };
    assert!(job.wait_timeout(Duration::ZERO).is_none());
    let limited = job.wait_timeout(Duration::from_secs(3600)).expect("no time passes");
    assert!(matches!(limited, Err(RunError::WaitsForItself { .. })));
    job.wait().map(drop).map_err(refused)
}

/// Runs a job whose functions get a way to wait for it.
fn with_job(declare: impl FnOnce(&Environment, Place)) -> Result<(), String> {
    let env = Environment::local("itself");
    let place = Place::default();
    declare(&env, place.clone());
    let job = Arc::new(env.submit().expect("nothing is wrong with it"));
    place.set(Arc::downgrade(&job)).expect("it is set once");
    job.wait().map(drop).map_err(|error| format!("{error}: {:?}", error.report().map(ToString::to_string)))
}

#[test]
fn contract_04_a_function_that_waits_for_its_own_job_gets_an_error_at_once() {
    leak_free(|_| {
        let error = with_job(|env, place| {
            env.from_iter([1]).try_sink(move |_| waited(&place));
        });
        assert!(error.unwrap_err().contains("refused"));
        let error = with_job(|env, place| {
            let wait = move |_: i32| {
                let place = place.clone();
                async move { waited(&place) }
            };
            env.from_iter([1]).try_map_async(2, Order::Ordered, wait).sink(|()| {});
        });
        assert!(error.unwrap_err().contains("refused"));
        // A thread that the function starts, and waits for.
        let error = with_job(|env, place| {
            env.from_iter([1]).try_sink(move |_| {
                let (place, job) = (place.clone(), WorksFor::here().expect("it is a task's"));
                let wait = move || {
                    job.enter();
                    waited(&place)
                };
                std::thread::spawn(wait).join().expect("it does not panic")
            });
        });
        assert!(error.unwrap_err().contains("refused"));
    });
}

#[test]
fn contract_04_a_hook_that_waits_for_its_own_job_gets_an_error_at_once() {
    leak_free(|_| {
        let journal = Journal::new();
        let error = with_job(|env, place| {
            let hook = move |_: &HookContext| -> Result<(), BoxError> { Ok(waited(&place)?) };
            Probe::new("db", &journal).in_cleanup(hook).register(env).build();
            env.from_iter([1]).sink(|_| {});
        });
        assert!(error.unwrap_err().contains("refused"));
    });
}

#[test]
fn contract_04_a_function_waits_for_another_job() {
    leak_free(|_| {
        let wait = |_: i32| -> Result<(), RunError> {
            let env = Environment::local("inner");
            env.from_collection(vec![1]).sink(|_| {});
            env.submit()?.wait()?;
            env.run().map(drop)
        };
        let env = Environment::local("outer");
        env.from_iter([1, 2]).try_sink(wait);
        env.run().unwrap();
    });
}

#[test]
fn contract_04_a_function_that_drops_the_handle_of_its_own_job_cancels_it() {
    leak_free(|_| {
        let env = Environment::local("dropped");
        let place: Arc<OnceLock<std::sync::Mutex<Option<JobHandle>>>> = Arc::default();
        let its_own = place.clone();
        let (told, end) = std::sync::mpsc::channel();
        env.from_factory(|_| 0_u64..).sink(move |_| {
            if let Some(handle) = its_own.wait().lock().unwrap().take() {
                drop(handle);
                told.send(()).expect("the test waits for it");
            }
        });
        assert!(place.set(std::sync::Mutex::new(Some(env.submit().unwrap()))).is_ok());
        end.recv().unwrap();
        while matches!(env.submit(), Err(sage::SubmitError::AlreadyRunning { .. })) {
            std::thread::yield_now();
        }
    });
}

struct Leaves;

impl Operator for Leaves {
    type In = u64;
    type Out = u64;
    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(record)
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        Err(LeftBehind("a thread of its own".to_owned()).into())
    }
}

#[test]
fn contract_14_what_an_operator_leaves_behind_is_told_and_keeps_nobody_from_ending_well() {
    leak_free(|_| {
        let env = Environment::local("left");
        let out = env.from_iter(0..10_000_u64).operator(|| Leaves).named("leaves").on_another_thread().collect();
        let report = failed(env.run());
        assert_eq!((report.outcome, report.cleanliness), (Outcome::Succeeded, Cleanliness::Unclean));
        assert_eq!(report.left[0].why, "of `leaves`: a thread of its own");
        assert_eq!(out.take().len(), 10_000);
    });
}
