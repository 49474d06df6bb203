//! Clause 8: what `finish` is for, and when it does not run.

use sage::{Emit, Environment, Fault, JobState, Operator, Outcome};

use super::{await_status, cancelled, running};
use crate::leaks::leak_free;
use crate::probes::{Counting, Gate, Journal, Probe, Probed, failed};

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
        let out = env.from_iter(0..10_u64).operator(move || Last(db.clone())).boxed().collect();
        env.run().unwrap();
        assert_eq!(out.take(), (0..10_000).collect::<Vec<_>>());
    });
}

#[test]
fn contract_08_finish_does_not_run_after_a_failure_downstream_or_a_cancel() {
    leak_free(|_| {
        for _ in 0..100 {
            let env = Environment::local("finish").batch_records(1).queue_batches(2);
            let counting = Counting::default();
            let (counts, journal) = (counting.counts.clone(), counting.journal.clone());
            env.from_iter(0_u64..)
                .operator(move || counting.clone())
                .boxed()
                .try_sink(|n| if n == 20 { Err("broke") } else { Ok(()) });
            assert_eq!(failed(env.run()).outcome, Outcome::Failed);
            assert_eq!((counts.finished(), counts.closed()), (0, 1));
            assert_eq!(journal.events(), ["closed: failure"]);
        }
        let env = Environment::local("finish");
        let counting = Counting::default();
        let counts = counting.counts.clone();
        env.from_factory(|_| 0_u64..).operator(move || counting.clone()).boxed().sink(|_| {});
        let job = running(&env);
        cancelled(&job);
        assert_eq!((counts.finished(), counts.closed()), (0, 1));
    });
}

#[test]
fn contract_08_finish_does_not_run_and_no_total_is_emitted_after_a_failure_upstream() {
    leak_free(|_| {
        for fails_at in 0..60 {
            let env = Environment::local("finish").batch_records(4).queue_batches(2);
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
