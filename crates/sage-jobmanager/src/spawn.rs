//! Starts reapers.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{self, Pid};
use sage_api::home::JobFolder;
use sage_api::job::{ID_VARIABLE, JobSpec, PASSED_ON};

use crate::folder;

/// Where the engine writes its log files, unless it is told otherwise.
const LOG_VARIABLE: &str = "SAGE_LOG_DIR";

/// Notes that it does, starts the reaper of this job, and returns its pid. It is a session of its own, and outlives the
/// daemon.
pub(crate) fn spawn(
    sage: &[OsString],
    files: &JobFolder,
    spec: &JobSpec,
    variables: &BTreeMap<String, String>,
) -> io::Result<u32> {
    let Some((program, arguments)) = sage.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not known what starts `sage`"));
    };
    folder::make(&spec.log_folder)?;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(files.reaper_log())?;
    let mut command = Command::new(program);
    command.args(arguments).args(["run", "--folder"]).arg(files.path());
    command.env_clear();
    command.envs(PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command.env(LOG_VARIABLE, &spec.log_folder);
    command.envs(variables);
    command.env(ID_VARIABLE, &spec.id);
    command.current_dir(files.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(|| unistd::setsid().map(drop).map_err(Into::into)) };
    unblock(&mut command);
    folder::note_starting(files)?;
    // It is waited for by whoever opens its pid.
    Ok(command.spawn()?.id())
}

/// Has no signal blocked in what is started, as those are that the daemon reads.
fn unblock(command: &mut Command) {
    // SAFETY: it makes one system call.
    unsafe { command.pre_exec(|| SigSet::empty().thread_set_mask().map_err(Into::into)) };
}

/// Has a job's cleanups run whose reaper and warden are gone; returns what failed, in words. Takes as long as they do.
pub(crate) fn clean(
    sage: &[OsString],
    files: &JobFolder,
    variables: &BTreeMap<String, String>,
) -> io::Result<Vec<String>> {
    let Some((program, arguments)) = sage.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not known what starts `sage`"));
    };
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(files.reaper_log())?;
    let mut command = Command::new(program);
    command.args(arguments).args(["run", "--cleanup", "--folder"]).arg(files.path());
    command.env_clear();
    command.envs(PASSED_ON.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command.envs(variables);
    command.current_dir(files.path()).stdin(Stdio::null()).stderr(log);
    unblock(&mut command);
    let ended = command.output()?;
    if !ended.status.success() {
        return Err(io::Error::other(format!("{}", ended.status)));
    }
    Ok(String::from_utf8_lossy(&ended.stdout).lines().map(str::to_owned).collect())
}

/// Kills a reaper that nobody has waited for, so that the pid is its own.
pub(crate) fn kill(pid: u32) -> io::Result<()> {
    let pid = Pid::from_raw(pid.cast_signed());
    signal::kill(pid, Signal::SIGKILL)?;
    waitpid(pid, None)?;
    Ok(())
}
