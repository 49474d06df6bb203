//! The graph of a job as SVG, laid out here: chains are boxes with a line for each operator, exchanges are curves.
//!
//! The layout is Sugiyama's: chains are put into layers, each one layer behind the last of those that send to it; edges
//! that pass a layer get a place of their own in it; within a layer, places are ordered by the mean place of their
//! neighbours, down and up a few times. An edge that feeds back runs below everything.

use std::collections::HashMap;

use maud::{Markup, html};
use sage::{GraphChain, JobGraph};

const LINE: i32 = 22;
const HEAD: i32 = 22;
const GAP: i32 = 26;
const COLUMN_GAP: i32 = 84;
const MARGIN: i32 = 12;
/// Of a letter of a name, and what a line has besides: figures.
const LETTER: i32 = 8;
const FIGURES: i32 = 96;
const MOST_LETTERS: usize = 28;
/// How often the order within layers is improved.
const ROUNDS: usize = 6;
/// More chains than a picture can show: the table below it has all.
const MOST_CHAINS: usize = 200;

/// What stands at a place in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Chain(usize),
    /// Where the edge passes this layer.
    Passing(usize, usize),
}

struct Laid {
    at: HashMap<Place, (i32, i32)>,
    layers: Vec<usize>,
    widths: Vec<i32>,
    size: (i32, i32),
}

/// The picture of a graph; its parts have the names of operators as `data-` attributes, for the figures.
pub(crate) fn svg(graph: &JobGraph, job: &str) -> Markup {
    if graph.chains.is_empty() || graph.chains.len() > MOST_CHAINS {
        let count = graph.chains.len();
        return html! { p.note { "The graph has " (count) " chains; the table below lists their operators." } };
    }
    let laid = Laid::new(graph);
    let (width, height) = laid.size;
    html! {
        div.scroll tabindex="0" role="group" aria-label={ "Graph of " (graph.environment) } {
            svg.graph viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) role="img"
                aria-label={ (graph.chains.len()) " chains, " (graph.edges.len()) " exchanges: the table has figures" }
                data-job=(job) {
                defs {
                    marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
                        orient="auto-start-reverse" { path d="M0 0 L8 4 L0 8 z" {} }
                }
                @for (index, edge) in graph.edges.iter().enumerate() {
                    @let (path, label) = laid.path(graph, index);
                    path.edge.back[edge.feeds_back] d=(path) marker-end="url(#arrow)" {}
                    text.rate x=(label.0) y=(label.1 - 6) text-anchor="middle" data-rate=(edge.operator) {
                        (edge.partitioning)
                    }
                }
                @for (index, chain) in graph.chains.iter().enumerate() { (laid.chain(index, chain)) }
            }
        }
    }
}

fn short(name: &str) -> String {
    if name.chars().count() <= MOST_LETTERS {
        return name.to_owned();
    }
    name.chars().take(MOST_LETTERS - 1).chain(['…']).collect()
}

fn height_of(chain: &GraphChain) -> i32 {
    HEAD + LINE * i32::try_from(chain.operators.len().max(1)).unwrap_or(1) + 6
}

fn width_of(chain: &GraphChain) -> i32 {
    let longest = chain.operators.iter().map(|operator| short(&operator.name).chars().count()).max().unwrap_or(0);
    LETTER * i32::try_from(longest.max(8)).unwrap_or(0) + FIGURES
}

impl Laid {
    fn new(graph: &JobGraph) -> Self {
        let layers = layers_of(graph);
        let mut rows: Vec<Vec<Place>> = vec![Vec::new(); layers.iter().max().map_or(0, |last| last + 1)];
        for (chain, &layer) in layers.iter().enumerate() {
            rows[layer].push(Place::Chain(chain));
        }
        for (index, edge) in graph.edges.iter().enumerate().filter(|(_, edge)| !edge.feeds_back) {
            let passed = layers[edge.from - 1] + 1..layers[edge.to - 1];
            passed.for_each(|layer| rows[layer].push(Place::Passing(index, layer)));
        }
        order(graph, &layers, &mut rows);
        place(graph, layers, &rows)
    }

    /// The curve of an edge, and where its label stands.
    fn path(&self, graph: &JobGraph, index: usize) -> (String, (i32, i32)) {
        let edge = &graph.edges[index];
        let (from, to) = (edge.from - 1, edge.to - 1);
        let (fx, fy) = self.at[&Place::Chain(from)];
        let (tx, ty) = self.at[&Place::Chain(to)];
        // From the line of the operator that sends.
        let line = graph.chains[from].operators.iter().position(|operator| operator.name == edge.operator);
        let line = i32::try_from(line.unwrap_or(0)).unwrap_or(0);
        let start = (fx + width_of(&graph.chains[from]), fy + HEAD + LINE * line + LINE / 2);
        let end = (tx - 2, ty + HEAD + LINE / 2);
        if edge.feeds_back {
            let low = self.size.1 - MARGIN;
            let (sx, sy) = start;
            let (ex, ey) = end;
            let path = format!(
                "M{sx} {sy} C{} {sy} {} {low} {} {low} L{} {low} C{} {low} {} {ey} {ex} {ey}",
                sx + 40,
                sx + 40,
                sx,
                ex,
                ex - 40,
                ex - 40
            );
            return (path, ((sx + ex) / 2, low));
        }
        let mut points = vec![start];
        for layer in self.layers[from] + 1..self.layers[to] {
            let (x, y) = self.at[&Place::Passing(index, layer)];
            points.extend([(x, y), (x + self.widths[layer], y)]);
        }
        points.push(end);
        let mut path = format!("M{} {}", start.0, start.1);
        for two in points.windows(2) {
            let ((ax, ay), (bx, by)) = (two[0], two[1]);
            let middle = (ax + bx) / 2;
            path.push_str(&format!(" C{middle} {ay} {middle} {by} {bx} {by}"));
        }
        (path, ((start.0 + points[1].0) / 2, (start.1 + points[1].1) / 2))
    }

    fn chain(&self, index: usize, chain: &GraphChain) -> Markup {
        let (x, y) = self.at[&Place::Chain(index)];
        let (width, height) = (width_of(chain), height_of(chain));
        html! {
            g.chain data-chain=(chain.number) {
                rect x=(x) y=(y) width=(width) height=(height) rx="6" {}
                text.replicas x=(x + 10) y=(y + 15) {
                    @if chain.parallelism == 1 { "1 task" } @else { (chain.parallelism) " tasks" }
                }
                text.doing x=(x + width - 10) y=(y + 15) text-anchor="end" data-doing=(chain.number) {}
                @for (line, operator) in chain.operators.iter().enumerate() {
                    @let y = y + HEAD + LINE * i32::try_from(line).unwrap_or(0) + 15;
                    text.operator x=(x + 10) y=(y) {
                        (short(&operator.name)) title { (operator.name) ", " (operator.kind) }
                    }
                    text.count x=(x + width - 10) y=(y) text-anchor="end" data-count=(operator.name) {}
                }
            }
        }
    }
}

/// Each chain is a layer behind the last of those that send to it.
fn layers_of(graph: &JobGraph) -> Vec<usize> {
    let mut layers = vec![0; graph.chains.len()];
    // A longest path has as many steps as there are chains, at most.
    for _ in 0..graph.chains.len() {
        let mut changed = false;
        for edge in graph.edges.iter().filter(|edge| !edge.feeds_back && edge.from != edge.to) {
            let least = layers[edge.from - 1] + 1;
            if layers[edge.to - 1] < least && least < graph.chains.len() {
                layers[edge.to - 1] = least;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    layers
}

fn order(graph: &JobGraph, layers: &[usize], rows: &mut [Vec<Place>]) {
    let ends = |index: usize, back: bool, layer: usize| {
        let edge = &graph.edges[index];
        let (chain, its) =
            if back { (edge.from - 1, layers[edge.from - 1]) } else { (edge.to - 1, layers[edge.to - 1]) };
        if its == layer { Place::Chain(chain) } else { Place::Passing(index, layer) }
    };
    for round in 0..ROUNDS {
        let back = round % 2 == 0;
        let around: Vec<usize> =
            if back { (1..rows.len()).collect() } else { (0..rows.len().saturating_sub(1)).rev().collect() };
        for layer in around {
            let beside = if back { layer - 1 } else { layer + 1 };
            let places: HashMap<Place, usize> =
                rows[beside].iter().enumerate().map(|(at, &place)| (place, at)).collect();
            let mean = |place: Place, now: usize| {
                let edges = graph.edges.iter().enumerate().filter(|(index, edge)| {
                    !edge.feeds_back
                        && match place {
                            Place::Passing(passing, _) => passing == *index,
                            Place::Chain(chain) if back => edge.to - 1 == chain,
                            Place::Chain(chain) => edge.from - 1 == chain,
                        }
                });
                let near: Vec<usize> =
                    edges.filter_map(|(index, _)| places.get(&ends(index, back, beside)).copied()).collect();
                if near.is_empty() { now as f64 } else { near.iter().sum::<usize>() as f64 / near.len() as f64 }
            };
            let mut row: Vec<(f64, Place)> =
                rows[layer].iter().enumerate().map(|(now, &place)| (mean(place, now), place)).collect();
            row.sort_by(|one, other| one.0.total_cmp(&other.0));
            rows[layer] = row.into_iter().map(|(_, place)| place).collect();
        }
    }
}

fn place(graph: &JobGraph, layers: Vec<usize>, rows: &[Vec<Place>]) -> Laid {
    let height = |place: Place| match place {
        Place::Chain(chain) => height_of(&graph.chains[chain]),
        Place::Passing(..) => 8,
    };
    let widths: Vec<i32> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|place| match place {
                    Place::Chain(chain) => width_of(&graph.chains[*chain]),
                    Place::Passing(..) => 0,
                })
                .max()
                .unwrap_or(0)
        })
        .collect();
    let heights: Vec<i32> =
        rows.iter().map(|row| row.iter().map(|&place| height(place) + GAP).sum::<i32>() - GAP).collect();
    let tallest = heights.iter().copied().max().unwrap_or(0);
    let (mut at, mut x) = (HashMap::new(), MARGIN);
    for (layer, row) in rows.iter().enumerate() {
        let mut y = MARGIN + (tallest - heights[layer]) / 2;
        for &place in row {
            at.insert(place, (x, y));
            y += height(place) + GAP;
        }
        x += widths[layer] + COLUMN_GAP;
    }
    let below = if graph.edges.iter().any(|edge| edge.feeds_back) { 2 * MARGIN + GAP } else { 0 };
    Laid { at, layers, widths, size: (x - COLUMN_GAP + MARGIN, tallest + 2 * MARGIN + below) }
}
