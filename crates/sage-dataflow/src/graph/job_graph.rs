//! [`JobGraph`]: what a job consists of, as data that a page, a remote worker and a test read alike.

use serde::{Deserialize, Serialize};

use super::validate::MAX_PARALLELISM;
use super::{Graph, Index};
use crate::exchange::Partitioning;
use crate::service::ServiceEntry;

/// The physical graph of a job: its chains, their tasks, how records get from one to the next, and its services.
///
/// [`Environment::graph`](crate::Environment::graph) tells how a job will run,
/// [`JobView::graph`](crate::JobView::graph) how one does. Streams that have no sink yet are left out.
///
/// ```
/// let env = sage::Environment::local("words");
/// env.from_iter(["a", "b", "a"]).key_by(|word| *word).count().parallelism(2).sink(|_| {});
/// let graph = env.graph();
/// let names: Vec<_> = graph.tasks.iter().map(|task| task.name.as_str()).collect();
/// assert_eq!(names, ["iter-1", "keyed-count-1/0", "keyed-count-1/1"]);
/// assert_eq!(graph.edges[0].partitioning, sage::Partitioning::Hash);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobGraph {
    /// The environment's name.
    pub environment: String,
    /// Operators that run as one loop, in the order of the report: chain 1 comes first.
    pub chains: Vec<GraphChain>,
    /// One for each replica of each chain, chain by chain.
    pub tasks: Vec<GraphTask>,
    /// The exchanges between chains, in the order in which they were declared.
    pub edges: Vec<GraphEdge>,
    /// In the order in which they were registered.
    pub services: Vec<GraphService>,
}

/// Operators that run as one loop, on one thread per replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GraphChain {
    /// Its number, from 1: the `chain` of an [`OperatorReport`](crate::OperatorReport).
    pub number: usize,
    /// In the order of their records' way; none where a chain only joins streams or deals them out.
    pub operators: Vec<GraphOperator>,
    /// How many replicas it has, 1 to 65,536 in a job.
    pub parallelism: usize,
}

/// A source, an operator or a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GraphOperator {
    /// Its name, unique in its environment.
    pub name: String,
    /// What it is, for example `map`, `keyed-count` or `sink`.
    pub kind: String,
}

/// One replica of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GraphTask {
    /// Its name, that of its first operator; with `/` and the number of the replica where there are several.
    pub name: String,
    /// The number of its chain, from 1.
    pub chain: usize,
    /// Which replica of its chain it is, from 0.
    pub replica: usize,
    /// Where it runs.
    pub placement: Placement,
}

/// Where a task runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Placement {
    /// In the process that submitted the job.
    #[default]
    ThisProcess,
}

/// An exchange: the records that one chain sends to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GraphEdge {
    /// The number of the chain that sends, from 1.
    pub from: usize,
    /// The operator whose records they are. One in the middle of its chain sends beside it, as `split` does.
    pub operator: String,
    /// The number of the chain that receives, from 1.
    pub to: usize,
    /// How the records are spread over the tasks of the receiving chain.
    pub partitioning: Partitioning,
    /// Whether it leads back to the head of a loop.
    pub feeds_back: bool,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GraphService {
    /// Its name, unique in its environment.
    pub name: String,
    /// The services it was declared to come after.
    pub after: Vec<String>,
    /// The number of the chain that takes its calls as records, if a pipeline answers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<usize>,
}

impl JobGraph {
    pub(crate) fn new<'a>(
        environment: &str,
        graph: &Graph,
        index: &Index,
        services: impl IntoIterator<Item = &'a ServiceEntry>,
    ) -> Self {
        let chains: Vec<_> = (0..graph.chains.len()).map(|chain| GraphChain::new(graph, chain)).collect();
        let edges = graph.edges.iter().filter_map(|edge| {
            Some(GraphEdge {
                from: index.chain_of(edge.from)? + 1,
                operator: graph.node(edge.from).name.clone(),
                to: index.reader_of(edge.to)? + 1,
                partitioning: edge.partitioning,
                feeds_back: graph.inlets[edge.to.0].feeds.is_some(),
            })
        });
        let services = services.into_iter();
        Self {
            environment: environment.to_owned(),
            tasks: chains.iter().flat_map(GraphChain::tasks).collect(),
            chains,
            edges: edges.collect(),
            services: services
                .map(|entry| {
                    let serving = graph.serving.iter().find(|serving| serving.service == Some(entry.id));
                    let pipeline = serving.and_then(|serving| index.chain_of(serving.node)).map(|chain| chain + 1);
                    GraphService { name: entry.name.clone(), after: entry.after.clone(), pipeline }
                })
                .collect(),
        }
    }
}

impl GraphChain {
    fn new(graph: &Graph, chain: usize) -> Self {
        let nodes = graph.chains[chain].nodes.iter().map(|&node| graph.node(node));
        Self {
            number: chain + 1,
            operators: nodes
                .map(|node| GraphOperator { name: node.name.clone(), kind: node.kind.to_owned() })
                .collect(),
            parallelism: graph.parallelism(&graph.chains[chain]),
        }
    }

    fn tasks(&self) -> impl Iterator<Item = GraphTask> {
        let first = self.operators.first().map_or("chain", |operator| operator.name.as_str());
        (0..self.parallelism.min(MAX_PARALLELISM)).map(move |replica| GraphTask {
            name: if self.parallelism == 1 { first.to_owned() } else { format!("{first}/{replica}") },
            chain: self.number,
            replica,
            placement: Placement::ThisProcess,
        })
    }

    /// The names of its operators, for a message.
    pub(crate) fn way(&self) -> String {
        self.operators.iter().map(|operator| operator.name.as_str()).collect::<Vec<_>>().join(" → ")
    }
}
