//! The state of each key of an operator: kept for ever, or until no record of the key has come for a while, by the
//! clock or by event time.

use std::hash::Hash;
use std::time::Duration;

use crate::clock::{Clock, Watch};
use crate::key::KeySelector;
use crate::table::Table;
use crate::time::Timestamp;

/// Keeps a state for each key. Only the engine implements it.
pub(crate) trait Keeps<K, V>: Send + 'static {
    /// Called once, before the first record, with the job's clock.
    #[doc(hidden)]
    fn open(&mut self, clock: &Clock);

    /// As [`Table::is_large`].
    #[doc(hidden)]
    fn is_large(&self) -> bool;

    /// As [`Table::begin`].
    #[doc(hidden)]
    fn begin<Q: Hash + ?Sized>(&self, key: &Q) -> u64;

    /// The state of the key of a record that happened at `time`; `new` makes the state if the key has none.
    #[doc(hidden)]
    fn state<S: KeySelector<I, Key = K>, I>(
        &mut self,
        hash: u64,
        key: S::Selected<'_>,
        time: impl FnOnce() -> Timestamp,
        new: impl Fn() -> V,
    ) -> &mut V;

    /// When there is something to free.
    #[doc(hidden)]
    fn wake_at(&self) -> Option<Timestamp>;

    /// Frees what has expired.
    #[doc(hidden)]
    fn free(&mut self);

    /// Takes note of a watermark.
    #[doc(hidden)]
    fn advance(&mut self, watermark: Timestamp) {
        let _ = watermark;
    }

    /// The same, empty.
    #[doc(hidden)]
    fn afresh(&self) -> Self;
}

/// Keeps every state until the end.
pub(crate) struct ForEver<K, V>(Table<K, V>);

impl<K, V> ForEver<K, V> {
    pub(crate) fn new() -> Self {
        Self(Table::default())
    }
}

impl<K: Hash + Eq + Send + 'static, V: Send + 'static> Keeps<K, V> for ForEver<K, V> {
    fn open(&mut self, _clock: &Clock) {}

    #[inline(always)]
    fn is_large(&self) -> bool {
        self.0.is_large()
    }

    #[inline(always)]
    fn begin<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.0.begin(key)
    }

    #[inline(always)]
    fn state<S: KeySelector<I, Key = K>, I>(
        &mut self,
        hash: u64,
        key: S::Selected<'_>,
        _time: impl FnOnce() -> Timestamp,
        new: impl Fn() -> V,
    ) -> &mut V {
        S::entry(&mut self.0, hash, key, |key| (S::into_key(key), new()))
    }

    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    fn free(&mut self) {}

    fn afresh(&self) -> Self {
        Self::new()
    }
}

/// Forgets a state when no record of its key has come for a while.
///
/// Two tables take turns, one time to live each: a key that is used moves to the young one, and when the time is over
/// the old one is thrown away as a whole. So no state outlives its time by more than once that time, no key is looked
/// for, and whether a state has expired is told by the time it was last used, to the millisecond.
pub(crate) struct Expiring<K, V> {
    ttl_millis: u64,
    watch: Watch,
    /// A key has the same hash in both.
    young: Table<K, Used<V>>,
    old: Table<K, Used<V>>,
    /// When the tables take turns; never, if that is after the end of time.
    turn: Option<i64>,
}

struct Used<V> {
    state: V,
    last: i64,
}

impl<K: Hash + Eq, V> Expiring<K, V> {
    /// Forgets a state that was not used for `ttl`, in whole milliseconds.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self::after(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    fn after(ttl_millis: u64) -> Self {
        let young = Table::default();
        Self { ttl_millis, watch: Watch::new(&Clock::system()), old: young.afresh(), young, turn: None }
    }

    #[inline(always)]
    fn is_turn(&self, now: i64) -> bool {
        self.turn.is_some_and(|turn| turn <= now)
    }

    #[cold]
    fn take_turns(&mut self, now: i64) {
        self.old = self.young.take();
        // After a long silence the young table has expired as well.
        if self.turn.is_some_and(|turn| now.abs_diff(turn) >= self.ttl_millis) {
            self.old = self.young.afresh();
        }
        self.turn = now.checked_add_unsigned(self.ttl_millis);
    }
}

impl<K: Hash + Eq + Send + 'static, V: Send + 'static> Keeps<K, V> for Expiring<K, V> {
    fn open(&mut self, clock: &Clock) {
        self.watch = Watch::new(clock);
        self.turn = clock.now().millis().checked_add_unsigned(self.ttl_millis);
    }

    #[inline(always)]
    fn is_large(&self) -> bool {
        self.young.is_large() || self.old.is_large()
    }

    /// Of the young table alone: a key that is used moves there.
    #[inline(always)]
    fn begin<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.young.begin(key)
    }

    #[inline(always)]
    fn state<S: KeySelector<I, Key = K>, I>(
        &mut self,
        hash: u64,
        key: S::Selected<'_>,
        _time: impl FnOnce() -> Timestamp,
        new: impl Fn() -> V,
    ) -> &mut V {
        let now = self.watch.glance();
        if self.is_turn(now) {
            self.take_turns(now);
        }
        let Self { young, old, .. } = self;
        let used = S::entry(young, hash, key, |key| {
            let is_key = |known: &K| S::is(&key, known);
            let used = if old.is_empty() { None } else { old.remove(hash, is_key) };
            used.unwrap_or_else(|| (S::into_key(key), Used { state: new(), last: now }))
        });
        // The clock never goes back.
        if now.abs_diff(used.last) >= self.ttl_millis {
            used.state = new();
        }
        used.last = now;
        &mut used.state
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let holds = !self.young.is_empty() || !self.old.is_empty();
        self.turn.filter(|_| holds).map(Timestamp::from_millis)
    }

    fn free(&mut self) {
        let now = self.watch.read();
        if self.is_turn(now) {
            self.take_turns(now);
        }
    }

    fn afresh(&self) -> Self {
        Self::after(self.ttl_millis)
    }
}

/// Forgets a state when no record of its key has come for a while, by the times of the records.
///
/// Whether a state has expired is told by two records: the watermark, which comes now or a little later, changes no
/// result. It frees memory: once in each time to live, all states are looked through.
pub(crate) struct ExpiringByEvents<K, V> {
    ttl_millis: u64,
    states: Table<K, Used<V>>,
    /// The watermark at which the states were last looked through.
    swept: i64,
}

impl<K, V> ExpiringByEvents<K, V> {
    /// Forgets a state that was not used for `ttl`, in whole milliseconds.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self::after(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    fn after(ttl_millis: u64) -> Self {
        Self { ttl_millis, states: Table::default(), swept: i64::MIN }
    }

    /// Whether `time` is so long after a state's latest record that the state has expired.
    fn is_over(last: i64, time: i64, ttl_millis: u64) -> bool {
        time > last && time.abs_diff(last) >= ttl_millis
    }
}

impl<K: Hash + Eq + Send + 'static, V: Send + 'static> Keeps<K, V> for ExpiringByEvents<K, V> {
    fn open(&mut self, _clock: &Clock) {}

    #[inline(always)]
    fn is_large(&self) -> bool {
        self.states.is_large()
    }

    #[inline(always)]
    fn begin<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.states.begin(key)
    }

    #[inline(always)]
    fn state<S: KeySelector<I, Key = K>, I>(
        &mut self,
        hash: u64,
        key: S::Selected<'_>,
        time: impl FnOnce() -> Timestamp,
        new: impl Fn() -> V,
    ) -> &mut V {
        let time = time().millis();
        let new_used = |key| (S::into_key(key), Used { state: new(), last: time });
        let used = S::entry(&mut self.states, hash, key, new_used);
        if Self::is_over(used.last, time, self.ttl_millis) {
            used.state = new();
        }
        used.last = used.last.max(time);
        &mut used.state
    }

    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    fn free(&mut self) {}

    fn advance(&mut self, watermark: Timestamp) {
        let (now, ttl) = (watermark.millis(), self.ttl_millis);
        if Self::is_over(self.swept, now, ttl) {
            self.swept = now;
            self.states.retain(|used| !Self::is_over(used.last, now, ttl));
        }
    }

    fn afresh(&self) -> Self {
        Self::after(self.ttl_millis)
    }
}
