//! Where the threads of this process are, as the system tells it.

use std::fs;
use std::path::Path;

use crate::message::{MOST_THREADS, ThreadNow};

/// Where the threads of this process are, as the system tells it: all but those that tell of jobs, 64 at most.
pub fn threads_of_this_process() -> Vec<ThreadNow> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let threads = threads.flatten().filter_map(|thread| look(&thread.path()));
    threads.filter(|thread| !OWN.contains(&thread.name.as_str())).take(MOST_THREADS).collect()
}

/// The threads that tell of a job.
pub(crate) const OWN: [&str; 3] = ["sage-commands", "sage-changes", "sage-figures"];

/// `None` if it has ended meanwhile.
fn look(thread: &Path) -> Option<ThreadNow> {
    let number = thread.file_name()?.to_str()?.parse().ok()?;
    let name = fs::read_to_string(thread.join("comm")).ok()?.trim_end().to_owned();
    let stat = fs::read_to_string(thread.join("stat")).ok()?;
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    // The place in the kernel that it waits in, where that is told.
    let wait = fs::read_to_string(thread.join("wchan")).ok().filter(|wait| !wait.is_empty() && wait != "0");
    let state = match (state, wait) {
        ('R', _) => "runs".to_owned(),
        ('D', _) => "waits for a device".to_owned(),
        ('T' | 't', _) => "is stopped".to_owned(),
        (_, Some(wait)) => format!("waits ({wait})"),
        _ => "waits".to_owned(),
    };
    Some(ThreadNow { number, name, state, stack: None })
}
