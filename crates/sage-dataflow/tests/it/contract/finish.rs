//! Clause 8: what `finish` is for, and when it does not run.

use std::time::Duration;

use sage::{
    BoxError, CauseKind, CloseContext, Emit, Environment, ErrorPolicy, Fault, FinishContext, JobState, Operator,
    Outcome, Sink, StopReason, testing,
};

use super::{await_status, cancelled, running};
use crate::leaks::leak_free;
use crate::probes::{Counting, CountingSink, Gate, Journal, Probe, Probed, failed};

#[test]
fn contract_08_finish_may_still_emit_and_call_services() {
    struct Last(sage::ServiceHandle<Probed>);
    impl Operator for Last {
        type In = u64;
        type Out = u64;
        fn process(&mut self, _record: u64, _out: &mut impl Emit<u64>) -> Result<(), Fault> {
            Ok(())
        }
        fn finish(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
            self.0.call(Probed::touch)?;
            (0..10_000).try_for_each(|n| out.emit(n))
        }
    }
    leak_free(|_| {
        let env = Environment::local("finish");
        let journal = Journal::new();
        let db = Probe::new("db", &journal).register(&env).build();
        let out = env.from_iter(0..10_u64).operator(move || Last(db.clone())).on_another_thread().collect();
        env.run().unwrap();
        assert_eq!(out.take(), (0..10_000).collect::<Vec<_>>());
    });
}

#[test]
fn contract_08_finish_does_not_run_after_a_failure_downstream_or_a_cancel() {
    leak_free(|_| {
        for _ in 0..100 {
            let env = Environment::local("finish").block_records(1).queue_blocks(2);
            let counting = Counting::default();
            let (counts, journal) = (counting.counts.clone(), counting.journal.clone());
            env.from_iter(0_u64..)
                .operator(move || counting.clone())
                .on_another_thread()
                .try_sink(|n| if n == 20 { Err("broke") } else { Ok(()) });
            assert_eq!(failed(env.run()).outcome, Outcome::Failed);
            assert_eq!((counts.finished(), counts.closed()), (0, 1));
            assert_eq!(journal.events(), ["closed: failure"]);
        }
        let env = Environment::local("finish");
        let counting = Counting::default();
        let counts = counting.counts.clone();
        env.from_factory(|_| 0_u64..).operator(move || counting.clone()).on_another_thread().sink(|_| {});
        let job = running(&env);
        cancelled(&job);
        assert_eq!((counts.finished(), counts.closed()), (0, 1));
    });
}

#[test]
fn contract_08_finish_does_not_run_and_no_total_is_emitted_after_a_failure_upstream() {
    leak_free(|_| {
        for fails_at in 0..60 {
            let env = Environment::local("finish").block_records(4).queue_blocks(2);
            let counting = Counting::default();
            let (counts, total) = (counting.counts.clone(), Journal::new());
            let emitted = total.clone();
            env.from_iter(0_u64..60)
                .try_map(move |n| if n == fails_at { Err("broke") } else { Ok(n) })
                .union(env.from_iter(0..5))
                .operator(move || counting.clone())
                .parallelism(2)
                .count()
                .sink(move |_| emitted.note("total"));
            assert_eq!(failed(env.run()).outcome, Outcome::Failed);
            assert_eq!((counts.opened(), counts.finished(), counts.closed()), (2, 0, 2));
            assert_eq!(total.count("total"), 0);
        }
    });
}

#[test]
fn contract_08_finish_does_not_run_after_a_cancel_even_if_nothing_more_is_wanted() {
    leak_free(|_| {
        let env = Environment::local("finish");
        let (counting, gate) = (Counting::default(), Gate::new());
        let (counts, held) = (counting.counts.clone(), gate.clone());
        env.from_iter(0_u64..).operator(move || counting.clone()).take(1).sink(move |_| held.pass());
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        await_status(&job, JobState::Draining);
        gate.open();
        cancelled(&job);
        assert_eq!((counts.finished(), counts.closed()), (0, 1));
    });
}

#[test]
fn contract_08_a_sink_finishes_in_each_replica_after_its_last_record_and_before_close() {
    /// Tells its journal everything, by the number of the replica.
    struct Telling(usize, Journal, u64);
    impl Sink for Telling {
        type In = u64;
        fn write(&mut self, _record: u64) -> Result<(), BoxError> {
            self.2 += 1;
            Ok(())
        }
        fn flush(&mut self) -> Result<(), BoxError> {
            self.1.note(format_args!("{} flushed {}", self.0, self.2));
            Ok(())
        }
        fn finish(&mut self, cx: &FinishContext) -> Result<(), BoxError> {
            assert_eq!((cx.reason(), cx.deadline(), cx.is_cancelled()), (&StopReason::EndOfInput, None, false));
            self.1.note(format_args!("{} finished {}", self.0, self.2));
            Ok(())
        }
        fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
            self.1.note(format_args!("{} closed: {}", self.0, cx.reason()));
            Ok(())
        }
    }
    leak_free(|_| {
        for inline in [false, true] {
            let env = Environment::local("finish");
            let env = if inline { env.inline() } else { env };
            let journal = Journal::new();
            let told = journal.clone();
            // The last thousand come from an operator's own `finish`.
            struct Late;
            impl Operator for Late {
                type In = u64;
                type Out = u64;
                fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
                    out.emit(record)
                }
                fn finish(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
                    (0..1000).try_for_each(|n| out.emit(n))
                }
            }
            env.from_iter(0..1000_u64)
                .operator(|| Late)
                .sink_to(move |replica| Telling(replica, told.clone(), 0))
                .parallelism(2);
            env.run().unwrap();
            let told = |replica| {
                // It may have been flushed before, when its records had run dry for a while.
                let prefix = format!("{replica} ");
                let events = journal.events();
                let events = events.iter().filter_map(|event| event.strip_prefix(&prefix)).collect::<Vec<_>>();
                let [.., flushed, finished, "closed: end of input"] = events[..] else { panic!("{events:?}") };
                let count = finished.strip_prefix("finished ").unwrap();
                assert_eq!(flushed, format!("flushed {count}"), "{events:?}");
                count.parse::<u64>().unwrap()
            };
            assert_eq!(told(0) + told(1), 2000);
            assert_eq!(journal.events().iter().filter(|event| event.contains("finished")).count(), 2);
        }
    });
}

#[test]
fn contract_08_a_sink_finishes_after_a_drain_and_when_nothing_more_is_wanted() {
    leak_free(|_| {
        let sink = CountingSink::default();
        let (counts, journal) = (sink.counts.clone(), sink.journal.clone());
        let env = Environment::local("drained");
        env.from_factory(|_| 0_u64..).sink_to(move |_| sink.clone()).parallelism(3);
        let job = running(&env);
        job.drain();
        job.wait().unwrap();
        assert_eq!((counts.opened(), counts.finished(), counts.closed()), (3, 3, 3));
        assert_eq!(journal.count("finished: drain requested"), 3);

        for take in [0, 5] {
            let sink = CountingSink::default();
            let counts = sink.counts.clone();
            let env = Environment::local("satisfied");
            env.from_iter(0_u64..).take(take).sink_to(move |_| sink.clone());
            env.run().unwrap();
            assert_eq!((counts.processed(), counts.finished(), counts.closed()), (take as usize, 1, 1));
        }
    });
}

#[test]
fn contract_08_a_sink_does_not_finish_after_a_failure_before_it_or_in_it() {
    leak_free(|_| {
        for fails_at in 0..60 {
            let sink = CountingSink::default();
            let (counts, journal) = (sink.counts.clone(), sink.journal.clone());
            let env = Environment::local("upstream").block_records(4).queue_blocks(2);
            env.from_iter(0_u64..60)
                .try_map(move |n| if n == fails_at { Err("broke") } else { Ok(n) })
                .sink_to(move |_| sink.clone())
                .parallelism(2);
            assert_eq!(failed(env.run()).outcome, Outcome::Failed);
            assert_eq!((counts.opened(), counts.finished(), counts.closed()), (2, 0, 2));
            assert_eq!(journal.count("closed: failure"), 2);
        }
        for fail_in in ["open", "write", "flush"] {
            for panics in [false, true] {
                let sink = CountingSink { fail_in, panics, ..CountingSink::default() };
                let counts = sink.counts.clone();
                let env = Environment::local("itself");
                env.from_iter(0_u64..60).sink_to(move |_| sink.clone());
                failed(env.run());
                assert_eq!((counts.opened(), counts.finished(), counts.closed()), (1, 0, 1), "fails in {fail_in}");
            }
        }
        let sink = CountingSink { fail_in: "write", ..CountingSink::default() };
        let counts = sink.counts.clone();
        let env = Environment::local("over-budget");
        env.from_iter(0_u64..60).sink_to(move |_| sink.clone()).on_error(ErrorPolicy::skip().at_most_share(0.5));
        failed(env.run());
        assert_eq!((counts.processed(), counts.finished(), counts.closed()), (60, 0, 1), "found at the end of input");
    });
}

#[test]
fn contract_08_a_sink_does_not_finish_after_a_cancel_or_a_time_limit() {
    leak_free(|_| {
        let sink = CountingSink::default();
        let counts = sink.counts.clone();
        let env = Environment::local("cancelled");
        env.from_factory(|_| 0_u64..).sink_to(move |_| sink.clone()).parallelism(3);
        cancelled(&running(&env));
        assert_eq!((counts.finished(), counts.closed()), (0, 3));

        let sink = CountingSink::default();
        let counts = sink.counts.clone();
        let env = Environment::local("limited").time_limit(Duration::from_millis(50));
        env.from_factory(|_| 0_u64..).sink_to(move |_| sink.clone());
        assert_eq!(failed(env.run()).outcome, Outcome::TimedOut);
        assert_eq!((counts.finished(), counts.closed()), (0, 1));
    });
}

/// An operator whose `finish` waits at a gate.
struct HeldAtTheEnd(Gate);

impl Operator for HeldAtTheEnd {
    type In = u64;
    type Out = u64;
    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        out.emit(record)
    }
    fn finish(&mut self, _out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.0.pass();
        Ok(())
    }
}

#[test]
fn contract_08_a_sink_does_not_finish_when_the_cancel_comes_at_the_end_of_input() {
    leak_free(|_| {
        let (gate, sink) = (Gate::new(), CountingSink::default());
        let (held, counts) = (gate.clone(), sink.counts.clone());
        let env = Environment::local("late-cancel");
        env.from_iter(0_u64..10).operator(move || HeldAtTheEnd(held.clone())).sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        await_status(&job, JobState::Draining);
        gate.open();
        cancelled(&job);
        assert_eq!((counts.processed(), counts.finished(), counts.closed()), (10, 0, 1));
    });
}

#[test]
fn contract_08_a_sink_that_waits_in_finish_sees_the_cancel_and_its_deadline() {
    #[derive(Clone)]
    struct Waits(Gate, Journal);
    impl Sink for Waits {
        type In = u64;
        fn write(&mut self, _record: u64) -> Result<(), BoxError> {
            Ok(())
        }
        fn finish(&mut self, cx: &FinishContext) -> Result<(), BoxError> {
            assert!(!cx.is_cancelled() && cx.deadline().is_none());
            self.0.pass();
            assert!(cx.is_cancelled() && cx.deadline().is_some());
            self.1.note("gave up");
            Err("there was no time left".into())
        }
        fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
            self.1.note("closed");
            Ok(())
        }
    }
    leak_free(|_| {
        let (gate, journal) = (Gate::new(), Journal::new());
        let sink = Waits(gate.clone(), journal.clone());
        let env = Environment::local("waits");
        env.from_iter(0_u64..10).sink_to(move |_| sink.clone());
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        await_status(&job, JobState::Draining);
        gate.open();
        let report = failed(job.wait());
        assert!(report.left.is_empty(), "{report}");
        let attached = report.attached.iter().map(|cause| cause.message.as_str()).collect::<Vec<_>>();
        assert_eq!((report.outcome, attached), (Outcome::Cancelled, vec!["there was no time left"]), "{report}");
        assert_eq!(journal.events(), ["gave up", "closed"]);
    });
}

#[test]
fn contract_08_a_sink_that_fails_to_finish_fails_the_job_which_may_be_clean() {
    leak_free(|_| {
        for panics in [false, true] {
            let sink = CountingSink { fail_in: "finish", panics, ..CountingSink::default() };
            let (counts, journal) = (sink.counts.clone(), sink.journal.clone());
            let env = Environment::local("unfinished");
            // A record may be skipped; what it would all have been for may not.
            let numbers = env.from_collection((0_u64..10).collect());
            numbers.sink_to(move |_| sink.clone()).on_error(ErrorPolicy::skip()).named("bad");
            let report = failed(env.run());
            assert_eq!(report.outcome, Outcome::Failed);
            assert!(report.left.is_empty() && report.attached.is_empty(), "{report}");
            let cause = report.first_cause.as_ref().unwrap();
            assert_eq!(cause.place().to_string(), "operator `bad`, while finishing");
            assert_eq!(cause.kind, if panics { CauseKind::Panic } else { CauseKind::Error });
            assert_eq!((counts.processed(), counts.finished(), counts.closed()), (10, 1, 1));
            assert_eq!(journal.events(), ["finished: end of input", "closed: failure"]);
            // It left nothing, so the environment takes the next run.
            failed(env.run());
            assert_eq!((counts.finished(), counts.closed()), (2, 2));
        }
    });
}

#[test]
fn contract_08_replicas_of_a_sink_finish_each_by_itself() {
    /// Finishes; the first replica only after the second has, and then fails.
    struct OneFails(usize, Gate, Journal);
    impl Sink for OneFails {
        type In = u64;
        fn write(&mut self, _record: u64) -> Result<(), BoxError> {
            Ok(())
        }
        fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
            if self.0 == 0 {
                self.1.pass();
                return Err("broke".into());
            }
            self.2.note("made final");
            Ok(())
        }
        fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
            self.2.note(format_args!("{} closed: {}", self.0, cx.reason()));
            if self.0 == 1 {
                self.1.open();
            }
            Ok(())
        }
    }
    leak_free(|_| {
        let (gate, journal) = (Gate::new(), Journal::new());
        let told = journal.clone();
        let env = Environment::local("one-fails");
        env.from_iter(0_u64..10)
            .sink_to(move |replica| OneFails(replica, gate.clone(), told.clone()))
            .named("pair")
            .parallelism(2);
        let report = failed(env.run());
        assert!(report.left.is_empty(), "{report}");
        assert_eq!(
            report.first_cause.unwrap().place().to_string(),
            "operator `pair` (replica 0 of 2, counted from 0), while finishing"
        );
        assert_eq!(journal.events(), ["made final", "1 closed: end of input", "0 closed: failure"]);
    });
}

#[test]
fn contract_08_a_test_sink_tells_whether_it_was_finished() {
    leak_free(|_| {
        let (received, sink) = testing::sink();
        let env = Environment::local("told");
        env.from_iter(0..10).sink_to(move |_| sink.clone()).parallelism(2);
        env.run().unwrap();
        assert_eq!((received.take().len(), received.finished()), (10, 2));
    });
}
