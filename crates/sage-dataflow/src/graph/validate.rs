//! Checks a graph before anything starts.

use std::collections::HashMap;

use super::{Graph, Index, Mistake};
use crate::ids::{InletId, NodeId};
use crate::submit_error::SubmitError;

/// Each replica is a thread, and has a lane to each of those that follow.
pub(super) const MAX_PARALLELISM: usize = 65_536;

/// Checks that every stream ends in a sink, that names are unique and that every operator has a replica. Returns what
/// belongs to what.
pub(crate) fn validate(graph: &Graph) -> Result<Index, SubmitError> {
    if let Some(mistake) = graph.mistakes.first() {
        return Err(match mistake.clone() {
            Mistake::ForeignStream { operator } => SubmitError::ForeignStream { operator },
            Mistake::NothingToName { name } => SubmitError::NothingToName { name },
            Mistake::Option { node, message } => {
                let operator = node.map_or_else(|| "environment".to_owned(), |node| graph.node(node).name.clone());
                SubmitError::OperatorOption { operator, message }
            }
        });
    }
    if graph.nodes.is_empty() {
        return Err(SubmitError::Empty);
    }
    let index = Index::new(graph);
    // The end of the dangling stream says more than its beginning.
    if let Some(end) = (0..graph.nodes.len() as u32).map(NodeId).rfind(|&node| index.chain_of(node).is_none()) {
        return Err(SubmitError::MissingSink { operator: graph.node(end).name.clone() });
    }
    for inlet in (0..graph.inlets.len()).map(InletId) {
        if let (Some(&edge), None) = (index.edges_to(inlet).first(), index.reader_of(inlet)) {
            return Err(SubmitError::MissingSink { operator: graph.node(graph.edges[edge].from).name.clone() });
        }
    }
    for chain in &graph.chains {
        if graph.parallelism(chain) == 0 {
            return Err(SubmitError::ZeroParallelism { operator: first_name(graph, &chain.nodes) });
        }
        if graph.parallelism(chain) > MAX_PARALLELISM {
            let message = format!("the parallelism is {}; it may be 1 to {MAX_PARALLELISM}", graph.parallelism(chain));
            return Err(SubmitError::OperatorOption { operator: first_name(graph, &chain.nodes), message });
        }
    }
    validate_loops(graph, &index)?;
    validate_pipelines(graph, &index)?;
    if let Some((node, _)) = graph.one_shots.iter().find(|(_, is_left)| !is_left()) {
        return Err(SubmitError::SourceConsumed { source_name: graph.node(*node).name.clone() });
    }
    match graph.names.iter().filter(|(_, bearers)| **bearers > 1).map(|(name, _)| name).min() {
        Some(name) => Err(SubmitError::DuplicateOperator { name: name.clone() }),
        None => Ok(index),
    }
}

/// Checks that every loop is closed, and that no two share a task: the probes of one would wait for those of the other.
fn validate_loops(graph: &Graph, links: &Index) -> Result<(), SubmitError> {
    let mut seen: Vec<(usize, &str)> = Vec::new();
    for (index, inlet) in graph.inlets.iter().enumerate() {
        let Some(feeds) = inlet.feeds else { continue };
        let name = graph.node(feeds.node).name.as_str();
        let wrong = |message: String| SubmitError::OperatorOption { operator: name.to_owned(), message };
        if links.edges_to(InletId(index)).is_empty() {
            return Err(wrong("no stream is fed back; call `fill` with the stream that goes round".to_owned()));
        }
        let Some(head) = links.reader_of(InletId(index)) else { continue };
        let reached = links.reached_from(graph, head);
        let shared =
            seen.iter().find(|(other, _)| reached.contains(other) && links.reached_from(graph, *other).contains(&head));
        if let Some((_, other)) = shared {
            let message = format!(
                "it shares operators with the loop `{other}`; \
                 feed both back through one loop, with an enum as its record"
            );
            return Err(wrong(message));
        }
        seen.push((head, name));
    }
    Ok(())
}

/// Checks that no task belongs to two pipelines that are services: neither could end before the other.
fn validate_pipelines(graph: &Graph, index: &Index) -> Result<(), SubmitError> {
    let mut of_chain: HashMap<usize, NodeId> = HashMap::new();
    for (serving, chains) in graph.serving.iter().zip(index.pipelines(graph)) {
        let shared = chains.into_iter().find_map(|chain| of_chain.insert(chain, serving.node));
        if let Some(other) = shared {
            let operator = graph.node(serving.node).name.clone();
            let other = &graph.node(other).name;
            let message =
                format!("it shares operators with the pipeline `{other}`; end each with an `answer` of its own");
            return Err(SubmitError::OperatorOption { operator, message });
        }
    }
    Ok(())
}

fn first_name(graph: &Graph, nodes: &[NodeId]) -> String {
    nodes.first().map_or_else(|| "stream".to_owned(), |&node| graph.node(node).name.clone())
}
