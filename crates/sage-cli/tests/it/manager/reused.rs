//! Numbers of processes that were given to others while no job manager ran.

use std::fs;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use sage_api::job::State;
use sage_api::message::Happened;

use super::User;

/// Set where this test is the first process of a namespace of its own, in which it gives out the numbers.
const INSIDE: &str = "SAGE_TEST_INSIDE";

#[test]
fn contract_21_a_number_that_is_another_process_s_by_now_is_left_alone() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let this = std::env::current_exe().expect("it is known");
    let name = "manager::reused::contract_21_a_number_that_is_another_process_s_by_now_is_left_alone";
    let mut command = Command::new("unshare");
    command.args(["-rfp", "--mount-proc"]).arg(this).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let ended = command.output().expect("there is `unshare`");
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    if said.starts_with("unshare: ") {
        println!("not tried, as this system gives a user no namespace: {said}");
        return;
    }
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

fn inside() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.shell("exec sleep 1000"));
    daemon.until_started(&job.id);
    let events = daemon.client.events(&job.id, 0).expect("there are some").events;
    let program = events.iter().find_map(|event| match event.what {
        Happened::Started { pid } => Some(pid),
        _ => None,
    });
    let reaper = daemon.client.job(&job.id).expect("there is one").reaper.expect("it is started");
    let watch = [reaper.process.pid, reaper.warden.expect("there is one").pid];
    daemon.kill();
    // Both at once, so that neither can do anything about the other's end.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for pid in watch {
            kill(pid_of(pid), signal).expect("it is sent");
        }
    }
    // What nobody else waits for is this process's: their numbers are free then.
    for pid in watch.into_iter().chain(program) {
        waitpid(pid_of(pid), None).expect("it has ended");
    }
    assert!(!user.manager().job(&job.id).outcome().exists());
    let mut others = watch.map(another);

    let daemon = user.daemon(&[]);
    let over = daemon.until_over(&job.id);
    assert_eq!(over.state, State::Lost, "{over:?}");
    for other in &mut others {
        assert!(other.try_wait().expect("it is a child").is_none(), "it was taken for the job's");
        other.kill().expect("it lives");
        other.wait().expect("it ends");
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

/// A process that has nothing to do with it, of this number.
fn another(pid: u32) -> Child {
    for _ in 0..100 {
        // A thread of this process may get the number as well.
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("it is the namespace's owner");
        let mut child = Command::new("sleep").arg("1000").spawn().expect("it starts");
        if child.id() == pid {
            return child;
        }
        child.kill().expect("it lives");
        child.wait().expect("it ends");
    }
    panic!("the number {pid} is not to be had");
}
