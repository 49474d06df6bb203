//! Ends what is left of a job when its reaper and warden are gone: every process of this user whose environment has the
//! job's id.
//!
//! Each is opened first and looked at then, and killed through what was opened. It is done again until none is found,
//! since a process may start another before it is killed.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use sage_api::job::ID_VARIABLE;
use tokio::time::{Instant, timeout_at};

use crate::process::Opened;

/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that are named.
const MOST_NAMED: usize = 20;

/// What a sweep has found, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// What was killed.
    pub(crate) ended: Vec<String>,
    /// What could not be.
    pub(crate) left: Vec<String>,
}

/// Kills all processes of this job, and returns when they are gone, or after two seconds.
pub(crate) async fn sweep(job: &str) -> Swept {
    let (mut swept, until) = (Swept::default(), Instant::now() + PATIENCE);
    loop {
        let found = processes_of(job);
        let is_late = Instant::now() >= until;
        if found.is_empty() || is_late {
            swept.left = found.into_iter().take(MOST_NAMED).map(|(name, _)| name).collect();
            swept.ended.retain(|name| !swept.left.contains(name));
            return swept;
        }
        for (name, process) in &found {
            // One that may not be killed is found again, until it is late.
            let _ = process.signal(Signal::SIGKILL);
            if swept.ended.len() < MOST_NAMED && !swept.ended.contains(name) {
                swept.ended.push(name.clone());
            }
        }
        for (_, process) in &found {
            if timeout_at(until, process.ended()).await.is_err() {
                break;
            }
        }
    }
}

/// The processes of a job that live, and their names.
pub(crate) fn processes_of(job: &str) -> Vec<(String, Opened)> {
    let mark = format!("{ID_VARIABLE}={job}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| is_marked(*pid, &mark))
        .filter_map(|pid| {
            let process = Opened::now(pid).ok()??;
            // Once more, now that it is open: it cannot have become another one since.
            is_marked(pid, &mark).then(|| (name_of(pid), process))
        })
        .collect()
}

/// Of a process that has ended and is not reaped, the environment is empty.
fn is_marked(pid: u32, mark: &str) -> bool {
    let Ok(variables) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    variables.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn name_of(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = String::from_utf8_lossy(&name).trim_end().chars().map(printable).collect();
    format!("{name} (process {pid})")
}

fn printable(character: char) -> char {
    if character.is_control() { '?' } else { character }
}
