//! How a pipeline will run, as text and as Graphviz dot.

use std::collections::HashMap;
use std::fmt::{self, Write};

use super::job_graph::{GraphEdge, GraphService, JobGraph};

/// A [`JobGraph`] in words.
///
/// `Display` prints it as text; [`Explain::dot`] as a Graphviz graph.
#[derive(Debug, Clone)]
pub struct Explain(JobGraph);

impl From<JobGraph> for Explain {
    fn from(graph: JobGraph) -> Self {
        Self(graph)
    }
}

impl Explain {
    /// Returns the graph in the dot language of Graphviz.
    pub fn dot(&self) -> String {
        let mut dot = String::new();
        self.write_dot(&mut dot).expect("writing to a string does not fail");
        dot
    }

    fn write_dot(&self, dot: &mut String) -> fmt::Result {
        let JobGraph { environment, chains, edges, services, .. } = &self.0;
        writeln!(dot, "digraph {} {{\n  rankdir=LR;\n  node [shape=box];", quoted(environment))?;
        for chain in chains {
            let label = format!("{} ×{}", chain.way(), chain.parallelism);
            writeln!(dot, "  chain{} [label={}];", chain.number, quoted(&label))?;
        }
        for edge in edges {
            let label = quoted(&edge.partitioning.to_string());
            writeln!(dot, "  chain{} -> chain{} [label={label}];", edge.from, edge.to)?;
        }
        let service = |name: &str| quoted(&format!("service {name}"));
        for GraphService { name, .. } in services {
            writeln!(dot, "  {} [shape=ellipse];", service(name))?;
        }
        for GraphService { name, after, pipeline } in services {
            if let Some(chain) = pipeline {
                writeln!(dot, "  {} -> chain{chain} [style=dashed, label=\"calls\"];", service(name))?;
            }
            for dependency in after {
                writeln!(dot, "  {} -> {} [style=dashed, label=\"uses\"];", service(name), service(dependency))?;
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
        let JobGraph { environment, chains, edges, services, .. } = &self.0;
        let tasks: usize = chains.iter().map(|chain| chain.parallelism).sum();
        writeln!(f, "environment `{environment}`: {} chains, {tasks} tasks", chains.len())?;
        let mut leaving: HashMap<usize, Vec<&GraphEdge>> = HashMap::new();
        edges.iter().for_each(|edge| leaving.entry(edge.from).or_default().push(edge));
        for chain in chains {
            writeln!(f, "  chain {} ×{}: {}", chain.number, chain.parallelism, chain.way())?;
            for edge in leaving.remove(&chain.number).unwrap_or_default() {
                writeln!(f, "    → chain {} ({})", edge.to, edge.partitioning)?;
            }
        }
        for GraphService { name, after, pipeline } in services {
            write!(f, "  service {name}")?;
            if let Some(chain) = pipeline {
                write!(f, ", answered by chain {chain}")?;
            }
            match after.as_slice() {
                [] => writeln!(f)?,
                after => writeln!(f, ", after {}", after.join(", "))?,
            }
        }
        Ok(())
    }
}
