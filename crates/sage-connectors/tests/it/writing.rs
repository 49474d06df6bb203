//! Files appear when they are complete, or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use sage::{BoxError, Environment, ErrorPolicy, JobHandle, Outcome, StopReason};
use sage_connectors::{CsvSink, CsvSource, JsonlSink, JsonlSource, OutputError, TextSink, TextSource, Ticks};
use serde::Serialize;

use crate::child::alone;
use crate::{failed, failure, folder, names, output_error, put, read};

#[test]
fn the_file_is_there_only_when_it_is_complete() {
    let dir = folder();
    let path = put(&dir, "out.txt", "old");
    let (into, seen) = (path.clone(), path.clone());
    let place = dir.path().to_owned();
    let env = Environment::local("write").inline();
    env.from_iter(0..100_000)
        .inspect(move |number| {
            if number % 10_000 == 0 {
                assert_eq!(fs::read_to_string(&seen).unwrap(), "old");
                let names = names(&place);
                assert_eq!(names.len(), 2);
                assert!(names[0].starts_with(".sage-") && names[0].ends_with(".tmp"), "{names:?}");
            }
        })
        .sink_to(move |_| TextSink::new(into.clone()));
    env.run().unwrap();
    assert_eq!(names(&dir), ["out.txt"]);
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 100_000);
}

/// A job of numbers that fails, one way or another, at number 50,000, with a sink of each kind.
fn failing(dir: &Path, at: fn() -> Result<(), BoxError>) {
    for (name, old) in [("a.txt", "old"), ("a.jsonl", "old"), ("a.csv.gz", "old")] {
        fs::write(dir.join(name), old).unwrap();
    }
    let (text, json, csv) = (dir.join("a.txt"), dir.join("a.jsonl"), dir.join("a.csv.gz"));
    let env = Environment::local("fail");
    let [one, two, three] = env
        .from_iter(0..100_000_u32)
        .try_map(move |number| if number == 50_000 { at().map(|()| number) } else { Ok(number) })
        .tee();
    one.sink_to(move |_| TextSink::new(text.clone()));
    two.sink_to(move |_| JsonlSink::new(json.clone()));
    three.map(|number| (number,)).sink_to(move |_| CsvSink::new(csv.clone()));
    let report = failed(&env);
    assert_eq!(report.attached.len(), 0, "{report}");
    assert_eq!(names(dir), ["a.csv.gz", "a.jsonl", "a.txt"]);
    for name in names(dir) {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), "old");
    }
}

#[test]
fn a_failure_leaves_the_old_file_and_no_other() {
    failing(folder().path(), || Err("no".into()));
}

#[test]
fn a_panic_leaves_the_old_file_and_no_other() {
    failing(folder().path(), || panic!("no"));
}

/// A job without an end that writes numbers to a file, given back when the first is on its way.
fn endless(path: PathBuf) -> (Environment, JobHandle) {
    let (sender, first) = mpsc::channel();
    let env = Environment::local("endless");
    env.from_factory(|_| 0_u64..)
        .inspect(move |&number| {
            if number == 0 {
                sender.send(()).unwrap();
            }
        })
        .sink_to(move |_| JsonlSink::new(path.clone()))
        .named("file");
    let job = env.submit().unwrap();
    first.recv().unwrap();
    (env, job)
}

#[test]
fn a_cancel_leaves_nothing() {
    let dir = folder();
    let (_env, job) = endless(dir.path().join("out.jsonl"));
    job.cancel();
    let error = job.wait().unwrap_err();
    assert_eq!(error.report().unwrap().outcome, Outcome::Cancelled);
    assert!(names(&dir).is_empty());
}

#[test]
fn a_drain_leaves_a_complete_file() {
    let dir = folder();
    let path = dir.path().join("out.jsonl.gz");
    let (_env, job) = endless(path.clone());
    job.drain();
    let report = job.wait().unwrap();
    assert_eq!(names(&dir), ["out.jsonl.gz"]);
    let written = read(move || JsonlSource::<u64>::new(path.clone()));
    assert!(written.iter().copied().eq(0..written.len() as u64));
    assert_eq!(written.len() as u64, report.operator("file").unwrap().records_in);
}

#[test]
fn a_signal_leaves_what_was_written_under_another_name_and_the_report_says_so() {
    alone("writing::a_signal_leaves_what_was_written_under_another_name_and_the_report_says_so", "", |dir| {
        for name in ["out.jsonl", "out.jsonl.gz"] {
            let path = dir.join(name);
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let (_env, job) = endless(path.clone());
            let me = std::process::id().to_string();
            assert!(Command::new("sh").args(["-c", "kill -INT $0", &me]).status().unwrap().success());
            let error = job.wait().unwrap_err();
            let report = error.report().unwrap();
            assert_eq!(report.reason, StopReason::Signal(2));
            assert!(report.left.is_empty());

            let partial = dir.join(format!("{name}.partial"));
            assert_eq!(names(&dir), [name.to_owned(), format!("{name}.partial")]);
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(fs::metadata(&partial).unwrap().permissions().mode() & 0o777, 0o600);
            let note = format!("{} has what was written before the job was stopped", partial.display());
            assert_eq!(report.notes, std::slice::from_ref(&note));
            assert!(report.to_string().contains(&format!("  note:  {note}\n")), "{report}");
            // Whole lines, as the signal has drained the job.
            let packed = dir.join("read.jsonl.gz");
            let plain = dir.join("read.jsonl");
            let read_as = if name.ends_with(".gz") { packed } else { plain };
            fs::rename(&partial, &read_as).unwrap();
            let from = read_as.clone();
            let written = read(move || JsonlSource::<u64>::new(from.clone()));
            assert!(!written.is_empty() && written.iter().copied().eq(0..written.len() as u64));
            fs::remove_file(read_as).unwrap();
            fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn a_signal_before_anything_was_written_leaves_nothing() {
    alone("writing::a_signal_before_anything_was_written_leaves_nothing", "", |dir| {
        let path = dir.join("out.txt");
        let (opened, is_open) = mpsc::channel();
        let env = Environment::local("nothing");
        env.from_source(|_| Ticks::every(Duration::from_secs(3600)))
            .inspect(move |_| opened.send(()).unwrap())
            .filter(|_| false)
            .map(|tick| tick.number)
            .sink_to(move |_| TextSink::new(path.clone()));
        let job = env.submit().unwrap();
        is_open.recv().unwrap();
        let me = std::process::id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -TERM $0", &me]).status().unwrap().success());
        let error = job.wait().unwrap_err();
        assert!(error.report().unwrap().notes.is_empty());
        assert!(names(&dir).is_empty());
    });
}

#[test]
fn a_private_file_is_its_owners_alone() {
    let dir = folder();
    let targets = ["a.txt", "b.jsonl", "c.csv"].map(|name| dir.path().join(name));
    let [text, json, csv] = targets.clone();
    let env = Environment::local("private");
    let [one, two, three] = env.from_iter([1]).tee();
    one.sink_to(move |_| TextSink::new(text.clone()).private());
    two.sink_to(move |_| JsonlSink::new(json.clone()).private());
    three.map(|n| (n,)).sink_to(move |_| CsvSink::new(csv.clone()).private());
    env.run().unwrap();
    for target in targets {
        assert_eq!(fs::metadata(target).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_disk_that_is_full_leaves_nothing() {
    // A limit to the size of files, with its signal ignored, is the next best to a disk that is full.
    alone("writing::a_disk_that_is_full_leaves_nothing", "trap '' XFSZ; ulimit -f 8;", |dir| {
        let targets = [dir.join("a.txt"), dir.join("b.jsonl"), dir.join("c.csv")];
        for (index, path) in targets.into_iter().enumerate() {
            // Enough to fail while records are written, and so little that it fails at the end.
            for numbers in [200_000_u32, 2_000] {
                let into = path.clone();
                let env = Environment::local("full");
                let stream = env.from_iter(0..numbers);
                match index {
                    0 => drop(stream.sink_to(move |_| TextSink::new(into.clone()))),
                    1 => drop(stream.sink_to(move |_| JsonlSink::new(into.clone()))),
                    _ => drop(stream.map(|n| (n,)).sink_to(move |_| CsvSink::new(into.clone()))),
                }
                let cause = failure(&env);
                let OutputError::Write { path: told, source } = output_error(&cause) else { panic!("{cause}") };
                assert_eq!((told, source.kind()), (&path, io::ErrorKind::FileTooLarge));
                assert!(names(&dir).is_empty());
            }
        }
    });
}

#[test]
fn a_device_that_is_full_fails_and_stays() {
    for numbers in [100_000_u32, 1] {
        let env = Environment::local("full");
        let [one, two, three] = env.from_iter(0..numbers).tee();
        one.sink_to(|_| TextSink::new("/dev/null"));
        two.sink_to(|_| JsonlSink::new("/dev/full"));
        three.map(|n| (n,)).sink_to(|_| CsvSink::new("/dev/null"));
        let cause = failure(&env);
        let OutputError::Write { path, source } = output_error(&cause) else { panic!("{cause}") };
        assert_eq!((path.as_path(), source.kind()), (Path::new("/dev/full"), io::ErrorKind::StorageFull));
    }
    let env = Environment::local("full");
    env.from_iter([(1,)]).sink_to(|_| CsvSink::new("/dev/full"));
    assert!(matches!(output_error(&failure(&env)), OutputError::Write { .. }));
    assert!(!fs::metadata("/dev/full").unwrap().is_file());
}

#[test]
fn a_target_that_cannot_be_is_refused_before_the_first_record() {
    let dir = folder();
    fs::create_dir(dir.path().join("folder.txt")).unwrap();
    let refused = |name: &str| {
        let path = dir.path().join(name);
        let env = Environment::local("refused").inline();
        env.from_iter([1]).inspect(|_| panic!("a record")).sink_to(move |_| TextSink::new(path.clone()));
        failure(&env)
    };
    assert!(matches!(output_error(&refused("folder.txt")), OutputError::Folder { .. }));
    assert!(matches!(output_error(&refused("a.txt.zst")), OutputError::Compression { .. }));
    let cause = refused("missing/a.txt");
    assert!(matches!(output_error(&cause), OutputError::Create { .. }));
    assert!(cause.message.contains("missing/a.txt"), "{}", cause.message);
}

#[test]
fn a_folder_that_goes_away_fails_the_job() {
    let dir = folder();
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let path = place.join("a.txt");
    let env = Environment::local("gone").inline();
    let (folder, target) = (place.clone(), path.clone());
    env.from_iter([1])
        .try_map(move |_| fs::remove_dir_all(&folder).and(Err::<u8, _>(io::Error::other("and a failure"))))
        .sink_to(move |_| TextSink::new(target.clone()));
    assert_eq!(failure(&env).message, "and a failure");

    fs::create_dir(&place).unwrap();
    let env = Environment::local("gone").inline();
    env.from_iter([1])
        .inspect(move |_| fs::remove_dir_all(&place).unwrap())
        .sink_to(move |_| TextSink::new(path.clone()));
    let report = failed(&env);
    let cause = report.first_cause.as_ref().unwrap();
    assert!(matches!(output_error(cause), OutputError::Rename { .. }));
    assert_eq!(cause.place().to_string(), "operator `sink-1`, while finishing");
    assert_eq!(report.attached.len(), 0, "{report}");
}

/// Where the target has become a folder meanwhile, the rename fails, and the last fault is told in full.
#[test]
fn a_rename_that_fails_fails_the_job_which_is_clean() {
    for kind in ["a.txt", "a.jsonl.gz", "a.csv"] {
        let dir = folder();
        let path = dir.path().join(kind);
        let (in_the_way, into) = (path.clone(), path.clone());
        let env = Environment::local("in-the-way").inline();
        let numbers = env.from_iter([1_u8, 2]).inspect(move |&number| {
            if number == 2 {
                fs::create_dir(&in_the_way).unwrap();
            }
        });
        match kind {
            "a.txt" => drop(numbers.sink_to(move |_| TextSink::new(into.clone()))),
            "a.csv" => drop(numbers.map(|n| (n,)).sink_to(move |_| CsvSink::new(into.clone()))),
            _ => drop(numbers.sink_to(move |_| JsonlSink::new(into.clone()))),
        }
        let report = failed(&env);
        let OutputError::Rename { path: told, .. } = output_error(report.first_cause.as_ref().unwrap()) else {
            panic!("{report}")
        };
        assert_eq!((told, report.attached.len()), (&path, 0), "{report}");
        assert_eq!(names(&dir), [kind], "the temporary file is gone");
        assert!(fs::read_dir(&path).unwrap().next().is_none());
    }
}

#[test]
fn a_part_that_cannot_be_renamed_fails_the_job_and_the_other_stays() {
    let dir = folder();
    let path = dir.path().join("a.txt");
    let in_the_way = dir.path().join("a.part-00001-of-00002.txt");
    let env = Environment::local("parts").inline();
    let blocked = in_the_way.clone();
    env.from_iter(0..100)
        .inspect(move |&number| {
            if number == 50 {
                fs::create_dir(&blocked).unwrap();
            }
        })
        .sink_to(move |_| TextSink::new(path.clone()))
        .parallelism(2);
    let cause = failure(&env);
    let OutputError::Rename { path: told, .. } = output_error(&cause) else { panic!("{cause}") };
    assert_eq!(told, &in_the_way);
    // The other part is of a task of its own, which came to its end before.
    let part = fs::read_to_string(dir.path().join("a.part-00000-of-00002.txt")).unwrap();
    assert_eq!((part.lines().count(), names(&dir).len()), (50, 2));
}

#[test]
fn records_that_an_error_policy_lets_pass_do_not_make_a_file_with_a_gap() {
    let dir = folder();
    let path = dir.path().join("a.jsonl");
    let into = path.clone();
    let env = Environment::local("gap");
    env.from_iter([BTreeMap::from([((1, 2), 3)]), BTreeMap::new()])
        .sink_to(move |_| JsonlSink::new(into.clone()))
        .on_error(ErrorPolicy::skip());
    assert!(matches!(output_error(&failure(&env)), OutputError::Incomplete { path: told } if *told == path));

    let path = dir.path().join("a.csv");
    let into = path.clone();
    let env = Environment::local("gap");
    env.from_iter([vec![1, 2], vec![1]]).sink_to(move |_| CsvSink::new(into.clone())).on_error(ErrorPolicy::skip());
    assert!(matches!(output_error(&failure(&env)), OutputError::Incomplete { path: told } if *told == path));
    assert!(names(&dir).is_empty());
}

#[test]
fn a_link_and_permissions_stay() {
    let dir = folder();
    let fresh = dir.path().join("fresh.txt");
    let into = fresh.clone();
    let env = Environment::local("fresh");
    env.from_iter(["new"]).sink_to(move |_| TextSink::new(into.clone()));
    env.run().unwrap();
    let usual = put(&dir, "usual.txt", "as any program makes it");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&fresh), mode(&usual));

    let path = put(&dir, "real.txt", "old");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let link = dir.path().join("link.txt");
    symlink("real.txt", &link).unwrap();
    let env = Environment::local("link");
    let into = link.clone();
    env.from_iter(["new"]).sink_to(move |_| TextSink::new(into.clone()));
    env.run().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_link_that_leads_nowhere_yet_is_followed_and_one_that_leads_to_itself_is_refused() {
    let dir = folder();
    fs::create_dir(dir.path().join("place")).unwrap();
    let [link, there] = ["link.txt", "place/there.txt"].map(|name| dir.path().join(name));
    symlink("other.txt", &link).unwrap();
    symlink("place/there.txt", dir.path().join("other.txt")).unwrap();
    let into = link.clone();
    let env = Environment::local("link");
    env.from_iter(["new"]).sink_to(move |_| TextSink::new(into.clone()));
    env.run().unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(there).unwrap(), "new\n");

    let path = dir.path().join("loop.txt");
    symlink("loop.txt", &path).unwrap();
    let env = Environment::local("loop");
    env.from_iter(["new"]).sink_to(move |_| TextSink::new(path.clone()));
    assert!(matches!(output_error(&failure(&env)), OutputError::Create { .. }));
}

#[test]
fn records_a_format_cannot_hold_fail_the_job() {
    let dir = folder();
    let path = dir.path().join("a.jsonl");
    let env = Environment::local("unfit");
    env.from_iter([BTreeMap::from([((1, 2), 3)])]).sink_to(move |_| JsonlSink::new(path.clone()));
    let cause = failure(&env);
    assert!(matches!(output_error(&cause), OutputError::Record { .. }), "{cause}");
    assert!(cause.message.contains("key must be a string"), "{cause}");

    let path = dir.path().join("a.csv");
    let env = Environment::local("unfit");
    env.from_iter([vec![1, 2], vec![1]]).sink_to(move |_| CsvSink::new(path.clone()));
    let cause = failure(&env);
    assert!(matches!(output_error(&cause), OutputError::Record { .. }), "{cause}");
    assert!(cause.message.contains("it has 1 fields, and the first record 2"), "{cause}");

    let path = dir.path().join("b.csv");
    let env = Environment::local("unfit");
    env.from_iter([(1,)]).sink_to(move |_| CsvSink::new(path.clone()).delimiter(b'"'));
    assert!(matches!(output_error(&failure(&env)), OutputError::Option { option: "delimiter", .. }));
    assert!(names(&dir).is_empty());
}

#[test]
fn csv_names_its_fields_unless_told_otherwise() {
    #[derive(Clone, Serialize)]
    struct Size {
        name: &'static str,
        bytes: Option<u64>,
    }
    let dir = folder();
    for (headers, expected) in [(true, "name;bytes\n\"a;b\";\n"), (false, "\"a;b\";\n")] {
        let path = dir.path().join("a.csv");
        let env = Environment::local("csv");
        let into = path.clone();
        env.from_iter([Size { name: "a;b", bytes: None }])
            .sink_to(move |_| CsvSink::new(into.clone()).headers(headers).delimiter(b';'));
        env.run().unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), expected);
    }
}

#[test]
fn a_stream_without_records_makes_an_empty_file() {
    let dir = folder();
    let (text, csv) = (dir.path().join("a.txt.gz"), dir.path().join("a.csv"));
    let env = Environment::local("empty");
    let (one, two) = (text.clone(), csv.clone());
    env.from_iter(0..0).sink_to(move |_| TextSink::new(one.clone()));
    env.from_iter(Vec::<(u8,)>::new()).sink_to(move |_| CsvSink::new(two.clone()));
    env.run().unwrap();
    assert!(read(move || TextSource::new(text.clone())).is_empty());
    assert!(read(move || CsvSource::<(u8,)>::new(csv.clone())).is_empty());
}

#[test]
fn a_pipe_is_written_in_place_and_flushed_before_a_wait() {
    let dir = folder();
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let env = Environment::local("pipe");
    let into = path.clone();
    env.from_source(|_| Ticks::every(Duration::from_secs(3600)))
        .map(|tick| (tick.number, "tick"))
        .sink_to(move |_| CsvSink::new(into.clone()));
    let job = env.submit().unwrap();
    // Opening waits for the sink, and the line for its flush.
    let mut pipe = BufReader::new(File::open(&path).unwrap());
    let mut line = String::new();
    pipe.read_line(&mut line).unwrap();
    assert_eq!(line, "0,tick\n");
    job.drain();
    job.wait().unwrap();
    assert_eq!(pipe.read_line(&mut line).unwrap(), 0);
    assert_eq!(names(&dir), ["pipe"]);
}
