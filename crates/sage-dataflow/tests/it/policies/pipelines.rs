//! Pipelines that are services.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use sage::{
    Batch, Batching, CallError, Environment, ErrorPolicy, JobHandle, JobState, Method, Order, Outcome, PipelineReport,
    Policy, Requests, Retry, ServiceState, SubmitError, Unanswered,
};

use super::{Asked as Heard, plain};
use crate::leaks::leak_free;
use crate::probes::{Gate, failed};

/// A pipeline that doubles numbers, on a thread of its own.
fn doubling(env: &Environment) -> Method<u64, u64> {
    env.register_pipeline("double", |requests| {
        requests.on_another_thread().map(|asked| asked.map(|n: u64| 2 * n)).answer()
    })
    .build()
}

/// A pipeline whose records wait at a gate.
fn gated(env: &Environment, gate: &Gate) -> Method<u64, u64> {
    let gate = gate.clone();
    let wait = move |asked: sage::Asked<u64, u64>| {
        gate.pass();
        asked
    };
    env.register_pipeline("gated", |requests| requests.map(wait).answer()).at_once(2).build()
}

/// A pipeline that answers a call when the next one comes, or when its input ends.
fn holding(env: &Environment) -> Method<u64, u64> {
    env.register_pipeline("holding", |requests| requests.batch(2).flat_map(|pair| pair).answer()).build()
}

/// Where the calls of the first service are.
fn calls(job: &JobHandle) -> PipelineReport {
    job.metrics().services[0].pipeline.unwrap()
}

/// A call of the program's, made again until the job has started.
fn served(call: impl Fn() -> Result<u64, CallError>) -> u64 {
    loop {
        match call() {
            Err(CallError::NotServing { state: ServiceState::Registered | ServiceState::Initialising, .. }) => {
                std::thread::yield_now();
            }
            answer => return answer.unwrap(),
        }
    }
}

fn is_unanswered(error: &CallError) -> bool {
    let mut next = Some(error as &dyn std::error::Error);
    while let Some(error) = next {
        if error.is::<Unanswered>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[test]
fn a_thousand_calls_at_once_each_get_their_own_answer() {
    leak_free(|_| {
        let env = Environment::local("double");
        let double = doubling(&env);
        let called = move |n| {
            let double = double.clone();
            async move { double.call(n).await.map(|answer| (n, answer)) }
        };
        let answers = env.from_iter(0..1000).try_map_async(1000, Order::Unordered, called).collect();
        let report = env.run().unwrap();
        let answers: HashMap<_, _> = answers.take().into_iter().collect();
        assert_eq!(answers.len(), 1000);
        assert!(answers.iter().all(|(n, answer)| *answer == 2 * n));
        let service = &report.services[0];
        assert_eq!((service.calls, service.errors, service.state), (1000, 0, ServiceState::Cleaned));
        let told = service.pipeline.unwrap();
        assert_eq!((told.waiting, told.inside, told.unanswered, told.answered_again), (0, 0, 0, 0));
    });
}

#[test]
fn tasks_that_block_and_the_program_call_it_at_the_same_time() {
    leak_free(|_| {
        let env = Environment::local("double");
        let double = doubling(&env);
        let (outside, started) = (double.clone(), Gate::new());
        let told = started.clone();
        env.from_factory(|_| 0..200_u64)
            .parallelism(4)
            .inspect(move |_| told.pass())
            .try_map(move |n| double.call_blocking(n).map(|answer| assert_eq!(answer, 2 * n)))
            .sink(|()| {});
        let job = env.submit().unwrap();
        started.await_arrivals(4);
        std::thread::scope(|scope| {
            let call = || (0..50).for_each(|n| assert_eq!(outside.call_blocking(n).unwrap(), 2 * n));
            let callers = [(); 4].map(|()| scope.spawn(call));
            // Not left to the scope, which does not wait until the threads are gone.
            callers.into_iter().for_each(|caller| caller.join().unwrap());
        });
        started.open();
        let report = job.wait().unwrap();
        assert_eq!(report.services[0].calls, 1000);
        assert!(matches!(outside.call_blocking(1), Err(CallError::NotServing { .. })));
    });
}

#[test]
fn no_more_calls_are_records_than_may_be_and_one_whose_caller_leaves_becomes_none() {
    leak_free(|_| {
        let (env, gate) = (Environment::local("gated"), Gate::new());
        let policy_method = gated(&env, &gate);
        let called = {
            let method = policy_method.clone();
            move |n| {
                let method = method.clone();
                async move { method.call(n).await }
            }
        };
        let answers = env.from_iter(0..50).try_map_async(50, Order::Unordered, called).collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let impatient = policy_method.with_policy(|policy| _ = policy.timeout(Duration::from_millis(20)));
        while calls(&job).waiting < 48 {
            std::thread::yield_now();
        }
        assert!(matches!(impatient.call_blocking(1000), Err(CallError::TimedOut { .. })));
        let now = calls(&job);
        assert!(now.inside <= 2 && now.waiting + now.inside == 50, "{now:?}");
        gate.open();
        let report = job.wait().unwrap();
        let mut answers = answers.take();
        answers.sort_unstable();
        assert_eq!(answers, (0..50).collect::<Vec<_>>());
        assert_eq!(report.services[0].pipeline.unwrap().unanswered, 0);
    });
}

#[test]
fn a_record_that_is_filtered_or_fails_gives_its_caller_an_error_at_once() {
    leak_free(|_| {
        let env = Environment::local("picky");
        let picky = env
            .register_pipeline("picky", |requests: Requests<u64, u64>| {
                requests
                    .filter(|asked| asked.request() % 3 != 0)
                    .try_map(|asked| if asked.request() % 3 == 1 { Err("one too many") } else { Ok(asked) })
                    .on_error(ErrorPolicy::skip())
                    .answer()
            })
            // What was dropped once is not tried again.
            .policy(Policy::new().retry(Retry::up_to(5)))
            .build();
        let called = move |n| (n, picky.call_blocking(n));
        let answers = env.from_iter(0..300).map(called).collect();
        let report = env.run().unwrap();
        for (n, answer) in answers.take() {
            match n % 3 {
                2 => assert_eq!(answer.unwrap(), n),
                _ => assert!(is_unanswered(&answer.unwrap_err()), "{n}"),
            }
        }
        let service = &report.services[0];
        assert_eq!((service.pipeline.unwrap().unanswered, service.errors, service.calls), (200, 200, 300));
    });
}

#[test]
fn a_step_may_end_a_call_with_an_error_and_a_second_answer_is_ignored_and_counted() {
    leak_free(|_| {
        let env = Environment::local("odd");
        let odd = env
            .register_pipeline("odd", |requests: Requests<u64, String>| {
                requests.sink(|asked| {
                    let (n, caller) = asked.into_parts();
                    if n % 2 == 0 {
                        return caller.fail(format!("{n} is even"));
                    }
                    assert!(caller.is_waiting());
                    caller.answer(n.to_string());
                    assert!(!caller.is_waiting());
                    caller.answer("again".to_owned());
                })
            })
            .build();
        let answers = env.from_iter(0..2).map(move |n| odd.call_blocking(n)).collect();
        let report = env.run().unwrap();
        let answers = answers.take();
        assert!(matches!(&answers[0], Err(CallError::Failed { source, .. }) if source.to_string() == "0 is even"));
        assert_eq!(answers[1].as_ref().unwrap(), "1");
        assert_eq!(report.services[0].pipeline.unwrap().answered_again, 1);
    });
}

#[test]
fn a_timeout_ends_a_call_whose_record_is_on_its_way() {
    leak_free(|_| {
        let (env, gate) = (Environment::local("late"), Gate::new());
        let wait = gate.clone();
        let late = env
            .register_pipeline("late", |requests: Requests<u64, u64>| {
                requests
                    .map(move |asked| {
                        wait.pass();
                        assert!(!asked.is_waiting() && asked.deadline().is_some());
                        asked
                    })
                    .answer()
            })
            .policy(Policy::new().timeout(Duration::from_millis(20)))
            .build();
        let answers = env
            .from_iter([1])
            .map(move |n| {
                let answer = late.call_blocking(n);
                gate.open();
                answer
            })
            .collect();
        env.run().unwrap();
        assert!(matches!(answers.take()[..], [Err(CallError::TimedOut { .. })]));
    });
}

#[test]
fn a_drain_ends_it_after_all_that_call_it_and_every_call_is_answered() {
    leak_free(|_| {
        let env = Environment::local("drained");
        let double = doubling(&env);
        let (made, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, ended) = (made.clone(), answered.clone());
        let called = move |n| {
            let (double, begun, ended) = (double.clone(), begun.clone(), ended.clone());
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                let answer = double.call(n).await;
                ended.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
                answer
            }
        };
        env.from_factory(|_| 0_u64..).try_map_async(32, Order::Unordered, called).sink(|_| {});
        let job = env.submit().unwrap();
        while answered.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        job.drain();
        let report = job.wait().unwrap();
        assert_eq!(made.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
        assert_eq!(report.services[0].calls, made.load(Ordering::Relaxed) as u64);
    });
}

#[test]
fn calls_of_the_program_that_were_let_in_are_answered_at_a_drain_and_later_ones_are_refused() {
    leak_free(|_| {
        let env = Environment::local("program");
        let holding = holding(&env);
        let job = env.submit().unwrap();
        // With nobody else to call it, it goes on until it is drained.
        std::thread::scope(|scope| {
            let answers = Heard::new();
            let callers = [0, 1, 2].map(|n| {
                let (told, holding) = (answers.teller(), holding.clone());
                scope.spawn(move || told(served(|| holding.call_blocking(n))))
            });
            let first = [answers.next(), answers.next()];
            while calls(&job).inside < 1 {
                std::thread::yield_now();
            }
            job.drain();
            job.wait().unwrap();
            let mut all = [first[0], first[1], answers.next()];
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
            callers.into_iter().for_each(|caller| caller.join().unwrap());
        });
        assert!(matches!(holding.call_blocking(1), Err(CallError::NotServing { .. })));
    });
}

#[test]
fn a_cancel_ends_every_call_wherever_it_is() {
    leak_free(|_| {
        for blocking in [false, true] {
            // In a record that is worked on, in the queue behind it, and in a batch that is not full.
            for held in [false, true] {
                let (env, gate) = (Environment::local("cancelled"), Gate::new());
                let method = if held { holding(&env) } else { gated(&env, &gate) };
                let callers = if held { 1 } else { 8 };
                let caller = method.clone();
                if blocking {
                    let stream = env.from_factory(|_| 0..1_u64).parallelism(callers);
                    stream.try_map(move |n| caller.call_blocking(n)).sink(|_| {});
                } else {
                    let called = move |n| {
                        let caller = caller.clone();
                        async move { caller.call(n).await }
                    };
                    env.from_iter(0..callers as u64).try_map_async(8, Order::Ordered, called).sink(|_| {});
                }
                let job = env.submit().unwrap();
                let all = |now: PipelineReport| now.inside + now.waiting == callers as u64 && now.inside > 0;
                while !all(calls(&job)) {
                    std::thread::yield_now();
                }
                job.cancel();
                gate.open();
                let report = failed(job.wait());
                assert_eq!((report.outcome, report.left.len()), (Outcome::Cancelled, 0), "{report}");
                assert!(report.attached.is_empty(), "{report}");
                assert!(matches!(method.call_blocking(1), Err(CallError::NotServing { .. })));
            }
        }
    });
}

#[test]
fn a_cancel_at_any_moment_leaves_nothing() {
    leak_free(|_| {
        for round in 0..20 {
            let env = Environment::local("cancelled");
            let double = doubling(&env);
            let (outside, seen) = (double.clone(), Arc::new(AtomicUsize::new(0)));
            let count = seen.clone();
            let called = move |n| {
                let (double, count) = (double.clone(), count.clone());
                async move {
                    let answer = double.call(n).await;
                    count.fetch_add(1, Ordering::Relaxed);
                    answer
                }
            };
            env.from_factory(|_| 0_u64..).try_map_async(16, Order::Unordered, called).sink(|_| {});
            let job = env.submit().unwrap();
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let caller = scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        drop(outside.call_blocking(1));
                    }
                });
                while seen.load(Ordering::Relaxed) < round * 7 {
                    std::thread::yield_now();
                }
                job.cancel();
                let report = failed(job.wait());
                assert_eq!((report.outcome, report.left.len()), (Outcome::Cancelled, 0), "{report}");
                over.store(true, Ordering::Relaxed);
                caller.join().unwrap();
            });
        }
    });
}

#[test]
fn a_pause_holds_it_and_it_goes_on_afterwards() {
    leak_free(|_| {
        let env = Environment::local("paused");
        let double = doubling(&env);
        let job = env.submit().unwrap();
        assert_eq!(served(|| double.call_blocking(1)), 2);
        job.pause();
        while job.status() != JobState::Paused {
            std::thread::yield_now();
        }
        std::thread::scope(|scope| {
            let call = scope.spawn(|| double.call_blocking(2));
            while calls(&job).waiting == 0 {
                std::thread::yield_now();
            }
            job.resume();
            assert_eq!(call.join().unwrap().unwrap(), 4);
        });
        job.drain();
        job.wait().unwrap();
    });
}

#[test]
fn a_pipeline_that_uses_another_ends_before_it_in_whichever_order_they_were_registered() {
    leak_free(|_| {
        for used_first in [true, false] {
            let (env, gate) = (Environment::local("two"), Gate::new());
            let used: Arc<Mutex<Option<Method<u64, u64>>>> = Arc::default();
            let (late, wait) = (used.clone(), gate.clone());
            let add = |requests: Requests<u64, u64>| {
                let step = move |asked: sage::Asked<u64, u64>| {
                    if *asked.request() > 1 {
                        wait.pass();
                    }
                    let double = late.lock().unwrap().clone().unwrap();
                    let answer = double.call_blocking(*asked.request())?;
                    Ok::<_, CallError>(asked.with(answer + 1))
                };
                requests.try_map(step).answer()
            };
            let first = used_first.then(|| doubling(&env));
            let user = env.register_pipeline("add", add).build();
            *used.lock().unwrap() = Some(first.unwrap_or_else(|| doubling(&env)));
            let job = env.submit().unwrap();
            // Which one uses the other is seen at the first call.
            assert_eq!(served(|| user.call_blocking(1)), 3);
            std::thread::scope(|scope| {
                let last = scope.spawn(|| user.call_blocking(5));
                gate.await_arrivals(1);
                job.drain();
                while job.status() != JobState::Draining {
                    std::thread::yield_now();
                }
                gate.open();
                assert_eq!(last.join().unwrap().unwrap(), 11);
            });
            job.wait().unwrap();
            used.lock().unwrap().take();
        }
    });
}

#[test]
fn one_that_wants_no_more_calls_refuses_them_at_once() {
    leak_free(|_| {
        for apart in [false, true] {
            let env = Environment::local("two");
            let steps = |requests: Requests<u64, u64>| {
                if apart {
                    drop(requests.on_another_thread().take(2).answer());
                } else {
                    drop(requests.take(2).answer());
                }
            };
            let two = env.register_pipeline("two", steps).build();
            let answers = env.from_iter(0..20).map(move |n| two.call_blocking(n).is_ok()).collect();
            env.run().unwrap();
            assert_eq!(answers.take(), [vec![true; 2], vec![false; 18]].concat());
        }
    });
}

#[test]
fn it_can_run_again() {
    leak_free(|_| {
        let env = Environment::local("again");
        let double = doubling(&env);
        let answers = env.from_collection(vec![1, 2, 3]).try_map(move |n| double.call_blocking(n)).collect();
        for _ in 0..3 {
            let report = env.run().unwrap();
            assert_eq!(answers.take(), [2, 4, 6]);
            assert_eq!(report.services[0].calls, 3);
        }
    });
}

#[test]
fn one_that_calls_itself_gets_an_error_at_once() {
    leak_free(|_| {
        let env = Environment::local("self");
        let own: Arc<Mutex<Option<Method<u64, String>>>> = Arc::default();
        let late = own.clone();
        let steps = |requests: Requests<u64, String>| {
            requests
                .map(move |asked| {
                    let own = late.lock().unwrap().clone().unwrap();
                    let error = own.call_blocking(1).unwrap_err();
                    assert!(matches!(error, CallError::ReachesItself { .. }), "{error}");
                    asked.with(error.to_string())
                })
                .answer()
        };
        let itself = env.register_pipeline("self", steps).build();
        *own.lock().unwrap() = Some(itself.clone());
        let answers = env.from_iter([1]).try_map(move |n| itself.call_blocking(n)).collect();
        env.run().unwrap();
        own.lock().unwrap().take();
        let expected = "service `self` was not called: a pipeline would wait for itself, by self → self";
        assert_eq!(answers.take(), [expected]);
    });
}

#[test]
fn one_that_reaches_itself_through_a_service_gets_an_error_whoever_calls_first() {
    leak_free(|_| {
        for kind in ["awaited", "blocking", "in batches"] {
            for pipeline_first in [false, true] {
                let env = Environment::local("circle");
                let own: Arc<Mutex<Option<Method<u64, String>>>> = Arc::default();
                // With a timeout, an answer that blocks is made on a thread of its own.
                let policy = Policy::new().timeout(crate::probes::PATIENCE);
                let (late, model) = (own.clone(), plain(&env, policy));
                let circle = move || late.lock().unwrap().clone().unwrap();
                let ask = match kind {
                    "awaited" => {
                        let ask = move |_, n| {
                            let circle = circle();
                            async move { circle.call(n).await }
                        };
                        model.method("ask", ask).build()
                    }
                    "blocking" => model.blocking_method("ask", move |_, n| circle().call_blocking(n)).build(),
                    _ => {
                        let ask = move |_, batch: Batch<u64>| {
                            let (circle, n) = (circle(), batch[0]);
                            async move { circle.call(n).await.map(|answer| vec![Ok(answer)]) }
                        };
                        model.batch_method("ask", Batching::of(1), ask).build()
                    }
                };
                let inner = ask.clone();
                let steps = |requests: Requests<u64, String>| {
                    requests
                        .map(move |asked| {
                            let error = inner.call_blocking(1).unwrap_err();
                            let source = std::error::Error::source(&error).map(ToString::to_string);
                            asked.with(format!("{error}: {source:?}"))
                        })
                        .answer()
                };
                let circle = env.register_pipeline("circle", steps).build();
                *own.lock().unwrap() = Some(circle.clone());
                let first = if pipeline_first { circle } else { ask };
                let answers = env.from_collection(vec![1, 2]).map(move |n| first.call_blocking(n)).collect();
                for _run in 0..2 {
                    env.run().unwrap();
                    let answers = answers.take();
                    let told = |answer: &Result<String, CallError>| match answer {
                        Ok(answer) => answer.clone(),
                        Err(error) => format!("{error}: {}", std::error::Error::source(error).unwrap()),
                    };
                    let in_time = |answer| told(answer).contains("a pipeline would wait for itself, by ");
                    assert!(answers.len() == 2 && answers.iter().all(in_time), "{answers:?}");
                }
                own.lock().unwrap().take();
            }
        }
    });
}

#[test]
fn a_service_that_calls_it_while_the_job_starts_gets_an_error_at_once() {
    leak_free(|_| {
        struct Eager(Method<u64, u64>, Arc<Mutex<Option<CallError>>>);
        impl sage::Service for Eager {
            fn setup(&self, _cx: &sage::HookContext) -> Result<(), sage::BoxError> {
                *self.1.lock().unwrap() = self.0.call_blocking(1).err();
                Ok(())
            }
        }
        let (env, told) = (Environment::local("eager"), Arc::<Mutex<Option<CallError>>>::default());
        let (double, tell) = (doubling(&env), Arc::clone(&told));
        let again = double.clone();
        env.register_service("eager", move || Eager(double.clone(), tell.clone())).build();
        env.from_iter([1]).try_map(move |n| again.call_blocking(n)).sink(|_| {});
        env.run().unwrap();
        let error = told.lock().unwrap().take().unwrap();
        assert!(matches!(error, CallError::NotServing { state: ServiceState::Initialising, .. }), "{error}");
    });
}

#[test]
fn what_cannot_be_is_said_when_the_environment_is_submitted() {
    let option = |env: &Environment| match env.submit().map(drop) {
        Err(SubmitError::OperatorOption { operator, message }) => format!("{operator}: {message}"),
        other => panic!("{other:?}"),
    };
    let env = Environment::local("none");
    env.register_pipeline("none", |requests: Requests<u8, u8>| requests.answer()).at_once(0).build();
    assert!(option(&env).starts_with("none: no call can ever be a record"));

    let env = Environment::local("inline").inline();
    env.register_pipeline("inline", |requests: Requests<u8, u8>| requests.answer()).build();
    assert!(option(&env).contains("no thread could wait"));

    let env = Environment::local("shared");
    let (mut first, mut second) = (None, None);
    env.register_pipeline("a", |requests: Requests<u8, u8>| first = Some(requests)).build();
    env.register_pipeline("b", |requests: Requests<u8, u8>| second = Some(requests)).build();
    first.unwrap().union(second.unwrap()).answer();
    assert!(option(&env).starts_with("b: it shares operators with the pipeline `a`"));

    let env = Environment::local("twice");
    for _ in 0..2 {
        env.register_pipeline("a", |requests: Requests<u8, u8>| requests.answer()).build();
    }
    assert!(matches!(env.submit().map(drop), Err(SubmitError::DuplicateService { .. })));
}

#[test]
fn the_graph_and_the_report_show_it() {
    let env = Environment::local("shown");
    let double = doubling(&env);
    env.from_iter([1]).try_map(move |n| double.call_blocking(n)).sink(|_| {});
    let shown = env.explain().to_string();
    assert!(shown.contains("chain 1 ×1: double"), "{shown}");
    assert!(shown.contains("service double, answered by chain 1"), "{shown}");
    assert_eq!(env.graph().services[0].pipeline, Some(1));
    assert!(env.explain().dot().contains(r#""service double" -> chain1"#));
    let report = env.run().unwrap();
    assert_eq!((report.operators[0].name.as_str(), report.operators[0].records_in), ("double", 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn its_answers_are_those_of_a_plain_function(
        requests in proptest::collection::vec(0..20_u64, 0..60),
        at_once in 1..8_usize,
        (replicas, callers) in (1..4_usize, 1..16_usize),
    ) {
        let plain = |n: u64| if n % 5 == 0 { None } else { Some(n * n + 1) };
        let env = Environment::local("plain");
        let square = env
            .register_pipeline("square", |requests| {
                let kept = requests.filter(|asked: &sage::Asked<u64, u64>| asked.request() % 5 != 0);
                kept.map(|asked| asked.map(|n| n * n + 1)).parallelism(replicas).answer()
            })
            .at_once(at_once)
            .build();
        let called = move |n| {
            let square = square.clone();
            async move { (n, square.call(n).await) }
        };
        let answers = env.from_iter(requests.clone()).map_async(callers, Order::Ordered, called).collect();
        let report = env.run().unwrap();
        let answers = answers.take();
        prop_assert_eq!(answers.len(), requests.len());
        for (asked, (n, answer)) in requests.iter().zip(answers) {
            prop_assert_eq!(*asked, n);
            match plain(n) {
                Some(expected) => prop_assert_eq!(answer.unwrap(), expected),
                None => prop_assert!(is_unanswered(&answer.unwrap_err())),
            }
        }
        prop_assert_eq!(report.services[0].calls, requests.len() as u64);
    }
}
