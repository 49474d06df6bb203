//! Builds tasks from the graph: the lanes of a run, and the context in which a chain builds the task of one replica.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::{Edge, Graph, Head, Index};
use crate::chain::{Cursor, Errors, OpenContext, Passed, Place, Push};
use crate::control::JobControl;
use crate::exchange::lane::{Depth, Inbox, Reader, ReaderState, Size, Tally, Writer, lane};
use crate::exchange::{Circle, Gauge, Lanes, Partitioning, RoundRobin, Waiting, Wanting, Weigh, Weights};
use crate::guarded::guard;
use crate::ids::{EdgeId, InletId, NodeId};
use crate::metrics::Counter;
use crate::source::SourceContext;
use crate::submit_error::SubmitError;
use crate::task::{Polling, Task};

/// Builds the task of one replica of a chain.
pub(crate) type BuildChain = dyn Fn(&mut BuildContext<'_>) -> Result<Box<dyn Task>, SubmitError> + Send;
/// Makes the lanes of an edge.
pub(crate) type ConnectEdge = dyn Fn(&EdgePlan<'_>) -> EdgeEnds + Send;

/// The sizes of a run's lanes.
#[derive(Debug, Clone)]
pub(crate) struct LaneOptions {
    /// Records per block; `None` for as many as fill 32 KiB, 64 to 4096.
    pub(crate) batch_records: Option<usize>,
    /// Blocks in flight in a lane; `None` for 8, and more while they move fast.
    pub(crate) queue_batches: Option<usize>,
    /// Bytes in all the lanes of an edge.
    pub(crate) queue_bytes: usize,
    /// Lanes are unbounded: nobody could make room while a task waits.
    pub(crate) inline: bool,
    pub(crate) flush_interval: Duration,
}

const BLOCK_BYTES: usize = 32 << 10;
/// Blocks in flight in a lane, unless the user says otherwise.
const SLOW_BLOCKS: usize = 8;
/// Blocks in flight in all the lanes of one producer, while they move fast: 2 MiB, so that they outgrow the cache of
/// a processor and its neighbour's blocks come back through the cache they share.
const FAST_BLOCKS: usize = 64;

impl LaneOptions {
    /// The size of each lane of records `T`, of which a producer has `lanes`, and an edge `all`. Records that are not
    /// weighed are all of the same size.
    fn size<T>(&self, lanes: usize, all: usize, weighed: bool) -> Size {
        let share = (self.queue_bytes / all.max(1)).max(1);
        let bytes = size_of::<T>().max(1);
        let records = (share / bytes).max(1);
        let fitting = (BLOCK_BYTES / bytes).clamp(64, 4096).min((records / 4).max(1));
        let capacity = self.batch_records.unwrap_or(fitting);
        let depth = match self.queue_batches {
            _ if self.inline => return Size::blocks(capacity, Depth::UNBOUNDED),
            Some(blocks) => Depth { slow: blocks, fast: blocks },
            None => Depth { slow: SLOW_BLOCKS, fast: (FAST_BLOCKS / lanes.max(1)).max(SLOW_BLOCKS) },
        };
        let bound = !weighed && records < capacity.saturating_mul(depth.fast);
        Size { records: if bound { records } else { usize::MAX }, bytes: share, ..Size::blocks(capacity, depth) }
    }
}

/// What is asked of an edge.
pub(crate) struct EdgePlan<'a> {
    producers: usize,
    signals: &'a [Arc<ReaderState>],
    /// Producer *i* has one lane, to consumer *i*.
    one_to_one: bool,
    /// It leads back to the head of a loop.
    feeds: bool,
    options: &'a LaneOptions,
    pub(crate) weights: &'a Weights,
    control: &'a Arc<JobControl>,
}

/// The two ends of an edge's lanes, erased: `Vec<Vec<Writer<T, Waiting>>>` by producer, `Vec<Vec<Reader<T>>>` by
/// consumer.
pub(crate) struct EdgeEnds {
    writers: Box<dyn Any>,
    readers: Box<dyn Any>,
    tallies: Vec<Arc<Tally>>,
}

/// Makes the lanes of an edge of records `T`.
pub(crate) fn connect<T: Send + 'static>(plan: &EdgePlan<'_>) -> EdgeEnds {
    connect_weighed(plan, plan.weights.of::<T>())
}

/// As [`connect`], with records that are weighed so.
pub(crate) fn connect_weighed<T: Send + 'static>(plan: &EdgePlan<'_>, weigh: Option<Weigh<T>>) -> EdgeEnds {
    let mut writers: Vec<Vec<Writer<T, Waiting>>> = Vec::new();
    let mut readers: Vec<Vec<Reader<T>>> = plan.signals.iter().map(|_| Vec::new()).collect();
    let lanes = if plan.one_to_one { 1 } else { plan.signals.len() };
    let size = plan.options.size::<T>(lanes, plan.producers * lanes, weigh.is_some());
    let size = if plan.feeds { Size::blocks(size.capacity, Depth::UNBOUNDED) } else { size };
    let mut tallies = Vec::new();
    for producer in 0..plan.producers {
        let mut row = Vec::new();
        for (consumer, signal) in plan.signals.iter().enumerate() {
            if plan.one_to_one && consumer != producer {
                continue;
            }
            let wait = Waiting::new(plan.control.clone());
            let (writer, reader) = lane(size, signal.clone(), wait);
            let writer = match &weigh {
                Some(weigh) if size.bytes < usize::MAX => writer.weighing(weigh.clone()),
                _ => writer,
            };
            tallies.push(reader.tally());
            row.push(writer);
            readers[consumer].push(reader);
        }
        writers.push(row);
    }
    EdgeEnds { writers: Box::new(writers), readers: Box::new(readers), tallies }
}

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
    /// Records each chain took, by its index.
    pub(crate) taken: Vec<(usize, Arc<Counter>)>,
    /// Records each node that counts emitted.
    pub(crate) emitted: Vec<(NodeId, Arc<Counter>)>,
    /// What each node let pass.
    pub(crate) passed: Vec<((NodeId, usize), Arc<Passed>)>,
    /// Records that came too late for each node that looks.
    pub(crate) late: Vec<(NodeId, Arc<Counter>)>,
    pub(crate) unfinished: Unfinished,
}

/// The records of a run that were read and are not finished.
#[derive(Clone, Default)]
pub(crate) struct Unfinished {
    /// In the lanes.
    tallies: Vec<Arc<Tally>>,
    /// In flight in each task that polls futures.
    in_flight: Vec<Arc<Counter>>,
}

impl Unfinished {
    /// How many there are: exact while the tasks wait for each other, or are over.
    pub(crate) fn records(&self) -> u64 {
        let waiting: usize = self.tallies.iter().map(|tally| tally.waiting()).sum();
        waiting as u64 + self.in_flight.iter().map(|counter| counter.records()).sum::<u64>()
    }
}

/// One task, ready to run.
pub(crate) struct BuiltTask {
    pub(crate) chain: usize,
    pub(crate) replica: usize,
    pub(crate) task: Box<dyn Task>,
    pub(crate) cursor: Arc<Cursor>,
}

/// Everything a run needs of a graph.
pub(crate) struct Built {
    pub(crate) tasks: Vec<BuiltTask>,
    pub(crate) counters: Counters,
}

/// Builds the tasks of a validated graph.
pub(crate) fn build(
    graph: &Graph,
    control: &Arc<JobControl>,
    options: &LaneOptions,
    polling: Polling,
) -> Result<Built, SubmitError> {
    let signals: Vec<Vec<Arc<ReaderState>>> = graph
        .inlets
        .iter()
        .map(|inlet| (0..inlet.parallelism).map(|_| Arc::new(ReaderState::new())).collect())
        .collect();
    let index = Index::new(graph);
    let edges: Vec<EdgeEnds> = graph
        .edges
        .iter()
        .map(|edge| {
            let producers = index.chain_of(edge.from).map_or(0, |chain| graph.parallelism(&graph.chains[chain]));
            let signals = &signals[edge.to.0];
            let one_to_one = edge.partitioning == Partitioning::Forward && producers == signals.len();
            let feeds = graph.inlets[edge.to.0].feeds.is_some();
            let weights = &graph.weights;
            (edge.connect)(&EdgePlan { producers, signals, one_to_one, feeds, options, weights, control })
        })
        .collect();
    let gauges = graph.inlets.iter().map(|inlet| inlet.feeds.map(|_| Arc::default())).collect();
    let (loops, circles) = edges_in_loops(graph, &index);
    let tallies = edges.iter().flat_map(|ends| ends.tallies.iter().cloned()).collect();
    let counters = Counters { unfinished: Unfinished { tallies, ..Unfinished::default() }, ..Counters::default() };
    let mut wiring = Wiring { edges, loops, circles, signals, gauges, options: options.clone(), polling, counters };
    let mut tasks = Vec::new();
    for (number, chain) in graph.chains.iter().enumerate() {
        let parallelism = graph.parallelism(chain);
        for replica in 0..parallelism {
            let mut cx = BuildContext {
                graph,
                index: &index,
                wiring: &mut wiring,
                control,
                chain: number,
                building: None,
                readers: Vec::new(),
                replica,
                parallelism,
            };
            let task = guard(|| (chain.build)(&mut cx)).unwrap_or_else(|what| {
                let operator = cx.building.map_or_else(String::new, |node| cx.name(node));
                Err(SubmitError::Factory { operator, message: what.to_string() })
            })?;
            tasks.push(BuiltTask { chain: number, replica, task, cursor: Arc::default() });
        }
    }
    Ok(Built { tasks, counters: wiring.counters })
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

/// What a chain is given to build one task.
pub struct BuildContext<'a> {
    graph: &'a Graph,
    index: &'a Index,
    wiring: &'a mut Wiring,
    control: &'a Arc<JobControl>,
    chain: usize,
    /// The operator whose factory runs, for the message if it panics.
    building: Option<NodeId>,
    /// The readers that the task sends to, as far as it is built.
    readers: Vec<Arc<ReaderState>>,
    pub(crate) replica: usize,
    pub(crate) parallelism: usize,
}

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
        }
    }

    /// The errors of this replica of `node`.
    pub(crate) fn errors(&mut self, node: NodeId) -> Errors {
        let policy = self.graph.node(node).policy.unwrap_or(self.graph.default_policy);
        Errors::new(policy, self.passed(node))
    }

    /// What this replica of `node` lets pass.
    pub(crate) fn passed(&mut self, node: NodeId) -> Arc<Passed> {
        let (all, key) = (&mut self.wiring.counters.passed, (node, self.replica));
        if let Some((_, passed)) = all.last().filter(|(last, _)| *last == key) {
            return passed.clone();
        }
        let passed = Arc::new(Passed::default());
        all.push((key, passed.clone()));
        passed
    }

    /// Says that the factory of `node` runs now.
    pub(crate) fn building(&mut self, node: NodeId) {
        self.building = Some(node);
    }

    /// A new counter of what this replica of the chain takes.
    pub(crate) fn taken(&mut self) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        self.wiring.counters.taken.push((self.chain, counter.clone()));
        counter
    }

    /// A new counter of what this replica of `node` emits.
    pub(crate) fn emitted(&mut self, node: NodeId) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        self.wiring.counters.emitted.push((node, counter.clone()));
        counter
    }

    /// A new counter of what is in flight in this replica of the chain.
    pub(crate) fn in_flight(&mut self) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        self.wiring.counters.unfinished.in_flight.push(counter.clone());
        counter
    }

    /// Where this job polls futures.
    pub(crate) fn polling(&self) -> Polling {
        self.wiring.polling.clone()
    }

    /// A new counter of what comes too late for this replica of `node`.
    pub(crate) fn late(&mut self, node: NodeId) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        self.wiring.counters.late.push((node, counter.clone()));
        counter
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

    /// The place of the operator at `node`, which counts late records or does not.
    pub(crate) fn place(&mut self, node: NodeId, counts_late: bool) -> Place {
        let (context, errors, emitted) = (self.open_context(node), self.errors(node), self.emitted(node));
        Place { node, context, errors, emitted, late: counts_late.then(|| self.late(node)) }
    }

    /// The context of the source at `node`, the head of its chain, which is built last.
    pub(crate) fn source_context(&mut self, node: NodeId) -> SourceContext {
        let (replica, readers) = ((self.replica, self.parallelism), std::mem::take(&mut self.readers));
        SourceContext::new(replica, self.control(), self.passed(node), readers)
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
