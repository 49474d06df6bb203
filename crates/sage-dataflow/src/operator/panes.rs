//! Sliding windows of which each is put together from panes: those spans of time in which every record is in the same
//! windows.
//!
//! A record is counted once, in its pane, however many windows it is in. What each key has in a window is that of the
//! window before, and of the panes that the window has more, without those that it has no more. So a window costs what
//! its keys and two panes cost.
//!
//! Invariants:
//!  1. `window` has what each key has in those of the panes that begin before `entered`. All of them are in the window
//!     that begins at `next`; those that begin later are in no window that has fired.
//!  2. The pane at hand has not entered, and is not among the others.

use std::collections::BTreeMap;
use std::hash::Hash;

use super::aggregate::Aggregate;
use super::grid::Grid;
use super::window::Spare;
use crate::chain::Fault;
use crate::key::{self, KeySelector};
use crate::table::Table;
use crate::time::{Timed, clamped};

/// A table with less room than this is not worth the work of giving memory back.
const LITTLE_ROOM: usize = 4096;

pub(super) struct Panes<K, V> {
    /// The pane at hand, which is that of the last record: its first and last moment. No moment, if there is none.
    first: i64,
    last: i64,
    table: Table<K, V>,
    /// The last moment of the pane that was at hand before, and how many keys it had.
    before: (i64, usize),
    /// The other panes, by their first moment. A key has the same hash in all tables.
    others: BTreeMap<i64, Table<K, V>>,
    spare: Spare<K, V>,
    window: Table<K, V>,
    entered: i128,
    /// Windows that begin before have fired, or take no more records.
    next: i128,
}

impl<K: Hash + Eq, V> Panes<K, V> {
    pub(super) fn new() -> Self {
        let table = Table::default();
        Self {
            first: i64::MAX,
            last: i64::MIN,
            spare: Spare::new(&table),
            window: table.afresh(),
            table,
            before: (i64::MAX, 0),
            others: BTreeMap::new(),
            entered: i128::MIN,
            next: i128::MIN,
        }
    }

    /// Whether the pane at hand is that of a record of this time.
    #[inline(always)]
    pub(super) fn is_at_hand(&self, time: i64) -> bool {
        self.first <= time && time <= self.last
    }

    #[inline(always)]
    pub(super) fn at_hand(&self) -> &Table<K, V> {
        &self.table
    }

    /// Takes a record into the pane at hand.
    #[inline(always)]
    pub(super) fn add<S, T, A>(
        &mut self,
        noted: Option<(u64, S::Noted)>,
        selector: &mut S,
        record: Timed<T>,
        aggregate: &mut A,
    ) -> Result<(), Fault>
    where
        S: KeySelector<Timed<T>, Key = K>,
        A: Aggregate<K, T, State = V>,
    {
        let (hash, selected) = key::selected(noted, selector, &record, |key| self.table.begin(key));
        let state = S::entry(&mut self.table, hash, selected, |key| (S::into_key(key), aggregate.start()));
        aggregate.take(state, record.value)
    }

    /// Takes a record into a pane that is not at hand.
    #[inline(never)]
    pub(super) fn add_elsewhere<S, T, A>(
        &mut self,
        grid: Grid,
        selector: &mut S,
        record: Timed<T>,
        aggregate: &mut A,
    ) -> Result<(), Fault>
    where
        S: KeySelector<Timed<T>, Key = K>,
        A: Aggregate<K, T, State = V>,
    {
        let (first, last) = grid.alike(record.time.millis());
        if i128::from(first) >= self.entered {
            self.take_up(first, last);
            return self.add(None, selector, record, aggregate);
        }
        let table = self.others.entry(first).or_insert_with(|| self.spare.take());
        aggregate.add(selector.state_of(table, &record, || aggregate.start()), &record.value)?;
        let state = selector.state_of(&mut self.window, &record, || aggregate.start());
        aggregate.take(state, record.value)
    }

    fn take_up(&mut self, first: i64, last: i64) {
        self.put_back();
        self.table = self.others.remove(&first).unwrap_or_else(|| {
            let mut table = self.spare.take();
            // As many keys may come as in the pane before: then the table need not grow again and again. Only behind
            // that pane, so that panes take no more than twice the room of their keys.
            if self.before.0.checked_add(1) == Some(first) {
                table.reserve(self.before.1);
            }
            table
        });
        (self.first, self.last) = (first, last);
    }

    /// Puts the pane at hand, if there is one, among the others.
    fn put_back(&mut self) {
        if self.first <= self.last {
            self.before = (self.last, self.table.len());
            self.others.insert(self.first, self.table.take());
        }
        (self.first, self.last) = (i64::MAX, i64::MIN);
    }

    /// The first window that has a record and has not fired: where it begins.
    pub(super) fn first(&self, grid: Grid) -> Option<i128> {
        if !self.window.is_empty() {
            return Some(self.next);
        }
        let at_hand = (self.first <= self.last).then_some(self.first);
        let first = at_hand.into_iter().chain(self.others.keys().next().copied()).min()?;
        Some(grid.around(first).0.max(self.next))
    }

    /// Puts together the window that begins at `start`: the first one, as [`first`](Self::first) says. Returns what
    /// each key has in it.
    pub(super) fn enter<T, A>(&mut self, grid: Grid, start: i128, aggregate: &mut A) -> &Table<K, V>
    where
        K: Clone,
        A: Aggregate<K, T, State = V>,
    {
        let end = start + grid.size();
        if i128::from(self.first) < end {
            self.put_back();
        }
        let Self { others, window, entered, .. } = self;
        let behind = others.range(clamped(*entered)..).map(|(first, pane)| (i128::from(*first), pane));
        // At the end of time, the range begins too early.
        for (_, pane) in behind.skip_while(|(first, _)| first < entered).take_while(|(first, _)| *first < end) {
            if window.is_empty() {
                window.reserve(pane.len());
            }
            for (key, state) in pane.iter() {
                let hash = window.hash(key);
                let is_key = |_: &(), known: &K| known == key;
                let counted = window.find_or_insert(hash, &mut (), is_key, |()| (key.clone(), aggregate.start()));
                aggregate.enter(counted, state);
            }
        }
        (self.next, self.entered) = (start, end);
        window
    }

    /// Takes the panes out that are in no window behind the one that was put together.
    pub(super) fn leave<T, A: Aggregate<K, T, State = V>>(&mut self, grid: Grid, aggregate: &mut A) {
        self.next += grid.every();
        while let Some(pane) = self.others.first_entry() {
            if i128::from(*pane.key()) >= self.next {
                break;
            }
            let mut pane = pane.remove();
            let keys = pane.len();
            for (key, state) in pane.drain() {
                let hash = self.window.hash(&key);
                self.window.remove_if(hash, |known| *known == key, |counted| aggregate.leave(counted, &state));
            }
            self.spare.keep(pane, keys);
        }
        let room = self.window.capacity();
        if room > LITTLE_ROOM && self.window.len() < room / 8 {
            self.window.shrink();
        }
    }

    /// For so many keys the window has room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.window.capacity()
    }

    /// Says that windows that begin before `start` take no more records.
    pub(super) fn go_on_to(&mut self, start: i128) {
        self.next = self.next.max(start);
    }
}
