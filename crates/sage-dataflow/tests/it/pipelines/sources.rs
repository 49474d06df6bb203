//! The sources.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sage::{
    BoxError, CloseContext, Environment, Line, Next, Origin, RetriesExhausted, Retry, Source, SourceContext,
    WhileOpening,
};

use crate::leaks::leak_free;
use crate::probes::{Journal, failed, sorted};

#[test]
fn a_factory_gives_each_replica_an_iterator_of_its_own() {
    leak_free(|_| {
        let env = Environment::local("factory");
        let out = env.from_factory(|replica| [replica, replica + 10]).parallelism(3).collect();
        env.run().unwrap();
        assert_eq!(sorted(out.take()), [0, 1, 2, 10, 11, 12]);
    });
}

#[test]
fn more_replicas_than_there_can_be_are_refused_before_any_is_made() {
    let refused = |declare: &dyn Fn(&Environment, usize)| {
        for replicas in [65_537, usize::MAX] {
            let env = Environment::local("many");
            declare(&env, replicas);
            let error = env.run().unwrap_err().to_string();
            assert!(error.contains(&format!("the parallelism is {replicas}; it may be 1 to 65536")), "{error}");
        }
    };
    refused(&|env, replicas| drop(env.from_factory(|_| [1]).parallelism(replicas).sink(|_| {})));
    refused(&|env, replicas| drop(env.from_iter([1]).map(|n| n).parallelism(replicas).sink(|_| {})));
    refused(&|env, replicas| drop(env.from_iter([1]).rebalance(replicas).sink(|_| {})));
    refused(&|env, replicas| drop(env.from_iter([1]).broadcast(replicas).sink(|_| {})));
    refused(&|env, replicas| drop(env.from_iter([1]).key_by(|n| *n).partition(replicas).sink(|_| {})));
}

#[test]
fn a_generator_ends_with_none() {
    leak_free(|_| {
        let env = Environment::local("generator");
        let mut next = 0;
        let out = env
            .from_generator(move || {
                next += 1;
                Ok::<_, io::Error>((next <= 3).then_some(next))
            })
            .collect();
        env.run().unwrap();
        assert_eq!(out.take(), [1, 2, 3]);
    });
}

#[test]
fn a_generator_that_fails_names_the_source_and_the_record_and_keeps_its_error() {
    leak_free(|_| {
        for panics in [false, true] {
            let env = Environment::local("generator");
            let mut next = 0;
            env.from_generator(move || {
                next += 1;
                assert!(next <= 2 || !panics, "line dead");
                if next > 2 { Err(io::Error::new(io::ErrorKind::TimedOut, "line dead")) } else { Ok(Some(next)) }
            })
            .named("feed")
            .map(|n| n)
            .sink(|_| {});
            let report = failed(env.run());
            let cause = report.first_cause.as_ref().unwrap();
            assert_eq!(cause.place().to_string(), "operator `feed`, record 3");
            if let Some(error) = &cause.error {
                assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::TimedOut);
            }
            let feed = report.operator("feed").unwrap();
            assert_eq!((feed.records_in, feed.records_out, feed.failed), (2, 2, 1), "{report}");
            assert_eq!(report.operator("map-1").unwrap().records_in, 2);
        }
    });
}

/// Counts down, idling between records, and notes its hooks.
struct Countdown {
    left: u64,
    idles: bool,
    journal: Journal,
}

impl Source for Countdown {
    type Item = u64;

    fn open(&mut self, cx: &SourceContext) -> Result<(), BoxError> {
        self.journal.note(format_args!("open {}/{}", cx.replica, cx.parallelism));
        Ok(())
    }

    fn next(&mut self, cx: &SourceContext) -> Result<Next<u64>, BoxError> {
        self.idles = !self.idles;
        if self.idles {
            assert!(cx.wait(Duration::from_micros(10)), "nothing interrupts this job");
            return Ok(Next::Idle);
        }
        if self.left == 0 {
            return Ok(Next::End);
        }
        self.left -= 1;
        Ok(Next::Record(self.left))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.journal.note(format_args!("close: {}", cx.reason()));
        Ok(())
    }
}

#[test]
fn a_source_of_ones_own_is_opened_and_closed_once_per_replica() {
    leak_free(|_| {
        let env = Environment::local("countdown");
        let journal = Journal::new();
        let of_source = journal.clone();
        let out = env
            .from_source(move |_| Countdown { left: 3, idles: false, journal: of_source.clone() })
            .parallelism(2)
            .collect();
        env.run().unwrap();
        assert_eq!(sorted(out.take()), [0, 0, 1, 1, 2, 2]);
        let expected = ["close: end of input", "close: end of input", "open 0/2", "open 1/2"];
        assert_eq!(sorted(journal.events()), expected);
    });
}

/// The texts of all lines a pattern matches, or the failure.
fn read(pattern: &Path) -> Result<Vec<Line>, String> {
    let env = Environment::local("lines");
    let lines = env.read_lines(pattern.to_str().expect("a temporary path is UTF-8")).collect();
    match env.run() {
        Ok(_) => Ok(lines.take()),
        Err(error) => Err(error.report().and_then(|report| report.first_cause.clone()).expect("it failed").message),
    }
}

#[test]
fn replicas_share_the_lines_of_large_files() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        for (name, lines) in [("a", 400_000), ("b", 10), ("c", 250_000)] {
            let text: String = (0..lines).map(|n| format!("{name} {n:x}\n")).collect();
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut whole = read(&dir.path().join("*")).unwrap();
        let env = Environment::local("lines");
        let lines = env.read_lines(dir.path().join("*").to_str().unwrap()).parallelism(3);
        let shared = lines.map(|line| (std::thread::current().id(), line)).collect();
        env.run().unwrap();
        let (threads, mut shared): (HashSet<_>, Vec<_>) = shared.take().into_iter().unzip();
        assert_eq!(threads.len(), 3);
        let in_order = |line: &Line| (line.path.clone(), line.number);
        shared.sort_by_key(in_order);
        whole.sort_by_key(in_order);
        assert_eq!(shared.len(), 650_010);
        assert!(shared == whole);
    });
}

#[test]
fn lines_come_file_by_file_with_their_numbers_and_without_their_ends() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.txt"), "one\r\ntwo\n\nfour without end").unwrap();
        fs::write(dir.path().join("a.txt"), "first\n").unwrap();
        fs::write(dir.path().join("empty.txt"), "").unwrap();
        fs::write(dir.path().join("other.md"), "not matched\n").unwrap();
        let lines = read(&dir.path().join("*.txt")).unwrap();
        let found = lines
            .iter()
            .map(|line| (line.path.file_name().unwrap().to_str().unwrap(), line.number, line.text.as_str()));
        let expected = [
            ("a.txt", 1, "first"),
            ("b.txt", 1, "one"),
            ("b.txt", 2, "two"),
            ("b.txt", 3, ""),
            ("b.txt", 4, "four without end"),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    });
}

#[test]
fn an_empty_file_and_a_lone_line_end_are_read_as_they_are() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        assert_eq!(read(&dir.path().join("empty")).unwrap(), []);
        fs::write(dir.path().join("line"), "\r\n\r").unwrap();
        let texts: Vec<_> = read(&dir.path().join("line")).unwrap().into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["", "\r"], "a carriage return belongs to a line end only before a newline");
    });
}

#[test]
fn a_pattern_without_a_match_fails_the_job_and_says_so() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let message = read(&dir.path().join("*.none")).unwrap_err();
        assert!(message.starts_with("no file matches `") && message.contains("*.none"), "{message}");
        let message = read(Path::new("a***")).unwrap_err();
        assert!(message.starts_with("`a***` is not a glob pattern"), "{message}");
    });
}

#[test]
fn a_line_that_is_not_utf8_fails_the_job_with_its_place() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bad"), b"fine\nbad \xff\n").unwrap();
        let message = read(&dir.path().join("bad")).unwrap_err();
        assert!(message.ends_with("bad:2: the line is not valid UTF-8"), "{message}");
    });
}

#[test]
fn a_file_that_cannot_be_read_fails_the_job_with_its_path() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("link.txt")).unwrap();
        let message = read(&dir.path().join("*.txt")).unwrap_err();
        assert!(message.starts_with("cannot read ") && message.contains("link.txt"), "{message}");
    });
}

#[test]
fn a_huge_file_is_read_lazily() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        let mut file = fs::File::create(&path).unwrap();
        writeln!(file, "first\nsecond").unwrap();
        // A hole of 1 TiB: reading it would neither end nor fit.
        file.set_len(1 << 40).unwrap();
        let env = Environment::local("huge");
        let lines = env.read_lines(path.to_str().unwrap()).take(2).map(|line| line.text).collect();
        env.run().unwrap();
        assert_eq!(lines.take(), ["first", "second"]);
    });
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endless");
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let message = read(&path).unwrap_err();
        assert!(message.ends_with("endless:1: the line is longer than 64 MiB"), "{message}");
    });
}

#[test]
fn a_source_reads_no_further_ahead_than_its_lanes_hold() {
    leak_free(|_| {
        let env = Environment::local("bounded").block_records(2).queue_blocks(2);
        let (read, written) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let most_ahead = Arc::new(AtomicUsize::new(0));
        let reads = read.clone();
        let items = (0..10_000_u64).inspect(move |_| {
            reads.fetch_add(1, Ordering::SeqCst);
        });
        let ahead = most_ahead.clone();
        env.from_iter(items).on_another_thread().sink(move |_| {
            let written = written.fetch_add(1, Ordering::SeqCst);
            let lead = read.load(Ordering::SeqCst).saturating_sub(written) as usize;
            ahead.fetch_max(lead, Ordering::SeqCst);
        });
        env.run().unwrap();
        // Two blocks of two records, the one being written and the one that waits for room.
        let most_ahead = most_ahead.load(Ordering::SeqCst);
        assert!(most_ahead <= 2 * 2 + 2, "{most_ahead} records ahead");
    });
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line_and_lone_carriage_returns_end_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "\u{FEFF}one\rtwo\u{85}\u{2028}three\r\n\u{FEFF}four").unwrap();
    let texts: Vec<_> = read(&dir.path().join("*")).unwrap().into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["one\rtwo\u{85}\u{2028}three", "\u{FEFF}four"]);
}

#[test]
fn a_file_whose_name_is_not_utf8_is_read_in_its_place() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    for name in [&b"a"[..], b"a\xFF", b"b"] {
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), [b'<', name[0], b'>']).unwrap();
    }
    let texts: Vec<_> = read(&dir.path().join("*")).unwrap().into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["<a>", "<a>", "<b>"]);
}

/// What the only cause of a job's failure says of its place: the record and the phase.
fn place(report: &sage::JobReport) -> (Option<u64>, Option<String>) {
    match &report.first_cause.as_ref().expect("it has failed").origin {
        Origin::Operator { record, phase, .. } => (*record, phase.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_no_record() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1\n2\n").unwrap();
        // A link that leads to itself is listed, and cannot be opened.
        std::os::unix::fs::symlink("b", dir.path().join("b")).unwrap();
        let env = Environment::local("lines");
        env.read_lines(dir.path().join("*").to_str().unwrap()).sink(|_| {});
        let report = failed(env.run());
        assert_eq!(place(&report), (None, Some("opening".to_owned())), "{report}");
        assert_eq!((report.operators[0].records_in, report.operators[0].failed), (2, 0));
    });
}

/// Fails as often as it is told before each record, and counts how often it is opened and closed.
struct Flaky {
    left: Vec<u32>,
    opening: bool,
    journal: Journal,
}

impl Source for Flaky {
    type Item = usize;

    fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
        self.journal.note("open");
        Ok(())
    }

    fn next(&mut self, _cx: &SourceContext) -> Result<Next<usize>, BoxError> {
        let Some(failures) = self.left.last_mut() else { return Ok(Next::End) };
        if *failures > 0 {
            *failures -= 1;
            self.journal.note("fails");
            let error = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Err(if self.opening { WhileOpening::new(error).into() } else { error.into() });
        }
        self.left.pop();
        Ok(Next::Record(self.left.len()))
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.journal.note("close");
        Ok(())
    }
}

fn at_once(attempts: u32) -> Retry {
    Retry::up_to(attempts).backoff(Duration::from_millis(1), Duration::from_millis(1))
}

#[test]
fn a_source_is_asked_again_after_a_failure_without_being_opened_again() {
    leak_free(|_| {
        let journal = Journal::new();
        let env = Environment::local("flaky");
        let told = journal.clone();
        let out = env
            .from_source(move |_| Flaky { left: vec![2, 0, 2, 1], opening: false, journal: told.clone() })
            .retry(at_once(3))
            .named("flaky")
            .collect();
        let report = env.run().unwrap();
        assert_eq!(out.take(), [3, 2, 1, 0]);
        let flaky = report.operator("flaky").unwrap();
        assert_eq!((flaky.retries, flaky.records_out, flaky.failed), (5, 4, 0));
        assert_eq!(["open", "fails", "close"].map(|event| journal.count(event)), [1, 5, 1]);
    });
}

#[test]
fn a_source_that_fails_as_often_as_it_may_be_asked_fails_the_job_with_its_error() {
    for opening in [false, true] {
        leak_free(|_| {
            let journal = Journal::new();
            let env = Environment::local("flaky");
            let told = journal.clone();
            env.from_source(move |_| Flaky { left: vec![9, 0], opening, journal: told.clone() })
                .retry(at_once(3))
                .sink(|_| {});
            let report = failed(env.run());
            let expected = if opening { (None, Some("opening".to_owned())) } else { (Some(2), None) };
            assert_eq!(place(&report), expected);
            let error = report.first_cause.unwrap().error.unwrap();
            let Some(RetriesExhausted { attempts: 3, source }) = error.downcast_ref() else { panic!("{error:?}") };
            assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(["fails", "close"].map(|event| journal.count(event)), [3, 1]);
        });
    }
}

#[test]
fn a_source_is_not_asked_again_after_an_error_that_the_retry_is_not_for() {
    leak_free(|_| {
        let journal = Journal::new();
        let env = Environment::local("flaky");
        let told = journal.clone();
        let timed_out = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        env.from_source(move |_| Flaky { left: vec![9], opening: false, journal: told.clone() })
            .retry(at_once(3).when(move |error| error.downcast_ref().is_some_and(timed_out)))
            .sink(|_| {});
        let report = failed(env.run());
        assert!(report.first_cause.unwrap().error.unwrap().is::<io::Error>());
        assert_eq!(journal.count("fails"), 1);
    });
}

#[test]
fn contract_27_a_drain_and_a_cancel_end_the_wait_of_a_source_that_is_asked_again() {
    for drain in [true, false] {
        leak_free(|_| {
            let journal = Journal::new();
            let env = Environment::local("flaky");
            let (told, hour) = (journal.clone(), Duration::from_secs(3600));
            let out = env
                .from_source(move |_| Flaky { left: vec![1, 0], opening: false, journal: told.clone() })
                .retry(Retry::up_to(2).backoff(hour, hour))
                .collect();
            let job = env.submit().unwrap();
            journal.await_events("fails", 1);
            if drain {
                job.drain();
                job.wait().unwrap();
                assert_eq!(out.take(), [1]);
            } else {
                job.cancel();
                job.wait().unwrap_err();
            }
            assert_eq!(journal.count("close"), 1);
        });
    }
}

#[test]
fn what_a_source_of_lines_could_not_read_is_not_passed_over_when_it_is_asked_again() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"1\n\xFF\n3\n").unwrap();
        let env = Environment::local("lines");
        let out = env.read_lines(dir.path().join("*").to_str().unwrap()).retry(at_once(3)).collect();
        let report = failed(env.run());
        assert!(report.first_cause.unwrap().to_string().contains("a:2: the line is not valid UTF-8"));
        assert_eq!(out.take().len(), 1);
    });
}
