//! The example `logs` as its users meet it: a process with arguments, output, files and an exit code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{folder, gzip, names, put, zstd};

/// The built example: beside the folder of this test's own executable.
fn logs() -> Command {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().and_then(Path::parent).unwrap().join("examples/logs");
    assert!(built.exists(), "`{}` is not built: cargo build -p sage-connectors --example logs", built.display());
    let mut command = Command::new(built);
    // A test run started in the background ignores SIGINT, and so would its children.
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        })
    };
    command
}

/// Runs what must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(error.is_empty(), "no progress is drawn and nothing logged where nobody watches: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The records of a file of JSON lines.
fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `path:line` and a member of each record.
fn told(path: &Path, member: &str) -> Vec<String> {
    let told = |record: &Value| {
        let line = record.get("record").unwrap_or(record);
        let (path, number) = (line["path"].as_str().unwrap(), &line["line"]);
        format!("{path}:{number} {}", record.pointer(member).unwrap().as_str().unwrap())
    };
    records(path).iter().map(told).collect()
}

fn changed(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

/// Every format, packed and not, with everything that can be wrong with a line.
fn tree() -> TempDir {
    let dir = folder();
    fs::create_dir_all(dir.path().join("web")).unwrap();
    fs::create_dir_all(dir.path().join(".git")).unwrap();
    let app = b"2000-10-10T10:00:00Z INFO up\n\
        2000-10-10T10:01:00Z ERROR down\n\
        java.lang.Error: down\n\
        \tat Main.run(Main.java:10)\n\
        Caused by: nothing\n\
        2000-10-10 10:59:59,999 WARNING slow\n\
        2000-10-10T12:30:00+00:00 INFO caf\xe9\n\
        2000-10-10T12:30:00+02:00 ERROR in another zone, and late by nothing\n\
        2000-10-10T11:30:00Z ERROR again\n\
        2000-10-10T12:00:59Z INFO a window later\n\
        2000-10-10T11:59:59Z INFO still in time: the watermark is a second before its window's end\n\
        2000-10-10T12:01:00Z INFO the watermark is at the end of the window before\n\
        2000-10-10T11:59:59Z INFO late\n\
        ends with caf\xe9\n";
    put(&dir, "app.log", app);
    let syslog = put(
        &dir,
        "syslog.1.gz",
        gzip("Oct 10 10:30:00 host sshd[7]: session opened\nOct 10 10:30:01 host cron[8]: x\n"),
    );
    changed(&syslog, 971_222_400);
    let access = "1.2.3.4 - - [10/Oct/2000:04:30:00 -0700] \"GET / HTTP/1.1\" 404 7\n\
        1.2.3.4 - - [10/Oct/2000:04:30:01 -0700] \"GET / HTTP/1.1\" 200 7\n\
        1.2.3.4 - - [10/Oct/2000:04:30:02 -0700] \"GET / HTTP/1.1\" 200 7\n";
    put(&dir, "web/access.log.zst", zstd(access));
    let dpkg = "2000-10-10 10:00:00 status installed dpkg\nupdate-alternatives 2000-10-10 10:00:00: run\n\
        971172000 tick\nts=1971172000123 tock\n";
    put(&dir, "dpkg.log", dpkg);
    put(&dir, "binary", b"\0\0\0\n");
    put(&dir, "old.xz", b"packed");
    put(&dir, "cut.gz", &gzip("2000-10-10T10:00:00Z INFO up\n".repeat(9))[..20]);
    put(&dir, ".git/hidden.log", b"2000-10-10T10:00:00Z INFO hidden\n");
    dir
}

#[test]
fn a_tree_of_logs_is_counted_and_what_is_wrong_with_it_is_told() {
    let dir = tree();
    let (out, report) = (dir.path().join("out"), dir.path().join("out/report.json"));
    let mut command = logs();
    command.arg(dir.path()).args(["--top", "2", "--out"]).arg(&out).arg("--report").arg(&report);
    let text = run(&mut command);

    let windows = records(&out.join("windows.jsonl"));
    let window = |start: &str, end: &str, lines: u64, terms: u64, top: &[(&str, u64)]| {
        let top: Vec<_> = top.iter().map(|(term, lines)| json!({"term": term, "lines": lines})).collect();
        let (start, end) = (format!("2000-10-10T{start}:00:00Z"), format!("2000-10-10T{end}:00:00Z"));
        json!({"start": start, "end": end, "lines": lines, "terms": terms, "top": top})
    };
    assert_eq!(
        windows,
        [
            window("10", "11", 7, 6, &[("ERROR", 2), ("INFO", 1)]),
            window("11", "12", 5, 4, &[("200", 2), ("404", 1)]),
            window("12", "13", 2, 1, &[("INFO", 2)]),
        ]
    );
    assert!(text.starts_with("2000-10-10T10:00:00Z        7   ERROR 2 INFO 1 and 4 more\n2000-10-10T11"), "{text}");

    assert_eq!(
        records(&out.join("late.jsonl")),
        [json!({"time": "2000-10-10T11:59:59Z", "term": "INFO", "path": "app.log", "line": 13,
            "text": "2000-10-10T11:59:59Z INFO late"})]
    );
    let mut dead = told(&out.join("dead-letters.jsonl"), "/errors/0");
    dead.sort();
    assert_eq!(
        dead,
        [
            "app.log:14 not valid UTF-8 after byte 13",
            "app.log:3 no time at its beginning",
            "app.log:4 no time at its beginning",
            "app.log:5 no time at its beginning",
            "app.log:7 not valid UTF-8 after byte 34",
            "dpkg.log:2 no time at its beginning",
            "dpkg.log:3 no time at its beginning",
            "dpkg.log:4 no time at its beginning",
        ]
    );
    let mut recovered = told(&out.join("recovered.jsonl"), "/how");
    recovered.sort();
    assert_eq!(
        recovered,
        [
            "app.log:4 continuation",
            "app.log:5 continuation",
            "app.log:7 not-utf8",
            "dpkg.log:2 time-inside",
            "dpkg.log:4 time-inside",
        ]
    );
    let recovered = records(&out.join("recovered.jsonl"));
    let of = |path: &str, line: u64| {
        let found = recovered.iter().find(|record| record["path"] == path && record["line"] == line).unwrap();
        (found["time"].as_str().unwrap(), found["term"].as_str().unwrap())
    };
    assert_eq!(of("app.log", 4), ("2000-10-10T10:01:00Z", "at"), "the time of the line before the trace");
    assert_eq!(of("app.log", 7), ("2000-10-10T12:30:00Z", "INFO"));
    assert_eq!(of("dpkg.log", 4), ("2032-06-18T11:46:40.123Z", "tock"));
    let mut still_bad = told(&out.join("still-bad.jsonl"), "/errors/0");
    still_bad.sort();
    let why = "no time anywhere in it, and it continues no line that has one";
    assert_eq!(still_bad, ["app.log:14", "app.log:3", "dpkg.log:3"].map(|place| format!("{place} {why}")));

    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    for (member, expected) in [
        ("files", 6),
        ("passed_over", 3),
        ("lines", 23),
        ("parsed", 15),
        ("late", 1),
        ("malformed", 8),
        ("windows", 3),
        ("recovered", 5),
        ("still_bad", 3),
    ] {
        assert_eq!(report[member], expected, "{member}: {text}");
    }
    for job in ["job", "replay"] {
        assert_eq!((&report[job]["outcome"], &report[job]["cleanliness"]), (&"succeeded".into(), &"clean".into()));
    }
    for expected in [
        "`binary`: it is not text",
        "`old.xz`: `.xz` is not unpacked",
        "the compressed file ends early",
        "        14 counted, in 3 windows: ",
        "         3 still bad: ",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing:\n{text}");
    }
    let files =
        ["dead-letters.jsonl", "late.jsonl", "recovered.jsonl", "report.json", "still-bad.jsonl", "windows.jsonl"];
    assert_eq!(names(&out), files);

    let before = fs::read_to_string(out.join("windows.jsonl")).unwrap();
    run(&mut command);
    assert_eq!(fs::read_to_string(out.join("windows.jsonl")).unwrap(), before, "its own files are not read");
}

/// A line of a generated log, and when it was written, in seconds.
type Written = (i64, &'static str);

/// Lines that go on by small steps and now and then back, by more than is allowed.
fn generated(seed: &mut u64, lines: usize) -> Vec<Written> {
    let mut next = |below: u64| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    };
    let mut now = 1_500_000_000 + next(3_000) as i64;
    let line = |_| {
        now += next(4) as i64;
        let back = if next(10) == 0 { next(400) } else { next(60) };
        (now - back as i64, ["alpha", "beta", "gamma", "delta", "epsilon"][next(5).min(next(5)) as usize])
    };
    (0..lines).map(line).collect()
}

/// What the job must find: the lines of all files in the order of the latest time in their file so far, cut into
/// windows by a watermark that is a minute behind the latest time of all.
fn oracle(files: &[Vec<Written>], window: i64) -> (BTreeMap<i64, BTreeMap<&'static str, u64>>, Vec<String>) {
    let mut lines = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let mut latest = i64::MIN;
        for (line, &(time, term)) in file.iter().enumerate() {
            latest = latest.max(time);
            lines.push((latest, number, line + 1, time, term));
        }
    }
    lines.sort_by_key(|&(turn, number, line, ..)| (turn, number, line));
    let (mut windows, mut late) = (BTreeMap::<i64, BTreeMap<_, u64>>::new(), Vec::new());
    let mut watermark = i64::MIN;
    for (_, number, line, time, term) in lines {
        let start = time.div_euclid(window) * window;
        if start + window <= watermark {
            late.push(format!("{number}.log:{line} {term}"));
        } else {
            *windows.entry(start).or_default().entry(term).or_default() += 1;
        }
        watermark = watermark.max(time - 60);
    }
    (windows, late)
}

#[test]
fn the_windows_of_many_files_are_those_of_an_oracle() {
    const WINDOW: i64 = 120;
    let dir = folder();
    let mut seed = 7;
    let files: Vec<_> = [3_000, 1, 6_000, 0, 4_000].map(|lines| generated(&mut seed, lines)).into();
    for (number, lines) in files.iter().enumerate() {
        let mut text = String::new();
        for (time, term) in lines {
            writeln!(text, "@{time}.5 {term} line").unwrap();
        }
        put(&dir, &format!("{number}.log"), text.replace('@', "<13>"));
    }
    let out = dir.path().join("out");
    run(logs().arg(dir.path()).args(["--by", "word", "--window", "2m", "--top", "3", "--out"]).arg(&out));

    let (windows, late) = oracle(&files, WINDOW);
    assert!(windows.len() > 50 && late.len() > 50, "{} windows, {} late: a test of nothing", windows.len(), late.len());
    let expected: Vec<_> = windows
        .values()
        .map(|terms| {
            let mut top: Vec<_> = terms.iter().map(|(term, lines)| (*lines, *term)).collect();
            top.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
            let lines: u64 = terms.values().sum();
            (
                lines,
                terms.len() as u64,
                top.into_iter().take(3).map(|(n, term)| (term.to_owned(), n)).collect::<Vec<_>>(),
            )
        })
        .collect();
    let found: Vec<_> = records(&out.join("windows.jsonl"))
        .iter()
        .map(|window| {
            let top = window["top"].as_array().unwrap().iter();
            let top = top.map(|term| (term["term"].as_str().unwrap().to_owned(), term["lines"].as_u64().unwrap()));
            (window["lines"].as_u64().unwrap(), window["terms"].as_u64().unwrap(), top.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(told(&out.join("late.jsonl"), "/term"), late);
}

#[test]
fn wrong_arguments_end_2_and_say_what_to_do() {
    let empty = folder();
    let refused = |arguments: &[&str]| -> (Option<i32>, String) {
        let Output { status, stderr, .. } = logs().current_dir(empty.path()).args(arguments).output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    };
    for (arguments, expected) in [
        (&["missing"][..], "cannot be read: No such file or directory (os error 2); give a folder of logs"),
        (&[], "the following required arguments were not provided"),
        (&[".", "--top", "0"], "0 is not in 1..=1000"),
        (&[".", "--window", "0s"], "a window has 1ms to 100 years"),
        (&[".", "--window", "soon"], "expected number"),
        (&[".", "--by", "colour"], "possible values: auto, level"),
        (&[".", "--offset", "2"], "not an offset such as +02:00"),
    ] {
        let (code, error) = refused(arguments);
        assert!(
            code == Some(2) && error.contains(expected),
            "{arguments:?} {code:?}, {expected:?} is missing:\n{error}"
        );
    }
    assert!(names(empty.path()).is_empty(), "nothing is made before the arguments are right");

    let (code, error) = refused(&["."]);
    assert_eq!((code, &*error), (Some(1), "error: there is no file to read in `.`; give a folder of logs\n"));
    put(&empty, "a.log", "2000-10-10T10:00:00Z INFO up\n");
    let (code, error) = refused(&[".", "--out", "a.log"]);
    assert!(code == Some(1) && error.contains("choose another with --out"), "{code:?} {error}");
}

/// Standard output is full long before the last window is printed, and is not read before the drain has begun, so the
/// signal strikes in the middle however slowly it arrives.
#[test]
fn a_signal_in_the_middle_ends_130_and_leaves_the_files_as_they_were() {
    const LINES: i64 = 200_000;
    let dir = folder();
    let text = (0..LINES).fold(String::new(), |mut text, n| {
        writeln!(text, "{} INFO up\nno time", 1_000_000_000 + n).unwrap();
        text
    });
    put(&dir, "a.log", text);
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("windows.jsonl"), "old").unwrap();
    let report = dir.path().join("report.json");
    let mut child = logs()
        .arg(dir.path())
        .args(["-vv", "--window", "1s", "--out"])
        .arg(&out)
        .arg("--report")
        .arg(&report)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    assert_eq!(text, "2001-09-09T01:46:40Z        1   INFO 1\n");
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: sends a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    log.by_ref().find(|line| line.contains("draining")).expect("the drain is logged");
    let rest = std::thread::spawn(move || log.count());
    stdout.read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    rest.join().unwrap();

    assert_eq!(status.code(), Some(130), "{text}");
    assert!(
        text.ends_with("stopped by a signal before the end: the files named above are as they were before\n"),
        "{text}"
    );
    assert_eq!(names(&out), ["dead-letters.jsonl.partial", "windows.jsonl", "windows.jsonl.partial"]);
    assert_eq!(fs::read_to_string(out.join("windows.jsonl")).unwrap(), "old");
    assert!(text.contains("windows.jsonl.partial has what was written before the job was stopped\n"), "{text}");
    let letters = fs::metadata(out.join("dead-letters.jsonl.partial")).unwrap();
    assert_eq!(letters.permissions().mode() & 0o777, 0o600);
    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    let job = &report["job"];
    assert_eq!(
        (&job["outcome"], &job["cleanliness"], &job["reason"]["signal"]),
        (&"cancelled".into(), &"clean".into(), &libc::SIGINT.into())
    );
    let (read, parsed) = (report["lines"].as_i64().unwrap(), report["parsed"].as_i64().unwrap());
    assert!(read < 2 * LINES, "the signal came too late");
    let printed = text.lines().filter(|line| line.starts_with("2001-")).count() as i64;
    assert_eq!(printed, parsed, "each line that was read is in a window that was shown");
    assert_eq!(report["replay"], Value::Null);
}
