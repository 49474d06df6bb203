//! Sliding windows: a row for each key, with the states of its open windows side by side.
//!
//! A record is in several windows. One look-up finds the row of its key, and the states to change lie in a row there.
//! The places of a row go round: when a window has fired, its place is that of a later one. Each window has a list of
//! the rows that have something in it, so that no other row is looked at when it fires.
//!
//! Rows have room for the windows around the watermark. Those that are too far ahead have a table each, as in
//! [`AlignedWindows`], which also does the whole work where windows are kept after they have fired, or where a record
//! is in very many.
//!
//! An aggregate that can take a part of its records back, as a count can, needs neither: `panes.rs`.
//!
//! Invariants:
//!  1. A window from `base` on and before `limit` lies in the rows, any other in a table. No window that has a table is
//!     in between, and `limit` only grows, but for a window that gets a table at `limit` or behind.
//!  2. The list of a window has each row once that has a state in the window's place, and `open` counts those of a row.
//!     A row without any is free, and has no key.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::aggregate::Aggregate;
use super::grid::{Grid, Lateness};
use super::panes::Panes;
use super::window::{AlignedWindows, OpenWindows, WindowedOf, result};
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, OpenContext};
use crate::guarded::opaque;
use crate::key::{self, KeySelector, Noted};
use crate::table::{Entries, fetch_all};
use crate::time::{Timed, Windowed};

/// A row has this many windows at most when a record comes that is in so many.
const MOST_WINDOWS: usize = 1024;
/// Fewer rows than these are not worth the work of giving memory back.
const FEW_ROWS: usize = 4096;

/// `window` with sliding windows.
pub struct SlidingWindows<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> {
    aligned: AlignedWindows<S, T, A>,
    /// In place of rows and tables.
    panes: Option<Box<Panes<S::Key, A::State>>>,
    rows: Option<Box<Rows<S::Key, A::State>>>,
    noted: Noted<S::Noted>,
}
opaque!([S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>] SlidingWindows<S, T, A>);

/// The windows that a record of a certain time is in, if all of them that still take records lie in rows.
#[derive(Debug, Clone, Copy)]
struct Pane {
    /// The first and the last moment with the same windows.
    from: i64,
    to: i64,
    /// The place of the first window, and how many there are.
    place: usize,
    windows: usize,
}

/// No moment is in it.
const NO_PANE: Pane = Pane { from: i64::MAX, to: i64::MIN, place: 0, windows: 0 };

/// A row's key, and how many of its states there are. Side by side, as a record needs both.
struct Head<K> {
    key: Option<K>,
    open: u32,
}

struct Rows<K, V> {
    hasher: RandomState,
    index: Entries<u32>,
    heads: Vec<Head<K>>,
    free: Vec<u32>,
    /// `width` places for each row.
    states: Vec<Option<V>>,
    width: usize,
    most_width: usize,
    /// The rows with a state in each place.
    lists: Vec<Vec<u32>>,
    /// The place of the first window, `base`, by its number: it begins at so many steps. None before the first record.
    head: usize,
    base: Option<i64>,
    limit: i64,
    pane: Pane,
}

impl<K, V> Rows<K, V> {
    fn new(windows: usize) -> Self {
        let width = windows + windows / 8 + 2;
        let mut rows = Self {
            hasher: RandomState::default(),
            index: Entries::default(),
            heads: Vec::new(),
            free: Vec::new(),
            states: Vec::new(),
            width,
            most_width: 4 * windows + 64,
            lists: Vec::new(),
            head: 0,
            base: None,
            limit: i64::MIN,
            pane: NO_PANE,
        };
        rows.lists.resize_with(width, Vec::new);
        rows
    }

    /// The place of the window that is `ahead` of the first one, by less than a row's width.
    fn place(&self, ahead: usize) -> usize {
        let place = self.head + ahead;
        if place < self.width { place } else { place - self.width }
    }

    /// The place of a window that lies in rows.
    fn place_of(&self, number: i64) -> Option<usize> {
        let base = self.base.filter(|base| *base <= number && number < self.limit)?;
        usize::try_from(number - base).ok().map(|ahead| self.place(ahead))
    }

    /// The first window in rows that has a state: its number and place.
    fn first(&self) -> Option<(i64, usize)> {
        let (base, places) = (self.base?, 0..self.width);
        let mut places = places.map(|ahead| (ahead, self.place(ahead)));
        let (ahead, place) = places.find(|(_, place)| !self.lists[*place].is_empty())?;
        Some((base + ahead as i64, place))
    }

    /// Counts the windows from this one on.
    fn go_on_to(&mut self, base: i64) {
        let ahead = self.base.map_or(0, |before| base.abs_diff(before)) % self.width as u64;
        self.head = self.place(ahead as usize);
        self.base = Some(base);
    }

    /// Makes rows wider.
    fn widen(&mut self, width: usize) {
        let rows = self.heads.len();
        let mut states = Vec::with_capacity(rows * width);
        for row in 0..rows {
            for ahead in 0..self.width {
                let place = row * self.width + self.place(ahead);
                states.push(self.states[place].take());
            }
            states.resize_with((row + 1) * width, || None);
        }
        self.lists.rotate_left(self.head);
        self.lists.resize_with(width, Vec::new);
        (self.states, self.width, self.head) = (states, width, 0);
    }
}

/// The state of a row in a place, made if there is none: then the row is in the place's list, and has one more open.
#[inline(always)]
fn begun<'s, K, T, A: Aggregate<K, T>>(
    state: &'s mut Option<A::State>,
    row: usize,
    list: &mut Vec<u32>,
    open: &mut u32,
    aggregate: &A,
) -> &'s mut A::State {
    if state.is_none() {
        list.push(row as u32);
        *open += 1;
    }
    state.get_or_insert_with(|| aggregate.start())
}

impl<K: std::hash::Hash + Eq, V> Rows<K, V> {
    /// The row of a record's key, a new one if need be.
    #[inline(always)]
    fn row<S: KeySelector<R, Key = K>, R>(
        &mut self,
        selector: &mut S,
        record: &R,
        noted: Option<(u64, S::Noted)>,
    ) -> usize {
        let Self { hasher, index, heads, states, width, pane, .. } = self;
        let begin = |key: &S::Lookup| index.begin(hasher.hash_one(key));
        let (hash, selected) = key::selected(noted, selector, record, begin);
        let is_its = |row: &u32| {
            // While the key is waited for.
            let row = *row as usize;
            fetch_all(&states[row * *width + pane.place..(row + 1) * *width]);
            heads[row].key.as_ref().is_some_and(|key| S::is(&selected, key))
        };
        match index.find(hash, is_its) {
            Some(row) => *row.get() as usize,
            None => self.new_row(hash, S::into_key(selected)),
        }
    }

    #[inline(never)]
    fn new_row(&mut self, hash: u64, key: K) -> usize {
        let row = self.free.pop().unwrap_or_else(|| {
            let row = u32::try_from(self.heads.len()).expect("rows for all of 2^32 keys are more than any memory has");
            self.heads.push(Head { key: None, open: 0 });
            self.states.resize_with(self.heads.len() * self.width, || None);
            row
        });
        self.heads[row as usize].key = Some(key);
        let Self { hasher, index, heads, .. } = self;
        // A row in the index has a key.
        index.insert_new(hash, row, |row| heads[*row as usize].key.as_ref().map_or(0, |key| hasher.hash_one(key)));
        row as usize
    }

    /// Takes a record into so many windows of its row, from this place on.
    #[inline(always)]
    fn add<A, T>(&mut self, row: usize, pane: Pane, value: T, aggregate: &mut A) -> Result<(), Fault>
    where
        A: Aggregate<K, T, State = V>,
    {
        let Pane { place, windows, .. } = pane;
        let to_end = self.width - place;
        // All but the last, which may have the value itself.
        let (places, round, last) = if windows > to_end {
            (place..self.width, 0..windows - to_end - 1, windows - to_end - 1)
        } else {
            (place..place + windows - 1, 0..0, place + windows - 1)
        };
        let Self { states, heads, lists, width, .. } = self;
        let open = &mut heads[row].open;
        let states = &mut states[row * *width..][..*width];
        for places in [places, round] {
            for (state, list) in states[places.clone()].iter_mut().zip(&mut lists[places]) {
                aggregate.add(begun(state, row, list, open, aggregate), &value)?;
            }
        }
        aggregate.take(begun(&mut states[last], row, &mut lists[last], open, aggregate), value)
    }

    /// The state of a row in a place, made if there is none.
    #[inline(always)]
    fn state<A, T>(&mut self, row: usize, place: usize, aggregate: &A) -> &mut V
    where
        A: Aggregate<K, T, State = V>,
    {
        let Self { states, heads, lists, width, .. } = self;
        begun(&mut states[row * *width + place], row, &mut lists[place], &mut heads[row].open, aggregate)
    }

    /// Takes the state of a row in a place, and the row's key; a row that has no other state is free then.
    #[inline(always)]
    fn take(&mut self, row: usize, place: usize) -> Option<(K, V)>
    where
        K: Clone,
    {
        let state = self.states[row * self.width + place].take()?;
        let head = &mut self.heads[row];
        head.open -= 1;
        if head.open > 0 {
            return head.key.clone().map(|key| (key, state));
        }
        let key = head.key.take()?;
        let hash = self.hasher.hash_one(&key);
        if let Some(entry) = self.index.find(hash, |of| *of as usize == row) {
            entry.remove();
        }
        self.free.push(row as u32);
        Some((key, state))
    }

    /// Gives memory back if nearly all rows are free.
    fn shrink(&mut self) {
        let (rows, used) = (self.heads.len(), self.index.len());
        if rows <= FEW_ROWS || used > rows / 8 {
            return;
        }
        let (heads, states) = (std::mem::take(&mut self.heads), std::mem::take(&mut self.states));
        (self.index, self.free) = (Entries::default(), Vec::new());
        self.lists.iter_mut().for_each(|list| *list = Vec::new());
        let mut states = states.into_iter();
        for head in heads {
            let Some(key) = head.key else {
                states.by_ref().take(self.width).for_each(drop);
                continue;
            };
            let hash = self.hasher.hash_one(&key);
            let row = self.new_row(hash, key);
            for place in 0..self.width {
                let state = states.next().flatten();
                if state.is_some() {
                    self.lists[place].push(row as u32);
                    self.heads[row].open += 1;
                }
                self.states[row * self.width + place] = state;
            }
        }
    }
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> SlidingWindows<S, T, A> {
    pub(crate) fn new(grid: Grid, lateness: Lateness, key: S, aggregate: A) -> Self {
        let once = lateness.is_none() && !grid.is_tumbling();
        let panes = (once && A::PANES).then(|| Box::new(Panes::new()));
        let windows = grid.most_windows().filter(|windows| *windows <= MOST_WINDOWS);
        let rows = windows.filter(|_| once && !A::PANES).map(|windows| Box::new(Rows::new(windows)));
        Self { aligned: AlignedWindows::new(grid, lateness, key, aggregate), panes, rows, noted: Noted::new() }
    }

    /// Takes a record that has other windows than the one before.
    #[inline(never)]
    fn elsewhere<E: Emit<Timed<Windowed<S::Key, A::Out>>>>(
        &mut self,
        record: Timed<T>,
        out: &mut E,
        late: impl FnOnce(Timed<T>, &mut E) -> Result<(), Fault>,
    ) -> Result<(), Fault>
    where
        S::Key: Clone,
        T: Send + 'static,
    {
        let Self { aligned, rows: Some(rows), .. } = self else { return self.aligned.take(record, out, late) };
        let grid = aligned.grid;
        let time = record.time.millis();
        let (start, last_start) = grid.around(time);
        if grid.end(last_start) <= aligned.expiry {
            return late(record, out);
        }
        if let (Some(first), Some(last)) = (grid.number(start), grid.number(last_start)) {
            let base = rows.base.unwrap_or_else(|| grid.first_behind(aligned.expiry).unwrap_or(first).max(first));
            if rows.base.is_none() {
                rows.base = Some(base);
                Self::set_limit(aligned, rows);
            }
            let needed = usize::try_from(last.saturating_sub(base).saturating_add(1)).unwrap_or(0);
            if rows.width < needed && needed <= rows.most_width {
                rows.widen((needed + needed / 2).min(rows.most_width));
                Self::set_limit(aligned, rows);
            }
            // Of the windows before the first one, those that have expired take no record.
            let first =
                if grid.end(grid.start(base) - grid.every()) <= aligned.expiry { first.max(base) } else { first };
            if let (Some(place), Some(_)) = (rows.place_of(first), rows.place_of(last)) {
                let (from, to) = grid.alike(time);
                rows.pane = Pane { from, to, place, windows: (last - first) as usize + 1 };
                let row = rows.row(&mut aligned.key, &record, None);
                return rows.add(row, rows.pane, record.value, &mut aligned.aggregate);
            }
        }
        self.here_and_there(&record, start, last_start)
    }

    /// Takes a record of which not all windows lie in rows.
    #[cold]
    fn here_and_there(&mut self, record: &Timed<T>, first: i128, last: i128) -> Result<(), Fault> {
        let Self { aligned, rows: Some(rows), .. } = self else { return Ok(()) };
        let grid = aligned.grid;
        let mut start = first;
        let mut taken = Ok(());
        while start <= last && taken.is_ok() {
            if grid.end(start) > aligned.expiry {
                taken = match grid.number(start).and_then(|number| rows.place_of(number)) {
                    Some(place) => {
                        let row = rows.row(&mut aligned.key, record, None);
                        aligned.aggregate.add(rows.state(row, place, &aligned.aggregate), &record.value)
                    }
                    None => aligned.add_at(start, record),
                };
            }
            start += grid.every();
        }
        Self::set_limit(aligned, rows);
        taken
    }

    /// Finds out which windows lie in rows.
    fn set_limit(aligned: &AlignedWindows<S, T, A>, rows: &mut Rows<S::Key, A::State>) {
        rows.pane = NO_PANE;
        let Some(base) = rows.base else { return };
        let in_table = aligned.others.range(aligned.grid.start(base)..).next();
        let in_table = in_table.map_or(i64::MAX, |(start, _)| aligned.grid.number(*start).unwrap_or(i64::MAX));
        rows.limit = base.saturating_add(rows.width as i64).min(in_table);
    }

    /// Fires the windows that are put together from panes.
    fn advance_panes(
        &mut self,
        watermark: i64,
        out: &mut impl Emit<Timed<Windowed<S::Key, A::Out>>>,
    ) -> Result<(), Fault>
    where
        S::Key: Clone,
    {
        let Self { aligned: AlignedWindows { grid, aggregate, .. }, panes: Some(panes), .. } = self else {
            return Ok(());
        };
        while let Some(start) = panes.first(*grid).filter(|start| grid.end(*start) <= watermark) {
            let window = grid.window(start);
            let entered = panes.enter(*grid, start, aggregate);
            let sent = entered.iter().try_for_each(|(key, state)| {
                let value = aggregate.look(key, window, state);
                out.emit(result(key.clone(), window, value))
            });
            panes.leave(*grid, aggregate);
            sent?;
        }
        if let Some(start) = grid.start_behind(watermark) {
            panes.go_on_to(start);
        }
        Ok(())
    }

    /// Fires the window in a place.
    fn fire(
        &mut self,
        number: i64,
        place: usize,
        out: &mut impl Emit<Timed<Windowed<S::Key, A::Out>>>,
    ) -> Result<(), Fault>
    where
        S::Key: Clone,
    {
        let Self { aligned, rows: Some(rows), .. } = self else { return Ok(()) };
        let window = aligned.grid.window(aligned.grid.start(number));
        let list = std::mem::take(&mut rows.lists[place]);
        // Where most rows are in the list, they are looked at in the order of memory.
        let (all, most) = (rows.heads.len(), list.len() > rows.heads.len() / 4);
        let mut sent = Ok(());
        let mut fire_row = |row: usize| {
            // Also what is not sent is taken out: its place is that of another window.
            if let Some((key, state)) = rows.take(row, place)
                && sent.is_ok()
            {
                let value = aligned.aggregate.finish(&key, window, state);
                sent = out.emit(result(key, window, value));
            }
        };
        if most {
            (0..all).for_each(fire_row);
        } else {
            list.iter().for_each(|row| fire_row(*row as usize));
        }
        if rows.lists[place].is_empty() {
            rows.lists[place] = list;
            rows.lists[place].clear();
        }
        sent
    }
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> Clone for SlidingWindows<S, T, A> {
    fn clone(&self) -> Self {
        let AlignedWindows { grid, lateness, key, aggregate, .. } = &self.aligned;
        Self::new(*grid, *lateness, key.clone(), aggregate.clone())
    }
}

impl<S, T, A> OpenWindows for SlidingWindows<S, T, A>
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
        self.aligned.open(cx)
    }

    #[inline(always)]
    fn take<E: Emit<Timed<WindowedOf<Self>>>>(
        &mut self,
        record: Timed<T>,
        out: &mut E,
        late: impl FnOnce(Timed<T>, &mut E) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let time = record.time.millis();
        let noted = self.noted.pop();
        if A::PANES
            && let Self { aligned, panes: Some(panes), .. } = self
        {
            let AlignedWindows { grid, key, aggregate, expiry, .. } = aligned;
            if panes.is_at_hand(time) {
                return panes.add(noted, key, record, aggregate);
            }
            if grid.end(grid.around(time).1) <= *expiry {
                return late(record, out);
            }
            return panes.add_elsewhere(*grid, key, record, aggregate);
        }
        match &mut self.rows {
            Some(rows) if rows.pane.from <= time && time <= rows.pane.to => {
                let row = rows.row(&mut self.aligned.key, &record, noted);
                rows.add(row, rows.pane, record.value, &mut self.aligned.aggregate)
            }
            _ => self.elsewhere(record, out, late),
        }
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        let is_large = match (&self.panes, &self.rows) {
            (Some(panes), _) => panes.at_hand().is_large(),
            (_, Some(rows)) => rows.index.is_large(),
            _ => false,
        };
        self.noted.restart(is_large)
    }

    #[inline(always)]
    fn ahead(&mut self, record: &Timed<T>) {
        let Self { aligned, panes, rows, noted } = self;
        match (panes, rows) {
            (Some(panes), _) => noted.note(&mut aligned.key, record, |key| panes.at_hand().begin(key)),
            (_, Some(rows)) => noted.note(&mut aligned.key, record, |key| rows.index.begin(rows.hasher.hash_one(key))),
            _ => {}
        }
    }

    fn advance(&mut self, watermark: i64, out: &mut impl Emit<Timed<WindowedOf<Self>>>) -> Result<(), Fault> {
        if watermark <= self.aligned.watermark {
            return Ok(());
        }
        let grid = self.aligned.grid;
        if A::PANES {
            self.advance_panes(watermark, out)?;
        }
        while let Some((number, place)) = self.rows.as_ref().and_then(|rows| rows.first()) {
            let end = grid.end(grid.start(number));
            if end > watermark {
                break;
            }
            // Those with tables come in between.
            self.aligned.advance(end, out)?;
            self.fire(number, place, out)?;
        }
        self.aligned.advance(watermark, out)?;
        let Self { aligned, rows, .. } = self;
        if let Some(rows) = rows
            && let Some(base) = rows.base
        {
            if let Some(next) = grid.first_behind(watermark).filter(|next| *next > base) {
                rows.go_on_to(next);
                rows.shrink();
            }
            Self::set_limit(aligned, rows);
        }
        Ok(())
    }

    fn fires_at(&self) -> i64 {
        let grid = self.aligned.grid;
        let in_rows = self.rows.as_ref().and_then(|rows| rows.first());
        let in_rows = in_rows.map_or(i64::MAX, |(number, _)| grid.end(grid.start(number)));
        let of_panes = self.panes.as_ref().and_then(|panes| panes.first(grid));
        let of_panes = of_panes.map_or(i64::MAX, |start| grid.end(start));
        of_panes.min(in_rows).min(self.aligned.fires_at())
    }

    fn discard(&mut self) -> u64 {
        let mut dropped = self.aligned.discard();
        let Self { aligned: AlignedWindows { grid, aggregate, .. }, panes, .. } = self;
        if let Some(panes) = panes {
            while let Some(start) = panes.first(*grid) {
                dropped += panes.enter(*grid, start, aggregate).len() as u64;
                panes.leave(*grid, aggregate);
            }
            **panes = Panes::new();
        }
        if let Some(rows) = &mut self.rows {
            dropped += rows.lists.iter().map(|list| list.len() as u64).sum::<u64>();
            **rows = Rows::new(self.aligned.grid.most_windows().unwrap_or(1));
        }
        dropped
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.aligned.close(cx)
    }
}

#[cfg(test)]
mod tests;
