//! States and windows of many keys behind an exchange: once their tables are large, they look at keys ahead of the
//! records' turn.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sage::{
    Environment, OutOfOrder, ParallelStep, Pipe, Session, Sliding, Stream, Timed, Timer, Timestamp, Tumbling, Windowed,
};

use super::windows::ms;
use crate::leaks::leak_free;
use crate::probes::sorted;

/// A key, a number, and a time.
type Record = (u64, u64, i64);

const KEYS: u64 = 60_000;
/// With as many, also a table that has no more than a number of 4 bytes for each takes more than 1 MiB.
const MANY_KEYS: u64 = 280_000;
/// Records come so much later than others of later times, and never more.
const LATEST: i64 = 20;

/// Keys in an order without a pattern; so many records in a millisecond, some out of order.
fn records(keys: u64, count: u64, in_a_millisecond: u64) -> impl Iterator<Item = Record> + Clone + Send {
    (0..count).map(move |n| {
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        (mixed % keys, n, (n / in_a_millisecond) as i64 - (mixed % LATEST as u64) as i64)
    })
}

fn timed(
    env: &Environment,
    records: impl Iterator<Item = Record> + Clone + Send + 'static,
) -> Stream<impl Pipe<Out = Timed<Record>> + '_> {
    env.from_iter(records)
        .with_timestamps(|record| Timestamp::from_millis(record.2), OutOfOrder::by(ms(LATEST as u64)))
        .on_another_thread()
}

/// For each record its key, and how many of its key there were so far.
fn running(records: impl Iterator<Item = Record>) -> Vec<(u64, u64)> {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    let count = |(key, ..): Record| {
        let count = counts.entry(key).or_default();
        *count += 1;
        (key, *count)
    };
    sorted(records.map(count).collect())
}

/// A count that takes a line of memory.
type Wide = [u64; 8];

fn next(count: &mut Wide, key: u64) -> (u64, u64) {
    count[7] += 1;
    (key, count[7])
}

#[test]
fn states_of_many_keys_are_exact() {
    leak_free(|_| {
        let records = records(KEYS, 200_000, 10);
        let expected = running(records.clone());
        let firsts = sorted(expected.iter().copied().filter(|(_, count)| *count == 1).map(|(key, _)| key).collect());
        for replicas in [1, 3] {
            let env = Environment::local("many states");
            let keyed = || env.from_iter(records.clone()).on_another_thread().key_by(|record| record.0);
            let by_time = || timed(&env, records.clone()).key_by(|record| record.value.0);
            let count = |count: &mut Wide, (key, ..): Record| next(count, key);
            let hour = Duration::from_secs(3600);

            let kept = keyed().map_with_state(Wide::default(), count).parallelism(replicas).collect();
            let expiring =
                keyed().expire_after(hour).map_with_state(Wide::default(), count).parallelism(replicas).collect();
            let forgotten = by_time()
                .expire_after_by_time(hour)
                .map_with_state(Wide::default(), move |state, record| count(state, record.value));
            let forgotten = forgotten.parallelism(replicas).collect();
            let processed = keyed().process(
                Wide::default(),
                move |state, record, cx| cx.push(count(state, record)),
                |_, _, _| unreachable!("no timer is set"),
            );
            let processed = processed.parallelism(replicas).collect();
            let texts = env.from_iter(records.clone()).map(|(key, ..)| format!("{key:0>80}")).on_another_thread();
            let distinct = texts.key_by_ref(|text: &String| text.as_str()).distinct().parallelism(replicas).collect();

            env.run().unwrap();
            assert!(sorted(kept.take()) == expected, "{replicas} replicas");
            assert!(sorted(expiring.take()) == expected, "{replicas} replicas");
            assert!(sorted(forgotten.take()) == expected, "{replicas} replicas");
            assert!(sorted(processed.take()) == expected, "{replicas} replicas");
            let distinct = distinct.take().into_iter().map(|text| text.parse::<u64>().unwrap()).collect();
            assert!(sorted(distinct) == firsts, "{replicas} replicas");
        }
    });
}

#[test]
fn timers_of_many_keys_fire_once_each_in_the_order_of_time() {
    leak_free(|_| {
        let records = records(KEYS, 200_000, 10);
        let env = Environment::local("many timers");
        // Half of the keys wait longer, so that not all timers are set in the order of time.
        let until = |(key, _, time): Record| Timestamp::from_millis(time + if key % 2 == 0 { 100 } else { 1000 });
        let fired = timed(&env, records.clone()).key_by(|record| record.value.0).process(
            Wide::default(),
            move |state, record, cx| {
                if state[7] == 0 {
                    cx.set(Timer::Event(until(record.value)));
                }
                state[7] += 1;
            },
            |state, timer, cx| {
                let key = *cx.key();
                cx.push((timer.moment().millis(), key, state[7]));
                cx.forget();
            },
        );
        let fired = fired.collect();
        env.run().unwrap();
        let fired = fired.take();
        assert!(fired.is_sorted_by_key(|(moment, ..)| *moment));
        assert_eq!(fired.iter().map(|(.., count)| count).sum::<u64>(), 200_000);
        // Each moment is that of a record of the key, and no key fires twice within the time it waits.
        let mut times: HashMap<u64, Vec<i64>> = HashMap::new();
        fired.iter().for_each(|(moment, key, _)| times.entry(*key).or_default().push(*moment));
        let mut moments: HashMap<u64, Vec<i64>> = HashMap::new();
        records.for_each(|record| moments.entry(record.0).or_default().push(until(record).millis()));
        assert_eq!(times.len(), moments.len());
        for (key, times) in times {
            assert!(times.iter().all(|time| moments[&key].contains(time)), "{key}: {times:?}");
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{key}: {times:?}");
        }
    });
}

/// Counts by key and window.
fn counts<P>(windows: Stream<P>, replicas: usize) -> impl FnOnce() -> Vec<(u64, i64, u64)>
where
    P: ParallelStep<Out = Timed<Windowed<u64, Wide>>>,
{
    let counts = windows.parallelism(replicas).collect();
    let count = |it: Timed<Windowed<u64, Wide>>| (it.value.key, it.value.window.start.millis(), it.value.value[7]);
    move || sorted(counts.take().into_iter().map(count).collect())
}

fn reference(starts: impl Iterator<Item = (u64, i64)>) -> Vec<(u64, i64, u64)> {
    let mut counts: BTreeMap<(u64, i64), u64> = BTreeMap::new();
    starts.for_each(|start| *counts.entry(start).or_default() += 1);
    counts.into_iter().map(|((key, start), count)| (key, start, count)).collect()
}

/// The start of the session of each record.
fn sessions(records: impl Iterator<Item = Record>, gap: i64) -> impl Iterator<Item = (u64, i64)> {
    let mut times: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    records.for_each(|(key, _, time)| times.entry(key).or_default().push(time));
    times.into_iter().flat_map(move |(key, times)| {
        let (mut start, mut end) = (i64::MIN, i64::MIN);
        sorted(times).into_iter().map(move |time| {
            if time >= end {
                start = time;
            }
            end = time + gap;
            (key, start)
        })
    })
}

fn add<T>(count: &mut Wide, _record: &T) {
    count[7] += 1;
}

#[test]
fn windows_of_many_keys_are_exact() {
    leak_free(|_| {
        const SIZE: i64 = 6000;
        const EVERY: i64 = 2000;
        const GAP: i64 = 3000;
        let few = records(KEYS, 150_000, 10);
        let many = records(MANY_KEYS, 500_000, 100);
        let tumbling = reference(few.clone().map(|(key, _, time)| (key, time.div_euclid(SIZE) * SIZE)));
        let starts = |time: i64| (0..SIZE / EVERY).map(move |back| (time.div_euclid(EVERY) - back) * EVERY);
        let sliding = many.clone().flat_map(|(key, _, time)| starts(time).map(move |start| (key, start)));
        let sliding = reference(sliding);
        let session = reference(sessions(few.clone(), GAP));
        for replicas in [1, 3] {
            let env = Environment::local("many windows");
            let by_key = |record: &Timed<Record>| record.value.0;
            let windows = timed(&env, few.clone()).key_by(by_key).window(Tumbling::of(ms(SIZE as u64)));
            let of_tumbling = counts(windows.fold(Wide::default(), add), replicas);
            let of_size = Sliding::of(ms(SIZE as u64), ms(EVERY as u64));
            let windows = timed(&env, many.clone()).key_by(by_key).window(of_size);
            let of_sliding = counts(windows.fold(Wide::default(), add), replicas);
            let windows = timed(&env, few.clone()).key_by(by_key).window(Session::gap(ms(GAP as u64)));
            let of_sessions = counts(windows.fold(Wide::default(), add), replicas);
            env.run().unwrap();
            assert!(of_tumbling() == tumbling, "{replicas} replicas");
            assert!(of_sliding() == sliding, "{replicas} replicas");
            assert!(of_sessions() == session, "{replicas} replicas");
        }
    });
}
