//! Random graphs, run: what they give, in which order, when, and how they fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sage::{Environment, ErrorPolicy, Outcome, RunError, Timed};

use super::build::Builder;
use super::late::arrivals;
use super::order::{self, Orderly, orderly};
use super::plan::{Clocked, FAR, Plan, Record, Step, clocked, plans, source, steps};
use super::reference::{interpret, interpret_clocked};
use super::runner::{check, check_from};
use super::tree::Smaller;
use crate::leaks::leak_free;
use crate::probes::{PATIENCE, sorted};

/// How a graph is run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Options {
    /// The defaults of the engine, if none.
    blocks: Option<Blocks>,
    inline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Blocks {
    records: usize,
    queue: usize,
    flush_micros: u64,
}

fn options(inline: f64) -> impl Strategy<Value = Options> {
    let blocks = (1..65_usize, 2..9_usize, 1..5000_u64);
    let blocks = blocks.prop_map(|(records, queue, flush_micros)| Blocks { records, queue, flush_micros });
    let options = (prop::option::weighted(0.7, blocks), prop::bool::weighted(inline));
    options.prop_map(|(blocks, inline)| Options { blocks, inline })
}

impl Options {
    fn environment(self) -> Environment {
        // A graph that hangs fails, so that it can be made smaller and printed.
        let mut env = Environment::local("graph").time_limit(PATIENCE);
        if let Some(Blocks { records, queue, flush_micros }) = self.blocks {
            let flush = Duration::from_micros(flush_micros);
            env = env.block_records(records).queue_blocks(queue).flush_interval(flush);
        }
        if self.inline { env.inline() } else { env }
    }
}

impl Smaller for Options {
    fn smaller(&self) -> Vec<Self> {
        let plain = Self { blocks: None, inline: false };
        (*self != plain).then_some(plain).into_iter().collect()
    }
}

/// A pair is made smaller at either side.
impl<A: Smaller + Clone, B: Smaller + Clone> Smaller for (A, B) {
    fn smaller(&self) -> Vec<Self> {
        let first = self.0.smaller().into_iter().map(|first| (first, self.1.clone()));
        first.chain(self.1.smaller().into_iter().map(|second| (self.0.clone(), second))).collect()
    }
}

fn failed(error: impl ToString) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

#[test]
fn random_graphs_give_what_the_reference_gives() {
    leak_free(|_| {
        check("random_graphs_give_what_the_reference_gives", 1, (plans(2), options(0.1)), |(plan, options)| {
            let env = options.environment();
            let out = Builder::new(&env, None).declare(&plan).collect();
            let report = env.run().map_err(failed)?;
            prop_assert!(report.is_success());
            prop_assert_eq!(sorted(out.take()), sorted(interpret(&plan)));
            Ok(())
        });
    });
}

/// As [`Orderly`] says, and from a source in one replica.
type Ordered = (Vec<Orderly>, Options);

#[test]
fn random_graphs_keep_the_order_of_each_key() {
    leak_free(|_| {
        let strategy = (vec(orderly(), 0..7), options(0.1));
        check("random_graphs_keep_the_order_of_each_key", 4, strategy, |(steps, options): Ordered| {
            let env = options.environment();
            let records: Vec<Record> = source(200).collect();
            let out = order::declare(&env, records.clone(), &steps).collect();
            env.run().map_err(failed)?;
            prop_assert_eq!(order::per_key(out.take()), order::per_key(order::interpret(records, &steps)));
            Ok(())
        });
    });
}

/// Every window comes out while the sources are open: no watermark is lost on the way.
#[test]
fn random_graphs_give_their_windows_while_the_sources_are_open() {
    leak_free(|_| {
        let name = "random_graphs_give_their_windows_while_the_sources_are_open";
        check(name, 4, (clocked(0), options(0.0)), |(plan, options): (Clocked, Options)| {
            let expected = interpret_clocked(&plan, true);
            let before = |timed: &&Timed<Record>| timed.time.millis() < FAR / 2;
            let missing = expected.iter().filter(before).count();
            let let_go = Arc::new(AtomicBool::new(missing == 0));
            let env = options.environment();
            let (seen, open) = (Arc::new(AtomicUsize::new(0)), let_go.clone());
            let out = Builder::new(&env, Some(let_go)).declare_clocked(&plan);
            let out = out.inspect(move |timed| {
                if before(&timed) && seen.fetch_add(1, Ordering::AcqRel) + 1 == missing {
                    open.store(true, Ordering::Release);
                }
            });
            let out = out.collect();
            let report = env.run().map_err(failed)?;
            prop_assert!(report.operators.iter().all(|operator| operator.late == 0), "{}", report);
            prop_assert_eq!(sorted(out.take()), sorted(expected));
            Ok(())
        });
    });
}

#[test]
fn random_arrivals_are_late_as_the_oracle_says() {
    leak_free(|_| {
        check("random_arrivals_are_late_as_the_oracle_says", 1, arrivals(), |arrivals| {
            prop_assert_eq!(arrivals.run()?, arrivals.expected());
            Ok(())
        });
    });
}

/// How a graph fails.
#[derive(Debug, Clone, Copy)]
enum Fatal {
    Sink,
    Error,
    Panic,
    Async,
    /// One record more is skipped than may be.
    Budget,
}

/// A graph with an operator that fails on one of its records, and a step behind that.
#[derive(Debug, Clone)]
struct Failing {
    plan: Plan,
    fatal: Fatal,
    replicas: usize,
    which: Index,
    behind: Step,
    options: Options,
}

impl Smaller for Failing {
    fn smaller(&self) -> Vec<Self> {
        let plans = self.plan.smaller().into_iter().map(|plan| Self { plan, ..self.clone() });
        plans.chain(self.options.smaller().into_iter().map(|options| Self { options, ..self.clone() })).collect()
    }
}

fn fails() -> impl Strategy<Value = Failing> {
    let fatal =
        prop_oneof![Just(Fatal::Sink), Just(Fatal::Error), Just(Fatal::Panic), Just(Fatal::Async), Just(Fatal::Budget)];
    // A step that has enough could end the graph before it fails.
    let behind = steps().prop_filter("an early end", |step| !matches!(step, Step::Take(_)));
    let all = (plans(1), fatal, 1..6_usize, any::<Index>(), behind, options(0.1));
    all.prop_map(|(plan, fatal, replicas, which, behind, options)| Failing {
        plan,
        fatal,
        replicas,
        which,
        behind,
        options,
    })
}

#[test]
fn random_graphs_that_fail_are_clean() {
    leak_free(|_| {
        check("random_graphs_that_fail_are_clean", 4, fails(), |failing| {
            let Failing { plan, fatal, replicas, which, behind, options } = failing;
            let expected = interpret(&plan);
            if expected.is_empty() {
                return Ok(());
            }
            let poison = expected[which.index(expected.len())];
            let env = options.environment();
            let builder = Builder::new(&env, None);
            let stream = builder.declare(&plan);
            let fatal_for = move |record: Record| if record == poison { Err("poison") } else { Ok(record) };
            let stream = match fatal {
                Fatal::Sink => {
                    let [stream, fatal] = stream.tee();
                    fatal.try_sink(move |record| fatal_for(record).map(drop)).named("fatal");
                    stream
                }
                Fatal::Error => stream.try_map(fatal_for).named("fatal").parallelism(replicas).on_another_thread(),
                Fatal::Panic => {
                    let panics = move |record| fatal_for(record).unwrap_or_else(|poison| panic!("{poison}"));
                    stream.map(panics).named("fatal").parallelism(replicas).on_another_thread()
                }
                Fatal::Async => {
                    let fails = move |record: Record| async move { fatal_for(record) };
                    let results = stream.try_map_async(4, sage::Order::Unordered, fails);
                    results.named("fatal").parallelism(replicas).on_another_thread()
                }
                Fatal::Budget => {
                    // All fail, in one replica, and all but one may.
                    let allowed = expected.len() as u64 - 1;
                    let all_fail = |record: Record| if record.0 < u8::MAX { Err("poison") } else { Ok(record) };
                    let failing = stream.rebalance(1).try_map(all_fail).named("fatal");
                    failing.on_error(ErrorPolicy::skip().at_most(allowed)).on_another_thread()
                }
            };
            builder.one(behind, replicas, stream).sink(|_| {});
            match env.run() {
                Err(RunError::Job(error)) => {
                    let report = &error.report;
                    prop_assert_eq!(report.outcome, Outcome::Failed);
                    prop_assert!(report.left.is_empty());
                    let cause = report.first_cause.as_ref().expect("a job that failed has a cause");
                    prop_assert!(cause.to_string().starts_with("operator `fatal`"), "{}", cause);
                    let mut source: Option<&(dyn std::error::Error + 'static)> =
                        cause.error.as_deref().map(|it| it as _);
                    let mut said = cause.to_string();
                    while let Some(error) = source {
                        said.push_str(&error.to_string());
                        source = error.source();
                    }
                    prop_assert!(said.contains("poison"), "{}", said);
                    Ok(())
                }
                other => Err(TestCaseError::fail(format!("{other:?}"))),
            }
        });
    });
}

/// A runner that finds nothing, or that makes nothing smaller, would make all of these pass, or be of no use.
#[test]
fn a_graph_that_fails_is_made_smaller_and_printed_with_its_seed() {
    let has_loop = |plan: &Plan| format!("{plan:?}").contains("Loop");
    let found = std::panic::catch_unwind(|| {
        check_from(1, 1000, "no_graph_has_a_loop", plans(2), |plan: Plan| {
            prop_assert!(!has_loop(&plan), "a loop");
            Ok(())
        });
    });
    let message = *found.expect_err("some graph has a loop").downcast::<String>().expect("a panic with a text");
    assert!(message.contains("SAGE_GRAPHS_SEED=") && message.contains("SAGE_GRAPHS=1 "), "{message}");
    assert!(message.contains("no_graph_has_a_loop"), "{message}");
    // Nothing but the loop is left, of what led to it and what came behind.
    let words: String = message.split_whitespace().collect();
    assert_eq!(words.matches("One(").count() + words.matches("Two(").count(), 1, "{message}");
    assert!(words.contains("One(Loop(") && words.contains("Leaf(Source{records:0,replicas:1,},)"), "{message}");
}
