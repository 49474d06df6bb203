//! What a record may be: anything that can be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sage::{BoxError, Environment};

use crate::leaks::leak_free;
use crate::probes::{failed, sorted};

#[test]
fn values_that_look_like_nothing_flow_like_any_other() {
    leak_free(|_| {
        let env = Environment::local("falsy");
        let zeros = env.from_iter([0, 0, 1, 0_u8]).on_another_thread().collect();
        let flags = env.from_iter([false, true, false]).on_another_thread().collect();
        let texts = env.from_iter(["", "a", ""]).on_another_thread().collect();
        let lists = env.from_iter([vec![], vec![0_u8], vec![]]).on_another_thread().collect();
        let options = env.from_iter([None, Some(0_u8), None]).on_another_thread().collect();
        let units = env.from_iter([(), (), ()]).on_another_thread().collect();
        let mut given = vec![Some(None), Some(Some(0)), None].into_iter();
        let generated =
            env.from_generator(move || Ok::<_, BoxError>(given.next().flatten())).on_another_thread().collect();
        let keys =
            env.from_iter([None, Some(""), Some("a"), Some("")]).key_by(|key| *key).count().parallelism(2).collect();
        env.run().unwrap();
        assert_eq!(zeros.take(), [0, 0, 1, 0]);
        assert_eq!(flags.take(), [false, true, false]);
        assert_eq!(texts.take(), ["", "a", ""]);
        assert_eq!(lists.take(), [vec![], vec![0], vec![]]);
        assert_eq!(options.take(), [None, Some(0), None]);
        assert_eq!(units.take().len(), 3);
        assert_eq!(generated.take(), [None, Some(0)]);
        assert_eq!(sorted(keys.take()), [(None, 1), (Some(""), 2), (Some("a"), 1)]);
    });
}

#[test]
fn records_need_not_be_clone() {
    leak_free(|_| {
        let env = Environment::local("another thread");
        let calls = (0..100_u64).map(|n| -> Box<dyn FnOnce() -> u64 + Send> { Box::new(move || n * 2) });
        let out = env.from_iter(calls).rebalance(3).map(|call| call()).on_another_thread().collect();
        env.run().unwrap();
        assert_eq!(sorted(out.take()), (0..100).map(|n| n * 2).collect::<Vec<_>>());
    });
}

#[test]
fn large_records_flow() {
    leak_free(|_| {
        let env = Environment::local("large");
        let sums = env
            .from_iter(0..200_u8)
            .map(|n| [n; 20_000])
            .rebalance(2)
            .map(|bytes| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>())
            .collect();
        env.run().unwrap();
        assert_eq!(sorted(sums.take()), (0..200).map(|n| n * 20_000).collect::<Vec<_>>());
    });
}

/// Counts those of its kind that are alive.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn every_record_is_dropped_once_however_the_job_ends() {
    leak_free(|_| {
        for block_records in [1, 3, 64] {
            let alive = Arc::new(AtomicUsize::new(0));
            let records = |env: &Environment| {
                let alive = alive.clone();
                env.from_factory(move |_| {
                    let alive = alive.clone();
                    (0_u64..).map(move |n| (n, Counted::new(&alive)))
                })
                .parallelism(2)
                .rebalance(3)
                .on_another_thread()
            };
            let environment = || Environment::local("dropped").block_records(block_records).queue_blocks(2);

            let env = environment();
            records(&env).take(100).sink(|_| {});
            env.run().unwrap();
            assert_eq!(alive.load(Ordering::SeqCst), 0, "after a take");

            let env = environment();
            records(&env).try_sink(|(n, _)| if n == 500 { Err("broke") } else { Ok(()) });
            failed(env.run());
            assert_eq!(alive.load(Ordering::SeqCst), 0, "after a failure");

            let env = environment();
            records(&env).sink(|(n, _)| assert!(n < 500, "broke"));
            failed(env.run());
            assert_eq!(alive.load(Ordering::SeqCst), 0, "after a panic");

            let env = environment();
            records(&env).sink(|_| {});
            drop(env.submit().unwrap());
            assert_eq!(alive.load(Ordering::SeqCst), 0, "after a cancel");

            let env = environment().inline();
            records(&env).take(100).sink(|_| {});
            env.run().unwrap();
            assert_eq!(alive.load(Ordering::SeqCst), 0, "inline");
        }
    });
}

#[test]
fn many_replicas_and_many_pipelines_run_on_few_processors() {
    leak_free(|_| {
        let env = Environment::local("many");
        let counts: Vec<_> =
            (0..20).map(|_| env.from_iter(0..500_u64).map(|n| n).parallelism(8).count().collect()).collect();
        env.run().unwrap();
        assert!(counts.iter().all(|count| count.take() == [500]));
    });
}
