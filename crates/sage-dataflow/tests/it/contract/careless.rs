//! Clause 26: operators that ignore what `emit` tells them, that catch panics, and records that panic when they are
//! cloned. Blocks of lanes have guards in builds with debug assertions, so that a record written past the end of one
//! fails a test.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sage::{
    Cause, DataStream, Emit, Environment, ErrorPolicy, Fault, JobReport, Operator, Outcome, Pipe, SignalPolicy, Stop,
    Stream,
};

use super::cancelled;
use crate::leaks::leak_free;
use crate::probes::{Gate, failed};

/// How many records a careless operator emits for one, and at the end: very many blocks of the lanes here.
const MANY: u64 = 20_000;
const MARK: u64 = 0x4141_4141_4141_4141;

/// A record that tells whether another was written over it, and panics in the clone that it is told to.
#[derive(Debug)]
struct Marked {
    number: u64,
    marks: [u64; 3],
    clones: Option<(Arc<AtomicU64>, u64)>,
}

impl Marked {
    fn new(number: u64) -> Self {
        Self { number, marks: [MARK; 3], clones: None }
    }

    fn checked(&self) -> u64 {
        assert_eq!(self.marks, [MARK; 3], "record {} was written over", self.number);
        self.number
    }
}

impl Clone for Marked {
    fn clone(&self) -> Self {
        if let Some((clones, fatal)) = &self.clones {
            assert!(clones.fetch_add(1, Ordering::SeqCst) + 1 != *fatal, "cannot be cloned");
        }
        Self { number: self.checked(), marks: self.marks, clones: self.clones.clone() }
    }
}

/// Emits for ever on, whatever it is told.
struct Ignores {
    begun: Option<Gate>,
}

impl Operator for Ignores {
    type In = u64;
    type Out = Marked;
    fn process(&mut self, _: u64, out: &mut impl Emit<Marked>) -> Result<(), Fault> {
        let Some(begun) = &self.begun else {
            (0..MANY).for_each(|n| drop(out.emit(Marked::new(n))));
            return Ok(());
        };
        if (0..100).all(|n| out.emit(Marked::new(n)).is_ok()) {
            begun.pass();
            // As many records again as it takes for the cancel to be known.
            while !matches!(out.emit(Marked::new(0)), Err(Fault::Stop(Stop::Cancelled))) {}
            (0..MANY).for_each(|n| drop(out.emit(Marked::new(n))));
        }
        Ok(())
    }
    fn finish(&mut self, out: &mut impl Emit<Marked>) -> Result<(), Fault> {
        (0..MANY).for_each(|n| drop(out.emit(Marked::new(n))));
        Ok(())
    }
}

/// What is put behind a careless operator.
#[derive(Debug, Clone, Copy)]
enum Way {
    Forward,
    RoundRobin,
    Hash,
    Chosen,
    Broadcast,
    Tee,
    Split,
}

const WAYS: [Way; 7] = [Way::Forward, Way::RoundRobin, Way::Hash, Way::Chosen, Way::Broadcast, Way::Tee, Way::Split];

fn small(name: &str) -> Environment {
    Environment::local(name).signals(SignalPolicy::Off).block_records(3).queue_blocks(2)
}

/// Leads `stream` to several readers, each of which is asked for every record what becomes of it.
fn spread<P, F>(stream: Stream<P>, way: Way, reader: F)
where
    P: Pipe<Out = Marked>,
    F: Fn(u64) -> Result<(), Fault> + Clone + Send + 'static,
{
    let read = |stream: DataStream<Marked>| {
        let reader = reader.clone();
        stream.operator(move || Reads(reader.clone())).sink(|()| {});
    };
    match way {
        Way::Forward => read(stream.on_another_thread()),
        Way::RoundRobin => read(stream.rebalance(3)),
        Way::Hash => {
            let keyed = stream.key_by(|record| record.number % 7);
            read(keyed.map_with_state((), |(), record| record).parallelism(3).on_another_thread());
        }
        Way::Chosen => read(stream.partition_by(3, |record, replicas| record.number as usize % replicas)),
        Way::Broadcast => read(stream.broadcast(3)),
        Way::Tee => stream.tee::<3>().into_iter().for_each(read),
        Way::Split => {
            let (even, odd) = stream.split(|record| record.number % 2 == 0);
            read(even.on_another_thread());
            read(odd);
        }
    }
}

struct Reads<F>(F);

impl<F: Fn(u64) -> Result<(), Fault> + Send + 'static> Operator for Reads<F> {
    type In = Marked;
    type Out = ();
    fn process(&mut self, record: Marked, _: &mut impl Emit<()>) -> Result<(), Fault> {
        (self.0)(record.checked())
    }
}

fn cause(report: &JobReport) -> String {
    report.first_cause.as_ref().map_or_else(String::new, Cause::to_string)
}

#[test]
fn contract_26_ignoring_a_reader_that_fails_does_no_harm() {
    leak_free(|_| {
        for way in WAYS {
            let env = small("fails");
            let stream = env.from_iter([0]).operator(|| Ignores { begun: None });
            let failed_one = Arc::new(AtomicUsize::new(0));
            spread(stream, way, move |number| match number > 100 && failed_one.fetch_add(1, Ordering::SeqCst) == 0 {
                true => Err(io::Error::other("boom").into()),
                false => Ok(()),
            });
            let report = failed(env.run());
            assert!(cause(&report).ends_with("boom"), "{way:?}: {report}");
        }
    });
}

#[test]
fn contract_26_ignoring_that_readers_want_no_more_does_no_harm() {
    leak_free(|_| {
        for way in WAYS {
            let env = small("satisfied");
            let stream = env.from_iter(0_u64..).operator(|| Ignores { begun: None });
            spread(stream, way, |number| match number > 100 {
                true => Err(Stop::Satisfied.into()),
                false => Ok(()),
            });
            let report = env.run().unwrap_or_else(|error| panic!("{way:?}: {error}"));
            assert_eq!(report.operators[0].records_out, 1, "{way:?}: it ended within its first record");
        }
    });
}

#[test]
fn contract_26_ignoring_a_cancel_does_no_harm() {
    leak_free(|_| {
        for way in WAYS {
            let env = small("cancelled");
            let begun = Gate::new();
            let passed = begun.clone();
            let stream = env.from_iter([0]).operator(move || Ignores { begun: Some(passed.clone()) });
            spread(stream, way, |_| Ok(()));
            let job = env.submit().unwrap();
            begun.await_arrivals(1);
            begun.open();
            let report = cancelled(&job);
            assert_eq!(report.outcome, Outcome::Cancelled, "{way:?}: {report}");
        }
    });
}

/// Emits many records for each, and catches what it can, up to a record that is the last one.
#[derive(Clone)]
struct Catches {
    fatal: u64,
    last: u64,
}

impl Operator for Catches {
    type In = u64;
    type Out = Marked;
    fn process(&mut self, _: u64, out: &mut impl Emit<Marked>) -> Result<(), Fault> {
        let clones = Arc::new(AtomicU64::new(0));
        for n in 0..self.last {
            let record = Marked { clones: Some((clones.clone(), self.fatal)), ..Marked::new(n) };
            drop(catch_unwind(AssertUnwindSafe(|| out.emit(record))));
        }
        Ok(())
    }
}

#[test]
fn contract_26_a_clone_that_panics_fails_the_job_also_where_the_panic_is_caught() {
    leak_free(|_| {
        for (way, fatal) in [Way::Broadcast, Way::Tee].into_iter().flat_map(|way| (1..=8).map(move |n| (way, n))) {
            // What is caught is the last thing that happens, or not.
            for last in [4, 1000] {
                let env = small("clones");
                let stream = env.from_iter([0]).operator(move || Catches { fatal, last }).named("emits");
                spread(stream, way, |_| Ok(()));
                let report = failed(env.run());
                assert_eq!(report.outcome, Outcome::Failed, "{way:?} {fatal}");
                assert!(
                    cause(&report).starts_with("operator `emits`, record 1: it panicked"),
                    "{way:?} {fatal}: {report}"
                );
            }
            let env = small("clones");
            let clones = Arc::new(AtomicU64::new(0));
            let records = (0..1000).map(move |n| Marked { clones: Some((clones.clone(), fatal)), ..Marked::new(n) });
            spread(env.from_iter(records).map(|record| record).named("maps"), way, |_| Ok(()));
            let report = failed(env.run());
            assert!(cause(&report).ends_with("panicked: cannot be cloned"), "{way:?} {fatal}: {report}");
        }
    });
}

/// Emits as many records as it is given, and lets nobody know how that went.
struct Swallows<const CATCH: bool>;

impl<const CATCH: bool> Operator for Swallows<CATCH> {
    type In = u64;
    type Out = u64;
    fn process(&mut self, n: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        for n in 0..n {
            match CATCH {
                true => drop(catch_unwind(AssertUnwindSafe(|| out.emit(n)))),
                false => drop(out.emit(n)),
            }
        }
        Ok(())
    }
}

/// A failure that an operator swallows fails the job as if it had been passed on, and is named where it happened.
#[test]
fn contract_15_a_failure_behind_an_operator_cannot_be_swallowed() {
    fn fails(n: u64) -> Result<u64, io::Error> {
        if n == 5 { Err(io::Error::other("five")) } else { Ok(n) }
    }
    fn panics(n: u64) -> u64 {
        assert_ne!(n, 5, "five");
        n
    }
    leak_free(|_| {
        for records in [6, 7, 1000] {
            let env = small("swallowed");
            env.from_iter([1, records]).operator(|| Swallows::<false>).try_map(fails).named("fails").sink(|_| {});
            assert_eq!(cause(&failed(env.run())), "operator `fails`, record 2: five");

            let env = small("swallowed");
            let seen = Arc::new(AtomicU64::new(0));
            let (after, calls) = (seen.clone(), seen.clone());
            env.from_iter([1, records])
                .operator(|| Swallows::<true>)
                .map(move |n| {
                    after.fetch_add(1, Ordering::SeqCst);
                    panics(n)
                })
                .named("panics")
                .sink(|_| {});
            let told = cause(&failed(env.run()));
            assert!(told.starts_with("operator `panics`, record 2: it panicked"), "{told}");
            assert_eq!(calls.load(Ordering::SeqCst), 7, "nothing runs behind a panic that was caught");

            // In a nest of them, each of which makes smaller numbers.
            let env = small("swallowed");
            env.from_iter([1, records + 10])
                .flat_map_into(|n, out| out.extend(0..n))
                .operator(|| Swallows::<false>)
                .flat_map_into(|n, out| (0..n).for_each(|n| out.push(n)))
                .flat_map(|n| 0..n)
                .try_map(fails)
                .named("fails")
                .sink(|_| {});
            assert!(cause(&failed(env.run())).ends_with("five"));

            // Skipped by the policy of the operator that failed, it is no failure.
            let env = small("skipped");
            let counted = env
                .from_iter([1, records])
                .operator(|| Swallows::<false>)
                .try_map(fails)
                .on_error(ErrorPolicy::skip())
                .count()
                .collect();
            env.run().unwrap();
            assert_eq!(counted.take(), [records]);
        }
    });
}

/// What an operator with dead letters emits at the end goes two ways, of which one has failed.
#[test]
fn contract_26_ignoring_a_failure_while_finishing_does_no_harm() {
    #[derive(Clone)]
    struct AtTheEnd;
    impl Operator for AtTheEnd {
        type In = u64;
        type Out = u64;
        fn process(&mut self, n: u64, _: &mut impl Emit<u64>) -> Result<(), Fault> {
            if n == 3 { Err(io::Error::other("three").into()) } else { Ok(()) }
        }
        fn finish(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
            (0..MANY).for_each(|n| drop(out.emit(n)));
            Ok(())
        }
    }
    leak_free(|_| {
        let env = small("finish");
        let (main, dead) = env.from_iter(0..5).operator(|| AtTheEnd).dead_letters();
        main.try_map(|n| if n == 50 { Err(io::Error::other("fifty")) } else { Ok(n) }).named("fails").sink(|_| {});
        let dead = dead.collect();
        assert_eq!(cause(&failed(env.run())), "operator `fails`, while finishing: fifty");
        assert!(dead.take().len() <= 1);

        // Behind an exchange, where the reader wants no more.
        let env = small("finish");
        let (main, dead) = env.from_iter(0..5).operator(|| AtTheEnd).dead_letters();
        let (main, dead) = (main.on_another_thread().take(10).collect(), dead.collect());
        env.run().unwrap();
        assert_eq!((main.take(), dead.take().len()), ((0..10).collect(), 1));
    });
}
