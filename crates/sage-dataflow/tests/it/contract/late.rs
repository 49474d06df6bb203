//! Services that are registered while a job runs or set up too late, the order in which a chain is closed, and the
//! count of calls from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use sage::{
    BoxError, CallError, CloseContext, Emit, Environment, Fault, JobState, Next, Operator, Outcome, Service,
    ServiceHandle, ServiceState, Sink, Source, SourceContext,
};

use super::{await_status, ended, running};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed, failed};

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
fn contract_11_a_service_that_is_set_up_too_late_never_serves() {
    leak_free(|_| {
        let (journal, gate) = (Journal::new(), Gate::new());
        let env = Environment::local("too late");
        let held = gate.clone();
        let slow = Probe::new("slow", &journal).in_setup(move |_| {
            held.pass();
            Ok(())
        });
        let slow = slow.register(&env).build();
        let seen = gate.clone();
        let bad = Probe::new("bad", &journal).in_setup(move |_| {
            seen.await_arrivals(1);
            Err("broke".into())
        });
        bad.register(&env).build();
        env.from_iter([1]).sink(|_| {});
        let job = env.submit().unwrap();
        await_status(&job, JobState::Stopping);
        // The job is over but for this service, whose setup now ends well.
        gate.open();
        let report = failed(ended(job));
        journal.assert_order(&["slow setup ended", "slow cleanup", "slow drop"]);
        // `stop` is for those that served.
        assert_eq!(journal.count("slow stop"), 0);
        assert_eq!((report.outcome, report.service("slow").unwrap().state), (Outcome::Failed, ServiceState::Cleaned));
        assert_eq!(report.left.len(), 0, "{report}");
        assert!(matches!(slow.call(Probed::touch), Err(CallError::NotServing { .. })));
    });
}

#[test]
fn contract_09_a_chain_is_closed_from_its_source_to_its_sink_whatever_ends_it() {
    struct Closes(&'static str, Journal);
    impl Operator for Closes {
        type In = u64;
        type Out = u64;
        fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
            if record == 3 { Err(Fault::Error("three".into())) } else { out.emit(record) }
        }
        fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
            self.1.note(self.0);
            Ok(())
        }
    }
    impl Source for Closes {
        type Item = u64;
        fn next(&mut self, _cx: &SourceContext) -> Result<Next<u64>, BoxError> {
            Ok(Next::End)
        }
        fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
            self.1.note("source");
            Ok(())
        }
    }
    impl Sink for Closes {
        type In = u64;
        fn write(&mut self, _record: u64) -> Result<(), BoxError> {
            Ok(())
        }
        fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
            self.1.note("sink");
            Ok(())
        }
    }
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("closed");
            let env = if inline { env.inline() } else { env };
            let journal = Journal::new();
            let notes = [(); 4].map(|()| journal.clone());
            let [source, first, second, sink] = notes;
            let stream = env.from_source(move |_| Closes("source", source.clone()));
            let stream = stream.operator(move || Closes("first", first.clone()));
            let stream = stream.operator(move || Closes("second", second.clone()));
            stream.sink_to(move |_| Closes("sink", sink.clone()));
            env.run().unwrap();
            assert_eq!(journal.events(), ["source", "first", "second", "sink"]);
        }
        // And after a failure.
        let env = Environment::local("failed");
        let journal = Journal::new();
        let [first, second, sink] = [(); 3].map(|()| journal.clone());
        let stream = env.from_iter(0_u64..).operator(move || Closes("first", first.clone()));
        stream.operator(move || Closes("second", second.clone())).sink_to(move |_| Closes("sink", sink.clone()));
        failed(env.run());
        assert_eq!(journal.events(), ["first", "second", "sink"]);
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
