//! How many threads the system has room for, asked before a large job starts.
//!
//! A thread that the system refuses is only an error. But if there is no room for a thread's memory mappings, the
//! thread dies while it starts and takes the process with it, so the engine must not try.

use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;

use crate::submit_error::SubmitError;

/// A job of so few threads is not worth the question, which takes longer than such a job.
const FEW: usize = 256;

/// The mappings of a thread: its stack, the one that it handles signals on, and a guard before each.
const MAPPINGS_EACH: u64 = 4;

/// This part of the mappings is left to allocators and libraries, which map more when there are more threads.
const MAPPINGS_SPARED: u64 = 16;

/// A bound of the system's.
#[derive(Debug)]
struct Limit {
    name: String,
    max: u64,
    used: u64,
    /// What a thread takes of it.
    each: u64,
}

impl Limit {
    fn of_threads(name: impl Into<String>, max: u64, used: u64) -> Self {
        Self { name: name.into(), max, used, each: 1 }
    }

    fn of_mappings(max: u64, used: u64) -> Self {
        let spared = max / MAPPINGS_SPARED;
        Self { name: "vm.max_map_count".to_owned(), max: max - spared, used, each: MAPPINGS_EACH }
    }

    /// How many more threads it allows.
    fn room(&self) -> u64 {
        self.max.saturating_sub(self.used) / self.each
    }
}

/// Refuses so many threads where there is no room for them.
pub(crate) fn check(threads: usize) -> Result<(), SubmitError> {
    if threads <= FEW { Ok(()) } else { fits(threads, &limits()) }
}

fn fits(threads: usize, limits: &[Limit]) -> Result<(), SubmitError> {
    match limits.iter().min_by_key(|limit| limit.room()) {
        Some(limit) if limit.room() < threads as u64 => {
            Err(SubmitError::TooManyThreads { threads, limit: limit.name.clone(), room: limit.room() })
        }
        _ => Ok(()),
    }
}

/// Those that can be read here.
fn limits() -> Vec<Limit> {
    let mappings = number("/proc/sys/vm/max_map_count").zip(lines("/proc/self/maps"));
    let mut limits: Vec<_> = mappings.map(|(max, used)| Limit::of_mappings(max, used)).into_iter().collect();
    if let Some(used) = everybodys_threads() {
        for (name, path) in
            [("kernel.threads-max", "/proc/sys/kernel/threads-max"), ("kernel.pid_max", "/proc/sys/kernel/pid_max")]
        {
            limits.extend(number(path).map(|max| Limit::of_threads(name, max, used)));
        }
    }
    limits.extend(users_limit());
    limits.extend(groups_limits());
    limits
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn lines(path: &str) -> Option<u64> {
    Some(fs::read(path).ok()?.iter().filter(|byte| **byte == b'\n').count() as u64)
}

/// How many threads the system has: `/proc/loadavg` tells those that run, a slash, and all.
fn everybodys_threads() -> Option<u64> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// What `ulimit -u` tells, which does not hold for root. Of this user's threads those of this process are counted: the
/// others are not worth a walk through all processes.
fn users_limit() -> Option<Limit> {
    let mut limit = MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the limit is written to memory that lives as long as the call; all zeroes are one.
    let (failed, max) = unsafe {
        let failed = libc::getrlimit(libc::RLIMIT_NPROC, limit.as_mut_ptr()) != 0;
        (failed, limit.assume_init().rlim_cur)
    };
    // SAFETY: it takes nothing and returns a number.
    let is_root = unsafe { libc::getuid() } == 0;
    if failed || is_root || max == libc::RLIM_INFINITY {
        return None;
    }
    Some(Limit::of_threads("RLIMIT_NPROC", max, fs::read_dir("/proc/self/task").ok()?.count() as u64))
}

/// Those of the control groups that this process is in, in both versions.
fn groups_limits() -> Vec<Limit> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut limits = Vec::new();
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            some if some.split(',').any(|name| name == "pids") => Path::new("/sys/fs/cgroup/pids"),
            _ => continue,
        };
        // From inside a container the path may not be there, but its root is.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let file = |name| root.join(group).join(name);
            let (max, used) = (file("pids.max"), file("pids.current"));
            let limit = number(&max).zip(number(used));
            limits.extend(limit.map(|(most, used)| Limit::of_threads(max.display().to_string(), most, used)));
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(threads: usize, limits: &[Limit]) -> Option<(String, u64)> {
        match fits(threads, limits) {
            Ok(()) => None,
            Err(SubmitError::TooManyThreads { threads: told, limit, room }) if told == threads => Some((limit, room)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_tightest_limit_decides_and_is_named() {
        // Of 65,530 mappings 4,095 are spared and 35 are used: 61,400 are four each for 15,350 threads.
        let limits = [
            Limit::of_threads("kernel.threads-max", 192_730, 100),
            Limit::of_mappings(65_530, 35),
            Limit::of_threads("kernel.pid_max", 32_768, 100),
        ];
        assert_eq!(told(15_350, &limits), None);
        assert_eq!(told(15_351, &limits), Some(("vm.max_map_count".to_owned(), 15_350)));
        let limits = [Limit::of_mappings(1_048_576, 35), Limit::of_threads("kernel.pid_max", 32_768, 768)];
        assert_eq!(told(32_000, &limits), None);
        assert_eq!(told(32_001, &limits), Some(("kernel.pid_max".to_owned(), 32_000)));
    }

    #[test]
    fn a_limit_that_is_passed_already_leaves_no_room_and_one_that_nobody_set_decides_nothing() {
        assert_eq!(told(300, &[Limit::of_mappings(1000, 5000)]), Some(("vm.max_map_count".to_owned(), 0)));
        assert_eq!(told(usize::MAX, &[]), None);
    }

    #[test]
    fn the_systems_own_limits_are_found() {
        let limits = limits();
        for name in ["vm.max_map_count", "kernel.threads-max", "kernel.pid_max"] {
            let limit =
                limits.iter().find(|limit| limit.name == name).unwrap_or_else(|| panic!("{name} in {limits:?}"));
            assert!(limit.used > 0 && limit.room() > 0, "{limit:?}");
        }
    }
}
