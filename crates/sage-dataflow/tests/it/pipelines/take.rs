//! `take`: enough is enough, upstream too.

use sage::{Emit, Environment, Fault, Operator, Stop};

use crate::leaks::leak_free;
use crate::probes::CountingSink;

#[test]
fn take_ends_an_endless_source_in_its_own_chain() {
    leak_free(|_| {
        let env = Environment::local("take");
        let taken = env.from_iter(0_u64..).map(|n| n * 2).take(5).collect();
        let report = env.run().unwrap();
        assert_eq!(taken.take(), [0, 2, 4, 6, 8]);
        assert_eq!(report.operator("take-1").unwrap().records_in, 5);
    });
}

#[test]
fn take_ends_endless_sources_across_exchanges() {
    leak_free(|_| {
        let env = Environment::local("take");
        let taken = env
            .from_factory(|replica| (0_u64..).map(move |n| (replica, n)))
            .parallelism(3)
            .rebalance(2)
            .map(|record| record)
            .on_another_thread()
            .take(100)
            .collect();
        let report = env.run().unwrap();
        assert_eq!(taken.take().len(), 100);
        let take = report.operator("take-1").unwrap();
        assert_eq!((take.records_in, take.records_out), (100, 100), "it took no more than it wanted");
    });
}

#[test]
fn take_ends_a_source_that_has_nothing_more_to_send() {
    leak_free(|_| {
        let env = Environment::local("take");
        // After the tenth record nothing passes the filter, so the source never meets the end by sending.
        let taken = env.from_iter(0_u64..).filter(|n| *n < 10).on_another_thread().take(10).collect();
        env.run().unwrap();
        assert_eq!(taken.take(), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn take_ends_all_branches_of_a_tee_and_a_union() {
    leak_free(|_| {
        let env = Environment::local("take");
        let [left, right] = env.from_iter(0_u64..).union(env.from_iter(0_u64..)).map(|n| n).tee();
        let left = left.take(10).collect();
        let right = right.take(2000).collect();
        env.run().unwrap();
        assert_eq!((left.take().len(), right.take().len()), (10, 2000));
    });
}

#[test]
fn take_none_opens_and_closes_what_follows_and_writes_nothing() {
    leak_free(|_| {
        let env = Environment::local("take-none");
        let sink = CountingSink::default();
        let counts = sink.counts.clone();
        env.from_iter(0_u64..).take(0).count().sink_to(move |_| sink.clone());
        env.run().unwrap();
        assert_eq!((counts.opened(), counts.processed(), counts.closed()), (1, 1, 1));
    });
}

/// Emits each record twice, and one more at the end.
#[derive(Clone)]
struct Eager;

impl Operator for Eager {
    type In = u64;
    type Out = u64;
    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(record)?;
        out.emit(record)
    }
    fn finish(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(1000)?;
        out.emit(1001)
    }
}

#[test]
fn take_lets_no_more_through_when_an_operator_before_it_emits_at_the_end() {
    leak_free(|_| {
        let env = Environment::local("take");
        let taken = env.from_iter(0_u64..).operator(|| Eager).take(3).collect();
        let short = env.from_iter(0..2_u64).operator(|| Eager).take(5).collect();
        env.run().unwrap();
        assert_eq!(taken.take(), [0, 0, 1]);
        assert_eq!(short.take(), [0, 0, 1, 1, 1000]);
    });
}

#[test]
fn an_operator_may_ignore_that_nothing_more_is_wanted() {
    struct Stubborn;
    impl Operator for Stubborn {
        type In = u64;
        type Out = u64;
        fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
            let _ = out.emit(record);
            match out.emit(record) {
                Err(Fault::Stop(Stop::Satisfied)) => Err(Stop::Satisfied.into()),
                other => other,
            }
        }
    }
    leak_free(|_| {
        let env = Environment::local("take");
        let taken = env.from_iter(0_u64..).operator(|| Stubborn).take(3).collect();
        env.run().unwrap();
        assert_eq!(taken.take(), [0, 0, 1]);
    });
}
