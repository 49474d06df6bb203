//! Counts what this process has, from outside the engine: threads, open descriptors and children, as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The threads, open descriptors and children of this process at one moment.
///
/// They are the process's: a test that compares two of them needs a process of its own, as under nextest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
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
    /// Counts.
    pub fn take() -> Self {
        Self { threads: threads(), descriptors: descriptors(), children: children() }
    }

    /// The names of the threads, in no order.
    pub fn threads(&self) -> impl Iterator<Item = &str> {
        self.threads.values().map(String::as_str)
    }

    /// How many threads there were.
    pub fn thread_count(&self) -> usize {
        self.threads.len()
    }

    /// How many descriptors were open.
    pub fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// What is here now and was not when this was taken, by name. The listener for signals, which stays with the process
    /// from its first job on, is `thread sage-signals`.
    pub fn growth(&self) -> Vec<String> {
        let now = Self::take();
        let new = |what: &str, now: &BTreeMap<String, String>, then: &BTreeMap<String, String>| {
            let named = now.iter().filter(|(id, name)| then.get(*id) != Some(name));
            named.map(|(_, name)| format!("{what} {name}")).collect::<Vec<_>>()
        };
        let mut growth = new("thread", &now.threads, &self.threads);
        growth.extend(new("descriptor", &now.descriptors, &self.descriptors));
        growth.extend(new("child", &now.children, &self.children));
        growth.sort();
        growth
    }

    /// Waits until nothing but `expected` (as [`growth`](Self::growth) names it, sorted) is left of what came after this was
    /// taken.
    ///
    /// # Panics
    /// If that is not so within five seconds, naming what is left.
    pub fn expect_growth(&self, expected: &[&str]) {
        let deadline = Instant::now() + LINGER;
        loop {
            let growth = self.growth();
            if growth == expected {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {growth:#?}, expected: {expected:#?}");
            std::thread::yield_now();
        }
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
