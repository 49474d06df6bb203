//! Jobs that are started anew and deleted while the daemon is killed: each is done as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use sage_api::client::{Action, Client, ClientError, Filter};
use sage_api::job::{JobSpec, State};

use super::kills::{Random, processes_of, rounds, seed};
use super::{User, refused};

/// What was asked of a job, and what was answered.
#[derive(Debug, Default)]
struct Asked {
    resumed: u32,
    is_asked_to_go: bool,
    is_gone: bool,
}

/// Asks for what comes to mind until nobody answers.
fn ask(client: &Client, jobs: &mut BTreeMap<String, Asked>, random: &mut Random) {
    loop {
        let candidates: Vec<_> = jobs.iter_mut().filter(|(_, asked)| !asked.is_gone).collect();
        if candidates.is_empty() {
            return;
        }
        let which = usize::try_from(random.next(candidates.len() as u64)).expect("it is small");
        let (id, asked) = candidates.into_iter().nth(which).expect("there is one");
        let answer = if random.next(5) == 0 {
            asked.is_asked_to_go = true;
            client.delete(id, random.next(2) == 0).map(|()| asked.is_gone = true)
        } else {
            client.tell(id, Action::Resume).map(|record| asked.resumed = asked.resumed.max(record.restart_count))
        };
        match answer {
            // What is running is not started anew, and what is gone is not there.
            Ok(()) | Err(ClientError::Refused { .. }) => {}
            Err(_) => return,
        }
    }
}

#[test]
fn contract_21_what_is_started_anew_or_deleted_while_the_daemon_is_killed_is_so_or_is_not() {
    let seed = seed();
    let mut random = Random(seed | 1);
    let user = User::new();
    let mut jobs: BTreeMap<String, Asked> = BTreeMap::new();
    for round in 0..rounds() {
        let daemon = user.daemon(&["--limit", "3"]);
        for _ in 0..2 {
            let mut request = user.shell("echo run >> runs-$SAGE_JOB_ID");
            request.variables.clear();
            let record = daemon.submit(&request);
            if round % 2 == 0 {
                daemon.until_over(&record.id);
            }
            jobs.insert(record.id, Asked::default());
        }
        let client = Client::find(&user.home(), 0).expect("there is a token");
        let seed = random.next(u64::MAX) | 1;
        let asked = std::mem::take(&mut jobs);
        let asking = std::thread::spawn(move || {
            let mut jobs = asked;
            ask(&client, &mut jobs, &mut Random(seed));
            jobs
        });
        std::thread::sleep(Duration::from_millis(random.next(60)));
        daemon.kill();
        jobs = asking.join().expect("it does not panic");
    }
    let daemon = user.daemon(&["--limit", "3"]);
    let mut there = BTreeSet::new();
    for (id, asked) in &jobs {
        let files = user.manager().job(id);
        match daemon.client.job(id) {
            Ok(detail) if !detail.record.state.is_over() => drop(daemon.until_over(id)),
            Ok(_) => {}
            Err(_) => {
                assert_eq!(refused(daemon.client.job(id)).0, 404);
                assert!(asked.is_asked_to_go && !files.path().exists(), "seed {seed}: {id}: {asked:?}");
                continue;
            }
        }
        there.insert(id);
        let record = daemon.record(id);
        let spec: JobSpec = serde_json::from_slice(&fs::read(files.spec()).expect("it is there")).expect("it is whole");
        assert!(!asked.is_gone, "seed {seed}: {record:?} was deleted");
        assert_eq!(record.restart_count, spec.restart_count, "seed {seed}: {record:?}");
        assert!(record.restart_count >= asked.resumed, "seed {seed}: {record:?}, {asked:?}");
        for before in record.restart_count.saturating_sub(3)..record.restart_count {
            let earlier = files.earlier(before);
            assert!(earlier.is_dir(), "seed {seed}: {}", earlier.display());
        }
        let outcome = fs::read_to_string(files.outcome()).expect("the outcome is on the disk");
        assert!(outcome.contains(record.state.word()), "seed {seed}: {record:?}: {outcome}");
        // No run was done twice.
        let runs = fs::read_to_string(user.folder.path().join(format!("runs-{id}"))).unwrap_or_default();
        let runs = u32::try_from(runs.lines().count()).expect("they are few");
        assert!(runs <= record.restart_count + 1, "seed {seed}: {record:?} ran {runs} times");
        assert!(record.state != State::Succeeded || runs > 0, "seed {seed}: {record:?}");
        assert!(processes_of(id).is_empty(), "seed {seed}: {record:?}");
    }
    let total = daemon.client.jobs(&Filter::default()).expect("a page").total;
    assert_eq!(total, there.len() as u64, "seed {seed}");
    let folders = fs::read_dir(user.manager().jobs()).expect("it is there").count();
    assert_eq!(folders, there.len(), "seed {seed}: nothing is left of those that were deleted");
    let restarts: u32 = jobs.values().map(|asked| asked.resumed).sum();
    println!("seed {seed}: {} jobs, {} left, started anew {restarts} times", jobs.len(), there.len());
}
