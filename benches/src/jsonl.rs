//! JSON lines in, a function, JSON lines out: `JsonlSource` and `JsonlSink` beside the loop over buffered files.
//!
//! Both write to a temporary file and rename it, as a reader of the file would wish. Neither waits for the disk within
//! the measured time more than the other: both sync the file once.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use sage::Environment;
use sage_connectors::{JsonlSink, JsonlSource};
use serde::{Deserialize, Serialize};

use crate::Options;
use crate::inputs::{once, scramble};
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::{Goal, Row};

const RECORDS: u64 = 500_000;
const UNIT: &str = "ns/record";
/// The buffers of the loop: 64 KiB is the best of 8 KiB, 64 KiB and 1 MiB.
const BUFFER_BYTES: usize = 64 << 10;

/// A record of the input.
#[derive(Serialize, Deserialize)]
struct Purchase {
    id: u64,
    customer: String,
    items: Vec<String>,
    price: f64,
    paid: bool,
}

/// A record of the output.
#[derive(Serialize)]
struct Summary {
    id: u64,
    customer: String,
    items: usize,
    price: f64,
}

fn summarise(purchase: Purchase) -> Summary {
    let Purchase { id, customer, items, price, paid } = purchase;
    Summary { id, customer, items: items.len(), price: if paid { 0.0 } else { price } }
}

/// Measures JSON lines.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let folder = options.scratch_folder();
    let input = once(&folder, &format!("purchases-{records}.jsonl"), |out| write_purchases(out, records))?;
    let output = folder.join("summaries.jsonl");
    let timed = |run: fn(&Path, &Path) -> Result<()>| {
        let (input, output) = (input.clone(), output.clone());
        move || timed(records, &output, || run(&input, &output))
    };
    let contenders =
        &mut [Contender::new(Side::Ours, "", timed(ours)), Contender::new(Side::Hand, "buffered files", timed(hand))];
    let measurement = alternate("jsonl", UNIT, options.runs(), contenders)?;
    std::fs::remove_file(&output).with_context(|| format!("cannot remove {}", output.display()))?;
    // 0.9 times as fast.
    Ok(vec![Row::compare("jsonl_hand", UNIT, &measurement, Side::Hand, Goal::RatioAtMost(1.0 / 0.9))?])
}

/// Times one run; the digest of what it wrote is not part of the time.
fn timed(records: u64, output: &Path, run: impl FnOnce() -> Result<()>) -> Result<Sample> {
    let start = Instant::now();
    run()?;
    let value = nanos_per(start.elapsed(), records);
    let written = std::fs::read(output).with_context(|| format!("cannot read {}", output.display()))?;
    let digest = written.chunks(8).fold(0, |digest: u64, bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        scramble(digest ^ u64::from_le_bytes(word))
    });
    Ok(Sample { value, digest })
}

fn write_purchases(out: &mut impl Write, records: u64) -> std::io::Result<()> {
    for id in 0..records {
        let random = scramble(id);
        let items = (0..random % 5).map(|n| format!("article {:x}", scramble(random ^ n))).collect();
        let price = (random % 100_000) as f64 / 100.0;
        let customer = format!("customer \"{}\"", random % 10_000);
        let purchase = Purchase { id, customer, items, price, paid: random.is_multiple_of(3) };
        serde_json::to_writer(&mut *out, &purchase)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn ours(input: &Path, output: &Path) -> Result<()> {
    let env = Environment::local("jsonl");
    let (input, output): (PathBuf, PathBuf) = (input.to_owned(), output.to_owned());
    env.from_source(move |_replica| JsonlSource::<Purchase>::new(input.clone()))
        .map(summarise)
        .sink_to(move |_replica| JsonlSink::new(output.clone()));
    env.run()?;
    Ok(())
}

fn hand(input: &Path, output: &Path) -> Result<()> {
    let mut lines = BufReader::with_capacity(BUFFER_BYTES, File::open(input)?);
    let unfinished = output.with_extension("unfinished");
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(&unfinished)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        serde_json::to_writer(&mut out, &summarise(serde_json::from_slice(&line)?))?;
        out.write_all(b"\n")?;
        line.clear();
    }
    out.into_inner()?.sync_all()?;
    std::fs::rename(&unfinished, output)?;
    Ok(())
}
