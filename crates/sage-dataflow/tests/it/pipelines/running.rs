//! Running: inline and on threads, several pipelines, several runs, several environments.

use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use sage::{Environment, JobState, RunError, SubmitError};

use crate::leaks::leak_free;
use crate::probes::{Gate, failed, sorted};

/// One of everything, and what it gives.
fn everything(env: &Environment) -> impl FnOnce() -> Vec<String> + use<> {
    let [left, right] = env.from_collection((0..200_u64).collect()).map(|n| n * 3).tee();
    let per_key = left
        .filter(|n| n % 2 == 0)
        .key_by(|n| n % 7)
        .fold(0, |sum: &mut u64, n| *sum += n)
        .parallelism(3)
        .map(|(key, sum)| format!("{key}:{sum}"));
    let copies = right.rebalance(2).flat_map(|n| vec![n; (n % 3) as usize]).broadcast(2).count();
    let taken = env.from_factory(|_| 0_u64..).on_another_thread().take(4).reduce(|a, b| a + b);
    let (per_key, copies, taken) = (per_key.collect(), copies.collect(), taken.collect());
    move || {
        let mut all = sorted(per_key.take());
        all.push(format!("{:?} {:?}", copies.take(), taken.take()));
        all
    }
}

#[test]
fn inline_gives_the_same_results_as_threads() {
    leak_free(|_| {
        let (threads, inline) = (Environment::local("threads"), Environment::local("inline").inline());
        let (of_threads, of_inline) = (everything(&threads), everything(&inline));
        threads.run().unwrap();
        inline.run().unwrap();
        assert_eq!(of_threads(), of_inline());
    });
}

#[test]
fn inline_runs_every_function_on_the_calling_thread() {
    leak_free(|_| {
        let env = Environment::local("inline").inline();
        let here = thread::current().id();
        let on_thread = env
            .from_iter(0..10)
            .on_another_thread()
            .map(move |_| thread::current().id() == here)
            .parallelism(2)
            .collect();
        env.run().unwrap();
        assert_eq!(on_thread.take(), [true; 10]);
    });
}

#[test]
fn inline_names_operator_and_record_of_a_failure() {
    leak_free(|_| {
        let env = Environment::local("inline").inline();
        env.from_iter(0..10).on_another_thread().map(|n| assert!(n < 5, "too big")).named("small").sink(|()| {});
        let report = failed(env.run());
        assert_eq!(report.first_cause.unwrap().to_string(), "operator `small`, record 6: panicked: too big");
    });
}

#[test]
fn several_pipelines_and_sinks_run_in_one_environment() {
    leak_free(|_| {
        let env = Environment::local("several");
        let outs: Vec<_> =
            (0..8_u64).map(|start| env.from_iter(start..start + 100).on_another_thread().collect()).collect();
        let report = env.run().unwrap();
        for (start, out) in (0..8).zip(outs) {
            assert_eq!(out.take(), (start..start + 100).collect::<Vec<_>>());
        }
        assert_eq!(report.operators.len(), 16);
    });
}

#[test]
fn a_pipeline_that_answers_another_in_the_same_environment_sees_every_request_at_once() {
    leak_free(|_| {
        let env = Environment::local("bridge");
        let (ask, asked) = mpsc::channel::<Option<u64>>();
        let (answer, answered) = mpsc::channel::<u64>();
        let answered = Arc::new(std::sync::Mutex::new(answered));
        // The service side: requests come in bursts of one, and nothing follows until it has answered.
        env.from_iter(asked.into_iter().map_while(|request| request))
            .named("requests")
            .map(|n| n * n)
            .parallelism(2)
            .rebalance(1)
            .try_sink(move |square| answer.send(square));
        let last = ask.clone();
        let squares = env
            .from_iter(0..200_u64)
            .map(move |n| {
                ask.send(Some(n)).unwrap();
                answered.lock().unwrap().recv().unwrap()
            })
            .inspect(move |square| {
                if *square == 199 * 199 {
                    last.send(None).unwrap();
                }
            })
            .collect();
        env.run().unwrap();
        assert_eq!(squares.take(), (0..200).map(|n| n * n).collect::<Vec<_>>());
    });
}

#[test]
fn collections_and_factories_run_again_and_functions_start_afresh() {
    leak_free(|_| {
        let env = Environment::local("again");
        let mut seen = 0;
        let numbered = env
            .from_collection(vec!["a", "b"])
            .map(move |text| {
                seen += 1;
                format!("{text}{seen}")
            })
            .collect();
        let made = env.from_factory(|_| 0..3).count().collect();
        for _ in 0..3 {
            env.run().unwrap();
            assert_eq!((numbered.take(), made.take()), (vec!["a1".to_owned(), "b2".to_owned()], vec![3]));
        }
    });
}

#[test]
fn a_source_that_can_be_read_once_refuses_a_second_run() {
    leak_free(|_| {
        let env = Environment::local("once");
        env.from_iter([1]).named("once").sink(|_| {});
        env.run().unwrap();
        let error = env.run().unwrap_err();
        let RunError::Submit(SubmitError::SourceConsumed { source_name }) = error else { panic!("{error}") };
        assert_eq!(source_name, "once");
    });
}

#[test]
fn an_environment_runs_one_job_at_a_time() {
    leak_free(|_| {
        let env = Environment::local("busy");
        let gate = Gate::new();
        let held = gate.clone();
        env.from_collection(vec![1]).map(move |_| held.pass()).sink(|()| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let error = env.submit().map(drop).unwrap_err();
        assert!(matches!(&error, SubmitError::AlreadyRunning { environment } if environment == "busy"), "{error}");
        assert!(matches!(env.run(), Err(RunError::Submit(SubmitError::AlreadyRunning { .. }))));
        gate.open();
        job.wait().unwrap();
        assert_eq!(job.status(), JobState::Ended);
        env.run().unwrap();
    });
}

#[test]
fn two_environments_run_at_once_from_two_threads() {
    leak_free(|_| {
        let both = Arc::new(Barrier::new(2));
        let running = ["one", "two"].map(|name| {
            let both = both.clone();
            thread::spawn(move || {
                let env = Environment::local(name);
                // Neither passes before the other has come: they do run at once.
                let meet = move |_: &u64| {
                    both.wait();
                };
                let out = env.from_iter([1]).inspect(meet).count().collect();
                env.run().unwrap();
                out.take()
            })
        });
        for thread in running {
            assert_eq!(thread.join().unwrap(), [1]);
        }
    });
}

#[test]
fn a_job_can_be_submitted_and_awaited_off_the_main_thread() {
    leak_free(|_| {
        let env = Environment::local("off-main");
        let out = env.from_iter(0..10).collect();
        let job = thread::spawn(move || env.submit().unwrap()).join().unwrap();
        let report = thread::spawn(move || job.wait().unwrap()).join().unwrap();
        assert!(report.is_success());
        assert_eq!(out.take().len(), 10);
    });
}

#[test]
fn run_inside_an_async_runtime_is_refused_and_run_async_works() {
    leak_free(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let env = Environment::local("async");
            let out = env.from_collection(vec![1, 2, 3]).on_another_thread().collect();
            assert!(matches!(env.run(), Err(RunError::Submit(SubmitError::InsideRuntime))));
            let report = env.run_async().await.unwrap();
            assert!(report.is_success());
            assert_eq!(out.take(), [1, 2, 3]);
            let job = env.submit().unwrap();
            let (one, two) = tokio::join!(job.wait_async(), job.wait_async());
            assert_eq!(one.unwrap().job, two.unwrap().job);
        });
    });
}

#[test]
fn an_operator_may_run_a_pipeline_of_its_own() {
    leak_free(|_| {
        let outer = Environment::local("outer");
        let sums = outer
            .from_iter(1..=3_u64)
            .map(|n| {
                let inner = Environment::local("inner");
                let sum = inner.from_iter(0..=n).rebalance(2).fold(0, |sum: &mut u64, n| *sum += n).collect();
                inner.run().unwrap();
                sum.take()[0]
            })
            .collect();
        outer.run().unwrap();
        assert_eq!(sums.take(), [1, 3, 6]);
    });
}

#[test]
fn a_job_handle_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    leak_free(|_| {
        let env = Environment::local("shared");
        env.from_iter([1]).sink(|_| {});
        let job = env.submit().unwrap();
        shared(&job);
        job.wait().unwrap();
    });
}

/// Takes so many bytes of its thread's stack, and some.
fn takes_stack(bytes: usize) -> usize {
    let page = [1_u8; 4096];
    let page = std::hint::black_box(page);
    if bytes <= page.len() { usize::from(page[0]) } else { usize::from(page[0]) + takes_stack(bytes - page.len()) }
}

#[test]
fn threads_of_tasks_and_services_have_stacks_as_large_as_was_asked_for() {
    struct Deep;
    impl sage::Service for Deep {
        fn setup(&self, _cx: &sage::HookContext) -> Result<(), sage::BoxError> {
            takes_stack(16 << 20);
            Ok(())
        }
    }
    leak_free(|_| {
        let env = Environment::local("deep").stack_bytes(64 << 20);
        env.register_service("deep", || Deep).build();
        let pages = env.from_iter([16 << 20]).map(takes_stack).collect();
        env.run().unwrap();
        assert_eq!(pages.take(), [4096]);
    });
    let env = Environment::local("none").stack_bytes(1);
    env.from_iter([1]).sink(drop);
    let error = env.run().unwrap_err().to_string();
    assert_eq!(error, "stack_bytes is 1; it may be 65536 to 1099511627776");
}

#[test]
fn what_a_host_does_around_threads_is_done_on_each_and_may_panic() {
    struct Around(mpsc::Sender<(bool, thread::ThreadId)>, bool);
    impl Drop for Around {
        fn drop(&mut self) {
            self.0.send((false, thread::current().id())).unwrap();
            assert!(!self.1, "at the end");
        }
    }
    leak_free(|_| {
        let (sender, began) = mpsc::channel();
        let panics = std::sync::atomic::AtomicUsize::new(0);
        let env = Environment::local("around").around_threads(move || {
            let begun = panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            sender.send((true, thread::current().id())).unwrap();
            assert!(begun != 0, "at the beginning");
            Around(sender.clone(), begun == 1)
        });
        let threads = env
            .from_iter([0])
            .map(|_| thread::current().id())
            .on_another_thread()
            .map(|id| (id, thread::current().id()));
        let threads = threads.collect();
        env.run().unwrap();
        drop(env);
        let (one, other) = threads.take()[0];
        let events: Vec<_> = began.iter().collect();
        for id in [one, other] {
            assert!(events.contains(&(true, id)));
        }
        assert_eq!((events.len(), events.iter().filter(|(begins, _)| !begins).count()), (3, 1));
    });
}
