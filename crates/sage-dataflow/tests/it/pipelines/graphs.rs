//! Random graphs against a reference that interprets them on one thread.
//!
//! A [`Plan`] is a tree of transformations over records of a key and a value. `declare` makes streams of it, with random
//! parallelism, batch sizes and delays; `interpret` computes the same with vectors. Both must give the same multiset.
//! `SAGE_GRAPHS=10000 cargo nextest run -p sage-dataflow graphs` tries more of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sage::{DataStream, Environment, ErrorPolicy, Order, Outcome, RunError};

use crate::leaks::leak_free;
use crate::probes::sorted;

/// A key and a value.
type Record = (u8, u64);

#[derive(Debug, Clone)]
enum Plan {
    /// So many records; some of them are given only after the thread was put behind the others.
    Source {
        records: u16,
        slow: bool,
    },
    Map(Box<Plan>, usize),
    Filter(Box<Plan>, u64),
    FlatMap(Box<Plan>, u64, usize),
    /// Fails on every so manieth value, and skips.
    Skip(Box<Plan>, u64, usize),
    /// Fails on every so manieth value; the dead letters join the rest again.
    DeadLetters(Box<Plan>, u64, usize),
    /// Fails once on every so manieth value.
    Retry(Box<Plan>, u64),
    Rebalance(Box<Plan>, usize),
    PartitionBy(Box<Plan>, usize),
    PartitionByKey(Box<Plan>, usize),
    Sum(Box<Plan>, usize),
    Largest(Box<Plan>, usize),
    Distinct(Box<Plan>, usize),
    Top(Box<Plan>, usize, usize),
    Union(Box<Plan>, Box<Plan>),
    /// Two branches of one stream, one of them changed, merged again.
    Fork(Box<Plan>),
    /// Both ways of a split, one of them changed, merged again.
    Split(Box<Plan>, u64),
    /// An inner join of both, per key.
    Inner(Box<Plan>, Box<Plan>, usize),
    /// A full join of the stream with itself, changed.
    Full(Box<Plan>, usize),
    /// One function for each of two streams.
    Connect(Box<Plan>, Box<Plan>, usize),
    /// How many pairs there are.
    Zip(Box<Plan>, Box<Plan>),
    /// Futures that yield to others, some of which fail.
    Async(Box<Plan>, usize, bool, usize),
}

use Plan::*;

fn plans() -> impl Strategy<Value = Plan> {
    let source = (0_u16..200, any::<bool>()).prop_map(|(records, slow)| Source { records, slow });
    source.prop_recursive(6, 24, 2, |plan| {
        let replicas = 1_usize..6;
        let one = || plan.clone().prop_map(Box::new);
        prop_oneof![
            (one(), replicas.clone()).prop_map(|(plan, n)| Map(plan, n)),
            (one(), 1_u64..4).prop_map(|(plan, n)| Filter(plan, n)),
            (one(), 0_u64..4, replicas.clone()).prop_map(|(plan, times, n)| FlatMap(plan, times, n)),
            (one(), 1_u64..5, replicas.clone()).prop_map(|(plan, nth, n)| Skip(plan, nth, n)),
            (one(), 1_u64..5, replicas.clone()).prop_map(|(plan, nth, n)| DeadLetters(plan, nth, n)),
            (one(), 1_u64..5).prop_map(|(plan, nth)| Retry(plan, nth)),
            (one(), replicas.clone()).prop_map(|(plan, n)| Rebalance(plan, n)),
            (one(), replicas.clone()).prop_map(|(plan, n)| PartitionBy(plan, n)),
            (one(), replicas.clone()).prop_map(|(plan, n)| PartitionByKey(plan, n)),
            (one(), replicas.clone()).prop_map(|(plan, n)| Sum(plan, n)),
            (one(), replicas.clone()).prop_map(|(plan, n)| Largest(plan, n)),
            (one(), replicas.clone()).prop_map(|(plan, n)| Distinct(plan, n)),
            (one(), 1_usize..4, replicas.clone()).prop_map(|(plan, k, n)| Top(plan, k, n)),
            (one(), one()).prop_map(|(a, b)| Union(a, b)),
            one().prop_map(Fork),
            (one(), 1_u64..4).prop_map(|(plan, n)| Split(plan, n)),
            (one(), one(), 1_usize..6).prop_map(|(a, b, n)| Inner(a, b, n)),
            (one(), 1_usize..6).prop_map(|(plan, n)| Full(plan, n)),
            (one(), one(), 1_usize..6).prop_map(|(a, b, n)| Connect(a, b, n)),
            (one(), one()).prop_map(|(a, b)| Zip(a, b)),
            (one(), 1_usize..9, any::<bool>(), 1_usize..4).prop_map(|(plan, c, o, n)| Async(plan, c, o, n)),
        ]
    })
}

fn source(records: u16) -> impl Iterator<Item = Record> + Clone + Send {
    (0..records).map(|n| ((n % 7) as u8, u64::from(n) * 13 % 101))
}

fn changed((key, value): Record) -> Record {
    (key, value * 3 + 1)
}

fn failing(nth: u64) -> impl FnMut(Record) -> Result<Record, String> + Clone + Send {
    move |(key, value)| if value % nth == 0 { Err(format!("{value}")) } else { Ok((key, value)) }
}

fn declare(env: &Environment, plan: &Plan) -> DataStream<Record> {
    match plan {
        Source { records, slow } => {
            let slow = *slow;
            let yielding = move |(key, value): &Record| {
                if slow && (value + u64::from(*key)) % 5 == 0 {
                    std::thread::yield_now();
                }
            };
            env.from_iter(source(*records)).inspect(yielding).boxed()
        }
        Map(plan, n) => declare(env, plan).map(changed).parallelism(*n).boxed(),
        Filter(plan, nth) => {
            let nth = *nth;
            declare(env, plan).filter(move |record| record.1 % nth == 0).boxed()
        }
        FlatMap(plan, times, n) => {
            let times = *times;
            let copies = move |(key, value): Record| (0..times).map(move |time| (key, value + time));
            declare(env, plan).flat_map(copies).parallelism(*n).boxed()
        }
        Skip(plan, nth, n) => {
            declare(env, plan).try_map(failing(*nth)).parallelism(*n).on_error(ErrorPolicy::skip()).boxed()
        }
        DeadLetters(plan, nth, n) => {
            let (alive, dead) = declare(env, plan).try_map(failing(*nth)).parallelism(*n).dead_letters();
            alive.union(dead.map(|letter| changed(letter.record)))
        }
        Retry(plan, nth) => {
            let (nth, mut failed) = (*nth, false);
            let once = move |record: Record| {
                failed = !failed && record.1.is_multiple_of(nth);
                if failed { Err("once") } else { Ok(record) }
            };
            let retry = sage::Retry::up_to(2).backoff(std::time::Duration::ZERO, std::time::Duration::ZERO);
            declare(env, plan).try_map(once).retry(retry).boxed()
        }
        Rebalance(plan, n) => declare(env, plan).rebalance(*n),
        PartitionBy(plan, n) => declare(env, plan).partition_by(*n, |record, n| record.1 as usize % n),
        PartitionByKey(plan, n) => declare(env, plan).key_by(|record| record.0).partition(*n),
        Sum(plan, n) => {
            let keyed = declare(env, plan).key_by(|record| record.0);
            keyed.fold(0, |sum, record| *sum += record.1).parallelism(*n).boxed()
        }
        Largest(plan, n) => {
            let keyed = declare(env, plan).key_by_ref(|record| &record.0);
            keyed.reduce(|a, b| a.max(b)).parallelism(*n).map(|(_, record)| record).boxed()
        }
        Distinct(plan, n) => declare(env, plan).distinct().parallelism(*n).boxed(),
        Top(plan, k, n) => {
            let keyed = declare(env, plan).key_by(|record| record.0);
            keyed.top_k(*k, |record| record.1).parallelism(*n).flat_map(|(_, records)| records).boxed()
        }
        Union(a, b) => declare(env, a).union(declare(env, b)),
        Fork(plan) => {
            let [one, other] = declare(env, plan).fork();
            one.map(changed).union(other)
        }
        Split(plan, nth) => {
            let nth = *nth;
            let (main, side) = declare(env, plan).split(move |record| record.1 % nth == 0);
            main.map(changed).union(side)
        }
        Inner(a, b, n) => {
            let (a, b) = (declare(env, a).distinct().key_by(key), declare(env, b).distinct().key_by(key));
            a.join(b).inner().parallelism(*n).map(|(key, a, b)| paired(key, Some(a.1), Some(b.1))).distinct().boxed()
        }
        Full(plan, n) => {
            let [a, b] = declare(env, plan).fork();
            let (a, b) =
                (a.distinct().key_by(key), b.filter(|record| record.1 % 2 == 0).distinct().key_by(|r| r.0 ^ 1));
            let value = |record: Option<Record>| record.map(|record| record.1);
            let joined = a.join(b).full().parallelism(*n);
            joined.map(move |(key, a, b)| paired(key, value(a), value(b))).distinct().boxed()
        }
        Connect(a, b, n) => {
            let connected = declare(env, a).connect(declare(env, b));
            connected.co_map(changed, |record| record).parallelism(*n).boxed()
        }
        Zip(a, b) => {
            let pairs = declare(env, a).zip(declare(env, b)).count();
            pairs.map(|count| (0, count)).boxed()
        }
        Async(plan, capacity, ordered, n) => {
            let order = if *ordered { Order::Ordered } else { Order::Unordered };
            let function = |(key, value): Record| async move {
                for _ in 0..value % 3 {
                    tokio::task::yield_now().await;
                }
                if value % 7 == 0 { Err("every seventh") } else { Ok((key, value)) }
            };
            let stream = declare(env, plan).try_map_async(*capacity, order, function);
            stream.on_error(ErrorPolicy::skip()).parallelism(*n).boxed()
        }
    }
}

fn key(record: &Record) -> u8 {
    record.0
}

/// A record that tells what was joined, in few different values: joins of joins would grow without bound.
fn paired(key: u8, a: Option<u64>, b: Option<u64>) -> Record {
    let told = |value: Option<u64>| value.map_or(0, |value| value + 1);
    (key, told(a).wrapping_mul(31).wrapping_add(told(b)) % 101)
}

fn by_key(records: Vec<Record>) -> BTreeMap<u8, Vec<u64>> {
    let mut all: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    records.into_iter().for_each(|(key, value)| all.entry(key).or_default().push(value));
    all
}

fn interpret(plan: &Plan) -> Vec<Record> {
    match plan {
        Source { records, .. } => source(*records).collect(),
        Map(plan, _) => interpret(plan).into_iter().map(changed).collect(),
        Filter(plan, nth) => interpret(plan).into_iter().filter(|record| record.1 % nth == 0).collect(),
        FlatMap(plan, times, _) => {
            let records = interpret(plan).into_iter();
            records.flat_map(|(key, value)| (0..*times).map(move |time| (key, value + time))).collect()
        }
        Skip(plan, nth, _) => interpret(plan).into_iter().filter(|record| record.1 % nth != 0).collect(),
        DeadLetters(plan, nth, _) | Split(plan, nth) => {
            let records = interpret(plan).into_iter();
            records.map(|record| if record.1 % nth == 0 { changed(record) } else { record }).collect()
        }
        Retry(plan, _) | Rebalance(plan, _) | PartitionBy(plan, _) | PartitionByKey(plan, _) => interpret(plan),
        Sum(plan, _) => by_key(interpret(plan)).into_iter().map(|(key, all)| (key, all.iter().sum())).collect(),
        Largest(plan, _) => {
            let all = by_key(interpret(plan)).into_iter();
            all.map(|(key, all)| (key, all.into_iter().max().expect("a key has records"))).collect()
        }
        Distinct(plan, _) => interpret(plan).into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
        Top(plan, k, _) => {
            let all = by_key(interpret(plan)).into_iter();
            all.flat_map(|(key, mut all)| {
                all.sort_unstable_by(|a, b| b.cmp(a));
                all.into_iter().take(*k).map(move |value| (key, value))
            })
            .collect()
        }
        Union(a, b) => [interpret(a), interpret(b)].concat(),
        Fork(plan) => {
            let records = interpret(plan);
            records.iter().copied().map(changed).chain(records.iter().copied()).collect()
        }
        Inner(a, b, _) => {
            let (a, b) = (unique(interpret(a)), unique(interpret(b)));
            let of = |record: &Record| b.iter().filter(|other| other.0 == record.0).copied().collect::<Vec<_>>();
            let pairs = a.iter().flat_map(|a| of(a).into_iter().map(|b| paired(a.0, Some(a.1), Some(b.1))));
            unique(pairs.collect()).into_iter().collect()
        }
        Full(plan, _) => {
            let a = unique(interpret(plan));
            let b: Vec<Record> = a.iter().filter(|r| r.1 % 2 == 0).map(|r| (r.0 ^ 1, r.1)).collect();
            let mut pairs = Vec::new();
            for (key, value) in &a {
                let matching: Vec<_> = b.iter().filter(|b| b.0 == *key).collect();
                pairs.extend(matching.iter().map(|b| paired(*key, Some(*value), Some(b.1))));
                pairs.extend(matching.is_empty().then(|| paired(*key, Some(*value), None)));
            }
            let alone = b.iter().filter(|b| !a.iter().any(|a| a.0 == b.0));
            pairs.extend(alone.map(|b| paired(b.0, None, Some(b.1))));
            unique(pairs).into_iter().collect()
        }
        Connect(a, b, _) => interpret(a).into_iter().map(changed).chain(interpret(b)).collect(),
        Zip(a, b) => vec![(0, interpret(a).len().min(interpret(b).len()) as u64)],
        Async(plan, ..) => interpret(plan).into_iter().filter(|record| record.1 % 7 != 0).collect(),
    }
}

fn unique(records: Vec<Record>) -> BTreeSet<Record> {
    records.into_iter().collect()
}

fn graphs() -> u32 {
    std::env::var("SAGE_GRAPHS").ok().and_then(|graphs| graphs.parse().ok()).unwrap_or(1000)
}

fn check<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(strategy, test).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn random_graphs_give_what_the_reference_gives() {
    leak_free(|_| {
        let options = (plans(), 1_usize..65, 2_usize..9, any::<bool>(), 0_u8..10);
        check(graphs(), &options, |(plan, batch_records, queue_batches, take_defaults, inline)| {
            let mut env = Environment::local("graph");
            if !take_defaults {
                env = env.batch_records(batch_records).queue_batches(queue_batches);
            }
            if inline == 0 {
                env = env.inline();
            }
            let out = declare(&env, &plan).collect();
            let report = env.run().map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(report.is_success());
            prop_assert_eq!(sorted(out.take()), sorted(interpret(&plan)));
            Ok(())
        });
    });
}

#[test]
fn random_graphs_that_fail_are_clean() {
    leak_free(|_| {
        let options = (plans(), 1_usize..33, any::<prop::sample::Index>());
        check(graphs() / 5, &options, |(plan, batch_records, which)| {
            let expected = interpret(&plan);
            if expected.is_empty() {
                return Ok(());
            }
            let poison = expected[which.index(expected.len())];
            let env = Environment::local("graph").batch_records(batch_records).queue_batches(2);
            let fatal = move |record| if record == poison { Err("poison") } else { Ok(()) };
            declare(&env, &plan).try_sink(fatal).named("fatal");
            match env.run() {
                Err(RunError::Job(error)) => {
                    let report = &error.report;
                    prop_assert_eq!(report.outcome, Outcome::Failed);
                    prop_assert!(report.left.is_empty());
                    prop_assert!(report.first_cause.as_ref().unwrap().to_string().starts_with("operator `fatal`"));
                    Ok(())
                }
                other => Err(TestCaseError::fail(format!("{other:?}"))),
            }
        });
    });
}
