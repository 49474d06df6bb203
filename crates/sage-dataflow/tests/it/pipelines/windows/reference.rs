//! Windows of every kind against a plain loop.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{Count, DataStream, Environment, OutOfOrder, Session, Sliding, Timed, Tumbling, Windowed};

use super::{Event, Outcome, in_order, ms, outcome, time_of};
use crate::leaks::leak_free;
use crate::probes::sorted;

#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Kind {
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

    pub(in super::super) fn expected(self, events: &[Event]) -> Vec<Outcome> {
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
                            outcome(result.map(|it| Windowed {
                                key: it.key,
                                window: it.window,
                                value: it.value.1,
                                partial: it.partial,
                            }))
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

pub(in super::super) fn kind() -> impl Strategy<Value = Kind> {
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
