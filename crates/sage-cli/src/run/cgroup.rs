//! A control group (version 2) for one program: what bounds all its processes together, and ends them at once.
//!
//! It is made beside or below the group of this process, where this user may do so and the controllers are handed
//! down. Nothing of other groups is changed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A group, until it is removed.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

/// The name of one, before the pid of its reaper.
const NAME: &str = "sage-run-";

impl Cgroup {
    /// Makes one with these bounds.
    ///
    /// # Errors
    /// Why it cannot be had, in words.
    pub(super) fn make(memory_bytes: Option<u64>, processes: Option<u64>) -> Result<Self, String> {
        let wanted = [("memory", memory_bytes.is_some()), ("pids", processes.is_some())];
        let wanted: Vec<_> = wanted.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect();
        let mut why = "this system has no control groups of version 2".to_owned();
        for parent in parents() {
            let handed_down = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
            let handed_down: Vec<_> = handed_down.split_whitespace().collect();
            if let Some(missing) = wanted.iter().find(|name| !handed_down.contains(name)) {
                why = format!("the control groups of {} cannot bound {missing}", parent.display());
                continue;
            }
            match Self::make_in(&parent, memory_bytes, processes) {
                Ok(made) => return Ok(made),
                Err(error) => why = format!("no control group can be made in {}: {error}", parent.display()),
            }
        }
        Err(why)
    }

    fn make_in(parent: &Path, memory_bytes: Option<u64>, processes: Option<u64>) -> io::Result<Self> {
        remove_left(parent);
        let made = Self(parent.join(format!("{NAME}{}", std::process::id())));
        // Of another process, which had this number and was killed.
        let _ = fs::remove_dir(&made.0);
        fs::create_dir(&made.0)?;
        let bounded = made.bound(memory_bytes, processes);
        bounded.inspect_err(|_| made.remove()).map(|()| made)
    }

    fn bound(&self, memory_bytes: Option<u64>, processes: Option<u64>) -> io::Result<()> {
        if let Some(bytes) = memory_bytes {
            fs::write(self.0.join("memory.max"), bytes.to_string())?;
            // There is no such file where there is no swap, and older systems end single processes.
            for (file, value) in [("memory.swap.max", "0"), ("memory.oom.group", "1")] {
                match fs::write(self.0.join(file), value) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        match processes {
            Some(most) => fs::write(self.0.join("pids.max"), most.to_string()),
            None => Ok(()),
        }
    }

    /// The file that a process writes `0` to in order to enter.
    pub(super) fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))
    }

    /// Kills all that is inside.
    pub(super) fn kill(&self) {
        // Older systems have no such file: then processes are killed one by one.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }

    /// Whether a process inside was killed because all together had too much memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let mut killed = events.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        killed.any(|count| count.trim() != "0")
    }

    /// Removes it, once nothing is inside.
    pub(super) fn remove(&self) {
        // What could not be killed is inside still: whoever comes next removes it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// The group of this process, and the one above that.
fn parents() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(mount) = mounts.lines().find_map(mount_point) else { return Vec::new() };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    // The kernel says so of a group outside of what this process sees.
    if own.starts_with("..") {
        return Vec::new();
    }
    let own_folder = mount.join(own);
    let above = own_folder.parent().filter(|_| !own.is_empty()).map(Path::to_owned);
    [own_folder].into_iter().chain(above).collect()
}

/// Where the control groups of version 2 are, if this line of `mountinfo` says so and shows all of them.
fn mount_point(line: &str) -> Option<PathBuf> {
    let (of_mount, of_system) = line.split_once(" - ")?;
    let mut fields = of_mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (of_system.starts_with("cgroup2 ") && root == "/").then(|| point.into())
}

/// Removes the groups of reapers that were killed together with their wardens.
fn remove_left(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(NAME));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // It fails as long as something is inside.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_mount_is_found_among_others() {
        let line = "33 24 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(mount_point(line), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("33 24 0:28 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids"), None);
        assert_eq!(mount_point("33 24 0:28 /a /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw"), None);
        assert_eq!(mount_point("nonsense"), None);
    }

    #[test]
    fn the_bounds_are_written() {
        let parent = tempfile::tempdir().expect("a folder is made");
        let group = Cgroup::make_in(parent.path(), Some(64 << 20), Some(9)).expect("it is made");
        let text = |name: &str| fs::read_to_string(group.0.join(name)).expect("it is written");
        assert_eq!([text("memory.max"), text("memory.swap.max"), text("pids.max")], ["67108864", "0", "9"]);
        for (events, is_out) in [("low 0\noom 1\noom_kill 1\n", true), ("oom 3\noom_kill 0\n", false)] {
            fs::write(group.0.join("memory.events"), events).expect("it is written");
            assert_eq!(group.was_out_of_memory(), is_out, "{events}");
        }
    }

    /// Where this user may make groups: a process enters, all inside are killed, and the group is removed.
    #[test]
    fn what_enters_is_killed_with_it() {
        let Ok(group) = Cgroup::make(None, None) else { return };
        let door = group.door().expect("it is there");
        let mut command = Command::new("sleep");
        // SAFETY: it makes one system call.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command.arg("1000"), move || {
                nix::unistd::write(&door, b"0").map(drop).map_err(Into::into)
            });
        }
        let mut child = command.spawn().expect("it enters");
        let inside = fs::read_to_string(group.0.join("cgroup.procs")).expect("it is there");
        assert_eq!(inside.trim(), child.id().to_string());
        group.kill();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().expect("it is ours")), Some(9));
        group.remove();
        assert!(!group.0.exists());
    }
}
