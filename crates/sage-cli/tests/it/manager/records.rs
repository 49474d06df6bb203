//! Records that are damaged or gone are made anew from the jobs' folders.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};

use sage_api::client::Filter;
use sage_api::job::{JobRecord, State};

use super::{Daemon, User};

fn records(daemon: &Daemon) -> Vec<JobRecord> {
    let jobs = daemon.client.jobs(&Filter::default()).expect("a page").jobs;
    // When it was noted may be another time.
    jobs.into_iter().map(|job| JobRecord { updated_ms: 0, ..job }).collect()
}

#[test]
fn records_with_blocks_of_zeros_or_nonsense_or_none_at_all_are_made_anew() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    for script in ["exit 0", "exit 1", "kill -9 $$"] {
        let job = daemon.submit(&user.shell(script));
        daemon.until_over(&job.id);
    }
    let runs = daemon.submit(&user.counting(&["pace=1"]));
    daemon.until_state(&runs.id, State::Running);
    let before = records(&daemon);
    assert!(daemon.stop().success());
    let path = user.manager().records();
    let length = path.metadata().expect("it is there").len();
    type Damage<'a> = &'a dyn Fn();
    let overwrite = |from: u64, content: &[u8]| {
        let mut file = OpenOptions::new().write(true).open(&path).expect("it is there");
        file.seek(SeekFrom::Start(from)).expect("it is done");
        file.write_all(content).expect("it is written");
    };
    let damages: [(&str, Damage<'_>); 5] = [
        ("a block of zeros at the begin", &|| overwrite(0, &[0; 4096])),
        ("blocks of zeros inside", &|| overwrite(4096, &vec![0; usize::try_from(length - 4096).expect("it fits")])),
        ("nonsense", &|| fs::write(&path, "nonsense ".repeat(1000)).expect("it is written")),
        ("cut off", &|| {
            OpenOptions::new().write(true).open(&path).expect("it is there").set_len(length / 2).expect("it is cut");
        }),
        ("gone", &|| fs::remove_file(&path).expect("it is removed")),
    ];
    for (what, damage) in damages {
        damage();
        let daemon = user.daemon(&[]);
        daemon.until_state(&runs.id, State::Running);
        assert_eq!(records(&daemon), before, "{what}");
        assert!(daemon.stop().success());
    }
    assert!(user.manager().path().join("records.damaged.sqlite").exists());
    // No number is given twice, and all of it goes on.
    let daemon = user.daemon(&[]);
    assert!(daemon.submit(&user.shell("exit 0")).number > 4);
}

#[test]
fn records_that_are_damaged_while_the_daemon_runs_are_made_anew_with_what_runs() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let over = daemon.submit(&user.shell("exit 3"));
    daemon.until_over(&over.id);
    let runs = daemon.submit(&user.counting(&["pace=1"]));
    daemon.until_state(&runs.id, State::Running);
    let before = records(&daemon);
    // All that SQLite has is overwritten under its feet.
    for ending in ["", "-wal"] {
        let path = user.manager().path().join(format!("records.sqlite{ending}"));
        let length = path.metadata().expect("it is there").len();
        let mut file = OpenOptions::new().write(true).open(path).expect("it is there");
        file.write_all(&vec![0xa5; usize::try_from(length).expect("it fits")]).expect("it is written");
    }
    let next = daemon.submit(&user.shell("exit 0"));
    daemon.until_over(&next.id);
    let after = records(&daemon);
    assert_eq!(after.len(), 3);
    assert_eq!(after[1..], before);
    assert_eq!(daemon.record(&runs.id).state, State::Running);
}

#[test]
fn a_folder_that_was_never_finished_is_no_job_and_one_that_is_gone_has_no_record() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let kept = daemon.submit(&user.shell("exit 0"));
    let gone = daemon.submit(&user.shell("exit 0"));
    daemon.until_over(&kept.id);
    daemon.until_over(&gone.id);
    daemon.kill();
    let manager = user.manager();
    fs::remove_dir_all(manager.job(&gone.id).path()).expect("it is deleted");
    let half = manager.job("00000000-0000-4000-8000-000000000000");
    fs::create_dir(half.path()).expect("it is made");
    fs::write(half.payload(), "half").expect("it is written");
    let deleting = manager.jobs().join(".deleted-1");
    fs::create_dir(&deleting).expect("it is made");
    let daemon = user.daemon(&[]);
    let there = records(&daemon);
    assert_eq!(there.iter().map(|job| &job.id).collect::<Vec<_>>(), [&kept.id]);
    assert!(!half.path().exists() && !deleting.exists());
}
