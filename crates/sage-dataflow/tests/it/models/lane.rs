//! A lane under loom: every record once, in order, and nobody sleeps while there is something to do.

#![expect(dead_code, reason = "the engine's file is compiled whole; a model uses a part of it")]

mod sync {
    pub(crate) use std::sync::OnceLock;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering, fence};
    pub(crate) use loom::thread::{self, Thread};

    pub(crate) const SPINS: usize = 1;

    /// The fence that real machines do without; see the engine's file.
    pub(crate) fn publish_fence() {
        fence(Ordering::SeqCst);
    }

    /// Time does not pass in a model: a timed wait ends at once. It must not yield either: loom would then run the
    /// writer to its end, and the waits without limit that follow would never be tried.
    pub(crate) fn park_for(_interval: std::time::Duration, _pending: impl Fn() -> bool) {}
}

#[path = "../../../src/exchange/lane.rs"]
mod engine;

use std::time::Duration;

use engine::{Inbox, Polled, Refused, Signal, Wait, Writer, lane};
use loom::thread;
use sync::Arc;

struct Parking;

impl Wait for Parking {
    fn interrupted(&self) -> bool {
        false
    }
    fn park_blocked(&mut self) {
        thread::park();
    }
}

/// How many records were dropped.
type Drops = std::sync::Arc<std::sync::atomic::AtomicU32>;

/// A record that tells when it is dropped.
#[derive(Debug)]
struct Counted(u32, Drops);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(check);
}

/// Reads until the end; `Err` if the writer gave up.
fn read_all(mut inbox: Inbox<Counted>) -> Result<Vec<u32>, Vec<u32>> {
    let mut read = Vec::new();
    loop {
        let polled = inbox.poll(|record: Counted| {
            read.push(record.0);
            Ok::<_, Refused>(())
        });
        match polled.expect("nothing refuses a record") {
            Polled::Taken => {}
            Polled::Nothing => inbox.wait(|| false),
            Polled::Finished => return Ok(read),
            Polled::Aborted => return Err(read),
        }
    }
}

fn write(writer: &mut Writer<Counted, Parking>, count: u32, dropped: &Drops) {
    for n in 0..count {
        if writer.push(Counted(n, dropped.clone())).is_err() {
            return;
        }
    }
}

#[test]
fn contract_16_every_record_arrives_once_and_in_order() {
    model(1, || {
        let dropped = Drops::default();
        let signal = Arc::new(Signal::new());
        let (mut writer, reader) = lane(1, 2, signal.clone(), Parking);
        let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            write(&mut writer, 3, &counter);
            writer.finish();
        });
        assert_eq!(read_all(inbox), Ok(vec![0, 1, 2]));
        producer.join().unwrap();
        assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 3);
    });
}

#[test]
fn a_writer_that_gives_up_is_not_the_end_of_input() {
    model(2, || {
        let dropped = Drops::default();
        let signal = Arc::new(Signal::new());
        let (mut writer, reader) = lane(2, 2, signal.clone(), Parking);
        let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || write(&mut writer, 2, &counter));
        assert_eq!(read_all(inbox), Err(vec![0, 1]));
        producer.join().unwrap();
    });
}

#[test]
fn a_reader_that_ends_releases_a_blocked_writer_and_nothing_leaks() {
    model(2, || {
        let dropped = Drops::default();
        let signal = Arc::new(Signal::new());
        let (mut writer, reader) = lane(1, 2, signal.clone(), Parking);
        let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            let mut pushed = 0;
            while writer.push(Counted(pushed, counter.clone())).is_ok() {
                pushed += 1;
                assert!(pushed < 4, "a lane of two records took four that nobody read");
            }
            pushed
        });
        let mut inbox = inbox;
        inbox.satisfied();
        drop(inbox);
        let pushed = producer.join().unwrap();
        // Those that were taken in, and the one that was refused.
        assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), pushed + 1);
    });
}

#[test]
fn two_writers_and_one_reader_lose_nothing() {
    model(2, || {
        let dropped = Drops::default();
        let signal = Arc::new(Signal::new());
        let (mut one, first) = lane(1, 2, signal.clone(), Parking);
        let (mut two, second) = lane(1, 2, signal.clone(), Parking);
        let inbox = Inbox::new(vec![first, second], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            write(&mut one, 1, &counter);
            one.finish();
        });
        write(&mut two, 1, &dropped);
        two.finish();
        assert_eq!(read_all(inbox), Ok(vec![0, 0]));
        producer.join().unwrap();
    });
}
