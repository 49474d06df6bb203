//! `sage run --folder`: what the reaper of a job writes, and tells whoever watches.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage::{Cleanliness, JobState, Outcome};
use sage_api::job::Limits;
use sage_api::message::{Command, FromReaper, Happened, ToReaper, Told};

use super::job::{Job, counting, until};

#[test]
fn what_happens_what_is_printed_and_the_outcome_are_in_the_folder() {
    let job = Job::counting(&["records=3"]);
    let (end, said) = job.run();
    assert_eq!(
        (end.outcome, end.cleanliness, end.exit_code, end.why),
        (Outcome::Succeeded, Cleanliness::Clean, 0, None)
    );
    assert_eq!(said, "");
    assert!(end.peak_bytes > 1 << 20 && end.ended.is_empty() && end.left.is_empty());
    let events = job.events();
    let Happened::Started { pid } = events[0].what else { panic!("{:?}", events[0]) };
    let Happened::Begins(begins) = &events[1].what else { panic!("{:?}", events[1]) };
    assert_eq!((begins.pid, begins.environment.as_str(), begins.graph.services.len()), (pid, "counting", 1));
    let Happened::Ended { job: id, report } = &events.last().expect("there are some").what else {
        panic!("{:?}", events.last())
    };
    assert_eq!((id, report.operators[0].records_in), (&begins.job, 3));
    assert!(events[2..events.len() - 1].iter().all(|event| matches!(&event.what, Happened::Changed { .. })));
    for file in [job.folder.events(), job.folder.outcome(), job.folder.reaper(), job.folder.output(0)] {
        assert_eq!(file.metadata().expect("it is there").permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn the_outcome_says_how_it_ended_and_why() {
    let ends = [
        ("exit 0", Outcome::Succeeded, 0, None),
        ("exit 4", Outcome::Failed, 1, Some("it ended with exit code 4")),
        ("kill -TERM $$", Outcome::Cancelled, 143, Some("killed by SIGTERM")),
        ("exit 130", Outcome::Cancelled, 130, Some("ended by SIGINT")),
        ("kill -KILL $$", Outcome::Failed, 1, Some("killed by SIGKILL")),
        ("exit 3", Outcome::Failed, 3, Some("it ended with exit code 3")),
    ];
    for (script, outcome, code, why) in ends {
        let (end, _) = Job::script(script).run();
        assert_eq!((end.outcome, end.exit_code, end.why.as_deref()), (outcome, code, why), "{script}");
        assert_eq!(end.cleanliness == Cleanliness::Unclean, code == 3, "{script}");
    }
    let (end, _) = Job::script("setsid sleep 1000 & exit 0").run();
    assert_eq!((end.outcome, end.cleanliness, end.exit_code), (Outcome::Succeeded, Cleanliness::Unclean, 3));
    assert!(end.ended[0].starts_with("sleep (process "), "{end:?}");
    assert!(end.why.expect("it is not clean").starts_with("left processes, which were ended: sleep"));
}

#[test]
fn the_outcome_says_what_the_reports_do() {
    let ends: [(&[&str], Outcome, u8, &str); 4] = [
        (&["records=5", "fail=3"], Outcome::Failed, 1, "operator `try-map-1`, record 3: 3 is too many"),
        (&["records=5", "unclean"], Outcome::Failed, 3, "it ended with exit code 3; not clean: service `counter`: "),
        (&["records=5", "unclean", "tolerant"], Outcome::Succeeded, 3, "not clean: service `counter`: "),
        (&["records=5", "fail=3", "tolerant"], Outcome::Succeeded, 0, ""),
    ];
    for (arguments, outcome, code, why) in ends {
        let (end, _) = Job::counting(arguments).run();
        assert_eq!((end.outcome, end.exit_code), (outcome, code), "{arguments:?}: {end:?}");
        let said = end.why.unwrap_or_default();
        assert!(said.starts_with(why) && said.is_empty() == why.is_empty(), "{arguments:?}: {said}");
        assert_eq!(end.left.len(), usize::from(code == 3), "{arguments:?}: {:?}", end.left);
    }
}

#[test]
fn what_cannot_be_started_has_an_outcome() {
    let job = Job::of(Path::new("nothing/here"), &[], Limits::default(), "job");
    let (end, _) = job.run();
    assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, 2));
    let why = end.why.expect("it says why");
    assert!(why.starts_with("it could not be started: there is no file /") && why.contains("nothing/here"), "{why}");
    // It is over.
    let again = job.sage().output().expect("sage runs");
    assert!(again.status.code() == Some(2) && String::from_utf8_lossy(&again.stderr).contains("is over"), "{again:?}");

    let job = Job::script("");
    fs::write(job.folder.spec(), "{}").expect("it is written");
    let (end, _) = job.run();
    assert!(end.exit_code == 2 && end.why.expect("it says why").contains("job.json"));

    let job = Job::script("");
    let bad = job.folder.path().join("bad");
    fs::write(&bad, "#!/no/such/interpreter\n").expect("it is written");
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let (end, _) = Job::of(&bad, &[], Limits::default(), "job").run();
    assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, 1));
}

#[test]
fn a_folder_has_one_reaper() {
    let job = Job::counting(&["pace=1"]);
    let reaper = job.start();
    let mut watcher = job.watch();
    let second = job.sage().output().expect("sage runs");
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("has a reaper already"), "{second:?}");
    watcher.tell(ToReaper::Kill);
    assert_eq!(job.ended(reaper).0.outcome, Outcome::Cancelled);
}

#[test]
fn who_watches_late_reads_the_files_and_is_told_the_rest() {
    let job = Job::counting(&["pace=1"]);
    let reaper = job.start();
    job.watch().until_state(&job, JobState::Running);
    let mut watcher = job.watch();
    let mut seen = fs::read(job.folder.events()).expect("they are there");
    seen.truncate(usize::try_from(watcher.events).expect("it is small"));
    watcher.tell(ToReaper::Do(Command::Drain));
    let mut output = watcher.output;
    while let Some(told) = watcher.next() {
        match told {
            FromReaper::Event { line, events } => {
                seen.extend(sage_api::message::line(&line).expect("it is written"));
                assert_eq!(events, seen.len() as u64);
            }
            FromReaper::Output { output: length } => output = length,
            other => panic!("{other:?}"),
        }
    }
    assert!(job.folder.outcome().exists(), "it is written before those are let go who watch");
    assert!(seen == fs::read(job.folder.events()).expect("they are there"), "nothing is missing, and nothing twice");
    assert_eq!(output, fs::metadata(job.folder.output(0)).expect("it is there").len());
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.why), (Outcome::Succeeded, None));
    assert!(job.events().iter().any(|event| matches!(event.what, Happened::Told(Told::Do(Command::Drain)))));
}

#[test]
fn jobs_do_what_they_are_told_and_answer() {
    let job = Job::counting(&["pace=1"]);
    let reaper = job.start();
    let (mut watcher, mut other) = (job.watch(), job.watch());
    watcher.until_state(&job, JobState::Running);
    other.tell(ToReaper::Figures { request: 7 });
    watcher.tell(ToReaper::Figures { request: 8 });
    for (watcher, number) in [(&mut watcher, 8), (&mut other, 7)] {
        loop {
            if let FromReaper::Figures { request, figures, .. } = watcher.next().expect("there is more") {
                assert_eq!((request, figures.metrics.operators.len()), (number, 3));
                break;
            }
        }
    }
    watcher.tell(ToReaper::Do(Command::Pause));
    watcher.until_state(&job, JobState::Paused);
    watcher.tell(ToReaper::Do(Command::Resume));
    watcher.until(|what| matches!(what, Happened::Told(Told::Do(Command::Resume))));
    watcher.tell(ToReaper::Do(Command::Cancel));
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.exit_code), (Outcome::Cancelled, 1), "{end:?}");
}

#[test]
fn a_program_without_a_job_is_sent_a_signal() {
    for (trap, command, outcome, code) in [
        ("trap 'exit 143' TERM", Command::Drain, Outcome::Cancelled, 143),
        ("trap 'exit 1' TERM", Command::Cancel, Outcome::Cancelled, 1),
        ("trap 'exit 0' TERM", Command::Drain, Outcome::Succeeded, 0),
        // Nobody has verified that it did what it should.
        ("trap 'exit 0' TERM", Command::Cancel, Outcome::Cancelled, 1),
    ] {
        let job = Job::script(&format!("{trap}; echo begun; while :; do sleep 0.01; done"));
        let reaper = job.start();
        until("it has begun", || fs::read_to_string(job.folder.output(0)).ok().filter(|text| text == "begun\n"));
        job.watch().tell(ToReaper::Do(command));
        let (end, _) = job.ended(reaper);
        assert_eq!((end.outcome, end.exit_code), (outcome, code), "{trap}, {command:?}: {end:?}");
        let is_sent = |what: &Happened| matches!(what, Happened::Told(Told::Signal(15)));
        assert!(job.events().iter().any(|event| is_sent(&event.what)));
    }
}

#[test]
fn a_kill_ends_all_and_says_so() {
    let job = Job::script("trap '' TERM; setsid sleep 1000 & echo begun; wait");
    let reaper = job.start();
    until("it has begun", || fs::read_to_string(job.folder.output(0)).ok().filter(|text| text == "begun\n"));
    job.watch().tell(ToReaper::Kill);
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.cleanliness, end.exit_code), (Outcome::Cancelled, Cleanliness::Clean, 1), "{end:?}");
    assert_eq!(end.why.as_deref(), Some("killed"));
}

#[test]
fn a_signal_to_the_reaper_is_the_programs() {
    let job = Job::counting(&["pace=1"]);
    let reaper = job.start();
    job.watch().until_state(&job, JobState::Running);
    kill(Pid::from_raw(reaper.id().cast_signed()), Signal::SIGTERM).expect("it is there");
    let (end, _) = job.ended(reaper);
    assert_eq!((end.outcome, end.exit_code, end.why.as_deref()), (Outcome::Cancelled, 143, Some("stopped: SIGTERM")));
}

#[test]
fn of_much_output_the_newest_is_kept() {
    // Ten parts and a half.
    let job = Job::script("head -c 88080384 /dev/zero; echo; echo the end >&2");
    let (end, _) = job.run();
    assert_eq!(end.outcome, Outcome::Succeeded);
    let names = fs::read_dir(job.folder.path()).expect("it is there").flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.starts_with("output-"));
    names.sort();
    let part = 8 << 20;
    let expected: Vec<_> = (3..11).map(|number| job.folder.output(number * part)).collect();
    assert!(names.iter().map(|name| job.folder.path().join(name)).eq(expected), "{names:?}");
    let size = |start| job.folder.output(start).metadata().expect("it is there").len();
    assert!((3..10).all(|number| size(number * part) == part));
    let last = fs::read(job.folder.output(10 * part)).expect("it is there");
    assert!(last.len() == (4 << 20) + 9 && last.ends_with(b"\0\nthe end\n"), "{}", last.len());
}

#[test]
fn a_folder_with_a_long_path_will_do() {
    let job = Job::of(&counting(), &["records=3"], Limits::default(), &["x".repeat(120), "y".repeat(120)].join("/"));
    job.run();
    assert!(job.events().iter().any(|event| matches!(event.what, Happened::Begins(_))));
}
