//! `bench`: the engine beside the loop an expert writes and beside Renoir, in one binary and on the same inputs.
//!
//! One module per workload holds its contenders side by side; `measure` runs them in turn and compares their answers,
//! `results` writes the figures. A missed goal is only printed; answers that differ are a failure.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;

mod async_map;
mod batches;
mod columnar;
mod embed;
mod exchange;
mod fixed;
mod hop;
mod hops;
mod ingest;
mod inputs;
mod jsonl;
mod kept;
mod keys;
mod limiter;
mod machine;
mod many_states;
mod measure;
mod memory;
mod policy;
mod r1;
mod r2;
mod r3;
mod r4;
mod recall;
mod remember;
mod replicas;
mod results;
mod service;
mod skip;
mod store;
mod wide;
mod window;

use results::{Goal, Row};

/// The allocator of every contender.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Above this share of the processors, other programs make the figures doubtful.
const BUSY_SHARE: f64 = 0.05;

/// How much `--quick` shrinks every size.
const QUICK_DIVISOR: u64 = 20;

/// The comparisons with Renoir on R1 to R3 that do the same work record by record.
const RENOIR_ROWS: [&str; 6] =
    ["r1_renoir", "hop_source_renoir", "hop_sink_renoir", "r2_renoir", "r2_exchange_renoir", "r3_renoir"];

/// Measures sage beside hand-written loops and Renoir, checks that all answers are equal, and prints a table.
///
/// A full run writes target/bench/results.json and the table of docs/benchmarks.md. A run with --quick or --only
/// writes target/bench/partial.json instead and leaves both alone.
///
/// Workloads: r1 (narrow chain), hop_source and hop_sink (one thread hop, operators before or behind it), r2 (word
/// count on one thread), r2_exchange (with an exchange of every word), r2_parallel (on two processors in whatever way),
/// r3 (hash exchange), r3_parallel (its sums in whatever way), r4 (hash join), window (a count per key and second of
/// event time), dedup (keys that are forgotten by a timer), keys (states of a million keys, with timers, expiry,
/// sliding windows and sessions), skip (an error policy where nothing fails), jsonl (JSON lines in and out), replicas
/// (8 and 16 of them on two processors), texts (of 1 to 200 bytes as keys), skewed_sums and skewed_exchange (one key
/// has nine of ten records), many_keys_sum and many_keys_count (ten million of them), wide (records of 128 and 256
/// bytes), wide_sums (with a sum by key), three_hops (between four threads), fixed (a job of ten records), return (last
/// record until run() returns, three services), service (one call through a handle), policy (a call with a policy),
/// batch (requests that go to a service together), cache and journal (calls whose answers are kept), limiter (how near
/// to its rate it keeps eight tasks, over a minute of a clock that is moved), store (vectors in a file), recall (the
/// index of vectors), embed (texts to vectors by a static embedder), ingest (documents into an index), async (futures
/// that wait for timers, many at once), memory (peak over the number of records).
///
/// The exit code is 1 when answers differ or a run fails. A missed goal leaves it 0; the table says MISSED.
#[derive(Parser, Clone, Debug)]
#[command(name = "bench", version, verbatim_doc_comment)]
struct Options {
    /// Run only these workloads, e.g. r1,hop; a name selects every workload that begins with it
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,

    /// Divide every size by 20: a smoke test, whose figures mean little
    #[arg(long)]
    quick: bool,

    /// Timed runs of each contender, after a run that only warms up and compares answers
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    runs: u16,

    /// Run one job over this many records and print its peak of resident bytes (what the memory workload starts)
    #[arg(long, hide = true, value_name = "RECORDS")]
    memory_child: Option<u64>,

    /// Run ours of r2_parallel, r3 or r4 once for each line on the standard input (what `make bench-columnar` starts)
    #[arg(long, hide = true, value_name = "WORKLOAD")]
    columnar: Option<columnar::Workload>,
}

impl Options {
    /// A size under `--quick` or without.
    fn size(&self, full: u64) -> u64 {
        if self.quick { full / QUICK_DIVISOR } else { full }
    }

    fn runs(&self) -> usize {
        usize::from(self.runs)
    }

    fn selects(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| workload.starts_with(name.as_str()))
    }

    /// Whether this run measures everything at full size, so that its figures may stand in the documents.
    fn is_complete(&self) -> bool {
        self.only.is_empty() && !self.quick
    }

    /// The folder for inputs and results.
    fn scratch_folder(&self) -> PathBuf {
        repository_root().join("target/bench")
    }
}

/// The folder above this package under `cargo run`, else the current one.
fn repository_root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.and_then(|folder| folder.parent().map(PathBuf::from)).unwrap_or_else(|| PathBuf::from("."))
}

/// Measures one workload.
type Measure = fn(&Options) -> Result<Vec<Row>>;

const WORKLOADS: [(&str, Measure); 43] = [
    ("r1", r1::measure),
    ("hop_source", hop::measure_in_source),
    ("hop_sink", hop::measure_in_sink),
    ("r2", r2::measure_one_thread),
    ("r2_exchange", r2::measure_exchange),
    ("r2_parallel", r2::measure_parallel),
    ("r3", r3::measure),
    ("r3_parallel", r3::measure_parallel),
    ("r4", r4::measure),
    ("window", window::measure),
    ("dedup", many_states::measure_dedup),
    ("keys_process", many_states::measure_process),
    ("keys_timer", many_states::measure_timer),
    ("keys_moved", many_states::measure_moved),
    ("keys_expire", many_states::measure_expiry),
    ("keys_sliding", many_states::measure_sliding),
    ("keys_session", many_states::measure_session),
    ("skip", skip::measure),
    ("jsonl", jsonl::measure),
    ("replicas", replicas::measure),
    ("texts", keys::measure_texts),
    ("skewed_sums", keys::measure_skewed_sums),
    ("skewed_exchange", keys::measure_skewed_exchange),
    ("many_keys_sum", keys::measure_many_sums),
    ("many_keys_count", keys::measure_many_counts),
    ("wide", wide::measure_exchange),
    ("wide_sums", wide::measure_sums),
    ("three_hops", hops::measure),
    ("fixed", fixed::measure),
    ("return", service::measure_return),
    ("service", service::measure_calls),
    ("policy", policy::measure),
    ("batch", policy::measure_batches),
    ("cache", kept::measure_caches),
    ("journal", kept::measure_journal),
    ("limiter", limiter::measure),
    ("store", store::measure),
    ("recall", recall::measure),
    ("embed", embed::measure),
    ("ingest", ingest::measure),
    ("async", async_map::measure),
    ("memory", memory::measure),
    ("memory_service", remember::measure),
];

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(records) = options.memory_child {
        return memory::child(records);
    }
    if let Some(workload) = options.columnar {
        return columnar::serve(workload, &options);
    }
    let neighbours = machine::Neighbours::watch();
    let mut trips = machine::RoundTrips::default();
    let rows = measure_selected(&options, &mut trips)?;
    println!("\n{}", results::terminal_table(&rows));
    trips.describe().iter().for_each(|trips| println!("{trips}"));
    let others = neighbours.share();
    if let Some(others) = others.filter(|others| *others > BUSY_SHARE) {
        println!(
            "NOISE other programs took {:.0} % of the processors meanwhile; repeat on a quiet machine",
            others * 100.0
        );
    }
    write_results(&options, &rows, others, trips.describe())
}

fn measure_selected(options: &Options, trips: &mut machine::RoundTrips) -> Result<Vec<Row>> {
    for wanted in &options.only {
        if !WORKLOADS.iter().any(|(name, _)| name.starts_with(wanted.as_str())) {
            bail!("--only {wanted} selects nothing; there are {}", WORKLOADS.map(|(name, _)| name).join(", "));
        }
    }
    let mut rows = Vec::new();
    for (name, measure) in WORKLOADS {
        if options.selects(name) {
            trips.measure();
            rows.extend(measure(options)?);
        }
    }
    if let Some(mean) = results::geometric_mean(&rows, &RENOIR_ROWS) {
        let goal = Goal::TimesFaster(5.0);
        rows.push(Row::derived("r1_r3_renoir_geomean", "× their time", mean, ("Renoir", 1.0), mean, goal));
    }
    Ok(rows)
}

fn write_results(options: &Options, rows: &[Row], others: Option<f64>, trips: Option<String>) -> Result<()> {
    let name = if options.is_complete() { "results.json" } else { "partial.json" };
    let json = options.scratch_folder().join(name);
    results::write_json(rows, &json)?;
    println!("wrote {}", json.display());
    if options.is_complete() {
        let document = repository_root().join("docs/benchmarks.md");
        let mut caption =
            format!("Measured on {};\nmedians of {} alternating runs.", machine::describe(), options.runs);
        if let Some(others) = others {
            caption.push_str(&format!(" Other programs took {:.0} % of the processors meanwhile.", others * 100.0));
        }
        if let Some(trips) = trips {
            caption.push_str(&format!("\n{trips}"));
        }
        results::rewrite_document(&document, &results::markdown_table(rows, &caption))
            .context("the table was measured but not written")?;
        println!("rewrote the table of {}", document.display());
    }
    Ok(())
}
