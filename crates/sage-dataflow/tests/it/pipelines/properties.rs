//! Random pipelines against a plain reference: the same records, as multisets, and in order where order is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use sage::{BoxError, DataStream, Environment, Sink};

use crate::leaks::leak_free;
use crate::probes::sorted;

/// A step of a random pipeline.
#[derive(Debug, Clone)]
enum Step {
    /// Maps, filters and repeats in one chain.
    Fused { add: i64, keep: i64, copies: usize },
    /// Maps in so many replicas.
    Parallel { add: i64, replicas: usize },
    /// Counts per key in so many replicas, and makes a number of the pair.
    KeyCount { keys: i64, replicas: usize },
    /// Spreads over so many replicas.
    Rebalance { replicas: usize },
    /// Copies to so many replicas.
    Broadcast { replicas: usize },
    /// Merges with another source.
    Union { records: Vec<i64> },
    /// Tees and merges again.
    TeeAndUnion,
    /// Counts all there is.
    Count,
}

fn step() -> impl Strategy<Value = Step> {
    let replicas = 1..5_usize;
    prop_oneof![
        4 => (-9..9_i64, 1..4_i64, 0..4_usize).prop_map(|(add, keep, copies)| Step::Fused { add, keep, copies }),
        3 => (-9..9_i64, replicas.clone()).prop_map(|(add, replicas)| Step::Parallel { add, replicas }),
        2 => (1..6_i64, replicas.clone()).prop_map(|(keys, replicas)| Step::KeyCount { keys, replicas }),
        2 => replicas.clone().prop_map(|replicas| Step::Rebalance { replicas }),
        1 => (1..3_usize).prop_map(|replicas| Step::Broadcast { replicas }),
        2 => vec(-50..50_i64, 0..40).prop_map(|records| Step::Union { records }),
        1 => Just(Step::TeeAndUnion),
        1 => Just(Step::Count),
    ]
}

#[derive(Debug, Clone)]
struct Pipeline {
    /// The records of each replica of the source.
    sources: Vec<Vec<i64>>,
    steps: Vec<Step>,
    block_records: usize,
    queue_blocks: usize,
    inline: bool,
}

fn pipeline() -> impl Strategy<Value = Pipeline> {
    let sources = vec(vec(-50..50_i64, 0..60), 1..4);
    (sources, vec(step(), 0..5), 1..8_usize, 2..5_usize, prop::bool::weighted(0.2)).prop_map(
        |(sources, steps, block_records, queue_blocks, inline)| Pipeline {
            sources,
            steps,
            block_records,
            queue_blocks,
            inline,
        },
    )
}

impl Step {
    fn apply(&self, env: &Environment, stream: DataStream<i64>) -> DataStream<i64> {
        match self.clone() {
            Self::Fused { add, keep, copies } => stream
                .map(move |n| n + add)
                .filter(move |n| n % keep == 0)
                .flat_map(move |n| vec![n; copies])
                .on_another_thread(),
            Self::Parallel { add, replicas } => stream.map(move |n| n + add).parallelism(replicas).on_another_thread(),
            Self::KeyCount { keys, replicas } => {
                let counted = stream.key_by(move |n| n.rem_euclid(keys)).count().parallelism(replicas);
                counted.map(|(key, count)| key * 1000 + count as i64).on_another_thread()
            }
            Self::Rebalance { replicas } => stream.rebalance(replicas),
            Self::Broadcast { replicas } => stream.broadcast(replicas),
            Self::Union { records } => stream.union(env.from_collection(records)),
            Self::TeeAndUnion => {
                let [left, right] = stream.tee();
                left.map(|n| n).union(right)
            }
            Self::Count => stream.count().map(|count| count as i64).on_another_thread(),
        }
    }

    fn reference(&self, mut records: Vec<i64>) -> Vec<i64> {
        match self.clone() {
            Self::Fused { add, keep, copies } => {
                let kept = records.into_iter().map(|n| n + add).filter(|n| n % keep == 0);
                kept.flat_map(|n| vec![n; copies]).collect()
            }
            Self::Parallel { add, .. } => records.into_iter().map(|n| n + add).collect(),
            Self::KeyCount { keys, .. } => {
                let mut counts = BTreeMap::new();
                records.iter().for_each(|n| *counts.entry(n.rem_euclid(keys)).or_insert(0) += 1);
                counts.into_iter().map(|(key, count)| key * 1000 + count).collect()
            }
            Self::Rebalance { .. } => records,
            Self::Broadcast { replicas } => records.repeat(replicas),
            Self::Union { records: others } => {
                records.extend(others);
                records
            }
            Self::TeeAndUnion => records.repeat(2),
            Self::Count => vec![records.len() as i64],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_pipelines_give_what_a_plain_loop_gives(pipeline in pipeline()) {
        leak_free(|_| {
            let env = Environment::local("random")
                .block_records(pipeline.block_records)
                .queue_blocks(pipeline.queue_blocks);
            let env = if pipeline.inline { env.inline() } else { env };
            let sources = pipeline.sources.clone();
            let source = env.from_factory(move |replica| sources[replica].clone()).parallelism(pipeline.sources.len());
            let source = source.on_another_thread();
            let stream = pipeline.steps.iter().fold(source, |stream, step| step.apply(&env, stream));
            let out = stream.collect();
            let report = env.run().expect("nothing in it fails");
            let all = pipeline.sources.concat();
            let expected = pipeline.steps.iter().fold(all, |records, step| step.reference(records));
            let out = sorted(out.take());
            assert_eq!(out, sorted(expected));
            let sink = report.operators.last().expect("there is a sink");
            assert_eq!((sink.records_in, sink.failed), (out.len() as u64, 0));
        });
    }

    #[test]
    fn order_is_kept_per_channel(
        sources in 1..4_usize,
        replicas in 1..4_usize,
        records in 0..300_u64,
        block_records in 1..8_usize,
        queue_blocks in 2..5_usize,
    ) {
        leak_free(|_| {
            let env = Environment::local("order").block_records(block_records).queue_blocks(queue_blocks);
            let seen: Seen = Arc::default();
            let into = seen.clone();
            env.from_factory(move |source| (0..records).map(move |n| (source, n)))
                .parallelism(sources)
                .map(|record| record)
                .sink_to(move |replica| Channel { replica, into: into.clone() })
                .parallelism(replicas);
            env.run().expect("nothing in it fails");
            let seen = seen.lock().expect("no holder panics");
            assert_eq!(seen.values().map(Vec::len).sum::<usize>(), sources * records as usize);
            for channel in seen.values() {
                assert!(channel.is_sorted(), "{seen:?}");
            }
        });
    }

    #[test]
    fn order_is_kept_per_key(
        replicas in 1..5_usize,
        keys in vec("[a-c]{0,2}", 0..200),
        block_records in 1..8_usize,
        queue_blocks in 2..5_usize,
    ) {
        leak_free(|_| {
            let env = Environment::local("order").block_records(block_records).queue_blocks(queue_blocks);
            let mut expected: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            keys.iter().enumerate().for_each(|(at, key)| expected.entry(key.clone()).or_default().push(at));
            let records: Vec<_> = keys.iter().cloned().enumerate().collect();
            let per_key = env
                .from_collection(records)
                .key_by(|(_, key)| key.clone())
                .fold(Vec::new(), |seen, (at, _)| seen.push(at))
                .parallelism(replicas)
                .collect();
            env.run().expect("nothing in it fails");
            assert_eq!(sorted(per_key.take()), expected.into_iter().collect::<Vec<_>>());
        });
    }

    #[test]
    fn take_gives_exactly_as_many_as_there_are_up_to_its_limit(
        sources in 1..4_usize,
        records in 0..200_u64,
        limit in 0..300_u64,
        block_records in 1..8_usize,
    ) {
        leak_free(|_| {
            let env = Environment::local("take").block_records(block_records).queue_blocks(2);
            let taken = env.from_factory(move |_| 0..records).parallelism(sources).take(limit).collect();
            env.run().expect("nothing in it fails");
            assert_eq!(taken.take().len() as u64, limit.min(records * sources as u64));
        });
    }
}

/// What came from each source replica to each sink replica.
type Seen = Arc<Mutex<BTreeMap<(usize, usize), Vec<u64>>>>;

struct Channel {
    replica: usize,
    into: Seen,
}

impl Sink for Channel {
    type In = (usize, u64);

    fn write(&mut self, (source, n): (usize, u64)) -> Result<(), BoxError> {
        self.into.lock().expect("no holder panics").entry((source, self.replica)).or_default().push(n);
        Ok(())
    }
}
