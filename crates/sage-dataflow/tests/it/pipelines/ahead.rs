//! What is read ahead of a task that is held up: how many records, and how many bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use sage::{BlockedBy, DataStream, Environment, JobHandle, JobState, Order, Outcome, Pipe, Stream};

use crate::leaks::leak_free;
use crate::probes::{Gate, PATIENCE, failed, sorted};

/// Waits until something is so.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// An endless stream that counts what is read of it.
fn counted(env: &Environment, read: &Count) -> Stream<impl Pipe<Out = u64>> {
    let read = read.clone();
    env.from_factory(move |_replica| {
        let read = read.clone();
        (0_u64..).inspect(move |_| read.add())
    })
}

/// Cancels a job; its tasks have been told when this returns.
#[track_caller]
fn cancel(job: &JobHandle) {
    job.cancel();
    until("it is cancelled", || job.status() != JobState::Running);
}

/// Runs a pipeline whose end is held up at the gate: `expected` records are read, and not one more.
#[track_caller]
fn reads(expected: usize, declare: impl FnOnce(&Environment, &Count, Gate)) {
    reads_to(expected, expected, declare);
}

/// As [`reads`], where it may be up to `most`.
#[track_caller]
fn reads_to(expected: usize, most: usize, declare: impl FnOnce(&Environment, &Count, Gate)) {
    leak_free(|_| {
        let (env, read, gate) = (Environment::local("ahead"), Count::default(), Gate::new());
        declare(&env, &read, gate.clone());
        let job = env.submit().expect("it can be submitted");
        until(&format!("{expected} records are read"), || read.get() >= expected);
        until("all of them are seen", || job.unfinished() >= expected as u64);
        cancel(&job);
        gate.open();
        assert_eq!(failed(job.wait()).outcome, Outcome::Cancelled);
        assert!((expected..=most).contains(&read.get()), "{} records were read, not {expected}", read.get());
    });
}

/// One is worked on, two wait.
#[test]
fn contract_28_two_records_wait_for_a_sink_that_is_held_up() {
    reads(3, |env, read, gate| {
        counted(env, read).on_another_thread().sink(move |_| gate.pass());
    });
}

#[test]
fn contract_28_two_records_wait_for_an_operator_that_is_held_up() {
    reads(3, |env, read, gate| {
        counted(env, read).on_another_thread().inspect(move |_| gate.pass()).collect();
    });
}

/// The router waits when none of them has room.
#[test]
fn contract_28_two_records_wait_for_each_replica() {
    reads(12, |env, read, gate| {
        counted(env, read).rebalance(4).sink(move |_| gate.pass());
    });
    reads(12, |env, read, gate| {
        counted(env, read)
            .map(move |n| {
                gate.pass();
                n
            })
            .parallelism(4)
            .collect();
    });
}

#[test]
fn contract_28_two_records_wait_for_each_replica_of_a_keyed_operator() {
    // All of one key.
    reads(3, |env, read, gate| {
        counted(env, read)
            .key_by(|_| 0_u64)
            .map_with_state((), move |(), n| {
                gate.pass();
                n
            })
            .parallelism(4)
            .collect();
    });
    reads(5, |env, read, gate| {
        counted(env, read).partition_by(2, |n, replicas| *n as usize % replicas).sink(move |_| gate.pass());
    });
}

#[test]
fn contract_28_two_records_wait_where_each_goes_to_several() {
    reads(3, |env, read, gate| {
        counted(env, read).broadcast(3).sink(move |_| gate.pass());
    });
    reads(3, |env, read, gate| {
        let [held, free] = counted(env, read).tee();
        held.sink(move |_| gate.pass());
        free.sink(drop);
    });
}

#[test]
fn contract_28_what_waits_for_an_inlet_is_shared_by_those_that_send_to_it() {
    reads(3, |env, read, gate| {
        counted(env, read).union(counted(env, read)).sink(move |_| gate.pass());
    });
}

/// Two wait for each of two tasks; the record that the first works on waits for the second. The first may have been
/// quick with two before that, and be allowed four.
#[test]
fn contract_28_a_task_that_is_held_up_by_another_is_as_slow_as_that() {
    reads_to(5, 7, |env, read, gate| {
        counted(env, read).on_another_thread().map(|n| n).on_another_thread().sink(move |_| gate.pass());
    });
}

#[test]
fn contract_28_twice_as_many_as_are_in_flight_wait_for_an_async_operator() {
    for order in [Order::Ordered, Order::Unordered] {
        // The source waits for half of what may wait to be taken, which may have begun before all 16 were.
        reads_to(33, 48, |env, read, _gate| {
            counted(env, read).map_async(16, order, |_| std::future::pending::<()>()).collect();
        });
    }
    reads_to(66, 96, |env, read, _gate| {
        let pending = |_| std::future::pending::<()>();
        counted(env, read).map_async(16, Order::Ordered, pending).parallelism(2).collect();
    });
}

/// What was read is finished, and no more is read.
#[test]
fn contract_28_a_drain_finishes_the_few_that_were_read() {
    leak_free(|_| {
        let (env, read) = (Environment::local("drain"), Count::default());
        let (open, gate) = tokio::sync::watch::channel(false);
        let out = counted(&env, &read)
            .map_async(16, Order::Ordered, move |n| {
                let mut gate = gate.clone();
                async move {
                    gate.wait_for(|open| *open).await.unwrap();
                    n
                }
            })
            .collect();
        let job = env.submit().unwrap();
        until("records wait", || job.unfinished() >= 33);
        job.drain();
        until("it drains", || job.status() == JobState::Draining);
        open.send(true).unwrap();
        let report = job.wait().unwrap();
        assert_eq!((out.take(), report.dropped), ((0..read.get() as u64).collect(), 0));
        assert!(read.get() <= 48, "{}", read.get());
    });
}

#[test]
fn contract_28_the_report_tells_the_bound_that_held_a_task_back_and_what_was_dropped() {
    leak_free(|_| {
        let (env, read, gate) = (Environment::local("told"), Count::default(), Gate::new());
        let held = gate.clone();
        counted(&env, &read).named("numbers").on_another_thread().sink(move |_| held.pass());
        let job = env.submit().unwrap();
        until("the source waits", || job.unfinished() == 3);
        cancel(&job);
        gate.open();
        let report = failed(job.wait());
        assert_eq!(report.dropped, 2);
        assert!(report.to_string().contains("  dropped: 2 records that had been read\n"), "{report}");
        let source = report.operator("numbers").unwrap();
        assert!(matches!(source.blocked_by, None | Some(BlockedBy::Pace)), "{source:?}");
    });
}

/// Each record that was taken was quick, so that there were never more ahead than that.
#[test]
fn contract_28_a_take_reads_about_as_many_as_it_takes() {
    leak_free(|_| {
        let (env, read) = (Environment::local("take"), Count::default());
        let taken = counted(&env, &read).on_another_thread().take(5).collect();
        env.run().unwrap();
        assert_eq!(taken.take(), [0, 1, 2, 3, 4]);
        assert!(read.get() <= 10, "{} were read", read.get());
    });
}

/// Bytes, and how many of them there were at most.
#[derive(Clone, Default)]
struct Bytes(Arc<(AtomicUsize, AtomicUsize)>);

impl Bytes {
    fn add(&self, bytes: usize) {
        let now = self.0.0.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.0.1.fetch_max(now, Ordering::SeqCst);
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// A record of so many bytes, which are counted while it waits.
struct Heavy {
    bytes: usize,
    waiting: Option<Bytes>,
}

impl Heavy {
    fn new(bytes: usize, waiting: &Bytes) -> Self {
        waiting.add(bytes);
        Self { bytes, waiting: Some(waiting.clone()) }
    }

    fn arrive(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.0.0.fetch_sub(self.bytes, Ordering::SeqCst);
        }
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        self.arrive();
    }
}

/// How records get to the sink.
#[derive(Debug, Clone, Copy)]
enum Way {
    OtherThread,
    Rebalanced(usize),
    Partitioned(usize),
    Gathered(usize),
    Asynchronous(usize),
}

impl Way {
    /// How many lanes there are.
    fn lanes(self) -> usize {
        match self {
            Self::OtherThread | Self::Asynchronous(_) => 1,
            Self::Rebalanced(lanes) | Self::Partitioned(lanes) | Self::Gathered(lanes) => lanes,
        }
    }
}

fn ways() -> impl Strategy<Value = Way> {
    prop_oneof![
        Just(Way::OtherThread),
        (1..4_usize).prop_map(Way::Rebalanced),
        (1..4_usize).prop_map(Way::Partitioned),
        (1..4_usize).prop_map(Way::Gathered),
        (1..20_usize).prop_map(Way::Asynchronous),
    ]
}

const BOUND: usize = 10_000;
const LARGEST: usize = 30_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Whatever the sizes: no more bytes wait than may, and a record for each lane; and everything arrives.
    #[test]
    fn contract_28_no_more_bytes_wait_than_may_and_one_record(
        sizes in prop::collection::vec(prop_oneof![8 => 0..200_usize, 1 => 1000..LARGEST], 1..1000),
        way in ways(),
        batch in prop_oneof![Just(None), (1..100_usize).prop_map(Some)],
    ) {
        let waiting = Bytes::default();
        let env = Environment::local("bytes").queue_bytes(BOUND);
        let env = if let Some(records) = batch { env.block_records(records) } else { env };
        let sources = if let Way::Gathered(sources) = way { sources } else { 1 };
        let (source_sizes, counted) = (sizes.clone(), waiting.clone());
        let records = env
            .from_factory(move |replica| {
                let counted = counted.clone();
                let share: Vec<_> = source_sizes.iter().skip(replica).step_by(sources).copied().collect();
                share.into_iter().map(move |bytes| Heavy::new(bytes, &counted))
            })
            .parallelism(sources)
            .weigh(|record: &Heavy| record.bytes);
        let arrived = |mut record: Heavy| {
            record.arrive();
            record.bytes
        };
        let out = match way {
            Way::OtherThread => records.on_another_thread().map(arrived).collect(),
            Way::Rebalanced(replicas) => records.rebalance(replicas).map(arrived).collect(),
            Way::Partitioned(replicas) => {
                records.partition_by(replicas, |record, replicas| record.bytes % replicas).map(arrived).collect()
            }
            Way::Gathered(_) => records.rebalance(1).map(arrived).collect(),
            Way::Asynchronous(capacity) => {
                let arrived = move |record| std::future::ready(arrived(record));
                records.map_async(capacity, Order::Unordered, arrived).collect()
            }
        };
        env.run().unwrap();
        prop_assert_eq!(sorted(out.take()), sorted(sizes));
        let most = BOUND + way.lanes() * LARGEST;
        prop_assert!(waiting.most() <= most, "{} bytes waited, of {most}", waiting.most());
    }
}

/// The records themselves are counted, not the memory of the process.
#[test]
fn contract_28_a_quick_task_is_held_back_by_bytes() {
    leak_free(|_| {
        let waiting = Bytes::default();
        let env = Environment::local("bytes");
        let counted = waiting.clone();
        const MEBIBYTE: usize = 1 << 20;
        env.from_factory(move |_| {
            let counted = counted.clone();
            (0..1000).map(move |_| Heavy::new(MEBIBYTE, &counted))
        })
        .named("records")
        .weigh(|record| record.bytes)
        .on_another_thread()
        .sink(move |mut record: Heavy| {
            record.arrive();
            std::hint::black_box(&mut record);
        });
        env.run().unwrap();
        assert!(waiting.most() <= 65 * MEBIBYTE, "{} bytes waited", waiting.most());
    });
}

/// Of what holds nothing, the size is enough.
#[test]
fn contract_28_records_of_one_size_are_bound_by_their_bytes() {
    leak_free(|_| {
        let (env, read, arrived) =
            (Environment::local("sizes").queue_bytes(1 << 20), Count::default(), Count::default());
        let (counter, most) = (arrived.clone(), Arc::new(AtomicUsize::new(0)));
        let ahead = most.clone();
        let numbers: DataStream<[u8; 4096]> = counted(&env, &read)
            .take(20_000)
            .map(move |n| {
                ahead.fetch_max((n as usize + 1).saturating_sub(arrived.get()), Ordering::SeqCst);
                [n as u8; 4096]
            })
            .on_another_thread();
        let count = numbers.inspect(move |_| counter.add()).count().collect();
        env.run().unwrap();
        assert_eq!(count.take(), [20_000]);
        // 256 that wait, the one that is pushed, and a quarter that the reader has not told of.
        let most = most.load(Ordering::SeqCst);
        assert!(most <= 257, "{most} records waited");
    });
}

/// Quick records, then slow ones: the few that are read ahead by then are done before much more is read.
#[test]
fn contract_28_a_task_that_turns_slow_is_sent_no_more_than_it_was_quick_with() {
    leak_free(|_| {
        let (env, read, gate) = (Environment::local("turns"), Count::default(), Gate::new());
        let held = gate.clone();
        counted(&env, &read).on_another_thread().sink(move |n| {
            if n >= 20 {
                held.pass();
            }
        });
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        until("the source waits", || job.unfinished() >= 2);
        std::thread::yield_now();
        cancel(&job);
        gate.open();
        failed(job.wait());
        assert!(read.get() <= 20 + 1 + 32, "{} were read", read.get());
    });
}

#[test]
fn the_bytes_of_an_edge_are_checked_before_the_job_starts() {
    let env = Environment::local("none").queue_bytes(0);
    env.from_iter([1]).on_another_thread().sink(drop);
    assert_eq!(env.submit().map(drop).unwrap_err().to_string(), "queue_bytes is 0; it may be 1 or more");
}
