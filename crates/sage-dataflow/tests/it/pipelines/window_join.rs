//! Joins in windows: exactly the pairs a brute-force loop finds, whatever the disorder and the interleaving.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::testing::{self, Received};
use sage::{Environment, JoinError, OutOfOrder, RunError, Sliding, SubmitError, Timestamp, Tumbling};

use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

/// A record of the tests: its time, its key, and a number that tells it from others.
type Event = (i64, u8, u32);

/// A pair: where its window begins and ends, the key, and the numbers of the two.
type Pair = (i64, i64, u8, Option<u32>, Option<u32>);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn time_of(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.0)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Inner,
    Left,
    Full,
}

/// Every pair by comparing each with each, in each window that has either of them in it.
fn reference(left: &[Event], right: &[Event], size: i64, every: i64, kind: Kind) -> Vec<Pair> {
    let starts = |time: i64| (time - size + 1..=time).filter(move |start| start.rem_euclid(every) == 0);
    let within = |other: &Event, start: i64| (start..start + size).contains(&other.0);
    let mut pairs = Vec::new();
    for a in left {
        for start in starts(a.0) {
            let met: Vec<_> = right.iter().filter(|b| a.1 == b.1 && within(b, start)).collect();
            pairs.extend(met.iter().map(|b| (start, start + size, a.1, Some(a.2), Some(b.2))));
            if met.is_empty() && !matches!(kind, Kind::Inner) {
                pairs.push((start, start + size, a.1, Some(a.2), None));
            }
        }
    }
    for b in right.iter().filter(|_| matches!(kind, Kind::Full)) {
        for start in starts(b.0).filter(|start| !left.iter().any(|a| a.1 == b.1 && within(a, *start))) {
            pairs.push((start, start + size, b.1, None, Some(b.2)));
        }
    }
    sorted(pairs)
}

#[derive(Debug, Clone)]
struct Case {
    left: Vec<Vec<Event>>,
    right: Vec<Vec<Event>>,
    bound: u64,
    size: u64,
    every: u64,
    replicas: usize,
    block_records: usize,
    inline: bool,
}

/// Records in order of time and then up to `bound` late, for each replica of the source.
fn sources(bound: u64) -> impl Strategy<Value = Vec<Vec<Event>>> {
    let record = (0..8_i64, 0..3_u8, 0..=bound as i64);
    vec((vec(record, 0..50), -100..100_i64), 1..3).prop_map(|sources| {
        let mut id = 0;
        let arrived = sources.into_iter().map(|(records, mut time)| {
            let mut delayed: Vec<(i64, Event)> = Vec::new();
            for (step, key, delay) in records {
                time += step;
                id += 1;
                delayed.push((time + delay, (time, key, id)));
            }
            delayed.sort_by_key(|(arrival, _)| *arrival);
            delayed.into_iter().map(|(_, event)| event).collect()
        });
        arrived.collect()
    })
}

prop_compose! {
    fn case()(bound in 0..40_u64)(
        left in sources(bound),
        right in sources(bound),
        bound in Just(bound),
        size in 1..30_u64,
        every in 1..10_u64,
        tumbling in any::<bool>(),
        replicas in 1..5_usize,
        block_records in 1..33_usize,
        inline in prop::bool::weighted(0.2),
    ) -> Case {
        let size = size.max(every);
        let every = if tumbling { size } else { every };
        Case { left, right, bound, size, every, replicas, block_records, inline }
    }
}

fn run(case: &Case, kind: Kind) -> Vec<Pair> {
    let env = Environment::local("window-join").block_records(case.block_records).queue_blocks(2);
    let env = if case.inline { env.inline() } else { env };
    let timed = |events: &[Vec<Event>]| {
        let (events, replicas) = (events.to_vec(), events.len());
        let stream = env.from_factory(move |replica| events[replica].clone()).parallelism(replicas);
        stream.with_timestamps(time_of, OutOfOrder::by(ms(case.bound)))
    };
    // One key made, one borrowed.
    let joined = timed(&case.left).key_by(|event| event.value.1).join(timed(&case.right).key_by_ref(|e| &e.value.1));
    macro_rules! out {
        ($joined:ident, $pair:expr) => {{
            let pairs = $joined.parallelism(case.replicas).map(|pair| {
                assert_eq!(pair.time, pair.value.window.last());
                let (a, b): (Option<Event>, Option<Event>) = $pair(pair.value.value);
                let (a, b) = (a.map(|a| a.2), b.map(|b| b.2));
                (pair.value.window.start.millis(), pair.value.window.end.millis(), pair.value.key, a, b)
            });
            pairs.collect()
        }};
    }
    macro_rules! of {
        ($windowed:expr) => {{
            let windowed = $windowed;
            match kind {
                Kind::Inner => {
                    let joined = windowed.inner();
                    out!(joined, |(a, b)| (Some(a), Some(b)))
                }
                Kind::Left => {
                    let joined = windowed.left();
                    out!(joined, |(a, b)| (Some(a), b))
                }
                Kind::Full => {
                    let joined = windowed.full();
                    out!(joined, |pair| pair)
                }
            }
        }};
    }
    let out = match case.every == case.size {
        true => of!(joined.window(Tumbling::of(ms(case.size)))),
        false => of!(joined.window(Sliding::of(ms(case.size), ms(case.every)))),
    };
    let report = env.run().expect("nothing in it fails");
    assert!(report.operators.iter().all(|operator| operator.late == 0), "{report}");
    sorted(out.take())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn window_joins_give_what_comparing_each_with_each_gives(case in case()) {
        leak_free(|_| {
            let (left, right) = (case.left.concat(), case.right.concat());
            let (size, every) = (case.size as i64, case.every as i64);
            for kind in [Kind::Inner, Kind::Left, Kind::Full] {
                assert_eq!(run(&case, kind), reference(&left, &right, size, every, kind), "{kind:?}");
            }
        });
    }
}

/// A pipeline that is fed: two streams of times, joined in tumbling windows of 10 ms.
struct Fed {
    left: testing::Feed<i64>,
    right: testing::Feed<i64>,
    pairs: Received<(i64, Option<i64>, Option<i64>)>,
    env: Environment,
}

fn fed(max_records: usize) -> Fed {
    let env = Environment::local("fed");
    let (left, of_left) = testing::source::<i64>();
    let (right, of_right) = testing::source::<i64>();
    let (pairs, sink) = testing::sink();
    let timed = |source: testing::TestSource<i64>| {
        let stream = env.from_source(move |_| source.clone());
        stream.with_timestamps(|millis| Timestamp::from_millis(*millis), OutOfOrder::by(Duration::ZERO)).key_by(|_| ())
    };
    timed(of_left)
        .join(timed(of_right))
        .window(Tumbling::of(ms(10)))
        .max_records(max_records)
        .full()
        .named("join")
        .map(|pair| {
            let (a, b) = pair.value.value;
            (pair.value.window.start.millis(), a, b)
        })
        .sink_to(move |_| sink.clone());
    Fed { left, right, pairs, env }
}

#[test]
fn a_window_comes_out_when_the_slower_stream_is_past_it_and_late_records_are_counted() {
    leak_free(|_| {
        let Fed { left, right, pairs, env } = fed(100);
        let job = env.submit().unwrap();
        [1, 2, 25].into_iter().for_each(|time| left.send(time));
        [3, 12].into_iter().for_each(|time| right.send(time));
        assert_eq!(sorted(pairs.wait_for(2)), [(0, Some(1), Some(3)), (0, Some(2), Some(3))]);
        // The window of 4 has been, that of 13 has not: the right stream is at 12.
        [4, 13].into_iter().for_each(|time| left.send(time));
        while job.metrics().operator("join").is_none_or(|join| join.records_in < 7) {
            std::thread::yield_now();
        }
        right.send(31);
        assert_eq!(sorted(pairs.wait_for(3))[2..], [(10, Some(13), Some(12))]);
        left.end();
        right.end();
        let report = job.wait().unwrap();
        assert_eq!(sorted(pairs.take())[3..], [(20, Some(25), None), (30, None, Some(31))]);
        assert_eq!(report.operator("join").map(|join| join.late), Some(1));
    });
}

#[test]
fn a_stream_that_has_ended_holds_no_window_up() {
    leak_free(|_| {
        let Fed { left, right, pairs, env } = fed(100);
        let job = env.submit().unwrap();
        right.send(1);
        right.end();
        [2, 15].into_iter().for_each(|time| left.send(time));
        assert_eq!(pairs.wait_for(1), [(0, Some(2), Some(1))]);
        left.end();
        job.wait().unwrap();
    });
}

#[test]
fn windows_that_have_been_are_freed_and_what_open_ones_keep_is_bounded() {
    leak_free(|_| {
        // Two windows of three records are open at once.
        let Fed { left, right, pairs, env } = fed(6);
        let job = env.submit().unwrap();
        for window in 0..50 {
            for time in [0, 3, 6].map(|within| window * 10 + within) {
                left.send(time);
                right.send(time);
            }
            // The window before has come out, and its records no longer count.
            pairs.wait_for(9 * window as usize);
        }
        left.end();
        right.end();
        job.wait().unwrap();
        assert_eq!(pairs.take().len(), 9 * 50);

        let Fed { left, right, env, .. } = fed(3);
        let job = env.submit().unwrap();
        (0..4).for_each(|time| left.send(time));
        let cause = failed(job.wait()).first_cause.expect("it failed");
        let error = cause.error.as_ref().and_then(|error| error.downcast_ref::<JoinError>());
        assert_eq!(error, Some(&JoinError::TooManyInWindows { side: "left", limit: 3 }));
        assert!(cause.to_string().starts_with("operator `join`"), "{cause}");
        drop(right);
    });
}

#[test]
fn windows_follow_a_join_in_windows() {
    leak_free(|_| {
        let env = Environment::local("chained");
        let order = OutOfOrder::by(Duration::ZERO);
        let timed = || env.from_iter(0..100_i64).with_timestamps(|n| Timestamp::from_millis(*n), order);
        let pairs = timed().key_by(|n| n.value % 2).join(timed().key_by(|n| n.value % 2));
        let pairs = pairs.window(Tumbling::of(ms(10))).inner().parallelism(2);
        let counts = pairs.key_by(|pair| pair.value.key).window(Tumbling::of(ms(50))).count();
        let counts = counts.map(|count| (count.value.window.start.millis(), count.value.key, count.value.value));
        let counts = counts.collect();
        let report = env.run().unwrap();
        assert_eq!(sorted(counts.take()), [(0, 0, 125), (0, 1, 125), (50, 0, 125), (50, 1, 125)]);
        assert!(report.operators.iter().all(|operator| operator.late == 0));
    });
}

#[test]
fn windows_that_are_none_are_refused() {
    leak_free(|_| {
        let refused = |declare: &dyn Fn(&Environment)| {
            let env = Environment::local("refused");
            declare(&env);
            match env.run() {
                Err(RunError::Submit(error @ SubmitError::OperatorOption { .. })) => error.to_string(),
                other => panic!("{other:?}"),
            }
        };
        macro_rules! join {
            ($env:ident, $windows:expr) => {{
                let timed = || $env.from_iter([1]).with_timestamps(|_| Timestamp::MIN, OutOfOrder::by(ms(0)));
                let (left, right) = (timed().key_by(|n| n.value), timed().key_by(|n| n.value));
                left.join(right).window($windows).inner().sink(|_| {});
            }};
        }
        let short = refused(&|env| join!(env, Tumbling::of(ms(0))));
        assert!(short.contains("shorter than 1 ms"), "{short}");
        let apart = refused(&|env| join!(env, Sliding::of(ms(1), ms(2))));
        assert!(apart.contains("further apart than they are long"), "{apart}");
    });
}
