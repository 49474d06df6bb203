//! Turns files of CSV into one file of JSON lines: a pattern for those that are read, and the file that is written.
//!
//! `cargo run -p sage-connectors --example convert -- 'prices/*.csv.gz' prices.jsonl`

use std::collections::BTreeMap;
use std::env::args;
use std::error::Error;

use sage::Environment;
use sage_connectors::{CsvSource, JsonlSink};

/// A row, by the names of its columns.
type Row = BTreeMap<String, String>;

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(input), Some(output)) = (args().nth(1), args().nth(2)) else {
        return Err("say which files to read, and which to write".into());
    };
    let env = Environment::local("convert");
    env.from_source(move |_replica| CsvSource::<Row>::new(input.clone()))
        .named("rows")
        .sink_to(move |_replica| JsonlSink::new(output.clone()));
    println!("{}", env.run()?);
    Ok(())
}
