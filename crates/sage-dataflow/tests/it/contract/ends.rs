//! Clauses 16 and 17: the end of input is exact, and values are data.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sage::{BoxError, Environment, Next, Source, SourceContext};

use super::cancelled;
use crate::leaks::leak_free;
use crate::probes::{Counting, Gate, Journal, sorted};

#[test]
fn contract_16_two_sources_of_which_one_is_slow_lose_nothing() {
    leak_free(|_| {
        let env = Environment::local("slow-source");
        let gate = Gate::new();
        let held = gate.clone();
        let fast = env.from_iter(0..1000_u64);
        let slow = env.from_iter(1000..1010_u64).inspect(move |n| {
            if *n == 1005 {
                held.pass()
            }
        });
        let journal = Journal::new();
        let seen = journal.clone();
        let out = fast.union(slow).inspect(move |n| seen.note(n)).collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        // All of the fast one and the beginning of the slow one are through, and the job goes on.
        journal.await_events("999", 1);
        journal.await_events("1004", 1);
        assert!(job.wait_timeout(Duration::from_millis(20)).is_none(), "one source has not ended");
        gate.open();
        job.wait().unwrap();
        assert_eq!(sorted(out.take()), (0..1010).collect::<Vec<_>>());
    });
}

#[test]
fn contract_16_two_replicas_of_which_one_is_slow_lose_nothing() {
    leak_free(|_| {
        let env = Environment::local("slow-replica").block_records(2).queue_blocks(2);
        let gate = Gate::new();
        let held = gate.clone();
        let (fast, done) = (Arc::new(AtomicU64::new(0)), gate.clone());
        let out = env
            .from_iter(0..1000_u64)
            .map(move |n| {
                // Whoever has the first record holds it until the other replica has all that its lanes can bring.
                if n == 0 {
                    held.pass();
                } else if fast.fetch_add(1, Ordering::SeqCst) == 1 {
                    done.open();
                }
                n
            })
            .parallelism(2)
            .collect();
        env.run().unwrap();
        assert_eq!(sorted(out.take()), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn contract_16_union_branches_of_unequal_length_lose_nothing() {
    leak_free(|_| {
        for (short, long) in [(0, 10_000), (1, 10_000), (3, 5), (0, 0)] {
            let env = Environment::local("unequal");
            let short_branch = env.from_iter(0..short).filter(|n: &u64| n.is_multiple_of(2));
            let long_branch = env.from_iter(0..long).map(|n| n + 1_000_000).rebalance(3);
            let out = long_branch.union(short_branch).collect();
            env.run().unwrap();
            let expected = (0..short).filter(|n| n % 2 == 0).chain((0..long).map(|n| n + 1_000_000));
            assert_eq!(sorted(out.take()), expected.collect::<Vec<_>>());
        }
    });
}

#[test]
fn contract_16_a_consumer_slower_by_a_thousand_times_gets_everything_through_a_bounded_queue() {
    leak_free(|_| {
        let env = Environment::local("slow-sink").block_records(16).queue_blocks(4);
        let (made, most_in_flight) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (making, in_flight) = (made.clone(), most_in_flight.clone());
        let count = 5000_u64;
        let mut written = 0;
        let sum = env
            .from_iter(0..count)
            .inspect(move |_| {
                making.fetch_add(1, Ordering::SeqCst);
            })
            .on_another_thread()
            .inspect(move |_| {
                in_flight.fetch_max(made.load(Ordering::SeqCst) - written, Ordering::SeqCst);
                written += 1;
                let slow = Instant::now() + Duration::from_micros(20);
                while Instant::now() < slow {
                    std::hint::spin_loop();
                }
            })
            .fold(0, |sum: &mut u64, n| *sum += n)
            .collect();
        let report = env.run().unwrap();
        assert_eq!(sum.take(), [count * (count - 1) / 2]);
        let most = most_in_flight.load(Ordering::SeqCst);
        assert!(most <= 16 * 4 + 2, "{most} records in flight");
        let source = report.operator("iter-1").unwrap();
        assert!(source.blocked > source.busy, "the source waited: {source:?}");
    });
}

#[test]
fn contract_16_filters_joins_and_empty_sources_end_exactly() {
    leak_free(|_| {
        let env = Environment::local("nothing");
        let none = env.from_iter(0..1000_u64).filter(|_| false).on_another_thread().filter(|_| true).collect();
        let empty = env.from_iter(std::iter::empty::<u64>()).rebalance(4).collect();
        let counts = env.from_iter(0..0_u64).union(env.from_iter(0..7)).rebalance(3).count().collect();
        let keyed = env.from_iter(0..1_u64).rebalance(3).key_by(|n| *n).count().parallelism(4).collect();
        env.run().unwrap();
        assert_eq!((none.take(), empty.take()), (vec![], vec![]));
        assert_eq!((counts.take(), keyed.take()), (vec![7], vec![(0, 1)]));
    });
}

#[test]
fn contract_16_a_burst_reaches_the_sink_while_its_source_blocks_in_the_users_iterator() {
    leak_free(|_| {
        for replicas in [1, 3] {
            let env = Environment::local("burst");
            let (send, receive) = mpsc::channel();
            let journal = Journal::new();
            let seen = journal.clone();
            env.from_iter(receive)
                .map(|n: u64| n)
                .parallelism(replicas)
                .sink(move |_| seen.note("seen"))
                .parallelism(2);
            let job = env.submit().unwrap();
            let mut sent = 0;
            // Bursts of every size around those of a batch and of what counts as fast.
            for burst in [1, 2, 31, 32, 33, 1, 64, 100, 1000, 5000, 1, 3] {
                (0..burst).for_each(|n| send.send(n).unwrap());
                sent += burst as usize;
                journal.await_events("seen", sent);
            }
            drop(send);
            job.wait().unwrap();
            assert_eq!(journal.count("seen"), sent);
        }
    });
}

#[test]
fn contract_16_a_source_that_idles_does_not_hold_back_what_it_has_sent() {
    struct Bursts {
        burst: u64,
        left: u64,
        answered: Journal,
    }
    impl Source for Bursts {
        type Item = u64;
        fn next(&mut self, cx: &SourceContext) -> Result<Next<u64>, BoxError> {
            if self.left > 0 {
                self.left -= 1;
                return Ok(Next::Record(self.burst));
            }
            // The next burst comes only when all of the last has arrived.
            if self.answered.count("seen") < (self.burst * (self.burst + 1) / 2) as usize {
                cx.wait(Duration::from_micros(50));
                return Ok(Next::Idle);
            }
            self.burst += 1;
            self.left = self.burst;
            Ok(if self.burst > 100 { Next::End } else { Next::Idle })
        }
    }
    leak_free(|_| {
        let env = Environment::local("idle");
        let journal = Journal::new();
        let (answered, seen) = (journal.clone(), journal.clone());
        env.from_source(move |_| Bursts { burst: 0, left: 0, answered: answered.clone() })
            .rebalance(2)
            .map(|n| n)
            .rebalance(1)
            .sink(move |_| seen.note("seen"));
        env.run().unwrap();
        assert_eq!(journal.count("seen"), 5050);
    });
}

#[test]
fn contract_16_an_endless_source_is_cancelled_while_it_is_blocked_on_a_full_channel() {
    leak_free(|_| {
        let env = Environment::local("full").block_records(1).queue_blocks(2);
        let (gate, journal) = (Gate::new(), Journal::new());
        let (held, read) = (gate.clone(), journal.clone());
        let counting = Counting { journal: journal.clone(), ..Counting::default() };
        env.from_factory(move |_| {
            let read = read.clone();
            (0_u64..).inspect(move |_| read.note("read"))
        })
        .operator(move || counting.clone())
        .on_another_thread()
        .sink(move |_| held.pass());
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        // One record is held by the sink and one waits, which fills the channel: a third is not read.
        journal.await_events("read", 2);
        job.cancel();
        // The source's task ends although the sink has not come back.
        journal.await_events("closed: cancel requested", 1);
        gate.open();
        cancelled(&job);
        assert_eq!(journal.count("read"), 2, "nothing was read after the channel was full");
    });
}

#[test]
fn contract_16_an_endless_source_is_drained_while_it_is_blocked_on_a_full_channel() {
    leak_free(|_| {
        let env = Environment::local("full").block_records(1).queue_blocks(2);
        let (gate, journal) = (Gate::new(), Journal::new());
        let (held, read) = (gate.clone(), journal.clone());
        let out = env
            .from_factory(move |_| {
                let read = read.clone();
                (0_u64..).inspect(move |_| read.note("read"))
            })
            .on_another_thread()
            .inspect(move |_| held.pass())
            .collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        journal.await_events("read", 2);
        job.drain();
        gate.open();
        job.wait().unwrap();
        assert_eq!(out.take(), (0..journal.count("read") as u64).collect::<Vec<_>>(), "every record that was read");
    });
}

#[test]
fn contract_16_an_operator_that_stops_by_itself_never_makes_a_success_that_lost_records() {
    use sage::{Emit, Fault, Operator, Stop};
    struct Quitter(Stop);
    impl Operator for Quitter {
        type In = u64;
        type Out = u64;
        fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
            if record == 5 {
                return Err(self.0.into());
            }
            out.emit(record)
        }
    }
    leak_free(|_| {
        for stop in [Stop::Cancelled, Stop::Failed] {
            let env = Environment::local("quitter");
            let out = env
                .from_iter(0..100_u64)
                .operator(move || Quitter(stop))
                .named("quitter")
                .on_another_thread()
                .collect();
            let report = crate::probes::failed(env.run());
            assert_eq!(report.outcome, sage::Outcome::Failed);
            assert!(out.take().len() <= 5);
        }
    });
}

#[test]
fn contract_17_no_value_of_the_record_type_ends_a_source() {
    leak_free(|_| {
        let env = Environment::local("values");
        let nested = vec![None, Some(None), Some(Some(0)), Some(None)];
        let mut left = nested.clone().into_iter();
        let generated = env.from_generator(move || Ok::<_, BoxError>(left.next())).rebalance(2).collect();
        let results = env.from_iter([Err(0), Ok(""), Err(0)]).on_another_thread().collect();
        let stops = env.from_iter([false; 1000]).on_another_thread().filter(|stop| !stop).count().collect();
        env.run().unwrap();
        assert_eq!(sorted(generated.take()), sorted(nested));
        assert_eq!(results.take(), [Err(0), Ok(""), Err(0)]);
        assert_eq!(stops.take(), [1000]);
    });
}
