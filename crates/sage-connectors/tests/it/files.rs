//! Which files are read, in what order, and how they are unpacked.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use sage::Environment;
use sage_connectors::{CsvSource, Files, InputError, JsonlSource, TextSource};

use crate::child::alone;
use crate::{folder, gzip, input_error, pattern, put, read, read_and_fail, zstd};

fn texts(source: impl Fn() -> TextSource + Send + 'static) -> Vec<String> {
    read(source).into_iter().map(|line| line.text).collect()
}

#[test]
fn a_file_whose_name_is_not_utf8_is_read_as_well() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = folder();
    let inner = dir.path().join("in");
    fs::create_dir(&inner).unwrap();
    for (place, name, text) in
        [(dir.path(), &b"b.txt"[..], "2"), (dir.path(), b"a\xFF.txt", "1"), (&inner, b"\xE9.txt", "3")]
    {
        fs::write(place.join(OsStr::from_bytes(name)), text).unwrap();
    }
    fs::write(dir.path().join(OsStr::from_bytes(b"c\xFF.log")), "no").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b".\xFF.txt")), "hidden").unwrap();
    // A link to a folder is followed, but not within what it leads to.
    std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
    std::os::unix::fs::symlink("in", dir.path().join("link")).unwrap();
    for (pattern_, expected) in [
        ("*.txt", "12"),
        ("**/*.txt", "1233"),
        ("**/**/a*.txt", "1"),
        ("in/?.txt", "3"),
        ("*/*.txt", "33"),
        (".*.txt", "hidden"),
        ("b.txt", "2"),
        ("[ab].txt", "2"),
    ] {
        let files = pattern(&dir, pattern_);
        let lines = read(move || TextSource::new(files.clone()));
        assert_eq!(lines.into_iter().map(|line| line.text).collect::<String>(), expected, "{pattern_}");
    }
}

#[test]
fn files_come_in_the_order_of_their_paths_and_unpacked_by_their_extension() {
    let dir = folder();
    put(&dir, "c.txt", "five\nsix");
    put(&dir, "a.txt.GZ", gzip("one\r\ntwo\r\n"));
    put(&dir, "b.txt.zst", zstd("three\n\n"));
    put(&dir, ".hidden.txt", "left out\n");
    fs::create_dir(dir.path().join("d.txt")).unwrap();
    let pattern = pattern(&dir, "*.txt*");
    let lines = read(move || TextSource::new(pattern.as_str()));
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line.path.file_name().unwrap().to_str().unwrap(), line.number, line.text.as_str()))
        .collect();
    let expected = [
        ("a.txt.GZ", 1, "one"),
        ("a.txt.GZ", 2, "two"),
        ("b.txt.zst", 1, "three"),
        ("b.txt.zst", 2, ""),
        ("c.txt", 1, "five"),
        ("c.txt", 2, "six"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_path_may_have_any_characters() {
    let dir = folder();
    let path = put(&dir, "[1]*.txt", "x\n");
    let by_path = path.clone();
    assert_eq!(texts(move || TextSource::new(by_path.as_path())), ["x"]);
    assert_eq!(texts(move || TextSource::new(path.clone())), ["x"]);
}

#[test]
fn gzip_members_and_zstd_frames_are_one_file() {
    let dir = folder();
    let members = [gzip("one\ntw"), gzip(""), gzip("o\nthree\n")].concat();
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
    let frames = [zstd("one\ntw"), skippable.clone(), zstd(""), zstd("o\nthree\n"), skippable].concat();
    for path in [put(&dir, "a.gz", members), put(&dir, "a.zst", frames)] {
        assert_eq!(texts(move || TextSource::new(path.clone())), ["one", "two", "three"]);
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let dir = folder();
    let json = put(&dir, "a.jsonl", "\u{FEFF}1\n2\n");
    let csv = put(&dir, "a.csv.gz", gzip("\u{FEFF}\"a\",b\n1,2\n"));
    assert_eq!(read(move || JsonlSource::<u8>::new(json.clone())), [1, 2]);
    let records = read(move || CsvSource::<std::collections::BTreeMap<String, u8>>::new(csv.clone()));
    assert_eq!(records[0]["a"], 1);
}

#[test]
fn empty_files_have_no_records() {
    let dir = folder();
    for path in [put(&dir, "a", ""), put(&dir, "b.gz", gzip("")), put(&dir, "c.zst", zstd(""))] {
        let (text, json, csv) = (path.clone(), path.clone(), path.clone());
        assert!(read(move || TextSource::new(text.clone())).is_empty());
        assert!(read(move || JsonlSource::<u8>::new(json.clone())).is_empty());
        assert!(read(move || CsvSource::<(u8,)>::new(csv.clone())).is_empty());
    }
    let only_names = put(&dir, "d.csv", "a,b\n");
    assert!(read(move || CsvSource::<(u8, u8)>::new(only_names.clone())).is_empty());
}

#[test]
fn a_file_without_a_length_is_read_to_its_end() {
    let lines = texts(|| TextSource::new("/proc/self/status"));
    assert!(lines.iter().any(|line| line.starts_with("VmHWM")));
}

#[test]
fn replicas_share_the_files() {
    let dir = folder();
    for number in 0..5 {
        put(&dir, &format!("{number}.jsonl"), format!("{number}\n{}\n", number + 10));
    }
    let pattern = pattern(&dir, "*.jsonl");
    let env = Environment::local("share");
    let records = env.from_source(move |_| JsonlSource::<u32>::new(pattern.as_str())).parallelism(3).collect();
    env.run().unwrap();
    let mut records = records.take();
    records.sort_unstable();
    assert_eq!(records, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
}

#[test]
fn more_replicas_than_files_are_idle() {
    let dir = folder();
    let path = put(&dir, "one.jsonl", "1\n");
    let env = Environment::local("share");
    let records = env.from_source(move |_| JsonlSource::<u32>::new(path.clone())).parallelism(4).collect();
    env.run().unwrap();
    assert_eq!(records.take(), [1]);
}

#[test]
fn what_cannot_be_listed_or_opened_is_named() {
    let dir = folder();
    let nothing = pattern(&dir, "*.jsonl");
    let (_, cause) = read_and_fail({
        let nothing = nothing.clone();
        move || JsonlSource::<u8>::new(nothing.as_str())
    });
    assert!(matches!(input_error(&cause), InputError::NoMatch { pattern } if *pattern == nothing));
    assert!(cause.message.contains(&nothing));

    let (_, cause) = read_and_fail(|| TextSource::new("a/**b"));
    assert!(matches!(input_error(&cause), InputError::Pattern { .. }));

    let missing = dir.path().join("missing.csv");
    let (_, cause) = read_and_fail({
        let missing = missing.clone();
        move || CsvSource::<(u8,)>::new(missing.clone())
    });
    assert!(matches!(input_error(&cause), InputError::Open { path, .. } if *path == missing), "{}", cause.message);
}

#[test]
fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
    let dir = folder();
    let fits = put(&dir, "fits.txt", "12345\r\n12345\n12345");
    assert_eq!(texts(move || TextSource::new(Files::path(fits.clone()).max_record_bytes(5))).len(), 3);
    for (text, line) in [("123456", 1), ("12345\n123456\n", 2), ("1\n\n1234567890\r\n", 3)] {
        let path = put(&dir, "long.txt", text);
        let (read, cause) =
            read_and_fail(move || TextSource::new(Files::path(path.clone()).max_record_bytes(5)).lenient());
        assert_eq!(read.len() as u64, line - 1);
        let told = input_error(&cause);
        assert!(matches!(told, InputError::TooLong { line: at, limit_bytes: 5, .. } if *at == line), "{told}");
    }
}

#[test]
fn a_csv_record_may_be_as_long_as_the_limit_and_no_longer() {
    let dir = folder();
    let limited = |path: PathBuf| {
        move || CsvSource::<(String,)>::new(Files::path(path.clone()).max_record_bytes(5)).headers(false).lenient()
    };
    assert_eq!(read(limited(put(&dir, "fits.csv", "12345\r\n\r\n\"123\"\n12345"))).len(), 3);
    let (records, cause) = read_and_fail(limited(put(&dir, "long.csv", "12345\r\n\r\n123456\n1\n")));
    assert_eq!(records.len(), 1);
    assert!(matches!(input_error(&cause), InputError::TooLong { line: 3, .. }), "{}", cause.message);
    // A quote that nothing closes.
    let runaway = format!("1\n\"{}", "x\n".repeat(1 << 20));
    let (records, cause) = read_and_fail(limited(put(&dir, "runaway.csv", runaway)));
    assert_eq!(records.len(), 1);
    assert!(matches!(input_error(&cause), InputError::TooLong { line: 2, .. }), "{}", cause.message);
}

/// The most memory this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_file() {
    const MEMBERS: u64 = 64;
    alone("files::memory_does_not_grow_with_the_file", "", |dir| {
        let line = format!("\"{}\"\n", "abcdefgh".repeat(127));
        let mebibyte = line.repeat(1024);
        fs::write(dir.join("a.jsonl.gz"), gzip(&mebibyte).repeat(MEMBERS as usize)).unwrap();
        drop(mebibyte);
        let before = peak_kib();
        for csv in [false, true] {
            let path = dir.join("a.jsonl.gz");
            let env = Environment::local("large");
            let count = match csv {
                true => {
                    let source = move |_| CsvSource::<(String,)>::new(path.clone()).headers(false);
                    env.from_source(source).count().collect()
                }
                false => env.from_source(move |_| JsonlSource::<String>::new(path.clone())).count().collect(),
            };
            env.run().unwrap();
            assert_eq!(count.take(), [MEMBERS * 1024]);
        }
        // A quote that nothing closes, and 256 MiB that take no room on the disk.
        let runaway = dir.join("runaway.csv");
        fs::write(&runaway, "1\n\"").unwrap();
        OpenOptions::new().append(true).open(&runaway).unwrap().set_len(256 << 20).unwrap();
        let (_, cause) = read_and_fail(move || {
            CsvSource::<(String,)>::new(Files::path(runaway.clone()).max_record_bytes(1 << 20)).headers(false)
        });
        assert!(matches!(input_error(&cause), InputError::TooLong { line: 2, .. }), "{}", cause.message);
        let grown = peak_kib() - before;
        assert!(grown < 16 << 10, "reading took {grown} KiB");
    });
}
