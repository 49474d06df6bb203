//! Counts what a test leaves behind, from outside the engine: threads, open descriptors and children of this process, as
//! `/proc` shows them.
//!
//! The counts are the process's, so they are sound where a process runs one test, as under nextest; elsewhere
//! nothing is checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a process has at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    /// Thread ids and names.
    threads: BTreeMap<String, String>,
    /// Descriptors and what they refer to.
    descriptors: BTreeMap<String, String>,
    /// Process ids and command names of children, zombies included.
    children: BTreeMap<String, String>,
}

/// How long what has ended may take to vanish from `/proc`.
const LINGER: Duration = Duration::from_secs(5);

impl Census {
    pub(crate) fn take() -> Self {
        Self { threads: threads(), descriptors: descriptors(), children: children() }
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.threads.len()
    }

    pub(crate) fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// What is here and was not in `before`, by name.
    fn growth(&self, before: &Self) -> Vec<String> {
        let new = |what: &str, now: &BTreeMap<String, String>, then: &BTreeMap<String, String>| {
            let named = now.iter().filter(|(id, name)| then.get(*id) != Some(name));
            named.map(|(_, name)| format!("{what} {name}")).collect::<Vec<_>>()
        };
        let mut growth = new("thread", &self.threads, &before.threads);
        growth.extend(new("descriptor", &self.descriptors, &before.descriptors));
        growth.extend(new("child", &self.children, &before.children));
        growth.sort();
        growth
    }
}

fn entries(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn threads() -> BTreeMap<String, String> {
    let name = |id: &str| fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok();
    let named = |id: String| name(&id).map(|name| (id, name.trim().to_owned()));
    entries("/proc/self/task").into_iter().filter_map(named).collect()
}

fn descriptors() -> BTreeMap<String, String> {
    // The directory that was read for this had a descriptor as well; by now it is closed and its link is gone.
    let target = |fd: &str| fs::read_link(Path::new("/proc/self/fd").join(fd)).ok();
    let named = |fd: String| target(&fd).map(|target| (fd, target.display().to_string()));
    entries("/proc/self/fd").into_iter().filter_map(named).collect()
}

fn children() -> BTreeMap<String, String> {
    let own = std::process::id().to_string();
    let is_child = |pid: &str| -> Option<(String, String)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        (rest.split_whitespace().nth(1)? == own).then(|| (pid.to_owned(), name.to_owned()))
    };
    let numeric = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    entries("/proc").iter().filter(|name| numeric(name)).filter_map(|pid| is_child(pid)).collect()
}

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
        let deadline = Instant::now() + LINGER;
        loop {
            let growth = Census::take().growth(&self.before);
            if growth == expected {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {growth:#?}, expected: {expected:#?}");
            std::thread::yield_now();
        }
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
    while ran && !threads().values().any(|name| name == "sage-signals") {
        std::thread::yield_now();
    }
    let watch = Watch::start();
    test(&watch);
    watch.expect_left(&[]);
}
