//! Services that are not there for a while.

use std::future::ready;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sage::testing;
use sage::{Clock, Environment, JobHandle, JobState, Method, Outcome, Policy, Retry, Timestamp};

use super::{Asked, Plain, calls, plain};
use crate::leaks::leak_free;
use crate::probes::failed;

const SECOND: Duration = Duration::from_secs(1);

/// A service that is there or not, as the test says.
struct There {
    asked: Asked<u32>,
    is_there: Arc<AtomicBool>,
}

impl There {
    fn not() -> Self {
        Self { asked: Asked::new(), is_there: Arc::default() }
    }

    fn answer(&self) -> impl Fn(u32) -> Result<String, Error> + Send + Sync + use<> {
        let (tell, is_there) = (self.asked.teller(), self.is_there.clone());
        move |n| {
            tell(n);
            if is_there.load(Ordering::SeqCst) {
                Ok(n.to_string())
            } else {
                Err(Error::from(ErrorKind::ConnectionRefused))
            }
        }
    }

    fn method(&self, env: &Environment, policy: Policy) -> Method<u32, String> {
        let answer = self.answer();
        plain(env, policy).method("name", move |_, n| ready(answer(n))).build()
    }

    fn comes(&self) {
        self.is_there.store(true, Ordering::SeqCst);
    }
}

/// Waits until the job has come to a state.
#[track_caller]
fn await_state(job: &JobHandle, state: JobState) {
    let end = std::time::Instant::now() + crate::probes::PATIENCE;
    while job.status() != state {
        assert!(std::time::Instant::now() < end, "the job is {}", job.status());
        std::thread::yield_now();
    }
}

fn environment(clock: &Clock) -> Environment {
    Environment::local("outage").clock(clock.clone())
}

#[test]
fn an_outage_pauses_the_job_and_calls_that_met_it_are_made_again() {
    leak_free(|_| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let (env, service) = (environment(&clock), There::not());
        let method = service.method(&env, Policy::new().pause_on_outage(Duration::MAX));
        let called = move |n| {
            let method = method.clone();
            async move { method.call(n).await }
        };
        let answers = env.from_iter(0..3).try_map_async(3, sage::Order::Ordered, called).collect();
        let job = env.submit().unwrap();
        await_state(&job, JobState::Paused);
        // All three have met it, or wait for its end since; one of them is the probe.
        for wait in [1, 2, 4] {
            hands.await_calls(1);
            hands.advance(wait * SECOND);
        }
        hands.await_calls(1);
        let before = service.asked.rest();
        assert!(before.len() >= 4 && before.len() <= 6, "{before:?}");
        service.comes();
        hands.advance(8 * SECOND);
        let report = job.wait().unwrap();
        assert_eq!(answers.take(), ["0", "1", "2"]);
        assert_eq!(service.asked.rest().len(), 3);
        let policy = report.services[0].policy.as_ref().unwrap();
        assert_eq!((policy.outages, policy.failed), (1, 0));
    });
}

#[test]
fn an_outage_that_lasts_too_long_fails_its_calls() {
    leak_free(|_| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let (env, service) = (environment(&clock), There::not());
        let method = service.method(&env, Policy::new().pause_on_outage(5 * SECOND));
        calls(&env, 0..1, 1, method);
        let job = env.submit().unwrap();
        for wait in [1, 2, 2] {
            hands.await_calls(1);
            hands.advance(wait * SECOND);
        }
        let report = failed(job.wait());
        let told = report.first_cause.as_ref().unwrap().to_string();
        assert!(told.contains("service `plain` failed"), "{told}");
        assert_eq!((report.outcome, service.asked.rest().len()), (Outcome::Failed, 3));
    });
}

#[test]
fn without_a_pause_an_outage_fails_its_calls_when_their_attempts_are_used_up() {
    let (env, service) = (Environment::local("outage"), There::not());
    let retry = Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO);
    let method = service.method(&env, Policy::new().retry(retry));
    calls(&env, 0..1, 1, method);
    failed(env.run());
    assert_eq!(service.asked.rest().len(), 3);
}

#[test]
fn a_job_that_is_stopped_during_an_outage_ends() {
    leak_free(|_| {
        for blocking in [false, true] {
            for cancel in [false, true] {
                let (_hands, clock) = testing::clock(Timestamp::from_millis(0));
                let deadlines = sage::Deadlines { drain: Duration::from_millis(50), ..sage::Deadlines::default() };
                let (env, service) = (environment(&clock).deadlines(deadlines), There::not());
                let method = service.method(&env, Policy::new().pause_on_outage(Duration::MAX));
                if blocking {
                    env.from_iter(0..5).try_map(move |n| method.call_blocking(n)).sink(|_| {});
                } else {
                    calls(&env, 0..5, 2, method);
                }
                let job = env.submit().unwrap();
                await_state(&job, JobState::Paused);
                if cancel {
                    job.cancel();
                } else {
                    job.drain();
                }
                let report = failed(job.wait());
                assert_ne!(report.outcome, Outcome::Succeeded, "{report}");
                assert!(report.left.is_empty(), "{report}");
            }
        }
    });
}

#[test]
fn a_caller_that_pauses_the_job_is_obeyed_after_an_outage() {
    leak_free(|_| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let (env, service) = (environment(&clock), There::not());
        let method = service.method(&env, Policy::new().pause_on_outage(Duration::MAX));
        calls(&env, 0..5, 1, method);
        let job = env.submit().unwrap();
        await_state(&job, JobState::Paused);
        job.pause();
        hands.await_calls(1);
        service.comes();
        hands.advance(SECOND);
        // The call that was held is over, and the sources wait on.
        while service.asked.next() != 0 {}
        assert_eq!(job.status(), JobState::Paused);
        job.resume();
        job.wait().unwrap();
    });
}

#[test]
fn a_job_waits_for_each_service_that_is_out() {
    leak_free(|_| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let (env, [store, model]) = (environment(&clock), [There::not(), There::not()]);
        let policy = Policy::new().pause_on_outage(3 * SECOND);
        let (found, registered) = (store.answer(), env.register_service("store", || Plain).policy(policy).build());
        let find = registered.method("find", move |_, n| ready(found(n))).build();
        let name = model.method(&env, Policy::new().pause_on_outage(Duration::MAX));
        let called = move |n| {
            let (find, name) = (find.clone(), name.clone());
            async move { if n < 3 { find.call(n).await.or(Ok("given up".to_owned())) } else { name.call(n).await } }
        };
        let (feed, source) = testing::source();
        let (received, sink) = testing::sink();
        let answers = env.from_source(move |_| source.clone()).try_map_async(4, sage::Order::Unordered, called);
        answers.sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        (0..4).for_each(|n| feed.send(n));
        await_state(&job, JobState::Paused);
        // Both have a probe that waits for its time.
        hands.await_calls(2);
        hands.advance(SECOND);
        hands.await_calls(2);
        hands.advance(2 * SECOND);
        // The store is given up: its three calls end. The model is waited for.
        assert_eq!(received.wait_for(3), ["given up"; 3]);
        hands.await_calls(1);
        assert_eq!(job.status(), JobState::Paused);
        model.comes();
        hands.advance(30 * SECOND);
        assert_eq!(received.wait_for(4)[3], "3");
        feed.end();
        let report = job.wait().unwrap();
        let outages = |name| report.service(name).unwrap().policy.as_ref().unwrap().outages;
        assert_eq!([outages("store"), outages("plain")], [1, 1]);
    });
}

/// The callers limit their calls themselves. When all that are held have left, the job goes on.
#[test]
fn a_job_goes_on_when_the_callers_that_are_held_have_left() {
    leak_free(|_| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let (env, service) = (environment(&clock), There::not());
        let method = service.method(&env, Policy::new().pause_on_outage(Duration::MAX));
        let leave = Arc::new(tokio::sync::Notify::new());
        let leaves = leave.clone();
        let called = move |n| {
            let (method, leaves) = (method.clone(), leaves.clone());
            async move {
                tokio::select! {
                    answer = method.call(n) => answer,
                    () = leaves.notified() => Ok("left".to_owned()),
                }
            }
        };
        let (feed, source) = testing::source();
        let answers = env.from_source(move |_| source.clone()).try_map_async(1, sage::Order::Ordered, called).collect();
        let job = env.submit().unwrap();
        for n in 0..2 {
            feed.send(n);
            await_state(&job, JobState::Paused);
            hands.await_calls(1);
            leave.notify_one();
            await_state(&job, JobState::Running);
        }
        feed.end();
        job.wait().unwrap();
        assert_eq!(answers.take(), ["left", "left"]);
    });
}
