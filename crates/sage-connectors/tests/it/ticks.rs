//! The clock.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use sage::{BoxError, Environment, Sink};
use sage_connectors::{Tick, Ticks};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn ticks_are_numbered_and_evenly_due() {
    let began = Instant::now();
    let env = Environment::local("clock");
    let ticks = env.from_source(|_| Ticks::every(2 * MS).limit(20)).collect();
    env.run().unwrap();
    assert!(began.elapsed() >= 38 * MS);
    let ticks = ticks.take();
    assert!(ticks.iter().map(|tick| tick.number).eq(0..20));
    for pair in ticks.windows(2) {
        assert_eq!(pair[1].due.duration_since(pair[0].due).unwrap(), 2 * MS);
    }
}

#[test]
fn an_interval_of_zero_gives_ticks_as_they_are_taken() {
    let env = Environment::local("clock");
    let ticks = env.from_source(|_| Ticks::every(Duration::ZERO)).take(10_000).count().collect();
    env.run().unwrap();
    assert_eq!(ticks.take(), [10_000]);
}

/// A sink that says when it is flushed.
struct Flushed(mpsc::Sender<u64>, Option<u64>);

impl Sink for Flushed {
    type In = Tick;

    fn write(&mut self, tick: Tick) -> Result<(), BoxError> {
        self.1 = Some(tick.number);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        if let Some(number) = self.1.take() {
            self.0.send(number)?;
        }
        Ok(())
    }
}

#[test]
fn a_tick_is_flushed_before_the_wait_and_a_drain_ends_that() {
    let (sender, flushed) = mpsc::channel();
    let env = Environment::local("clock");
    env.from_source(|_| Ticks::every(HOUR)).sink_to(move |_| Flushed(sender.clone(), None));
    let job = env.submit().unwrap();
    assert_eq!(flushed.recv().unwrap(), 0);
    job.drain();
    let report = job.wait().unwrap();
    assert_eq!(report.operator("source-1").unwrap().records_out, 1);
}

#[test]
fn a_cancel_and_a_pause_end_a_wait() {
    let (sender, flushed) = mpsc::channel();
    let env = Environment::local("clock");
    env.from_source(|_| Ticks::every(HOUR)).sink_to(move |_| Flushed(sender.clone(), None));
    let job = env.submit().unwrap();
    flushed.recv().unwrap();
    job.pause();
    job.resume();
    job.cancel();
    let error = job.wait().unwrap_err();
    assert!(error.report().unwrap().left.is_empty());
}

/// The second tick would come in an hour, and nobody wants it.
#[test]
fn a_take_behind_an_exchange_ends_the_wait_for_a_tick() {
    let env = Environment::local("clock");
    let first = env
        .from_source(|_| Ticks::every(HOUR))
        .on_another_thread()
        .map(|tick| tick.number)
        .on_another_thread()
        .take(1)
        .collect();
    let began = Instant::now();
    env.run().unwrap();
    assert_eq!(first.take(), [0]);
    assert!(began.elapsed() < HOUR);
}
