//! Ours of R2 to R4 for `make bench-columnar`, which runs it in turn with engines of columns in processes of their own.
//!
//! What the driver and this process say is a line of JSON each. This one begins with its variants, the files that its
//! inputs are in, and how many records there are. Then it runs the variant that a line on the standard input names, and
//! says how long that took and what the answer is.
//!
//! Knows nothing of the other engines; `benches/python/columnar` does.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::inputs::{keyed_record, once, text_file};
use crate::{Options, r2, r3, r4};

/// What an engine of columns can do as well.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// The word count on two processors.
    R2Parallel,
    /// The sum per key.
    R3,
    /// The join.
    R4,
}

/// What this process begins with.
#[derive(Serialize)]
struct Ready<'a> {
    variants: Vec<&'a str>,
    inputs: BTreeMap<&'static str, PathBuf>,
    /// What seconds are divided by: the records of all inputs, and 1 for the text.
    records: u64,
}

/// What it says of a run.
#[derive(Serialize)]
struct Told {
    seconds: f64,
    answer: String,
}

/// Runs a variant, and gives the digest of its answer apart, as that is not timed.
type Run = Box<dyn FnMut() -> Result<Box<dyn FnOnce() -> String>>>;

/// Answers the driver until it closes the standard input.
///
/// # Errors
/// An input cannot be written, a run failed, or the driver asked for a variant that there is not.
pub(crate) fn serve(workload: Workload, options: &Options) -> Result<()> {
    let folder = options.scratch_folder();
    let (mut programs, inputs, records) = match workload {
        Workload::R2Parallel => words(&folder, options.size(r2::TEXT_BYTES))?,
        Workload::R3 => sums(&folder, options.size(r3::RECORDS))?,
        Workload::R4 => joins(&folder, options.size(r4::RECORDS))?,
    };
    say(&Ready { variants: programs.iter().map(|(name, _)| *name).collect(), inputs, records })?;
    for line in std::io::stdin().lines() {
        let wanted = line.context("the driver's line cannot be read")?;
        let (_, run) = programs
            .iter_mut()
            .find(|(name, _)| *name == wanted)
            .with_context(|| format!("there is no variant {wanted:?}"))?;
        let begin = Instant::now();
        let digest = run()?;
        let seconds = begin.elapsed().as_secs_f64();
        say(&Told { seconds, answer: digest() })?;
    }
    Ok(())
}

fn say(what: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, what).context("the driver cannot be told")?;
    out.write_all(b"\n").and_then(|()| out.flush()).context("the driver cannot be told")
}

type Programs = (Vec<(&'static str, Run)>, BTreeMap<&'static str, PathBuf>, u64);

fn words(folder: &Path, size_bytes: u64) -> Result<Programs> {
    let text = text_file(folder, size_bytes)?;
    let inputs = BTreeMap::from([("text", text.clone())]);
    let run: Run = Box::new(move || {
        let counts = r2::ours_parallel(&text)?;
        Ok(Box::new(|| digest(counts)))
    });
    Ok((vec![("", run)], inputs, 1))
}

fn sums(folder: &Path, records: u64) -> Result<Programs> {
    let inputs = columns(folder, "r3", records, ["key", "value"], keyed_record)?;
    let run: Run = Box::new(move || {
        let sums = r3::ours_parallel(records)?;
        Ok(Box::new(|| digest(sums)))
    });
    Ok((vec![("", run)], inputs, records))
}

fn joins(folder: &Path, records: u64) -> Result<Programs> {
    let mut inputs = columns(folder, "r4", records, ["right_key", "right_value"], r4::right_record)?;
    let left = |n| r4::left_record(n, records);
    inputs.extend(columns(folder, "r4", records, ["left_key", "left_value"], left)?);
    let programs = [("1 × join", 1), ("2 × join", r4::REPLICAS)].map(|(name, replicas)| {
        let run: Run = Box::new(move || {
            let sum = r4::ours(records, replicas)?;
            Ok(Box::new(move || sum.to_string()))
        });
        (name, run)
    });
    Ok((programs.into(), inputs, 2 * records))
}

/// Writes the two columns of records into files of their own, numbers of 64 bits from the low byte up.
fn columns(
    folder: &Path,
    workload: &str,
    records: u64,
    names: [&'static str; 2],
    record: impl Fn(u64) -> (u64, u64),
) -> Result<BTreeMap<&'static str, PathBuf>> {
    let column = |name, pick: fn((u64, u64)) -> u64| {
        let file = once(folder, &format!("{workload}-{name}-{records}.u64"), |out| {
            (0..records).try_for_each(|n| out.write_all(&pick(record(n)).to_le_bytes()))
        })?;
        anyhow::Ok((name, file))
    };
    let [first, second] = names;
    Ok(BTreeMap::from([column(first, |(first, _)| first)?, column(second, |(_, second)| second)?]))
}

/// A digest of a table of amounts, in whatever order: how many there are, and FNV-1a of its lines when sorted. It is
/// computed in a few lines of Python too.
fn digest<K: Ord + Display>(mut amounts: Vec<(K, u64)>) -> String {
    amounts.sort_unstable();
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for (key, amount) in &amounts {
        for byte in format!("{key} {amount}\n").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
    format!("{} pairs {hash:016x}", amounts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `python/tests/test_benchmarks.py` expects of the driver's side.
    #[test]
    fn a_digest_is_that_of_the_sorted_lines() {
        let expected = "2 pairs c7e0b3b7bc0a8b11";
        assert_eq!(digest(vec![("b", 1), ("a", 2)]), expected);
        assert_eq!(digest(vec![("a", 2), ("b", 1)]), expected);
        assert_ne!(digest(vec![("a", 1), ("b", 2)]), expected);
    }
}
