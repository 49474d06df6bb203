//! What a plan gives, computed with vectors on one thread, and without looking at how the engine does it.

use std::collections::{BTreeMap, BTreeSet};

use sage::{Timed, Timestamp, Window};

use super::plan::{
    Clock, Clocked, Events, FAR, Inside, Joins, Leaf, Leaving, Meeting, Pair, Plan, Record, Step, Timely, Way, Windows,
    source, stamp,
};
use super::tree::Tree;

/// Values stay below this, so that no sum of them overflows.
const LARGEST: u64 = 999_983;

pub(super) fn changed((key, value): Record) -> Record {
    (key, (value * 3 + 1) % LARGEST)
}

/// A record that tells what was joined, in few different values: joins of joins would grow without bound.
pub(super) fn paired(key: u8, a: Option<u64>, b: Option<u64>) -> Record {
    let told = |value: Option<u64>| value.map_or(0, |value| value + 1);
    (key, told(a).wrapping_mul(31).wrapping_add(told(b)) % 101)
}

/// A value that tells what a window had in it.
pub(super) fn digest(window: Window, mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    let bounds = [window.start.millis() as u64, window.end.millis() as u64];
    let mix = |digest: u64, value: &u64| (digest ^ value).wrapping_mul(0x0100_0000_01B3).rotate_left(29);
    bounds.iter().chain(&values).fold(0xCBF2_9CE4_8422_2325, mix) % LARGEST
}

/// What a record is for a window that is gathered in this way.
pub(super) fn gathered(way: Way, window: Window, values: &[u64]) -> u64 {
    match way {
        Way::Apply | Way::Fold => digest(window, values.to_vec()),
        Way::Reduce => digest(window, values.iter().max().copied().into_iter().collect()),
        Way::Count => digest(window, vec![values.len() as u64]),
    }
}

pub(super) fn window(start: i64, end: i64) -> Window {
    Window { start: Timestamp::from_millis(start), end: Timestamp::from_millis(end) }
}

fn by_key<V>(records: impl IntoIterator<Item = (u8, V)>) -> BTreeMap<u8, Vec<V>> {
    let mut all: BTreeMap<u8, Vec<V>> = BTreeMap::new();
    records.into_iter().for_each(|(key, value)| all.entry(key).or_default().push(value));
    all
}

fn unique<T: Ord>(records: Vec<T>) -> BTreeSet<T> {
    records.into_iter().collect()
}

/// The numbers from 1 for each key: what a state that counts its records has told in the end, whatever their order.
fn visits(keys: impl Iterator<Item = u8>) -> Vec<Record> {
    let counted = by_key(keys.map(|key| (key, ())));
    counted.into_iter().flat_map(|(key, seen)| (1..=seen.len() as u64).map(move |visit| (key, visit))).collect()
}

pub(super) fn interpret(plan: &Plan) -> Vec<Record> {
    match plan {
        Tree::Leaf(Leaf::Source { records, .. }) => source(*records).collect(),
        Tree::Leaf(Leaf::Clocked(leaving, _, clocked)) => leave(*leaving, interpret_clocked(clocked, false)),
        Tree::One(step, replicas, inner) => one(*step, *replicas, interpret(inner)),
        Tree::Two(pair, _, left, right) => two(*pair, interpret(left), interpret(right)),
    }
}

/// In how many replicas a broadcast is made: few, as each multiplies the records.
pub(super) fn copies(replicas: usize) -> usize {
    replicas.min(3)
}

pub(super) fn one(step: Step, replicas: usize, records: Vec<Record>) -> Vec<Record> {
    let apart = |nth: u64| move |record: Record| if record.1.is_multiple_of(nth) { changed(record) } else { record };
    match step {
        Step::Map => records.into_iter().map(changed).collect(),
        Step::Filter(nth) => records.into_iter().filter(|record| record.1 % nth == 0).collect(),
        Step::FlatMap(times) => {
            records.into_iter().flat_map(|(key, value)| (0..times).map(move |time| (key, value + time))).collect()
        }
        Step::Chain(nth) => {
            let kept = records.into_iter().map(changed).filter(|record| record.1 % nth == 0);
            kept.flat_map(|record| [record, changed(record)]).collect()
        }
        Step::Skip(nth) => records.into_iter().filter(|record| record.1 % nth != 0).collect(),
        Step::DeadLetters(nth) | Step::Split(nth) | Step::SplitOk(nth) => records.into_iter().map(apart(nth)).collect(),
        Step::Dawdle(_) | Step::Retry(_) | Step::Rebalance | Step::PartitionBy | Step::PartitionByKey => records,
        Step::Broadcast => records.repeat(copies(replicas)),
        Step::Sum => by_key(records).into_iter().map(|(key, all)| (key, all.iter().sum())).collect(),
        Step::Largest => {
            by_key(records).into_iter().map(|(key, all)| (key, all.into_iter().max().expect("a key has one"))).collect()
        }
        Step::Distinct => unique(records).into_iter().collect(),
        Step::Top(most) => {
            let all = by_key(records).into_iter();
            all.flat_map(|(key, mut all)| {
                all.sort_unstable_by(|a, b| b.cmp(a));
                all.into_iter().take(most).map(move |value| (key, value))
            })
            .collect()
        }
        Step::Visits => visits(records.into_iter().map(|record| record.0)),
        Step::Whole => vec![(0, records.iter().map(|record| record.1).sum())],
        Step::Take(limit) => vec![(0, limit.min(records.len() as u64))],
        Step::Tee => records.iter().copied().map(changed).chain(records.iter().copied()).collect(),
        Step::Five => {
            let five = |(key, value): Record| (0..5).map(move |branch| (key, value + branch));
            records.into_iter().flat_map(five).collect()
        }
        Step::SelfJoin => {
            let a = unique(records);
            let b = a.iter().filter(|r| r.1 % 2 == 0).map(|r| (r.0 ^ 1, r.1)).collect();
            joined(Joins::Full, a, b)
        }
        Step::Async { .. } => records.into_iter().filter(|record| record.1 % 7 != 0).collect(),
        Step::Loop(rounds, inside) => {
            let often = |record: &Record| record.1 % rounds;
            let round_of = |record: Record| (0..often(&record)).fold(record, |record, _| changed(record));
            let passes = records.iter().flat_map(|record| (0..often(record).max(1)).map(|_| record.0));
            let told = if matches!(inside, Inside::Visits) { visits(passes) } else { Vec::new() };
            records.iter().copied().map(round_of).chain(told).collect()
        }
    }
}

fn joined(joins: Joins, a: BTreeSet<Record>, b: BTreeSet<Record>) -> Vec<Record> {
    let value = |record: Option<&Record>| record.map(|record| record.1);
    let pairs = pairs_of(joins, &a, &b, |record| record.0);
    unique(pairs.into_iter().map(|(key, a, b)| paired(key, value(a), value(b))).collect()).into_iter().collect()
}

/// Each of a key with each.
fn pairs_of<'a, T, K: Copy + Ord>(
    joins: Joins,
    a: &'a BTreeSet<T>,
    b: &'a BTreeSet<T>,
    key: impl Fn(&T) -> K,
) -> Vec<(K, Option<&'a T>, Option<&'a T>)> {
    let mut keys: BTreeMap<K, (Vec<&T>, Vec<&T>)> = BTreeMap::new();
    a.iter().for_each(|a| keys.entry(key(a)).or_default().0.push(a));
    b.iter().for_each(|b| keys.entry(key(b)).or_default().1.push(b));
    let (keeps_left, keeps_right) = (!matches!(joins, Joins::Inner), matches!(joins, Joins::Full));
    let mut pairs = Vec::new();
    for (key, (a, b)) in keys {
        for &left in &a {
            pairs.extend(b.iter().map(|&right| (key, Some(left), Some(right))));
            pairs.extend((keeps_left && b.is_empty()).then_some((key, Some(left), None)));
        }
        let alone = b.iter().filter(|_| keeps_right && a.is_empty());
        pairs.extend(alone.map(|&right| (key, None, Some(right))));
    }
    pairs
}

fn two(pair: Pair, a: Vec<Record>, b: Vec<Record>) -> Vec<Record> {
    match pair {
        Pair::Union => [a, b].concat(),
        Pair::Join(joins) => joined(joins, unique(a), unique(b)),
        Pair::Connect => a.into_iter().map(changed).chain(b).collect(),
        Pair::CoProcess => visits(a.into_iter().chain(b).map(|record| record.0)),
        Pair::Zip => vec![(0, a.len().min(b.len()) as u64)],
    }
}

fn leave(leaving: Leaving, records: Vec<Timed<Record>>) -> Vec<Record> {
    let records: Vec<Record> = records.into_iter().map(|timed| timed.value).collect();
    match leaving {
        Leaving::Values | Leaving::Apart(..) => records,
        Leaving::Counted(size) => {
            let lengths = by_key(records.iter().copied()).into_iter().flat_map(|(key, all)| {
                all.chunks(size as usize).map(|chunk| (key, chunk.len() as u64)).collect::<Vec<_>>()
            });
            lengths.chain(records.iter().copied()).collect()
        }
    }
}

/// The records of a clocked plan. `open`: of one whose sources give a last record far in the future.
pub(super) fn interpret_clocked(clocked: &Clocked, open: bool) -> Vec<Timed<Record>> {
    match clocked {
        Tree::Leaf(Clock::Stamped(plan)) => {
            interpret(plan).into_iter().map(|record| Timed::new(stamp(&record), record)).collect()
        }
        Tree::Leaf(Clock::Events(events)) => {
            (0..events.replicas).flat_map(|replica| given(events, replica, open)).collect()
        }
        Tree::One(step, replicas, inner) => timely(*step, *replicas, interpret_clocked(inner, open)),
        Tree::Two(meeting, _, left, right) => {
            meet(*meeting, interpret_clocked(left, open), interpret_clocked(right, open))
        }
    }
}

/// What a replica of a source gives.
pub(super) fn given(events: &Events, replica: usize, open: bool) -> Vec<Timed<Record>> {
    let last = open.then_some(Timed::new(Timestamp::from_millis(FAR), (5, 0)));
    events.of(replica).into_iter().chain(last).collect()
}

fn timely(step: Timely, replicas: usize, records: Vec<Timed<Record>>) -> Vec<Timed<Record>> {
    let untimed = |step: Step| {
        let of = |timed: Timed<Record>| {
            one(step, replicas, vec![timed.value]).into_iter().map(move |record| Timed::new(timed.time, record))
        };
        records.iter().copied().flat_map(of).collect()
    };
    match step {
        Timely::Map => untimed(Step::Map),
        Timely::Filter(nth) => untimed(Step::Filter(nth)),
        Timely::FlatMap(times) => untimed(Step::FlatMap(times)),
        Timely::Skip(nth) => untimed(Step::Skip(nth)),
        Timely::DeadLetters(nth) | Timely::Split(nth) => untimed(Step::Split(nth)),
        Timely::Broadcast => untimed(Step::Broadcast),
        Timely::Tee => untimed(Step::Tee),
        Timely::Retry(_)
        | Timely::OtherThread
        | Timely::Rebalance
        | Timely::PartitionBy
        | Timely::PartitionByKey
        | Timely::State
        | Timely::Async { .. } => records,
        Timely::Distinct => unique(records).into_iter().collect(),
        Timely::Window { windows, way, .. } => {
            let keyed = by_key(records.into_iter().map(|timed| (timed.value.0, (timed.time.millis(), timed.value.1))));
            let of_key = |(key, records): (u8, Vec<(i64, u64)>)| {
                cut(windows, &records)
                    .into_iter()
                    .map(move |(window, values)| Timed::new(window.last(), (key, gathered(way, window, &values))))
            };
            keyed.into_iter().flat_map(of_key).collect()
        }
    }
}

/// The windows of length `size`, one beginning every `every`, that have this time in them.
pub(super) fn aligned(time: i64, size: u64, every: u64) -> impl Iterator<Item = Window> {
    let (size, every) = (size as i64, every as i64);
    let starts = (time - size + 1..=time).filter(move |start| start.rem_euclid(every) == 0);
    starts.map(move |start| window(start, start + size))
}

/// The windows of one key, of records with their times, and what is in them.
pub(super) fn cut<V: Copy + Ord>(windows: Windows, records: &[(i64, V)]) -> Vec<(Window, Vec<V>)> {
    match windows {
        Windows::Tumbling(size) => cut(Windows::Sliding(size, size), records),
        Windows::Sliding(size, every) => {
            let mut all: BTreeMap<Window, Vec<V>> = BTreeMap::new();
            for &(time, value) in records {
                aligned(time, size, every).for_each(|window| all.entry(window).or_default().push(value));
            }
            all.into_iter().collect()
        }
        Windows::Session(gap) => {
            // In order of time, a session ends where there is nothing for the gap.
            let gap = gap as i64;
            let mut by_time = records.to_vec();
            by_time.sort_unstable();
            let together = |a: &(i64, V), b: &(i64, V)| b.0 - a.0 < gap;
            let told = |session: &[(i64, V)]| {
                let (first, last) = (session[0].0, session[session.len() - 1].0);
                (window(first, last + gap), session.iter().map(|record| record.1).collect())
            };
            by_time.chunk_by(together).map(told).collect()
        }
    }
}

fn meet(meeting: Meeting, a: Vec<Timed<Record>>, b: Vec<Timed<Record>>) -> Vec<Timed<Record>> {
    match meeting {
        Meeting::Union => [a, b].concat(),
        Meeting::Connect => a.into_iter().map(|timed| timed.map(changed)).chain(b).collect(),
        Meeting::Join { size, every, joins } => {
            let in_windows = |records: Vec<Timed<Record>>| -> BTreeSet<(Window, Record, Timestamp)> {
                let of = |timed: Timed<Record>| {
                    aligned(timed.time.millis(), size, every).map(move |window| (window, timed.value, timed.time))
                };
                records.into_iter().flat_map(of).collect()
            };
            let (a, b) = (in_windows(a), in_windows(b));
            let pairs = pairs_of(joins, &a, &b, |(window, record, _)| (*window, record.0));
            let value = |side: Option<&(Window, Record, Timestamp)>| side.map(|side| side.1.1);
            let told = |((window, key), a, b): ((Window, u8), _, _)| {
                Timed::new(window.last(), paired(key, value(a), value(b)))
            };
            unique(pairs.into_iter().map(told).collect()).into_iter().collect()
        }
    }
}
