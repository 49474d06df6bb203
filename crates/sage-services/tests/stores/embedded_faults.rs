//! What is left of an embedded store's file after a kill, a full disk and damage.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

use sage_services::store::{Embedded, Record, Schema, StoreError, Value, VectorStore};
use sage_services::wait;

use crate::embedded::{opened, schema};

fn record(number: usize) -> Record {
    let text = format!("record number {number}");
    Record::new(format!("{number:06}"), vec![number as f32 + 1.0, 1.0, 0.0]).text(text).with("n", number as i64)
}

/// A file of three batches, and where each of them ends.
fn three_batches(folder: &Path) -> (PathBuf, Vec<u64>) {
    let path = folder.join("store");
    let store = opened(&path);
    let ends = (0..3)
        .map(|batch| {
            wait(store.upsert((3 * batch..3 * batch + 3).map(record).collect())).unwrap();
            fs::metadata(&path).unwrap().len()
        })
        .collect();
    wait(store.close()).unwrap();
    (path, ends)
}

fn open_with(path: &Path, bytes: &[u8]) -> Result<usize, StoreError> {
    fs::write(path, bytes).unwrap();
    let store = VectorStore::new(schema(), Embedded::at(path)).unwrap();
    let count = wait(async {
        store.open().await?;
        store.count().await
    });
    wait(store.close()).unwrap();
    count
}

#[test]
fn a_file_cut_at_any_byte_keeps_all_batches_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ends) = three_batches(folder.path());
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        let kept = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(open_with(&path, &whole[..cut]).unwrap(), 3 * kept, "cut at {cut} of {}", whole.len());
        // It goes on from there.
        let store = opened(&path);
        wait(store.upsert(vec![record(100)])).unwrap();
        wait(store.close()).unwrap();
        assert_eq!(wait(opened(&path).count()).unwrap(), 3 * kept + 1);
    }
}

#[test]
fn a_byte_that_changed_is_never_read_as_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ends) = three_batches(folder.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= bit;
            let opened = open_with(&path, &bytes);
            if (at as u64) < ends[1] {
                // Something whole is behind it.
                let error = opened.expect_err(&format!("byte {at} changed"));
                assert!(matches!(&error, StoreError::Damaged { .. }), "{error}");
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                assert_eq!(fs::read(&path).unwrap(), bytes, "nothing of a damaged file is changed");
            } else {
                // As a write that was not finished.
                assert_eq!(opened.unwrap(), 6, "byte {at} changed");
            }
        }
    }
}

#[test]
fn a_file_that_is_no_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    for text in ["S", "my notes", "SAGELOG2 of the future", "a text that is longer than what a store begins with"] {
        let opened = open_with(&path, text.as_bytes());
        // One letter may be the beginning of a store that was being made.
        assert!(text == "S" || matches!(opened, Err(StoreError::Damaged { offset: 0, .. })), "{text}: {opened:?}");
        assert!(text == "S" || fs::read(&path).unwrap() == text.as_bytes());
    }
}

#[test]
fn a_full_disk_fails_the_write_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = opened(&path);
    wait(store.upsert((0..10).map(record).collect())).unwrap();
    let full = fs::metadata(&path).unwrap().len() + 500;
    // Of this process only: each test has one of its own. In the place of a signal, a write fails then.
    rlimit_of_files(full);
    let error = wait(store.upsert((10..100).map(record).collect())).unwrap_err();
    assert!(matches!(error, StoreError::File { done: "written", .. }), "{error}");
    assert_eq!(wait(store.count()).unwrap(), 10);
    assert!(fs::metadata(&path).unwrap().len() < full, "what was half written is taken back");
    wait(store.upsert(vec![record(10)])).unwrap();
    rlimit_of_files(u64::MAX);
    wait(store.upsert((11..20).map(record).collect())).unwrap();
    wait(store.close()).unwrap();
    assert_eq!(wait(opened(&path).count()).unwrap(), 20);
}

fn rlimit_of_files(bytes: u64) {
    // SAFETY: both calls only change what this process may do, and read what they are given.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

#[test]
fn a_file_that_cannot_be_made_is_named() {
    let store = VectorStore::new(schema(), Embedded::at("/proc/none/store")).unwrap();
    let error = wait(store.open()).unwrap_err();
    assert!(matches!(&error, StoreError::File { .. }) && error.to_string().contains("/proc/none"), "{error}");
}

const FILE: &str = "SAGE_TEST_STORE";
const BATCH: usize = 20;
/// Few, so that records are replaced and the file is rewritten every now and then.
const IDS: usize = 400;

/// Not a test by itself: the process that is killed. It says which batches were acknowledged.
#[test]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let store = opened(Path::new(&path));
    let first = wait(store.count()).unwrap();
    assert_eq!(first % BATCH, 0);
    thread::scope(|scope| {
        for writer in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for batch in (writer..).step_by(2) {
                    wait(store.upsert(batch_of(batch))).unwrap();
                    writeln!(std::io::stderr(), "acknowledged {batch}").unwrap();
                }
            });
        }
    });
}

/// The records of a batch have the ids of an earlier one, and say which batch they are of.
fn batch_of(batch: usize) -> Vec<Record> {
    let first = batch * BATCH % IDS;
    (first..first + BATCH).map(|number| record(number).with("batch", batch as i64)).collect()
}

#[test]
fn no_record_that_was_acknowledged_is_lost_by_a_kill() {
    // More of them by command.
    let rounds = std::env::var("SAGE_TEST_KILLS").map_or(20, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        survive_a_kill(round);
    }
}

fn survive_a_kill(round: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "embedded_faults::child_that_is_killed", "--nocapture"]);
    let mut child = command.env(FILE, &path).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    for _ in 0..(round * 37) % 300 {
        assert!(said.read_line(&mut lines).unwrap() > 0, "the child ended: {lines}");
    }
    child.kill().unwrap();
    said.read_to_string(&mut lines).unwrap();
    child.wait().unwrap();

    let acknowledged: Vec<usize> =
        lines.lines().filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok()).collect();
    let store = opened(&path);
    for batch in acknowledged {
        let records = batch_of(batch);
        let ids: Vec<&str> = records.iter().map(|record| &*record.id).collect();
        for found in wait(store.get(&ids)).unwrap() {
            let of = found.unwrap_or_else(|| panic!("round {round}: batch {batch} is lost")).metadata["batch"].clone();
            // Or those that replaced them since.
            assert!(
                matches!(of, Value::Integer(of) if of >= batch as i64),
                "round {round}: batch {batch} was undone by {of:?}"
            );
        }
    }
    assert_eq!(wait(store.count()).unwrap() % BATCH, 0, "round {round}: half a batch is there");
    wait(store.close()).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["store"], "round {round}");
}

#[test]
fn a_header_of_another_collection_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = three_batches(folder.path());
    let other = VectorStore::new(Schema::new("other", 3), Embedded::at(&path)).unwrap();
    let error = wait(other.open()).unwrap_err();
    assert!(error.to_string().contains("made with other name: kept, not other"), "{error}");
    // It was only looked at.
    let file = fs::File::open(&path).unwrap();
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).unwrap();
    assert_eq!(&magic, b"SAGELOG1");
    assert_eq!(wait(opened(&path).count()).unwrap(), 9);
}
