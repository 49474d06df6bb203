//! The operators, fused and across exchanges.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sage::{BoxError, CloseContext, DataStream, Emit, Environment, Fault, OpenContext, Operator};

use crate::leaks::leak_free;
use crate::probes::{Counting, HookCounts, failed, sorted};

#[test]
fn map_filter_flat_map_and_inspect_compose_in_one_chain() {
    leak_free(|_| {
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        let env = Environment::local("compose");
        let out = env
            .from_iter(0..10_u64)
            .map(|n| n * 2)
            .filter(|n| n % 4 == 0)
            .flat_map(|n| [n, n + 1])
            .inspect(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .map(|n| n.to_string())
            .collect();
        let report = env.run().unwrap();
        assert_eq!(out.take(), ["0", "1", "4", "5", "8", "9", "12", "13", "16", "17"]);
        assert_eq!(seen.load(Ordering::Relaxed), 10);
        assert!(report.is_success());
    });
}

#[test]
fn flat_map_into_keeps_the_order() {
    leak_free(|_| {
        let env = Environment::local("flat-map-into");
        let words = env
            .from_iter(["a b", "", "c"].map(String::from))
            .flat_map_into(|line, out| out.extend(line.split_whitespace().map(str::to_owned)))
            .collect();
        env.run().unwrap();
        assert_eq!(words.take(), ["a", "b", "c"]);
    });
}

#[test]
fn an_error_in_try_map_names_its_operator_and_record() {
    leak_free(|_| {
        let env = Environment::local("try-map");
        env.from_iter(["1", "2", "x", "4"]).try_map(|text| text.parse::<u32>()).named("parse").sink(|_| {});
        let report = failed(env.run());
        let cause = report.first_cause.unwrap().to_string();
        assert_eq!(cause, "operator `parse`, record 3: invalid digit found in string");
        assert_eq!(report.operators[1].failed, 1);
    });
}

#[test]
fn fold_reduce_and_count_give_one_result_also_over_replicas() {
    leak_free(|_| {
        for replicas in [1, 3] {
            let env = Environment::local("global");
            let numbers = || env.from_factory(move |replica| (1..=100_u64).skip(replica).step_by(replicas));
            let folded = numbers().parallelism(replicas).fold(1000, |sum: &mut u64, n| *sum += n).collect();
            let reduced = numbers().parallelism(replicas).reduce(u64::max).collect();
            let counted = numbers().parallelism(replicas).count().collect();
            env.run().unwrap();
            assert_eq!((folded.take(), reduced.take(), counted.take()), (vec![6050], vec![100], vec![100]));
        }
    });
}

#[test]
fn an_empty_stream_folds_to_its_initial_value_counts_zero_and_reduces_to_nothing() {
    leak_free(|_| {
        let env = Environment::local("empty");
        let empty = || env.from_collection(Vec::<u64>::new());
        let folded = empty().fold(7, |sum: &mut u64, n| *sum += n).collect();
        let counted = empty().count().collect();
        let reduced = empty().reduce(|a, b| a + b).collect();
        let keyed = empty().key_by(|n| *n).count().parallelism(2).collect();
        env.run().unwrap();
        assert_eq!((folded.take(), counted.take(), reduced.take()), (vec![7], vec![0], vec![]));
        assert!(keyed.take().is_empty());
    });
}

#[test]
fn keyed_aggregations_give_one_result_per_key_at_any_parallelism() {
    leak_free(|_| {
        for (sources, replicas) in [(1, 1), (1, 4), (3, 1), (3, 2)] {
            let env = Environment::local("keyed");
            let words = || {
                let of_replica = move |replica| {
                    ["", "a", "b", "a", "", ""].map(str::to_owned).into_iter().skip(replica).step_by(sources)
                };
                env.from_factory(of_replica).parallelism(sources)
            };
            let counts = words().key_by(|word| word.clone()).count().parallelism(replicas).collect();
            let joined = words()
                .key_by(|word| word.len())
                .fold(0, |letters, word: String| *letters += word.len())
                .parallelism(replicas)
                .collect();
            let longest = words().key_by(|_| ()).reduce(Ord::max).parallelism(replicas).collect();
            env.run().unwrap();
            let expected = [("", 3), ("a", 2), ("b", 1)].map(|(key, count)| (key.to_owned(), count));
            assert_eq!(sorted(counts.take()), expected);
            assert_eq!(sorted(joined.take()), [(0, 0), (1, 3)]);
            assert_eq!(longest.take(), [((), "b".to_owned())]);
        }
    });
}

#[test]
fn union_has_all_records_of_both_streams() {
    leak_free(|_| {
        let env = Environment::local("union");
        let short = env.from_iter(0..3_u64);
        let long = env.from_iter(100..1100_u64).map(|n| n);
        let all = short.union(long).union(env.from_iter([7])).collect();
        env.run().unwrap();
        assert_eq!(sorted(all.take()), (0..3).chain([7]).chain(100..1100).collect::<Vec<_>>());
    });
}

#[test]
fn union_of_streams_with_unequal_parallelism_has_all_records() {
    leak_free(|_| {
        let env = Environment::local("unequal");
        let wide = env.from_factory(|replica| (0..50_u64).map(move |n| n + 100 * replica as u64)).parallelism(4);
        let all = env.from_iter(1000..1010).union(wide).map(|n| n).collect();
        env.run().unwrap();
        let expected = (0..4).flat_map(|replica| (0..50).map(move |n| n + 100 * replica)).chain(1000..1010);
        assert_eq!(sorted(all.take()), sorted(expected.collect()));
    });
}

#[test]
fn broadcast_sends_every_record_to_every_replica() {
    leak_free(|_| {
        let env = Environment::local("broadcast");
        let all = env.from_iter(0..100_u64).broadcast(3).map(|n| n).collect();
        let report = env.run().unwrap();
        assert_eq!(sorted(all.take()), sorted((0..100).cycle().take(300).collect()));
        let map = report.operator("map-1").unwrap();
        assert_eq!((map.parallelism, map.records_in, map.records_out), (3, 300, 300));
    });
}

#[test]
fn a_broadcast_into_a_sink_of_other_parallelism_keeps_every_copy() {
    leak_free(|_| {
        let env = Environment::local("broadcast");
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        env.from_iter(0..10_u64)
            .broadcast(3)
            .sink(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .parallelism(2);
        env.run().unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 30);
    });
}

#[test]
fn a_tee_gives_every_branch_every_record() {
    leak_free(|_| {
        let env = Environment::local("tee");
        let [even, odd, all] = env.from_iter(0..1000_u64).map(|n| n).tee();
        let even = even.filter(|n| n % 2 == 0).count().collect();
        let odd = odd.filter(|n| n % 2 == 1).count().collect();
        let all = all.collect();
        env.run().unwrap();
        assert_eq!((even.take(), odd.take()), (vec![500], vec![500]));
        assert_eq!(all.take(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_stream_that_begins_at_a_boundary_can_be_teed_at_once() {
    leak_free(|_| {
        let env = Environment::local("tee");
        let [left, right] = env.from_iter(0..10_u64).on_another_thread().tee();
        let (left, right) = (left.collect(), right.collect());
        let [third, fourth] = env.from_iter(0..5_u64).union(env.from_iter(5..9)).tee();
        let (third, fourth) = (third.collect(), fourth.collect());
        env.run().unwrap();
        assert_eq!((left.take().len(), right.take().len()), (10, 10));
        assert_eq!((third.take().len(), fourth.take().len()), (9, 9));
    });
}

#[test]
fn a_tee_goes_on_when_one_branch_has_taken_enough() {
    leak_free(|_| {
        let env = Environment::local("tee");
        let [first, all] = env.from_iter(0..100_000_u64).tee();
        let first = first.take(3).collect();
        let all = all.count().collect();
        env.run().unwrap();
        assert_eq!((first.take(), all.take()), (vec![0, 1, 2], vec![100_000]));
    });
}

/// Notes in which replicas it was opened and closed.
struct Replica {
    opened: Arc<Mutex<Vec<(usize, usize)>>>,
    closed: Arc<AtomicUsize>,
}

impl Operator for Replica {
    type In = u64;
    type Out = u64;
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.opened.lock().expect("no holder panics").push((cx.replica, cx.parallelism));
        Ok(())
    }
    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(record)
    }
    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn each_operator_runs_in_as_many_replicas_as_it_was_given() {
    leak_free(|_| {
        let env = Environment::local("replicas");
        let opened: [Arc<Mutex<Vec<_>>>; 2] = Default::default();
        let closed = Arc::new(AtomicUsize::new(0));
        let replica = |at: usize| {
            let (opened, closed) = (opened[at].clone(), closed.clone());
            move || Replica { opened: opened.clone(), closed: closed.clone() }
        };
        let out = env
            .from_iter(0..500_u64)
            .operator(replica(0))
            .parallelism(3)
            .named("three")
            .map(|n| n)
            .operator(replica(1))
            .parallelism(2)
            .collect();
        let report = env.run().unwrap();
        assert_eq!(sorted(out.take()), (0..500).collect::<Vec<_>>());
        assert_eq!(sorted(opened[0].lock().unwrap().clone()), [(0, 3), (1, 3), (2, 3)]);
        assert_eq!(sorted(opened[1].lock().unwrap().clone()), [(0, 2), (1, 2)]);
        assert_eq!(closed.load(Ordering::SeqCst), 5);
        assert_eq!(report.operator("three").unwrap().parallelism, 3);
    });
}

#[test]
fn an_operator_is_closed_once_per_replica_wherever_it_fails() {
    leak_free(|_| {
        for panics in [false, true] {
            for fail_in in ["", "open", "process", "finish", "close"] {
                let env = Environment::local("hooks");
                let counting = Counting { fail_in, panics, ..Counting::default() };
                let counts: HookCounts = counting.counts.clone();
                env.from_iter(0..100_u64).operator(move || counting.clone()).parallelism(3).sink(|_| {});
                let run = env.run();
                assert_eq!(run.is_ok(), fail_in.is_empty(), "fails in {fail_in}");
                assert_eq!(counts.opened(), counts.closed(), "fails in {fail_in}");
                if fail_in.is_empty() {
                    assert_eq!((counts.opened(), counts.finished()), (3, 3));
                }
            }
        }
    });
}

#[test]
fn functions_on_streams_can_be_written_with_a_type_to_name() {
    fn doubled(numbers: DataStream<u64>) -> DataStream<u64> {
        numbers.map(|n| n * 2).on_another_thread()
    }
    leak_free(|_| {
        let env = Environment::local("typed");
        let out = doubled(doubled(env.from_iter(1..4).on_another_thread())).collect();
        env.run().unwrap();
        assert_eq!(out.take(), [4, 8, 12]);
    });
}

/// Passes records on a hundred at a time.
#[derive(Clone, Default)]
struct Hundreds(Vec<u32>);

impl Operator for Hundreds {
    type In = u32;
    type Out = Vec<u32>;

    fn process(&mut self, record: u32, out: &mut impl Emit<Vec<u32>>) -> Result<(), Fault> {
        self.0.push(record);
        if self.0.len() == 100 { self.flush(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut impl Emit<Vec<u32>>) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { out.emit(std::mem::take(&mut self.0)) }
    }

    fn finish(&mut self, out: &mut impl Emit<Vec<u32>>) -> Result<(), Fault> {
        self.flush(out)
    }
}

#[test]
fn an_operator_that_holds_records_back_flushes_them_when_no_more_are_waiting() {
    leak_free(|_| {
        for (exchanged, lettered) in [(false, false), (true, false), (false, true)] {
            let (feed, source) = sage::testing::source();
            let (received, sink) = sage::testing::sink();
            let env = Environment::local("hundreds");
            let numbers = env.from_source(move |_| source.clone());
            let numbers = if exchanged {
                numbers.on_another_thread().map(|n| n).on_another_thread()
            } else {
                numbers.on_another_thread()
            };
            let hundreds = numbers.operator(Hundreds::default);
            let hundreds = match lettered {
                false => hundreds.on_another_thread(),
                true => {
                    let (hundreds, letters) = hundreds.dead_letters();
                    letters.sink(|_| {});
                    hundreds.on_another_thread()
                }
            };
            hundreds.flat_map(|hundred| hundred).sink_to(move |_| sink.clone());
            let job = env.submit().unwrap();
            for n in 0..5_u32 {
                feed.send(n);
                assert_eq!(received.wait_for(n as usize + 1).last(), Some(&n), "while the source is open");
            }
            (5..1000).for_each(|n| feed.send(n));
            feed.end();
            job.wait().unwrap();
            assert_eq!(received.take(), (0..1000).collect::<Vec<_>>());
        }
    });
}
