//! What is left of a memory's file after a kill, a full disk, a second writer and damage.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

use sage_services::memory::{Memory, MemoryError, NewTurn, Scope};

use crate::shared::{assert_nowhere, contains, opened, session, turn};

#[test]
fn two_processes_cannot_have_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    let error = Memory::at(&path).open().unwrap_err();
    assert!(matches!(&error, MemoryError::Locked { path: told } if *told == path), "{error}");
    memory.append(&session("s"), vec![turn("a", "x")]).unwrap();
    memory.close();
    assert_eq!(opened(&path).count(&session("s")).unwrap(), 1);
}

#[test]
fn a_file_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper/memory");
    let memory = opened(&path);
    memory.append(&session("s"), vec![turn("a", "x")]).unwrap();
    let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777;
    assert_eq!(mode(&path), 0o600);
    let error = Memory::at("/proc/none/memory").open().unwrap_err();
    assert!(matches!(&error, MemoryError::File { .. }) && error.to_string().contains("/proc/none"), "{error}");
}

/// A file with three turns, and where each of them ends.
fn three_turns(folder: &Path) -> (PathBuf, Vec<usize>) {
    let path = folder.join("memory");
    let memory = opened(&path);
    let ends = (0..3).map(|number| {
        memory.append(&session("s"), vec![turn(&number.to_string(), &format!("turn number {number}"))]).unwrap();
        fs::metadata(&path).unwrap().len() as usize
    });
    let ends = ends.collect();
    (path, ends)
}

fn count_with(path: &Path, bytes: &[u8]) -> Result<usize, MemoryError> {
    fs::write(path, bytes).unwrap();
    let memory = Memory::at(path);
    memory.open()?;
    memory.count(&session("s"))
}

#[test]
fn a_file_cut_at_any_byte_keeps_all_turns_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ends) = three_turns(folder.path());
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        let kept = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(count_with(&path, &whole[..cut]).unwrap(), kept, "cut at {cut} of {}", whole.len());
        // It goes on from there.
        opened(&path).append(&session("s"), vec![turn("next", "x")]).unwrap();
        assert_eq!(opened(&path).count(&session("s")).unwrap(), kept + 1);
    }
}

#[test]
fn a_byte_that_changed_is_never_read_as_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ends) = three_turns(folder.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x11;
        match count_with(&path, &bytes) {
            // As a write that was not finished.
            Ok(count) => assert!(at >= ends[1] && count == 2, "byte {at} changed: {count}"),
            Err(error) => {
                assert!(at < ends[1] && matches!(error, MemoryError::Damaged { .. }), "byte {at} changed: {error}");
                assert_eq!(fs::read(&path).unwrap(), bytes, "nothing of a damaged file is changed");
            }
        }
    }
}

#[test]
fn another_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let store = sage_services::store::Embedded::at(&path);
    let store = sage_services::store::VectorStore::new(sage_services::store::Schema::new("notes", 2), store).unwrap();
    sage_services::wait(store.open()).unwrap();
    sage_services::wait(store.close()).unwrap();
    for bytes in [fs::read(&path).unwrap(), b"my own notes".to_vec()] {
        let error = count_with(&path, &bytes).unwrap_err();
        assert!(matches!(error, MemoryError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_full_disk_fails_the_write_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    let scope = session("s");
    let turns = |range: std::ops::Range<usize>| range.map(|n| turn(&n.to_string(), &format!("secret {n}"))).collect();
    memory.append(&scope, turns(0..10)).unwrap();
    let full = fs::metadata(&path).unwrap().len() + 300;
    // Of this process only: each test has one of its own. In the place of a signal, a write fails then.
    limit_of_files(full);
    let error = memory.append(&scope, turns(10..100)).unwrap_err();
    assert!(matches!(error, MemoryError::File { done: "written", .. }), "{error}");
    assert_eq!(memory.count(&scope).unwrap(), 10);
    assert!(fs::metadata(&path).unwrap().len() < full, "what was half written is taken back");
    let export = folder.path().join("export");
    let error = memory.export(&scope, &export).unwrap_err();
    assert!(matches!(&error, MemoryError::File { path, .. } if *path == export) && !export.exists(), "{error}");
    memory.append(&scope, turns(10..11)).unwrap();
    // What is erased takes no room.
    assert_eq!(memory.erase(&scope).unwrap().turns, 11);
    limit_of_files(u64::MAX);
    memory.append(&scope, turns(11..20)).unwrap();
    drop(memory);
    assert_eq!(opened(&path).count(&scope).unwrap(), 9);
}

fn limit_of_files(bytes: u64) {
    // SAFETY: both calls only change what this process may do, and read what they are given.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

const FILE: &str = "SAGE_TEST_MEMORY";

fn scope_of(writer: usize, number: usize) -> Scope {
    Scope::tenant("t").user(format!("w{writer}n{number}"))
}

/// Only erased turns say so: a memory that is asked for them again must not find any of it.
fn secret(writer: usize, number: usize) -> String {
    format!("<secret {writer} of {number}>")
}

/// Not a test by itself: the process that is killed. It says what was acknowledged.
#[test]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let memory = opened(Path::new(&path));
    let say = |words: String| std::io::stderr().write_all((words + "\n").as_bytes()).unwrap();
    thread::scope(|threads| {
        for writer in 0..2 {
            let (memory, say) = (&memory, &say);
            threads.spawn(move || {
                for number in 0.. {
                    let scope = scope_of(writer, number);
                    let text = secret(writer, number);
                    let turns = (0..20).map(|id| NewTurn::user(format!("{text} {id}")).id(id.to_string())).collect();
                    memory.append(&scope, turns).unwrap();
                    memory.update(&scope, "3", format!("{text} again")).unwrap();
                    say(format!("appended {writer} {number}"));
                    if number % 2 == 0 {
                        say(format!("erases {writer} {number}"));
                        memory.erase(&scope).unwrap();
                        say(format!("erased {writer} {number}"));
                    }
                }
            });
        }
    });
}

#[test]
fn a_kill_loses_nothing_and_leaves_nothing_half_erased() {
    // More of them by command.
    let rounds = std::env::var("SAGE_TEST_KILLS").map_or(20, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        survive_a_kill(round);
    }
}

fn survive_a_kill(round: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "faults::child_that_is_killed", "--nocapture"]);
    let mut child = command.env(FILE, &path).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    for _ in 0..(round * 37) % 100 {
        assert!(said.read_line(&mut lines).unwrap() > 0, "the child ended: {lines}");
    }
    child.kill().unwrap();
    said.read_to_string(&mut lines).unwrap();
    child.wait().unwrap();
    let told = |what: &str| -> Vec<(usize, usize)> {
        let numbers = lines.lines().filter_map(|line| line.strip_prefix(what)?.trim().split_once(' '));
        numbers.map(|(writer, number)| (writer.parse().unwrap(), number.parse().unwrap())).collect()
    };
    let (appended, erases, erased) = (told("appended "), told("erases "), told("erased "));
    let memory = opened(&path);
    let bytes = fs::read(&path).unwrap();
    for (writer, number) in appended {
        let count = memory.count(&scope_of(writer, number)).unwrap();
        let history = memory.history(&scope_of(writer, number), "3").unwrap().len();
        let is_gone = (count, history) == (0, 0);
        assert!(is_gone || (count, history) == (20, 2), "round {round}: {count} turns of {writer} {number}");
        assert!(!is_gone || erases.contains(&(writer, number)), "round {round}: {writer} {number} is lost");
        assert!(is_gone || !erased.contains(&(writer, number)), "round {round}: {writer} {number} is back");
        let is_in_file = contains(&bytes, secret(writer, number).as_bytes());
        assert_eq!(is_in_file, !is_gone, "round {round}: {writer} {number} in the file");
    }
    let traces: Vec<Vec<u8>> = erased.iter().map(|(writer, number)| secret(*writer, *number).into_bytes()).collect();
    assert_nowhere(folder.path(), &traces);
    drop(memory);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["memory"], "round {round}");
}
