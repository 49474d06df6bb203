//! What a job manager finds that an earlier one has left.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage_api::client::Action;
use sage_api::job::State;

use super::User;
use crate::job::until;

#[test]
fn contract_21_a_job_runs_on_without_its_daemon_and_the_next_one_has_it() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.counting(&["pace=1"]));
    daemon.until_state(&job.id, State::Running);
    daemon.kill();
    let daemon = user.daemon(&[]);
    let adopted = daemon.until_state(&job.id, State::Running);
    assert_eq!((adopted.number, adopted.restart_count), (1, 0));
    assert!(!daemon.client.figures(&job.id).expect("it runs").jobs.is_empty());
    // SIGTERM leaves jobs as well.
    assert!(daemon.stop().success());
    let daemon = user.daemon(&[]);
    daemon.client.tell(&job.id, Action::Drain).expect("it is told");
    assert_eq!(daemon.until_over(&job.id).state, State::Succeeded);
}

#[test]
fn contract_21_what_ended_meanwhile_is_as_it_ended_and_what_was_killed_is_lost() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let gates = ["one", "other"].map(|name| user.folder.path().join(name));
    for gate in &gates {
        nix::unistd::mkfifo(gate, nix::sys::stat::Mode::S_IRWXU).expect("it is made");
    }
    let ends = daemon.submit(&user.shell("read line < one; exit 0"));
    let fails = daemon.submit(&user.shell("read line < other; exit 5"));
    let killed = daemon.submit(&user.shell("setsid sleep 1000 & wait"));
    for job in [&ends, &fails, &killed] {
        daemon.until_started(&job.id);
    }
    let reaper = daemon.client.job(&killed.id).expect("there is one").reaper.expect("it is started");
    daemon.kill();
    let pids = [reaper.process.pid, reaper.warden.expect("there is one").pid];
    for pid in pids {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("it is killed");
    }
    for (gate, job) in gates.iter().zip([&ends, &fails]) {
        // It is opened when somebody reads.
        fs::write(gate, "go\n").expect("it is read");
        let outcome = user.manager().job(&job.id).outcome();
        until("it has ended", || outcome.exists().then_some(()));
    }
    let daemon = user.daemon(&[]);
    assert_eq!(daemon.until_over(&ends.id).state, State::Succeeded);
    let failed = daemon.until_over(&fails.id);
    assert_eq!((failed.state, failed.why.as_deref()), (State::Failed, Some("it ended with exit code 5")));
    let lost = daemon.until_over(&killed.id);
    assert_eq!(lost.state, State::Lost);
    let left = user.marked.processes();
    assert!(left.iter().all(|(pid, _)| *pid == daemon.pid().as_raw()), "{left:?}");
}

#[test]
fn a_job_that_waited_is_started_by_the_next_daemon_unless_its_values_are_gone() {
    let user = User::new();
    let daemon = user.daemon(&["--limit", "1"]);
    let first = daemon.submit(&user.shell("exec sleep 1000"));
    daemon.until_started(&first.id);
    let mut plain = user.shell("echo here");
    plain.variables.clear();
    let plain = daemon.submit(&plain);
    let mut with_key = user.shell("echo $KEY");
    with_key.variables = [("KEY".to_owned(), "value".to_owned())].into();
    let with_key = daemon.submit(&with_key);
    daemon.kill();
    let daemon = user.daemon(&["--limit", "1"]);
    let refused = daemon.until_over(&with_key.id);
    assert_eq!((refused.state, refused.exit_code), (State::Failed, Some(2)));
    let why = refused.why.expect("it says why");
    assert!(why.contains("the variable KEY is gone"), "{why}");
    assert_eq!(daemon.record(&plain.id).state, State::Queued);
    daemon.client.tell(&first.id, Action::Kill).expect("it is told");
    assert_eq!(daemon.until_over(&plain.id).state, State::Succeeded);
}

#[test]
fn a_job_whose_start_was_noted_and_never_came_is_said_not_to_have_started() {
    let user = User::new();
    let daemon = user.daemon(&["--limit", "1"]);
    let first = daemon.submit(&user.shell("exec sleep 1000"));
    daemon.until_started(&first.id);
    let mut second = user.shell("echo here");
    second.variables.clear();
    let second = daemon.submit(&second);
    daemon.kill();
    // As if the daemon had been killed between the note and the start.
    fs::write(user.manager().job(&second.id).starting(), "").expect("it is written");
    let daemon = user.daemon(&[]);
    let over = daemon.until_over(&second.id);
    assert_eq!((over.state, over.exit_code), (State::Failed, Some(2)), "{over:?}");
    assert!(over.why.expect("it says why").contains("before it started the program"));
    let again = daemon.client.tell(&second.id, Action::Resume).expect("it is told");
    assert_eq!(again.restart_count, 1);
    assert_eq!(daemon.until_over(&second.id).state, State::Succeeded);
}

#[test]
fn contract_21_whoever_has_the_number_of_a_reaper_that_is_gone_is_left_alone() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.counting(&["pace=1"])).id;
    daemon.until_state(&job, State::Running);
    let mut reaper = daemon.client.job(&job).expect("there is one").reaper.expect("it is started");
    daemon.kill();
    let warden = reaper.warden.clone().expect("there is one");
    // Stopped, it does not see the other's end, and nobody writes an outcome.
    for (pid, signal) in
        [(warden.pid, Signal::SIGSTOP), (reaper.process.pid, Signal::SIGKILL), (warden.pid, Signal::SIGKILL)]
    {
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("it is there");
    }
    // As if the system had given both numbers again: to a process of this test, which began at another time.
    let mut innocent = std::process::Command::new("sleep").arg("1000").spawn().expect("it runs");
    reaper.process.pid = innocent.id();
    reaper.warden = Some(sage_api::outcome::Process { pid: innocent.id(), ..warden });
    fs::write(user.manager().job(&job).reaper(), serde_json::to_vec(&reaper).unwrap()).unwrap();
    let daemon = user.daemon(&[]);
    assert_eq!(daemon.until_over(&job).state, State::Lost);
    assert!(innocent.try_wait().unwrap().is_none(), "it was ended");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}
