//! Clause 24 to the letter: at the very moment a job returns, the system's lists of threads, descriptors and children
//! are what they were. Nobody waits for anything here, and the machine is kept busy.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sage::{AsyncService, BoxError, Environment, HookContext, Order};

use crate::leaks::leak_free;
use crate::probes::{Journal, Probe};

struct Remote;

impl AsyncService for Remote {
    async fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        tokio::spawn(std::future::pending::<()>());
        tokio::task::spawn_blocking(|| ()).await?;
        Ok(())
    }
}

/// A job of everything that has threads.
fn environment(asynchronous: bool) -> Environment {
    let env = Environment::local("at return");
    Probe::new("db", &Journal::new()).register(&env).build();
    let numbers = env.from_collection((0..10_u64).collect()).rebalance(2).map(|n| n + 1);
    if asynchronous {
        env.register_async_service("remote", || Remote).build();
        numbers.map_async(4, Order::Ordered, |n| async move { n }).sink(|_| {});
    } else {
        numbers.sink(|_| {});
    }
    env
}

fn count(dir: &str) -> usize {
    fs::read_dir(dir).expect("Linux has it").count()
}

#[test]
fn contract_24_nothing_is_left_at_the_very_return() {
    leak_free(|_| {
        let is_over = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let is_over = is_over.clone();
                thread::spawn(move || while !is_over.load(Ordering::Relaxed) {})
            })
            .collect();
        for asynchronous in [false, true] {
            environment(asynchronous).run().unwrap();
            let now = || (count("/proc/self/task"), count("/proc/self/fd"));
            let before = now();
            let mut more = Vec::new();
            for nth in 0..200 {
                let env = environment(asynchronous);
                if nth % 2 == 0 {
                    env.run().unwrap();
                    more.extend((now() != before).then(now));
                } else {
                    let job = env.submit().unwrap();
                    job.wait().unwrap();
                    more.extend((now() != before).then(now));
                }
            }
            assert!(more.is_empty(), "{before:?} before, and at {} of 200 returns {more:?}", more.len());
        }
        is_over.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
