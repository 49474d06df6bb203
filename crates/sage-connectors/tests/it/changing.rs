//! Files that are damaged, or that change while they are read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use sage::{Environment, Line};
use sage_connectors::{CsvSource, InputError, JsonlSource, TextSource};

use crate::{failure, folder, gzip, input_error, pattern, put, read_and_fail, zstd};

/// Text of so many lines that no buffer holds them all.
fn long_text() -> String {
    (0..200_000).map(|number| format!("{number}\n")).collect()
}

/// A packed file without its last bytes, as when it is still being written.
fn cut(mut packed: Vec<u8>) -> Vec<u8> {
    packed.truncate(packed.len() - 12);
    packed
}

#[test]
fn a_packed_file_that_ends_early_fails_at_its_line() {
    let dir = folder();
    for path in [put(&dir, "a.gz", cut(gzip(long_text()))), put(&dir, "b.zst", cut(zstd(long_text())))] {
        let (lines, cause) = read_and_fail({
            let path = path.clone();
            move || TextSource::new(path.clone())
        });
        let InputError::Truncated { path: told, line } = input_error(&cause) else { panic!("{}", cause.message) };
        assert_eq!(*told, path);
        assert_eq!(*line, lines.len() as u64 + 1);
        assert!(cause.message.contains(&format!("{}:{line}: ", path.display())));
    }
    for path in [put(&dir, "none.gz", ""), put(&dir, "none.zst", "")] {
        let (_, cause) = read_and_fail(move || TextSource::new(path.clone()));
        assert!(matches!(input_error(&cause), InputError::Truncated { line: 1, .. }), "{}", cause.message);
    }
    let path = put(&dir, "c.gz", &gzip(long_text())[..5]);
    let (_, cause) = read_and_fail(move || JsonlSource::<u32>::new(path.clone()).lenient());
    assert!(matches!(input_error(&cause), InputError::Truncated { line: 1, .. }), "{}", cause.message);
    let path = put(&dir, "d.gz", cut(gzip(long_text())));
    let (records, cause) = read_and_fail(move || CsvSource::<(u32,)>::new(path.clone()).headers(false).lenient());
    assert!(records.len() > 1000);
    assert!(matches!(input_error(&cause), InputError::Truncated { .. }), "{}", cause.message);
}

#[test]
fn a_packed_file_with_changed_bytes_fails() {
    let dir = folder();
    let spoilt = |mut packed: Vec<u8>, place: usize| {
        packed[place] ^= 0x55;
        packed
    };
    // The checksum of the content is at the end of both: before the length in a gzip member, last in a zstd frame.
    let (gz, zst) = (gzip(long_text()), zstd(long_text()));
    let (gz_sum, zst_sum) = (gz.len() - 6, zst.len() - 2);
    for (name, content) in [
        ("sum.gz", spoilt(gz, gz_sum)),
        ("sum.zst", spoilt(zst, zst_sum)),
        ("plain.gz", b"not packed at all".to_vec()),
        ("plain.zst", b"not packed at all".to_vec()),
        ("garbage.gz", [gzip("1\n"), b"garbage".to_vec()].concat()),
    ] {
        let path = put(&dir, name, content);
        let (_, cause) = read_and_fail(move || TextSource::new(path.clone()));
        let told = input_error(&cause);
        assert!(matches!(told, InputError::Read { .. } | InputError::Truncated { .. }), "{name}: {told}");
        assert!(cause.message.contains(name));
    }
}

/// Reads the lines of all files in the folder, and does something once the first has been read.
fn meanwhile(pattern: String, act: impl FnOnce() + Clone + Send + 'static) -> (Environment, sage::Collected<Line>) {
    let env = Environment::local("changing").inline();
    let mut act = Some(act);
    let lines = env
        .from_source(move |_| TextSource::new(pattern.as_str()))
        .inspect(move |_| {
            if let Some(act) = act.take() {
                act();
            }
        })
        .collect();
    (env, lines)
}

#[test]
fn what_is_appended_later_belongs_to_the_next_run() {
    let dir = folder();
    let path = put(&dir, "a.txt", long_text());
    let (env, lines) = meanwhile(pattern(&dir, "*"), move || {
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        writeln!(file, "later").unwrap();
    });
    env.run().unwrap();
    assert_eq!(lines.take().len(), 200_000);
    env.run().unwrap();
    assert_eq!(lines.take()[200_000].text, "later");
}

#[test]
fn a_file_that_shrinks_fails() {
    let dir = folder();
    let path = put(&dir, "a.txt", long_text());
    let (env, lines) = meanwhile(pattern(&dir, "*"), move || {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(500_000).unwrap();
    });
    let cause = failure(&env);
    assert!(matches!(input_error(&cause), InputError::Read { line, .. } if *line > 1), "{}", cause.message);
    assert!(cause.message.contains("shorter"), "{}", cause.message);
    assert!(lines.take().len() < 200_000);
}

#[test]
fn a_file_that_vanishes_before_its_turn_fails() {
    let dir = folder();
    put(&dir, "a.txt", "one\n");
    let second: PathBuf = put(&dir, "b.txt", "two\n");
    let gone = second.clone();
    let (env, lines) = meanwhile(pattern(&dir, "*"), move || fs::remove_file(gone).unwrap());
    let cause = failure(&env);
    assert!(matches!(input_error(&cause), InputError::Open { path, .. } if *path == second), "{}", cause.message);
    assert_eq!(lines.take().len(), 1);
}
