//! Builds tasks from the graph: the lanes of a run, and the context in which a chain builds the task of one replica.

use std::sync::Arc;

use super::lanes::{EdgeEnds, EdgePlan, LaneOptions};
use super::{Edge, Graph, Head, Index};
use crate::chain::{Errors, OpenContext, Passed, Place, Push, WindowCounters};
use crate::control::JobControl;
use crate::exchange::lane::{Inbox, Reader, ReaderState, Tally, Writer};
use crate::exchange::{Circle, Gauge, Lanes, Partitioning, RoundRobin, Waiting, Wanting};
use crate::guarded::{guard, opaque};
use crate::ids::{EdgeId, InletId, NodeId};
use crate::metrics::{Activity, Counter};
use crate::source::SourceContext;
use crate::submit_error::SubmitError;
use crate::task::{Polling, Task};

/// Builds the task of one replica of a chain.
pub(crate) type BuildChain = dyn Fn(&mut BuildContext<'_>) -> Result<Box<dyn Task>, SubmitError> + Send;

/// The lanes and counters of one run.
pub(crate) struct Wiring {
    edges: Vec<EdgeEnds>,
    /// For each edge, whether it lies in a loop, and whether it begins at the head of one.
    loops: Vec<(bool, bool)>,
    /// For each chain that is in a loop, what the tasks of the loop share.
    circles: Vec<Option<Arc<Wanting>>>,
    signals: Vec<Vec<Arc<ReaderState>>>,
    /// Those of the inlets that are heads of loops.
    gauges: Vec<Option<Arc<Gauge>>>,
    options: LaneOptions,
    polling: Polling,
    counters: Counters,
}

/// The counters of a run; the replicas of a chain or a node have one each.
#[derive(Default)]
pub(crate) struct Counters {
    /// Records that each chain took.
    pub(crate) taken: Vec<Vec<Arc<Counter>>>,
    pub(crate) nodes: Vec<NodeCounters>,
    pub(crate) unfinished: Unfinished,
}

/// What the replicas of a node count.
#[derive(Default, Clone)]
pub(crate) struct NodeCounters {
    /// Records it emitted, if it counts them.
    pub(crate) emitted: Vec<Arc<Counter>>,
    /// What it let pass, in whichever chain: a key function runs before the exchange to its operator.
    pub(crate) passed: Vec<Arc<Passed>>,
    /// Records that came too late, and windows that were dropped, if it has windows.
    pub(crate) late: Vec<Arc<Counter>>,
    pub(crate) dropped_windows: Vec<Arc<Counter>>,
}

/// The records of a run that were read and are not finished.
#[derive(Clone, Default)]
pub(crate) struct Unfinished {
    /// In the lanes of each edge.
    edges: Vec<Vec<Arc<Tally>>>,
    /// In flight in each task that polls futures.
    in_flight: Vec<Arc<Counter>>,
}

impl Unfinished {
    /// How many there are: exact while the tasks wait for each other, or are over.
    pub(crate) fn records(&self) -> u64 {
        let waiting: usize = self.edges.iter().flatten().map(|tally| tally.waiting()).sum();
        waiting as u64 + self.in_flight.iter().map(|counter| counter.records()).sum::<u64>()
    }

    /// The lanes of each edge, in the order of the graph's.
    pub(crate) fn edges(&self) -> &[Vec<Arc<Tally>>] {
        &self.edges
    }
}

/// The tasks of a run, chain by chain, each replica by replica, with what tells what it is doing; and what they count.
pub(crate) type Built = (Vec<(Box<dyn Task>, Arc<Activity>)>, Counters);

/// Builds the tasks of a validated graph.
pub(crate) fn build(
    graph: &Graph,
    index: &Index,
    control: &Arc<JobControl>,
    options: &LaneOptions,
    polling: Polling,
) -> Result<Built, SubmitError> {
    let signals: Vec<Vec<Arc<ReaderState>>> = graph
        .inlets
        .iter()
        .map(|inlet| (0..inlet.parallelism).map(|_| Arc::new(ReaderState::new())).collect())
        .collect();
    let activities: Vec<Vec<Arc<Activity>>> =
        graph.chains.iter().map(|chain| (0..graph.parallelism(chain)).map(|_| Arc::default()).collect()).collect();
    let edges: Vec<EdgeEnds> = graph
        .edges
        .iter()
        .map(|edge| {
            let activities = index.chain_of(edge.from).map_or(&[][..], |chain| &activities[chain]);
            let producers = activities.len();
            let signals = &signals[edge.to.0];
            let one_to_one = edge.partitioning == Partitioning::Forward && producers == signals.len();
            let feeds = graph.inlets[edge.to.0].feeds.is_some();
            let weights = &graph.weights;
            (edge.connect)(&EdgePlan { producers, signals, one_to_one, feeds, options, weights, control, activities })
        })
        .collect();
    let gauges = graph.inlets.iter().map(|inlet| inlet.feeds.map(|_| Arc::default())).collect();
    let (loops, circles) = edges_in_loops(graph, index);
    let tallies = edges.iter().map(|ends| ends.tallies.clone()).collect();
    let counters = Counters {
        taken: vec![Vec::new(); graph.chains.len()],
        nodes: vec![NodeCounters::default(); graph.nodes.len()],
        unfinished: Unfinished { edges: tallies, in_flight: Vec::new() },
    };
    let mut wiring = Wiring { edges, loops, circles, signals, gauges, options: options.clone(), polling, counters };
    let mut tasks = Vec::new();
    for (number, chain) in graph.chains.iter().enumerate() {
        let parallelism = graph.parallelism(chain);
        for (replica, activity) in activities[number].iter().enumerate() {
            let mut cx = BuildContext {
                graph,
                index,
                wiring: &mut wiring,
                control,
                chain: number,
                building: None,
                passing: None,
                readers: Vec::new(),
                replica,
                parallelism,
            };
            let task = guard(|| (chain.build)(&mut cx)).unwrap_or_else(|what| {
                let operator = cx.building.map_or_else(String::new, |node| cx.name(node));
                Err(SubmitError::Factory { operator, message: what.to_string() })
            })?;
            tasks.push((task, activity.clone()));
        }
    }
    Ok((tasks, wiring.counters))
}

/// For each edge, whether it lies in a loop, and whether it begins at the head of one; for each chain in a loop, what
/// its tasks share with the others of the loop, or of all loops that hang together.
fn edges_in_loops(graph: &Graph, index: &Index) -> (Vec<(bool, bool)>, Vec<Option<Arc<Wanting>>>) {
    let mut circles = vec![None; graph.chains.len()];
    if graph.inlets.iter().all(|inlet| inlet.feeds.is_none()) {
        return (vec![(false, false); graph.edges.len()], circles);
    }
    let reached: Vec<_> = (0..graph.chains.len()).map(|chain| index.reached_from(graph, chain)).collect();
    for chain in 0..graph.chains.len() {
        if reached[chain].contains(&chain) && circles[chain].is_none() {
            let wanting = Arc::<Wanting>::default();
            let others = reached[chain].iter().filter(|&&other| reached[other].contains(&chain));
            others.for_each(|&other| circles[other] = Some(wanting.clone()));
        }
    }
    let ends = |edge: &Edge| Some((index.chain_of(edge.from)?, index.reader_of(edge.to)?));
    let edges = graph
        .edges
        .iter()
        .map(|edge| match ends(edge) {
            Some((from, to)) => {
                let is_head =
                    matches!(graph.chains[from].head, Head::Inlet(inlet) if graph.inlets[inlet.0].feeds.is_some());
                (reached[to].contains(&from), is_head)
            }
            None => (false, false),
        })
        .collect();
    (edges, circles)
}

/// A new one of those that count the same thing.
fn counting<C: Default>(counters: &mut Vec<Arc<C>>) -> Arc<C> {
    counters.push(Arc::default());
    counters[counters.len() - 1].clone()
}

/// What a chain is given to build one task.
pub struct BuildContext<'a> {
    graph: &'a Graph,
    index: &'a Index,
    wiring: &'a mut Wiring,
    control: &'a Arc<JobControl>,
    chain: usize,
    /// The operator whose factory runs, for the message if it panics.
    building: Option<NodeId>,
    /// What the operator that was asked for last lets pass.
    passing: Option<(NodeId, Arc<Passed>)>,
    /// The readers that the task sends to, as far as it is built.
    readers: Vec<Arc<ReaderState>>,
    pub(crate) replica: usize,
    pub(crate) parallelism: usize,
}
opaque!([] BuildContext<'_>);

impl BuildContext<'_> {
    pub(crate) fn control(&self) -> Arc<JobControl> {
        self.control.clone()
    }

    pub(crate) fn open_context(&mut self, node: NodeId) -> OpenContext {
        OpenContext {
            replica: self.replica,
            parallelism: self.parallelism,
            name: self.name(node),
            control: self.control(),
            passed: self.passed(node),
            runtime: self.wiring.polling.runtime.clone(),
        }
    }

    /// The errors of this replica of `node`.
    pub(crate) fn errors(&mut self, node: NodeId) -> Errors {
        let policy = self.graph.node(node).policy.unwrap_or(self.graph.default_policy);
        Errors::new(policy, self.passed(node))
    }

    /// What this replica of `node` lets pass.
    pub(crate) fn passed(&mut self, node: NodeId) -> Arc<Passed> {
        let passing = self.passing.take().filter(|(last, _)| *last == node);
        let passed = passing.map_or_else(|| counting(&mut self.counters(node).passed), |(_, passed)| passed);
        self.passing = Some((node, passed.clone()));
        passed
    }

    fn counters(&mut self, node: NodeId) -> &mut NodeCounters {
        &mut self.wiring.counters.nodes[node.0 as usize]
    }

    /// Says that the factory of `node` runs now.
    pub(crate) fn building(&mut self, node: NodeId) {
        self.building = Some(node);
    }

    /// A new counter of what this replica of the chain takes.
    pub(crate) fn taken(&mut self) -> Arc<Counter> {
        counting(&mut self.wiring.counters.taken[self.chain])
    }

    /// A new counter of what the chain of `node` takes already in this one.
    pub(crate) fn taken_for(&mut self, node: NodeId) -> Arc<Counter> {
        let chain = self.index.chain_of(node).unwrap_or(self.chain);
        counting(&mut self.wiring.counters.taken[chain])
    }

    /// A new counter of what this replica of `node` emits.
    pub(crate) fn emitted(&mut self, node: NodeId) -> Arc<Counter> {
        counting(&mut self.counters(node).emitted)
    }

    /// A new counter of what is in flight in this replica of the chain.
    pub(crate) fn in_flight(&mut self) -> Arc<Counter> {
        counting(&mut self.wiring.counters.unfinished.in_flight)
    }

    /// Where this job polls futures.
    pub(crate) fn polling(&self) -> Polling {
        self.wiring.polling.clone()
    }

    /// New counters for the windows of this replica of `node`.
    fn windows(&mut self, node: NodeId) -> WindowCounters {
        let counters = self.counters(node);
        WindowCounters { late: counting(&mut counters.late), dropped: counting(&mut counters.dropped_windows) }
    }

    pub(crate) fn name(&self, node: NodeId) -> String {
        self.graph.node(node).name.clone()
    }

    /// This replica's sending ends of an edge.
    pub(crate) fn writers<T: Send + 'static>(&mut self, edge: EdgeId) -> Lanes<T> {
        let writers: &mut Vec<Vec<Writer<T, Waiting>>> =
            self.wiring.edges[edge.0].writers.downcast_mut().expect("an edge is connected for the records it carries");
        let writers = std::mem::take(&mut writers[self.replica]);
        self.readers.extend(writers.iter().map(|writer| writer.signal().clone()));
        Lanes::new(writers, self.wiring.loops[edge.0].0)
    }

    /// What deals the records of an edge out in turn.
    pub(crate) fn round_robin<T: Send + 'static>(&mut self, edge: EdgeId) -> RoundRobin<T> {
        RoundRobin::new(self.writers(edge), self.replica)
    }

    /// The place of the operator at `node`, which has windows or has none.
    pub(crate) fn place(&mut self, node: NodeId, has_windows: bool) -> Place {
        let (context, errors, emitted) = (self.open_context(node), self.errors(node), self.emitted(node));
        Place { node, context, errors, emitted, windows: has_windows.then(|| self.windows(node)) }
    }

    /// The context of the source at `node`, the head of its chain, which is built last.
    pub(crate) fn source_context(&mut self, node: NodeId, serves: bool) -> SourceContext {
        let readers = std::mem::take(&mut self.readers);
        SourceContext::new(self.open_context(node), readers, serves)
    }

    /// The part of this replica's task in its loop, if it is in one, with what comes behind its head; see `circle.rs`.
    pub(crate) fn circle<T>(&self, next: &impl Push<T>) -> Option<Circle> {
        self.wiring.circles[self.chain].as_ref().map(|wanting| Circle::new(wanting, next.wanted(true)))
    }

    /// What the ends of the loop that feeds `inlet` share, and how many records may wait between them.
    pub(crate) fn gauge(&self, inlet: InletId) -> (Arc<Gauge>, usize) {
        let limit = self.graph.inlets[inlet.0].feeds.map_or(0, |feeds| feeds.limit);
        (self.wiring.gauges[inlet.0].clone().unwrap_or_default(), limit)
    }

    /// The head of the loop that feeds `inlet`, if it is one.
    pub(crate) fn loop_head(&self, inlet: InletId) -> Option<Arc<Gauge>> {
        self.wiring.gauges[inlet.0].clone()
    }

    /// This replica's inbox: the receiving ends of every edge that leads to the inlet. Its inputs are the edges, in the
    /// order in which they were added.
    pub(crate) fn inbox<T: Send + 'static>(&mut self, inlet: InletId) -> Inbox<T> {
        let mut lanes = Vec::new();
        for (input, &edge) in self.index.edges_to(inlet).iter().enumerate() {
            let (in_loop, from_head) = self.wiring.loops[edge];
            let readers: &mut Vec<Vec<Reader<T>>> =
                self.wiring.edges[edge].readers.downcast_mut().expect("the edges of an inlet carry the same records");
            lanes.extend(
                readers[self.replica].drain(..).map(|reader| reader.of_input(input).in_loop(in_loop, from_head)),
            );
        }
        let signal = self.wiring.signals[inlet.0][self.replica].clone();
        Inbox::new(lanes, signal, self.wiring.options.flush_interval)
    }
}
