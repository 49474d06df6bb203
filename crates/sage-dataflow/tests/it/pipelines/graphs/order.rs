//! Graphs that keep the order of each key, and the order they keep.

use proptest::prelude::*;
use sage::{Count, DataStream, Environment, Order, Timestamp};

use super::build::{budget, failing, failing_once, key, retry};
use super::plan::Record;
use super::reference::{changed, digest, window};
use super::timely::by;

/// A step that keeps the records of a key in order, in so many replicas where it spreads them by key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Orderly {
    Map,
    Filter(u64),
    FlatMap(u64),
    Skip(u64),
    Retry(u64),
    /// The records that do not fail.
    Alive(u64),
    /// The main way of a split, or the other.
    Split(u64, bool),
    /// The second of two branches.
    Tee,
    OtherThread,
    PartitionByKey(usize),
    /// A state per key: the sum of its values so far.
    Sums(usize),
    Distinct(usize),
    /// The futures of a replica, in order.
    Async(usize),
    /// Windows of so many records of a key.
    Counted(u64, usize),
    /// The stream with itself.
    Zip,
}

pub(super) fn orderly() -> impl Strategy<Value = Orderly> {
    let (nth, n) = (|| 1..5_u64, || 1..6_usize);
    prop_oneof![
        Just(Orderly::Map),
        nth().prop_map(Orderly::Filter),
        (1..4_u64).prop_map(Orderly::FlatMap),
        nth().prop_map(Orderly::Skip),
        nth().prop_map(Orderly::Retry),
        nth().prop_map(Orderly::Alive),
        (nth(), any::<bool>()).prop_map(|(nth, main)| Orderly::Split(nth, main)),
        Just(Orderly::Tee),
        Just(Orderly::OtherThread),
        n().prop_map(Orderly::PartitionByKey),
        n().prop_map(Orderly::Sums),
        n().prop_map(Orderly::Distinct),
        (1..9_usize).prop_map(Orderly::Async),
        (nth(), n()).prop_map(|(size, n)| Orderly::Counted(size, n)),
        Just(Orderly::Zip),
    ]
}

/// What one of a zipped stream and one of another come to; the record, if they are the same.
fn zipped(a: Record, b: Record) -> Record {
    if a == b { a } else { (u8::MAX, a.1 ^ b.1) }
}

/// By a length only: all records of a key are at the same time.
fn length(records: u64, values: Vec<u64>) -> u64 {
    digest(window(0, records as i64), values)
}

pub(super) fn declare(env: &Environment, records: Vec<Record>, steps: &[Orderly]) -> DataStream<Record> {
    steps.iter().fold(env.from_collection(records).on_another_thread(), |stream, step| match *step {
        Orderly::Map => stream.map(changed).on_another_thread(),
        Orderly::Filter(nth) => stream.filter(move |record| record.1 % nth == 0).on_another_thread(),
        Orderly::FlatMap(times) => {
            stream.flat_map(move |(key, value)| (0..times).map(move |time| (key, value + time))).on_another_thread()
        }
        Orderly::Skip(nth) => stream.try_map(failing(nth)).on_error(budget()).on_another_thread(),
        Orderly::Retry(nth) => {
            stream.try_map(failing_once(nth, |record: &Record| record.1)).retry(retry()).on_another_thread()
        }
        Orderly::Alive(nth) => {
            let (alive, dead) = stream.try_map(failing(nth)).dead_letters();
            dead.sink(|_| {});
            alive.on_another_thread()
        }
        Orderly::Split(nth, main) => {
            let (one, other) = stream.split(move |record| record.1 % nth == 0);
            let (kept, left) = if main { (one.on_another_thread(), other) } else { (other, one.on_another_thread()) };
            left.sink(|_| {});
            kept
        }
        Orderly::Tee => {
            let [one, other] = stream.tee();
            one.sink(|_| {});
            other
        }
        Orderly::OtherThread => stream.on_another_thread(),
        Orderly::PartitionByKey(n) => stream.key_by(key).partition(n),
        Orderly::Sums(n) => {
            let add = |sum: &mut u64, (key, value): Record| {
                *sum = (*sum + value) % 1009;
                (key, *sum)
            };
            stream.key_by(key).map_with_state(0, add).parallelism(n).on_another_thread()
        }
        // Equal records have equal keys, but the records of a key go to different replicas.
        Orderly::Distinct(n) => {
            stream.key_by(key).partition(n).key_by(|record| *record).distinct().parallelism(1).on_another_thread()
        }
        Orderly::Async(capacity) => {
            let yielding = |record: Record| async move {
                for _ in 0..record.1 % 4 {
                    tokio::task::yield_now().await;
                }
                record
            };
            stream.map_async(capacity, Order::Ordered, yielding).on_another_thread()
        }
        Orderly::Counted(size, n) => {
            let timed = stream.with_timestamps(|_| Timestamp::from_millis(0), by(0));
            let windows = timed.key_by(|timed| timed.value.0).window(Count::of(size));
            let values = windows.apply(|_, _, records: &[Record]| records.iter().map(|record| record.1).collect());
            let values = values.parallelism(n).map(|result| (result.value.key, result.value.value));
            values.map(|(key, values): (u8, Vec<u64>)| (key, length(values.len() as u64, values))).on_another_thread()
        }
        Orderly::Zip => {
            // In one replica both branches have the same order.
            let [one, other] = stream.rebalance(1).tee();
            one.zip(other).map(|(a, b)| zipped(a, b)).on_another_thread()
        }
    })
}

pub(super) fn interpret(records: Vec<Record>, steps: &[Orderly]) -> Vec<Record> {
    steps.iter().fold(records, |records, step| {
        let all = records.into_iter();
        match *step {
            Orderly::Map => all.map(changed).collect(),
            Orderly::Filter(nth) => all.filter(|record| record.1 % nth == 0).collect(),
            Orderly::FlatMap(times) => {
                all.flat_map(|(key, value)| (0..times).map(move |time| (key, value + time))).collect()
            }
            Orderly::Skip(nth) | Orderly::Alive(nth) => all.filter(|record| record.1 % nth != 0).collect(),
            Orderly::Split(nth, main) => all.filter(|record| (record.1 % nth == 0) == main).collect(),
            Orderly::Retry(_)
            | Orderly::Tee
            | Orderly::OtherThread
            | Orderly::PartitionByKey(_)
            | Orderly::Async(_)
            | Orderly::Zip => all.collect(),
            Orderly::Sums(_) => {
                let mut sums = [0; 256];
                let mut add = |(key, value): Record| {
                    let sum = &mut sums[usize::from(key)];
                    *sum = (*sum + value) % 1009;
                    (key, *sum)
                };
                all.map(&mut add).collect()
            }
            Orderly::Distinct(_) => {
                let mut seen = std::collections::BTreeSet::new();
                all.filter(|record| seen.insert(*record)).collect()
            }
            Orderly::Counted(size, _) => {
                let told = |(key, values): (u8, Vec<u64>)| {
                    let chunks = values.chunks(size as usize).map(|chunk| length(chunk.len() as u64, chunk.to_vec()));
                    chunks.map(move |value| (key, value)).collect::<Vec<_>>()
                };
                per_key(all.collect()).into_iter().flat_map(told).collect()
            }
        }
    })
}

/// The values of each key in their order.
pub(super) fn per_key(records: Vec<Record>) -> std::collections::BTreeMap<u8, Vec<u64>> {
    let mut all: std::collections::BTreeMap<u8, Vec<u64>> = Default::default();
    records.into_iter().for_each(|(key, value)| all.entry(key).or_default().push(value));
    all
}
