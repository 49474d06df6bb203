//! A lane under loom: every record once, in order, and nobody sleeps while there is something to do.

use std::time::Duration;

use loom::thread;

use super::under_loom::between::{Between, Watermark};
use super::under_loom::engine::{Depth, Inbox, Polled, ReaderState, Size, Writer, lane};
use super::under_loom::sync::Arc;
use super::under_loom::{All, Counted, Drops, Parking, TWO, model, push};

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
