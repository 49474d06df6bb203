//! The plan of one run: its tasks and services, and how long each phase may take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::report::{JobMetrics, OperatorReport};
use crate::backend::{TaskBody, TaskId, TaskPlan};
use crate::chain::{Cursor, During, Passed};
use crate::graph::wiring::{Built, Counters, Unfinished};
use crate::graph::{Graph, Head};
use crate::ids::NodeId;
use crate::metrics::{Counter, TaskTimes};
use crate::service::ServiceEntry;
use crate::sync::{FOREVER, lock};
use crate::task::{Ending, TaskOutcome};

/// How long each phase of a job may take. The run itself has no limit, unless
/// [`Environment::time_limit`](crate::Environment::time_limit) sets one.
///
/// A hook that misses its deadline does not keep the job from ending: the report calls its service abandoned. Stopping
/// all services takes at most the sum of `stop` and `cleanup` along the longest chain of dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the constructor and `setup` of each service, together. Default: 60 s.
    pub setup: Duration,
    /// For a drain, from the request until the last task has ended. When it passes, the job is cancelled. Default: 30
    /// s.
    pub drain: Duration,
    /// For a cancel, from the request until the last task has ended. When it passes, the tasks that still run are
    /// abandoned. Default: 10 s.
    pub cancel: Duration,
    /// For `stop` of each service and the end of its running calls. Default: 10 s.
    pub stop: Duration,
    /// For `cleanup` of each service. Default: 10 s.
    pub cleanup: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { setup: seconds(60), drain: seconds(30), cancel: seconds(10), stop: seconds(10), cleanup: seconds(10) }
    }
}

impl Deadlines {
    /// Each no longer than a clock can be moved on by.
    pub(crate) fn bounded(self) -> Self {
        let Self { setup, drain, cancel, stop, cleanup } = self;
        let [setup, drain, cancel, stop, cleanup] = [setup, drain, cancel, stop, cleanup].map(|it| it.min(FOREVER));
        Self { setup, drain, cancel, stop, cleanup }
    }
}

/// One task as the dispatcher tracks it.
pub(crate) struct TaskRecord {
    pub(crate) name: String,
    pub(crate) chain: usize,
    pub(crate) replica: usize,
    pub(crate) cursor: Arc<Cursor>,
    pub(crate) state: TaskState,
}

pub(crate) enum TaskState {
    Waiting(TaskBody),
    Running,
    Ended(TaskOutcome),
    Abandoned,
}

impl TaskRecord {
    /// Takes the task's body, to be spawned.
    pub(crate) fn start(&mut self, id: TaskId) -> Option<TaskPlan> {
        match std::mem::replace(&mut self.state, TaskState::Running) {
            TaskState::Waiting(body) => {
                Some(TaskPlan { id, name: self.name.clone(), body, cursor: self.cursor.clone() })
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, TaskState::Running)
    }
}

/// One operator as the report shows it.
pub(crate) struct OperatorRow {
    node: NodeId,
    name: String,
    chain: usize,
    parallelism: usize,
    is_source: bool,
    input: RowInput,
    /// What it emitted; `None` for one that emits a record for each it takes.
    emitted: Option<Vec<Arc<Counter>>>,
    /// What it let pass.
    passed: Vec<Arc<Passed>>,
    late: Vec<Arc<Counter>>,
}

/// Where the records an operator took are counted.
enum RowInput {
    /// At the head of its chain.
    Chain(Vec<Arc<Counter>>),
    /// They are what the operator in this row emitted.
    Row(usize),
}

/// The run of a graph.
pub(crate) struct Plan {
    pub(crate) tasks: Vec<TaskRecord>,
    pub(crate) services: Vec<Arc<ServiceEntry>>,
    pub(crate) operators: Arc<Vec<OperatorRow>>,
    pub(crate) unfinished: Unfinished,
}

impl Plan {
    pub(crate) fn new(graph: &Graph, built: Built, services: Vec<Arc<ServiceEntry>>) -> Self {
        let tasks = built
            .tasks
            .into_iter()
            .map(|task| {
                let chain = &graph.chains[task.chain];
                let first = chain.nodes.first().map_or("chain", |&node| graph.node(node).name.as_str());
                let name = match graph.parallelism(chain) {
                    1 => first.to_owned(),
                    _ => format!("{first}/{}", task.replica),
                };
                TaskRecord {
                    name,
                    chain: task.chain,
                    replica: task.replica,
                    cursor: task.cursor,
                    state: TaskState::Waiting(TaskBody::InProcess(task.task)),
                }
            })
            .collect();
        let Counters { taken, emitted, passed, late, unfinished } = built.counters;
        let (chains, nodes) = (graph.chains.len(), graph.nodes.len());
        let at = |node: NodeId| node.0 as usize;
        let mut taken = grouped(chains, taken);
        let mut emitted = grouped(nodes, emitted.into_iter().map(|(node, counter)| (at(node), counter)));
        let mut passed = grouped(nodes, passed.into_iter().map(|((node, _), passed)| (at(node), passed)));
        let mut late = grouped(nodes, late.into_iter().map(|(node, counter)| (at(node), counter)));
        let mut operators: Vec<OperatorRow> = Vec::new();
        for (index, chain) in graph.chains.iter().enumerate() {
            for (position, &node) in chain.nodes.iter().enumerate() {
                let is_source = position == 0 && matches!(chain.head, Head::Source { .. });
                let emitted = match is_source {
                    // A source sends on what it reads; what it failed to read is no record.
                    true => Some(taken[index].clone()),
                    false => (!graph.node(node).one_to_one).then(|| std::mem::take(&mut emitted[at(node)])),
                };
                let input = match position {
                    0 => RowInput::Chain(std::mem::take(&mut taken[index])),
                    _ => RowInput::Row(operators.len() - 1),
                };
                operators.push(OperatorRow {
                    node,
                    name: graph.node(node).name.clone(),
                    chain: index,
                    parallelism: graph.parallelism(chain),
                    is_source,
                    input,
                    emitted,
                    passed: std::mem::take(&mut passed[at(node)]),
                    late: std::mem::take(&mut late[at(node)]),
                });
            }
        }
        Self { tasks, services, operators: Arc::new(operators), unfinished }
    }

    /// The operators of a chain, for a message.
    pub(crate) fn chain_operators(&self, chain: usize) -> String {
        let names = self.operators.iter().filter(|row| row.chain == chain).map(|row| row.name.as_str());
        names.collect::<Vec<_>>().join(" → ")
    }

    /// How many replicas a chain has.
    pub(crate) fn parallelism(&self, chain: usize) -> usize {
        self.operators.iter().find(|row| row.chain == chain).map_or(1, |row| row.parallelism)
    }

    /// Whether the operator is a source.
    pub(crate) fn is_source(&self, node: NodeId) -> bool {
        self.operators.iter().any(|row| row.node == node && row.is_source)
    }

    pub(crate) fn operator_name(&self, node: NodeId) -> Option<String> {
        self.operators.iter().find(|row| row.node == node).map(|row| row.name.clone())
    }
}

/// What the replicas count, by the number of what they are replicas of.
fn grouped<C>(groups: usize, counters: impl IntoIterator<Item = (usize, Arc<C>)>) -> Vec<Vec<Arc<C>>> {
    let mut grouped: Vec<_> = std::iter::repeat_with(Vec::new).take(groups).collect();
    counters.into_iter().for_each(|(group, counter)| grouped[group].push(counter));
    grouped
}

/// The figures of every operator: counts from the counters, failures and times from the tasks that have ended.
///
/// An operator that sends on one record for each it takes counts nothing: its figures follow from those before it.
pub(crate) fn operator_reports(rows: &[OperatorRow], tasks: &[TaskRecord]) -> Vec<OperatorReport> {
    let mut reports: Vec<OperatorReport> = Vec::new();
    let mut times: HashMap<usize, TaskTimes, RandomState> = HashMap::default();
    let mut fatal: HashMap<NodeId, u64, RandomState> = HashMap::default();
    for task in tasks {
        let TaskState::Ended(outcome) = &task.state else { continue };
        let sum = times.entry(task.chain).or_default();
        sum.total += outcome.times.total;
        sum.blocked.add(outcome.times.blocked);
        sum.idle += outcome.times.idle;
        // In whichever chain: a key function runs before the exchange, in the name of the operator after it.
        let records = outcome.failures.iter().filter(|failure| failure.during == During::Record);
        records.filter_map(|failure| failure.operator).for_each(|node| *fatal.entry(node).or_default() += 1);
    }
    for row in rows {
        let records = |counters: &[Arc<Counter>]| counters.iter().map(|counter| counter.records()).sum();
        let fatal = fatal.get(&row.node).copied().unwrap_or_default();
        let failed = fatal + row.passed.iter().map(|passed| passed.skipped.records()).sum::<u64>();
        let records_in: u64 = match &row.input {
            RowInput::Chain(counters) => records(counters),
            RowInput::Row(before) => reports[*before].records_out,
        };
        let mut report = OperatorReport {
            name: row.name.clone(),
            parallelism: row.parallelism,
            chain: row.chain + 1,
            records_in,
            records_out: match &row.emitted {
                Some(counters) => records(counters),
                None => records_in.saturating_sub(failed),
            },
            failed,
            retries: row.passed.iter().map(|passed| passed.retries.records()).sum(),
            first_error: row.passed.iter().find_map(|passed| lock(&passed.first).clone()),
            late: records(&row.late),
            ..OperatorReport::default()
        };
        if let Some(TaskTimes { total, blocked, idle }) = times.get(&row.chain) {
            (report.blocked, report.blocked_by, report.idle) = (blocked.total(), blocked.mostly(), *idle);
            report.busy = total.saturating_sub(blocked.total() + *idle);
        }
        reports.push(report);
    }
    reports
}

impl TaskOutcome {
    /// Whether every record was processed.
    pub(crate) fn is_complete(&self) -> bool {
        self.ending == Ending::Finished
    }
}

/// What can be asked of a running job at any moment.
#[derive(Clone)]
pub(crate) struct LiveMetrics {
    operators: Arc<Vec<OperatorRow>>,
    unfinished: Unfinished,
}

impl LiveMetrics {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { operators: plan.operators.clone(), unfinished: plan.unfinished.clone() }
    }

    pub(crate) fn read(&self) -> JobMetrics {
        JobMetrics { operators: operator_reports(&self.operators, &[]) }
    }

    pub(crate) fn unfinished(&self) -> u64 {
        self.unfinished.records()
    }
}
