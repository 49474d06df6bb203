//! Which records are late, what the windows of the others have in them when they fire, and in which order, by brute
//! force.
//!
//! A source that gives one record a batch has a watermark between each two, and that goes along one lane: what is late
//! is determined. The oracle knows the watermark after each record, keeps the records themselves, and cuts those of a
//! key into sessions anew each time. It has no timers, and merges no sessions that it kept.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{
    BoxError, Environment, Next, OutOfOrder, Session, Sliding, Source, SourceContext, Timed, Timestamp, Tumbling,
    Window,
};

use super::plan::{Windows, windows};
use super::reference::{aligned, cut};
use super::timely::{in_windows, ms};
use super::tree::{Smaller, fewer};
use crate::probes::sorted;

/// A record: its time, its key, and a number that tells it from others.
type Event = (i64, u8, u32);

/// What fired: the window and the records in it.
type Fired = (Window, Vec<u32>);

/// Records that come one by one, and windows of them.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    /// Their times, and their keys.
    events: Vec<(i64, u8)>,
    windows: Windows,
    bound: u64,
    lateness: u64,
    replicas: usize,
    /// So many task boundaries between the source and the windows.
    exchanges: usize,
    block_records: usize,
}

impl Smaller for Arrivals {
    fn smaller(&self) -> Vec<Self> {
        let events = self.events.smaller().into_iter().map(|events| Self { events, ..self.clone() });
        let replicas = fewer(self.replicas).map(|replicas| Self { replicas, ..self.clone() });
        let lateness = (self.lateness > 0).then(|| Self { lateness: 0, ..self.clone() });
        let exchanges = (self.exchanges > 0).then(|| Self { exchanges: 0, ..self.clone() });
        events.chain(replicas).chain(lateness).chain(exchanges).collect()
    }
}

prop_compose! {
    pub(super) fn arrivals()(
        events in vec((-60..60_i64, 0..3_u8), 0..40),
        // Time goes on, so that there are windows that have been.
        pace in 0..6_i64,
        windows in windows(),
        bound in prop_oneof![Just(0), 0..30_u64],
        lateness in prop_oneof![Just(0), 0..60_u64],
        replicas in 1..5_usize,
        exchanges in 0..3_usize,
        block_records in 1..9_usize,
    ) -> Arrivals {
        let events = events.into_iter().enumerate().map(|(n, (time, key))| (n as i64 * pace + time / 2, key)).collect();
        Arrivals { events, windows, bound, lateness, replicas, exchanges, block_records }
    }
}

/// What the windows of each key fired, in order, and which records were late.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    fired: BTreeMap<u8, Vec<Fired>>,
    late: Vec<u32>,
}

impl Arrivals {
    fn events(&self) -> impl Iterator<Item = Event> {
        self.events.clone().into_iter().zip(0..).map(|((time, key), id)| (time, key, id))
    }

    /// By the engine.
    pub(super) fn run(&self) -> Result<Outcome, TestCaseError> {
        let env = Environment::local("late").block_records(self.block_records).queue_blocks(2);
        let events: Vec<Event> = self.events().collect();
        let source = move |_| OneByOne { events: events.clone().into_iter(), between: false };
        let bound = OutOfOrder::by(ms(self.bound));
        let timed =
            env.from_source(source).with_timestamps(|event| Timestamp::from_millis(event.0), bound).on_another_thread();
        let timed = (0..self.exchanges).fold(timed, |timed, _| timed.map(|timed| timed).on_another_thread());
        let (fired, late) = in_windows!(self.windows, |kind| {
            let windowed = timed.key_by(|timed| timed.value.1).window(kind).allowed_lateness(ms(self.lateness));
            let ids = windowed.apply(|_, _, events: &[Event]| events.iter().map(|event| event.2).collect::<Vec<_>>());
            let (fired, late) = ids.named("windows").parallelism(self.replicas).split_late();
            let told = |result: Timed<sage::Windowed<u8, Vec<u32>>>| {
                (result.value.key, (result.value.window, sorted(result.value.value)))
            };
            (fired.map(told).collect(), late.map(|timed| timed.value.2).collect())
        });
        let report = env.run().map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut by_key: BTreeMap<u8, Vec<Fired>> = BTreeMap::new();
        fired.take().into_iter().for_each(|(key, fired)| by_key.entry(key).or_default().push(fired));
        let late = sorted(late.take());
        prop_assert_eq!(report.operator("windows").map(|windows| windows.late), Some(late.len() as u64));
        Ok(Outcome { fired: by_key, late })
    }

    /// By the oracle.
    pub(super) fn expected(&self) -> Outcome {
        let mut oracle = Oracle {
            windows: self.windows,
            lateness: self.lateness as i64,
            watermark: i64::MIN,
            kept: BTreeMap::new(),
            filled: BTreeMap::new(),
            told: BTreeSet::new(),
            outcome: Outcome { fired: BTreeMap::new(), late: Vec::new() },
        };
        let mut latest = i64::MIN;
        for event in self.events() {
            latest = latest.max(event.0);
            oracle.take(event);
            oracle.advance(latest - self.bound as i64);
        }
        oracle.advance(i64::MAX);
        oracle.outcome
    }
}

struct Oracle {
    windows: Windows,
    lateness: i64,
    watermark: i64,
    /// The records of each key that are in a window which is not gone, sessions only.
    kept: BTreeMap<u8, Vec<(i64, u32)>>,
    /// The records of each window that has a fixed length.
    filled: BTreeMap<(u8, Window), Vec<u32>>,
    /// The sessions that have fired as they are.
    told: BTreeSet<(u8, Fired)>,
    outcome: Outcome,
}

impl Oracle {
    /// Whether a window that ends then is gone.
    fn is_gone(&self, end: Timestamp) -> bool {
        end.millis() <= self.watermark.saturating_sub(self.lateness)
    }

    fn fire(&mut self, key: u8, fired: Fired) {
        self.outcome.fired.entry(key).or_default().push((fired.0, sorted(fired.1)));
    }

    fn take(&mut self, event: Event) {
        let is_late = match self.windows {
            Windows::Tumbling(size) => self.fill(event, size, size),
            Windows::Sliding(size, every) => self.fill(event, size, every),
            Windows::Session(_) => self.join(event),
        };
        self.outcome.late.extend(is_late.then_some(event.2));
    }

    /// Puts a record into the windows that are not gone, and tells whether all are.
    fn fill(&mut self, (time, key, id): Event, size: u64, every: u64) -> bool {
        let open: Vec<_> = aligned(time, size, every).filter(|window| !self.is_gone(window.end)).collect();
        for &window in &open {
            let ids = self.filled.entry((key, window)).or_default();
            ids.push(id);
            if window.end.millis() <= self.watermark {
                let fired = (window, ids.clone());
                self.fire(key, fired);
            }
        }
        open.is_empty()
    }

    /// Puts a record among those of its key, unless it is gone and joins no session that is not.
    fn join(&mut self, (time, key, id): Event) -> bool {
        let mut all = self.kept.get(&key).cloned().unwrap_or_default();
        all.push((time, id));
        let sessions = self.sessions(&all);
        let session = sessions.into_iter().find(|(_, ids)| ids.contains(&id)).expect("a record is in a session");
        if session.1.len() == 1 && self.is_gone(session.0.end) {
            return true;
        }
        self.kept.insert(key, all);
        if session.0.end.millis() <= self.watermark {
            self.told.insert((key, session.clone()));
            self.fire(key, session);
        }
        false
    }

    fn sessions(&self, records: &[(i64, u32)]) -> Vec<Fired> {
        cut(self.windows, records).into_iter().map(|(window, ids)| (window, sorted(ids))).collect()
    }

    fn advance(&mut self, watermark: i64) {
        let before = std::mem::replace(&mut self.watermark, watermark);
        let ended = |end: Timestamp| before < end.millis() && end.millis() <= watermark;
        let filled: Vec<_> = self.filled.iter().filter(|((_, window), _)| ended(window.end)).collect();
        let filled: Vec<_> = filled.into_iter().map(|(&(key, window), ids)| (key, (window, ids.clone()))).collect();
        filled.into_iter().for_each(|(key, fired)| self.fire(key, fired));
        for (key, records) in std::mem::take(&mut self.kept) {
            let sessions = self.sessions(&records);
            let (gone, open): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|session| self.is_gone(session.0.end));
            let stays = |record: &(i64, u32)| open.iter().any(|(_, ids)| ids.contains(&record.1));
            self.kept.insert(key, records.iter().copied().filter(stays).collect());
            for session in sorted([gone, open].concat()) {
                if session.0.end.millis() <= watermark && self.told.insert((key, session.clone())) {
                    self.fire(key, session);
                }
            }
        }
    }
}

/// A batch for each record.
struct OneByOne {
    events: std::vec::IntoIter<Event>,
    between: bool,
}

impl Source for OneByOne {
    type Item = Event;

    fn next(&mut self, _cx: &SourceContext) -> Result<Next<Event>, BoxError> {
        self.between = !self.between;
        if !self.between {
            return Ok(Next::Idle);
        }
        Ok(self.events.next().map_or(Next::End, Next::Record))
    }
}
