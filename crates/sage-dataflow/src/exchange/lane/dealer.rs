//! Deals records to several lanes in turn, but for those that have no room: a slow reader holds up no other.

use super::{Pushed, Refused, Wait, Writer};

/// Which of a producer's lanes gets the next record. A lane that nobody reads takes its part, and drops it.
pub(crate) struct Dealer {
    /// It has room, unless the last push asked for attention.
    next: usize,
    /// Which lanes had none when they were last looked at, and how many these are.
    full: Box<[bool]>,
    count: usize,
}

impl Dealer {
    /// Of so many lanes; the first record goes to lane `first`.
    pub(crate) fn new(lanes: usize, first: usize) -> Self {
        Self { next: first % lanes, full: vec![false; lanes].into(), count: 0 }
    }

    /// Appends a record to the lane whose turn it is.
    #[inline(always)]
    pub(crate) fn push<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>], record: T) -> Result<Pushed, Refused> {
        let lane = self.next;
        let pushed = lanes[lane].push(record);
        if pushed == Pushed::Done && self.count == 0 {
            self.next = if lane + 1 == lanes.len() { 0 } else { lane + 1 };
            return Ok(Pushed::Done);
        }
        self.pass_over(lanes, pushed)
    }

    /// Does what the last push asked for: waits until one of the lanes has room, or nobody wants more.
    pub(crate) fn attend<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>]) -> Result<(), Refused> {
        while !self.find(lanes)? {
            Writer::park_for_any(lanes);
        }
        if lanes.iter().all(Writer::reader_gone) { Err(Refused::ReaderGone) } else { Ok(()) }
    }

    /// Goes on to the next lane that has room. Asks for attention if there is none.
    #[cold]
    #[inline(never)]
    fn pass_over<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>], pushed: Pushed) -> Result<Pushed, Refused> {
        if pushed == Pushed::Attend {
            self.look(lanes)?;
        }
        self.go_on();
        // Where nobody reads the lane, it is asked whether anybody wants more.
        let has_room = self.find(lanes)? && !lanes[self.next].reader_gone();
        Ok(if has_room { Pushed::Done } else { Pushed::Attend })
    }

    fn go_on(&mut self) {
        self.next = (self.next + 1) % self.full.len();
    }

    /// Goes on to a lane that has room, from the next one on. Returns whether there is one.
    fn find<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>]) -> Result<bool, Refused> {
        for _ in 0..lanes.len() {
            if !self.full[self.next] || self.look(lanes)? {
                return Ok(true);
            }
            self.go_on();
        }
        Ok(false)
    }

    /// Attends to the next lane, and says whether it has room.
    fn look<T, W: Wait>(&mut self, lanes: &mut [Writer<T, W>]) -> Result<bool, Refused> {
        let full = match lanes[self.next].attend_now() {
            Ok(()) | Err(Refused::ReaderGone) => false,
            Err(Refused::Full) => true,
            Err(refused) => return Err(refused),
        };
        let before = std::mem::replace(&mut self.full[self.next], full);
        self.count = self.count + usize::from(full) - usize::from(before);
        Ok(!full)
    }
}
