//! A journal: in a real folder, by real processes that are really killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::journal::{FullDisk, Journal, LARGEST, OpenJournal};
use super::super::key::{CallKey, MethodKey};
use super::super::store::{FileKind, Store, StoreError};
use super::disk::Fake;

fn key(method: &MethodKey, n: u64) -> CallKey {
    method.of_bytes(b"question".to_vec(), n)
}

fn answer_of(n: u64) -> Vec<u8> {
    format!("answer {n}; ").repeat(1 + (n % 7) as usize).into_bytes()
}

#[test]
fn a_run_that_is_started_again_finds_its_answers_and_another_run_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let run = Journal::run(folder.path().join("runs/x"));
    let journal = run.open().unwrap();
    let method = journal.secret().method("llm", "1", "chat");
    let out = journal.call(key(&method, 1));
    out.begins().unwrap();
    out.begins().unwrap();
    out.answer(None, b"yes").unwrap();
    drop(out);
    assert_eq!(journal.get(key(&method, 2)).unwrap(), None);
    drop(journal);

    let journal = run.open().unwrap();
    let method = journal.secret().method("llm", "1", "chat");
    assert_eq!(journal.get(key(&method, 1)).unwrap().as_deref(), Some(&b"yes"[..]));
    let figures = journal.figures();
    assert_eq!((figures.entries, figures.hits, figures.misses), (1, 1, 0));
    assert_eq!(figures.bytes, 64 + 64 + 64 + 3);
    let other = Journal::run(folder.path().join("runs/y")).open().unwrap();
    assert_ne!(key(&other.secret().method("llm", "1", "chat"), 1), key(&method, 1));
}

#[test]
fn a_folder_has_one_user_and_its_files_are_that_users_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = Journal::run(folder.path().join("x"));
    let journal = run.open().unwrap();
    let error = run.open().map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { process: Some(process), .. } if process == std::process::id()));
    assert!(error.to_string().ends_with("x is used already in this process"), "{error}");
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("x"), mode("x/journal"), mode("x/lock")], [0o700, 0o600, 0o600]);
    drop(journal);
    fs::set_permissions(folder.path().join("x/journal"), fs::Permissions::from_mode(0o644)).unwrap();
    drop(run.open().unwrap());
    assert_eq!(mode("x/journal"), 0o600);
    fs::remove_file(folder.path().join("x/journal")).unwrap();
    fs::create_dir(folder.path().join("x/journal")).unwrap();
    assert!(matches!(run.open().map(|_| ()), Err(StoreError::Io { .. })));
}

#[test]
fn a_call_that_ends_without_an_answer_is_not_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = Journal::run(folder.path().join("x"));
    let journal = run.open().unwrap();
    let method = journal.secret().method("llm", "1", "chat");
    let [failed, cut, never] = [1, 2, 3].map(|n| journal.call(key(&method, n)));
    failed.begins().unwrap();
    cut.begins().unwrap();
    drop((failed, never));
    // As a kill leaves it.
    std::mem::forget(cut);
    let copy = Journal::run(folder.path().join("y"));
    fs::create_dir(copy.folder()).unwrap();
    fs::copy(folder.path().join("x/journal"), folder.path().join("y/journal")).unwrap();
    let named = [key(&method, 2).to_string()];
    assert_eq!(copy.open().unwrap().figures().begun_not_ended, named);
    assert!(copy.open().unwrap().figures().begun_not_ended.is_empty(), "the run before has named it");
}

#[test]
fn erased_bytes_and_arguments_are_nowhere_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::run(folder.path().join("x")).open().unwrap();
    let method = journal.secret().method("llm", "1", "chat");
    for n in 0..10 {
        let tag = journal.secret().tag(if n % 2 == 0 { "Ada" } else { "Grace" });
        journal.call(key(&method, n)).answer(Some(tag), format!("answer-{}", n % 2).as_bytes()).unwrap();
    }
    assert_eq!(journal.erase(journal.secret().tag("Ada")).unwrap(), 5);
    assert_eq!(journal.get(key(&method, 2)).unwrap(), None);
    assert_eq!(journal.figures().erased, 5);
    let found = |text: &str| {
        let files = fs::read_dir(folder.path().join("x")).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
        files.into_iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    assert!(found("answer-1"));
    for text in ["answer-0", "question", "Ada", "Grace", "llm", "chat"] {
        assert!(!found(text), "{text} is found");
    }
}

#[test]
fn a_full_disk_fails_the_call_or_is_counted() {
    for full_disk in [FullDisk::Fail, FullDisk::GoOn] {
        let fake = Fake::default();
        let store = Store::open(fake.clone(), Path::new("x"), FileKind::Journal, false, LARGEST).unwrap();
        let journal = OpenJournal::new(store, full_disk, None);
        let method = journal.secret().method("llm", "1", "chat");
        fake.room(Some(64 + 10));
        let out = journal.call(key(&method, 1));
        match full_disk {
            FullDisk::Fail => {
                let error = out.begins().unwrap_err();
                assert_eq!(error.to_string(), "there is no room for more in x");
                assert!(matches!(out.answer(None, b"yes"), Err(StoreError::Full { .. })));
            }
            FullDisk::GoOn => {
                out.begins().unwrap();
                out.answer(None, b"yes").unwrap();
            }
        }
        assert_eq!(journal.figures().uncached, u64::from(full_disk == FullDisk::GoOn));
        assert_eq!((journal.get(key(&method, 1)).unwrap(), fake.contents().len()), (None, 64));
    }
}

#[test]
fn settings_that_let_nothing_through_are_told() {
    assert_eq!(Journal::run("x").mistake(), None);
    assert_eq!(Journal::run("").mistake().unwrap(), "a journal needs the name of a folder");
    for bytes in [0, 1 << 32, u64::MAX] {
        let mistake = Journal::run("x").largest_answer(bytes).mistake().unwrap();
        assert_eq!(mistake, format!("the largest answer has between 1 and 4294967295 bytes, not {bytes}"));
    }
    assert_eq!(Journal::run("x").largest_answer(1).mistake(), None);
}

const FOLDER: &str = "SAGE_TEST_JOURNAL";
const MUTANT: &str = "SAGE_TEST_JOURNAL_MUTANT";
const CALLERS: u64 = 4;

/// Not a test by itself: the process that is killed. It says what it hands on.
#[test]
fn child_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let hands_on_first = std::env::var_os(MUTANT).is_some();
    let journal = Journal::run(folder).open().unwrap();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let journal = &journal;
            scope.spawn(move || {
                let method = journal.secret().method("llm", "1", "chat");
                for n in (caller..).step_by(CALLERS as usize) {
                    let out = journal.call(key(&method, n));
                    out.begins().unwrap();
                    let hand_on = || writeln!(std::io::stderr(), "handed on {n}").unwrap();
                    if hands_on_first {
                        hand_on();
                    }
                    out.answer(None, &answer_of(n)).unwrap();
                    if !hands_on_first {
                        hand_on();
                    }
                }
            });
        }
    });
}

/// Kills a process after it has handed on some answers. Returns how many of those are not in the journal.
fn lost_by_a_kill(round: u64, is_mutant: bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let run = Journal::run(folder.path().join("x"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "service::policy::tests::journal::child_that_is_killed", "--nocapture"]);
    command.env(FOLDER, run.folder()).stderr(Stdio::piped()).stdout(Stdio::null());
    if is_mutant {
        command.env(MUTANT, "1");
    }
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    for _ in 0..(round * 37) % 300 {
        assert!(said.read_line(&mut lines).unwrap() > 0, "the child ended: {lines}");
    }
    child.kill().unwrap();
    said.read_to_string(&mut lines).unwrap();
    child.wait().unwrap();

    let journal = run.open().unwrap();
    let method = journal.secret().method("llm", "1", "chat");
    let handed_on = lines.lines().filter_map(|line| line.strip_prefix("handed on ")?.parse().ok());
    let lost = handed_on.filter(|n| match journal.get(key(&method, *n)).unwrap() {
        Some(bytes) => {
            assert_eq!(bytes, answer_of(*n));
            false
        }
        None => true,
    });
    let lost = lost.count();
    assert!(journal.figures().begun_not_ended.len() <= CALLERS as usize);
    lost
}

#[test]
fn no_answer_that_was_handed_on_is_lost_by_a_kill() {
    // More of them by command.
    let rounds = std::env::var("SAGE_TEST_KILLS").map_or(20, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        assert_eq!(lost_by_a_kill(round, false), 0, "round {round}");
    }
}

/// So the test above can tell.
#[test]
fn a_process_that_hands_on_before_it_keeps_is_found_out() {
    assert!((0..10).any(|round| lost_by_a_kill(round, true) > 0));
}
