//! What a program may take, and what sees to it.
//!
//! Memory and processes are bounded for all processes together, where this user may make a control group. Where not,
//! the memory of each process is, and the number of processes is not: the system's own limit of those
//! (`RLIMIT_NPROC`) counts all that a user has, and does not hold for the superuser. The time of processors is bounded
//! for each process. The reaper sees to the time by itself.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use sage_api::job::{Limit, Limits};
use sage_api::outcome::Enforced;

use super::cgroup::Cgroup;

/// How long a process may go on that does not end when its time of processors is over.
const CPU_GRACE_SECONDS: u64 = 5;

/// The bounds of one program.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    limits: Limits,
    group: Option<Cgroup>,
    enforced: BTreeMap<Limit, Enforced>,
    /// How long it may take to clean up after its time.
    after_time: Duration,
}

impl Bounds {
    /// Makes ready what is needed.
    pub(super) fn of(limits: Limits, after_time: Duration) -> Self {
        let mut enforced = BTreeMap::new();
        let mut group = None;
        if limits.memory_bytes.is_some() || limits.processes.is_some() {
            let made = Cgroup::make(limits.memory_bytes, limits.processes);
            if limits.memory_bytes.is_some() {
                enforced.insert(Limit::Memory, if made.is_ok() { Enforced::Cgroup } else { Enforced::EachProcess });
            }
            if limits.processes.is_some() {
                let how = match &made {
                    Ok(_) => Enforced::Cgroup,
                    Err(why) => Enforced::No(format!("it takes a control group, and {why}")),
                };
                enforced.insert(Limit::Processes, how);
            }
            group = made.ok();
        }
        if limits.cpu_ms.is_some() {
            enforced.insert(Limit::Cpu, Enforced::EachProcess);
        }
        if limits.time_ms.is_some() {
            enforced.insert(Limit::Time, Enforced::Reaper);
        }
        Self { limits, group, enforced, after_time }
    }

    /// What sees to each.
    pub(super) fn enforced(&self) -> &BTreeMap<Limit, Enforced> {
        &self.enforced
    }

    /// How long the program may take, and how long it then may take to clean up.
    pub(super) fn time(&self) -> Option<(Duration, Duration)> {
        Some((Duration::from_millis(self.limits.time_ms?), self.after_time))
    }

    /// What the program's process has to do before it becomes the program: only system calls.
    pub(super) fn enter(&self) -> io::Result<impl Fn() -> io::Result<()> + use<>> {
        let door = self.group.as_ref().map(Cgroup::door).transpose()?;
        let memory = self.memory_of_each();
        let cpu = self.limits.cpu_ms.map(|ms| ms.div_ceil(1000).max(1));
        Ok(move || {
            if let Some(door) = &door {
                nix::unistd::write(door, b"0")?;
            }
            if let Some(bytes) = memory {
                setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?;
            }
            if let Some(seconds) = cpu {
                setrlimit(Resource::RLIMIT_CPU, seconds, seconds.saturating_add(CPU_GRACE_SECONDS))?;
            }
            Ok(())
        })
    }

    /// Kills all of the program that this can reach.
    pub(super) fn kill(&self) {
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// The program's memory, if it was killed because it took more.
    pub(super) fn memory_exceeded(&self) -> Option<u64> {
        let bytes = self.limits.memory_bytes?;
        self.group.as_ref()?.was_out_of_memory().then_some(bytes)
    }

    /// What each of its processes may have of memory, if that is bounded.
    pub(super) fn memory_of_each(&self) -> Option<u64> {
        let is_each = self.enforced.get(&Limit::Memory) == Some(&Enforced::EachProcess);
        self.limits.memory_bytes.filter(|_| is_each)
    }

    /// What each of its processes may use of processors.
    pub(super) fn cpu(&self) -> Option<Duration> {
        self.limits.cpu_ms.map(Duration::from_millis)
    }

    /// Removes what was made.
    pub(super) fn remove(&self) {
        if let Some(group) = &self.group {
            group.remove();
        }
    }
}

/// An amount of memory in words.
pub(super) fn amount(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    fits.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}
