//! Session windows: the records of a key that follow each other in less than a gap.
//!
//! Each record begins as its own window, from its time until one gap later, and overlapping windows of a key become
//! one. So the order in which records come does not matter, as long as none is late.
//!
//! Each key has a slot, with its open sessions in order, and one timer in a heap, for the first moment at which one of
//! them has to fire or to be forgotten. A session that has grown meanwhile gets a new timer when the old one is due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::aggregate::Aggregate;
use super::grid::Lateness;
use super::window::{OpenWindows, WindowedOf, result};
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, OpenContext};
use crate::guarded::opaque;
use crate::key::KeySelector;
use crate::time::{Timed, Timestamp, Window, Windowed, whole_millis};

/// `window` with sessions.
pub struct SessionWindows<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> {
    /// How long after its first moment a record's own window has its last one: the gap less a millisecond.
    reach: u64,
    lateness: Lateness,
    key: S,
    aggregate: A,
    slot_of: HashMap<S::Key, usize, RandomState>,
    slots: Vec<KeySessions<S::Key, T, A::State>>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(i64, usize)>>,
    watermark: i64,
    /// Sessions that end then or before take no more records.
    expiry: i64,
}
opaque!([S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>] SessionWindows<S, T, A>);

/// The sessions of a key, which do not overlap, by time. A slot without a key is free.
struct KeySessions<K, T, V> {
    key: Option<K>,
    sessions: Vec<Open<T, V>>,
    /// The timer that counts, if there is one; others in the heap are out of date.
    timer: Option<i64>,
}

/// A session that has not ended for good.
struct Open<T, V> {
    start: i64,
    /// Its last moment, which there is also at the end of time, where its end is not.
    last: i64,
    /// What was gathered, where that can be merged with another's.
    state: V,
    /// The records, where it cannot.
    values: Vec<T>,
    fired: bool,
}

impl<T, V> Open<T, V> {
    fn end(&self) -> i64 {
        self.last.saturating_add(1)
    }

    fn window(&self) -> Window {
        Window { start: Timestamp::from_millis(self.start), end: Timestamp::from_millis(self.end()) }
    }

    /// When there is something to do for it.
    fn deadline(&self, lateness: Lateness) -> i64 {
        if self.fired { lateness.after(self.end()) } else { self.end() }
    }

    fn value<K, A: Aggregate<K, T, State = V>>(&self, key: &K, aggregate: &mut A) -> Result<A::Out, Fault> {
        if A::MERGES {
            return Ok(aggregate.look(key, self.window(), &self.state));
        }
        let mut state = aggregate.start();
        self.values.iter().try_for_each(|value| aggregate.add(&mut state, value))?;
        Ok(aggregate.finish(key, self.window(), state))
    }
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> SessionWindows<S, T, A> {
    /// Sessions that end after `gap`, in whole milliseconds; none of all time is longer than the longest that is told
    /// apart.
    pub(crate) fn new(gap: Duration, lateness: Lateness, key: S, aggregate: A) -> Self {
        let reach = u64::try_from(whole_millis(gap).max(1) - 1).unwrap_or(u64::MAX);
        Self::reaching(reach, lateness, key, aggregate)
    }

    fn reaching(reach: u64, lateness: Lateness, key: S, aggregate: A) -> Self {
        Self {
            reach,
            lateness,
            key,
            aggregate,
            slot_of: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            watermark: i64::MIN,
            expiry: i64::MIN,
        }
    }

    /// The slot of a record's key, which gets one if the record is not late.
    fn slot(&mut self, record: &Timed<T>, is_late: bool) -> Option<usize>
    where
        S::Key: Clone,
    {
        let key = self.key.select(record);
        if let Some(&slot) = self.slot_of.get(S::lookup(&key)) {
            return Some(slot);
        }
        if is_late {
            return None;
        }
        let key = S::into_key(key);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(KeySessions { key: None, sessions: Vec::new(), timer: None });
            self.slots.len() - 1
        });
        self.slots[slot].key = Some(key.clone());
        self.slots[slot].timer = None;
        self.slot_of.insert(key, slot);
        Some(slot)
    }

    /// Puts a record into the session of its slot, merging those it joins. Gives the record back if it is late; else
    /// the number of its session.
    fn place(&mut self, slot: usize, record: Timed<T>, is_late: bool) -> Result<Result<usize, Timed<T>>, Fault> {
        let start = record.time.millis();
        let last = start.saturating_add_unsigned(self.reach);
        let sessions = &mut self.slots[slot].sessions;
        let first = sessions.partition_point(|session| session.last < start);
        let behind = first + sessions[first..].partition_point(|session| session.start <= last);
        if first == behind {
            if is_late {
                return Ok(Err(record));
            }
            let open = Open { start, last, state: self.aggregate.start(), values: Vec::new(), fired: false };
            sessions.insert(first, open);
        }
        let (before, after) = sessions.split_at_mut(first + 1);
        let session = &mut before[first];
        for other in after.iter_mut().take(behind.saturating_sub(first + 1)) {
            session.last = session.last.max(other.last);
            session.values.append(&mut other.values);
            let state = std::mem::replace(&mut other.state, self.aggregate.start());
            if A::MERGES {
                self.aggregate.merge(&mut session.state, state);
            }
        }
        session.start = session.start.min(start);
        session.last = session.last.max(last);
        let taken = if A::MERGES {
            self.aggregate.take(&mut session.state, record.value)
        } else {
            session.values.push(record.value);
            Ok(())
        };
        if behind > first + 1 {
            sessions.drain(first + 1..behind);
        }
        taken.map(|()| Ok(first))
    }

    /// Sees to it that the slot is looked at by `deadline`.
    fn set_timer(&mut self, slot: usize, deadline: i64) {
        if self.slots[slot].timer.is_none_or(|timer| deadline < timer) {
            self.slots[slot].timer = Some(deadline);
            self.timers.push(Reverse((deadline, slot)));
        }
    }

    /// Does what is due in a slot.
    fn fire(&mut self, slot: usize, out: &mut impl Emit<Timed<Windowed<S::Key, A::Out>>>) -> Result<(), Fault>
    where
        S::Key: Clone,
    {
        let (watermark, expiry, lateness) = (self.watermark, self.expiry, self.lateness);
        let KeySessions { key, sessions, timer } = &mut self.slots[slot];
        let Some(key) = key else { return Ok(()) };
        for session in sessions.iter_mut().filter(|session| !session.fired && session.end() <= watermark) {
            session.fired = true;
            let value = session.value(key, &mut self.aggregate)?;
            out.emit(result(key.clone(), session.window(), value))?;
        }
        sessions.retain(|session| session.end() > expiry);
        *timer = None;
        match sessions.iter().map(|session| session.deadline(lateness)).min() {
            Some(deadline) => self.set_timer(slot, deadline),
            None => {
                self.slot_of.remove(std::borrow::Borrow::borrow(key));
                self.slots[slot].key = None;
                self.free.push(slot);
            }
        }
        Ok(())
    }
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> Clone for SessionWindows<S, T, A> {
    fn clone(&self) -> Self {
        Self::reaching(self.reach, self.lateness, self.key.clone(), self.aggregate.clone())
    }
}

impl<S, T, A> OpenWindows for SessionWindows<S, T, A>
where
    S: KeySelector<Timed<T>>,
    S::Key: Clone,
    T: Send + 'static,
    A: Aggregate<S::Key, T>,
{
    type Value = T;
    type Key = S::Key;
    type Result = A::Out;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.aggregate.open(cx)
    }

    #[inline(always)]
    fn take<E: Emit<Timed<WindowedOf<Self>>>>(
        &mut self,
        record: Timed<T>,
        out: &mut E,
        late: impl FnOnce(Timed<T>, &mut E) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let last = record.time.millis().saturating_add_unsigned(self.reach);
        let is_late = last.saturating_add(1) <= self.expiry;
        let Some(slot) = self.slot(&record, is_late) else {
            return late(record, out);
        };
        let index = match self.place(slot, record, is_late)? {
            Ok(index) => index,
            Err(record) => return late(record, out),
        };
        let session = &mut self.slots[slot].sessions[index];
        session.fired = false;
        let deadline = session.end();
        if deadline <= self.watermark {
            return self.fire(slot, out);
        }
        self.set_timer(slot, deadline);
        Ok(())
    }

    /// Fires what has ended, in the order of the timers, and forgets what is past its lateness.
    fn advance(&mut self, watermark: i64, out: &mut impl Emit<Timed<WindowedOf<Self>>>) -> Result<(), Fault> {
        if watermark <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark;
        self.expiry = self.lateness.expiry(watermark);
        while let Some(&Reverse((deadline, slot))) = self.timers.peek() {
            if deadline > watermark {
                break;
            }
            self.timers.pop();
            if self.slots[slot].timer == Some(deadline) && self.slots[slot].key.is_some() {
                self.fire(slot, out)?;
            }
        }
        Ok(())
    }

    fn fires_at(&self) -> i64 {
        self.timers.peek().map_or(i64::MAX, |Reverse((deadline, _))| *deadline)
    }

    fn discard(&mut self) -> u64 {
        (self.slot_of, self.free) = (HashMap::default(), Vec::new());
        self.timers.clear();
        let sessions = std::mem::take(&mut self.slots).into_iter().flat_map(|slot| slot.sessions);
        sessions.filter(|session| !session.fired).count() as u64
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.aggregate.close(cx)
    }
}
