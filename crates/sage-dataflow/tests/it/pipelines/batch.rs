//! `batch` and `batch_within`: what is in a batch, and when it goes on.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sage::testing;
use sage::{Environment, SubmitError, Timestamp};

use super::windows::ms;
use crate::leaks::leak_free;
use crate::probes::{Journal, sorted};

/// What a test does: gives the next number, or moves the clock.
#[derive(Debug, Clone, Copy)]
enum Act {
    Give,
    Advance(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    vec(prop_oneof![3 => Just(Act::Give), 1 => (1..15_u64).prop_map(Act::Advance)], 0..60)
}

/// The batches as a loop over the acts makes them.
fn expected(acts: &[Act], size: usize, within: u64) -> Vec<Vec<u32>> {
    let (mut batches, mut open, mut now, mut due) = (Vec::new(), Vec::new(), 0, 0);
    for (number, act) in acts.iter().enumerate() {
        match *act {
            Act::Give => {
                if open.is_empty() {
                    due = now + within;
                }
                open.push(number as u32);
            }
            Act::Advance(millis) => now += millis,
        }
        if open.len() == size || (!open.is_empty() && due <= now) {
            batches.push(std::mem::take(&mut open));
        }
    }
    batches.extend((!open.is_empty()).then_some(open));
    batches
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_goes_on_when_it_is_full_or_its_time_is_over(acts in acts(), size in 1..6_usize, within in 1..20_u64) {
        leak_free(|_| {
            let (hands, clock) = testing::clock(Timestamp::from_millis(0));
            let (feed, source) = testing::source();
            let (received, sink) = testing::sink();
            let env = Environment::local("batches").clock(clock);
            let batches = env.from_source(move |_| source.clone()).batch_within(size, ms(within));
            batches.sink_to(move |_| sink.clone());
            let job = env.submit().unwrap();
            for (number, act) in acts.iter().enumerate() {
                match *act {
                    Act::Give => feed.send(number as u32),
                    Act::Advance(millis) => hands.advance(ms(millis)),
                }
                feed.settle();
            }
            feed.end();
            job.wait().unwrap();
            assert_eq!(received.take(), expected(&acts, size, within));
        });
    }
}

#[test]
fn a_batch_goes_on_in_time_though_no_record_comes() {
    leak_free(|_| {
        let (hands, clock) = testing::clock(Timestamp::from_millis(0));
        let (feed, source) = testing::source();
        let (received, sink) = testing::sink();
        let env = Environment::local("batches").clock(clock);
        let journal = Journal::new();
        let notes = journal.clone();
        let records = env.from_source(move |_| source.clone()).on_another_thread();
        let kept = records.filter(move |n| {
            notes.note(n);
            *n < 3
        });
        kept.batch_within(10, ms(5)).on_another_thread().sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        // A record is only sent when the one before has come, so 1 and 2 are in the batch when 3 has come.
        for n in 1..=3 {
            feed.send(n);
            journal.await_events(&n.to_string(), 1);
        }
        hands.advance(ms(5));
        assert_eq!(received.wait_for(1), [[1, 2]]);
        feed.end();
        job.wait().unwrap();
    });
}

#[test]
fn a_drain_sends_the_open_batch_on() {
    leak_free(|_| {
        let (feed, source) = testing::source();
        let (received, sink) = testing::sink();
        let env = Environment::local("batches");
        env.from_source(move |_| source.clone()).batch(10).sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        feed.send(1);
        feed.settle();
        job.drain();
        job.wait().unwrap();
        assert_eq!(received.take(), [[1]]);
    });
}

#[test]
fn each_replica_makes_batches_of_its_own_and_none_loses_a_record() {
    leak_free(|_| {
        let env = Environment::local("batches");
        let batches = env.from_iter(0..1_001).rebalance(3).batch(10).collect();
        let report = env.run().unwrap();
        let batches = batches.take();
        assert!(batches.iter().filter(|batch| batch.len() < 10).count() <= 3);
        assert_eq!(sorted(batches.into_iter().flatten().collect()), (0..1_001).collect::<Vec<_>>());
        assert_eq!(report.operator("batch-1").unwrap().records_in, 1_001);
    });
}

#[test]
fn a_loop_ends_though_a_batch_in_it_is_never_full() {
    leak_free(|_| {
        let env = Environment::local("batches");
        let (round, again) = env.feedback::<u32>("round");
        let batches = env.from_iter([3, 5]).union(round).batch(1_000).flat_map(|batch| batch);
        let [counted, done] = batches.tee();
        again.fill(counted.filter(|n| *n > 0).map(|n| n - 1));
        let done = done.collect();
        env.run().unwrap();
        assert_eq!(sorted(done.take()), [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]);
    });
}

#[test]
fn a_batch_of_no_records_is_a_mistake() {
    let env = Environment::local("batches");
    env.from_iter([1]).batch_within(0, Duration::from_secs(1)).sink(|_| {});
    let Err(error) = env.submit() else { panic!("no batch can be full") };
    assert!(matches!(error, SubmitError::OperatorOption { .. }), "{error}");
    assert_eq!(error.to_string(), "`batch-1`: a batch of 0 records is never full; give it 1 at least");
}
