//! The daemon, reapers and jobs are killed at random moments, again and again: no process is left, no record is lost,
//! and nothing is said to have succeeded that did not.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage_api::client::Filter;
use sage_api::home::JobFolder;
use sage_api::job::State;
use sage_api::message::{Event, Happened};
use sage_api::outcome::{Process, ReaperIs};

use super::User;

/// Numbers that are told again by their seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// What a program of these jobs writes when it has done all.
const DONE: &str = "done";

pub(super) fn rounds() -> u64 {
    std::env::var("SAGE_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20)
}

pub(super) fn seed() -> u64 {
    std::env::var("SAGE_KILL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()) << 20 | u64::from(jiffies()))
}

fn jiffies() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later").subsec_millis()
}

#[test]
fn contract_21_nothing_is_lost_left_or_called_a_success_however_often_what_is_killed() {
    let seed = seed();
    let mut random = Random(seed | 1);
    let user = User::new();
    let files = |id: &str| user.manager().job(id);
    // What was answered, and where its program says that it has done all.
    let mut submitted: BTreeMap<String, PathBuf> = BTreeMap::new();
    for round in 0..rounds() {
        let daemon = user.daemon(&["--limit", "3"]);
        let count = 1 + random.next(4);
        for index in 0..count {
            let done = user.folder.path().join(format!("{DONE}-{round}-{index}"));
            let pause = random.next(300);
            let script = format!(
                "setsid sleep 1000 & child=$!; sleep 0.{pause:03}; kill -9 $child; wait $child; echo > {}",
                done.display()
            );
            let mut request = user.shell(&script);
            if random.next(2) == 0 {
                // One that waits is started by the next daemon then.
                request.variables.clear();
            }
            match daemon.client.submit(&request) {
                Ok(record) => drop(submitted.insert(record.id, done)),
                Err(error) => panic!("seed {seed}, round {round}: {error}"),
            }
        }
        std::thread::sleep(Duration::from_millis(random.next(150)));
        // Some reaper, warden or program is killed before, some after the daemon.
        let victims: Vec<_> = submitted.keys().flat_map(|id| victims(&files(id), random.next(8))).collect();
        let (before, after) = victims.split_at(victims.len() / 2);
        end(before);
        daemon.kill();
        end(after);
        // Now and then the next one is killed while it takes up the jobs.
        if random.next(3) == 0 {
            let mut child = user.command(&["--limit", "3"]).spawn().expect("it starts");
            std::thread::sleep(Duration::from_millis(random.next(40)));
            child.kill().expect("it is killed");
            child.wait().expect("it is waited for");
        }
    }
    let daemon = user.daemon(&["--limit", "3"]);
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for (id, done) in &submitted {
        let over = daemon.until_over(id);
        *ends.entry(over.state.word()).or_default() += 1;
        // Only what has done all has succeeded; who was killed after that may be told either way.
        if over.state == State::Succeeded {
            assert!(done.exists(), "seed {seed}: {over:?} has not done all");
        }
        let left = processes_of(id);
        assert!(left.is_empty(), "seed {seed}: {over:?} is over, and there are {left:?}");
        let outcome = fs::read_to_string(files(id).outcome()).expect("the outcome is on the disk");
        assert!(outcome.contains(over.state.word()), "seed {seed}: {over:?}: {outcome}");
    }
    let page = daemon.client.jobs(&Filter { limit: Some(1000), ..Filter::default() }).expect("a page");
    assert_eq!(page.total, submitted.len() as u64, "seed {seed}");
    let left = user.marked.processes();
    assert!(left.iter().all(|(pid, _)| *pid == daemon.pid().as_raw()), "seed {seed}: {left:?} are left");
    println!("seed {seed}: {ends:?}");
    // The records are whole: after all that, they are as the folders say.
    let records: Vec<_> = page.jobs.iter().map(|job| (job.id.clone(), job.state)).collect();
    assert!(daemon.stop().success());
    fs::remove_file(user.manager().records()).expect("it is there");
    let daemon = user.daemon(&[]);
    let page = daemon.client.jobs(&Filter { limit: Some(1000), ..Filter::default() }).expect("a page");
    assert_eq!(page.jobs.iter().map(|job| (job.id.clone(), job.state)).collect::<Vec<_>>(), records, "seed {seed}");
}

fn end(victims: &[Pid]) {
    for pid in victims {
        // It may have ended by itself.
        let _ = kill(*pid, Signal::SIGKILL);
    }
}

/// The processes of a job that are to be killed: its reaper, its warden, both, or its program.
fn victims(files: &JobFolder, which: u64) -> Vec<Pid> {
    let reaper = fs::read(files.reaper()).ok().and_then(|text| serde_json::from_slice::<ReaperIs>(&text).ok());
    let Some(ReaperIs { process, warden: Some(warden), .. }) = reaper else { return Vec::new() };
    let program = fs::read_to_string(files.events()).ok().and_then(|events| {
        match serde_json::from_str::<Event>(events.lines().next()?).ok()?.what {
            Happened::Started { pid } => Process::of(pid).ok(),
            _ => None,
        }
    });
    // A pid may be another process's if the job is over.
    if files.outcome().exists() {
        return Vec::new();
    }
    let chosen = match which {
        0 => vec![process],
        1 => vec![warden],
        2 => vec![process, warden],
        3 => program.into_iter().collect(),
        _ => Vec::new(),
    };
    let lives = |process: &Process| Process::of(process.pid).is_ok_and(|now| now == *process);
    chosen.into_iter().filter(lives).map(|process| Pid::from_raw(process.pid.cast_signed())).collect()
}

/// The processes of a job, which carry its id.
pub(super) fn processes_of(id: &str) -> Vec<String> {
    let mark = format!("SAGE_JOB_ID={id}");
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    let variables = entries.filter_map(|entry| Some((fs::read(entry.path().join("environ")).ok()?, entry.path())));
    let marked =
        variables.filter(|(variables, _)| variables.split(|byte| *byte == 0).any(|one| one == mark.as_bytes()));
    marked.map(|(_, path)| fs::read_to_string(path.join("cmdline")).unwrap_or_default()).collect()
}
