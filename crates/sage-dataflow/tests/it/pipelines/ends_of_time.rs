//! Event time at both of its ends, and lengths longer than all of it, against a plain reference in numbers that do not
//! overflow: each record ends in results or is counted as late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::testing;
use sage::{
    Count, DataStream, Environment, JobReport, OutOfOrder, Session, Sliding, SubmitError, Timed, Timer, Timestamp,
    Tumbling, Window,
};

use crate::leaks::leak_free;
use crate::probes::sorted;

/// A record: its time, its key, and a number that tells it from others.
type Event = (i64, u8, u32);

/// What a window came to: its start and end, its key, and the numbers of its records.
type Outcome = (i64, i64, u8, Vec<u32>);

fn time_of(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.0)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn whole(duration: Duration) -> i128 {
    duration.as_millis() as i128
}

fn clamped(time: i128) -> i64 {
    time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Times at both ends, around the epoch and anywhere.
fn time() -> impl Strategy<Value = i64> {
    let near = || -40..=40_i64;
    prop_oneof![
        near().prop_map(|offset| i64::MAX.saturating_add(offset)),
        near().prop_map(|offset| i64::MIN.saturating_add(offset)),
        near(),
        any::<i64>(),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let events = vec((time(), 0..2_u8), 0..24);
    events.prop_map(|events| (0..).zip(events).map(|(id, (time, key))| (time, key, id)).collect())
}

/// Short, longer than half of all time, and longer than all of it.
fn length() -> impl Strategy<Value = Duration> {
    prop_oneof![
        3 => (1..50_u64).prop_map(ms),
        1 => any::<u64>().prop_map(|millis| ms(millis.max(1))),
        1 => Just(ms(i64::MAX as u64)),
        1 => Just(ms(u64::MAX)),
        1 => Just(Duration::MAX),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tumbling(Duration),
    Sliding(Duration, Duration),
    Session(Duration),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        length().prop_map(Kind::Tumbling),
        (length(), 1..6_u32, 0..50_u64).prop_map(|(every, times, more)| {
            let size = every.saturating_mul(times).saturating_add(ms(more).min(every));
            Kind::Sliding(size, every)
        }),
        length().prop_map(Kind::Session),
    ]
}

/// Where the windows begin that have `time` in them.
fn starts(time: i64, size: Duration, every: Duration) -> impl Iterator<Item = i128> {
    let (time, size, every) = (i128::from(time), whole(size), whole(every));
    let last = time - time.rem_euclid(every);
    (0..).map(move |back| last - back * every).take_while(move |start| time < start + size)
}

impl Kind {
    fn expected(self, events: &[Event]) -> Vec<Outcome> {
        let mut windows: BTreeMap<(i128, i128, u8), Vec<u32>> = BTreeMap::new();
        match self {
            Self::Tumbling(size) => return Self::Sliding(size, size).expected(events),
            Self::Sliding(size, every) => {
                for &(time, key, id) in events {
                    for start in starts(time, size, every) {
                        windows.entry((start, start + whole(size), key)).or_default().push(id);
                    }
                }
            }
            Self::Session(gap) => {
                for key in 0..2 {
                    let mut open: Option<(i128, i128, Vec<u32>)> = None;
                    let of_key = events.iter().filter(|event| event.1 == key);
                    for &(time, _, id) in &sorted(of_key.copied().collect::<Vec<_>>()) {
                        let time = i128::from(time);
                        match &mut open {
                            Some((_, end, ids)) if time < *end => {
                                *end = time + whole(gap);
                                ids.push(id);
                            }
                            _ => {
                                let before = open.replace((time, time + whole(gap), vec![id]));
                                windows.extend(before.map(|(start, end, ids)| ((start, end, key), ids)));
                            }
                        }
                    }
                    windows.extend(open.map(|(start, end, ids)| ((start, end, key), ids)));
                }
            }
        }
        let outcome =
            |((start, end, key), ids): ((i128, i128, u8), Vec<u32>)| (clamped(start), clamped(end), key, sorted(ids));
        sorted(windows.into_iter().map(outcome).collect())
    }

    fn run_on(self, stream: DataStream<Timed<Event>>, lateness: Duration, replicas: usize) -> DataStream<Outcome> {
        macro_rules! gather {
            ($windows:expr) => {{
                let windowed = stream.key_by(|timed| timed.value.1).window($windows).allowed_lateness(lateness);
                let ids = |_: &u8, window: Window, events: &[Event]| {
                    assert!(events.iter().all(|event| window.contains(time_of(event))), "{window} {events:?}");
                    sorted(events.iter().map(|event| event.2).collect::<Vec<_>>())
                };
                let applied = windowed.apply(ids).parallelism(replicas);
                let outcome = applied.map(|result| {
                    let window = result.value.window;
                    assert_eq!(result.time, window.last());
                    (window.start.millis(), window.end.millis(), result.value.key, result.value.value)
                });
                outcome.on_another_thread()
            }};
        }
        match self {
            Self::Tumbling(size) => gather!(Tumbling::of(size)),
            Self::Sliding(size, every) => gather!(Sliding::of(size, every)),
            Self::Session(gap) => gather!(Session::gap(gap)),
        }
    }
}

fn late(report: &JobReport) -> u64 {
    report.operators.iter().map(|operator| operator.late).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Records in order of their times, or in any with a bound that covers all of time: none is late.
    #[test]
    fn windows_at_the_ends_of_time_give_what_a_plain_loop_gives(
        kind in kind(),
        events in events(),
        (bound, in_order) in prop_oneof![
            Just((Duration::ZERO, true)),
            Just((Duration::MAX, false)),
            Just((ms(u64::MAX), false)),
        ],
        lateness in prop_oneof![Just(Duration::ZERO), Just(ms(i64::MAX as u64)), Just(Duration::MAX)],
        replicas in 1..3_usize,
        block_records in 1..9_usize,
    ) {
        leak_free(|_| {
            let given = if in_order { sorted(events.clone()) } else { events.clone() };
            let env = Environment::local("ends").block_records(block_records);
            let timed = env.from_iter(given).on_another_thread();
            let timed = timed.with_timestamps(time_of, OutOfOrder::by(bound)).on_another_thread();
            let out = kind.run_on(timed, lateness, replicas).collect();
            let report = env.run().expect("the job succeeds");
            assert_eq!(late(&report), 0, "{report}");
            assert_eq!(sorted(out.take()), kind.expected(&events));
        });
    }

    /// In any order, with a bound that does not cover it: what is not late is in a result, and nothing is in none.
    #[test]
    fn every_record_at_the_ends_of_time_ends_in_a_result_or_is_late(
        size in length(),
        session in any::<bool>(),
        events in events(),
        bound in prop_oneof![Just(Duration::ZERO), length()],
        lateness in prop_oneof![Just(Duration::ZERO), length()],
    ) {
        leak_free(|_| {
            let env = Environment::local("ends").block_records(1);
            let timed = env.from_iter(events.clone()).on_another_thread();
            let timed = timed.with_timestamps(time_of, OutOfOrder::by(bound)).on_another_thread();
            let kind = if session { Kind::Session(size) } else { Kind::Tumbling(size) };
            let out = kind.run_on(timed, lateness, 1).collect();
            let report = env.run().expect("the job succeeds");
            let mut seen: Vec<u32> = out.take().into_iter().flat_map(|outcome| outcome.3).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len() as u64 + late(&report), events.len() as u64, "{report}");
        });
    }

    #[test]
    fn joins_at_the_ends_of_time_give_what_a_plain_loop_gives(
        every in length(),
        times in 1..4_u32,
        left in events(),
        right in events(),
        block_records in 1..9_usize,
    ) {
        leak_free(|_| {
            let size = every.saturating_mul(times);
            let env = Environment::local("ends").block_records(block_records);
            let timed = |events: &[Event]| {
                let order = OutOfOrder::by(Duration::MAX);
                env.from_iter(events.to_vec()).with_timestamps(time_of, order).key_by(|event| event.value.1)
            };
            let pairs = timed(&left).join(timed(&right)).window(Sliding::of(size, every)).full().map(|pair| {
                let (window, (a, b)) = (pair.value.window, pair.value.value);
                assert_eq!(pair.time, window.last());
                (window.start.millis(), window.end.millis(), pair.value.key, a.map(|a| a.2), b.map(|b| b.2))
            });
            let pairs = pairs.collect();
            let report = env.run().expect("the job succeeds");
            assert_eq!(late(&report), 0);

            let mut windows: BTreeMap<(i128, u8), [Vec<u32>; 2]> = BTreeMap::new();
            for (side, events) in [&left, &right].into_iter().enumerate() {
                for &(time, key, id) in events {
                    starts(time, size, every).for_each(|start| windows.entry((start, key)).or_default()[side].push(id));
                }
            }
            let mut expected = Vec::new();
            for ((start, key), [left, right]) in windows {
                let (start, end) = (clamped(start), clamped(start + whole(size)));
                let some = |ids: Vec<u32>| {
                    if ids.is_empty() { vec![None] } else { ids.into_iter().map(Some).collect() }
                };
                for a in some(left) {
                    expected.extend(some(right.clone()).into_iter().map(|b| (start, end, key, a, b)));
                }
            }
            assert_eq!(sorted(pairs.take()), sorted(expected));
        });
    }

    #[test]
    fn windows_by_a_clock_at_the_ends_of_time_lose_nothing(
        begin in time(),
        steps in vec(prop_oneof![Just(Duration::ZERO), length()], 1..6),
        size in length(),
        session in any::<bool>(),
    ) {
        leak_free(|_| {
            let (hands, clock) = testing::clock(Timestamp::from_millis(begin));
            let hands = Arc::new(hands);
            let env = Environment::local("ends").clock(clock).inline();
            let records = steps.len() as u64;
            let keyed = env.from_iter(steps.clone()).inspect(move |step| hands.advance(*step)).key_by(|_| ());
            let counts = match session {
                true => keyed.window_by_clock(Session::gap(size)).count().collect(),
                false => keyed.window_by_clock(Tumbling::of(size)).count().collect(),
            };
            env.run().expect("the job succeeds");
            assert_eq!(counts.take().iter().map(|count| count.value.value).sum::<u64>(), records);
        });
    }
}

/// A job of these times in order, in windows of ten seconds and more, without anything late.
fn counted(times: &[i64], gather: impl FnOnce(DataStream<Timed<i64>>) -> DataStream<u64>) -> (u64, u64) {
    let env = Environment::local("ends").block_records(1);
    let timed = env.from_iter(times.to_vec()).on_another_thread();
    let timed =
        timed.with_timestamps(|time| Timestamp::from_millis(*time), OutOfOrder::by(Duration::ZERO)).on_another_thread();
    let counts = gather(timed).collect();
    let report = env.run().expect("the job succeeds");
    (counts.take().into_iter().sum(), late(&report))
}

#[test]
fn the_last_moment_is_in_a_window_of_every_kind() {
    let (last, gap) = (i64::MAX, 30_000);
    for times in [&[last][..], &[last, last], &[last - 1, last], &[0, last, last], &[i64::MIN, 0, last]] {
        let all = (times.len() as u64, 0);
        let key = |_: &Timed<i64>| ();
        let value = |count: Timed<sage::Windowed<(), u64>>| count.value.value;
        assert_eq!(
            counted(times, |it| it.key_by(key).window(Session::gap(ms(gap))).count().map(value).on_another_thread()),
            all
        );
        assert_eq!(
            counted(times, |it| it.key_by(key).window(Tumbling::of(ms(gap))).count().map(value).on_another_thread()),
            all
        );
        assert_eq!(
            counted(times, |it| it.key_by(key).window(Tumbling::of(ms(1))).count().map(value).on_another_thread()),
            all
        );
        assert_eq!(
            counted(times, |it| it.key_by(key).window(Count::of(2)).count().map(value).on_another_thread()),
            all
        );
    }
}

#[test]
fn a_window_of_windows_has_the_last_moment_too() {
    let twice = |timed: DataStream<Timed<i64>>| {
        let inner = timed.key_by(|_| ()).window(Session::gap(ms(7))).count();
        let outer = inner.key_by(|_| ()).window(Tumbling::of(ms(1000)));
        outer.fold(0, |sum, inner| *sum += inner.value).map(|sum| sum.value.value).on_another_thread()
    };
    assert_eq!(counted(&[i64::MAX - 3, i64::MAX, i64::MAX], twice), (3, 0));
}

#[test]
fn timers_at_the_end_of_time_are_called_and_end() {
    let out = counted(&[0, i64::MAX, i64::MAX], |timed| {
        let process = timed.key_by(|_| ()).process(
            0_u64,
            |seen: &mut u64, record, cx| {
                *seen += 1;
                cx.set(Timer::Event(record.time));
                cx.set(Timer::Event(record.time.later(Duration::MAX)));
            },
            |seen, timer, cx| {
                // At the end there is none to be set: this would have no end.
                cx.set(Timer::Event(timer.moment().later(Duration::MAX)));
                cx.push(std::mem::take(seen));
            },
        );
        process.on_another_thread()
    });
    assert_eq!(out, (3, 0));
}

#[test]
fn contract_27_timers_that_set_further_ones_without_end_can_be_cancelled() {
    leak_free(|_| {
        let (sender, called) = std::sync::mpsc::channel();
        let env = Environment::local("timers");
        env.from_iter([Timestamp::MIN, Timestamp::MAX])
            .with_timestamps(|time| *time, OutOfOrder::by(Duration::ZERO))
            .key_by(|_| ())
            .process(
                (),
                |(), _, cx| cx.set(Timer::Event(cx.watermark())),
                move |(), timer, cx| {
                    sender.send(()).expect("the test waits");
                    cx.set(Timer::Event(timer.moment().later(ms(1))));
                },
            )
            .sink(|()| {});
        let job = env.submit().unwrap();
        called.recv().expect("a timer is called");
        job.cancel();
        let error = job.wait().expect_err("it was cancelled");
        assert!(error.report().expect("it ran").left.is_empty(), "{error}");
    });
}

#[test]
fn states_do_not_expire_before_their_time_at_the_end_of_time() {
    for (ttl, expected) in [(Duration::MAX, [1, 1, 2, 2]), (ms(5), [1, 1, 2, 2])] {
        let (_hands, clock) = testing::clock(Timestamp::MAX);
        let env = Environment::local("ends").clock(clock).inline();
        let counted = env.from_iter(["a", "b", "a", "b"]).key_by(|word| *word).expire_after(ttl);
        let counts = counted.map_with_state(0, |seen, _| {
            *seen += 1;
            *seen
        });
        let counts = counts.collect();
        env.run().expect("the job succeeds");
        assert_eq!(counts.take(), expected);
    }
}

#[test]
fn too_many_windows_for_a_record_are_refused_with_what_to_do() {
    let hour = Duration::from_secs(3600);
    let refused = |sliding: Sliding, join: bool| {
        let env = Environment::local("slices");
        let timed = || {
            let order = OutOfOrder::by(Duration::ZERO);
            env.from_iter(0..3_i64).with_timestamps(|time| Timestamp::from_millis(*time), order).key_by(|_| ())
        };
        match join {
            false => drop(timed().window(sliding).count().named("slices").collect()),
            true => drop(timed().join(timed()).window(sliding).inner().named("slices").collect()),
        }
        match env.run().expect_err("it is refused") {
            sage::RunError::Submit(SubmitError::OperatorOption { message, .. }) => message,
            other => panic!("{other}"),
        }
    };
    for join in [false, true] {
        let message = refused(Sliding::of(hour, ms(1)), join);
        assert!(message.contains("3600000 windows") && message.contains("100000"), "{message}");
        refused(Sliding::of(ms(100_001), ms(1)), join);
        refused(Sliding::of(Duration::MAX, hour), join);
    }
    let (env, most) = (Environment::local("slices"), Sliding::of(ms(Sliding::MAX_WINDOWS), ms(1)));
    let timed = env.from_iter([7_i64]).with_timestamps(|time| Timestamp::from_millis(*time), OutOfOrder::by(hour));
    let counts = timed.key_by(|_| ()).window(most).count().count().collect();
    env.run().expect("so many there may be");
    assert_eq!(counts.take(), [Sliding::MAX_WINDOWS]);
}
