//! The processes below this one, which adopts what they leave.
//!
//! Only children of this process are signalled: they are reaped by nobody else, so that a pid is theirs as long as they
//! are listed. What a process leaves when it ends becomes a child of this one: when there is no child, nothing is left.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::message::{How, Left};

/// How long what is left may take to end by itself, and then after SIGTERM.
const GRACE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_millis(700);

/// After so long, what could not be killed is left.
const LONGEST: Duration = Duration::from_millis(2000);

/// The most that are named.
const MOST_NAMED: usize = 20;

/// Tells that a child has ended. SIGCHLD has to be blocked.
pub(super) struct Children {
    ended: SignalFd,
}

impl Children {
    pub(super) fn watch() -> Result<Self, Errno> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let ended = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { ended })
    }

    pub(super) fn descriptor(&self) -> &SignalFd {
        &self.ended
    }

    /// Takes note that some may have ended.
    pub(super) fn heed(&self) {
        while let Ok(Some(_)) = self.ended.read_signal() {}
    }

    /// Ends all that is below, and returns what did not end by itself: waits a little, asks the rest to end, and kills
    /// it; or kills all `at_once`.
    pub(super) fn end_all(&self, at_once: bool) -> Left {
        let begun = Instant::now();
        let mut named: Vec<(Pid, String)> = Vec::new();
        let mut asked: Vec<Pid> = Vec::new();
        while let Some(ended) = reap() {
            let passed = begun.elapsed();
            if passed >= LONGEST {
                let there = children();
                named.retain(|(pid, _)| !there.contains(pid));
                let there = there.into_iter().map(|pid| (pid, name_of(pid))).collect();
                return Left { ended: names(named), there: names(there) };
            }
            if !ended.is_empty() {
                continue;
            }
            let (is_over, kills) = (at_once || passed >= GRACE, at_once || passed >= GRACE + PATIENCE);
            if is_over {
                for pid in children() {
                    if !named.iter().any(|(other, _)| *other == pid) {
                        named.push((pid, name_of(pid)));
                    }
                    if kills {
                        // It may have ended meanwhile, and waits to be reaped.
                        let _ = signal::kill(pid, Signal::SIGKILL);
                    } else if !asked.contains(&pid) {
                        asked.push(pid);
                        let _ = signal::kill(pid, Signal::SIGTERM);
                        let _ = signal::kill(pid, Signal::SIGCONT);
                    }
                }
            }
            let until = if kills {
                LONGEST
            } else if is_over {
                GRACE + PATIENCE
            } else {
                GRACE
            };
            self.wait(until.saturating_sub(passed));
        }
        Left { ended: names(named), there: Vec::new() }
    }

    /// Waits until a child has ended, or so long.
    pub(super) fn wait(&self, limit: Duration) {
        let mut asked = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        // If it is interrupted, the caller looks and waits again.
        let _ = nix::poll::poll(&mut asked, limit);
        self.heed();
    }
}

fn names(named: Vec<(Pid, String)>) -> Vec<String> {
    let count = named.len();
    let mut names: Vec<_> = named.into_iter().take(MOST_NAMED).map(|(_, name)| name).collect();
    if count > MOST_NAMED {
        names.push(format!("and {} more", count - MOST_NAMED));
    }
    names
}

/// Reaps those that have ended, and says which and how; `None` when there are no children.
pub(super) fn reap() -> Option<Vec<(Pid, How)>> {
    let mut ended = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: there is room for the status. It is not asked by a wrapper that knows only signals with names.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            0 => return Some(ended),
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return if ended.is_empty() { None } else { Some(ended) },
            pid if libc::WIFEXITED(status) => ended.push((Pid::from_raw(pid), How::Exited(libc::WEXITSTATUS(status)))),
            pid => ended.push((Pid::from_raw(pid), How::Signalled(libc::WTERMSIG(status)))),
        }
    }
}

/// The children of this process.
fn children() -> Vec<Pid> {
    let me = Pid::this().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(me)).map(Pid::from_raw).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in it may have any characters.
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    std::str::from_utf8(&stat[name_ends + 1..]).ok()?.split_whitespace().nth(1)?.parse().ok()
}

fn name_of(pid: Pid) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = String::from_utf8_lossy(&name).trim_end().chars().map(printable).collect();
    format!("{name} (process {pid})")
}

fn printable(character: char) -> char {
    if character.is_control() { '?' } else { character }
}
