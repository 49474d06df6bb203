//! The index of the embedded vector store over 100,000 vectors of 384 dimensions, on one thread, one query a call, ten
//! results each: how long a search takes and which part of the true results it misses (`recall_…_missed`), among tight
//! and wide clusters and among random vectors, over all rows and over those that a filter lets pass; how long the index
//! takes to be built (`recall_build`) and read from its cache (`recall_load`); and how long an exact scan takes beside
//! a loop that only reads the same bytes (`recall_exact`).

use std::cmp::Ordering;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use sage_services::store::Metric;
use sage_services::store::scan::{Found, Quantised, exact};

use crate::Options;
use crate::inputs::Random;
use crate::measure::{Contender, Measured, Sample, Side, alternate, summarise};
use crate::results::{Goal, Row};

const ROWS: u64 = 100_000;
const DIMENSIONS: usize = 384;
const CLUSTERS: usize = 1_000;
/// Searches of one timed run, and those of them whose results are compared with the exact ones.
const QUERIES: usize = 1_000;
const COMPARED: usize = 200;
const K: usize = 10;
/// 2,000 searches a second.
const LIMIT_MICROS: f64 = 500.0;
const LIMIT_MISSED: f64 = 1.0;

/// Kinds of vectors: how far they lie from the centre of their cluster, which has length 1; none without clusters.
const KINDS: [(&str, Option<f32>); 3] = [("tight", Some(0.35)), ("wide", Some(1.0)), ("random", None)];
/// Parts of the rows that a filter lets pass, in percent.
const SHARES: [usize; 4] = [100, 50, 10, 1];

/// Measures all of it.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (kind, spread) in KINDS {
        let (matrix, queries) = vectors(usize::try_from(options.size(ROWS))?, spread);
        let mut index = None;
        let mut builds = Vec::new();
        for _ in 0..options.runs() {
            let start = Instant::now();
            index = Some(Quantised::build(&matrix, DIMENSIONS, Metric::Cosine, 2));
            builds.push(start.elapsed().as_secs_f64());
        }
        let Some(index) = index else { continue };
        for share in SHARES {
            rows.extend(searches(options, &format!("recall_{kind}"), &index, &matrix, &queries, share)?);
        }
        if kind == "tight" {
            rows.push(Row::against_limit("recall_build", "s", &summarise(Side::Ours, String::new(), builds), 2.0));
            rows.push(Row::against_limit("recall_load", "s", &loads(options, &index)?, 0.3));
            rows.push(scans(options, &matrix, &queries)?);
        }
    }
    Ok(rows)
}

/// Vectors of length 1 and queries of the same kind.
fn vectors(rows: usize, spread: Option<f32>) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(42);
    let centres = match spread {
        Some(_) => (0..CLUSTERS).flat_map(|_| direction(&mut random)).collect(),
        None => Vec::new(),
    };
    let mut make = |count: usize| -> Vec<f32> {
        let mut all = Vec::with_capacity(count * DIMENSIONS);
        for _ in 0..count {
            let mut vector = direction(&mut random);
            if let Some(spread) = spread {
                let centre = &centres[random.below(CLUSTERS) * DIMENSIONS..][..DIMENSIONS];
                vector.iter_mut().zip(centre).for_each(|(x, c): (&mut f32, &f32)| *x = *x * spread + c);
                normalise(&mut vector);
            }
            all.extend(vector);
        }
        all
    };
    (make(rows), make(QUERIES))
}

/// A direction, all of them equally likely.
fn direction(random: &mut Random) -> Vec<f32> {
    let mut vector: Vec<f32> = (0..DIMENSIONS)
        .map(|_| {
            let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
            (radius * (std::f64::consts::TAU * random.unit()).cos()) as f32
        })
        .collect();
    normalise(&mut vector);
    vector
}

fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
}

fn by_row(a: u32, b: u32) -> Ordering {
    a.cmp(&b)
}

/// Times searches among `share` percent of the rows, and counts what they miss.
fn searches(
    options: &Options,
    name: &str,
    index: &Quantised,
    matrix: &[f32],
    queries: &[f32],
    share: usize,
) -> Result<Vec<Row>> {
    let name = if share == 100 { name.to_owned() } else { format!("{name}_{share}_percent") };
    let mut random = Random(share as u64);
    let mut word = || (0..64).map(|bit| u64::from(random.below(100) < share) << bit).sum();
    let bits: Vec<u64> = (0..index.len().div_ceil(64)).map(|_| word()).collect();
    let allowed = (share < 100).then_some(bits.as_slice());
    let mut missed = 0;
    for query in queries.chunks_exact(DIMENSIONS).take(COMPARED) {
        let found = index.search(query, matrix, allowed, K, by_row);
        let expected = exact(query, matrix, Metric::Cosine, allowed, K, by_row);
        ensure!(found.len() == expected.len(), "{name}: {} results, not {}", found.len(), expected.len());
        missed += expected.iter().filter(|row| !found.contains(row)).count();
    }
    let run = || {
        let start = Instant::now();
        let mut digest = 0;
        for query in queries.chunks_exact(DIMENSIONS) {
            digest = digest_of(digest, &index.search(query, matrix, allowed, K, by_row));
        }
        Ok(Sample { value: start.elapsed().as_secs_f64() * 1e6 / QUERIES as f64, digest })
    };
    let measurement =
        alternate(&name, "µs/search", options.runs(), &mut [Contender::new(Side::Ours, String::new(), run)])?;
    let ours = measurement.best(Side::Ours)?;
    // Vectors without any clusters are no vectors of texts, so that nothing is promised of them.
    let row = if name.starts_with("recall_random") {
        let versus = ("2,000 searches a second", LIMIT_MICROS);
        Row::derived(&name, "µs/search", ours.median, versus, ours.median / LIMIT_MICROS, Goal::Reported)
    } else {
        Row::against_limit(&name, "µs/search", ours, LIMIT_MICROS)
    };
    let missed = missed as f64 / (COMPARED * K) as f64 * 100.0;
    let missed = Row::derived(
        &format!("{name}_missed"),
        "% of results",
        missed,
        ("the limit", LIMIT_MISSED),
        missed / LIMIT_MISSED,
        Goal::AtMost(LIMIT_MISSED),
    );
    Ok(vec![row, missed])
}

fn digest_of(digest: u64, found: &[Found]) -> u64 {
    found.iter().fold(digest, |digest, found| digest.wrapping_mul(31).wrapping_add(u64::from(found.row)))
}

/// Times the reading of the index from bytes.
fn loads(options: &Options, index: &Quantised) -> Result<Measured> {
    let bytes = index.to_bytes(0);
    let mut values = Vec::new();
    for _ in 0..options.runs() {
        let start = Instant::now();
        black_box(Quantised::from_bytes(&bytes, 0, Metric::Cosine, DIMENSIONS, index.len())?);
        values.push(start.elapsed().as_secs_f64());
    }
    Ok(summarise(Side::Ours, String::new(), values))
}

/// Sets an exact scan beside a loop that adds up all numbers of the matrix.
fn scans(options: &Options, matrix: &[f32], queries: &[f32]) -> Result<Row> {
    let millis = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let scan = || {
        let start = Instant::now();
        black_box(exact(&queries[..DIMENSIONS], matrix, Metric::Cosine, None, K, by_row));
        Ok(Sample { value: millis(start), digest: 0 })
    };
    let read = || {
        let start = Instant::now();
        let mut lanes = [0.0_f32; 64];
        for numbers in matrix.as_chunks::<64>().0 {
            lanes.iter_mut().zip(numbers).for_each(|(lane, x)| *lane += x);
        }
        black_box(lanes);
        Ok(Sample { value: millis(start), digest: 0 })
    };
    let contenders =
        &mut [Contender::new(Side::Ours, String::new(), scan), Contender::new(Side::Hand, "only reads", read)];
    let measurement = alternate("recall_exact", "ms", options.runs(), contenders)?;
    Row::compare("recall_exact", "ms", &measurement, Side::Hand, Goal::RatioAtMost(1.25))
}
