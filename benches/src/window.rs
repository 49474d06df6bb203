//! Windows: a count per key and second over events that are out of order by up to 7 ms, on one thread.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use foldhash::{HashMap, HashMapExt};
use sage::{Environment, OutOfOrder, Timestamp, Tumbling};

use crate::Options;
use crate::inputs::{digest_pairs, keyed_record, scramble};
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

const RECORDS: u64 = 50_000_000;
const UNIT: &str = "ns/record";

/// Events of each millisecond: a window has a million, of all the 65,536 keys.
const PER_MILLISECOND: u64 = 1000;
const WINDOW_MILLIS: i64 = 1000;
/// An event is at most so much later than one of a later time.
const BOUND_MILLIS: i64 = 8;
/// The loop looks for windows to emit so often, as the engine does.
const BATCH_RECORDS: u64 = 4096;

/// Measures windows.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let timed = |run: fn(u64) -> Result<Vec<(u64, u64)>>| move || timed(records, || run(records));
    let measurement = alternate(
        "window_tumbling",
        UNIT,
        options.runs(),
        &mut [
            Contender::new(Side::Hand, "a table per window", timed(hand)),
            Contender::new(Side::Ours, "", timed(ours)),
        ],
    )?;
    Ok(vec![Row::compare("window_tumbling_hand", UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.5))?])
}

/// Times one run up to its list of counts; the digest of the list is not part of the time.
fn timed(records: u64, run: impl FnOnce() -> Result<Vec<(u64, u64)>>) -> Result<Sample> {
    let start = Instant::now();
    let counts = run()?;
    let value = nanos_per(start.elapsed(), records);
    Ok(Sample { value, digest: digest_pairs(counts) })
}

/// The `n`th event: its time and its key.
#[inline(always)]
fn event(n: u64) -> (i64, u64) {
    let delay = scramble(n) & 7;
    ((n / PER_MILLISECOND) as i64 - delay as i64, keyed_record(n).0)
}

/// One number for a window and a key.
fn window_and_key(start: i64, key: u64) -> u64 {
    (start as u64) << 20 | key
}

/// A window of the loop.
struct Open {
    start: i64,
    end: i64,
    counts: HashMap<u64, u64>,
}

impl Open {
    fn new(start: i64, counts: HashMap<u64, u64>) -> Self {
        Self { start, end: start + WINDOW_MILLIS, counts }
    }
}

fn hand(records: u64) -> Result<Vec<(u64, u64)>> {
    let mut results = Vec::new();
    // The newest is the last; as records are hardly out of order, there are two at most.
    let mut open: Vec<Open> = Vec::new();
    let mut spare = HashMap::new();
    let mut latest = i64::MIN;
    let mut emit = |window: &mut Open| {
        results.extend(window.counts.drain().map(|(key, count)| (window_and_key(window.start, key), count)));
    };
    let records = black_box(records);
    let mut n = 0;
    while n < records {
        for n in n..records.min(n + BATCH_RECORDS) {
            let (time, key) = event(n);
            latest = latest.max(time);
            let at = open.iter().rposition(|window| window.start <= time && time < window.end).unwrap_or_else(|| {
                open.push(Open::new(time.div_euclid(WINDOW_MILLIS) * WINDOW_MILLIS, std::mem::take(&mut spare)));
                open.len() - 1
            });
            *open[at].counts.entry(key).or_default() += 1;
        }
        n += BATCH_RECORDS;
        while open.first().is_some_and(|window| window.end <= latest - BOUND_MILLIS) {
            let mut done = open.remove(0);
            emit(&mut done);
            spare = done.counts;
        }
    }
    open.iter_mut().for_each(emit);
    Ok(results)
}

fn ours(records: u64) -> Result<Vec<(u64, u64)>> {
    let env = Environment::local("window");
    let counts = env
        .from_factory(move |_replica| 0..black_box(records))
        .map(event)
        .with_timestamps(
            |&(time, _)| Timestamp::from_millis(time),
            OutOfOrder::by(Duration::from_millis(BOUND_MILLIS as u64)),
        )
        .key_by(|event| event.value.1)
        .window(Tumbling::of(Duration::from_millis(WINDOW_MILLIS as u64)))
        .count()
        .map(|it| (window_and_key(it.value.window.start.millis(), it.value.key), it.value.value))
        .collect();
    env.run()?;
    Ok(counts.take())
}
