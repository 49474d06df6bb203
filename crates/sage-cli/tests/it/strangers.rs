//! Who dials a reaper and does not behave: the job and those who do are not disturbed.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use sage::{JobState, Outcome};
use sage_api::message::{self, Dialled, ToReaper, VERSION};
use sage_api::socket;

use super::job::{Job, Watcher};

/// A job that runs, its reaper, and who watches it.
fn running() -> (Job, Child, Watcher) {
    let job = Job::counting(&["pace=1"]);
    let reaper = job.start();
    let mut watcher = job.watch();
    watcher.until_state(&job, JobState::Running);
    (job, reaper, watcher)
}

/// Drains the job, which succeeds, and returns what the reaper said.
fn drained(job: &Job, reaper: Child, watcher: &mut Watcher) -> String {
    watcher.tell(ToReaper::Do(message::Command::Drain));
    while watcher.next().is_some() {}
    let (end, said) = job.ended(reaper);
    assert_eq!((end.outcome, end.why), (Outcome::Succeeded, None));
    said
}

fn dial(job: &Job) -> UnixStream {
    socket::connect(&job.folder.socket()).expect("it listens")
}

/// Waits until the other side ends the connection.
fn is_dropped(mut stream: UnixStream) {
    // What it sent may not have been read, which is an error here.
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn who_says_nonsense_is_dropped_and_named() {
    let (job, reaper, mut watcher) = running();
    let nonsense: [&[u8]; 5] = [b"nonsense\n", b"{}\n", b"\n", b"\xff\xfe\n", br#"{"job":{"version":1}}"#.as_slice()];
    for text in nonsense {
        let mut stream = dial(&job);
        stream.write_all(text).expect("it is read");
        if !text.ends_with(b"\n") {
            // A line that is cut off.
            stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        }
        is_dropped(stream);
    }
    let mut other_version = dial(&job);
    let graph = sage::Environment::local("e").graph();
    let (job_id, environment) = ("j".to_owned(), "e".to_owned());
    let begins = message::Begins { version: 7, job: job_id, environment, pid: 1, log_folder: None, graph };
    other_version.write_all(&message::line(&Dialled::Job(begins)).expect("it is written")).expect("it is read");
    is_dropped(other_version);
    // A watcher that goes on in another language.
    let mut stream = dial(&job);
    stream.write_all(&message::line(&Dialled::Watch { version: VERSION }).expect("it is written")).expect("it is read");
    stream.write_all(b"kill it\n").expect("it is read");
    is_dropped(stream);
    let said = drained(&job, reaper, &mut watcher);
    assert_eq!(said.lines().count(), 6, "{said}");
    assert!(said.contains("this is version 1") && said.contains("no message here"), "{said}");
}

#[test]
fn a_line_without_end_is_not_kept() {
    let (job, reaper, mut watcher) = running();
    let mut stream = dial(&job);
    let chunk = [b'x'; 64 << 10];
    let mut sent = 0;
    while stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent < message::MOST_BYTES * 2, "it is still read");
    }
    let said = drained(&job, reaper, &mut watcher);
    assert!(said.contains("a line of more than 33554432 bytes"), "{said}");
}

#[test]
fn who_does_not_read_is_dropped() {
    let (job, reaper, mut watcher) = running();
    let mut deaf = job.watch();
    while deaf.try_tell(ToReaper::Figures { request: 1 }).is_ok() {}
    let said = drained(&job, reaper, &mut watcher);
    assert!(said.contains("does not read what it is told"), "{said}");
}

#[test]
fn who_does_not_read_does_not_hold_the_end_up_for_long() {
    let (job, reaper, mut watcher) = running();
    let _deaf: Vec<_> = (0..3).map(|_| job.watch()).collect();
    let mut silent = dial(&job);
    silent.write_all(b"{").expect("it is read");
    let before = std::time::Instant::now();
    drained(&job, reaper, &mut watcher);
    assert!(before.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn so_many_may_dial_and_no_more() {
    let (job, reaper, mut watcher) = running();
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("it is told");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard.min(4096).max(soft), hard)
        .expect("it may be raised");
    let mut all: Vec<_> = (0..1100).map(|_| dial(&job)).collect();
    // Those behind the bound are at their end, and those before it are not.
    is_dropped(all.pop().expect("there are some"));
    all[0].set_nonblocking(true).expect("it is open");
    let open = all[0].read(&mut [0]).expect_err("it is open");
    assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock);
    let said = drained(&job, reaper, &mut watcher);
    assert!(said.contains("one more was refused: there are 1024 already"), "{said}");
    assert!(said.lines().count() <= 20, "{said}");
}

#[test]
fn nobody_of_another_user_is_heard() {
    if !nix::unistd::geteuid().is_root() {
        // Nobody else can be played.
        return;
    }
    let (job, reaper, mut watcher) = running();
    // Even where the folder is open to all.
    for folder in [job.folder.path(), job.folder.path().parent().expect("it has one")] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("it is ours");
    }
    fs::set_permissions(job.folder.socket(), Permissions::from_mode(0o666)).expect("it is ours");
    let dial = "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n\
                s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
                s.sendall(b'{\"watch\":{\"version\":1}}\\n{\"kill\":null}\\n')\n\
                print(s.recv(100))";
    let mut python = Command::new("python3");
    python.args(["-c", dial]).arg(job.folder.socket()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let played = python.output().expect("python runs");
    let (out, err) = (String::from_utf8_lossy(&played.stdout), String::from_utf8_lossy(&played.stderr));
    assert!(out == "b''\n" || err.contains("Broken pipe") || err.contains("reset by peer"), "{out} {err}");
    let said = drained(&job, reaper, &mut watcher);
    assert!(said.contains("a process of another user"), "{said}");
}
