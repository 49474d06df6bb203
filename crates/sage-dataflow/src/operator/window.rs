//! Windows over event time, per key: tumbling, sliding and by count, and their late records. Sessions are in
//! `session.rs`, aggregates in `aggregate.rs`.
//!
//! A watermark `w` says that no record before `w` will come, so a window fires when the watermark reaches its end. The
//! result's time is the window's last millisecond, which no watermark has passed yet, so windows can follow windows.
//!
//! The last watermark, `i64::MAX`, comes at the end of input only, whatever the times of records. It reaches the end of
//! every window, even of one that would end after it.
//!
//! Aligned windows have a table of keys for each window, which is dropped as a whole: there are no timers, and no key
//! is looked at that has nothing to fire. The window of the last record is at hand.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::marker::PhantomData;

use super::aggregate::Aggregate;
use super::grid::{Grid, Lateness};
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, OpenContext};
use crate::guarded::opaque;
use crate::key::{self, KeySelector, Noted};
use crate::table::Table;
use crate::time::{Timed, Timestamp, Window, Windowed};

/// The windows that are open, and what each key has in them. Only the engine implements it.
pub trait OpenWindows: Clone + Send + 'static {
    /// The value of a record.
    type Value: Send + 'static;
    /// The key of a result.
    type Key: Send + 'static;
    /// The value of a result.
    type Result: Send + 'static;

    #[doc(hidden)]
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault>;
    /// Takes a record, or calls `late` with it if it comes too late.
    #[doc(hidden)]
    fn take<E: Emit<Timed<WindowedOf<Self>>>>(
        &mut self,
        record: Timed<Self::Value>,
        out: &mut E,
        late: impl FnOnce(Timed<Self::Value>, &mut E) -> Result<(), Fault>,
    ) -> Result<(), Fault>;
    /// As [`Stage::looks_ahead`](crate::chain::Stage::looks_ahead).
    #[doc(hidden)]
    fn looks_ahead(&mut self) -> usize {
        0
    }
    /// As [`Stage::ahead`](crate::chain::Stage::ahead).
    #[doc(hidden)]
    fn ahead(&mut self, record: &Timed<Self::Value>) {
        let _ = record;
    }
    /// Fires the windows that end at `watermark` or before, the earliest first.
    #[doc(hidden)]
    fn advance(&mut self, watermark: i64, out: &mut impl Emit<Timed<WindowedOf<Self>>>) -> Result<(), Fault>;
    /// The watermark at which the first window fires, or one before it: `i64::MAX` while none is open.
    #[doc(hidden)]
    fn fires_at(&self) -> i64;
    /// Drops the windows that have not fired, those of each key, and returns how many there were.
    #[doc(hidden)]
    fn discard(&mut self) -> u64;
    #[doc(hidden)]
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError>;
}

/// What windows give.
pub(crate) type WindowedOf<W> = Windowed<<W as OpenWindows>::Key, <W as OpenWindows>::Result>;

/// What a window gives.
pub(super) fn result<K, O>(key: K, window: Window, value: O) -> Timed<Windowed<K, O>> {
    Timed { time: window.last(), value: Windowed { key, window, value, partial: false } }
}

/// An empty table, for the next window.
pub(super) struct Spare<K, V>(Table<K, V>);

impl<K: Hash + Eq, V> Spare<K, V> {
    /// A small one, in which keys have the same hashes as in `table`.
    pub(super) fn new(table: &Table<K, V>) -> Self {
        Self(table.afresh())
    }

    pub(super) fn take(&mut self) -> Table<K, V> {
        self.0.take()
    }

    /// Keeps an empty table, in which so many keys were, unless it is far larger than those.
    pub(super) fn keep(&mut self, table: Table<K, V>, keys: usize) {
        if table.capacity() > self.0.capacity() && (keys == 0 || table.capacity() / 8 <= keys) {
            self.0 = table;
        }
    }
}

/// Tumbling and sliding windows.
pub struct AlignedWindows<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> {
    pub(super) grid: Grid,
    pub(super) lateness: Lateness,
    pub(super) key: S,
    pub(super) aggregate: A,
    noted: Noted<S::Noted>,
    /// The tumbling window of the last record, if it has not fired: where it begins, and its first and last moment.
    at_hand: i128,
    first: i64,
    last: i64,
    /// A key has the same hash in all tables.
    table: Table<S::Key, A::State>,
    /// The other windows, by their start.
    pub(super) others: BTreeMap<i128, Table<S::Key, A::State>>,
    spare: Spare<S::Key, A::State>,
    pub(super) watermark: i64,
    /// Windows that end then or before take no more records.
    pub(super) expiry: i64,
    records: PhantomData<fn(T)>,
}
opaque!([S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>] AlignedWindows<S, T, A>);

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> AlignedWindows<S, T, A> {
    pub(crate) fn new(grid: Grid, lateness: Lateness, key: S, aggregate: A) -> Self {
        let table = Table::default();
        Self {
            grid,
            lateness,
            key,
            aggregate,
            noted: Noted::new(),
            at_hand: 0,
            first: i64::MAX,
            last: i64::MIN,
            spare: Spare::new(&table),
            table,
            others: BTreeMap::new(),
            watermark: i64::MIN,
            expiry: i64::MIN,
            records: PhantomData,
        }
    }

    /// Puts the window at hand, if there is one, among the others.
    fn put_back(&mut self) {
        if self.first <= self.last {
            let table = std::mem::replace(&mut self.table, self.spare.take());
            self.others.insert(self.at_hand, table);
        }
        (self.first, self.last) = (i64::MAX, i64::MIN);
    }

    /// Takes a tumbling window to hand.
    fn take_up(&mut self, start: i128) {
        self.put_back();
        if let Some(table) = self.others.remove(&start) {
            self.spare.keep(std::mem::replace(&mut self.table, table), 0);
        }
        self.at_hand = start;
        (self.first, self.last) = self.grid.moments(start);
    }

    /// Takes a record that is not in the window at hand.
    #[inline(never)]
    fn elsewhere<E: Emit<Timed<Windowed<S::Key, A::Out>>>>(
        &mut self,
        record: Timed<T>,
        out: &mut E,
        late: impl FnOnce(Timed<T>, &mut E) -> Result<(), Fault>,
    ) -> Result<(), Fault>
    where
        S::Key: Clone,
    {
        let grid = self.grid;
        let (mut start, last) = grid.around(record.time.millis());
        if grid.end(last) <= self.expiry {
            return late(record, out);
        }
        while start < last {
            if grid.end(start) > self.expiry {
                self.add_at(start, &record)?;
                self.fire_again(start, &record, out)?;
            }
            start += grid.every();
        }
        let again = grid.end(last) <= self.watermark;
        if grid.is_tumbling() && !again {
            self.take_up(last);
            let state = self.key.state_of(&mut self.table, &record, || self.aggregate.start());
            return self.aggregate.take(state, record.value);
        }
        if again {
            self.add_at(last, &record)?;
            return self.fire_again(last, &record, out);
        }
        let Self { key, aggregate, others, spare, .. } = self;
        let table = others.entry(last).or_insert_with(|| spare.take());
        let state = key.state_of(table, &record, || aggregate.start());
        aggregate.take(state, record.value)
    }

    /// Takes a record into a window that has a table of its own, or gets one.
    pub(super) fn add_at(&mut self, start: i128, record: &Timed<T>) -> Result<(), Fault> {
        let Self { key, aggregate, others, spare, .. } = self;
        let table = others.entry(start).or_insert_with(|| spare.take());
        aggregate.add(key.state_of(table, record, || aggregate.start()), &record.value)
    }

    /// Emits what a late record has changed, if its window has fired.
    fn fire_again(
        &mut self,
        start: i128,
        record: &Timed<T>,
        out: &mut impl Emit<Timed<Windowed<S::Key, A::Out>>>,
    ) -> Result<(), Fault>
    where
        S::Key: Clone,
    {
        if self.grid.end(start) > self.watermark {
            return Ok(());
        }
        let window = self.grid.window(start);
        let Some(table) = self.others.get(&start) else { return Ok(()) };
        let selected = self.key.select(record);
        let hash = table.hash(S::lookup(&selected));
        match table.get(hash, |key| S::is(&selected, key)) {
            Some((key, state)) => {
                let value = self.aggregate.look(key, window, state);
                out.emit(result(key.clone(), window, value))
            }
            None => Ok(()),
        }
    }
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> Clone for AlignedWindows<S, T, A> {
    fn clone(&self) -> Self {
        Self::new(self.grid, self.lateness, self.key.clone(), self.aggregate.clone())
    }
}

impl<S, T, A> OpenWindows for AlignedWindows<S, T, A>
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
        let time = record.time.millis();
        let Self { key, aggregate, noted, table, .. } = self;
        let noted = noted.pop();
        if time < self.first || self.last < time {
            return self.elsewhere(record, out, late);
        }
        let (hash, selected) = key::selected(noted, key, &record, |key| table.begin(key));
        let state = S::entry(table, hash, selected, |key| (S::into_key(key), aggregate.start()));
        aggregate.take(state, record.value)
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.noted.restart(self.table.is_large())
    }

    /// Of the table at hand, where most records go.
    #[inline(always)]
    fn ahead(&mut self, record: &Timed<T>) {
        let Self { key, noted, table, .. } = self;
        noted.note(key, record, |key| table.begin(key));
    }

    fn advance(&mut self, watermark: i64, out: &mut impl Emit<Timed<WindowedOf<Self>>>) -> Result<(), Fault> {
        if watermark <= self.watermark {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.watermark, watermark);
        self.expiry = self.lateness.expiry(watermark);
        if self.last.saturating_add(1) <= watermark {
            self.put_back();
        }
        if !self.lateness.is_none() {
            for (&start, table) in &self.others {
                let end = self.grid.end(start);
                if end > watermark {
                    break;
                }
                if end <= before {
                    continue;
                }
                let window = self.grid.window(start);
                for (key, state) in table.iter() {
                    let value = self.aggregate.look(key, window, state);
                    out.emit(result(key.clone(), window, value))?;
                }
            }
        }
        while let Some(entry) = self.others.first_entry() {
            if self.grid.end(*entry.key()) > self.expiry {
                break;
            }
            let (start, mut table) = entry.remove_entry();
            let keys = table.len();
            if self.lateness.is_none() {
                let window = self.grid.window(start);
                for (key, state) in table.drain() {
                    let value = self.aggregate.finish(&key, window, state);
                    out.emit(result(key, window, value))?;
                }
            } else {
                table.clear();
            }
            self.spare.keep(table, keys);
        }
        Ok(())
    }

    fn fires_at(&self) -> i64 {
        let at_hand = if self.first <= self.last { self.last.saturating_add(1) } else { i64::MAX };
        self.others.keys().next().map_or(at_hand, |start| at_hand.min(self.grid.end(*start)))
    }

    fn discard(&mut self) -> u64 {
        self.put_back();
        let (grid, watermark) = (self.grid, self.watermark);
        let open = std::mem::take(&mut self.others).into_iter().filter(|(start, _)| grid.end(*start) > watermark);
        open.map(|(_, table)| table.len() as u64).sum()
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.aggregate.close(cx)
    }
}

/// Windows of so many records.
pub struct CountWindows<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> {
    size: u64,
    key: S,
    aggregate: A,
    open: Table<S::Key, OpenCount<A::State>>,
    records: PhantomData<fn(T)>,
}
opaque!([S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>] CountWindows<S, T, A>);

/// An open window by count.
struct OpenCount<V> {
    records: u64,
    first: Timestamp,
    last: Timestamp,
    state: V,
}

impl<V> OpenCount<V> {
    fn new(state: V) -> Self {
        Self { records: 0, first: Timestamp::MAX, last: Timestamp::MIN, state }
    }

    fn see(&mut self, time: Timestamp) {
        self.records += 1;
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }

    fn finish<K, T, A>(self, key: K, aggregate: &mut A) -> Timed<Windowed<K, A::Out>>
    where
        A: Aggregate<K, T, State = V>,
    {
        let end = Timestamp::from_millis(self.last.millis().saturating_add(1));
        let window = Window { start: self.first, end };
        let value = aggregate.finish(&key, window, self.state);
        result(key, window, value)
    }
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> CountWindows<S, T, A> {
    pub(crate) fn new(size: u64, key: S, aggregate: A) -> Self {
        Self { size, key, aggregate, open: Table::default(), records: PhantomData }
    }
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> Clone for CountWindows<S, T, A> {
    fn clone(&self) -> Self {
        Self::new(self.size, self.key.clone(), self.aggregate.clone())
    }
}

impl<S, T, A> OpenWindows for CountWindows<S, T, A>
where
    S: KeySelector<Timed<T>>,
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
        _late: impl FnOnce(Timed<T>, &mut E) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let tally = self.key.state_of(&mut self.open, &record, || OpenCount::new(self.aggregate.start()));
        tally.see(record.time);
        if tally.records < self.size {
            return self.aggregate.take(&mut tally.state, record.value);
        }
        self.aggregate.add(&mut tally.state, &record.value)?;
        let selected = self.key.select(&record);
        let hash = self.open.hash(S::lookup(&selected));
        match self.open.remove(hash, |key| S::is(&selected, key)) {
            Some((key, tally)) => out.emit(tally.finish(key, &mut self.aggregate)),
            None => Ok(()),
        }
    }

    /// The open windows end with the input alone.
    fn advance(&mut self, watermark: i64, out: &mut impl Emit<Timed<WindowedOf<Self>>>) -> Result<(), Fault> {
        if watermark < i64::MAX {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        open.into_iter().try_for_each(|(key, tally)| out.emit(tally.finish(key, &mut self.aggregate)))
    }

    fn fires_at(&self) -> i64 {
        i64::MAX
    }

    fn discard(&mut self) -> u64 {
        std::mem::take(&mut self.open).len() as u64
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.aggregate.close(cx)
    }
}
