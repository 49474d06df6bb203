//! The figures of a job: what its operators and services count, read while it runs and once more for the report.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;

use super::report::{JobMetrics, OperatorReport, QueueMetrics, TaskMetrics};
use crate::chain::{Cursor, During, Passed};
use crate::graph::wiring::{Counters, NodeCounters, Unfinished};
use crate::graph::{Graph, Head, JobGraph};
use crate::ids::NodeId;
use crate::metrics::{Counter, Doing, Look, TaskTimes};
use crate::service::{ServiceEntry, ServiceReport};
use crate::sync::lock;
use crate::task::TaskOutcome;

/// What can be asked of a job at any moment.
pub(crate) struct Figures {
    graph: Arc<JobGraph>,
    /// In the order of the report.
    operators: Vec<OperatorFigures>,
    unfinished: Unfinished,
    /// How far each task has got, in the order of the graph's.
    cursors: Vec<Arc<Cursor>>,
    services: Vec<Arc<ServiceEntry>>,
    /// Those of the services when the job was over. The next job of their environment counts on with them.
    at_end: OnceLock<Vec<ServiceReport>>,
}

/// What the replicas of one operator count.
struct OperatorFigures {
    node: NodeId,
    /// Its chain, and its place in it.
    place: (usize, usize),
    is_source: bool,
    input: Input,
    /// What it emitted; `None` for one that emits a record for each it takes.
    emitted: Option<Vec<Arc<Counter>>>,
    /// What it let pass.
    passed: Vec<Arc<Passed>>,
    late: Vec<Arc<Counter>>,
    dropped_windows: Vec<Arc<Counter>>,
}

/// Where the records an operator took are counted.
enum Input {
    /// At the head of its chain.
    Chain(Vec<Arc<Counter>>),
    /// They are what the operator of this number emitted.
    Operator(usize),
}

impl Figures {
    pub(crate) fn new(
        job_graph: Arc<JobGraph>,
        graph: &Graph,
        counters: Counters,
        services: Vec<Arc<ServiceEntry>>,
        cursors: Vec<Arc<Cursor>>,
    ) -> Self {
        let Counters { taken, nodes, unfinished } = counters;
        let mut operators: Vec<OperatorFigures> = Vec::new();
        for (index, chain) in graph.chains.iter().enumerate() {
            for (position, &node) in chain.nodes.iter().enumerate() {
                let is_source = position == 0 && matches!(chain.head, Head::Source { .. });
                let NodeCounters { emitted, passed, late, dropped_windows } = nodes[node.0 as usize].clone();
                operators.push(OperatorFigures {
                    node,
                    place: (index, position),
                    is_source,
                    input: match position {
                        0 => Input::Chain(taken[index].clone()),
                        _ => Input::Operator(operators.len() - 1),
                    },
                    emitted: match is_source {
                        // A source sends on what it reads; what it failed to read is no record.
                        true => Some(taken[index].clone()),
                        false => (!graph.node(node).one_to_one).then_some(emitted),
                    },
                    passed,
                    late,
                    dropped_windows,
                });
            }
        }
        Self { graph: job_graph, operators, unfinished, cursors, services, at_end: OnceLock::new() }
    }

    pub(crate) fn graph(&self) -> &Arc<JobGraph> {
        &self.graph
    }

    pub(crate) fn services(&self) -> &[Arc<ServiceEntry>] {
        &self.services
    }

    /// What the job has done so far, and is doing; sources do nothing while it `is_paused`.
    pub(crate) fn metrics(&self, is_paused: bool) -> JobMetrics {
        let services = self.at_end.get().cloned().unwrap_or_else(|| self.service_reports());
        let (operators, tasks) = (self.operator_reports([]), self.task_metrics(is_paused));
        JobMetrics { operators, services, tasks, queues: self.queues() }
    }

    fn queues(&self) -> Vec<QueueMetrics> {
        let queues = self.graph.edges.iter().zip(self.unfinished.edges()).map(|(edge, tallies)| {
            let records = tallies.iter().map(|tally| tally.waiting() as u64).sum();
            let bytes = tallies.iter().map(|tally| tally.bytes() as u64).sum();
            QueueMetrics { operator: edge.operator.clone(), from: edge.from, to: edge.to, records, bytes }
        });
        queues.collect()
    }

    fn task_metrics(&self, is_paused: bool) -> Vec<TaskMetrics> {
        let tasks = self.graph.tasks.iter().zip(&self.cursors);
        let metrics = tasks.map(|(task, cursor)| {
            let Look { doing, since, bound, busy, blocked, idle } = cursor.activity().look();
            let reads = || self.operators.iter().any(|it| it.is_source && it.place.0 + 1 == task.chain);
            let doing = if doing == Doing::Idle && is_paused && reads() { Doing::Paused } else { doing };
            let (name, chain) = (task.name.clone(), task.chain);
            TaskMetrics { name, chain, doing, since, blocked_by: bound, busy, blocked, idle }
        });
        metrics.collect()
    }

    /// The figures of the services when the job is over, once and for all.
    pub(crate) fn services_at_end(&self) -> Vec<ServiceReport> {
        self.at_end.get_or_init(|| self.service_reports()).clone()
    }

    fn service_reports(&self) -> Vec<ServiceReport> {
        self.services.iter().map(|entry| entry.report()).collect()
    }

    /// How many records were read and are not finished: exact while the tasks wait for each other, or are over.
    pub(crate) fn unfinished(&self) -> u64 {
        self.unfinished.records()
    }

    /// The figures of every operator: counts from the counters, failures and times from the tasks that have `ended`,
    /// each with the index of its chain.
    ///
    /// An operator that sends on one record for each it takes counts nothing: its figures follow from those before it.
    pub(crate) fn operator_reports<'a>(
        &self,
        ended: impl IntoIterator<Item = (usize, &'a TaskOutcome)>,
    ) -> Vec<OperatorReport> {
        let mut reports: Vec<OperatorReport> = Vec::new();
        let mut times: HashMap<usize, TaskTimes, RandomState> = HashMap::default();
        let mut fatal: HashMap<NodeId, u64, RandomState> = HashMap::default();
        for (chain, outcome) in ended {
            let sum = times.entry(chain).or_default();
            sum.total += outcome.times.total;
            sum.blocked.add(outcome.times.blocked);
            sum.idle += outcome.times.idle;
            // In whichever chain: a key function runs before the exchange, in the name of the operator after it.
            let records = outcome.failures.iter().filter(|failure| failure.during == During::Record);
            records.filter_map(|failure| failure.operator).for_each(|node| *fatal.entry(node).or_default() += 1);
        }
        for operator in &self.operators {
            let records_in = match &operator.input {
                Input::Chain(counters) => records(counters),
                Input::Operator(before) => reports[*before].records_out,
            };
            let fatal = fatal.get(&operator.node).copied().unwrap_or_default();
            reports.push(self.operator_report(operator, records_in, fatal, times.get(&operator.place.0)));
        }
        reports
    }

    fn operator_report(
        &self,
        operator: &OperatorFigures,
        records_in: u64,
        fatal: u64,
        times: Option<&TaskTimes>,
    ) -> OperatorReport {
        let OperatorFigures { place: (chain, position), emitted, passed, late, dropped_windows, .. } = operator;
        let chain = &self.graph.chains[*chain];
        let failed = fatal + passed.iter().map(|passed| passed.skipped.records()).sum::<u64>();
        let mut report = OperatorReport {
            name: chain.operators[*position].name.clone(),
            parallelism: chain.parallelism,
            chain: chain.number,
            records_in,
            records_out: match emitted {
                Some(counters) => records(counters),
                None => records_in.saturating_sub(failed),
            },
            failed,
            retries: passed.iter().map(|passed| passed.retries.records()).sum(),
            first_error: passed.iter().find_map(|passed| lock(&passed.first).clone()),
            late: records(late),
            dropped_windows: records(dropped_windows),
            ..OperatorReport::default()
        };
        if let Some(TaskTimes { total, blocked, idle }) = times {
            (report.blocked, report.blocked_by, report.idle) = (blocked.total(), blocked.mostly(), *idle);
            report.busy = total.saturating_sub(blocked.total() + *idle);
        }
        report
    }

    fn find(&self, node: NodeId) -> Option<&OperatorFigures> {
        self.operators.iter().find(|operator| operator.node == node)
    }

    /// Whether the operator is a source.
    pub(crate) fn is_source(&self, node: NodeId) -> bool {
        self.find(node).is_some_and(|operator| operator.is_source)
    }

    pub(crate) fn operator_name(&self, node: NodeId) -> Option<String> {
        let (chain, position) = self.find(node)?.place;
        Some(self.graph.chains[chain].operators[position].name.clone())
    }
}

fn records(counters: &[Arc<Counter>]) -> u64 {
    counters.iter().map(|counter| counter.records()).sum()
}
