//! The input of a task: the reading ends of all the lanes that lead to it, and the waiting for them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use super::allowance::Allowance;
use super::between::{Between, Numbered, PerNumbered, Watermark};
use super::reader::{Found, Reader, Taker};
use super::sync::{Arc, Bell, Ordering, comes_soon, fence, park_within, pause_for, thread};
use super::{ANY, BROKEN, FULL, GONE, RUNNING, ReaderState};

/// The records a reader must have taken in one go to count its stream as fast.
const FAST_RECORDS: usize = 32;

/// The input of one task: every lane that leads to it.
pub(crate) struct Inbox<T> {
    lanes: VecDeque<Reader<T>>,
    allowance: Allowance,
    signal: Arc<ReaderState>,
    /// How long records may wait for their block to fill; zero on the inline backend, where nobody waits.
    flush_interval: Duration,
    /// Whether partial blocks are taken at once: the stream is slow, or has just begun.
    eager: bool,
    /// Set when a timed wait for fuller lanes has run out: take what there is. Counts what that gave.
    overdue: Option<usize>,
    /// How many records the last look found, on the first lane.
    found: usize,
    satisfied: bool,
    /// Inputs whose lanes have all finished and been emptied, and that nobody was told of yet.
    ended: Vec<usize>,
    /// The watermark of all the lanes together, as it was last handed on; it never goes back.
    watermark: Watermark,
    /// The round of each signal that has passed all the lanes, as it was last handed on.
    rounds: PerNumbered<u64>,
}

/// What one look at all the lanes of a task gave.
pub(crate) enum Polled {
    /// Records: those that the next [`Inbox::take`] hands over, or, of a poll, that were handed over.
    Taken,
    /// A watermark holds from here on, that of all the lanes together; or a signal has passed all the lanes: what was
    /// written before it was handed over.
    Between(Between),
    /// Nothing to take yet.
    Nothing,
    /// Every lane is finished and empty.
    Finished,
    /// A writer ended without finishing.
    Aborted,
}

impl<T> Inbox<T> {
    pub(crate) fn new(lanes: Vec<Reader<T>>, signal: Arc<ReaderState>, flush_interval: Duration) -> Self {
        let mut inbox = Self {
            lanes: lanes.into(),
            allowance: Allowance::new(0, 0),
            signal,
            flush_interval,
            eager: true,
            overdue: None,
            found: 0,
            satisfied: false,
            ended: Vec::new(),
            watermark: Watermark::NONE,
            rounds: Default::default(),
        };
        inbox.works_on(1);
        inbox
    }

    /// Says how many records the reading task works on at once; it is one unless said.
    pub(crate) fn works_on(&mut self, records: usize) {
        let most = self.lanes.iter().map(Reader::slow_records).max().unwrap_or(0);
        self.allowance = Allowance::new(records.saturating_mul(2), most.saturating_mul(self.lanes.len()));
        self.allow();
    }

    /// Learns how long the reading task took for some records, with all that comes behind them.
    pub(crate) fn took(&mut self, records: usize, time: Duration) {
        if records > 0 && self.allowance.took(records, time) {
            self.allow();
        }
    }

    #[cold]
    fn allow(&mut self) {
        let each = (self.allowance.records() / self.lanes.len().max(1)).max(1);
        self.lanes.iter_mut().for_each(|lane| lane.allow(each));
    }

    /// Says that the reader ends because it wants no more records, not because it failed.
    pub(crate) fn satisfied(&mut self) {
        self.satisfied = true;
    }

    /// Takes one run of records, from the lanes in turn.
    pub(crate) fn poll<X: Taker<T>>(&mut self, taker: &mut X) -> Result<Polled, X::Refusal> {
        let polled = self.look();
        self.take(taker).map(|()| polled)
    }

    /// Hands over the records that the last look has found, if it has.
    #[inline(always)]
    pub(crate) fn take<X: Taker<T>>(&mut self, taker: &mut X) -> Result<(), X::Refusal> {
        let count = std::mem::take(&mut self.found);
        if count == 0 {
            return Ok(());
        }
        // SAFETY: the last look found so many on this lane, and nothing was taken since.
        let taken = unsafe { self.lanes[0].take(count, taker) };
        self.lanes.rotate_left(1);
        taken
    }

    /// Looks for one run of records, on the lanes in turn.
    pub(crate) fn look(&mut self) -> Polled {
        self.found = 0;
        let partial = self.eager || self.overdue.is_some() || self.flush_interval.is_zero();
        let mut looked = 0;
        while looked < self.lanes.len() {
            if !partial && !self.lanes[0].has_full() {
                self.lanes.rotate_left(1);
                looked += 1;
                continue;
            }
            match self.lanes[0].look() {
                Found::Records { count, full } if full || partial => {
                    self.pace(count, full);
                    let run = count.min(self.lanes[0].run());
                    // What is left of it waits for no more.
                    self.eager |= run < count;
                    self.found = run;
                    return Polled::Taken;
                }
                Found::Records { .. } | Found::Nothing => {
                    self.lanes.rotate_left(1);
                    looked += 1;
                }
                Found::Watermark(watermark) => {
                    self.lanes[0].heed(watermark);
                    if let Some(watermark) = self.advance() {
                        return Polled::Between(Between::Watermark(watermark));
                    }
                }
                Found::Signalled(signal, round) => {
                    self.lanes[0].pass(signal, round);
                    if let Some(passed) = self.passed() {
                        return Polled::Between(passed);
                    }
                }
                Found::Finished => {
                    self.lane_finished();
                    if let Some(watermark) = self.advance() {
                        return Polled::Between(Between::Watermark(watermark));
                    }
                }
                Found::Aborted => return Polled::Aborted,
            }
        }
        if self.lanes.is_empty() {
            return Polled::Finished;
        }
        // Where the lane that held a signal up has ended.
        if let Some(passed) = self.passed() {
            return Polled::Between(passed);
        }
        if let Some(gathered) = self.overdue.take() {
            self.eager = gathered < FAST_RECORDS;
        }
        Polled::Nothing
    }

    /// Removes a lane whose every record was taken. An input has ended when none of its lanes is left.
    #[cold]
    fn lane_finished(&mut self) {
        let Some(finished) = self.lanes.pop_front() else { return };
        if !self.lanes.iter().any(|lane| lane.input == finished.input) {
            self.ended.push(finished.input);
        }
        self.allow();
    }

    /// An input that has ended: every record of it was handed over. Each is told once.
    pub(crate) fn take_ended(&mut self) -> Option<usize> {
        self.ended.pop()
    }

    /// What the watermarks of the lanes come to, if that is news. A lane that has ended no longer counts.
    fn advance(&mut self) -> Option<Watermark> {
        let watermark = Watermark::merged(self.lanes.iter().filter_map(Reader::watermark))?;
        let watermark = Watermark { millis: watermark.millis.max(self.watermark.millis), ..watermark };
        (std::mem::replace(&mut self.watermark, watermark) != watermark).then_some(watermark)
    }

    /// A signal that has passed all the lanes, if that is news.
    fn passed(&mut self) -> Option<Between> {
        for &signal in Numbered::ALL {
            // One that is awaited on none of the lanes holds up no other.
            let Some(round) = self.lanes.iter().filter_map(|lane| lane.round(signal)).min() else { continue };
            let last = &mut self.rounds[signal as usize];
            if round > std::mem::replace(last, round.max(*last)) {
                return Some(Between::Numbered(signal, round));
            }
        }
        None
    }

    fn pace(&mut self, count: usize, full: bool) {
        match &mut self.overdue {
            Some(gathered) => *gathered += count,
            None => self.eager = !full && count < FAST_RECORDS,
        }
    }

    /// Has the next look or wait take partial blocks, however fast records come: for a task that does not wait for
    /// records alone, and whose waits for fuller blocks would be cut short.
    pub(crate) fn hurry(&mut self) {
        self.eager = true;
    }

    fn ready(&mut self) -> bool {
        let partial = self.eager;
        self.lanes.iter_mut().any(|lane| match partial {
            true => lane.look() != Found::Nothing,
            false => lane.has_full(),
        })
    }

    /// Tells the writers what this reader waits for, or that it has ended.
    fn announce(&self, mode: u8) {
        self.signal.mode.store(mode, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if mode >= ANY {
            self.lanes.iter().for_each(Reader::call_writer);
            fence(Ordering::SeqCst);
        }
    }

    /// Whether its task can wait, and not only return to others.
    pub(crate) fn can_wait(&self) -> bool {
        !self.flush_interval.is_zero()
    }

    /// Waits until a look may find something or the thread is unparked for another reason. Returns at
    /// once when `interrupted` says so, and after `limit` at the latest.
    pub(crate) fn wait(&mut self, interrupted: impl Fn() -> bool, limit: Option<Duration>) {
        if comes_soon(|| self.ready() || interrupted()) {
            return;
        }
        self.signal.reader.get_or_init(thread::current);
        self.wait_for(if self.eager { ANY } else { FULL }, interrupted, limit, park_within);
    }

    /// As [`wait`](Self::wait), for something else besides. `pause` waits for that, for so long at most, and returns
    /// whether it has come; early when the bell rings.
    pub(crate) fn wait_by(
        &mut self,
        bell: &Arc<Bell>,
        interrupted: impl Fn() -> bool,
        limit: Option<Duration>,
        pause: impl Fn(Option<Duration>) -> bool,
    ) {
        self.signal.bell.get_or_init(|| bell.clone());
        self.hurry();
        let has_come = Cell::new(false);
        self.wait_for(ANY, || has_come.get() || interrupted(), limit, |limit| has_come.set(pause(limit)));
    }

    fn wait_for(
        &mut self,
        mode: u8,
        interrupted: impl Fn() -> bool,
        limit: Option<Duration>,
        pause: impl Fn(Option<Duration>),
    ) {
        self.announce(mode);
        if !self.ready() {
            let signal = &self.signal;
            let waiting = || signal.mode.load(Ordering::Acquire) == mode && !interrupted();
            let interval = limit.map_or(self.flush_interval, |limit| limit.min(self.flush_interval));
            pause_for(interval, waiting, &pause);
            if waiting() && !self.ready() {
                match mode {
                    ANY => pause(limit),
                    _ => self.overdue = Some(0),
                }
            }
        }
        self.signal.mode.store(RUNNING, Ordering::Relaxed);
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.announce(if self.satisfied { GONE } else { BROKEN });
        for lane in &self.lanes {
            lane.unpark_writer();
        }
    }
}
