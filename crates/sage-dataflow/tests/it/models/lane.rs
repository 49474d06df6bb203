//! A lane under loom: every record once, in order, and nobody sleeps while there is something to do.

#![expect(dead_code, reason = "the engine's file is compiled whole; a model uses a part of it")]
#![expect(unreachable_pub, reason = "what the engine's public traits name is public in its file")]

mod sync {
    pub(crate) use std::sync::OnceLock;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::thread::{self, Thread};

    pub(crate) const SPINS: usize = 1;
    pub(crate) const YIELDS: usize = 0;

    /// Time does not pass in a model.
    #[derive(Clone, Copy)]
    pub(crate) struct Instant;

    impl Instant {
        pub(crate) fn now() -> Self {
            Self
        }
        pub(crate) fn duration_since(self, _earlier: Self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
    }

    pub(crate) fn drop_record(drop: impl FnOnce()) {
        drop();
    }

    /// The fence that real machines do without; see the engine's file.
    pub(crate) fn publish_fence() {
        fence(Ordering::SeqCst);
    }

    /// Time does not pass in a model: a timed wait ends at once. It must not yield either: loom would then run the
    /// writer to its end, and the waits without limit that follow would never be tried.
    pub(crate) fn park_for(_interval: std::time::Duration, _pending: impl Fn() -> bool) {}

    /// No model waits in poll(2).
    #[derive(Debug)]
    pub(crate) struct Bell;

    impl Bell {
        pub(crate) fn ring(&self) {}
    }

    pub(crate) fn park_within(limit: Option<std::time::Duration>) {
        assert!(limit.is_none(), "no model waits for a time");
        thread::park();
    }
}

#[path = "../../../src/between.rs"]
mod between;
#[path = "../../../src/exchange/lane/mod.rs"]
mod engine;
#[path = "../../../src/metrics.rs"]
mod metrics;

use std::time::Duration;

use between::{Between, Watermark};

use engine::{Depth, Inbox, Polled, Pushed, ReaderState, Refused, Size, Taker, Wait, Writer, lane};
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

const TWO: Depth = Depth { slow: 2, fast: 2 };

/// Pushes as a task does.
fn push(writer: &mut Writer<Counted, Parking>, record: Counted) -> Result<(), Refused> {
    match writer.push(record) {
        Pushed::Done => Ok(()),
        Pushed::Attend => writer.attend(),
    }
}

/// Takes all it is given.
struct All<'a>(&'a mut Vec<u32>);

impl Taker<Counted> for All<'_> {
    type Refusal = std::convert::Infallible;
    fn look(&mut self) -> Result<(), Self::Refusal> {
        Ok(())
    }
    fn take(&mut self, record: Counted) -> Result<(), Self::Refusal> {
        self.0.push(record.0);
        Ok(())
    }
    fn took(&mut self, _count: usize) {}
}

/// Reads until the end; `Err` if the writer gave up.
fn read_all(mut inbox: Inbox<Counted>) -> Result<Vec<u32>, Vec<u32>> {
    let mut read = Vec::new();
    loop {
        let Ok(polled) = inbox.poll(&mut All(&mut read));
        match polled {
            Polled::Taken | Polled::Between(_) => {}
            Polled::Nothing => inbox.wait(|| false, None),
            Polled::Finished => return Ok(read),
            Polled::Aborted => return Err(read),
        }
    }
}

fn write(writer: &mut Writer<Counted, Parking>, count: u32, dropped: &Drops) {
    writer.open();
    for n in 0..count {
        if push(writer, Counted(n, dropped.clone())).is_err() {
            return;
        }
    }
}

#[test]
fn contract_16_every_record_arrives_once_and_in_order() {
    model(1, || {
        let dropped = Drops::default();
        let signal = Arc::new(ReaderState::new());
        let (mut writer, reader) = lane(Size::blocks(1, TWO), signal.clone(), Parking);
        let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            write(&mut writer, 3, &counter);
            writer.finish().expect("nothing was lost");
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
        let signal = Arc::new(ReaderState::new());
        let (mut writer, reader) = lane(Size::blocks(2, TWO), signal.clone(), Parking);
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
        let signal = Arc::new(ReaderState::new());
        let (mut writer, reader) = lane(Size::blocks(1, TWO), signal.clone(), Parking);
        let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            let mut pushed = 0;
            writer.open();
            while push(&mut writer, Counted(pushed, counter.clone())).is_ok() {
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
        let signal = Arc::new(ReaderState::new());
        let (mut one, first) = lane(Size::blocks(1, TWO), signal.clone(), Parking);
        let (mut two, second) = lane(Size::blocks(1, TWO), signal.clone(), Parking);
        let mut inbox = Inbox::new(vec![first, second], signal, Duration::from_millis(1));
        // Two for each lane, as this thread writes before it reads.
        inbox.works_on(2);
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            write(&mut one, 1, &counter);
            one.finish().expect("nothing was lost");
        });
        write(&mut two, 1, &dropped);
        two.finish().expect("nothing was lost");
        assert_eq!(read_all(inbox), Ok(vec![0, 0]));
        producer.join().unwrap();
    });
}

/// What a reader saw: a record, or a watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Record(u32),
    Watermark(i64),
    Idle,
    Probe(u64),
}

/// Reads to the end, or to what `enough` says.
fn see(inbox: &mut Inbox<Counted>, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !enough(&seen) {
        let mut read = Vec::new();
        let Ok(polled) = inbox.poll(&mut All(&mut read));
        seen.extend(read.into_iter().map(Seen::Record));
        match polled {
            Polled::Taken => {}
            Polled::Between(Between::Watermark(mark)) if mark.idle => seen.push(Seen::Idle),
            Polled::Between(Between::Watermark(mark)) => seen.push(Seen::Watermark(mark.millis)),
            Polled::Between(Between::Numbered(_, round)) => seen.push(Seen::Probe(round)),
            Polled::Nothing => inbox.wait(|| false, None),
            Polled::Finished => return seen,
            Polled::Aborted => panic!("the writer finished"),
        }
    }
    seen
}

const fn at(millis: i64) -> Watermark {
    Watermark { millis, idle: false }
}

/// One record, a watermark, a record, a watermark, over lanes of blocks of `capacity`.
fn watermarks_stay_between_records(capacity: usize, preemptions: usize) {
    model(preemptions, move || {
        let dropped = Drops::default();
        let signal = Arc::new(ReaderState::new());
        let (mut writer, reader) = lane(Size::blocks(capacity, TWO), signal.clone(), Parking);
        let mut inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            writer.open();
            push(&mut writer, Counted(0, counter.clone())).expect("the reader is there");
            writer.put(Between::Watermark(at(1))).expect("the reader is there");
            push(&mut writer, Counted(1, counter.clone())).expect("the reader is there");
            writer.put(Between::Watermark(at(2))).expect("the reader is there");
            writer.finish().expect("nothing was lost");
        });
        let seen = see(&mut inbox, |_| false);
        producer.join().expect("the writer does not panic");
        let (zero, one) = (Seen::Record(0), Seen::Record(1));
        assert_eq!(seen, [zero, Seen::Watermark(1), one, Seen::Watermark(2)]);
        assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
    });
}

#[test]
fn a_watermark_closes_the_open_block_and_stays_behind_its_records() {
    watermarks_stay_between_records(2, 1);
}

#[test]
fn a_watermark_stays_in_its_place_where_blocks_are_full() {
    watermarks_stay_between_records(1, 1);
}

/// A reader that waits for any record is woken by a watermark: nothing else comes here until it has been seen.
#[test]
fn a_watermark_wakes_a_reader_that_waits() {
    model(2, || {
        let signal = Arc::new(ReaderState::new());
        let (mut writer, reader) = lane::<Counted, _>(Size::blocks(2, TWO), signal.clone(), Parking);
        let mut inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let producer = thread::spawn(move || {
            writer.open();
            writer.put(Between::Watermark(at(1))).unwrap();
            writer
        });
        assert_eq!(see(&mut inbox, |seen| seen.contains(&Seen::Watermark(1))), [Seen::Watermark(1)]);
        let mut writer = producer.join().unwrap();
        writer.finish().expect("nothing was lost");
    });
}

/// Watermarks that follow each other with no record between them may be seen as one, the last.
#[test]
fn the_last_of_several_watermarks_is_seen() {
    model(1, || {
        let dropped = Drops::default();
        let signal = Arc::new(ReaderState::new());
        let (mut writer, reader) = lane(Size::blocks(2, TWO), signal.clone(), Parking);
        let mut inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let producer = thread::spawn(move || {
            writer.open();
            writer.put(Between::Watermark(at(1))).unwrap();
            writer.put(Between::Watermark(at(2))).unwrap();
            push(&mut writer, Counted(0, dropped.clone())).unwrap();
            writer.put(Between::Watermark(at(3))).unwrap();
            writer.finish().expect("nothing was lost");
        });
        let seen = see(&mut inbox, |_| false);
        producer.join().unwrap();
        let rest = match seen[..] {
            [Seen::Watermark(1), ref rest @ ..] => rest,
            ref all => all,
        };
        assert_eq!(rest, [Seen::Watermark(2), Seen::Record(0), Seen::Watermark(3)]);
    });
}

/// The slower of two lanes counts; an idle one does not, nor one that has ended.
#[test]
fn the_slowest_lane_that_is_not_idle_counts() {
    model(2, || {
        let dropped = Drops::default();
        let signal = Arc::new(ReaderState::new());
        let (mut slow, first) = lane(Size::blocks(2, TWO), signal.clone(), Parking);
        let (mut fast, second) = lane(Size::blocks(2, TWO), signal.clone(), Parking);
        let mut inbox = Inbox::new(vec![first, second], signal, Duration::from_millis(1));
        let producer = thread::spawn(move || {
            fast.open();
            push(&mut fast, Counted(9, dropped.clone())).unwrap();
            fast.put(Between::Watermark(at(5))).unwrap();
            fast
        });
        slow.open();
        slow.put(Between::Watermark(at(2))).unwrap();
        let mut seen = see(&mut inbox, |seen| seen.contains(&Seen::Watermark(2)) && seen.contains(&Seen::Record(9)));
        slow.put(Between::Watermark(Watermark { millis: 2, idle: true })).unwrap();
        seen.extend(see(&mut inbox, |seen| seen.contains(&Seen::Watermark(5))));
        let mut fast = producer.join().unwrap();
        fast.finish().expect("nothing was lost");
        slow.finish().expect("nothing was lost");
        seen.extend(see(&mut inbox, |_| false));
        seen.retain(|seen| matches!(seen, Seen::Watermark(_)));
        assert_eq!(seen, [Seen::Watermark(2), Seen::Watermark(5)]);
    });
}

/// Reads to the end; says before each look how quick it is.
fn read_all_at(mut inbox: Inbox<Counted>, pace: &[Duration]) -> Vec<u32> {
    let (mut read, mut paces) = (Vec::new(), pace.iter());
    loop {
        let before = read.len();
        let Ok(polled) = inbox.poll(&mut All(&mut read));
        match polled {
            Polled::Taken => {
                if let Some(pace) = paces.next() {
                    inbox.took(read.len() - before, *pace);
                }
            }
            Polled::Between(_) => {}
            Polled::Nothing => inbox.wait(|| false, None),
            Polled::Finished => return read,
            Polled::Aborted => panic!("the writer finished"),
        }
    }
}

const QUICK: Duration = Duration::ZERO;
const SLOW: Duration = Duration::from_secs(1);

/// A block has room for more than the reader allows: the writer waits, is woken, and is told when it may go on.
fn allowed(preemptions: usize, records: u32, pace: &'static [Duration]) {
    model(preemptions, move || {
        let dropped = Drops::default();
        let signal = Arc::new(ReaderState::new());
        let (mut writer, reader) = lane(Size::blocks(4, TWO), signal.clone(), Parking);
        let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let most = if pace.contains(&QUICK) { 5 } else { 3 };
        let producer = thread::spawn(move || {
            writer.open();
            for n in 0..records {
                // This one, those that wait, and the one that the reader has in its hand.
                let alive = n + 1 - counter.load(std::sync::atomic::Ordering::Relaxed);
                assert!(alive <= most, "{alive} records");
                push(&mut writer, Counted(n, counter.clone())).expect("the reader is there");
            }
            writer.finish()
        });
        assert_eq!(read_all_at(inbox, pace), (0..records).collect::<Vec<_>>());
        assert!(producer.join().expect("the writer does not panic").is_ok());
    });
}

#[test]
fn contract_28_no_more_records_wait_than_the_reader_allows() {
    allowed(1, 4, &[]);
}

#[test]
fn contract_28_a_writer_that_waits_is_told_when_more_is_allowed() {
    allowed(1, 5, &[QUICK, QUICK, QUICK]);
}

#[test]
fn contract_28_a_writer_learns_that_less_is_allowed() {
    allowed(1, 5, &[QUICK, QUICK, SLOW]);
}

/// Bytes: a block is closed when it has its share, and the next one is filled when there is room for it.
#[test]
fn contract_28_a_writer_waits_for_room_for_bytes() {
    model(1, || {
        let dropped = Drops::default();
        let signal = Arc::new(ReaderState::new());
        let depth = Depth { slow: 4, fast: 4 };
        let size = Size { bytes: 2 * size_of::<Counted>(), ..Size::blocks(2, depth) };
        let (writer, reader) = lane(size, signal.clone(), Parking);
        let mut writer = writer.weighing(std::sync::Arc::new(|_| 0));
        let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
        let counter = dropped.clone();
        let producer = thread::spawn(move || {
            write(&mut writer, 3, &counter);
            writer.finish()
        });
        assert_eq!(read_all(inbox), Ok(vec![0, 1, 2]));
        assert!(producer.join().expect("the writer does not panic").is_ok());
    });
}
