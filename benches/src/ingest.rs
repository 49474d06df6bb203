//! What it costs to bring documents into an index that finds them by their words (`ingest`): a job reads the Rust
//! documentation of the compiler at hand, some 48,000 files of HTML, cuts it into passages, embeds and stores them in
//! memory, in two replicas. Without that documentation there is no row.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use sage::Environment;
use sage_services::store::Embedded;
use sage_services::{DocumentIndex, documents};

use crate::Options;
use crate::measure::{Contender, Sample, Side, alternate};
use crate::results::Row;

/// 95 MB a second.
const LIMIT_MILLIS: f64 = 10.5;
/// A run takes seconds.
const MOST_RUNS: usize = 3;

pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let Some(folder) = documentation() else {
        eprintln!("skipped: ingest, as rustc has no documentation; `rustup component add rust-docs` brings it");
        return Ok(Vec::new());
    };
    let paths: Vec<PathBuf> = documents(&folder, &["html".into()]).collect::<Result<_, _>>()?;
    let paths = &paths[..usize::try_from(options.size(paths.len() as u64))?];
    let mut bytes = 0;
    for path in paths {
        bytes += path.metadata()?.len();
    }
    let ingest = || {
        let begun = Instant::now();
        let env = Environment::local("ingest");
        let made = DocumentIndex::constructor(|| Embedded::in_memory().max_records(10_000_000))?;
        let index = env.register_async_service("index", made).build();
        let stored = env
            .from_collection(paths.to_vec())
            .try_map(move |path| index.try_call_blocking(async |index| index.add(path).await))
            .parallelism(2)
            .collect();
        env.run()?;
        let digest = stored.take().iter().sum::<usize>() as u64;
        Ok(Sample { value: begun.elapsed().as_secs_f64() * 1e3 / (bytes as f64 / 1e6), digest })
    };
    let runs = options.runs().min(MOST_RUNS);
    let measurement = alternate("ingest", "ms/MB", runs, &mut [Contender::new(Side::Ours, "", ingest)])?;
    Ok(vec![Row::against_limit("ingest", "ms/MB", measurement.best(Side::Ours)?, LIMIT_MILLIS)])
}

fn documentation() -> Option<PathBuf> {
    let told = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc does not run").ok()?;
    let folder = PathBuf::from(String::from_utf8(told.stdout).ok()?.trim()).join("share/doc/rust/html");
    folder.is_dir().then_some(folder)
}
