//! Counts this process's threads, open descriptors and children from outside the engine, as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The threads, open descriptors and children of this process at one moment. Only threads that still run code count.
///
/// A census covers the whole process, so a test that compares two of them needs a process of its own, as under nextest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Thread ids and names.
    threads: BTreeMap<String, String>,
    /// Descriptors and what they refer to.
    descriptors: BTreeMap<String, String>,
    /// Process ids and command names of children, zombies included.
    children: BTreeMap<String, String>,
}

impl Census {
    /// Takes a census now.
    pub fn take() -> Self {
        Self { threads: threads(), descriptors: descriptors(), children: children() }
    }

    /// The names of the threads, in no particular order.
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

    /// Takes another census and returns the names of what has been added since this one. `thread sage-signals` is the
    /// listener for signals, which stays with the process from its first job on.
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

    /// Fails unless exactly `expected` has been added since this census: the names as in [`growth`](Self::growth),
    /// sorted. It looks once, because a job has ended everything of its own when it returns.
    ///
    /// # Panics
    /// If the names differ; the message lists them.
    #[track_caller]
    pub fn expect_growth(&self, expected: &[&str]) {
        let growth = self.growth();
        assert!(growth == expected, "left behind: {growth:#?}, expected: {expected:#?}");
    }
}

fn entries(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn threads() -> BTreeMap<String, String> {
    let read = |id: &str, file: &str| fs::read_to_string(format!("/proc/self/task/{id}/{file}")).ok();
    let named = |id: String| {
        let name = read(&id, "comm")?;
        (!is_exiting(&read(&id, "stat")?)).then(|| (id, name.trim().to_owned()))
    };
    entries("/proc/self/task").into_iter().filter_map(named).collect()
}

/// Whether a thread has run its last instruction, and the system is about to let go of it. Whoever has joined a thread
/// may still see it like that. (The engine waits for its own until they are gone altogether.)
fn is_exiting(stat: &str) -> bool {
    /// `PF_EXITING` of the kernel.
    const EXITING: u64 = 4;
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & EXITING != 0)
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
