//! How a pipeline will run, as text and as Graphviz dot.

use std::fmt::{self, Write};

use super::{Graph, Index};
use crate::ids::NodeId;

/// The physical graph of an environment: chains, replicas, exchanges and services.
///
/// `Display` prints it as text; [`Explain::dot`] as a Graphviz graph.
#[derive(Debug, Clone)]
pub struct Explain {
    name: String,
    chains: Vec<ExplainedChain>,
    exchanges: Vec<ExplainedExchange>,
    services: Vec<(String, Vec<String>)>,
}

#[derive(Debug, Clone)]
struct ExplainedChain {
    operators: Vec<String>,
    parallelism: usize,
}

#[derive(Debug, Clone)]
struct ExplainedExchange {
    from: usize,
    to: usize,
    partitioning: String,
}

impl Explain {
    pub(crate) fn new(name: &str, graph: &Graph, services: Vec<(String, Vec<String>)>) -> Self {
        let operators = |nodes: &[NodeId]| nodes.iter().map(|&node| graph.node(node).name.clone()).collect();
        let chains = graph
            .chains
            .iter()
            .map(|chain| ExplainedChain { operators: operators(&chain.nodes), parallelism: graph.parallelism(chain) })
            .collect();
        let index = Index::new(graph);
        let exchanges = graph
            .edges
            .iter()
            .filter_map(|edge| {
                let to = index.reader_of(edge.to)?;
                Some(ExplainedExchange {
                    from: index.chain_of(edge.from)?,
                    to,
                    partitioning: edge.partitioning.to_string(),
                })
            })
            .collect();
        Self { name: name.to_owned(), chains, exchanges, services }
    }

    /// Returns the graph in the dot language of Graphviz.
    pub fn dot(&self) -> String {
        let mut dot = String::new();
        self.write_dot(&mut dot).expect("writing to a string does not fail");
        dot
    }

    fn write_dot(&self, dot: &mut String) -> fmt::Result {
        writeln!(dot, "digraph {} {{\n  rankdir=LR;\n  node [shape=box];", quoted(&self.name))?;
        for (index, chain) in self.chains.iter().enumerate() {
            let label = format!("{} ×{}", chain.operators.join(" → "), chain.parallelism);
            writeln!(dot, "  chain{} [label={}];", index + 1, quoted(&label))?;
        }
        for exchange in &self.exchanges {
            let label = quoted(&exchange.partitioning);
            writeln!(dot, "  chain{} -> chain{} [label={label}];", exchange.from + 1, exchange.to + 1)?;
        }
        for (service, _) in &self.services {
            writeln!(dot, "  {} [shape=ellipse];", quoted(&format!("service {service}")))?;
        }
        for (service, after) in &self.services {
            for dependency in after {
                let (from, to) = (quoted(&format!("service {service}")), quoted(&format!("service {dependency}")));
                writeln!(dot, "  {from} -> {to} [style=dashed, label=\"uses\"];")?;
            }
        }
        dot.push_str("}\n");
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: usize = self.chains.iter().map(|chain| chain.parallelism).sum();
        writeln!(f, "environment `{}`: {} chains, {tasks} tasks", self.name, self.chains.len())?;
        let mut exchanges = vec![Vec::new(); self.chains.len()];
        self.exchanges.iter().for_each(|exchange| exchanges[exchange.from].push(exchange));
        for ((index, chain), exchanges) in self.chains.iter().enumerate().zip(exchanges) {
            writeln!(f, "  chain {} ×{}: {}", index + 1, chain.parallelism, chain.operators.join(" → "))?;
            for exchange in exchanges {
                writeln!(f, "    → chain {} ({})", exchange.to + 1, exchange.partitioning)?;
            }
        }
        for (service, after) in &self.services {
            match after.as_slice() {
                [] => writeln!(f, "  service {service}")?,
                after => writeln!(f, "  service {service}, after {}", after.join(", "))?,
            }
        }
        Ok(())
    }
}
