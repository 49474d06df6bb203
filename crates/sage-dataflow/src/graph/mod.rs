//! The pipeline as data: transformations, the chains they fuse into, and the exchanges between chains.
//!
//! The logical graph is the list of [`Node`]s; [`Chain`]s, [`Inlet`]s and [`Edge`]s are its translation. A chain knows
//! how to build its task for a replica (`build`), and that closure is all that knows record types and user functions.
//!
//! Invariant: nothing here runs user code. Building happens in `wiring`, per run.

mod explain;
mod job_graph;
mod lanes;
mod validate;
pub(crate) mod wiring;

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

pub use explain::Explain;
use foldhash::fast::RandomState;
pub use job_graph::{GraphChain, GraphEdge, GraphOperator, GraphService, GraphTask, JobGraph, Placement};
use lanes::ConnectEdge;
pub(crate) use lanes::{EdgePlan, LaneOptions, connect, connect_weighed};
pub(crate) use validate::validate;
use wiring::BuildChain;

use crate::chain::ErrorPolicy;
use crate::exchange::{Partitioning, Weights};
use crate::ids::{ChainId, EdgeId, InletId, NodeId};
use crate::service::{Serves, ServiceId};
use crate::sync::lock;

/// One transformation as the user wrote it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// Emits as many records as it takes, so that it counts none of them itself.
    pub(crate) one_to_one: bool,
    /// What its user asked for; the environment's default otherwise.
    pub(crate) policy: Option<ErrorPolicy>,
}

/// The receiving end of an exchange: the input of one chain.
#[derive(Debug)]
pub(crate) struct Inlet {
    pub(crate) parallelism: usize,
    /// The loop whose head it is.
    pub(crate) feeds: Option<Loop>,
}

/// A loop: a stream that is fed back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loop {
    pub(crate) node: NodeId,
    /// How many records may wait to go round.
    pub(crate) limit: usize,
}

/// The sending end of an exchange: from one chain to one inlet.
pub(crate) struct Edge {
    pub(crate) from: NodeId,
    pub(crate) to: InletId,
    pub(crate) partitioning: Partitioning,
    pub(crate) connect: Box<ConnectEdge>,
}

/// Operators fused into one loop.
pub(crate) struct Chain {
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) head: Head,
    pub(crate) build: Box<BuildChain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// A source in this many replicas.
    Source {
        parallelism: usize,
    },
    Inlet(InletId),
}

/// Everything declared in an environment but its services.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) inlets: Vec<Inlet>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) chains: Vec<Chain>,
    /// Sources that can be read once, and whether they still can.
    pub(crate) one_shots: Vec<(NodeId, Box<dyn Fn() -> bool + Send>)>,
    /// The sources of pipelines that are services, in the order in which they were registered.
    pub(crate) serving: Vec<ServingSource>,
    /// What was declared and cannot be: said when the environment is submitted.
    pub(crate) mistakes: Vec<Mistake>,
    /// The policy of operators and sinks that have none of their own.
    pub(crate) default_policy: ErrorPolicy,
    /// How many nodes there are of each kind.
    kinds: HashMap<&'static str, usize, RandomState>,
    /// How many nodes bear each name.
    names: HashMap<String, usize, RandomState>,
    /// How records are weighed where they wait.
    pub(crate) weights: Weights,
}

/// The source of a pipeline that is a service.
pub(crate) struct ServingSource {
    pub(crate) node: NodeId,
    /// Its service, if it is known.
    pub(crate) service: Option<ServiceId>,
    pub(crate) pipeline: Arc<dyn Serves>,
}

/// Something that was declared and cannot be.
#[derive(Debug, Clone)]
pub(crate) enum Mistake {
    ForeignStream {
        operator: String,
    },
    NothingToName {
        name: String,
    },
    /// An option of an operator, or of the environment.
    Option {
        node: Option<NodeId>,
        message: String,
    },
}

impl Graph {
    pub(crate) fn add_node(&mut self, kind: &'static str, one_to_one: bool) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("a graph has fewer than four thousand million nodes"));
        let of_kind = self.kinds.entry(kind).or_default();
        *of_kind += 1;
        let mut nth = *of_kind;
        let mut name = format!("{kind}-{nth}");
        while self.names.contains_key(&name) {
            nth += 1;
            name = format!("{kind}-{nth}");
        }
        self.names.insert(name.clone(), 1);
        self.nodes.push(Node { name, kind, one_to_one, policy: None });
        id
    }

    /// Gives a node another name.
    pub(crate) fn rename(&mut self, node: NodeId, name: String) {
        *self.names.entry(name.clone()).or_default() += 1;
        let before = std::mem::replace(&mut self.node_mut(node).name, name);
        if let Some(bearers) = self.names.get_mut(&before) {
            *bearers -= 1;
            if *bearers == 0 {
                self.names.remove(&before);
            }
        }
    }

    /// Notes that `node` was given an option that cannot be.
    pub(crate) fn add_mistake(&mut self, node: NodeId, message: String) {
        self.mistakes.push(Mistake::Option { node: Some(node), message });
    }

    pub(crate) fn set_policy(&mut self, node: NodeId, policy: ErrorPolicy) {
        if let Some(message) = policy.mistake() {
            self.add_mistake(node, message);
        }
        self.node_mut(node).policy = Some(policy);
    }

    pub(crate) fn add_inlet(&mut self, parallelism: usize) -> InletId {
        self.inlets.push(Inlet { parallelism, feeds: None });
        InletId(self.inlets.len() - 1)
    }

    pub(crate) fn add_edge(&mut self, edge: Edge) -> EdgeId {
        self.edges.push(edge);
        EdgeId(self.edges.len() - 1)
    }

    pub(crate) fn add_chain(&mut self, chain: Chain) -> ChainId {
        self.chains.push(chain);
        ChainId(self.chains.len() - 1)
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub(crate) fn parallelism(&self, chain: &Chain) -> usize {
        match chain.head {
            Head::Source { parallelism } => parallelism,
            Head::Inlet(inlet) => self.inlets[inlet.0].parallelism,
        }
    }
}

/// What belongs to what in a graph, for those who ask for all of it.
pub(crate) struct Index {
    chains: Vec<Option<usize>>,
    readers: Vec<Option<usize>>,
    /// The edges that lead to each inlet, and those that begin in each chain.
    to: Vec<Vec<usize>>,
    from: Vec<Vec<usize>>,
}

impl Index {
    pub(crate) fn new(graph: &Graph) -> Self {
        let mut index = Self {
            chains: vec![None; graph.nodes.len()],
            readers: vec![None; graph.inlets.len()],
            to: vec![Vec::new(); graph.inlets.len()],
            from: vec![Vec::new(); graph.chains.len()],
        };
        for (number, chain) in graph.chains.iter().enumerate() {
            chain.nodes.iter().for_each(|node| _ = index.chains[node.0 as usize].get_or_insert(number));
            if let Head::Inlet(inlet) = chain.head {
                index.readers[inlet.0].get_or_insert(number);
            }
        }
        for (number, edge) in graph.edges.iter().enumerate() {
            index.to[edge.to.0].push(number);
            if let Some(chain) = index.chain_of(edge.from) {
                index.from[chain].push(number);
            }
        }
        index
    }

    /// The chain that a node is part of.
    pub(crate) fn chain_of(&self, node: NodeId) -> Option<usize> {
        self.chains[node.0 as usize]
    }

    /// The chain that reads an inlet.
    pub(crate) fn reader_of(&self, inlet: InletId) -> Option<usize> {
        self.readers[inlet.0]
    }

    /// The chains of each pipeline that is a service: that of its source, and those behind it.
    pub(crate) fn pipelines(&self, graph: &Graph) -> Vec<HashSet<usize>> {
        let chains = graph.serving.iter().map(|serving| {
            let Some(head) = self.chain_of(serving.node) else { return HashSet::new() };
            let mut chains = self.reached_from(graph, head);
            chains.insert(head);
            chains
        });
        chains.collect()
    }

    /// The edges that lead to an inlet, in the order in which they were added.
    pub(crate) fn edges_to(&self, inlet: InletId) -> &[usize] {
        &self.to[inlet.0]
    }

    /// The chains that records of chain `from` may come to; itself only where a loop leads back to it.
    pub(crate) fn reached_from(&self, graph: &Graph, from: usize) -> HashSet<usize> {
        let mut reached = HashSet::new();
        let mut open = vec![from];
        while let Some(chain) = open.pop() {
            let next = self.from[chain].iter().filter_map(|&edge| self.reader_of(graph.edges[edge].to));
            open.extend(next.filter(|&next| reached.insert(next)));
        }
        reached
    }
}

/// The graph as its environment and every stream of it share it.
#[derive(Clone, Default)]
pub(crate) struct SharedGraph(Arc<Mutex<Graph>>);

impl SharedGraph {
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Graph) -> R) -> R {
        act(&mut lock(&self.0))
    }

    /// Takes the graph out, for as long as what is returned lives. Whoever declares something meanwhile loses it.
    pub(crate) fn take(&self) -> TakenGraph<'_> {
        TakenGraph { graph: self.with(std::mem::take), place: self }
    }

    /// Whether both are of one environment.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A graph that is read without a lock, as a user's code runs meanwhile.
pub(crate) struct TakenGraph<'a> {
    graph: Graph,
    place: &'a SharedGraph,
}

impl Deref for TakenGraph<'_> {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        &self.graph
    }
}

impl Drop for TakenGraph<'_> {
    fn drop(&mut self) {
        self.place.with(|place| *place = std::mem::take(&mut self.graph));
    }
}
