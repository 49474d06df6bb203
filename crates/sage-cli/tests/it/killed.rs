//! The reaper of a job, its warden and its program, killed.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage::{Cleanliness, JobState, Outcome};
use sage_api::message::Happened;
use sage_api::outcome::{Process, ProgramEnd};

use super::job::{Job, until};

/// A program with a child, and a grandchild in a session of its own.
const FAMILY: &str = "sleep 1000 & setsid sh -c 'sleep 1001 & sleep 1002' & echo begun; wait";

fn kill_hard(process: &Process) {
    kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL).expect("it is there");
}

fn begun(job: &Job) {
    until("it has begun", || fs::read_to_string(job.folder.output(0)).ok().filter(|text| text == "begun\n"));
}

fn outcome_of(job: &Job) -> ProgramEnd {
    until("the outcome is written", || serde_json::from_slice(&fs::read(job.folder.outcome()).ok()?).ok())
}

#[test]
fn contract_20_if_the_reaper_is_killed_its_warden_ends_all_and_says_so() {
    let job = Job::script(FAMILY);
    let mut reaper = job.start();
    begun(&job);
    kill_hard(&job.reaper().process);
    job.marked.are_gone();
    reaper.wait().expect("it is ours");
    let end = job.outcome();
    assert_eq!((end.outcome, end.cleanliness, end.exit_code), (Outcome::Lost, Cleanliness::Clean, 1));
    assert!(end.why.expect("it says why").contains("was killed"));
    assert!(!job.folder.socket().exists());
}

#[test]
fn contract_20_if_the_warden_is_killed_the_reaper_ends_all_and_says_so() {
    let job = Job::script(FAMILY);
    let reaper = job.start();
    begun(&job);
    let is = job.reaper();
    assert_eq!(is.process.pid, reaper.id());
    kill_hard(&is.warden.expect("it has one"));
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.cleanliness, end.exit_code), (Outcome::Lost, Cleanliness::Clean, 1));
}

#[test]
fn contract_20_if_both_are_killed_the_program_ends_and_nobody_says_how() {
    let job = Job::counting(&["pace=1"]);
    let mut reaper = job.start();
    let is = job.reaper();
    job.watch().until_once(&job, |what| matches!(what, Happened::Begins(_)));
    // Stopped, neither sees the other's end.
    let warden = is.warden.expect("it has one");
    kill(Pid::from_raw(warden.pid.cast_signed()), Signal::SIGSTOP).expect("it is there");
    kill_hard(&is.process);
    kill_hard(&warden);
    job.marked.are_gone();
    reaper.wait().expect("it is ours");
    assert!(!job.folder.outcome().exists());
    // Its socket is left, and no hindrance to who looks.
    let refused = sage_api::socket::connect(&job.folder.socket()).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn contract_20_of_a_program_that_is_killed_nothing_is_left_and_it_is_no_success() {
    let job = Job::script(FAMILY);
    let reaper = job.start();
    begun(&job);
    let Happened::Started { pid } = job.events()[0].what else { panic!("{:?}", job.events()) };
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("it is there");
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.cleanliness, end.exit_code), (Outcome::Failed, Cleanliness::Unclean, 3), "{end:?}");
    let why = end.why.expect("it says why");
    assert!(why.starts_with("killed by SIGKILL; left processes, which were ended: "), "{why}");
}

#[test]
fn a_job_that_is_gone_is_told_and_is_no_success() {
    let job = Job::counting(&["pace=1"]);
    let reaper = job.start();
    let mut watcher = job.watch();
    watcher.until_state(&job, JobState::Running);
    let Happened::Started { pid } = job.events()[0].what else { panic!("{:?}", job.events()) };
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("it is there");
    watcher.until(|what| matches!(what, Happened::Gone { .. }));
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.why.as_deref()), (Outcome::Failed, Some("killed by SIGKILL")));
}

#[test]
fn a_job_outlives_who_started_its_reaper() {
    let job = Job::script("read line; echo begun; exit 7");
    let sage = job.sage();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "\"$0\" \"$@\" & echo started"]).arg(sage.get_program()).args(sage.get_args());
    // Nobody reads what the reaper says.
    shell.envs(sage.get_envs().filter_map(|(name, value)| Some((name, value?)))).stderr(std::process::Stdio::null());
    shell.stdout(std::process::Stdio::null());
    assert!(shell.status().expect("the shell runs").success());
    let is = job.reaper();
    let end = outcome_of(&job);
    assert_eq!((end.outcome, end.why.as_deref()), (Outcome::Failed, Some("it ended with exit code 7")));
    job.marked.are_gone();
    assert_eq!(is.process.boot.len(), 36);
}

/// At a random moment, as the clock has it: whatever is killed when, nothing is left and nothing is said to have
/// succeeded that did not.
#[test]
fn contract_21_whatever_is_killed_at_whatever_moment_no_outcome_is_wrong() {
    for round in 0..12_u32 {
        let job = Job::counting(&["records=50", "pace=1"]);
        let mut reaper = job.start();
        let is = job.reaper();
        let victim = if round % 2 == 0 { is.process } else { is.warden.expect("it has one") };
        // A spread of moments, from before the program is started to after its end.
        let events = |text: &str| text.lines().count() >= (round as usize) * 2;
        until("it has come so far", || {
            let text = fs::read_to_string(job.folder.events()).unwrap_or_default();
            (events(&text) || job.folder.outcome().exists()).then_some(())
        });
        // It may be gone already.
        let _ = kill(Pid::from_raw(victim.pid.cast_signed()), Signal::SIGKILL);
        reaper.wait().expect("it is ours");
        job.marked.are_gone();
        let end = job.outcome();
        let has_ended = job.events().iter().any(|event| matches!(event.what, Happened::Ended { .. }));
        match end.outcome {
            Outcome::Succeeded => assert!(has_ended, "round {round}: {end:?}"),
            Outcome::Lost => {}
            _ => panic!("round {round}: {end:?}"),
        }
    }
}
