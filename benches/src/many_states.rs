//! Operators that keep a state for each of a million keys, which come at random, on one thread: the table is far larger
//! than a second-level cache, so that a record costs what its look-ups cost. And a deduplication that forgets.
//!
//! Events are in order, a thousand in each millisecond. Answers do not depend on when a watermark comes: functions look
//! at the times of their records, and timers only end what no record has ended.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use sage::{Environment, OutOfOrder, Pipe, Session, Sliding, Stream, Timed, Timer, Timestamp};

use crate::Options;
use crate::inputs::{scramble, stir};
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

const RECORDS: u64 = 10_000_000;
const KEYS: u64 = 1_000_000;
const UNIT: &str = "ns/record";

/// Events of each millisecond: each key has one in a second, on average.
const PER_MILLISECOND: u64 = 1000;
/// The loops look for what is due so often, as the engine does.
const BATCH_RECORDS: u64 = 4096;

/// How long a key that was seen is remembered.
const REMEMBERED_MILLIS: i64 = 100;
/// Two events of equal key are fewer than so many apart, which is less time than the key is remembered.
const APART: u64 = 50_000;
/// A count is sent on so long after its first event.
const FLUSH_MILLIS: i64 = 2000;
/// A key is idle when no event has come for so long.
const GAP_MILLIS: i64 = 2000;
const SIZE_MILLIS: i64 = 10_000;
const SLIDE_MILLIS: i64 = 1000;
const EXPIRY: Duration = Duration::from_secs(60);

/// Measures deduplication.
pub(crate) fn measure_dedup(options: &Options) -> Result<Vec<Row>> {
    compare(options, "dedup", "a set and a queue", hand_dedup, ours_dedup, Limit::Ratio(2.0))
}

/// Measures `process` without timers.
pub(crate) fn measure_process(options: &Options) -> Result<Vec<Row>> {
    compare(options, "keys_process", "a table", hand_count, ours_process, Limit::Nanos(60.0))
}

/// Measures `process` with a timer for each key, which is set once.
pub(crate) fn measure_timer(options: &Options) -> Result<Vec<Row>> {
    compare(options, "keys_timer", "a table and a queue", hand_flush, ours_flush, Limit::Nanos(120.0))
}

/// Measures `process` with a timer for each key, which each record moves.
pub(crate) fn measure_moved(options: &Options) -> Result<Vec<Row>> {
    compare(options, "keys_moved", "a table and lists by time", hand_idle, ours_idle, Limit::Nanos(120.0))
}

/// Measures states that expire by the clock.
pub(crate) fn measure_expiry(options: &Options) -> Result<Vec<Row>> {
    compare(options, "keys_expire", "a table with times", hand_expiry, ours_expiry, Limit::Nanos(20.0))
}

/// Measures sliding windows.
pub(crate) fn measure_sliding(options: &Options) -> Result<Vec<Row>> {
    compare(options, "keys_sliding", "ten counts a key", hand_sliding, ours_sliding, Limit::Nanos(80.0))
}

/// Measures sessions.
pub(crate) fn measure_session(options: &Options) -> Result<Vec<Row>> {
    compare(options, "keys_session", "a table and lists by time", hand_idle, ours_session, Limit::Nanos(30.0))
}

#[derive(Clone, Copy)]
enum Limit {
    /// To the loop.
    Ratio(f64),
    Nanos(f64),
}

/// A program: a digest of its answer over so many records.
type Run = fn(u64) -> Result<u64>;

fn compare(options: &Options, name: &str, variant: &str, hand: Run, ours: Run, limit: Limit) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let timed = |run: Run| {
        move || {
            let start = Instant::now();
            let digest = run(records)?;
            Ok(Sample { value: nanos_per(start.elapsed(), records), digest })
        }
    };
    let contenders =
        &mut [Contender::new(Side::Hand, variant, timed(hand)), Contender::new(Side::Ours, "", timed(ours))];
    let measurement = alternate(name, UNIT, options.runs(), contenders)?;
    let versus = format!("{name}_hand");
    Ok(match limit {
        Limit::Ratio(ratio) => {
            vec![Row::compare(&versus, UNIT, &measurement, Side::Hand, Goal::RatioAtMost(ratio))?]
        }
        Limit::Nanos(nanos) => vec![
            Row::against_limit(name, UNIT, measurement.best(Side::Ours)?, nanos),
            Row::compare(&versus, UNIT, &measurement, Side::Hand, Goal::Reported)?,
        ],
    })
}

/// Mixes the bits of a number: no key follows from the one before.
#[inline(always)]
fn mix(n: u64) -> u64 {
    scramble(stir(n.wrapping_add(1)))
}

/// An event: its time and its key.
#[derive(Clone, Copy)]
struct Event {
    millis: i64,
    key: u64,
}

/// The `n`th event.
#[inline(always)]
fn event(n: u64) -> Event {
    Event { millis: (n / PER_MILLISECOND) as i64, key: mix(n) % KEYS }
}

/// The `n`th event of a stream in which half of the keys are those of earlier events.
#[inline(always)]
fn repeated_event(n: u64) -> Event {
    let back = if n.is_multiple_of(2) { 0 } else { mix(n) % APART };
    Event { millis: (n / PER_MILLISECOND) as i64, key: n.saturating_sub(back) }
}

/// Adds a result to a digest in which order does not count.
#[inline(always)]
fn add(digest: &mut u64, key: u64, value: u64) {
    *digest = digest.wrapping_add(stir(scramble(key.wrapping_add(1)).wrapping_add(value)));
}

/// The events of a job, with their times.
fn events<F>(env: &Environment, records: u64, event: F) -> Stream<impl Pipe<Out = Timed<Event>> + '_>
where
    F: FnMut(u64) -> Event + Clone + Send + 'static,
{
    env.from_factory(move |_replica| 0..black_box(records))
        .map(event)
        .with_timestamps(|event| Timestamp::from_millis(event.millis), OutOfOrder::by(Duration::ZERO))
}

/// Runs a job that emits one digest.
macro_rules! digest_of {
    ($env:expr, $results:expr) => {{
        let digest = $results.fold(0u64, |digest, (key, value)| add(digest, key, value)).collect();
        $env.run()?;
        digest.take().pop().context("a job gave no digest")
    }};
}

fn hand_dedup(records: u64) -> Result<u64> {
    let (mut seen, mut forgotten, mut digest) = (HashSet::new(), VecDeque::new(), 0);
    let records = black_box(records);
    let mut n = 0;
    while n < records {
        let mut latest = i64::MIN;
        for n in n..records.min(n + BATCH_RECORDS) {
            let event = repeated_event(n);
            latest = event.millis;
            if seen.insert(event.key) {
                forgotten.push_back((event.millis + REMEMBERED_MILLIS, event.key));
                add(&mut digest, event.key, 0);
            }
        }
        n += BATCH_RECORDS;
        while let Some((_, key)) = forgotten.pop_front_if(|(until, _)| *until <= latest) {
            seen.remove(&key);
        }
    }
    Ok(digest)
}

fn ours_dedup(records: u64) -> Result<u64> {
    let env = Environment::local("dedup");
    let results = events(&env, records, repeated_event).key_by(|event| event.value.key).process(
        false,
        |seen, event, key| {
            if !std::mem::replace(seen, true) {
                key.set(Timer::Event(event.time.later(Duration::from_millis(REMEMBERED_MILLIS as u64))));
                key.push((event.value.key, 0));
            }
        },
        |_, _, key| key.forget(),
    );
    digest_of!(env, results)
}

fn hand_count(records: u64) -> Result<u64> {
    let (mut counts, mut digest) = (HashMap::new(), 0);
    for n in 0..black_box(records) {
        let event = event(n);
        let count = counts.entry(event.key).or_insert(0u64);
        *count += 1;
        add(&mut digest, event.key, *count);
    }
    Ok(digest)
}

fn ours_process(records: u64) -> Result<u64> {
    let env = Environment::local("keys_process");
    let results = env.from_factory(move |_replica| 0..black_box(records)).map(event).key_by(|event| event.key).process(
        0u64,
        |count, event, key| {
            *count += 1;
            key.push((event.key, *count));
        },
        |_, _, _| {},
    );
    digest_of!(env, results)
}

/// Counts of a key, until a moment.
#[derive(Clone, Copy, Default)]
struct Counted {
    until: i64,
    count: u64,
}

fn hand_flush(records: u64) -> Result<u64> {
    let (mut counts, mut due, mut digest) = (HashMap::<u64, Counted>::new(), VecDeque::new(), 0);
    let records = black_box(records);
    let mut n = 0;
    while n < records {
        let mut latest = i64::MIN;
        for n in n..records.min(n + BATCH_RECORDS) {
            let Event { millis, key } = event(n);
            latest = millis;
            let counted = counts.entry(key).or_default();
            if counted.count == 0 || counted.until <= millis {
                if counted.count > 0 {
                    add(&mut digest, key, counted.count);
                }
                *counted = Counted { until: millis + FLUSH_MILLIS, count: 1 };
                due.push_back((counted.until, key));
            } else {
                counted.count += 1;
            }
        }
        n += BATCH_RECORDS;
        let latest = if n < records { latest } else { i64::MAX };
        while let Some((until, key)) = due.pop_front_if(|(until, _)| *until <= latest) {
            if let Some(counted) = counts.get_mut(&key).filter(|counted| counted.until == until && counted.count > 0) {
                add(&mut digest, key, counted.count);
                counted.count = 0;
            }
        }
    }
    Ok(digest)
}

fn ours_flush(records: u64) -> Result<u64> {
    let env = Environment::local("keys_timer");
    let results = events(&env, records, event).key_by(|event| event.value.key).process(
        Counted::default(),
        |counted, event, key| {
            if counted.count == 0 || counted.until <= event.value.millis {
                if counted.count > 0 {
                    key.push((event.value.key, counted.count));
                }
                *counted = Counted { until: event.value.millis + FLUSH_MILLIS, count: 1 };
                key.set(Timer::Event(Timestamp::from_millis(counted.until)));
            } else {
                counted.count += 1;
            }
        },
        |counted, timer, key| {
            if timer.moment().millis() == counted.until && counted.count > 0 {
                let count = std::mem::take(&mut counted.count);
                let key_of_count = *key.key();
                key.push((key_of_count, count));
            }
        },
    );
    digest_of!(env, results)
}

/// The count of a key is sent on when no event of it has come for a while; the same as sessions.
fn hand_idle(records: u64) -> Result<u64> {
    let (mut counts, mut digest) = (HashMap::<u64, Counted>::new(), 0);
    // The keys to look at in each millisecond, from `first` on.
    let (mut due, mut first) = (VecDeque::<Vec<u64>>::new(), 0);
    let look_at = |due: &mut VecDeque<Vec<u64>>, first: i64, until: i64, key: u64| {
        let place = usize::try_from(until - first).unwrap_or_default();
        if due.len() <= place {
            due.resize_with(place + 1, Vec::new);
        }
        due[place].push(key);
    };
    let records = black_box(records);
    let mut n = 0;
    while n < records {
        let mut latest = i64::MIN;
        for n in n..records.min(n + BATCH_RECORDS) {
            let Event { millis, key } = event(n);
            latest = millis;
            let counted = counts.entry(key).or_default();
            if counted.count == 0 {
                look_at(&mut due, first, millis + GAP_MILLIS, key);
            } else if counted.until <= millis {
                add(&mut digest, key, counted.count);
                counted.count = 0;
            }
            *counted = Counted { until: millis + GAP_MILLIS, count: counted.count + 1 };
        }
        n += BATCH_RECORDS;
        let latest = if n < records { latest } else { i64::MAX };
        while first <= latest
            && let Some(keys) = due.pop_front()
        {
            first += 1;
            for key in keys {
                let Some(counted) = counts.get_mut(&key) else { continue };
                if counted.until <= latest {
                    add(&mut digest, key, counted.count);
                    counts.remove(&key);
                } else {
                    look_at(&mut due, first, counted.until, key);
                }
            }
        }
    }
    Ok(digest)
}

fn ours_idle(records: u64) -> Result<u64> {
    let env = Environment::local("keys_moved");
    let results = events(&env, records, event).key_by(|event| event.value.key).process(
        Counted::default(),
        |counted, event, key| {
            let millis = event.value.millis;
            if counted.count > 0 {
                key.cancel(Timer::Event(Timestamp::from_millis(counted.until)));
                if counted.until <= millis {
                    key.push((event.value.key, counted.count));
                    counted.count = 0;
                }
            }
            *counted = Counted { until: millis + GAP_MILLIS, count: counted.count + 1 };
            key.set(Timer::Event(Timestamp::from_millis(counted.until)));
        },
        |counted, _timer, key| {
            let (of, count) = (*key.key(), counted.count);
            key.push((of, count));
            key.forget();
        },
    );
    digest_of!(env, results)
}

fn ours_session(records: u64) -> Result<u64> {
    let env = Environment::local("keys_session");
    let results = events(&env, records, event)
        .key_by(|event| event.value.key)
        .window(Session::gap(Duration::from_millis(GAP_MILLIS as u64)))
        .count()
        .map(|it| (it.value.key, it.value.value));
    digest_of!(env, results)
}

fn hand_expiry(records: u64) -> Result<u64> {
    let (mut counts, mut digest) = (HashMap::<u64, (u64, Instant)>::new(), 0);
    let records = black_box(records);
    let mut n = 0;
    while n < records {
        let now = Instant::now();
        for n in n..records.min(n + BATCH_RECORDS) {
            let event = event(n);
            let (count, last) = counts.entry(event.key).or_insert((0, now));
            if now.duration_since(*last) >= EXPIRY {
                *count = 0;
            }
            *last = now;
            *count += 1;
            add(&mut digest, event.key, *count);
        }
        n += BATCH_RECORDS;
        // Nothing expires in the time of a run: that a table is looked through for it is left out.
    }
    Ok(digest)
}

fn ours_expiry(records: u64) -> Result<u64> {
    let env = Environment::local("keys_expire");
    let results = env
        .from_factory(move |_replica| 0..black_box(records))
        .map(event)
        .key_by(|event| event.key)
        .expire_after(EXPIRY)
        .map_with_state(0u64, |count, event| {
            *count += 1;
            (event.key, *count)
        });
    digest_of!(env, results)
}

/// A count of each second that a window may have, and the windows as sums of them.
fn hand_sliding(records: u64) -> Result<u64> {
    const PANES: usize = (SIZE_MILLIS / SLIDE_MILLIS) as usize;
    let (mut counts, mut digest) = (HashMap::<u64, [u64; PANES]>::new(), 0);
    let mut fire = |counts: &mut HashMap<u64, [u64; PANES]>, pane: i64| {
        // The window that ends with `pane`; then its first pane is that of the next window's last.
        let next = usize::try_from((pane + 1).rem_euclid(PANES as i64)).unwrap_or_default();
        counts.retain(|key, panes| {
            let count: u64 = panes.iter().sum();
            add(&mut digest, key.wrapping_add(pane as u64), count);
            panes[next] = 0;
            panes.iter().any(|count| *count > 0)
        });
    };
    let records = black_box(records);
    let mut current = 0;
    for n in 0..records {
        let Event { millis, key } = event(n);
        let pane = millis / SLIDE_MILLIS;
        while current < pane {
            fire(&mut counts, current);
            current += 1;
        }
        counts.entry(key).or_default()[(pane as usize) % PANES] += 1;
    }
    while !counts.is_empty() {
        fire(&mut counts, current);
        current += 1;
    }
    Ok(digest)
}

fn ours_sliding(records: u64) -> Result<u64> {
    let env = Environment::local("keys_sliding");
    let (size, slide) = (Duration::from_millis(SIZE_MILLIS as u64), Duration::from_millis(SLIDE_MILLIS as u64));
    let results =
        events(&env, records, event).key_by(|event| event.value.key).window(Sliding::of(size, slide)).count().map(
            |it| {
                let pane = it.value.window.end.millis() / SLIDE_MILLIS - 1;
                (it.value.key.wrapping_add(pane as u64), it.value.value)
            },
        );
    digest_of!(env, results)
}
