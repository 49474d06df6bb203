//! Moments to come, in the order of time: what timers and sessions wait for.
//!
//! Where all wait for the same while, as they do for a time to live or a gap, moments come in their order: they wait in
//! a line. One that comes before the last of the line is sorted among the others.
//!
//! Time passes, and what is put in is mostly for a moment to come. So the others are sorted no finer than they are
//! near: each is written in digits of six bits, and an entry lies with the level of the highest digit in which its
//! moment differs from now, in the slot of that digit. When now reaches a slot, its entries move to finer levels; those
//! of the finest have the same moment. An entry moves once or twice on its way, all of a slot in a row, where a heap
//! would compare it with others all over its memory.
//!
//! What is put in for a moment that has passed waits in a heap. It is all due before the rest.
//!
//! Invariants, of the others:
//!  1. No entry of a level is before `now`, and no entry of `passed` is not.
//!  2. An entry of a level has the digits of `now` above that level. At the level itself its digit is greater, or, at
//!     the finest level, equal. So the first slot in use of the finest level in use has the earliest entries.
//!  3. A slot's bit is set if it has entries, and `earliest` is the first of their moments.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// A slot or a line that is left empty keeps room for so many entries at most.
const KEPT_ENTRIES: usize = 64;
/// So many entries ahead of its turn, the word of one is told.
const TOLD_AHEAD: usize = 16;

/// A queue of moments, in milliseconds since 1970, each with a word. Equal moments have no order.
pub(super) struct TimeQueue {
    line: VecDeque<Entry>,
    others: Sorted,
    /// The first moment of the others, or the last of all if there are none.
    first_other: u64,
}

/// Entries by the digits of their moments.
struct Sorted {
    now: u64,
    /// From the finest on, as many as were needed.
    levels: Vec<Level>,
    passed: BinaryHeap<Reverse<Entry>>,
    len: usize,
}

/// A moment, counted from the first of all, and its word.
type Entry = (u64, u64);

/// The slots of one digit; none before the first is in use.
#[derive(Default)]
struct Level {
    in_use: u64,
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    earliest: u64,
    entries: Vec<Entry>,
}

/// Moments as they are counted here: in the same order, without a sign.
const fn counted(millis: i64) -> u64 {
    millis.cast_unsigned() ^ (1 << 63)
}

const fn millis(counted: u64) -> i64 {
    (counted ^ (1 << 63)).cast_signed()
}

impl TimeQueue {
    pub(super) const fn new() -> Self {
        let others = Sorted { now: 0, levels: Vec::new(), passed: BinaryHeap::new(), len: 0 };
        Self { line: VecDeque::new(), others, first_other: u64::MAX }
    }

    /// Puts in a moment and its word.
    #[inline]
    pub(super) fn push(&mut self, at: i64, word: u64) {
        let at = counted(at);
        match self.line.back() {
            Some((last, _)) if at < *last => self.push_before((at, word)),
            _ => self.line.push_back((at, word)),
        }
    }

    /// Puts in what comes before the last of the line: that leaves the line if nothing else is in the way, so that one
    /// moment far ahead does not keep all others out.
    fn push_before(&mut self, entry: Entry) {
        let behind = self.line.len().checked_sub(2).map_or(0, |place| self.line[place].0);
        let other = match self.line.back_mut() {
            Some(last) if behind <= entry.0 => std::mem::replace(last, entry),
            _ => entry,
        };
        self.first_other = self.first_other.min(other.0);
        self.others.push(other);
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.others.len == 0
    }

    /// Takes out the earliest entry that is due by `until`; of equal ones, any. Tells `ahead` the words of those whose
    /// turn may come soon.
    #[inline]
    pub(super) fn pop(&mut self, until: i64, ahead: impl FnMut(u64)) -> Option<(i64, u64)> {
        match self.line.front() {
            Some((at, _)) if *at <= counted(until).min(self.first_other) => self.pop_of_line(ahead),
            _ => self.pop_other(until, ahead),
        }
    }

    #[inline(always)]
    fn pop_of_line(&mut self, mut ahead: impl FnMut(u64)) -> Option<(i64, u64)> {
        if let Some((_, word)) = self.line.get(TOLD_AHEAD) {
            ahead(*word);
        }
        let (at, word) = self.line.pop_front()?;
        let room = self.line.capacity();
        if room > KEPT_ENTRIES && self.line.len() < room / 8 {
            self.line.shrink_to(room / 4);
        }
        Some((millis(at), word))
    }

    #[inline(never)]
    fn pop_other(&mut self, until: i64, ahead: impl FnMut(u64)) -> Option<(i64, u64)> {
        let popped = self.others.pop(counted(until), ahead)?;
        self.first_other = self.others.earliest().unwrap_or(u64::MAX);
        Some((millis(popped.0), popped.1))
    }

    /// The earliest moment.
    pub(super) fn earliest(&self) -> Option<i64> {
        let first = self.line.front().map(|(at, _)| *at);
        first.into_iter().chain(self.others.earliest()).min().map(millis)
    }

    /// Drops all entries.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

impl Sorted {
    fn push(&mut self, (at, word): Entry) {
        self.len += 1;
        if at < self.now {
            self.passed.push(Reverse((at, word)));
        } else {
            self.place(at, word);
        }
    }

    /// Puts in what is not before now.
    #[inline]
    fn place(&mut self, at: u64, word: u64) {
        let level = ((at ^ self.now) | 1).ilog2() / DIGIT_BITS;
        let digit = (at >> (level * DIGIT_BITS)) as usize % SLOTS;
        let Some(Level { in_use, slots }) = self.levels.get_mut(level as usize).filter(|level| !level.slots.is_empty())
        else {
            return self.place_in_new(level as usize, digit, (at, word));
        };
        let slot = &mut slots[digit];
        slot.earliest = if *in_use & (1 << digit) == 0 { at } else { slot.earliest.min(at) };
        slot.entries.push((at, word));
        *in_use |= 1 << digit;
    }

    #[cold]
    fn place_in_new(&mut self, level: usize, digit: usize, entry: Entry) {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Level::default);
        }
        let Level { in_use, slots } = &mut self.levels[level];
        slots.resize_with(SLOTS, Slot::default);
        slots[digit] = Slot { earliest: entry.0, entries: vec![entry] };
        *in_use = 1 << digit;
    }

    /// Takes out the earliest entry that is due by `until`. Where many are due at one moment, tells `ahead` the words
    /// of those whose turn comes soon.
    fn pop(&mut self, until: u64, ahead: impl FnMut(u64)) -> Option<Entry> {
        let popped = self.pop_due(until, ahead);
        self.len -= usize::from(popped.is_some());
        popped
    }

    #[inline(always)]
    fn pop_due(&mut self, until: u64, mut ahead: impl FnMut(u64)) -> Option<Entry> {
        if let Some(Reverse((at, _))) = self.passed.peek() {
            return if *at <= until { self.passed.pop().map(|Reverse(entry)| entry) } else { None };
        }
        loop {
            let Some(level) = self.levels.iter().position(|level| level.in_use != 0) else {
                self.now = self.now.max(until);
                return None;
            };
            let Level { in_use, slots } = &mut self.levels[level];
            let digit = in_use.trailing_zeros();
            let start = self.now >> (level as u32 * DIGIT_BITS) >> DIGIT_BITS << DIGIT_BITS | u64::from(digit);
            let start = start << (level as u32 * DIGIT_BITS);
            if start > until {
                self.now = self.now.max(until);
                return None;
            }
            self.now = self.now.max(start);
            let slot = &mut slots[digit as usize];
            if level > 0 {
                *in_use &= *in_use - 1;
                self.refine(level, digit as usize);
                continue;
            }
            let popped = slot.entries.pop();
            if let Some(told) = slot.entries.len().checked_sub(TOLD_AHEAD) {
                ahead(slot.entries[told].1);
            }
            if slot.entries.is_empty() {
                *in_use &= *in_use - 1;
                if slot.entries.capacity() > KEPT_ENTRIES {
                    slot.entries = Vec::new();
                }
            }
            return popped;
        }
    }

    /// Moves the entries of a slot that now has reached to finer levels.
    fn refine(&mut self, level: usize, digit: usize) {
        let mut entries = std::mem::take(&mut self.levels[level].slots[digit].entries);
        entries.drain(..).for_each(|(at, word)| self.place(at, word));
        if entries.capacity() <= KEPT_ENTRIES {
            self.levels[level].slots[digit].entries = entries;
        }
    }

    /// The earliest moment.
    fn earliest(&self) -> Option<u64> {
        let passed = self.passed.peek().map(|Reverse((at, _))| *at);
        let to_come = || {
            let level = self.levels.iter().find(|level| level.in_use != 0)?;
            Some(level.slots[level.in_use.trailing_zeros() as usize].earliest)
        };
        passed.or_else(to_come)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(i64),
        /// A moment so long after the last one that was reached.
        Later(i64),
        PopUntil(i64),
        /// Pops one only of those that are due.
        PopOne(i64),
    }

    fn moment() -> impl Strategy<Value = i64> {
        let near = 0..=300_i64;
        prop_oneof![
            near.clone(),
            near.clone().prop_map(|offset| i64::MAX - offset),
            near.clone().prop_map(|offset| i64::MIN + offset),
            near.prop_map(|offset| 1_700_000_000_000 + 40 * offset),
            any::<i64>(),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            moment().prop_map(Step::Push),
            (0..40_u32, 0..64_i64).prop_map(|(bits, low)| Step::Later(1 << bits | low)),
            (0..40_u32, 0..64_i64).prop_map(|(bits, low)| Step::Later(1 << bits | low)),
            moment().prop_map(Step::PopUntil),
            (0..20_u32, 0..64_i64).prop_map(|(bits, low)| Step::PopOne(1 << bits | low)),
            (0..40_u32, 0..64_i64).prop_map(|(bits, low)| Step::PopUntil(1 << bits | low)),
        ]
    }

    proptest! {
        #[test]
        fn entries_come_out_as_of_a_heap(steps in prop::collection::vec(step(), 0..200)) {
            let mut queue = TimeQueue::new();
            let mut heap = BinaryHeap::new();
            let mut reached = 0;
            for (word, step) in steps.into_iter().enumerate() {
                let word = word as u64;
                let (until, most) = match step {
                    Step::Push(at) => (None, at),
                    Step::Later(after) => (None, i64::saturating_add(reached, after)),
                    Step::PopUntil(until) => (Some(until), i64::MAX),
                    Step::PopOne(after) => (Some(i64::saturating_add(reached, after)), 1),
                };
                let Some(until) = until else {
                    queue.push(most, word);
                    heap.push(Reverse((most, word)));
                    prop_assert_eq!(queue.earliest(), heap.peek().map(|Reverse((at, _))| *at));
                    continue;
                };
                reached = until;
                // Equal moments come in any order.
                let (mut popped, mut due) = (Vec::new(), Vec::new());
                let mut before = i64::MIN;
                while (popped.len() as i64) < most && let Some((at, word)) = queue.pop(until, |_| ()) {
                    prop_assert!(before <= at && at <= until);
                    before = at;
                    popped.push((at, word));
                }
                while (due.len() as i64) < most && heap.peek().is_some_and(|Reverse((at, _))| *at <= until) {
                    due.extend(heap.pop().map(|Reverse(entry)| entry));
                }
                if most == 1 {
                    prop_assert_eq!(popped.len(), due.len());
                    // The other may have another of the same moment.
                    for (ours, theirs) in popped.iter().zip(&due) {
                        prop_assert_eq!(ours.0, theirs.0);
                        heap.push(Reverse(*theirs));
                        heap.retain(|Reverse(entry)| entry != ours);
                    }
                } else {
                    popped.sort_unstable();
                    prop_assert_eq!(popped, due);
                }
                prop_assert_eq!(queue.earliest(), heap.peek().map(|Reverse((at, _))| *at));
                prop_assert_eq!(queue.is_empty(), heap.is_empty());
            }
            queue.clear();
            prop_assert!(queue.earliest().is_none() && queue.pop(i64::MAX, |_| ()).is_none());
        }
    }
}
