//! Error policies, retries, dead letters, split.

use std::time::Duration;

use sage::{
    AtRecord, BoxError, BudgetExceeded, CauseKind, DeadLetter, Emit, Environment, ErrorPolicy, Fatal, Fault, JobReport,
    Operator, OutOfOrder, RetriesExhausted, Retry, SubmitError, Timestamp, Tumbling,
};

use crate::contract::{await_status, cancelled};
use crate::leaks::leak_free;
use crate::probes::{CountingSink, Gate, Journal, failed, sorted};

fn parse(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.parse()
}

fn counts(report: &JobReport, name: &str) -> (u64, u64, u64) {
    let operator = report.operator(name).expect("an operator of this name");
    (operator.records_in, operator.records_out, operator.failed)
}

const TEXTS: [&str; 6] = ["1", "x", "3", "y", "5", "z"];

#[test]
fn skipped_records_are_left_out_and_counted() {
    leak_free(|_| {
        for parallelism in [1, 3] {
            let env = Environment::local("skip");
            let out = env
                .from_iter(TEXTS)
                .try_map(parse)
                .named("parse")
                .parallelism(parallelism)
                .on_error(ErrorPolicy::skip())
                .map(|n| n * 10)
                .collect();
            let report = env.run().unwrap();
            assert_eq!(sorted(out.take()), [10, 30, 50]);
            assert_eq!(counts(&report, "parse"), (6, 3, 3));
            let first = report.operator("parse").unwrap().first_error.clone();
            assert_eq!(first.as_deref(), Some("invalid digit found in string"));
            assert!(report.to_string().contains("parse: first error that the policy let pass: "), "{report}");
        }
    });
}

#[test]
fn a_policy_is_for_its_own_operator_only() {
    leak_free(|_| {
        let env = Environment::local("own");
        env.from_iter(TEXTS)
            .try_map(Ok::<_, BoxError>)
            .named("first")
            .on_error(ErrorPolicy::skip())
            .try_map(parse)
            .named("second")
            .sink(|_| {});
        let report = failed(env.run());
        let cause = report.first_cause.clone().unwrap();
        assert_eq!(cause.to_string(), "operator `second`, record 2: invalid digit found in string");
        assert_eq!(counts(&report, "first").2, 0);
    });
}

#[test]
fn an_environments_policy_is_for_all_that_have_none() {
    leak_free(|_| {
        let env = Environment::local("all").on_error(ErrorPolicy::skip());
        let out = env.from_iter(TEXTS).try_map(parse).map(|n| n + 1).collect();
        let seen = env.from_iter(TEXTS).try_sink(|text| parse(text).map(|_| ())).named("strict");
        drop(seen.on_error(ErrorPolicy::fail()));
        let report = failed(env.run());
        assert!(report.first_cause.unwrap().to_string().starts_with("operator `strict`, record 2"));
        drop(out);

        let env = Environment::local("sinks").on_error(ErrorPolicy::skip());
        env.from_iter(TEXTS).try_sink(|text| parse(text).map(|_| ())).named("lenient");
        let report = env.run().unwrap();
        assert_eq!(counts(&report, "lenient"), (6, 3, 3));
    });
}

/// Emits a record twice, and fails between the two if it is odd.
#[derive(Clone)]
struct Twice;

impl Operator for Twice {
    type In = u32;
    type Out = u32;
    fn process(&mut self, record: u32, out: &mut impl Emit<u32>) -> Result<(), Fault> {
        out.emit(record)?;
        if record % 2 == 1 {
            return Err(Fault::Error("odd".into()));
        }
        out.emit(record)
    }
}

#[test]
fn a_record_that_fails_half_way_leaves_nothing_behind() {
    leak_free(|_| {
        let env = Environment::local("half");
        let skipped = env.from_iter(1..=4).operator(|| Twice).on_error(ErrorPolicy::skip()).collect();
        let (lettered, dead) = env.from_iter(1..=4).operator(|| Twice).named("twice").dead_letters();
        let (lettered, dead) = (lettered.collect(), dead.collect());
        let retried = env
            .from_iter(1..=4)
            .operator(|| Twice)
            .retry(Retry::up_to(2).backoff(Duration::ZERO, Duration::ZERO))
            .on_error(ErrorPolicy::skip())
            .collect();
        env.run().unwrap();
        for out in [skipped, lettered, retried] {
            assert_eq!(out.take(), [2, 2, 4, 4]);
        }
        assert_eq!(dead.take().iter().map(|letter| letter.record).collect::<Vec<_>>(), [1, 3]);
    });
}

/// Looks at three records at a time, and fails at the odd one.
#[derive(Clone, Default)]
struct InThrees(Vec<u32>, u64);

impl InThrees {
    fn look(&mut self, out: &mut impl Emit<u32>) -> Result<(), Fault> {
        for record in std::mem::take(&mut self.0) {
            self.1 += 1;
            if record % 2 == 1 {
                return Err(Fault::Error(AtRecord::new(self.1, "odd").into()));
            }
            out.emit(record)?;
        }
        Ok(())
    }
}

impl Operator for InThrees {
    type In = u32;
    type Out = u32;
    fn process(&mut self, record: u32, out: &mut impl Emit<u32>) -> Result<(), Fault> {
        self.0.push(record);
        if self.0.len() == 3 { self.look(out) } else { Ok(()) }
    }
    fn finish(&mut self, out: &mut impl Emit<u32>) -> Result<(), Fault> {
        self.look(out)
    }
}

#[test]
fn policies_decide_on_the_error_inside_and_the_report_tells_the_record() {
    leak_free(|_| {
        let records = [2, 4, 6, 8, 9, 10];
        let retry = |attempts| {
            let retry = Retry::up_to(attempts).backoff(Duration::ZERO, Duration::ZERO);
            retry.when(|error| error.to_string() == "odd")
        };
        let env = Environment::local("threes");
        let threes = env.from_iter(records).operator(InThrees::default).named("threes");
        let out = threes.on_error(ErrorPolicy::skip()).retry(retry(2)).collect();
        let report = env.run().unwrap();
        // At the second attempt it looks at nothing, as it waits for two more.
        assert_eq!((report.operators[1].failed, report.operators[1].retries), (0, 1));
        assert_eq!(out.take(), [2, 4, 6, 10]);

        let env = Environment::local("threes");
        let out = env.from_iter(records).operator(InThrees::default).named("threes").retry(retry(1)).collect();
        let cause = failed(env.run()).first_cause.unwrap();
        assert_eq!(cause.to_string(), "operator `threes`, record 5: gave up after 1 attempts: odd");
        drop(out);
    });
}

#[test]
fn an_operator_of_several_records_at_a_time_tells_which_one_failed() {
    leak_free(|_| {
        for (records, place) in [(vec![2, 4, 6, 8, 9, 10], "record 5"), (vec![2, 4, 6, 9], "record 4")] {
            let env = Environment::local("threes");
            let out = env.from_iter(records).operator(InThrees::default).named("threes").collect();
            let cause = failed(env.run()).first_cause.unwrap();
            assert_eq!(cause.to_string(), format!("operator `threes`, {place}: odd"));
            assert!(cause.error.is_some_and(|error| error.downcast_ref::<AtRecord>().is_none()));
            drop(out);
        }
    });
}

#[test]
fn a_budget_fails_the_job_with_the_last_error() {
    leak_free(|_| {
        let env = Environment::local("budget");
        env.from_iter(TEXTS).try_map(parse).named("parse").on_error(ErrorPolicy::skip().at_most(2)).sink(|_| {});
        let report = failed(env.run());
        assert_eq!(counts(&report, "parse").2, 3);
        let cause = report.first_cause.unwrap();
        let error = cause.error.unwrap();
        let exceeded = error.downcast_ref::<BudgetExceeded>().unwrap();
        assert_eq!((exceeded.skipped, exceeded.allowed.as_str()), (2, "2"));
        assert!(exceeded.source.is::<std::num::ParseIntError>());
        assert!(cause.message.contains("invalid digit"), "{}", cause.message);
    });
}

#[test]
fn a_share_of_errors_is_judged_at_the_end_and_before() {
    leak_free(|_| {
        let run = |records: u32, nth: u32, share: f64| {
            let env = Environment::local("share");
            env.from_iter(0..records)
                .on_another_thread()
                .try_map(move |n| if n % nth == 0 { Err("every nth") } else { Ok(n) })
                .on_error(ErrorPolicy::skip().at_most_share(share))
                .sink(|_| {});
            env.run()
        };
        run(100_000, 10, 0.11).unwrap();
        run(10, 5, 0.2).unwrap();
        let few = failed(run(10, 5, 0.1));
        assert_eq!(few.first_cause.unwrap().message, "2 of 10 records were skipped, and the error policy allows 10 %");
        let many = failed(run(100_000_000, 10, 0.05));
        assert!(many.operators[0].records_out < 100_000_000, "it did not go on to the end");
        assert!(many.first_cause.unwrap().message.contains("allows 5 %"));
    });
}

#[test]
fn a_panic_fails_the_job_whatever_the_policy() {
    leak_free(|_| {
        let env = Environment::local("panic");
        env.from_iter(0..3).map(|n| assert!(n < 1, "no")).on_error(ErrorPolicy::skip()).sink(|()| {});
        let report = failed(env.run());
        assert_eq!(report.first_cause.unwrap().kind, CauseKind::Panic);
    });
}

#[test]
fn options_that_cannot_be_are_said_before_anything_starts() {
    let refused = |env: Environment, text: &str| match env.run() {
        Err(sage::RunError::Submit(error @ SubmitError::OperatorOption { .. })) => assert_eq!(error.to_string(), text),
        other => panic!("{other:?}"),
    };
    let declared = |policy| {
        let env = Environment::local("options");
        env.from_iter(TEXTS).try_map(parse).named("parse").on_error(policy).sink(|_| {});
        env
    };
    refused(declared(ErrorPolicy::skip().at_most_share(1.5)), "`parse`: a share of errors is between 0 and 1, not 1.5");
    refused(
        declared(ErrorPolicy::skip().at_most_share(f64::NAN)),
        "`parse`: a share of errors is between 0 and 1, not NaN",
    );
    let env = Environment::local("options");
    env.from_iter(TEXTS).try_map(parse).named("parse").retry(Retry::up_to(0)).sink(|_| {});
    refused(env, "`parse`: a retry makes at least one attempt in all");
}

#[test]
fn limits_of_zero_are_refused_before_anything_starts() {
    let refused = |declare: &dyn Fn(&Environment), text: &str| {
        let env = Environment::local("limits");
        declare(&env);
        match env.run() {
            Err(sage::RunError::Submit(error @ SubmitError::OperatorOption { .. })) => {
                assert_eq!(error.to_string(), text);
            }
            other => panic!("{other:?}"),
        }
    };
    let never = |n: u64| -> u64 { panic!("record {n} was given, and nothing was to start") };
    refused(
        &|env| drop(env.from_iter([1]).map(never).zip(env.from_iter([2])).max_ahead(0).named("pairs").sink(|_| {})),
        "`pairs`: `max_ahead` is 0; it may be 1 or more",
    );
    type Keyed<'a> = &'a dyn Fn(&Environment);
    let joins: [Keyed<'_>; 4] = [
        &|env| {
            let side = || env.from_iter([1]).map(never).key_by(|n| *n);
            side().join(side()).max_records(0).inner().named("both").sink(|_| {});
        },
        &|env| {
            let side = || env.from_iter([1]).map(never).key_by(|n| *n);
            side().join(side()).max_records(0).full().named("both").sink(|_| {});
        },
        &|env| {
            let timed =
                || env.from_iter([1]).map(never).with_timestamps(|_| Timestamp::MIN, OutOfOrder::by(Duration::ZERO));
            let side = || timed().key_by(|n| n.value);
            let windows = Tumbling::of(Duration::from_secs(1));
            side().join(side()).window(windows).max_records(0).left().named("both").sink(|_| {});
        },
        &|env| {
            let timed =
                || env.from_iter([1]).map(never).with_timestamps(|_| Timestamp::MIN, OutOfOrder::by(Duration::ZERO));
            let side = || timed().key_by(|n| n.value);
            side()
                .join(side())
                .max_records(0)
                .window(Tumbling::of(Duration::from_secs(1)))
                .inner()
                .named("both")
                .sink(|_| {});
        },
    ];
    for declare in joins {
        refused(declare, "`both`: `max_records` is 0; it may be 1 or more");
    }
    let env = Environment::local("one");
    let pairs = env.from_iter([1]).zip(env.from_iter([2])).max_ahead(1).collect();
    env.run().unwrap();
    assert_eq!(pairs.take(), [(1, 2)]);
}

#[test]
fn contract_04_a_cancel_ends_an_operator_whose_output_is_held_and_has_no_end() {
    leak_free(|_| {
        for held_by in ["skip", "dead_letters", "retry"] {
            let env = Environment::local("held");
            let journal = Journal::new();
            let seen = journal.clone();
            // Units, so that keeping them takes no memory however many they are.
            let endless = env.from_collection(vec![()]).flat_map(move |()| {
                seen.note("emits");
                std::iter::repeat(())
            });
            let counting = CountingSink::default();
            let (counts, sink) = (counting.counts.clone(), move |_| counting.clone());
            match held_by {
                "skip" => drop(endless.on_error(ErrorPolicy::skip()).map(|()| 0).sink_to(sink)),
                "retry" => drop(endless.retry(Retry::up_to(2)).map(|()| 0).sink_to(sink)),
                _ => {
                    let (endless, dead) = endless.dead_letters();
                    endless.map(|()| 0).sink_to(sink);
                    dead.sink(|_| {});
                }
            }
            let job = env.submit().unwrap();
            journal.await_events("emits", 1);
            let report = cancelled(&job);
            assert_eq!((counts.opened(), counts.finished(), counts.closed()), (1, 0, 1), "{held_by}");
            assert!(report.elapsed < Duration::from_secs(8), "not by the deadline: {report}");
        }
    });
}

#[test]
fn a_record_is_tried_again_and_given_up_with_its_last_error() {
    leak_free(|_| {
        let env = Environment::local("retry");
        let mut tried = 0;
        env.from_iter(["a", "b"])
            .try_map(move |text| {
                tried += 1;
                if text == "a" { Ok(text) } else { Err(format!("attempt {tried}")) }
            })
            .named("flaky")
            .retry(Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO))
            .sink(|_| {});
        let report = failed(env.run());
        let cause = report.first_cause.clone().unwrap();
        assert_eq!(cause.to_string(), "operator `flaky`, record 2: gave up after 3 attempts: attempt 4");
        assert_eq!(cause.error.unwrap().downcast_ref::<RetriesExhausted>().unwrap().attempts, 3);
        assert_eq!((report.operator("flaky").unwrap().retries, counts(&report, "flaky").2), (2, 1));
    });
}

#[test]
fn only_errors_that_the_retry_is_for_are_tried_again() {
    leak_free(|_| {
        let env = Environment::local("retry");
        let mut tried = 0;
        let (done, dead) = env
            .from_iter(["busy busy wrong", "wrong", "busy busy busy"])
            .try_map(move |text| {
                tried += 1;
                let now = text.split(' ').nth((tried - 1) % 3).unwrap_or("wrong");
                if now == "wrong" {
                    tried = 0
                }
                Err::<(), _>(now.to_owned())
            })
            .retry(Retry::up_to(3).backoff(Duration::ZERO, Duration::ZERO).when(|error| error.to_string() == "busy"))
            .dead_letters();
        done.sink(|()| {});
        let dead = dead.collect();
        env.run().unwrap();
        let told: Vec<_> = dead.take().into_iter().map(|letter| (letter.attempts, letter.errors)).collect();
        let gave_up = |error: &str| vec!["gave up after 3 attempts".to_owned(), error.to_owned()];
        assert_eq!(told, [(3, gave_up("wrong")), (1, vec!["wrong".to_owned()]), (3, gave_up("busy"))]);
    });
}

#[test]
fn a_fatal_error_fails_the_job_whatever_the_policy() {
    let declare = |env: &Environment, policy: &str| {
        let stream = env.from_iter(1..=5).try_map(|n| match n {
            3 => Err(Fatal::new("stop here").into()),
            n if n % 2 == 0 => Err(BoxError::from("even")),
            n => Ok(n),
        });
        let retry = Retry::up_to(5).backoff(Duration::ZERO, Duration::ZERO);
        match policy {
            "skip" => drop(stream.on_error(ErrorPolicy::skip()).sink(|_| {})),
            "retry" => drop(stream.retry(retry).on_error(ErrorPolicy::skip()).sink(|_| {})),
            _ => {
                let (stream, dead) = stream.dead_letters();
                stream.sink(|_| {});
                dead.sink(|_| {});
            }
        }
    };
    for policy in ["skip", "retry", "letters"] {
        leak_free(|_| {
            let env = Environment::local("fatal");
            declare(&env, policy);
            let report = failed(env.run());
            let cause = report.first_cause.unwrap();
            assert_eq!(cause.to_string(), "operator `try-map-1`, record 3: stop here", "{policy}");
        });
    }
}

#[test]
fn contract_04_a_cancel_ends_the_wait_between_two_attempts() {
    leak_free(|_| {
        let env = Environment::local("wait");
        let journal = Journal::new();
        let tried = journal.clone();
        env.from_iter([1])
            .try_map(move |_| {
                tried.note("tried");
                Err::<u32, _>("never")
            })
            .retry(Retry::up_to(5).backoff(Duration::from_secs(3600), Duration::from_secs(3600)))
            .sink(|_| {});
        let job = env.submit().unwrap();
        journal.await_events("tried", 1);
        job.cancel();
        cancelled(&job);
        assert_eq!(journal.count("tried"), 1);
    });
}

#[test]
fn dead_letters_carry_the_record_and_what_is_known_of_its_failure() {
    leak_free(|_| {
        let env = Environment::local("dead");
        let (numbers, dead) = env
            .from_iter(TEXTS)
            .try_map(parse)
            .named("parse")
            .retry(Retry::up_to(2).backoff(Duration::ZERO, Duration::ZERO))
            .dead_letters();
        let (numbers, dead) = (numbers.map(|n| n + 1).collect(), dead.collect());
        let report = env.run().unwrap();
        assert_eq!(numbers.take(), [2, 4, 6]);
        let dead: Vec<DeadLetter<&str>> = dead.take();
        assert_eq!(
            dead.iter().map(|letter| (letter.record, letter.position)).collect::<Vec<_>>(),
            [("x", 2), ("y", 4), ("z", 6)]
        );
        for letter in &dead {
            assert_eq!((letter.operator.as_str(), letter.replica, letter.attempts), ("parse", 0, 2));
            assert_eq!(letter.errors, ["gave up after 2 attempts", "invalid digit found in string"]);
            assert!(letter.time_ms > 1_700_000_000_000);
        }
        assert_eq!(counts(&report, "parse"), (6, 3, 3));
    });
}

#[test]
fn dead_letters_over_replicas_lose_nothing() {
    leak_free(|_| {
        for block_records in [1, 7, 64] {
            let env = Environment::local("dead").block_records(block_records);
            let (even, odd) = env
                .from_iter(0..10_000_u32)
                .try_map(|n| if n % 2 == 0 { Ok(n) } else { Err("odd") })
                .parallelism(3)
                .dead_letters();
            let (even, odd) = (even.collect(), odd.map(|letter| letter.record).collect());
            env.run().unwrap();
            assert_eq!(sorted(even.take()), (0..10_000).step_by(2).collect::<Vec<_>>());
            assert_eq!(sorted(odd.take()), (1..10_000).step_by(2).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_split_sends_each_record_one_way() {
    leak_free(|_| {
        let env = Environment::local("split");
        let (small, large) = env.from_iter(0..1000_u32).split(|n| *n < 100);
        let (small, large) = (small.collect(), large.collect());
        let (oks, errors) = env.from_iter(TEXTS).map(parse).split_ok();
        let (oks, errors) = (oks.collect(), errors.count().collect());
        env.run().unwrap();
        assert_eq!(small.take(), (0..100).collect::<Vec<_>>());
        assert_eq!(large.take(), (100..1000).collect::<Vec<_>>());
        assert_eq!((oks.take(), errors.take()), (vec![1, 3, 5], vec![3]));

        let env = Environment::local("inline").inline();
        let (small, large) = env.from_iter(0..1000_u32).split(|n| *n < 100);
        let (small, large) = (small.count().collect(), large.count().collect());
        env.run().unwrap();
        assert_eq!((small.take(), large.take()), (vec![100], vec![900]));
    });
}

#[test]
fn either_way_of_a_split_may_end_first() {
    leak_free(|_| {
        for (main, side) in [(0, 5), (5, 0), (3, 3)] {
            let env = Environment::local("ends");
            let (even, odd) = env.from_factory(|_| 0_u64..).split(|n| n % 2 == 0);
            let (even, odd) = (even.take(main).collect(), odd.take(side).collect());
            env.run().unwrap();
            assert_eq!((even.take().len() as u64, odd.take().len() as u64), (main, side));
        }
    });
}

#[test]
fn contract_16_a_side_that_is_slow_holds_the_other_up_and_loses_nothing() {
    leak_free(|_| {
        let env = Environment::local("slow-side").block_records(2).queue_blocks(2);
        let gate = Gate::new();
        let held = gate.clone();
        let (fast, slow) = env.from_iter(0..1000_u64).split(|n| n % 2 == 0);
        let fast = fast.collect();
        let slow = slow.inspect(move |_| held.pass()).collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        assert!(job.wait_timeout(Duration::from_millis(20)).is_none());
        gate.open();
        job.wait().unwrap();
        assert_eq!((fast.take().len(), slow.take().len()), (500, 500));
    });
}

#[test]
fn a_side_stream_without_a_sink_is_named() {
    let env = Environment::local("dangling");
    let (main, side) = env.from_iter(0..3).split(|_| true);
    main.sink(|_| {});
    drop(side);
    match env.run() {
        Err(sage::RunError::Submit(SubmitError::MissingSink { operator })) => assert_eq!(operator, "split-1"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_split_is_cancelled_while_its_side_is_blocked() {
    leak_free(|_| {
        let env = Environment::local("blocked").block_records(1).queue_blocks(2);
        let gate = Gate::new();
        let held = gate.clone();
        let (main, side) = env.from_factory(|_| 0_u64..).split(|_| false);
        main.sink(|_| {});
        side.sink(move |_| held.pass());
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        await_status(&job, sage::JobState::Draining);
        gate.open();
        cancelled(&job);
    });
}
