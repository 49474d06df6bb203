//! The lifecycle contract, clause by clause: each test is named after the clause of `docs/lifecycle.md` it holds the
//! engine to. Clause 18 is in `signals`; 19 to 21 and 23 are about Python, job processes, the job manager and Ray.

mod abandoned;
mod asynchronous;
mod at_return;
mod careless;
mod causes;
mod changes;
mod cost;
mod deadlines;
mod descriptors;
mod elsewhere;
mod ends;
mod faults;
mod finish;
mod guarded;
mod handles;
mod hosts;
mod itself;
mod late;
mod limits;
mod log_variable;
mod many;
mod order;
mod report;
mod retries;
mod services;
mod states;
mod stops;

use std::thread;
use std::time::{Duration, Instant};

use sage::{Deadlines, Environment, JobHandle, JobReport, JobState, Leftover, Outcome, RunError};

use crate::probes::{Gate, PATIENCE, failed};

/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(200);

/// A pipeline of three records that anyone may run any number of times.
fn add_pipeline(env: &Environment) {
    env.from_collection(vec![1, 2, 3]).sink(|_| {});
}

/// A pipeline that holds its first record at the gate.
fn add_held_pipeline(env: &Environment, gate: &Gate) {
    let gate = gate.clone();
    env.from_collection(vec![1, 2, 3]).map(move |_| gate.pass()).sink(|()| {});
}

/// An endless pipeline.
fn add_endless_pipeline(env: &Environment) {
    env.from_factory(|_| 0_u64..).on_another_thread().sink(|_| {});
}

/// Waits until a job is in a state.
#[track_caller]
pub(crate) fn await_status(job: &JobHandle, state: JobState) {
    let deadline = Instant::now() + PATIENCE;
    while job.status() != state {
        assert!(Instant::now() < deadline, "it is {}, not {state}", job.status());
        thread::yield_now();
    }
}

/// Submits a job and waits until its tasks have been started.
#[track_caller]
fn running(env: &Environment) -> JobHandle {
    let job = env.submit().expect("nothing is wrong with the declaration");
    await_status(&job, JobState::Running);
    job
}

/// How a job ended that must end. Where it does not, the test fails, and leaves the job: its handle would wait for it.
#[track_caller]
fn ended(job: JobHandle) -> Result<JobReport, RunError> {
    let Some(run) = job.wait_timeout(PATIENCE) else {
        let state = job.status();
        std::mem::forget(job);
        panic!("the job has not ended; it is {state}");
    };
    run
}

/// The report of a job that was cancelled and left nothing behind.
#[track_caller]
pub(crate) fn cancelled(job: &JobHandle) -> JobReport {
    job.cancel();
    let report = failed(job.wait());
    assert_eq!((report.outcome, report.left.as_slice()), (Outcome::Cancelled, &[] as &[Leftover]), "{report}");
    report
}

/// What is left, by name.
fn left(report: &JobReport) -> Vec<&str> {
    report.left.iter().map(|left| left.what.as_str()).collect()
}

/// Short deadlines for tasks; those of services stay long.
fn impatient() -> Deadlines {
    Deadlines { drain: SHORT, cancel: SHORT, ..Deadlines::default() }
}

/// Fails unless a hook's deadline decided, and not the far longer default.
#[track_caller]
fn assert_in_time(report: &JobReport) {
    assert!(report.elapsed >= SHORT && report.elapsed < Duration::from_secs(8), "{:?}", report.elapsed);
}
