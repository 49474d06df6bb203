//! A writer that deals records to whichever of several lanes has room: it is not stuck while one has, and no record is
//! lost or doubled.

use std::time::Duration;

use shuttle::sync::mpsc::channel;
use shuttle::thread;

use super::under_shuttle::between::{Between, Watermark};
use super::under_shuttle::control::{Control, JobControl};
use super::under_shuttle::engine::{Dealer, Inbox, Polled, Pushed, ReaderState, Refused, Size, Writer, lane};
use super::under_shuttle::sync::Arc;
use super::under_shuttle::{Numbered, OfJob, Records, TWO, check, steering, stop};

type Out = Writer<Numbered, OfJob>;

/// How long a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    ToTheEnd,
    /// It begins when the first has read so many.
    After(usize),
    /// Until it has so many, and wants no more.
    Enough(usize),
    /// Until it has so many, and fails.
    Fails(usize),
}

/// Deals so many records, with a watermark before one of them; fewer in a drain. Returns how many.
fn deal(
    lanes: &mut [Out],
    records: u32,
    watermark_at: Option<u32>,
    kept: &std::sync::Arc<()>,
    control: &JobControl,
) -> Result<u32, Refused> {
    control.register();
    lanes.iter_mut().for_each(Writer::open);
    let mut dealer = Dealer::new(lanes.len(), 0);
    for number in 0..records {
        match control.load() {
            Control::Run | Control::Pause => {}
            Control::Drain => return finish(lanes, number),
            Control::Cancel => return Err(Refused::Interrupted),
        }
        if Some(number) == watermark_at {
            let watermark = Between::Watermark(Watermark { millis: 1, idle: false });
            for lane in lanes.iter_mut() {
                // To one that nobody reads there is nothing to say.
                lane.put(watermark).or_else(|refused| match refused {
                    Refused::ReaderGone => Ok(()),
                    refused => Err(refused),
                })?;
            }
        }
        if dealer.push(lanes, (number, kept.clone())) == Pushed::Attend {
            dealer.attend(lanes)?;
        }
    }
    finish(lanes, records)
}

fn finish(lanes: &mut [Out], written: u32) -> Result<u32, Refused> {
    lanes.iter_mut().try_for_each(Writer::finish).map(|()| written)
}

/// Reads as it is told, and tells `read` how many records it has.
fn read(mut inbox: Inbox<Numbered>, reads: Reads, control: &JobControl, read: impl Fn(usize)) -> Vec<u32> {
    control.register();
    let mut all: Vec<Numbered> = Vec::new();
    loop {
        let Ok(polled) = inbox.poll(&mut Records(&mut all));
        read(all.len());
        match (reads, polled) {
            (Reads::Enough(records), _) if all.len() >= records => {
                inbox.satisfied();
                break;
            }
            (Reads::Fails(records), _) if all.len() >= records => break,
            (_, Polled::Taken | Polled::Between(_)) => {}
            (_, Polled::Nothing) if control.load() == Control::Cancel => break,
            (_, Polled::Nothing) => inbox.wait(|| control.load() == Control::Cancel, None),
            (_, Polled::Finished | Polled::Aborted) => break,
        }
    }
    all.into_iter().map(|record| record.0).collect()
}

/// Runs the job in many schedules. What was dealt, or why it ended, and what each reader read go to `ended`.
fn deals(
    records: u32,
    readers: &'static [Reads],
    how: Option<Control>,
    ended: impl Fn(Result<u32, Refused>, Vec<Vec<u32>>) + Send + Sync + Clone + 'static,
) {
    check(300, move || {
        let (control, kept) = (steering(), std::sync::Arc::new(()));
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        let (first, begins) = channel();
        let mut begins = Some(begins);
        for &reads in readers {
            let signal = Arc::new(ReaderState::new());
            let (writer, reader) = lane(Size::blocks(1, TWO), signal.clone(), OfJob(control.clone()));
            let inbox = Inbox::new(vec![reader], signal, Duration::from_millis(1));
            lanes.push(writer);
            let (control, first) = (control.clone(), first.clone());
            let begins = if let Reads::After(_) = reads { begins.take() } else { None };
            threads.push(thread::spawn(move || {
                if let (Reads::After(records), Some(begins)) = (reads, begins) {
                    while begins.recv().is_ok_and(|read| read < records) {}
                }
                read(inbox, reads, &control, |records| _ = first.send(records))
            }));
        }
        drop(first);
        let writer = thread::spawn({
            let (kept, control) = (kept.clone(), control.clone());
            // Watermarks wait for each of the lanes.
            let watermark_at = readers.iter().all(|reads| !matches!(reads, Reads::After(_))).then_some(records / 2);
            move || deal(&mut lanes, records, watermark_at, &kept, &control)
        });
        if let Some(how) = how {
            stop(&control, how);
        }
        let dealt = writer.join().expect("the writer does not panic");
        let read: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no reader panics")).collect();
        assert_eq!(std::sync::Arc::strong_count(&kept), 1, "a record was lost");
        assert!(read.iter().all(|records| records.is_sorted()), "{read:?}");
        ended(dealt, read);
    });
}

/// Every record that was dealt was read once.
fn all(dealt: Result<u32, Refused>, read: Vec<Vec<u32>>) {
    let mut read = read.concat();
    read.sort_unstable();
    assert_eq!(read, (0..dealt.expect("the readers are there")).collect::<Vec<_>>());
}

/// No record was read twice.
fn some(_dealt: Result<u32, Refused>, read: Vec<Vec<u32>>) {
    let mut read = read.concat();
    read.sort_unstable();
    assert!(read.is_sorted_by(|one, next| one < next), "{read:?}");
}

#[test]
fn a_writer_that_waits_for_any_of_several_lanes_goes_on_when_one_has_room() {
    deals(8, &[Reads::ToTheEnd; 2], None, all);
    deals(9, &[Reads::ToTheEnd; 3], None, all);
}

/// The second has room for two, and reads none until the first has all the others.
#[test]
fn a_reader_that_does_not_read_holds_up_no_other() {
    deals(8, &[Reads::ToTheEnd, Reads::After(6)], None, all);
}

#[test]
fn a_drain_of_a_writer_that_waits_for_any_loses_nothing() {
    deals(8, &[Reads::ToTheEnd; 2], Some(Control::Drain), all);
}

#[test]
fn a_cancel_finds_a_writer_that_waits_for_any() {
    deals(8, &[Reads::ToTheEnd; 2], Some(Control::Cancel), some);
}

#[test]
fn a_writer_that_waits_for_any_learns_that_readers_have_ended() {
    deals(8, &[Reads::ToTheEnd, Reads::Enough(1)], None, |dealt, read| {
        assert_eq!(dealt, Ok(8));
        some(dealt, read);
    });
    deals(12, &[Reads::Enough(1); 2], None, |dealt, read| {
        assert_eq!(dealt, Err(Refused::ReaderGone));
        some(dealt, read);
    });
    deals(12, &[Reads::ToTheEnd, Reads::Fails(1)], None, |dealt, read| {
        assert_eq!(dealt, Err(Refused::Interrupted));
        some(dealt, read);
    });
}

/// The same by memory orders: lanes of a record each, so that the third finds both full.
mod orders {
    use std::time::Duration;

    use loom::thread;

    use super::super::under_loom::engine::{Dealer, Inbox, Polled, Pushed, ReaderState, Size, lane};
    use super::super::under_loom::sync::Arc;
    use super::super::under_loom::{All, Counted, Drops, Parking, TWO, model};

    #[test]
    fn a_reader_that_makes_room_is_seen() {
        model(2, || {
            let dropped = Drops::default();
            let (mut lanes, mut inboxes) = (Vec::new(), Vec::new());
            for _ in 0..2 {
                let (signal, size) = (Arc::new(ReaderState::new()), Size { records: 1, ..Size::blocks(4, TWO) });
                let (mut writer, reader) = lane(size, signal.clone(), Parking);
                writer.open();
                lanes.push(writer);
                inboxes.push(Inbox::new(vec![reader], signal, Duration::from_millis(1)));
            }
            let mut dealer = Dealer::new(2, 0);
            assert_eq!(dealer.push(&mut lanes, Counted(0, dropped.clone())), Pushed::Attend, "it is full");
            dealer.attend(&mut lanes).expect("the other has room");
            let mut read = Vec::new();
            let mut other = inboxes.pop();
            let reader = thread::spawn(move || {
                let mut read = Vec::new();
                if let Some(inbox) = &mut other {
                    while read.is_empty() {
                        let Ok(polled) = inbox.poll(&mut All(&mut read));
                        if matches!(polled, Polled::Nothing) {
                            inbox.wait(|| false, None);
                        }
                    }
                }
                (other, read)
            });
            assert_eq!(dealer.push(&mut lanes, Counted(1, dropped.clone())), Pushed::Attend, "it is full as well");
            dealer.attend(&mut lanes).expect("one gets room");
            // The last one: nobody has to attend to it.
            let (Pushed::Done | Pushed::Attend) = dealer.push(&mut lanes, Counted(2, dropped.clone()));
            lanes.iter_mut().for_each(|lane| lane.finish().expect("nothing was lost"));
            let (other, others) = reader.join().expect("the reader does not panic");
            read.extend(others);
            for mut inbox in inboxes.into_iter().chain(other) {
                while !matches!(inbox.poll(&mut All(&mut read)), Ok(Polled::Finished)) {}
            }
            read.sort_unstable();
            assert_eq!(read, [0, 1, 2]);
        });
    }
}
