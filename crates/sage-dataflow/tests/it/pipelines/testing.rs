//! The module for users' tests.

use sage::testing::{self, Census};
use sage::{Environment, RunError};

use crate::contract::cancelled;
use crate::leaks::leak_free;
use crate::probes::failed;

#[test]
fn a_fed_source_gives_ends_and_fails_as_it_is_told() {
    leak_free(|_| {
        let (feed, source) = testing::source();
        let (received, sink) = testing::sink();
        let env = Environment::local("fed");
        env.from_source(move |_| source.clone()).sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        for n in 0..5_u32 {
            feed.send(n);
            assert_eq!(received.wait_for(n as usize + 1).last(), Some(&n), "while the source is open");
        }
        assert_eq!(received.finished(), 0, "the source is open");
        feed.end();
        job.wait().unwrap();
        assert_eq!(received.take(), [0, 1, 2, 3, 4]);
        assert_eq!(received.finished(), 1);

        feed.send(7);
        feed.fail("broken");
        let report = failed(env.run());
        assert!(report.first_cause.unwrap().to_string().contains("broken"));
        assert_eq!(received.take(), [7]);
        assert_eq!(received.finished(), 1, "this run did not end well");
    });
}

#[test]
fn a_source_that_waits_for_its_feed_ends_with_a_drain_and_a_cancel() {
    leak_free(|_| {
        let (feed, source) = testing::source::<u32>();
        let (received, sink) = testing::sink();
        let env = Environment::local("waiting");
        env.from_source(move |_| source.clone()).on_another_thread().sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        feed.send(1);
        received.wait_for(1);
        job.drain();
        job.wait().unwrap();
        let job = env.submit().unwrap();
        feed.send(2);
        received.wait_for(2);
        job.cancel();
        cancelled(&job);
    });
}

#[test]
fn run_to_vec_gives_records_or_the_error() {
    let doubled = testing::run_to_vec(|env| env.from_iter(0..3).map(|n| n * 2).collect());
    assert_eq!(doubled.unwrap(), [0, 2, 4]);
    let error = testing::run_to_vec(|env| env.from_iter(["x"]).try_map(|text| text.parse::<u32>()).collect());
    assert!(matches!(error, Err(RunError::Job(_))));
}

#[test]
fn a_census_names_what_is_left() {
    if std::env::var_os("NEXTEST").is_none() {
        return; // The counts are the process's.
    }
    let before = Census::take();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    // A thread gives itself its name.
    let (named, is_named) = std::sync::mpsc::channel();
    let wait = move || {
        named.send(()).unwrap();
        held.recv()
    };
    let thread = std::thread::Builder::new().name("left-over".to_owned()).spawn(wait).unwrap();
    is_named.recv().unwrap();
    let file = std::fs::File::open("/proc/self/stat").unwrap();
    let descriptor = before.growth().into_iter().find(|what| what.starts_with("descriptor ")).unwrap();
    assert!(descriptor.ends_with("/stat"), "{descriptor}");
    before.expect_growth(&[descriptor.as_str(), "thread left-over"]);
    drop((file, hold));
    assert!(thread.join().unwrap().is_err());
    before.expect_growth(&[]);
}
