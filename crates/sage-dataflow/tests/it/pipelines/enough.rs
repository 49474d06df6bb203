//! A source that waits is told that nobody wants more of it: the job ends with the record that was wanted last, and not
//! with one that may never come.

use std::time::Duration;

use sage::{BoxError, DataStream, Environment, Next, Order, Source, SourceContext, testing};

use crate::leaks::leak_free;
use crate::probes::PATIENCE;

/// Runs a pipeline whose source gives `records` and then waits for ever. Fails if the job does not end by itself.
#[track_caller]
fn ends<T: Send + 'static>(
    env: &Environment,
    records: impl IntoIterator<Item = T>,
    replicas: usize,
    declare: impl FnOnce(DataStream<T>),
) {
    let (feed, source) = testing::source::<T>();
    records.into_iter().for_each(|record| feed.send(record));
    declare(env.from_source(move |_| source.clone()).parallelism(replicas).on_another_thread());
    let job = env.submit().expect("it can be submitted");
    let ended = job.wait_timeout(PATIENCE).is_some();
    job.cancel();
    assert!(ended, "the job waits for a record that nobody wants");
    job.wait().expect("it has succeeded");
}

/// Blocks of the given size: one that is full with its first record has to be attended to.
fn env(block_records: usize) -> Environment {
    Environment::local("enough").block_records(block_records)
}

#[test]
fn a_take_behind_exchanges_ends_a_source_that_waits() {
    leak_free(|_| {
        for (batch, replicas) in [(1, 1), (4096, 1), (1, 3), (7, 3)] {
            ends(&env(batch), [7_u32, 8, 9], replicas, |stream| drop(stream.take(1).collect()));
            ends(&env(batch), [7_u32], replicas, |stream| {
                drop(stream.on_another_thread().map(|n| n).on_another_thread().take(1).collect())
            });
            ends(&env(batch), [], replicas, |stream: DataStream<u32>| {
                drop(stream.on_another_thread().take(0).collect())
            });
            ends(&env(batch), [1, 1, 2], replicas, |stream| drop(stream.distinct().parallelism(2).take(2).collect()));
            ends(&env(batch), [1, 2, 3], replicas, |stream| {
                drop(stream.take(2).on_another_thread().map(|n| n).on_another_thread().collect())
            });
            ends(&env(batch), [5], replicas, |stream| {
                drop(stream.flat_map(|n| 0..n).take(3).on_another_thread().collect())
            });
        }
    });
}

#[test]
fn a_take_behind_futures_ends_a_source_that_waits() {
    leak_free(|_| {
        for (batch, order) in [(1, Order::Ordered), (4096, Order::Unordered)] {
            ends(&env(batch), [1], 1, |stream| {
                drop(stream.map_async(4, order, |n| async move { n }).take(1).collect());
            });
            // The rest is in flight, and never ends.
            ends(&env(batch), 0..6, 1, |stream| {
                let waits = |n: u64| async move { if n > 0 { std::future::pending().await } else { n } };
                drop(stream.map_async(4, order, waits).on_another_thread().take(1).collect());
            });
        }
    });
}

#[test]
fn a_tee_whose_branches_all_have_enough_ends_a_source_that_waits() {
    leak_free(|_| {
        for batch in [1, 4096] {
            ends(&env(batch), [1, 2, 3], 1, |stream| {
                let [left, right] = stream.map(|n| n).tee();
                drop((left.take(2).collect(), right.map(|n| n).on_another_thread().take(3).collect()));
            });
            ends(&env(batch), [1, 2, 3], 1, |stream| drop(stream.broadcast(3).on_another_thread().take(9).collect()));
            // The one way is fused to its sink, the other is not.
            ends(&env(batch), [1, 2, 3], 1, |stream| {
                let (even, odd) = stream.split(|n| n % 2 == 0);
                drop((even.take(1).collect(), odd.on_another_thread().take(2).collect()));
            });
        }
    });
}

#[test]
fn what_reads_several_streams_ends_all_sources_that_wait() {
    leak_free(|_| {
        for batch in [1, 4096] {
            let short = env(batch);
            let other = short.from_iter([1, 2]);
            ends(&short, ["a", "b"], 1, |stream| drop(stream.zip(other).collect()));
            let (env, (_feed, source)) = (env(batch), testing::source::<u32>());
            let other = env.from_source(move |_| source.clone());
            ends(&env, [1, 2], 1, |stream| drop(stream.union(other).on_another_thread().take(2).collect()));
        }
    });
}

/// What comes out of a loop is wanted, what goes round in it is not wanted for its own sake.
#[test]
fn a_loop_whose_readers_have_enough_ends_a_source_that_waits() {
    leak_free(|_| {
        for (batch, replicas) in [(1, 1), (4096, 1), (3, 2)] {
            // Everything goes round for ever.
            let looped = env(batch);
            let (again, feedback) = looped.feedback("again");
            ends(&looped, [1_u64], 1, |stream| {
                let [out, back] = stream.union(again).map(|n| n + 1).parallelism(replicas).tee();
                feedback.fill(back);
                drop(out.take(3).collect());
            });
            // Nothing goes round when there is enough, and the loop has two ways out at two places.
            let looped = env(batch);
            let (again, feedback) = looped.feedback("again");
            ends(&looped, [1_u64, 2, 3], 1, |stream| {
                let [out, on] = stream.union(again).map(|n| n + 1).parallelism(replicas).tee();
                let (back, done) = on.on_another_thread().split(|n| *n < 3);
                feedback.fill(back.map_async(4, Order::Ordered, |n| async move { n }));
                drop((out.take(1).collect(), done.on_another_thread().take(2).collect()));
            });
        }
        // One that nobody reads is run for what its functions do.
        let env = Environment::local("enough");
        let (again, feedback) = env.feedback("again");
        feedback.fill(env.from_iter([9_u64]).union(again).filter(|n| *n > 0).map(|n| n - 1));
        assert_eq!(env.run().unwrap().operators.iter().map(|operator| operator.records_out).max(), Some(9));
    });
}

/// Waits, though not for ever, in a way of its own.
struct Naps {
    left: u32,
    until: bool,
}

impl Source for Naps {
    type Item = u32;
    fn next(&mut self, cx: &SourceContext) -> Result<Next<u32>, BoxError> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                return Ok(Next::Record(left));
            }
            None if self.until => cx.wait_until(|| false),
            None => assert!(!cx.wait(Duration::MAX), "the whole time has not passed"),
        }
        Ok(Next::Idle)
    }
}

#[test]
fn every_wait_of_a_source_ends_when_nobody_wants_more() {
    leak_free(|_| {
        for until in [true, false] {
            let env = Environment::local("enough");
            // Several that have had enough, at different times, do not count as all.
            let [one, two, all] = env.from_source(move |_| Naps { left: 5, until }).tee();
            let (one, two, all) = (one.take(1).collect(), two.take(3).collect(), all.take(5).collect());
            let job = env.submit().unwrap();
            let ended = job.wait_timeout(PATIENCE).is_some();
            job.cancel();
            assert!(ended, "the job waits for a record that nobody wants");
            job.wait().unwrap();
            assert_eq!([one, two, all].map(|taken| taken.take().len()), [1, 3, 5]);
        }
    });
}
