//! Tests: records are dealt to lanes in turn, and to one that was full again soon after it has room.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::lane::{Dealer, Depth, Inbox, Polled, Pushed, ReaderState, Size, Taker, Wait, Writer, lane};

/// Nobody has to wait in these tests.
struct Never;

impl Wait for Never {
    fn interrupted(&self) -> bool {
        false
    }
    fn park_blocked(&mut self) {
        unreachable!("a lane has room");
    }
}

struct Taken<'a>(&'a mut Vec<u32>);

impl Taker<u32> for Taken<'_> {
    type Refusal = Infallible;
    fn look(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
    fn take(&mut self, record: u32) -> Result<(), Infallible> {
        self.0.push(record);
        Ok(())
    }
    fn took(&mut self, _count: usize) {}
}

/// A dealer, its lanes and their readers, of which each may have so many records wait.
struct Dealt {
    dealer: Dealer,
    lanes: Vec<Writer<u32, Never>>,
    readers: Vec<Inbox<u32>>,
    next: u32,
}

impl Dealt {
    fn new(waiting: &[usize]) -> Self {
        let (mut lanes, mut readers) = (Vec::new(), Vec::new());
        for &records in waiting {
            let signal = Arc::new(ReaderState::new());
            let size = Size { records, ..Size::blocks(1 << 16, Depth { slow: 2, fast: 2 }) };
            let (mut writer, reader) = lane(size, signal.clone(), Never);
            writer.open();
            let mut inbox = Inbox::new(vec![reader], signal, Duration::ZERO);
            inbox.works_on(1 << 16);
            lanes.push(writer);
            readers.push(inbox);
        }
        Self { dealer: Dealer::new(waiting.len(), 0), lanes, readers, next: 0 }
    }

    /// Deals so many. Returns how often the dealer had to be attended to.
    fn deal(&mut self, records: usize) -> usize {
        let mut attended = 0;
        for _ in 0..records {
            if self.dealer.push(&mut self.lanes, self.next) == Pushed::Attend {
                self.dealer.attend(&mut self.lanes).expect("a lane has room");
                attended += 1;
            }
            self.next += 1;
        }
        attended
    }

    /// What waits in a lane, which is taken out.
    fn read(&mut self, lane: usize) -> Vec<u32> {
        let mut records = Vec::new();
        while let Ok(Polled::Taken) = self.readers[lane].poll(&mut Taken(&mut records)) {}
        records
    }
}

#[test]
fn records_are_dealt_in_turn() {
    let mut dealt = Dealt::new(&[1 << 16; 3]);
    dealt.deal(8);
    assert_eq!([0, 1, 2].map(|lane| dealt.read(lane)), [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]);
}

#[test]
fn a_full_lane_is_passed_over_and_gets_records_again_when_it_has_room() {
    let mut dealt = Dealt::new(&[2, 1 << 16, 1 << 16]);
    let attended = dealt.deal(1000);
    assert!(attended <= 20, "{attended} times of 1000");
    assert_eq!(dealt.read(0), [0, 3]);
    let (one, other) = (dealt.read(1), dealt.read(2));
    assert!(one.len().abs_diff(other.len()) <= 1, "{} and {}", one.len(), other.len());
    dealt.deal(100);
    assert_eq!(dealt.read(0).len(), 2);
}
