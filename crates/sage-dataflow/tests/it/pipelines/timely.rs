//! Event time and timers in operators of one's own, and states that expire by event time.

use std::sync::{Arc, Weak};
use std::time::Duration;

use proptest::prelude::*;
use sage::testing;
use sage::{Clock, Emit, Environment, Fault, OpenContext, Operator, OutOfOrder, Timed, Timestamp, Tumbling};

use crate::leaks::leak_free;
use crate::probes::{Journal, sorted};

const MS: Duration = Duration::from_millis(1);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Holds every record back until the watermark has passed it.
struct Held {
    records: Vec<Timed<i64>>,
    journal: Journal,
}

impl Operator for Held {
    type In = Timed<i64>;
    type Out = Timed<i64>;

    fn process(&mut self, record: Timed<i64>, _out: &mut impl Emit<Timed<i64>>) -> Result<(), Fault> {
        self.records.push(record);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Emit<Timed<i64>>) -> Result<(), Fault> {
        self.journal.note(format_args!("watermark {}", watermark.millis()));
        self.records.sort_by_key(|record| record.time);
        let past = self.records.partition_point(|record| record.time < watermark);
        self.records.drain(..past).try_for_each(|record| out.emit(record))
    }

    fn finish(&mut self, out: &mut impl Emit<Timed<i64>>) -> Result<(), Fault> {
        self.journal.note("finish");
        self.records.drain(..).try_for_each(|record| out.emit(record))
    }
}

#[test]
fn an_operator_heeds_a_watermark_before_it_goes_on() {
    leak_free(|_| {
        for exchange in [false, true] {
            let (feed, source) = testing::source();
            let (received, sink) = testing::sink();
            let journal = Journal::new();
            let notes = journal.clone();
            let env = Environment::local("held").block_records(1);
            let timed = env
                .from_source(move |_| source.clone())
                .with_timestamps(|millis| at(*millis), OutOfOrder::by(Duration::ZERO));
            let held = move || Held { records: Vec::new(), journal: notes.clone() };
            let windowed = |held: sage::DataStream<Timed<i64>>| {
                held.key_by(|_| ()).window(Tumbling::of(10 * MS)).count().map(|count| count.value.value)
            };
            if exchange {
                windowed(timed.on_another_thread().operator(held).on_another_thread()).sink_to(move |_| sink.clone());
            } else {
                windowed(timed.operator(held).on_another_thread()).sink_to(move |_| sink.clone());
            }
            let job = env.submit().unwrap();
            [1, 4, 9].iter().for_each(|millis| feed.send(*millis));
            feed.settle();
            feed.send(25);
            // None was late, though all were held back until the watermark came that closes their window.
            assert_eq!(received.wait_for(1), [3]);
            feed.end();
            let report = job.wait().unwrap();
            assert_eq!(received.take(), [3, 1]);
            assert!(report.operators.iter().all(|operator| operator.late == 0), "{report}");
            assert!(journal.position("watermark 25") < journal.position("finish"));
            let last = i64::MAX.to_string();
            assert!(journal.events().iter().all(|event| !event.ends_with(&last)), "{:?}", journal.events());
        }
    });
}

/// Emits how many records came, every 100 ms by the clock in which there was one.
#[derive(Default)]
struct Counts {
    records: u64,
    due: Option<Timestamp>,
    clock: Option<Clock>,
    journal: Journal,
}

impl Operator for Counts {
    type In = u32;
    type Out = u64;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.clock = Some(cx.clock().clone());
        Ok(())
    }

    fn process(&mut self, record: u32, _out: &mut impl Emit<u64>) -> Result<(), Fault> {
        let now = self.clock.as_ref().map(Clock::now);
        self.records += 1;
        self.due = self.due.or(now.map(|now| now.later(100 * MS)));
        self.journal.note(record);
        Ok(())
    }

    fn progress(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        let now = self.clock.as_ref().map(Clock::now);
        if self.due.is_none() || self.due > now {
            return Ok(());
        }
        self.due = None;
        out.emit(self.records)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.due
    }
}

#[test]
fn an_operator_is_woken_by_its_timer_though_no_record_comes() {
    leak_free(|_| {
        for exchange in [false, true] {
            let (hands, clock) = testing::clock(at(0));
            let (feed, source) = testing::source();
            let (received, sink) = testing::sink();
            let env = Environment::local("timer").clock(clock);
            let records = env.from_source(move |_| source.clone());
            let journal = Journal::new();
            let notes = journal.clone();
            let counts = move || Counts { journal: notes.clone(), ..Counts::default() };
            if exchange {
                records.on_another_thread().operator(counts).sink_to(move |_| sink.clone());
            } else {
                records.operator(counts).sink_to(move |_| sink.clone());
            }
            let job = env.submit().unwrap();
            [1, 2].iter().for_each(|n| feed.send(*n));
            journal.await_events("2", 1);
            hands.advance(100 * MS);
            assert_eq!(received.wait_for(1), [2]);
            feed.end();
            job.wait().unwrap();
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_state_expires_by_the_times_of_records_alone(
        records in prop::collection::vec((0_u8..4, 0_i64..60), 0..80),
        parallelism in 1_usize..4,
        block in 1_usize..9,
    ) {
        let ttl = 7;
        let env = Environment::local("expiring").block_records(block);
        let counts = env
            .from_iter(records.clone())
            .on_another_thread()
            .with_timestamps(|record| at(record.1), OutOfOrder::by(100 * MS))
            .key_by(|record| record.value.0)
            .expire_after_by_time(7 * MS)
            .map_with_state(0_u32, |count, record| {
                *count += 1;
                (record.value, *count)
            })
            .parallelism(parallelism)
            .collect();
        env.run().unwrap();
        let mut states = std::collections::BTreeMap::new();
        let expected = records.iter().map(|&(key, time)| {
            let (last, count) = states.get(&key).copied().unwrap_or((time, 0));
            let count = if time - last >= ttl { 1 } else { count + 1 };
            states.insert(key, (last.max(time), count));
            ((key, time), count)
        });
        prop_assert_eq!(sorted(counts.take()), sorted(expected.collect::<Vec<_>>()));
    }
}

#[test]
fn a_state_that_has_expired_is_freed_when_the_watermark_says_so() {
    leak_free(|_| {
        let (feed, source) = testing::source();
        let (received, sink) = testing::sink();
        let env = Environment::local("freed");
        env.from_source(move |_| source.clone())
            .with_timestamps(|record: &(u8, i64)| at(record.1), OutOfOrder::by(Duration::ZERO))
            .key_by(|record| record.value.0)
            .expire_after_by_time(10 * MS)
            .map_with_state(None, |state: &mut Option<Arc<()>>, _record| {
                Arc::downgrade(state.get_or_insert_with(Arc::default))
            })
            .sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        feed.send((1, 0));
        feed.settle();
        let first: Weak<()> = received.take().remove(0);
        assert!(first.upgrade().is_some(), "it is in use");
        // Each is a batch of its own, behind which its watermark comes.
        for time in [9, 19, 30] {
            feed.send((2, time));
            feed.settle();
        }
        assert!(first.upgrade().is_none(), "no record of its key came for 30 ms");
        feed.end();
        job.wait().unwrap();
    });
}

#[test]
fn states_that_expire_at_once_are_refused() {
    let env = Environment::local("at-once");
    env.from_iter([1])
        .with_timestamps(|millis| at(*millis), OutOfOrder::by(Duration::ZERO))
        .key_by(|_| ())
        .expire_after_by_time(Duration::ZERO)
        .distinct()
        .sink(|_| {});
    let error = env.submit().unwrap_err().to_string();
    assert!(error.contains("its states expire in less than 1 ms"), "{error}");
}
