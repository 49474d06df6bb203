//! Sources and sinks inside real jobs.

#![expect(clippy::unwrap_used, reason = "in tests, also outside of their functions")]

mod changing;
mod child;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
mod logs;
mod malformed;
#[cfg(feature = "parquet")]
mod parquet;
mod parts;
mod round_trip;
mod ticks;
mod writing;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use sage::{Cause, Environment, JobReport, Outcome, Source};
use sage_connectors::{InputError, OutputError};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a file into the folder.
fn put(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

/// The pattern, in the folder.
fn pattern(dir: &TempDir, pattern: &str) -> String {
    dir.path().join(pattern).to_str().unwrap().to_owned()
}

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: impl AsRef<[u8]>) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content.as_ref(), ruzstd::encoding::CompressionLevel::Fastest)
}

/// Every record of a source.
fn read<S: Source>(source: impl Fn() -> S + Send + 'static) -> Vec<S::Item> {
    let env = Environment::local("read");
    let records = env.from_source(move |_replica| source()).collect();
    env.run().unwrap();
    records.take()
}

/// The records a source gives before it fails, and why it fails.
fn read_and_fail<S: Source>(source: impl Fn() -> S + Send + 'static) -> (Vec<S::Item>, Cause) {
    let env = Environment::local("read").inline();
    let records = env.from_source(move |_replica| source()).collect();
    let cause = failure(&env);
    (records.take(), cause)
}

/// Runs what must fail, clean.
fn failed(env: &Environment) -> JobReport {
    let error = env.run().expect_err("the job must fail");
    let report = error.report().expect("the job must have started").clone();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.left.is_empty());
    report
}

fn failure(env: &Environment) -> Cause {
    failed(env).first_cause.expect("a failure has a cause")
}

fn input_error(cause: &Cause) -> &InputError {
    cause.error.as_ref().unwrap().downcast_ref().expect("an `InputError`")
}

fn output_error(cause: &Cause) -> &OutputError {
    cause.error.as_ref().unwrap().downcast_ref().expect("an `OutputError`")
}

/// The names in a folder.
fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
