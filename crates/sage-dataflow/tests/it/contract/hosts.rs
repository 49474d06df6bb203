//! Jobs inside programs that have an async runtime of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sage::{AsyncService, BoxError, Environment, HookContext, Order, RunError, SubmitError};
use tokio::runtime::{Builder, Runtime};

use crate::leaks::leak_free;

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("there are threads to be had")
}

fn run() -> Result<(), RunError> {
    let env = Environment::local("hosted");
    let numbers = env.from_iter(0..3).map_async(2, Order::Ordered, |n| async move { n }).collect();
    let ran = env.run().map(drop);
    assert!(ran.is_err() || numbers.take() == [0, 1, 2]);
    ran
}

#[track_caller]
fn assert_refused(ran: Result<(), RunError>) {
    assert!(matches!(ran, Err(RunError::Submit(SubmitError::InsideRuntime))), "{ran:?}");
}

#[test]
fn run_is_refused_where_it_would_stop_async_tasks_and_nowhere_else() {
    leak_free(|_| {
        for runtime in [multi_thread(), Builder::new_current_thread().enable_all().build().unwrap()] {
            // In async code: the root, a task, one that has itself taken out of the count; and again after that.
            for _ in 0..2 {
                runtime.block_on(async { assert_refused(run()) });
                runtime.block_on(async { tokio::spawn(async { assert_refused(run()) }).await.unwrap() });
                runtime.block_on(tokio::task::unconstrained(async { assert_refused(run()) }));
            }
            // A task that has used its budget up has it no more, and no less, for having asked.
            runtime.block_on(async {
                let before = tokio::task::coop::has_budget_remaining();
                assert_refused(run());
                assert_eq!((before, tokio::task::coop::has_budget_remaining()), (true, true));
            });
            // Where blocking is allowed.
            runtime.block_on(async { tokio::task::spawn_blocking(run).await.unwrap().unwrap() });
            let _entered = runtime.enter();
            run().unwrap();
        }
        let runtime = multi_thread();
        runtime.block_on(async { tokio::task::block_in_place(run).unwrap() });
        runtime.block_on(async { tokio::spawn(async { tokio::task::block_in_place(run).unwrap() }).await.unwrap() });
        // And not in the futures of a job.
        let env = Environment::local("nested");
        let refused = env.from_iter([()]).map_async(1, Order::Ordered, |()| async { run().is_err() }).collect();
        env.run().unwrap();
        assert_eq!(refused.take(), [true]);
    });
}

#[test]
fn call_blocking_works_where_blocking_is_allowed() {
    leak_free(|_| {
        let runtime = multi_thread();
        let env = Environment::local("calls");
        let service = env.register_async_service("s", Client::default).build();
        let host = runtime.handle().clone();
        env.from_iter([1])
            .try_map(move |n| {
                let service = service.clone();
                let call = move || service.call_blocking(|_| async move { n + 1 });
                host.block_on(async { tokio::task::spawn_blocking(call).await }).expect("it does not panic")
            })
            .sink(|n| assert_eq!(n, 2));
        env.run().unwrap();
    });
}

/// Opens something that lives on the runtime its hooks run on.
#[derive(Clone, Default)]
struct Client {
    opened: Arc<std::sync::Mutex<Option<tokio::task::JoinHandle<usize>>>>,
    go: Arc<tokio::sync::Notify>,
}

impl AsyncService for Client {
    async fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        // As a connection: a task that outlives the job, where it can.
        let go = self.go.clone();
        let task = tokio::spawn(async move {
            go.notified().await;
            7
        });
        *self.opened.lock().expect("nobody panics with it") = Some(task);
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

#[test]
fn contract_22_a_runtime_that_is_lent_is_used_and_left_as_it_is() {
    leak_free(|_| {
        let runtime = multi_thread();
        let client = Client::default();
        let polls = Arc::new(AtomicUsize::new(0));
        let env = Environment::local("lent").runtime(runtime.handle().clone());
        let its_own = client.clone();
        env.register_async_service("client", move || its_own.clone()).build();
        let (host, counted) = (runtime.handle().id(), polls.clone());
        env.from_collection(vec![1, 2, 3])
            .map_async(2, Order::Ordered, move |n| {
                let counted = counted.clone();
                async move {
                    assert_eq!(tokio::runtime::Handle::current().id(), host);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    counted.fetch_add(1, Ordering::SeqCst);
                    n
                }
            })
            .sink(|_| {});
        env.run().unwrap();
        assert_eq!(polls.load(Ordering::SeqCst), 3);
        // What the service opened works on, and so does the runtime, for the next job as well.
        client.go.notify_one();
        let task = client.opened.lock().unwrap().take().unwrap();
        assert_eq!(runtime.block_on(task).unwrap(), 7);
        env.run().unwrap();
        // A runtime of a job's own takes what was opened on it along.
        let client = Client::default();
        let env = Environment::local("own");
        let its_own = client.clone();
        env.register_async_service("client", move || its_own.clone()).build();
        env.from_iter([1]).sink(|_| {});
        env.run().unwrap();
        let task = client.opened.lock().unwrap().take().unwrap();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    });
}
