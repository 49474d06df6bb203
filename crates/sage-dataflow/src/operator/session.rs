//! Session windows: the records of a key that follow each other in less than a gap.
//!
//! Each record begins as its own window, from its time until one gap later, and overlapping windows of a key become
//! one. So the order in which records come does not matter, as long as none is late.
//!
//! A key lies in one table with its open sessions, mostly one, and has an entry in a queue for the first moment at
//! which one of them has to fire or to be forgotten: the moment and the key's hash. A session that has grown meanwhile
//! gets a new entry when the old one is due. Of the entries of one moment and hash there are as many as keys of this
//! hash that wait for it, or more; those find nobody.

use std::borrow::Borrow;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::hash_table::OccupiedEntry;

use super::aggregate::Aggregate;
use super::grid::Lateness;
use super::queue::TimeQueue;
use super::window::{OpenWindows, WindowedOf, result};
use crate::BoxError;
use crate::chain::{CloseContext, Emit, Fault, OpenContext};
use crate::guarded::opaque;
use crate::key::{KeySelector, Noted};
use crate::table::Entries;
use crate::time::{Timed, Timestamp, Window, Windowed, whole_millis};

/// `window` with sessions.
pub struct SessionWindows<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> {
    rules: Rules,
    key: S,
    aggregate: A,
    hasher: RandomState,
    kept: Entries<KeySessions<S::Key, T, A::State>>,
    noted: Noted<S::Noted>,
    timers: TimeQueue,
}
opaque!([S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>] SessionWindows<S, T, A>);

/// When sessions end, and what time it is.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// How long after its first moment a record's own window has its last one: the gap less a millisecond.
    reach: u64,
    lateness: Lateness,
    watermark: i64,
    /// Sessions that end then or before take no more records.
    expiry: i64,
}

/// A key and its sessions.
struct KeySessions<K, T, V> {
    key: K,
    /// The moment of the entry that counts; others in the queue are out of date.
    timer: i64,
    sessions: Sessions<T, V>,
}

/// No session ends at the first of all moments.
const NO_TIMER: i64 = i64::MIN;

/// The sessions of a key, which do not overlap, by time. There is always one, but while they are worked on.
enum Sessions<T, V> {
    One(Open<T, V>),
    Many(Vec<Open<T, V>>),
}

impl<T, V> Sessions<T, V> {
    fn all(&self) -> &[Open<T, V>] {
        match self {
            Self::One(session) => std::slice::from_ref(session),
            Self::Many(sessions) => sessions,
        }
    }

    fn all_mut(&mut self) -> &mut [Open<T, V>] {
        match self {
            Self::One(session) => std::slice::from_mut(session),
            Self::Many(sessions) => sessions,
        }
    }

    /// All of them, for a change of their number. To be followed by [`settle`](Self::settle).
    fn many(&mut self) -> &mut Vec<Open<T, V>> {
        if let Self::One(_) = self
            && let Self::One(session) = std::mem::replace(self, Self::Many(Vec::new()))
            && let Self::Many(sessions) = self
        {
            sessions.push(session);
        }
        match self {
            Self::Many(sessions) => sessions,
            Self::One(_) => unreachable!("one session was made many"),
        }
    }

    fn settle(&mut self) {
        if let Self::Many(sessions) = self
            && sessions.len() == 1
            && let Some(session) = sessions.pop()
        {
            *self = Self::One(session);
        }
    }
}

/// A session that has not ended for good.
struct Open<T, V> {
    start: i64,
    /// Its last moment, which there is also at the end of time, where its end is not.
    last: i64,
    gathered: Gathered<T, V>,
    fired: bool,
}

/// What a session has of its records.
enum Gathered<T, V> {
    /// The aggregate's state, where two can be merged.
    State(V),
    /// The records, where they cannot.
    Values(Vec<T>),
}

impl<T, V> Gathered<T, V> {
    fn new<K, A: Aggregate<K, T, State = V>>(aggregate: &A) -> Self {
        if A::MERGES { Self::State(aggregate.start()) } else { Self::Values(Vec::new()) }
    }

    #[inline(always)]
    fn take<K, A: Aggregate<K, T, State = V>>(&mut self, aggregate: &mut A, value: T) -> Result<(), Fault> {
        match self {
            Self::State(state) => aggregate.take(state, value),
            Self::Values(values) => {
                values.push(value);
                Ok(())
            }
        }
    }

    fn merge<K, A: Aggregate<K, T, State = V>>(&mut self, aggregate: &mut A, other: Self) {
        match (self, other) {
            (Self::State(state), Self::State(other)) => aggregate.merge(state, other),
            (Self::Values(values), Self::Values(mut others)) => values.append(&mut others),
            _ => unreachable!("sessions of one aggregate gather the same"),
        }
    }
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
        match &self.gathered {
            Gathered::State(state) => Ok(aggregate.look(key, self.window(), state)),
            Gathered::Values(values) => {
                let mut state = aggregate.start();
                values.iter().try_for_each(|value| aggregate.add(&mut state, value))?;
                Ok(aggregate.finish(key, self.window(), state))
            }
        }
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
        let rules = Rules { reach, lateness, watermark: i64::MIN, expiry: i64::MIN };
        let (hasher, kept, noted) = (RandomState::default(), Entries::default(), Noted::new());
        Self { rules, key, aggregate, hasher, kept, noted, timers: TimeQueue::new() }
    }
}

impl<K, T, V> KeySessions<K, T, V> {
    /// Puts a record into its session, merging those it joins. Gives the record back if it is late; else the end of its
    /// session.
    #[inline(always)]
    fn place<A>(
        &mut self,
        record: Timed<T>,
        rules: Rules,
        is_late: bool,
        aggregate: &mut A,
    ) -> Result<Result<i64, Timed<T>>, Fault>
    where
        A: Aggregate<K, T, State = V>,
    {
        let start = record.time.millis();
        let last = start.saturating_add_unsigned(rules.reach);
        match &mut self.sessions {
            Sessions::One(session) if session.start <= last && start <= session.last => {
                session.start = session.start.min(start);
                session.last = session.last.max(last);
                session.gathered.take(aggregate, record.value)?;
                session.fired = false;
                Ok(Ok(session.end()))
            }
            sessions => {
                let placed = Self::place_among(sessions.many(), record, last, is_late, aggregate);
                sessions.settle();
                placed
            }
        }
    }

    /// As [`place`](Self::place), whatever sessions there are.
    #[inline(never)]
    fn place_among<A>(
        sessions: &mut Vec<Open<T, V>>,
        record: Timed<T>,
        last: i64,
        is_late: bool,
        aggregate: &mut A,
    ) -> Result<Result<i64, Timed<T>>, Fault>
    where
        A: Aggregate<K, T, State = V>,
    {
        let start = record.time.millis();
        let first = sessions.partition_point(|session| session.last < start);
        let behind = first + sessions[first..].partition_point(|session| session.start <= last);
        if first == behind {
            if is_late {
                return Ok(Err(record));
            }
            sessions.insert(first, Open { start, last, gathered: Gathered::new(aggregate), fired: false });
        }
        let joined: Vec<_> = sessions.drain(first + 1..behind.max(first + 1)).collect();
        let session = &mut sessions[first];
        for other in joined {
            session.last = session.last.max(other.last);
            session.gathered.merge(aggregate, other.gathered);
        }
        session.start = session.start.min(start);
        session.last = session.last.max(last);
        session.gathered.take(aggregate, record.value)?;
        session.fired = false;
        Ok(Ok(session.end()))
    }

    /// Sees to it that the key is looked at by `deadline`.
    #[inline(always)]
    fn set_timer(&mut self, deadline: i64, hash: u64, timers: &mut TimeQueue) {
        if self.timer == NO_TIMER || deadline < self.timer {
            self.timer = deadline;
            timers.push(deadline, hash);
        }
    }
}

/// Does what is due for a key.
fn fire<K: Clone, T, A: Aggregate<K, T>>(
    mut entry: OccupiedEntry<'_, KeySessions<K, T, A::State>>,
    hash: u64,
    rules: Rules,
    aggregate: &mut A,
    timers: &mut TimeQueue,
    out: &mut impl Emit<Timed<Windowed<K, A::Out>>>,
) -> Result<(), Fault> {
    let Rules { watermark, expiry, lateness, .. } = rules;
    let kept = entry.get_mut();
    for session in kept.sessions.all_mut().iter_mut().filter(|session| !session.fired && session.end() <= watermark) {
        session.fired = true;
        let value = session.value(&kept.key, aggregate)?;
        out.emit(result(kept.key.clone(), session.window(), value))?;
    }
    kept.timer = NO_TIMER;
    if kept.sessions.all().iter().any(|session| session.end() <= expiry) {
        kept.sessions.many().retain(|session| session.end() > expiry);
        kept.sessions.settle();
    }
    match kept.sessions.all().iter().map(|session| session.deadline(lateness)).min() {
        Some(deadline) => kept.set_timer(deadline, hash, timers),
        None => {
            entry.remove();
        }
    }
    Ok(())
}

impl<S: KeySelector<Timed<T>>, T, A: Aggregate<S::Key, T>> Clone for SessionWindows<S, T, A> {
    fn clone(&self) -> Self {
        Self::reaching(self.rules.reach, self.rules.lateness, self.key.clone(), self.aggregate.clone())
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
        let Self { rules, key, aggregate, hasher, kept, noted, timers } = self;
        let rules = *rules;
        let last = record.time.millis().saturating_add_unsigned(rules.reach);
        let is_late = last.saturating_add(1) <= rules.expiry;
        let (hash, entry) = {
            let (hash, selected) = noted.select(key, &record, |key| kept.begin(hasher.hash_one(key)));
            let hash_of = |kept: &KeySessions<S::Key, T, A::State>| hasher.hash_one(kept.key.borrow());
            let entry = match kept.entry(hash, |kept| S::is(&selected, &kept.key), hash_of) {
                Ok(entry) => Some(entry),
                Err(_) if is_late => None,
                Err(vacant) => {
                    let (start, key) = (record.time.millis(), S::into_key(selected));
                    let open = Open { start, last, gathered: Gathered::new(aggregate), fired: false };
                    Some(vacant.insert(KeySessions { key, timer: NO_TIMER, sessions: Sessions::One(open) }))
                }
            };
            (hash, entry)
        };
        let Some(mut entry) = entry else { return late(record, out) };
        let deadline = match entry.get_mut().place(record, rules, is_late, aggregate)? {
            Ok(deadline) => deadline,
            Err(record) => return late(record, out),
        };
        if deadline <= rules.watermark {
            return fire(entry, hash, rules, aggregate, timers, out);
        }
        entry.get_mut().set_timer(deadline, hash, timers);
        Ok(())
    }

    #[inline(always)]
    fn looks_ahead(&mut self) -> usize {
        self.noted.restart(self.kept.is_large())
    }

    #[inline(always)]
    fn ahead(&mut self, record: &Timed<T>) {
        let Self { key, hasher, kept, noted, .. } = self;
        noted.note(key, record, |key| kept.begin(hasher.hash_one(key)));
    }

    /// Fires what has ended, in the order of the timers, and forgets what is past its lateness.
    fn advance(&mut self, watermark: i64, out: &mut impl Emit<Timed<WindowedOf<Self>>>) -> Result<(), Fault> {
        let Self { rules, aggregate, hasher, kept, timers, .. } = self;
        if watermark <= rules.watermark {
            return Ok(());
        }
        rules.watermark = watermark;
        rules.expiry = rules.lateness.expiry(watermark);
        while let Some((deadline, hash)) = timers.pop(watermark, |hash| kept.fetch(hash)) {
            // The table also offers keys of other hashes.
            let is_due = |kept: &KeySessions<S::Key, T, A::State>| {
                kept.timer == deadline && hasher.hash_one(Borrow::<S::Lookup>::borrow(&kept.key)) == hash
            };
            if let Some(entry) = kept.find(hash, is_due) {
                fire(entry, hash, *rules, aggregate, timers, out)?;
            }
        }
        Ok(())
    }

    fn fires_at(&self) -> i64 {
        self.timers.earliest().unwrap_or(i64::MAX)
    }

    fn discard(&mut self) -> u64 {
        self.timers.clear();
        let kept = std::mem::take(&mut self.kept);
        kept.iter().flat_map(|kept| kept.sessions.all()).filter(|session| !session.fired).count() as u64
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.aggregate.close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Computed;
    use crate::operator::Counted;

    struct Counts(Vec<(u32, i64, i64, u64)>);

    impl Emit<Timed<Windowed<u32, u64>>> for Counts {
        fn emit(&mut self, record: Timed<Windowed<u32, u64>>) -> Result<(), Fault> {
            let Windowed { key, window, value, .. } = record.value;
            self.0.push((key, window.start.millis(), window.end.millis(), value));
            Ok(())
        }
    }

    #[test]
    fn each_of_many_keys_has_its_own_sessions_where_all_have_the_same_times() {
        let key = Computed::new(|record: &Timed<u32>| record.value);
        let mut windows = SessionWindows::new(Duration::from_millis(10), Lateness::new(Duration::ZERO), key, Counted);
        let (keys, mut counts) = (0..20_000_u32, Counts(Vec::new()));
        for time in [0, 5, 12, 40] {
            for key in keys.clone() {
                let record = Timed { time: Timestamp::from_millis(time), value: key };
                windows.take(record, &mut counts, |_, _| unreachable!("no record is late")).unwrap();
            }
            // The sessions have grown since their timers were set.
            windows.advance(time - 1, &mut counts).unwrap();
        }
        let mut fired = std::mem::take(&mut counts.0);
        fired.sort_unstable();
        assert_eq!(fired, keys.clone().map(|key| (key, 0, 22, 3)).collect::<Vec<_>>());
        windows.advance(i64::MAX, &mut counts).unwrap();
        counts.0.sort_unstable();
        assert_eq!(counts.0, keys.map(|key| (key, 40, 50, 1)).collect::<Vec<_>>());
        assert!(windows.kept.is_empty());
    }
}
