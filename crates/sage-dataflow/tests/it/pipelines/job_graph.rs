//! The graph of a job as data: the same before a run, while it runs, and read back from JSON.

use insta::assert_snapshot;
use sage::{Environment, Explain, JobGraph, Placement, Service};

use crate::leaks::leak_free;

struct Idle;
impl Service for Idle {}

/// Everything that a graph can have: keys, replicas, side outputs, a loop, services.
fn declare(env: &Environment) {
    let store = env.register_service("store", || Idle).build();
    env.register_service("index", || Idle).after(&store).build();
    let numbers = env.from_collection(vec!["1", "two", "3"]);
    let (numbers, dead) = numbers.try_map(|text| text.parse::<u64>()).named("parse").dead_letters();
    dead.sink(|_| {}).named("dead");
    let (again, feedback) = env.feedback("again");
    let (odd, even) = numbers.on_another_thread().union(again).split(|n| n % 2 == 1);
    feedback.fill(even.map(|n| n / 2));
    odd.key_by(|n| n % 3).count().parallelism(2).named("counts").sink(|_| {});
}

#[test]
fn the_graph_of_a_pipeline_has_its_chains_tasks_edges_and_services() {
    let env = Environment::local("everything");
    declare(&env);
    let JobGraph { environment, chains, tasks, edges, services, .. } = env.graph();
    let mut told = vec![environment];
    for chain in chains {
        let operators = chain.operators.iter().map(|operator| format!("{} ({})", operator.name, operator.kind));
        let operators = operators.collect::<Vec<_>>().join(", ");
        told.push(format!("chain {} of {}: {operators}", chain.number, chain.parallelism));
    }
    for task in tasks {
        assert_eq!(task.placement, Placement::ThisProcess);
        told.push(format!("task {}: replica {} of chain {}", task.name, task.replica, task.chain));
    }
    for edge in edges {
        let back = if edge.feeds_back { ", back" } else { "" };
        told.push(format!("{} of {} to {}: {}{back}", edge.operator, edge.from, edge.to, edge.partitioning));
    }
    told.extend(services.iter().map(|service| format!("service {} after {:?}", service.name, service.after)));
    assert_snapshot!(told.join("\n"), @r#"
    everything
    chain 1 of 1: dead (sink)
    chain 2 of 1: collection-1 (collection), parse (try-map)
    chain 3 of 1: forward-1 (forward)
    chain 4 of 1: again (feedback)
    chain 5 of 1: map-1 (map)
    chain 6 of 1: split-1 (split)
    chain 7 of 2: counts (keyed-count), sink-2 (sink)
    task dead: replica 0 of chain 1
    task collection-1: replica 0 of chain 2
    task forward-1: replica 0 of chain 3
    task again: replica 0 of chain 4
    task map-1: replica 0 of chain 5
    task split-1: replica 0 of chain 6
    task counts/0: replica 0 of chain 7
    task counts/1: replica 1 of chain 7
    parse of 2 to 1: forward
    parse of 2 to 3: forward
    forward-1 of 3 to 6: forward
    again of 4 to 6: forward
    split-1 of 6 to 5: forward
    map-1 of 5 to 4: gather, back
    split-1 of 6 to 7: hash
    service store after []
    service index after ["store"]
    "#);
}

#[test]
fn a_graph_survives_json_and_is_told_in_the_same_words() {
    let env = Environment::local("everything");
    declare(&env);
    let graph = env.graph();
    let json = serde_json::to_string(&graph).unwrap();
    let read: JobGraph = serde_json::from_str(&json).unwrap();
    assert_eq!(read, graph);
    assert_eq!(Explain::from(read).to_string(), env.explain().to_string());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["tasks"][0]["placement"], "this_process");
    assert_eq!(value["edges"][0]["partitioning"], "forward");
}

#[test]
fn a_job_tells_the_graph_it_was_submitted_with_and_reports_by_its_names() {
    leak_free(|_| {
        let env = Environment::local("everything");
        declare(&env);
        let graph = env.graph();
        let job = env.submit().unwrap();
        env.from_collection(vec![1]).sink(|_| {}).named("declared later");
        assert_eq!(*job.graph(), graph);
        let report = job.wait().unwrap();
        assert_eq!(*job.graph(), graph);
        let operators = graph.chains.iter().flat_map(|chain| chain.operators.iter().map(|op| (&op.name, chain.number)));
        assert!(operators.eq(report.operators.iter().map(|operator| (&operator.name, operator.chain))));
        assert_eq!(report.services.len(), graph.services.len());
        env.run().unwrap();
        assert!(env.graph().chains.len() > graph.chains.len());
    });
}

#[test]
fn a_stream_that_has_no_sink_yet_is_no_part_of_the_graph() {
    let env = Environment::local("unfinished");
    env.from_iter([1]).sink(|_| {});
    let open = env.from_iter([1]).on_another_thread().map(|n| n);
    let graph = env.graph();
    assert_eq!((graph.chains.len(), graph.edges.len()), (2, 0));
    open.sink(|_| {});
    let graph = env.graph();
    assert_eq!((graph.chains.len(), graph.edges.len()), (3, 1));
}
