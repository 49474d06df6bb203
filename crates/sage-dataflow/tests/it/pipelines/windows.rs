//! Event time: watermarks, and windows of every kind against a plain reference.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{
    BoxError, Count, DataStream, Emit, Environment, Fault, Next, Operator, Order, OutOfOrder, RunError, Session,
    Sliding, Source, SourceContext, SubmitError, Timed, Timestamp, Tumbling, Window, Windowed,
};

use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, sorted};

/// A record of the tests: its time, its key, and a number that tells it from others.
pub(super) type Event = (i64, u8, u32);

/// What a window came to: its start and end, its key, and the numbers of its records.
pub(super) type Outcome = (i64, i64, u8, Vec<u32>);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn time_of(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.0)
}

pub(super) fn outcome(result: Timed<Windowed<u8, Vec<u32>>>) -> Outcome {
    let Timed { time, value: Windowed { key, window, mut value } } = result;
    assert_eq!(time, window.last());
    value.sort_unstable();
    (window.start.millis(), window.end.millis(), key, value)
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Tumbling(u64),
    Sliding(u64, u64),
    Session(u64),
    Count(u64),
}

/// How the records of a window are gathered; all three give the same.
#[derive(Debug, Clone, Copy)]
enum Way {
    Apply,
    Fold,
    Reduce,
}

impl Kind {
    /// The windows of one key's records, in order of time where that does not matter, else in the order given.
    fn reference(self, records: &[(i64, u32)]) -> Vec<(i64, i64, Vec<u32>)> {
        let mut windows: BTreeMap<(i64, i64), Vec<u32>> = BTreeMap::new();
        let mut by_time = records.to_vec();
        by_time.sort_unstable();
        match self {
            Self::Tumbling(size) => return Self::Sliding(size, size).reference(records),
            Self::Sliding(size, every) => {
                let (size, every) = (size as i64, every as i64);
                for (time, id) in by_time {
                    for start in (time - size + 1..=time).filter(|start| start.rem_euclid(every) == 0) {
                        windows.entry((start, start + size)).or_default().push(id);
                    }
                }
            }
            Self::Session(gap) => {
                let mut open: Option<(i64, i64, Vec<u32>)> = None;
                for (time, id) in by_time {
                    match &mut open {
                        Some((_, end, ids)) if time < *end => {
                            *end = time + gap as i64;
                            ids.push(id);
                        }
                        _ => {
                            if let Some((start, end, ids)) = open.replace((time, time + gap as i64, vec![id])) {
                                windows.insert((start, end), ids);
                            }
                        }
                    }
                }
                if let Some((start, end, ids)) = open {
                    windows.insert((start, end), ids);
                }
            }
            Self::Count(size) => {
                return records
                    .chunks(size as usize)
                    .map(|chunk| {
                        let times = chunk.iter().map(|(time, _)| *time);
                        let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
                        let mut ids: Vec<u32> = chunk.iter().map(|(_, id)| *id).collect();
                        ids.sort_unstable();
                        (first, last + 1, ids)
                    })
                    .collect();
            }
        }
        windows
            .into_iter()
            .map(|((start, end), mut ids)| {
                ids.sort_unstable();
                (start, end, ids)
            })
            .collect()
    }

    pub(super) fn expected(self, events: &[Event]) -> Vec<Outcome> {
        let mut by_key: BTreeMap<u8, Vec<(i64, u32)>> = BTreeMap::new();
        events.iter().for_each(|&(time, key, id)| by_key.entry(key).or_default().push((time, id)));
        let of_key = |(key, records): (u8, Vec<(i64, u32)>)| {
            self.reference(&records).into_iter().map(move |(start, end, ids)| (start, end, key, ids))
        };
        sorted(by_key.into_iter().flat_map(of_key).collect())
    }

    /// The same by the engine. `lateness` makes windows fire again.
    fn run_on(self, stream: DataStream<Timed<Event>>, way: Way, replicas: usize, lateness: u64) -> DataStream<Outcome> {
        macro_rules! gather {
            ($windows:expr) => {{
                let keyed = stream.map(|timed| timed.map(|event| (event.1, vec![event.2])));
                let windowed = keyed.key_by(|timed| timed.value.0).window($windows).allowed_lateness(ms(lateness));
                match way {
                    Way::Apply => windowed
                        .apply(|_, _, values| values.iter().flat_map(|value| value.1.clone()).collect::<Vec<u32>>())
                        .parallelism(replicas)
                        .map(outcome)
                        .on_another_thread(),
                    Way::Fold => windowed
                        .fold(Vec::new(), |ids: &mut Vec<u32>, value: &(u8, Vec<u32>)| ids.extend(&value.1))
                        .parallelism(replicas)
                        .map(outcome)
                        .on_another_thread(),
                    Way::Reduce => windowed
                        .reduce(|mut a, b| {
                            a.1.extend(b.1);
                            a
                        })
                        .parallelism(replicas)
                        .map(|result| {
                            outcome(result.map(|it| Windowed { key: it.key, window: it.window, value: it.value.1 }))
                        })
                        .on_another_thread(),
                }
            }};
        }
        match self {
            Self::Tumbling(size) => gather!(Tumbling::of(ms(size))),
            Self::Sliding(size, every) => gather!(Sliding::of(ms(size), ms(every))),
            Self::Session(gap) => gather!(Session::gap(ms(gap))),
            Self::Count(records) => gather!(Count::of(records)),
        }
    }
}

pub(super) fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1..30_u64).prop_map(Kind::Tumbling),
        (1..30_u64, 1..10_u64).prop_map(|(size, every)| Kind::Sliding(size.max(every), every)),
        (1..20_u64).prop_map(Kind::Session),
    ]
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Apply), Just(Way::Fold), Just(Way::Reduce)]
}

/// Records in order of time and then up to `bound` late, for each replica of the source.
fn sources(bound: i64) -> impl Strategy<Value = Vec<Vec<Event>>> {
    let record = (0..8_i64, 0..3_u8, 0..=bound);
    vec((vec(record, 0..120), -200..200_i64), 1..4).prop_map(|sources| {
        let mut id = 0;
        sources
            .into_iter()
            .map(|(records, begin)| {
                let mut time = begin;
                let mut delayed: Vec<(i64, Event)> = Vec::new();
                for (step, key, delay) in records {
                    time += step;
                    id += 1;
                    delayed.push((time + delay, (time, key, id)));
                }
                delayed.sort_by_key(|(arrival, _)| *arrival);
                delayed.into_iter().map(|(_, event)| event).collect()
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_give_what_a_plain_loop_gives(
        kind in kind(),
        way in way(),
        (bound, sources) in (0..12_i64).prop_flat_map(|bound| (Just(bound), sources(bound))),
        replicas in 1..5_usize,
        block_records in 1..65_usize,
        exchanged in any::<bool>(),
        inline in prop::bool::weighted(0.2),
    ) {
        leak_free(|_| {
            let env = Environment::local("windows").block_records(block_records);
            let env = if inline { env.inline() } else { env };
            let given = sources.clone();
            let events = env.from_factory(move |replica| given[replica].clone()).parallelism(sources.len());
            let order = OutOfOrder::by(ms(bound as u64));
            let timed = match exchanged {
                true => events.on_another_thread().with_timestamps(time_of, order).on_another_thread(),
                false => events.with_timestamps(time_of, order).on_another_thread(),
            };
            let out = kind.run_on(timed, way, replicas, 0).collect();
            let report = env.run().expect("the job succeeds");
            assert!(report.operators.iter().all(|operator| operator.late == 0), "late:\n{report}");
            assert_eq!(sorted(out.take()), kind.expected(&sources.concat()));
        });
    }

    #[test]
    fn count_windows_give_what_a_plain_loop_gives(
        size in 1..9_u64,
        way in way(),
        events in sources(5),
        replicas in 1..5_usize,
        block_records in 1..65_usize,
    ) {
        leak_free(|_| {
            // One source: windows by count follow the order of arrival.
            let events = events.concat();
            let env = Environment::local("windows").block_records(block_records);
            let order = OutOfOrder::by(ms(5));
            let timed = env.from_collection(events.clone()).with_timestamps(time_of, order).on_another_thread();
            let kind = Kind::Count(size);
            let out = kind.run_on(timed, way, replicas, 0).collect();
            env.run().expect("the job succeeds");
            assert_eq!(sorted(out.take()), kind.expected(&events));
        });
    }

    /// With lateness enough for everything, the last firing of each window is as if nothing had been late. Sessions
    /// that were merged leave the firings of their parts behind, which are within them.
    #[test]
    fn late_records_make_windows_fire_again(
        kind in kind(),
        way in way(),
        sources in sources(40),
        replicas in 1..4_usize,
        block_records in 1..65_usize,
    ) {
        leak_free(|_| {
            let events = sources.concat();
            let env = Environment::local("windows").block_records(block_records);
            let timed = env.from_iter(slowly(events.clone())).with_timestamps(time_of, in_order()).on_another_thread();
            let out = kind.run_on(timed, way, replicas, 100_000).collect();
            let report = env.run().expect("the job succeeds");
            assert!(report.operators.iter().all(|operator| operator.late == 0), "late:\n{report}");
            let all = out.take();
            let expected = kind.expected(&events);
            for last in &expected {
                assert!(all.contains(last), "{last:?} is missing in {all:?}");
            }
            for (start, end, key, ids) in &all {
                let within = |(s, e, k, whole): &&Outcome| {
                    k == key && s <= start && end <= e && ids.iter().all(|id| whole.contains(id))
                };
                assert!(expected.iter().any(|whole| within(&whole)), "{ids:?} belong to no window");
            }
        });
    }
}

/// Records of a source that begins a new batch every now and then, so that watermarks come between them.
fn slowly(events: Vec<Event>) -> impl Iterator<Item = Event> + Send + 'static {
    events.into_iter().enumerate().map(|(index, event)| {
        if index % 16 == 15 {
            std::thread::yield_now();
        }
        event
    })
}

/// A source that does what it is told over a channel, and is idle meanwhile: each record is a batch.
struct Told(Receiver<Option<Event>>);

impl Source for Told {
    type Item = Event;
    fn next(&mut self, cx: &SourceContext) -> Result<Next<Event>, BoxError> {
        match self.0.try_recv() {
            Ok(Some(event)) => Ok(Next::Record(event)),
            Ok(None) => Ok(Next::Idle),
            Err(std::sync::mpsc::TryRecvError::Empty) => {
                cx.wait(Duration::from_micros(200));
                Ok(Next::Idle)
            }
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Ok(Next::End),
        }
    }
}

/// A batch of its own for each record.
fn told(events: &[Event]) -> Told {
    let (sender, receiver) = channel();
    for &event in events {
        sender.send(Some(event)).expect("the receiver is here");
        sender.send(None).expect("the receiver is here");
    }
    Told(receiver)
}

fn one_shot(source: Told) -> impl Fn(usize) -> Told + Send + 'static {
    let source = Mutex::new(Some(source));
    move |_replica| source.lock().expect("no holder panics").take().expect("made once")
}

fn in_order() -> OutOfOrder {
    OutOfOrder::by(Duration::ZERO)
}

#[test]
fn a_window_fires_when_the_watermark_reaches_its_end_and_not_before() {
    leak_free(|_| {
        let (sender, receiver) = channel();
        let journal = Journal::new();
        let env = Environment::local("windows");
        let noted = journal.clone();
        env.from_source(one_shot(Told(receiver)))
            .with_timestamps(time_of, OutOfOrder::by(ms(3)))
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .parallelism(2)
            .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
        let job = env.submit().expect("the job starts");
        // The watermark is 9 with the last of these: the window to 10 is still open.
        for time in [-4, 0, -1, 5, 12] {
            sender.send(Some((time, 0, 0))).expect("the source is here");
        }
        journal.await_events("[-10, 0) 2", 1);
        assert_eq!(journal.count("[0, 10) 2"), 0);
        sender.send(Some((13, 0, 0))).expect("the source is here");
        journal.await_events("[0, 10) 2", 1);
        drop(sender);
        job.wait().expect("the job succeeds");
        assert_eq!(journal.events(), ["[-10, 0) 2", "[0, 10) 2", "[10, 20) 2"]);
    });
}

/// Two sources: the one behind the gate holds the windows of the other back, whatever that has read.
#[test]
fn the_slower_of_two_sources_holds_windows_back() {
    leak_free(|_| {
        let gate = Gate::new();
        let journal = Journal::new();
        let env = Environment::local("windows").block_records(1);
        let passed = gate.clone();
        let slow = env.from_iter([1, 2, 3]).map(move |n| {
            passed.pass();
            (n, 0_u8, n as u32)
        });
        let seen = journal.clone();
        let fast = env.from_iter((0..100).map(|n| (n, 0_u8, 0_u32))).inspect(move |event| {
            if event.0 == 99 {
                seen.note("read");
            }
        });
        let slow = slow.with_timestamps(time_of, in_order());
        let fast = fast.with_timestamps(time_of, in_order());
        let noted = journal.clone();
        slow.union(fast)
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
        let job = env.submit().expect("the job starts");
        gate.await_arrivals(1);
        journal.await_events("read", 1);
        assert_eq!(journal.events(), ["read"]);
        gate.open();
        job.wait().expect("the job succeeds");
        assert_eq!(journal.count("[0, 10) 13"), 1, "{:?}", journal.events());
        assert_eq!(journal.events().len(), 11);
    });
}

#[test]
fn an_idle_source_holds_nothing_back() {
    for apart in [false, true] {
        leak_free(|_| {
            let (sender, silent) = channel();
            let journal = Journal::new();
            let env = Environment::local("windows");
            let order = in_order().idle_after(ms(20));
            let silent = env.from_source(one_shot(Told(silent)));
            // Behind an exchange the chain with the timestamps waits for records, and has to wake by itself.
            let silent = match apart {
                true => silent.on_another_thread().with_timestamps(time_of, order).on_another_thread(),
                false => silent.with_timestamps(time_of, order).on_another_thread(),
            };
            let (busy_sender, busy) = channel();
            let busy = env.from_source(one_shot(Told(busy))).with_timestamps(time_of, in_order());
            let (noted, arrivals) = (journal.clone(), Journal::new());
            let arrived = arrivals.clone();
            silent
                .union(busy)
                .inspect(move |timed| arrived.note(timed.time.millis()))
                .key_by(|timed| timed.value.1)
                .window(Tumbling::of(ms(10)))
                .count()
                .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
            let job = env.submit().expect("the job starts");
            for time in [1, 11, 21] {
                busy_sender.send(Some((time, 0, 0))).expect("the source is here");
            }
            journal.await_events("[10, 20) 1", 1);
            // It comes back, and counts again: its record at 25 is in time, and holds the window back.
            sender.send(Some((25, 0, 0))).expect("the source is here");
            arrivals.await_events("25", 1);
            drop(sender);
            drop(busy_sender);
            job.wait().expect("the job succeeds");
            assert_eq!(journal.events(), ["[0, 10) 1", "[10, 20) 1", "[20, 30) 2"]);
        });
    }
}

#[test]
fn late_records_are_counted_and_handed_on() {
    leak_free(|_| {
        let late = Arc::new(Mutex::new(Vec::new()));
        let env = Environment::local("windows");
        let handed = late.clone();
        let events = [(5, 0, 0), (20, 0, 1), (4, 0, 2), (15, 0, 3), (9, 1, 4), (21, 1, 5)];
        let counts = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .late_to(move |record: Timed<Event>| handed.lock().expect("no holder panics").push(record.value))
            .count()
            .named("counts")
            .collect();
        let report = env.run().expect("the job succeeds");
        assert_eq!(*late.lock().expect("no holder panics"), [(4, 0, 2), (15, 0, 3), (9, 1, 4)]);
        assert_eq!(report.operator("counts").map(|counts| (counts.records_in, counts.late)), Some((6, 3)));
        assert!(report.to_string().contains("3 late"), "{report}");
        let windows = sorted(counts.take().iter().map(|it| (it.value.window.start.millis(), it.value.key)).collect());
        assert_eq!(windows, [(0, 0), (20, 0), (20, 1)]);
    });
}

#[test]
fn late_records_go_to_a_stream_of_their_own() {
    leak_free(|_| {
        for replicas in [1, 3] {
            let env = Environment::local("windows");
            let events = [(5, 0, 0), (20, 0, 1), (4, 0, 2), (15, 0, 3), (9, 1, 4), (21, 1, 5)];
            let (counts, late) = env
                .from_source(one_shot(told(&events)))
                .with_timestamps(time_of, in_order())
                .key_by(|timed| timed.value.1)
                .window(Tumbling::of(ms(10)))
                .count()
                .named("counts")
                .parallelism(replicas)
                .split_late();
            let (counts, late) = (counts.collect(), late.collect());
            let report = env.run().expect("the job succeeds");
            let late = sorted(late.take().into_iter().map(|record| record.value).collect());
            assert_eq!(late, [(4, 0, 2), (9, 1, 4), (15, 0, 3)]);
            assert_eq!(report.operator("counts").map(|counts| (counts.records_in, counts.late)), Some((6, 3)));
            let windows = counts.take().iter().map(|it| (it.value.window.start.millis(), it.value.key)).collect();
            assert_eq!(sorted(windows), [(0, 0), (20, 0), (20, 1)]);
        }
    });
}

#[test]
fn late_records_of_sessions_are_set_apart_and_need_not_be_wanted() {
    leak_free(|_| {
        let events = [(5, 0, 0), (40, 0, 1), (4, 0, 2), (3, 0, 3), (80, 0, 4)];
        let env = Environment::local("windows");
        let (sessions, late) = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Session::gap(ms(10)))
            .fold(Vec::new(), |all: &mut Vec<u32>, event: &Event| all.push(event.2))
            .split_late();
        // The side stream ends with its first record; the sessions go on.
        let (sessions, late) = (sessions.map(|it| it.value.value).collect(), late.take(1).collect());
        env.run().expect("the job succeeds");
        assert_eq!(sessions.take(), [vec![0], vec![1], vec![4]]);
        assert_eq!(late.take().iter().map(|record| record.value).collect::<Vec<_>>(), [(4, 0, 2)]);
    });
}

#[test]
fn lateness_makes_a_window_fire_again_and_then_ends() {
    leak_free(|_| {
        // At 20 the first window has fired; 4 is within the lateness, and 3 beyond it once the watermark is 31.
        let events = [(5, 0, 0), (20, 0, 1), (4, 0, 2), (4, 1, 3), (31, 0, 4), (3, 0, 5)];
        let env = Environment::local("windows");
        let counts = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .allowed_lateness(ms(20))
            .count()
            .named("counts")
            .map(|it| (it.value.window.start.millis(), it.value.key, it.value.value))
            .collect();
        let report = env.run().expect("the job succeeds");
        assert_eq!(counts.take(), [(0, 0, 1), (0, 0, 2), (0, 1, 1), (20, 0, 1), (30, 0, 1)]);
        assert_eq!(report.operator("counts").map(|counts| counts.late), Some(1));
    });
}

#[test]
fn a_late_record_merges_sessions_that_have_fired() {
    leak_free(|_| {
        let events = [(0, 0, 0), (12, 0, 1), (40, 0, 2), (6, 0, 3), (200, 0, 4), (1, 0, 5)];
        let env = Environment::local("windows");
        let out = env
            .from_source(one_shot(told(&events)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Session::gap(ms(10)))
            .allowed_lateness(ms(100))
            .apply(|_, _, values: &[Event]| values.iter().map(|event| event.2).collect::<Vec<u32>>())
            .named("sessions")
            .map(outcome)
            .collect();
        let report = env.run().expect("the job succeeds");
        let expected = [
            (0, 10, 0, vec![0]),
            (12, 22, 0, vec![1]),
            (0, 22, 0, vec![0, 1, 3]),
            (40, 50, 0, vec![2]),
            (200, 210, 0, vec![4]),
        ];
        assert_eq!(out.take(), expected);
        assert_eq!(report.operator("sessions").map(|sessions| sessions.late), Some(1));
    });
}

#[test]
fn windows_follow_windows() {
    leak_free(|_| {
        let events: Vec<Event> = (0..1000).map(|n| (n - 300, (n % 3) as u8, 0)).collect();
        let env = Environment::local("windows").block_records(7);
        let totals = env
            .from_collection(events)
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .parallelism(3)
            .key_by(|_| ())
            .window(Tumbling::of(ms(100)))
            .fold(0, |sum, count| *sum += count.value)
            .parallelism(2)
            .map(|it| (it.value.window.start.millis(), it.value.value))
            .collect();
        let report = env.run().expect("the job succeeds");
        assert_eq!(sorted(totals.take()), (-3..7).map(|n| (n * 100, 100)).collect::<Vec<_>>());
        assert!(report.operators.iter().all(|operator| operator.late == 0), "{report}");
    });
}

/// Watermarks go through every kind of exchange: each way, the first window is out before the sources end.
#[test]
fn watermarks_go_through_exchanges() {
    type Shape = fn(DataStream<Timed<Event>>) -> DataStream<Timed<Event>>;
    let shapes: [(&str, Shape, u64); 6] = [
        ("on another thread", |stream| stream.on_another_thread(), 1),
        ("rebalance", |stream| stream.rebalance(3), 1),
        ("broadcast", |stream| stream.broadcast(2), 2),
        (
            "tee",
            |stream| {
                let [left, right] = stream.tee();
                left.union(right)
            },
            2,
        ),
        (
            "operators",
            |stream| stream.filter(|timed| timed.value.0 >= 0).map(|timed| timed).parallelism(2).on_another_thread(),
            1,
        ),
        ("flat-map", |stream| stream.flat_map(|timed| vec![timed; 3]).on_another_thread(), 3),
    ];
    for (name, shape, copies) in shapes {
        leak_free(|_| {
            let (sender, receiver) = channel();
            let journal = Journal::new();
            let env = Environment::local(name);
            let noted = journal.clone();
            let timed =
                env.from_source(one_shot(Told(receiver))).with_timestamps(time_of, in_order()).on_another_thread();
            shape(timed)
                .key_by(|timed| timed.value.1)
                .window(Tumbling::of(ms(10)))
                .count()
                .parallelism(2)
                .sink(move |result| noted.note(format!("{} {}", result.value.window, result.value.value)));
            let job = env.submit().expect("the job starts");
            sender.send(Some((3, 0, 0))).expect("the source is here");
            sender.send(Some((11, 0, 0))).expect("the source is here");
            journal.await_events(&format!("[0, 10) {copies}"), 1);
            drop(sender);
            job.wait().expect("the job succeeds");
        });
    }
}

#[test]
fn a_drain_fires_the_open_windows_and_a_cancel_does_not() {
    for cancel in [false, true] {
        leak_free(|_| {
            let (sender, receiver) = channel();
            let journal = Journal::new();
            let env = Environment::local("windows");
            let (noted, read) = (journal.clone(), journal.clone());
            env.from_source(one_shot(Told(receiver)))
                .inspect(move |_| read.note("read"))
                .with_timestamps(time_of, in_order())
                .key_by(|timed| timed.value.1)
                .window(Session::gap(ms(10)))
                .count()
                .sink(move |result| noted.note(result.value.window));
            let job = env.submit().expect("the job starts");
            sender.send(Some((3, 0, 0))).expect("the source is here");
            journal.await_events("read", 1);
            if cancel {
                job.cancel();
            } else {
                job.drain();
            }
            let ended = job.wait();
            assert_eq!(ended.is_ok(), !cancel);
            assert_eq!(journal.count("[3, 13)"), usize::from(!cancel));
        });
    }
}

#[test]
fn a_panic_in_a_window_names_its_operator() {
    leak_free(|_| {
        let env = Environment::local("windows");
        env.from_iter([(1_i64, 0_u8, 0_u32), (50, 0, 0)])
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .apply(|_, _: Window, _: &[Event]| -> u32 { panic!("no result") })
            .named("broken")
            .sink(|_| {});
        let error = env.run().expect_err("the function panics");
        assert!(error.to_string().contains("failed"), "{error}");
        let report = error.report().expect("there is a report");
        let cause = report.first_cause.as_ref().expect("there is a cause").to_string();
        assert!(cause.contains("operator `broken`") && cause.contains("no result"), "{cause}");
    });
}

#[test]
fn an_early_end_downstream_ends_the_windows() {
    leak_free(|_| {
        let env = Environment::local("windows");
        let first = env
            .from_factory(|_replica| (0_i64..).map(|n| (n, 0_u8, 0_u32)))
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Tumbling::of(ms(10)))
            .count()
            .take(2)
            .map(|it| it.value.value)
            .collect();
        env.run().expect("the job succeeds");
        assert_eq!(first.take(), [10, 10]);
    });
}

#[test]
fn an_environment_with_windows_runs_again() {
    leak_free(|_| {
        let env = Environment::local("windows");
        let out = env
            .from_collection(vec![(1_i64, 0_u8, 7_u32), (2, 0, 8), (30, 0, 9)])
            .with_timestamps(time_of, in_order())
            .key_by(|timed| timed.value.1)
            .window(Sliding::of(ms(20), ms(10)))
            .apply(|_, _, values: &[Event]| values.iter().map(|event| event.2).collect::<Vec<u32>>())
            .map(outcome)
            .collect();
        for _ in 0..2 {
            env.run().expect("the job succeeds");
            let expected =
                [(-10, 10, 0, vec![7, 8]), (0, 20, 0, vec![7, 8]), (20, 40, 0, vec![9]), (30, 50, 0, vec![9])];
            assert_eq!(out.take(), expected);
        }
    });
}

#[test]
fn windows_of_nothing_are_refused_before_anything_starts() {
    let problem = |declare: &dyn Fn(DataStream<Timed<Event>>)| {
        let env = Environment::local("windows");
        declare(env.from_iter([(1_i64, 0_u8, 0_u32)]).with_timestamps(time_of, in_order()).on_another_thread());
        match env.run() {
            Err(RunError::Submit(SubmitError::OperatorOption { operator, message: problem })) => {
                assert_eq!(operator, "wrong");
                problem
            }
            other => panic!("{other:?}"),
        }
    };
    macro_rules! wrong {
        ($windows:expr) => {
            problem(&|stream| {
                stream.key_by(|timed| timed.value.1).window($windows).count().named("wrong").sink(|_| {});
            })
        };
    }
    assert!(wrong!(Tumbling::of(Duration::ZERO)).contains("shorter than 1 ms"));
    assert!(wrong!(Tumbling::of(Duration::from_micros(999))).contains("shorter than 1 ms"));
    assert!(wrong!(Sliding::of(ms(5), Duration::ZERO)).contains("shorter than 1 ms"));
    assert!(wrong!(Sliding::of(ms(5), ms(6))).contains("would be in none"));
    assert!(wrong!(Session::gap(Duration::ZERO)).contains("gap"));
    assert!(wrong!(Count::of(0)).contains("no record"));
    assert!(
        problem(&|stream| {
            stream
                .with_timestamps(|timed| timed.time, in_order().idle_after(Duration::ZERO))
                .named("wrong")
                .sink(|_| {});
        })
        .contains("idle_after")
    );
}

/// Emits what it was given when its input has ended.
struct AtTheEnd(Vec<Timed<i64>>);

impl Operator for AtTheEnd {
    type In = Timed<i64>;
    type Out = Timed<i64>;

    fn process(&mut self, record: Timed<i64>, _out: &mut impl Emit<Timed<i64>>) -> Result<(), Fault> {
        self.0.push(record);
        Ok(())
    }

    fn finish(&mut self, out: &mut impl Emit<Timed<i64>>) -> Result<(), Fault> {
        self.0.drain(..).try_for_each(|record| out.emit(record))
    }
}

#[test]
fn what_an_operator_emits_at_the_end_of_input_is_not_late_behind_it() {
    type Gathered = fn(DataStream<Timed<i64>>) -> DataStream<Timed<i64>>;
    let gathered: [(&str, Gathered); 6] = [
        ("operator", |timed| timed.operator(|| AtTheEnd(Vec::new())).on_another_thread()),
        ("fused", |timed| {
            timed
                .operator(|| AtTheEnd(Vec::new()))
                .map(|timed| timed)
                .on_another_thread()
                .filter(|_| true)
                .on_another_thread()
        }),
        ("reduce", |timed| {
            timed.key_by(|timed| timed.value).reduce(|_, last| last).map(|pair| pair.1).on_another_thread()
        }),
        ("async", |timed| {
            let slowly = |timed: Timed<i64>| async move {
                tokio::task::yield_now().await;
                timed
            };
            timed.operator(|| AtTheEnd(Vec::new())).map_async(4, Order::Unordered, slowly).on_another_thread()
        }),
        ("fold", |timed| timed.fold(Vec::new(), Vec::push).flat_map(|records| records).on_another_thread()),
        ("count windows", |timed| {
            let windows = timed.key_by(|timed| timed.value).window(Count::of(3)).apply(|n, _, _| *n);
            windows.map(|it| Timed { time: it.time, value: it.value.value }).on_another_thread()
        }),
    ];
    for (name, gathered) in gathered {
        leak_free(|_| {
            let env = Environment::local(name);
            // No watermark but the last one comes before the end.
            let order = OutOfOrder::by(ms(60_000));
            let timed =
                env.from_iter(0..10_i64).with_timestamps(|&n| Timestamp::from_millis(n), order).on_another_thread();
            let windows = gathered(timed).key_by(|_| ()).window(Tumbling::of(ms(2))).count().named("windows");
            let counted = windows.map(|it| it.value.value).collect();
            let report = env.run().expect("the job succeeds");
            let late = report.operator("windows").expect("it is there").late;
            assert_eq!((counted.take(), late), (vec![2; 5], 0), "{name}");
        });
    }
}
