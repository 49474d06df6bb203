//! The sinks.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sage::{BoxError, Environment, OpenContext, Sink, WriteError};

use crate::leaks::leak_free;
use crate::probes::{CountingSink, failed, sorted};

#[test]
fn a_function_sink_sees_every_record_in_order() {
    leak_free(|_| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let env = Environment::local("sink");
        env.from_iter(0..5).sink(move |n| into.lock().unwrap().push(n));
        let report = env.run().unwrap();
        assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4]);
        let sink = report.operator("sink-1").unwrap();
        assert_eq!((sink.records_in, sink.records_out, sink.failed), (5, 5, 0));
    });
}

#[test]
fn a_sink_that_fails_names_itself_and_the_record() {
    leak_free(|_| {
        let env = Environment::local("sink");
        env.from_iter(0..5).try_sink(|n| if n == 3 { Err("disk full") } else { Ok(()) }).named("disk");
        let report = failed(env.run());
        assert_eq!(report.first_cause.unwrap().to_string(), "operator `disk`, record 4: disk full");
        let sink = report.operators.iter().find(|operator| operator.name == "disk").unwrap();
        assert_eq!((sink.records_in, sink.records_out, sink.failed), (4, 3, 1));
    });
}

#[test]
fn a_sink_struct_is_opened_flushed_finished_and_closed_once_per_replica() {
    leak_free(|_| {
        let env = Environment::local("sink");
        let sink = CountingSink::default();
        let counts = sink.counts.clone();
        env.from_iter(0..100_u64).sink_to(move |_| sink.clone()).parallelism(3);
        env.run().unwrap();
        assert_eq!((counts.opened(), counts.processed(), counts.finished(), counts.closed()), (3, 100, 3, 3));
        assert!(counts.flushed() >= 3, "every replica is flushed at the end of input");
    });
}

#[test]
fn a_sink_is_closed_once_per_replica_wherever_it_fails() {
    leak_free(|_| {
        for panics in [false, true] {
            for fail_in in ["open", "write", "flush", "finish", "close"] {
                let env = Environment::local("hooks");
                let sink = CountingSink { fail_in, panics, ..CountingSink::default() };
                let counts = sink.counts.clone();
                env.from_iter(0..100_u64).sink_to(move |_| sink.clone()).parallelism(3);
                let report = failed(env.run());
                let cause = report.first_cause.unwrap();
                assert!(cause.to_string().contains("sink-1"), "{cause}");
                assert_eq!(counts.opened(), counts.closed(), "fails in {fail_in}");
            }
        }
    });
}

#[test]
fn a_sink_factory_is_given_the_number_of_its_replica() {
    struct Numbered(usize, Arc<Mutex<Vec<(usize, usize, usize)>>>);
    impl Sink for Numbered {
        type In = u64;
        fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
            self.1.lock().unwrap().push((self.0, cx.replica, cx.parallelism));
            Ok(())
        }
        fn write(&mut self, _record: u64) -> Result<(), BoxError> {
            Ok(())
        }
    }
    leak_free(|_| {
        let env = Environment::local("sink");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        env.from_iter(0..10).map(|n| n).sink_to(move |replica| Numbered(replica, into.clone())).parallelism(2);
        env.run().unwrap();
        assert_eq!(sorted(seen.lock().unwrap().clone()), [(0, 0, 2), (1, 1, 2)]);
    });
}

#[test]
fn the_parallelism_of_a_sink_after_a_boundary_adds_no_hop() {
    leak_free(|_| {
        let env = Environment::local("sink");
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        env.from_iter(0..100)
            .on_another_thread()
            .sink(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .named("wide")
            .parallelism(4);
        assert!(env.explain().to_string().contains("2 chains, 5 tasks"), "{}", env.explain());
        env.run().unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 100);
    });
}

#[test]
fn lines_are_written_and_the_file_is_emptied_first() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.txt");
        fs::write(&path, "old contents that are longer than what follows").unwrap();
        let env = Environment::local("lines");
        env.from_collection(vec!["", "a", "b c"]).write_lines(&path).named("file");
        env.run().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "\na\nb c\n");
        env.run().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "\na\nb c\n", "a second run begins anew");
    });
}

#[test]
fn lines_of_an_empty_stream_make_an_empty_file() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let (ended, taken) = (dir.path().join("ended.txt"), dir.path().join("taken.txt"));
        let env = Environment::local("lines");
        env.from_iter(Vec::<u64>::new()).write_lines(&ended);
        env.from_iter(0_u64..).take(0).write_lines(&taken);
        env.run().unwrap();
        assert_eq!(fs::read_to_string(&ended).unwrap(), "");
        assert_eq!(fs::read_to_string(&taken).unwrap(), "");
    });
}

#[test]
fn a_parallel_stream_is_gathered_into_one_file() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.txt");
        let env = Environment::local("lines");
        env.from_iter(0..1000_u64).map(|n| n + 1).parallelism(4).write_lines(&path);
        env.run().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let numbers = sorted(text.lines().map(|line| line.parse::<u64>().unwrap()).collect());
        assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_file_that_cannot_be_written_fails_the_job_with_its_path() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("out.txt");
        let env = Environment::local("lines");
        env.from_iter([1]).write_lines(&path).named("file");
        let report = failed(env.run());
        let cause = report.first_cause.unwrap();
        assert!(cause.to_string().starts_with("operator `file`, while opening: cannot write "), "{cause}");
        assert_eq!(cause.error.unwrap().downcast_ref::<WriteError>().unwrap().path, path);
    });
}

#[test]
fn a_disk_that_is_full_fails_the_job() {
    leak_free(|_| {
        let env = Environment::local("lines");
        env.from_iter(0..10).write_lines("/dev/full").named("file");
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap();
        assert!(cause.to_string().contains("cannot write /dev/full"), "{cause}");
        assert_eq!(report.attached.len(), 0, "{report}");
        assert!(report.left.is_empty(), "what cannot be written is not tried again in `close`: {report}");
    });
}

#[test]
fn collected_records_are_there_after_a_failure_too() {
    leak_free(|_| {
        let env = Environment::local("collect");
        let out = env.from_iter(0..10).try_map(|n| if n == 3 { Err("no") } else { Ok(n) }).collect();
        failed(env.run());
        assert_eq!(out.take(), [0, 1, 2]);
        assert!(out.take().is_empty());
    });
}
