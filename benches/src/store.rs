//! What it costs to keep vectors in a file: a record that is stored in a batch of 1,000 (`store_upsert`), the opening
//! of a store of 100,000 (`store_open`), of one whose texts are searched by their words as well (`store_open_text`),
//! and the first such search in it (`store_first_words`). Vectors have 384 dimensions, and each record three values.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use sage_services::store::{Embedded, Record, Schema, Search, VectorStore};
use sage_services::wait;

use crate::Options;
use crate::inputs::stir;
use crate::measure::{Contender, Sample, Side, alternate};
use crate::results::Row;

const DIMENSIONS: usize = 384;
const RECORDS: u64 = 100_000;
const BATCH: u64 = 1_000;
/// The words of a text, and of all texts.
const WORDS: u64 = 60;
const VOCABULARY: u64 = 20_000;

/// Measures all of it.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let records = options.size(RECORDS);
    let path = options.scratch_folder().join("bench.store");
    let mut rows = Vec::new();
    let upsert = || {
        let nanos = fill(&path, records, false)?;
        Ok(Sample { value: nanos / records as f64, digest: records })
    };
    let measurement =
        alternate("store_upsert", "ns/record", options.runs(), &mut [Contender::new(Side::Ours, "", upsert)])?;
    // 20,000 records a second.
    rows.push(Row::against_limit("store_upsert", "ns/record", measurement.best(Side::Ours)?, 50_000.0));
    for (name, has_texts, is_asked) in
        [("store_open", false, false), ("store_open_text", true, false), ("store_first_words", true, true)]
    {
        if !is_asked {
            fill(&path, records, has_texts)?;
        }
        let open = || {
            let mut begun = Instant::now();
            let store = opened(&path, has_texts)?;
            let mut value = begun.elapsed();
            if is_asked {
                begun = Instant::now();
                wait(store.search(Search::text("word1 word100", 10)))?;
                value = begun.elapsed();
            }
            let digest = wait(store.count())? as u64;
            wait(store.close())?;
            Ok(Sample { value: value.as_secs_f64() * 1e3, digest })
        };
        let measurement = alternate(name, "ms", options.runs(), &mut [Contender::new(Side::Ours, "", open)])?;
        rows.push(Row::against_limit(name, "ms", measurement.best(Side::Ours)?, 500.0));
    }
    std::fs::remove_file(&path)?;
    Ok(rows)
}

fn opened(path: &PathBuf, has_texts: bool) -> Result<VectorStore> {
    let schema = Schema::new("bench", DIMENSIONS);
    let schema = if has_texts { schema.with_text_search() } else { schema };
    let store = VectorStore::new(schema, Embedded::at(path))?;
    wait(store.open())?;
    Ok(store)
}

/// Makes a store anew, and returns how many nanoseconds its records took.
fn fill(path: &PathBuf, records: u64, has_texts: bool) -> Result<f64> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let store = opened(path, has_texts)?;
    let mut nanos = 0.0;
    for first in (0..records).step_by(BATCH as usize) {
        let batch = (first..records.min(first + BATCH)).map(|number| record(number, has_texts)).collect();
        let begun = Instant::now();
        wait(store.upsert(batch))?;
        nanos += begun.elapsed().as_secs_f64() * 1e9;
    }
    wait(store.close())?;
    Ok(nanos)
}

fn record(number: u64, has_text: bool) -> Record {
    let coordinate = |at| (stir(number << 16 | at) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    // Low numbers are far commoner than high ones, as words are.
    let word = |at: u64| {
        let place = (stir(number << 16 | 1 << 15 | at) >> 32) as f64 / (1_u64 << 32) as f64;
        format!("word{} ", (place.powi(3) * VOCABULARY as f64) as u64)
    };
    Record::new(format!("{number:07}"), (0..DIMENSIONS as u64).map(coordinate).collect())
        .text(if has_text { (0..WORDS).map(word).collect() } else { String::new() })
        .with("path", format!("folder/file{}.md", number / 10))
        .with("index", (number % 10) as i64)
        .with("lang", if number.is_multiple_of(3) { "en" } else { "de" })
}
