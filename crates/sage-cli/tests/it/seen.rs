//! `sage run` in the foreground, and the jobs of its program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::job::{counting, until};
use super::marked::Marked;

/// A user's session, whose folder is looked at.
struct Session {
    marked: Marked,
    folder: TempDir,
}

impl Session {
    fn new() -> Self {
        Self { marked: Marked::new(), folder: tempfile::tempdir().expect("a folder is made") }
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let counting = counting();
        let mut all = vec!["run", counting.to_str().expect("it is text")];
        all.extend(arguments);
        let mut sage = self.marked.sage(&all);
        sage.env("XDG_RUNTIME_DIR", self.folder.path());
        sage
    }

    fn shell(&self, script: &str) -> Command {
        let mut sage = self.marked.sage(&["run", "/bin/sh", "-c", script]);
        sage.env("XDG_RUNTIME_DIR", self.folder.path());
        sage
    }

    /// The private folders that there are.
    fn folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("sage")) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

fn said(output: &Output) -> (i32, String) {
    (output.status.code().expect("it is not killed"), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_a_job_reports_as_left_makes_the_exit_code_and_is_named() {
    let session = Session::new();
    let (code, text) = said(&session.run(&["records=3", "unclean", "tolerant"]).output().expect("sage runs"));
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("counting is not clean: service `counter`: "), "{text}");
    assert_eq!(session.folders(), [] as [PathBuf; 0]);

    let mut sage = session.marked.sage(&["run", "--json"]);
    sage.arg(counting()).args(["records=3", "unclean", "tolerant"]);
    let output = sage.output().expect("sage runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("it is JSON");
    assert_eq!((&told["outcome"], &told["exit_code"]), (&"unclean".into(), &3.into()));
    assert!(told["jobs_left"][0].as_str().expect("it is text").starts_with("service `counter`"), "{told}");
}

#[test]
fn the_folder_is_private_and_gone_in_every_way_out() {
    // How the program ends, and what is sent to `sage run` and its warden meanwhile.
    let ways: [(&str, Option<Signal>, Option<Signal>); 7] = [
        ("exit 0", None, None),
        ("exit 1", None, None),
        ("kill -9 $$", None, None),
        ("setsid sleep 1000 & exit 0", None, None),
        ("sleep 1000", Some(Signal::SIGTERM), None),
        ("sleep 1000", Some(Signal::SIGKILL), None),
        ("sleep 1000", None, Some(Signal::SIGKILL)),
    ];
    for (script, to_sage, to_warden) in ways {
        let session = Session::new();
        let told = session.folder.path().join("told");
        let begins = format!("echo $SAGE_JOB_SOCKET $PPID > {0}.new; mv {0}.new {0}; {script}", told.display());
        let mut child = session.shell(&begins).spawn().expect("sage runs");
        let text = until("it has begun", || fs::read_to_string(&told).ok());
        let (socket, warden) = text.trim().split_once(' ').expect("there are two words");
        if script.starts_with("sleep") {
            let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
            let folder = Path::new(socket).parent().expect("it has one");
            assert_eq!((mode(folder), mode(Path::new(socket))), (0o700, 0o600));
            assert_eq!(mode(folder.parent().expect("it has one")), 0o700);
        }
        if let Some(signal) = to_sage {
            kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it is there");
        }
        if let Some(signal) = to_warden {
            kill(Pid::from_raw(warden.parse().expect("a pid")), signal).expect("it is there");
        }
        child.wait().expect("it is ours");
        session.marked.are_gone();
        until("the folder is gone", || session.folders().is_empty().then_some(()));
        assert!(to_sage == Some(Signal::SIGKILL) || session.folders().is_empty());
    }
}

#[test]
fn what_was_left_by_those_killed_is_removed_by_the_next() {
    let session = Session::new();
    let mut child = session.shell("echo begun > $XDG_RUNTIME_DIR/begun; sleep 1000").spawn().expect("sage runs");
    until("it has begun", || fs::read_to_string(session.folder.path().join("begun")).ok());
    for (pid, _) in session.marked.processes() {
        let stopped = kill(Pid::from_raw(pid), Signal::SIGSTOP);
        assert!(stopped.is_ok() || pid == child.id().cast_signed());
    }
    for (pid, _) in session.marked.processes() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    child.wait().expect("it is ours");
    session.marked.are_gone();
    let left = session.folders();
    assert_eq!(left.len(), 1);
    let (code, text) = said(&session.shell("ls $XDG_RUNTIME_DIR/sage >&2").output().expect("sage runs"));
    assert_eq!(code, 0);
    assert!(!text.contains(left[0].file_name().expect("it has one").to_str().expect("it is text")), "{text}");
    assert_eq!(session.folders(), [] as [PathBuf; 0]);
}

#[test]
fn a_folder_that_others_could_write_to_is_not_used() {
    let session = Session::new();
    let folder = session.folder.path().join("sage");
    fs::create_dir(&folder).expect("it is made");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let output = session.shell("echo $SAGE_JOB_SOCKET").output().expect("sage runs");
    // That of the user below /tmp is taken.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with(&format!("/tmp/sage-{}/run-", nix::unistd::geteuid())), "{text}");
    assert!(!Path::new(text.trim()).parent().expect("it has one").exists());
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 0);
}

#[test]
fn contract_18_the_first_signal_drains_a_job_that_is_seen() {
    let session = Session::new();
    let pipe = session.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("it is made");
    let waits = format!("wait={}", pipe.display());
    let child = session.run(&["pace=1", &waits]).spawn().expect("sage runs");
    // It can be written once the job reads.
    fs::write(&pipe, "begin\n").expect("the job runs");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it is there");
    let (code, text) = said(&child.wait_with_output().expect("it ends"));
    session.marked.have_none();
    assert_eq!(code, 143, "{text}");
    assert!(session.folders().is_empty());
}
