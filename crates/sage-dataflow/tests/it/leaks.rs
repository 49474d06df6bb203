//! Fails a test that leaves something behind: a thread, an open descriptor or a child of this process.
//!
//! The counts are the process's, so they are sound where a process runs one test, as under nextest; elsewhere
//! nothing is checked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sage::testing::Census;

use crate::probes::PATIENCE;

/// Compares the process with what it was before.
pub(crate) struct Watch {
    before: Census,
    /// The test had a thread abandoned.
    abandons: AtomicBool,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { before: Census::take(), abandons: AtomicBool::new(false) }
    }

    /// Fails unless exactly the threads of these names have been added by now, and no descriptor or child.
    #[track_caller]
    pub(crate) fn expect_left(&self, threads: &[&str]) {
        self.abandons.fetch_or(!threads.is_empty(), Ordering::Relaxed);
        if is_own_process() {
            assert_eq!(self.before.growth(), named(threads));
        }
    }

    /// Waits until no more is left. For a test that has let go of a thread the engine had abandoned: nothing tells of
    /// its end.
    #[track_caller]
    pub(crate) fn await_left(&self, threads: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while is_own_process() && self.before.growth() != named(threads) {
            assert!(Instant::now() < deadline, "left: {:?}, expected: {threads:?}", self.before.growth());
            std::thread::yield_now();
        }
    }
}

fn is_own_process() -> bool {
    std::env::var_os("NEXTEST").is_some()
}

fn named(threads: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = threads.iter().map(|name| format!("thread {name}")).collect();
    names.sort();
    names
}

/// Runs a test, and fails if a thread, a descriptor or a child is left behind at its very end.
///
/// A test that has a thread abandoned on purpose says so with [`Watch::expect_left`], and releases it before it ends:
/// that one is waited for.
pub(crate) fn leak_free(test: impl FnOnce(&Watch)) {
    // What is judged is growth from the second job on: the first leaves the process its signal listener, and what tokio
    // keeps for a process once it had a runtime (two sockets, where its feature `signal` is on, as any package of the
    // build may have it). A thread gives itself its name, so it is waited for; a test that gets no threads has no
    // listener either.
    let first = sage::Environment::local("first");
    first.from_iter([()]).map_async(1, sage::Order::Ordered, |()| std::future::ready(())).sink(|()| {});
    let ran = first.run().is_ok();
    while ran && !Census::take().threads().any(|name| name == "sage-signals") {
        std::thread::yield_now();
    }
    let watch = Watch::start();
    test(&watch);
    match watch.abandons.load(Ordering::Relaxed) {
        true => watch.await_left(&[]),
        false => watch.expect_left(&[]),
    }
}
