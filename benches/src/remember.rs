//! A memory service with 100,000 turns in a file, each of twelve words and with a vector of 384 numbers: a turn that is
//! appended in a batch of 100 (`memory_append`), the opening (`memory_open`), the first recall, which makes the lists
//! of words and the index of vectors (`memory_first`), recalls by words and vectors among all turns (`memory_recall`),
//! by words alone (`memory_recall_words`) and within a session of 100 turns (`memory_recall_session`), a window of 20
//! turns of a session (`memory_window`) and of all turns (`memory_window_all`), and the erasure of a session, which is
//! on the disk when it is done (`memory_erase`). One thread calls.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use sage_services::EmbedderId;
use sage_services::memory::{Memory, NewTurn, Recall, Scope, Weights};

use crate::Options;
use crate::inputs::{Random, stir};
use crate::measure::{Contender, Sample, Side, alternate};
use crate::results::Row;

const DIMENSIONS: usize = 384;
const TURNS: u64 = 100_000;
const BATCH: u64 = 100;
/// Turns of a session.
const SESSION: u64 = 100;
/// Words of a turn, of a question, and of all texts.
const WORDS: u64 = 12;
const ASKED: u64 = 6;
const VOCABULARY: u64 = 20_000;
/// Calls of one timed run.
const CALLS: u64 = 200;

/// Measures all of it.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let turns = options.size(TURNS);
    let path = options.scratch_folder().join("bench.memory");
    let mut rows = Vec::new();
    let append = || {
        let nanos = fill(&path, turns)?;
        Ok(Sample { value: nanos / turns as f64, digest: turns })
    };
    // 20,000 turns a second.
    rows.push(row(options, "memory_append", "ns/turn", 50_000.0, append)?);
    let open = || {
        let begun = Instant::now();
        let memory = opened(&path)?;
        let value = begun.elapsed().as_secs_f64() * 1e3;
        Ok(Sample { value, digest: memory.count(&all())? as u64 })
    };
    rows.push(row(options, "memory_open", "ms", 500.0, open)?);
    let first = || {
        let memory = opened(&path)?;
        let begun = Instant::now();
        let recalled = memory.recall(&all(), question(0))?;
        Ok(Sample { value: begun.elapsed().as_secs_f64() * 1e3, digest: recalled.len() as u64 })
    };
    rows.push(row(options, "memory_first", "ms", 1_000.0, first)?);

    let memory = opened(&path)?;
    let words = Weights { similarity: 0.0, ..Weights::default() };
    let recall = |scope: fn(u64) -> Scope, weights: Weights| {
        let memory = &memory;
        move || {
            let questions: Vec<_> = (0..CALLS).map(|call| (scope(call), question(call).weights(weights))).collect();
            timed(questions, |(scope, question)| Ok(memory.recall(&scope, question)?.len()))
        }
    };
    let everything: fn(u64) -> Scope = |_| all();
    let default = Weights::default();
    rows.push(row(options, "memory_recall", "µs/recall", 5_000.0, recall(everything, default))?);
    rows.push(row(options, "memory_recall_words", "µs/recall", 5_000.0, recall(everything, words))?);
    rows.push(row(options, "memory_recall_session", "µs/recall", 5_000.0, recall(session, default))?);
    for (name, scope) in [("memory_window", session as fn(u64) -> Scope), ("memory_window_all", everything)] {
        let window = || timed((0..CALLS).map(scope).collect(), |scope| Ok(memory.window(&scope, 20)?.len()));
        rows.push(row(options, name, "µs/window", 100.0, window)?);
    }
    let mut next = 0;
    let erase = || {
        let sessions: Vec<Scope> = (next..next + 5).map(session).collect();
        next += 5;
        timed(sessions, |scope| Ok(memory.erase(&scope)?.turns))
    };
    // Two waits for the disk.
    rows.push(row(options, "memory_erase", "µs/session", 50_000.0, erase)?);
    drop(memory);
    std::fs::remove_file(&path)?;
    Ok(rows)
}

fn row(options: &Options, name: &str, unit: &str, limit: f64, run: impl FnMut() -> Result<Sample>) -> Result<Row> {
    let measurement = alternate(name, unit, options.runs(), &mut [Contender::new(Side::Ours, "", run)])?;
    Ok(Row::against_limit(name, unit, measurement.best(Side::Ours)?, limit))
}

/// The mean time of a call in microseconds, and how much was found.
fn timed<T>(arguments: Vec<T>, call: impl Fn(T) -> Result<usize>) -> Result<Sample> {
    let calls = arguments.len() as f64;
    let mut found = 0;
    let begun = Instant::now();
    for argument in arguments {
        found += call(argument)?;
    }
    Ok(Sample { value: begun.elapsed().as_secs_f64() * 1e6 / calls, digest: found as u64 })
}

fn opened(path: &Path) -> Result<Memory> {
    let memory = Memory::at(path).vectors_made_by(EmbedderId::new("random", DIMENSIONS));
    memory.open()?;
    Ok(memory)
}

/// Makes a memory anew, and returns how many nanoseconds its turns took.
fn fill(path: &Path, turns: u64) -> Result<f64> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let memory = opened(path)?;
    let mut nanos = 0.0;
    for first in (0..turns).step_by(BATCH as usize) {
        let numbers = first..turns.min(first + BATCH);
        let batch = numbers.map(|number| (session(number / SESSION), turn(number))).collect();
        let begun = Instant::now();
        memory.append_all(batch)?;
        nanos += begun.elapsed().as_secs_f64() * 1e9;
    }
    Ok(nanos)
}

fn all() -> Scope {
    Scope::tenant("bench")
}

fn session(number: u64) -> Scope {
    all().user(format!("user{}", number % 100)).session(format!("session{number}"))
}

fn turn(number: u64) -> NewTurn {
    NewTurn::user(text(number, WORDS)).id(format!("{number:07}")).vector(vector(number))
}

fn question(number: u64) -> Recall {
    let number = 1 << 30 | number;
    Recall::new(text(number, ASKED)).vector(vector(number))
}

/// Low numbers are far commoner than high ones, as words are.
fn text(number: u64, words: u64) -> String {
    let word = |at: u64| {
        let place = (stir(number << 16 | 1 << 15 | at) >> 32) as f64 / (1_u64 << 32) as f64;
        format!("word{} ", (place.powi(3) * VOCABULARY as f64) as u64)
    };
    (0..words).map(word).collect()
}

/// One of a thousand directions, and something of its own.
fn vector(number: u64) -> Vec<f32> {
    let mut centre = Random(stir(number) % 1_000);
    let mut own = Random(number);
    (0..DIMENSIONS).map(|_| (centre.unit() + own.unit() - 1.0) as f32).collect()
}
