//! Services that are registered while a job runs, and the count of calls from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use sage::{CallError, Environment, Service, ServiceHandle, ServiceState};

use super::running;
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed};

struct Plain;
impl Service for Plain {}

fn says_late(result: &Result<(), CallError>) -> bool {
    matches!(result, Err(CallError::RegisteredLate { service }) if service == "late")
}

#[test]
fn contract_11_a_service_registered_while_a_job_runs_is_refused_at_once_wherever_it_is_called() {
    leak_free(|_| {
        for inline in [false, true] {
            let (answers, answered) = mpsc::channel();
            let env = Environment::local("late");
            let env = Arc::new(if inline { env.inline() } else { env });
            // What is registered when the job has begun reaches the hooks that were declared before.
            let late: Arc<std::sync::OnceLock<ServiceHandle<Plain>>> = Arc::default();
            let (in_stop, from_stop) = (late.clone(), answers.clone());
            let user = Probe::new("user", &Journal::new())
                .in_stop(move |_| {
                    from_stop.send(("stop", in_stop.get().expect("registered").call(|_| ())))?;
                    Ok(())
                })
                .register(&env)
                .build();
            let weak = Arc::downgrade(&env);
            env.from_iter([()]).sink(move |()| {
                let handle = weak.upgrade().expect("the test holds it").register_service("late", || Plain).build();
                answers.send(("operator", handle.call(|_| ()))).unwrap();
                let nested = user.call(|_: &Probed| handle.call(|_| ())).unwrap();
                answers.send(("method", nested)).unwrap();
                assert!(late.set(handle).is_ok());
            });
            let report = env.run().unwrap();
            let answers: Vec<_> = answered.try_iter().collect();
            let places: Vec<_> = answers.iter().map(|(place, _)| *place).collect();
            assert_eq!(places, ["operator", "method", "stop"]);
            assert!(answers.iter().all(|(_, result)| says_late(result)), "{answers:?}");
            assert_eq!(report.services.len(), 1);
            // The next job has it.
            let refused = env.service::<Plain>("late").unwrap().call(|_| ());
            assert!(
                matches!(refused, Err(CallError::NotServing { state: ServiceState::Registered, .. })),
                "{refused:?}"
            );
        }
    });
}

#[test]
fn contract_11_a_late_service_is_part_of_the_next_job() {
    leak_free(|_| {
        let env = Environment::local("later");
        let gate = Gate::new();
        let held = gate.clone();
        env.from_collection(vec![1]).sink(move |_| held.pass());
        let job = running(&env);
        let late = env.register_service("late", || Plain).build();
        assert!(says_late(&late.call(|_| ())));
        gate.open();
        assert!(job.wait().unwrap().services.is_empty());
        assert_eq!(env.run().unwrap().service("late").unwrap().state, ServiceState::Cleaned);
    });
}

#[test]
fn contract_25_calls_from_outside_are_counted_in_the_job_they_were_made_in() {
    leak_free(|_| {
        let env = Environment::local("tally");
        let service = env.register_service("s", || Plain).build();
        env.from_collection(vec![1_u8]).sink(|_| {});
        let is_over = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..3)
            .map(|shared| {
                let (service, is_over) = (service.clone(), is_over.clone());
                thread::spawn(move || {
                    let mut made = 0_u64;
                    while !is_over.load(Ordering::Relaxed) {
                        // A clone each time has its count taken over by the gate.
                        let result = if shared == 0 { service.call(|_| ()) } else { service.clone().call(|_| ()) };
                        made += u64::from(result.is_ok());
                    }
                    made
                })
            })
            .collect();
        let counted: u64 = (0..300).map(|_| env.run().unwrap().services[0].calls).sum();
        is_over.store(true, Ordering::Relaxed);
        let made: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert_eq!(counted, made);
    });
}
