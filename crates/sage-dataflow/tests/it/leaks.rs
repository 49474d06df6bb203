//! Fails a test that leaves something behind: a thread, an open descriptor or a child of this process.
//!
//! The counts are the process's, so they are sound where a process runs one test, as under nextest; elsewhere
//! nothing is checked.

use sage::testing::Census;

/// Compares the process with what it was before.
pub(crate) struct Watch {
    before: Census,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { before: Census::take() }
    }

    /// Fails unless exactly the threads of these names have been added, and no descriptor or child.
    pub(crate) fn expect_left(&self, threads: &[&str]) {
        if std::env::var_os("NEXTEST").is_none() {
            return;
        }
        let mut expected: Vec<String> = threads.iter().map(|name| format!("thread {name}")).collect();
        expected.sort();
        self.before.expect_growth(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Runs a test, and fails if it leaves a thread, a descriptor or a child behind.
///
/// A test that abandons a thread on purpose says so with [`Watch::expect_left`], and releases it before it ends.
pub(crate) fn leak_free(test: impl FnOnce(&Watch)) {
    // What is judged is growth from the second job on: the first leaves the process its signal listener. A thread gives
    // itself its name, so it is waited for; a test that gets no threads has no listener either.
    let first = sage::Environment::local("first");
    first.from_iter([()]).sink(|()| {});
    let ran = first.run().is_ok();
    while ran && !Census::take().threads().any(|name| name == "sage-signals") {
        std::thread::yield_now();
    }
    let watch = Watch::start();
    test(&watch);
    watch.expect_left(&[]);
}
