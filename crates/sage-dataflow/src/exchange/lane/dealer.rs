//! Deals records to several lanes in turn, but for those that have no room: a slow reader holds up no other.

use super::{Pushed, Refused, Wait, Writer};

/// After so many records lanes that are full are looked at again, if nothing else has had the dealer attended to.
const RECORDS_BETWEEN_LOOKS: usize = 64;

/// Which of a producer's lanes gets the next record. A lane that nobody reads takes its part, and drops it.
///
/// A push calls nothing: what it finds is [attended](Self::attend) to once the chain's loop has been left, which has
/// the registers to itself then.
pub(crate) struct Dealer {
    /// It has room, unless the last push asked for attention.
    next: usize,
    /// What the lane asked for that the last push went to, if that push asked for attention.
    due: Option<Pushed>,
    /// How many more records may be dealt before full lanes are looked at.
    left: usize,
    /// Which lanes had no room when they were last looked at, and how many these are.
    full: Box<[bool]>,
    count: usize,
}

impl Dealer {
    /// Of so many lanes; the first record goes to lane `first`.
    pub(crate) fn new(lanes: usize, first: usize) -> Self {
        Self { next: first % lanes, due: None, left: usize::MAX, full: vec![false; lanes].into(), count: 0 }
    }

    /// Appends a record to the lane whose turn it is.
    #[inline(always)]
    pub(crate) fn push<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>], record: T) -> Pushed {
        let pushed = lanes[self.next].push(record);
        if pushed == Pushed::Attend || self.left == 0 {
            self.due = Some(pushed);
            return Pushed::Attend;
        }
        self.left -= 1;
        self.go_on();
        // This lane has room, so that there is one.
        while self.count > 0 && self.full[self.next] {
            self.go_on();
        }
        Pushed::Done
    }

    /// Does what the last push asked for: waits until one of the lanes has room, or nobody wants more.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>]) -> Result<(), Refused> {
        if let Some(pushed) = self.due.take() {
            if pushed == Pushed::Attend {
                self.look(lanes, self.next)?;
            }
            self.go_on();
        }
        self.look_again(lanes)?;
        while self.count == lanes.len() {
            Writer::park_for_any(lanes);
            self.look_again(lanes)?;
        }
        while self.full[self.next] {
            self.go_on();
        }
        self.left = if self.count == 0 { usize::MAX } else { RECORDS_BETWEEN_LOOKS };
        if lanes.iter().all(Writer::reader_gone) { Err(Refused::ReaderGone) } else { Ok(()) }
    }

    #[inline(always)]
    fn go_on(&mut self) {
        let next = self.next + 1;
        self.next = if next == self.full.len() { 0 } else { next };
    }

    /// Looks whether lanes that were full have room.
    fn look_again<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>]) -> Result<(), Refused> {
        if self.count == 0 {
            return Ok(());
        }
        (0..lanes.len()).try_for_each(|lane| if self.full[lane] { self.look(lanes, lane) } else { Ok(()) })
    }

    /// Attends to a lane, and finds out whether it has room.
    fn look<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>], lane: usize) -> Result<(), Refused> {
        let full = match lanes[lane].attend_now() {
            Ok(()) | Err(Refused::ReaderGone) => false,
            Err(Refused::Full) => true,
            Err(refused) => return Err(refused),
        };
        let before = std::mem::replace(&mut self.full[lane], full);
        self.count = self.count + usize::from(full) - usize::from(before);
        Ok(())
    }
}
