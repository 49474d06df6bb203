//! Explaining and validating: everything that is said before anything starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use insta::assert_snapshot;
use sage::{Environment, RunError, Service, SubmitError};

use crate::leaks::leak_free;

struct Idle;
impl Service for Idle {}

/// Registers a service that counts its constructors.
fn register_counted(env: &Environment, constructed: &Arc<AtomicUsize>) {
    let counter = constructed.clone();
    env.register_service("counted", move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Idle
    })
    .build();
}

/// Fails unless running `declare`d pipelines is refused with this message, before a constructor has run.
#[track_caller]
fn assert_refused(declare: impl FnOnce(Environment) -> Environment, expected: &str) {
    leak_free(|_| {
        let constructed = Arc::new(AtomicUsize::new(0));
        let env = Environment::local("refused");
        register_counted(&env, &constructed);
        let env = declare(env);
        match env.run() {
            Err(RunError::Submit(error)) => assert_eq!(error.to_string(), expected),
            Err(error) => panic!("it was started: {error}"),
            Ok(report) => panic!("it ran: {report}"),
        }
        assert_eq!(
            env.submit().map(drop).expect_err("it is refused").to_string(),
            expected,
            "the second time as the first"
        );
        assert_eq!(constructed.load(Ordering::SeqCst), 0, "nothing was started");
    });
}

#[test]
fn the_text_of_explain_shows_chains_exchanges_and_services() {
    let env = Environment::local("orders");
    let store = env.register_service("store", || Idle).build();
    env.register_service("index", || Idle).after(&store).after("cache").build();
    env.register_service("cache", || Idle).build();
    let [orders, audit] = env.from_iter(["a"]).named("orders").map(|order| order).named("clean").tee();
    let counted = orders.key_by(|order| *order).count().parallelism(4).named("per-customer");
    counted.map(|(order, _)| order).on_another_thread().union(env.from_iter(["b"])).sink(|_| {}).named("shop");
    audit.rebalance(2).broadcast(3).write_lines("audit.txt");
    assert_snapshot!(env.explain(), @"
    environment `orders`: 10 chains, 22 tasks
      chain 1 ×1: orders → clean
        → chain 2 (forward)
        → chain 7 (forward)
      chain 2 ×1: forward-1
        → chain 3 (hash)
      chain 3 ×4: per-customer → map-2
        → chain 4 (forward)
      chain 4 ×4: forward-2
        → chain 6 (forward)
      chain 5 ×1: iter-2
        → chain 6 (forward)
      chain 6 ×4: shop
      chain 7 ×1: forward-3
        → chain 8 (round robin)
      chain 8 ×2: forward-4
        → chain 9 (broadcast)
      chain 9 ×3: forward-5
        → chain 10 (gather)
      chain 10 ×1: write-lines-1
      service store
      service index, after store, cache
      service cache
    ");
}

#[test]
fn the_dot_of_explain_is_a_graph_with_quoted_names() {
    let env = Environment::local("say \"hi\"");
    let store = env.register_service("store", || Idle).build();
    env.register_service("index", || Idle).after(&store).build();
    env.from_iter([1]).named("back\\slash").map(|n| n).parallelism(2).sink(|_| {}).named("two\nlines");
    assert_snapshot!(env.explain().dot(), @r#"
    digraph "say \"hi\"" {
      rankdir=LR;
      node [shape=box];
      chain1 [label="back\\slash ×1"];
      chain2 [label="map-1 → two\nlines ×2"];
      chain1 -> chain2 [label="round robin"];
      "service store" [shape=ellipse];
      "service index" [shape=ellipse];
      "service index" -> "service store" [style=dashed, label="uses"];
    }
    "#);
}

#[test]
fn explaining_runs_nothing() {
    leak_free(|_| {
        let constructed = Arc::new(AtomicUsize::new(0));
        let counter = constructed.clone();
        let env = Environment::local("explain");
        register_counted(&env, &constructed);
        env.from_factory(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            [1]
        })
        .sink(|_| {});
        assert!(!env.explain().to_string().is_empty());
        assert_eq!(constructed.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn an_environment_without_a_pipeline_is_refused() {
    assert_refused(
        |env| env,
        "the environment has no pipeline; declare one with a source, for example `env.from_iter(..)`",
    );
}

#[test]
fn a_stream_without_a_sink_is_refused_by_its_last_operator() {
    let expected =
        |operator| format!("the stream after `{operator}` has no sink; end it with `.sink(..)` or `.collect()`");
    assert_refused(
        |env| {
            env.from_iter([1]).sink(|_| {});
            drop(env.from_iter([1]).map(|n| n).named("loose"));
            env
        },
        &expected("loose"),
    );
    assert_refused(
        |env| {
            drop(env.from_iter([1]).named("loose").on_another_thread());
            env
        },
        &expected("loose"),
    );
    assert_refused(
        |env| {
            let [used, unused] = env.from_iter([1]).named("teed").tee();
            used.sink(|_| {});
            drop(unused);
            env
        },
        &expected("teed"),
    );
}

#[test]
fn a_parallelism_of_zero_is_refused() {
    let expected = |operator| format!("operator `{operator}` has a parallelism of 0; it needs at least 1");
    let refused = |declare: fn(&Environment), operator| {
        assert_refused(
            |env| {
                declare(&env);
                env
            },
            &expected(operator),
        );
    };
    refused(|env| drop(env.from_factory(|_| [1]).parallelism(0).named("none").sink(|_| {})), "none");
    refused(|env| drop(env.from_iter([1]).map(|n| n).parallelism(0).named("none").sink(|_| {})), "none");
    refused(|env| drop(env.from_iter([1]).rebalance(0).map(|n| n).named("none").sink(|_| {})), "none");
    refused(|env| drop(env.from_iter([1]).key_by(|n| *n).count().parallelism(0).named("none").sink(|_| {})), "none");
    refused(|env| drop(env.from_iter([1]).sink(|_| {}).named("none").parallelism(0)), "none");
    refused(|env| drop(env.from_iter([1]).broadcast(0).sink(|_| {}).named("none")), "none");
}

#[test]
fn two_operators_of_one_name_are_refused() {
    assert_refused(
        |env| {
            env.from_iter([1]).map(|n| n).named("same").sink(|_| {}).named("same");
            env
        },
        "two operators are named `same`; names are unique in an environment",
    );
}

#[test]
fn a_given_name_does_not_clash_with_a_default_one() {
    leak_free(|_| {
        let env = Environment::local("names");
        env.from_iter([1]).map(|n| n).named("map-2").map(|n| n).sink(|_| {});
        env.run().unwrap();
    });
}

#[test]
fn two_services_of_one_name_are_refused() {
    assert_refused(
        |env| {
            env.register_service("counted", || Idle).build();
            env.from_iter([1]).sink(|_| {});
            env
        },
        "two services are named `counted`; names are unique in an environment",
    );
}

#[test]
fn a_dependency_that_is_not_registered_is_refused() {
    assert_refused(
        |env| {
            env.register_service("index", || Idle).after("sotre").build();
            env.from_iter([1]).sink(|_| {});
            env
        },
        "service `index` is declared after `sotre`, which is not registered",
    );
}

#[test]
fn services_that_wait_for_each_other_are_refused() {
    assert_refused(
        |env| {
            env.register_service("a", || Idle).after("b").build();
            env.register_service("b", || Idle).after("c").build();
            env.register_service("c", || Idle).after("b").build();
            env.from_iter([1]).sink(|_| {});
            env
        },
        "services wait for each other: b → c → b",
    );
    assert_refused(
        |env| {
            env.register_service("self", || Idle).after("self").build();
            env.from_iter([1]).sink(|_| {});
            env
        },
        "services wait for each other: self → self",
    );
}

#[test]
fn an_option_out_of_range_is_refused() {
    let refused = |change: fn(Environment) -> Environment, expected| {
        assert_refused(
            |env| {
                env.from_iter([1]).sink(|_| {});
                change(env)
            },
            expected,
        );
    };
    refused(|env| env.block_records(0), "block_records is 0; it may be 1 to 1048576");
    refused(|env| env.block_records(1 << 21), "block_records is 2097152; it may be 1 to 1048576");
    refused(|env| env.queue_blocks(1), "queue_blocks is 1; it may be 2 to 65536");
    refused(|env| env.queue_blocks(1 << 17), "queue_blocks is 131072; it may be 2 to 65536");
}

#[test]
fn a_refused_environment_keeps_its_one_shot_sources() {
    leak_free(|_| {
        let env = Environment::local("refused").block_records(0);
        let out = env.from_iter([1, 2]).collect();
        assert!(matches!(env.submit(), Err(SubmitError::Option { .. })));
        let env = env.block_records(1);
        env.run().unwrap();
        assert_eq!(out.take(), [1, 2]);
    });
}

#[test]
fn log_files_that_cannot_be_opened_refuse_the_job_and_keep_its_sources() {
    leak_free(|_| {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("file");
        std::fs::write(&in_the_way, "").unwrap();
        let env = Environment::local("logs").log_files(&in_the_way);
        let out = env.from_iter([1, 2]).collect();
        let error = env.submit().map(drop).unwrap_err();
        assert!(matches!(error, SubmitError::LogFiles(_)), "{error}");
        let env = env.log_files(dir.path());
        env.run().unwrap();
        assert_eq!(out.take(), [1, 2]);
    });
}

#[test]
fn durations_without_end_are_taken_as_no_limit() {
    leak_free(|_| {
        let deadlines = sage::Deadlines {
            setup: Duration::MAX,
            drain: Duration::MAX,
            cancel: Duration::MAX,
            stop: Duration::MAX,
            cleanup: Duration::MAX,
        };
        let env = Environment::local("unlimited")
            .deadlines(deadlines)
            .time_limit(Duration::MAX)
            .flush_interval(Duration::MAX);
        env.register_service("idle", || Idle).build();
        let out = env.from_collection(vec![1, 2]).on_another_thread().collect();
        env.run().unwrap();
        assert_eq!(out.take(), [1, 2]);
        let job = env.submit().unwrap();
        job.drain();
        assert!(job.wait_timeout(Duration::MAX).unwrap().unwrap().is_success());
    });
}

#[test]
fn a_stream_of_another_environment_is_refused() {
    let other = Environment::local("other");
    let foreign = other.from_iter([1]);
    assert_refused(
        |env| {
            env.from_iter([1]).named("ours").union(foreign).sink(|_| {});
            env
        },
        "a stream of another environment comes in at `ours`; declare both streams in one environment",
    );
}

#[test]
fn a_name_for_nothing_is_refused() {
    assert_refused(
        |env| {
            env.from_iter([1]).on_another_thread().named("nothing").sink(|_| {});
            env
        },
        "`.named(\"nothing\")` stands after an exchange, which has no name; put it after an operator",
    );
}

#[test]
fn names_may_be_of_any_length_and_of_any_characters() {
    leak_free(|_| {
        for name in ["", "a\0b", "a name of more than fifteen bytes", "größer ×2 \u{1f980}", "two\nlines", "{}%s"] {
            let dir = tempfile::tempdir().unwrap();
            let env = Environment::local(name).log_files(dir.path());
            let idle = env.register_service(name, || Idle).build();
            let in_record = idle.clone();
            let out = env
                .from_collection(vec![1])
                .named(name)
                .try_map(move |n| in_record.call(|_| n))
                .parallelism(2)
                .named(format!("{name}'s map"))
                .collect();
            let report = env.run().unwrap();
            assert_eq!((out.take(), idle.name()), (vec![1], name));
            assert!(report.operator(name).is_some() && report.service(name).is_some());
            assert!(!env.explain().dot().is_empty() && !report.to_string().is_empty());
        }
    });
}
