//! The state of each key of an operator: kept for ever, or until no record of the key has come for a while, by the
//! clock or by event time.

use std::collections::HashMap;
use std::time::Duration;

use super::keyed::{States, state_of};
use crate::clock::{Clock, Watch};
use crate::key::KeySelector;
use crate::time::Timestamp;

/// Keeps a state for each key. Only the engine implements it.
pub(crate) trait Keeps<K, V>: Send + 'static {
    /// Called once, before the first record, with the job's clock.
    #[doc(hidden)]
    fn open(&mut self, clock: &Clock);

    /// Calls `act` with the record, which happened at `time`, and the state of its key; `new` makes the state if the
    /// key has none.
    #[doc(hidden)]
    fn with<S: KeySelector<I, Key = K>, I, R>(
        &mut self,
        key: &mut S,
        record: I,
        time: fn(&I) -> Timestamp,
        new: impl Fn() -> V,
        act: impl FnOnce(&mut V, I) -> R,
    ) -> R;

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
pub(crate) struct ForEver<K, V>(States<K, V>);

impl<K, V> ForEver<K, V> {
    pub(crate) fn new() -> Self {
        Self(HashMap::default())
    }
}

impl<K: std::hash::Hash + Eq + Send + 'static, V: Send + 'static> Keeps<K, V> for ForEver<K, V> {
    fn open(&mut self, _clock: &Clock) {}

    #[inline(always)]
    fn with<S: KeySelector<I, Key = K>, I, R>(
        &mut self,
        key: &mut S,
        record: I,
        _time: fn(&I) -> Timestamp,
        new: impl Fn() -> V,
        act: impl FnOnce(&mut V, I) -> R,
    ) -> R {
        let state = state_of!(self.0, S, key, record, new);
        act(state, record)
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
    young: States<K, Used<V>>,
    old: States<K, Used<V>>,
    /// When the tables take turns; never, if that is after the end of time.
    turn: Option<i64>,
}

struct Used<V> {
    state: V,
    last: i64,
}

impl<K, V> Expiring<K, V> {
    /// Forgets a state that was not used for `ttl`, in whole milliseconds.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self::after(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    fn after(ttl_millis: u64) -> Self {
        let (young, old) = (HashMap::default(), HashMap::default());
        Self { ttl_millis, watch: Watch::new(&Clock::system()), young, old, turn: None }
    }

    fn is_turn(&self, now: i64) -> bool {
        self.turn.is_some_and(|turn| turn <= now)
    }

    #[cold]
    fn take_turns(&mut self, now: i64) {
        self.old = std::mem::take(&mut self.young);
        // After a long silence the young table has expired as well.
        if self.turn.is_some_and(|turn| now.abs_diff(turn) >= self.ttl_millis) {
            self.old = HashMap::default();
        }
        self.turn = now.checked_add_unsigned(self.ttl_millis);
    }
}

impl<K: std::hash::Hash + Eq + Send + 'static, V: Send + 'static> Keeps<K, V> for Expiring<K, V> {
    fn open(&mut self, clock: &Clock) {
        self.watch = Watch::new(clock);
        self.turn = clock.now().millis().checked_add_unsigned(self.ttl_millis);
    }

    #[inline(always)]
    fn with<S: KeySelector<I, Key = K>, I, R>(
        &mut self,
        selector: &mut S,
        record: I,
        _time: fn(&I) -> Timestamp,
        new: impl Fn() -> V,
        act: impl FnOnce(&mut V, I) -> R,
    ) -> R {
        let now = self.watch.glance();
        if self.is_turn(now) {
            self.take_turns(now);
        }
        let used = {
            let key = selector.select(&record);
            match S::find(&mut self.young, &key) {
                Some(used) => used,
                None => {
                    let (key, used) = match S::remove(&mut self.old, &key) {
                        Some(entry) => entry,
                        None => (S::into_key(key), Used { state: new(), last: now }),
                    };
                    self.young.entry(key).or_insert(used)
                }
            }
        };
        // The clock never goes back.
        if now.abs_diff(used.last) >= self.ttl_millis {
            used.state = new();
        }
        used.last = now;
        act(&mut used.state, record)
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
    states: States<K, Used<V>>,
    /// The watermark at which the states were last looked through.
    swept: i64,
}

impl<K, V> ExpiringByEvents<K, V> {
    /// Forgets a state that was not used for `ttl`, in whole milliseconds.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self::after(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    fn after(ttl_millis: u64) -> Self {
        Self { ttl_millis, states: HashMap::default(), swept: i64::MIN }
    }

    /// Whether `time` is so long after a state's latest record that the state has expired.
    fn is_over(last: i64, time: i64, ttl_millis: u64) -> bool {
        time > last && time.abs_diff(last) >= ttl_millis
    }
}

impl<K: std::hash::Hash + Eq + Send + 'static, V: Send + 'static> Keeps<K, V> for ExpiringByEvents<K, V> {
    fn open(&mut self, _clock: &Clock) {}

    fn with<S: KeySelector<I, Key = K>, I, R>(
        &mut self,
        key: &mut S,
        record: I,
        time: fn(&I) -> Timestamp,
        new: impl Fn() -> V,
        act: impl FnOnce(&mut V, I) -> R,
    ) -> R {
        let time = time(&record).millis();
        let used = state_of!(self.states, S, key, record, || Used { state: new(), last: time });
        if Self::is_over(used.last, time, self.ttl_millis) {
            used.state = new();
        }
        used.last = used.last.max(time);
        act(&mut used.state, record)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    fn free(&mut self) {}

    fn advance(&mut self, watermark: Timestamp) {
        let (now, ttl) = (watermark.millis(), self.ttl_millis);
        if Self::is_over(self.swept, now, ttl) {
            self.swept = now;
            self.states.retain(|_, used| !Self::is_over(used.last, now, ttl));
        }
    }

    fn afresh(&self) -> Self {
        Self::after(self.ttl_millis)
    }
}
