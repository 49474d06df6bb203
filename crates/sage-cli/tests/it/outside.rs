//! What a program has made outside of itself is removed, whatever is killed.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage::{Cleanliness, Outcome};
use sage_api::job::State;
use sage_api::message::Happened;
use sage_api::outcome::{Process, ReaperIs};
use tempfile::TempDir;

use super::job::{Job, counting, until};
use super::manager::User;
use super::marked::Marked;

fn kill_hard(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("it is there");
}

/// A folder that a counting job makes, and the arguments for that.
struct Outside {
    path: PathBuf,
    given: String,
    _kept: TempDir,
}

impl Outside {
    fn new() -> Self {
        let kept = tempfile::tempdir().expect("a folder is made");
        let path = kept.path().join("made");
        let given = format!("outside={}", path.display());
        Self { path, given, _kept: kept }
    }

    fn is_made(&self) {
        until("it is made", || self.path.exists().then_some(()));
    }
}

/// What was removed by commands, and what could not be.
fn cleaned(job: &Job) -> Vec<(String, Option<String>)> {
    let events = job.events().into_iter().filter_map(|event| match event.what {
        Happened::Cleaned { name, why } => Some((name, why)),
        _ => None,
    });
    events.collect()
}

#[test]
fn a_program_that_has_removed_it_leaves_nothing_to_be_removed() {
    let outside = Outside::new();
    let job = Job::counting(&["records=1", &outside.given]);
    let (end, _) = job.ended(job.start());
    assert_eq!((end.outcome, end.cleanliness), (Outcome::Succeeded, Cleanliness::Clean));
    assert!(!outside.path.exists() && cleaned(&job).is_empty());
}

#[test]
fn contract_20_of_a_program_that_is_killed_it_is_removed_before_the_outcome_is_written() {
    let outside = Outside::new();
    let job = Job::counting(&["pace=1", &outside.given]);
    let reaper = job.start();
    outside.is_made();
    let Happened::Started { pid } = job.events()[0].what else { panic!("{:?}", job.events()) };
    kill_hard(pid);
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.cleanliness), (Outcome::Failed, Cleanliness::Clean));
    assert!(!outside.path.exists());
    assert_eq!(cleaned(&job), [(format!("folder {}", outside.path.display()), None)]);
}

#[test]
fn contract_20_what_cannot_be_removed_is_left_by_name() {
    let outside = Outside::new();
    let job = Job::counting(&["pace=1", &outside.given]);
    let reaper = job.start();
    outside.is_made();
    fs::write(outside.path.join("file"), "in the way").unwrap();
    let Happened::Started { pid } = job.events()[0].what else { panic!("{:?}", job.events()) };
    kill_hard(pid);
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.cleanliness, end.exit_code), (Outcome::Failed, Cleanliness::Unclean, 3));
    let name = format!("folder {}, whose cleanup failed: rmdir", outside.path.display());
    assert!(end.left[0].starts_with(&name), "{end:?}");
    assert!(end.why.unwrap().contains(&name));
}

#[test]
fn contract_20_if_the_reaper_is_killed_its_warden_removes_it() {
    let outside = Outside::new();
    let job = Job::counting(&["pace=1", &outside.given]);
    let mut reaper = job.start();
    outside.is_made();
    kill_hard(job.reaper().process.pid);
    reaper.wait().expect("it is ours");
    until("the outcome is written", || job.folder.outcome().exists().then_some(()));
    assert_eq!((job.outcome().outcome, job.outcome().cleanliness), (Outcome::Lost, Cleanliness::Clean));
    assert!(!outside.path.exists());
}

#[test]
fn contract_20_in_the_foreground_it_is_removed_as_well() {
    for victim in ["program", "sage"] {
        let (marked, outside) = (Marked::new(), Outside::new());
        let program = counting();
        let mut sage = marked.sage(&["run", program.to_str().unwrap(), "pace=1", &outside.given]).spawn().unwrap();
        outside.is_made();
        let of_program = || marked.processes().into_iter().find(|(_, name)| name == "counting");
        match victim {
            "program" => kill_hard(of_program().expect("it runs").0.cast_unsigned()),
            _ => sage.kill().unwrap(),
        }
        sage.wait().unwrap();
        until("it is removed", || (!outside.path.exists()).then_some(()));
        marked.are_gone();
    }
}

#[test]
fn contract_21_if_reaper_and_warden_are_killed_the_job_manager_removes_it() {
    let (user, outside) = (User::new(), Outside::new());
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.counting(&["pace=1", &outside.given])).id;
    outside.is_made();
    let reaper: ReaperIs =
        serde_json::from_slice(&fs::read(user.manager().job(&job).reaper()).expect("it is there")).unwrap();
    let Some(Process { pid: warden, .. }) = reaper.warden else { panic!("{reaper:?}") };
    // Stopped, it does not see the other's end.
    kill(Pid::from_raw(warden.cast_signed()), Signal::SIGSTOP).unwrap();
    kill_hard(reaper.process.pid);
    kill_hard(warden);
    let record = daemon.until_over(&job);
    assert_eq!((record.state, record.clean), (State::Lost, Some(true)), "{record:?}");
    assert!(!outside.path.exists());
}

#[test]
fn contract_20_in_the_foreground_what_both_killed_left_is_removed_by_the_next() {
    let (marked, session) = (Marked::new(), tempfile::tempdir().unwrap());
    let program = counting();
    let sage = |arguments: &[&str]| {
        let mut sage = marked.sage(&[&["run"], arguments].concat());
        sage.env("XDG_RUNTIME_DIR", session.path());
        sage
    };
    // A path that means something in the folder of the program alone.
    let mut killed = sage(&[program.to_str().unwrap(), "pace=1", "outside=made"]);
    let mut killed = killed.current_dir(session.path()).spawn().unwrap();
    let made = session.path().join("made");
    until("it is made", || made.exists().then_some(()));
    let pid = |process: u32| Pid::from_raw(process.cast_signed());
    let of_sage = marked.processes().into_iter().filter(|(_, name)| name == "sage");
    let warden = of_sage.map(|(pid, _)| pid.cast_unsigned()).find(|pid| *pid != killed.id()).expect("it has one");
    kill(pid(warden), Signal::SIGSTOP).unwrap();
    kill_hard(killed.id());
    kill_hard(warden);
    killed.wait().unwrap();
    marked.are_gone();
    assert!(made.exists(), "nobody was there to remove it");
    let next = sage(&["/bin/true"]).current_dir("/").output().unwrap();
    assert_eq!((next.status.code(), next.stderr.as_slice()), (Some(0), b"".as_slice()));
    assert!(!made.exists());
    assert_eq!(fs::read_dir(session.path().join("sage")).unwrap().count(), 0);
}
