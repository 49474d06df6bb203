//! Pushes that nobody attends to, at random: whatever its caller does, a writer touches no memory that is not its own,
//! drops each record once, and never ends well a lane that has lost one.
//!
//! Blocks have a guard behind their last slot in builds with debug assertions; it is looked at when they are freed.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::lane::{Depth, Inbox, Polled, Pushed, ReaderState, Refused, Size, Taker, Wait, lane};
use crate::between::{Between, Numbered, Watermark};

/// A record of an odd size, which counts how often it is dropped.
#[derive(Debug)]
struct OddRecord {
    number: u64,
    drops: Rc<Cell<usize>>,
    _rest: [u8; 5],
}

// SAFETY: the test has one thread.
unsafe impl Send for OddRecord {}

impl Drop for OddRecord {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
    }
}

/// Where a writer would wait for room, the job is cancelled instead.
struct Never;

impl Wait for Never {
    fn interrupted(&self) -> bool {
        true
    }
    fn park_blocked(&mut self) {
        unreachable!("the wait is given up first");
    }
}

struct All<'a>(&'a mut Vec<u64>);

impl Taker<OddRecord> for All<'_> {
    type Refusal = std::convert::Infallible;
    fn look(&mut self) -> Result<(), Self::Refusal> {
        Ok(())
    }
    fn take(&mut self, record: OddRecord) -> Result<(), Self::Refusal> {
        self.0.push(record.number);
        Ok(())
    }
    fn took(&mut self, _count: usize) {}
}

/// What a careless caller does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// Pushes, and attends if it is asked to.
    Push,
    /// Pushes, whatever it is asked to.
    Careless,
    Attend,
    AttendNow,
    Watermark(i64),
    Probe,
    /// The reader takes what is there.
    Read,
    /// The reader ends, well or not.
    Leave(bool),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        8 => Just(Deed::Push),
        6 => Just(Deed::Careless),
        2 => Just(Deed::Attend),
        2 => Just(Deed::AttendNow),
        1 => (0..9_i64).prop_map(Deed::Watermark),
        1 => Just(Deed::Probe),
        3 => Just(Deed::Read),
    ];
    let end = prop_oneof![3 => Just(vec![]), 1 => any::<bool>().prop_map(|well| vec![Deed::Leave(well)])];
    (proptest::collection::vec(deed.clone(), 0..60), end, proptest::collection::vec(deed, 0..20))
        .prop_map(|(before, end, after)| [before, end, after].concat())
}

/// Does it all to one lane. Returns the records that were read, whether the lane ended well, how many were pushed and
/// how many dropped, and whether one was pushed that came too early.
fn run(deeds: &[Deed], capacity: usize, opened: bool) -> (Vec<u64>, bool, u64, usize) {
    let (drops, signal) = (Rc::new(Cell::new(0)), Arc::new(ReaderState::new()));
    let (mut writer, reader) = lane(Size::blocks(capacity, Depth { slow: 2, fast: 3 }), signal.clone(), Never);
    let mut inbox = Some(Inbox::new(vec![reader], signal, Duration::ZERO));
    let (mut read, mut pushed, mut round) = (Vec::new(), 0, 0);
    if opened {
        writer.open();
    }
    for &deed in deeds {
        match deed {
            Deed::Push | Deed::Careless => {
                let record = OddRecord { number: pushed, drops: drops.clone(), _rest: [7; 5] };
                pushed += 1;
                if writer.push(record) == Pushed::Attend && matches!(deed, Deed::Push) {
                    let _ = writer.attend();
                }
            }
            Deed::Attend => _ = writer.attend(),
            Deed::AttendNow => _ = writer.attend_now(),
            Deed::Watermark(millis) => _ = writer.put(Between::Watermark(Watermark { millis, idle: millis == 0 })),
            Deed::Probe => {
                round += 1;
                let _ = writer.put(Between::Numbered(Numbered::Probe, round));
            }
            Deed::Read => {
                if let Some(inbox) = &mut inbox {
                    let _ = inbox.poll(&mut All(&mut read));
                }
            }
            Deed::Leave(well) => {
                if let Some(mut inbox) = inbox.take()
                    && well
                {
                    inbox.satisfied();
                }
            }
        }
    }
    let finished = writer.finish();
    drop(writer);
    let mut ended_well = finished.is_ok();
    if let Some(inbox) = &mut inbox {
        ended_well = loop {
            match inbox.poll(&mut All(&mut read)) {
                Ok(Polled::Finished) => break true,
                Ok(Polled::Aborted) => break false,
                Ok(_) => {}
            }
        };
        assert_eq!(ended_well, finished.is_ok(), "the reader learns how the lane ended");
    }
    drop(inbox);
    (read, ended_well, pushed, drops.get())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contract_26_a_push_that_nobody_attends_to_harms_nobody(
        deeds in deeds(), capacity in 1..6_usize, opened in prop::bool::weighted(0.9),
    ) {
        let (read, ended_well, pushed, dropped) = run(&deeds, capacity, opened);
        prop_assert_eq!(dropped as u64, pushed, "each record is dropped once");
        let left = deeds.iter().any(|deed| matches!(deed, Deed::Leave(_)));
        if ended_well && !left {
            prop_assert_eq!(read, (0..pushed).collect::<Vec<_>>(), "a lane that ends well has lost nothing");
        } else {
            prop_assert!(read.is_sorted(), "no record overtakes another: {:?}", read);
        }
    }
}

#[test]
fn a_push_that_comes_too_early_breaks_the_lane_off() {
    let signal = Arc::new(ReaderState::new());
    let (mut writer, reader) = lane(Size::blocks(2, Depth { slow: 2, fast: 2 }), signal.clone(), Never);
    let _inbox = Inbox::new(vec![reader], signal, Duration::ZERO);
    writer.open();
    assert_eq!((writer.push(1), writer.attend()), (Pushed::Attend, Ok(())));
    assert_eq!([2, 3].map(|record| writer.push(record)), [Pushed::Attend, Pushed::Attend]);
    assert_eq!((writer.attend(), writer.finish()), (Err(Refused::Overrun), Err(Refused::Overrun)));
}

#[test]
fn a_push_that_is_attended_to_late_has_lost_nothing() {
    let signal = Arc::new(ReaderState::new());
    let (mut writer, reader) = lane(Size::blocks(1, Depth { slow: 2, fast: 2 }), signal.clone(), Never);
    let _inbox = Inbox::new(vec![reader], signal, Duration::ZERO);
    writer.open();
    assert_eq!(writer.push(1), Pushed::Attend);
    let none = Between::Watermark(Watermark::NONE);
    assert_eq!((writer.put(none), writer.put(none)), (Ok(()), Ok(())));
    assert_eq!((writer.attend(), writer.push(2), writer.finish()), (Ok(()), Pushed::Attend, Ok(())));
}
