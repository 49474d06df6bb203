//! What is wrong with a graph, said before anything starts.

use std::collections::HashSet;

use super::{Graph, InletId, Mistake, NodeId};
use crate::environment::SubmitError;

/// Checks that every stream ends in a sink, that names are unique and that every operator has a replica.
pub(crate) fn validate(graph: &Graph) -> Result<(), SubmitError> {
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
    if let Some(node) = (0..graph.nodes.len() as u32).map(NodeId).find(|&node| graph.chain_of(node).is_none()) {
        // The end of the dangling stream says more than its beginning.
        let end = (0..graph.nodes.len() as u32).map(NodeId).rfind(|&node| graph.chain_of(node).is_none());
        return Err(SubmitError::MissingSink { operator: graph.node(end.unwrap_or(node)).name.clone() });
    }
    for (index, inlet) in graph.inlets.iter().enumerate() {
        let sender = graph.edges.iter().find(|edge| edge.to.0 == index);
        let consumer = graph.chains.iter().find(|chain| chain.head == super::Head::Inlet(super::InletId(index)));
        match (sender, consumer) {
            (Some(edge), None) => {
                return Err(SubmitError::MissingSink { operator: graph.node(edge.from).name.clone() });
            }
            (_, Some(chain)) if inlet.parallelism == 0 => {
                return Err(SubmitError::ZeroParallelism { operator: first_name(graph, &chain.nodes) });
            }
            _ => {}
        }
    }
    for chain in &graph.chains {
        if graph.parallelism(chain) == 0 {
            return Err(SubmitError::ZeroParallelism { operator: first_name(graph, &chain.nodes) });
        }
    }
    validate_loops(graph)?;
    if let Some((node, _)) = graph.one_shots.iter().find(|(_, is_left)| !is_left()) {
        return Err(SubmitError::SourceConsumed { source_name: graph.node(*node).name.clone() });
    }
    let mut names = HashSet::new();
    for node in &graph.nodes {
        if !names.insert(node.name.as_str()) {
            return Err(SubmitError::DuplicateOperator { name: node.name.clone() });
        }
    }
    Ok(())
}

/// Checks that every loop is closed, and that no two share a task: the probes of one would wait for those of the other.
fn validate_loops(graph: &Graph) -> Result<(), SubmitError> {
    let mut seen: Vec<(usize, &str)> = Vec::new();
    for (index, inlet) in graph.inlets.iter().enumerate() {
        let Some(feeds) = inlet.feeds else { continue };
        let name = graph.node(feeds.node).name.as_str();
        let wrong = |message: String| SubmitError::OperatorOption { operator: name.to_owned(), message };
        if !graph.edges.iter().any(|edge| edge.to.0 == index) {
            return Err(wrong("nothing is fed back; call `fill` with the stream that goes round".to_owned()));
        }
        let Some(head) = graph.reader_of(InletId(index)) else { continue };
        let reached = graph.reached_from(head);
        let shared =
            seen.iter().find(|(other, _)| reached.contains(other) && graph.reached_from(*other).contains(&head));
        if let Some((_, other)) = shared {
            let message = format!(
                "it shares operators with the loop `{other}`; feed both back through one loop, with an enum as its record"
            );
            return Err(wrong(message));
        }
        seen.push((head, name));
    }
    Ok(())
}

fn first_name(graph: &Graph, nodes: &[NodeId]) -> String {
    nodes.first().map_or_else(|| "stream".to_owned(), |&node| graph.node(node).name.clone())
}
