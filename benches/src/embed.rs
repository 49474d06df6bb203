//! What it costs to embed a text of about 32 tokens by a static embedder, on one thread (`embed_1`) and on two
//! (`embed_2`). The model is that of the Python package `wordllama`, which `make test-embed` installs; without it there
//! are no rows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use sage_services::{Embedder, StaticEmbedder};

use crate::Options;
use crate::inputs::stir;
use crate::measure::{Contender, Sample, Side, alternate, nanos_per};
use crate::results::Row;

const TEXTS: u64 = 50_000;
/// The words of a text. They have some more tokens.
const WORDS: u64 = 27;

/// Measures both.
pub(crate) fn measure(options: &Options) -> Result<Vec<Row>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Some(model) = model(&root) else {
        eprintln!("skipped: embed, as the Python package wordllama is not in .venv-embed; `make test-embed` brings it");
        return Ok(Vec::new());
    };
    let guide = fs::read_to_string(root.join("docs/guide.md"))?;
    let words: Vec<&str> =
        guide.split_whitespace().filter(|word| word.chars().all(|c| c.is_alphabetic() || c == '.')).collect();
    let text = |number: u64| {
        let word = |at| words[(stir(number << 16 | at) >> 20) as usize % words.len()];
        (0..WORDS).map(word).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..options.size(TEXTS)).map(text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut rows = Vec::new();
    // 20,000 texts a second are the goal on two threads.
    for (threads, limit) in [(1, 100_000.0), (2, 50_000.0)] {
        let embedder = StaticEmbedder::open(&model)?.with_threads(threads);
        let embed = || {
            let begun = Instant::now();
            let mut digest = 0;
            for batch in texts.chunks(1_000) {
                digest += embedder.embed_passages(batch)?.len() as u64;
            }
            Ok(Sample { value: nanos_per(begun.elapsed(), texts.len() as u64), digest })
        };
        let name = format!("embed_{threads}");
        let measurement = alternate(&name, "ns/text", options.runs(), &mut [Contender::new(Side::Ours, "", embed)])?;
        rows.push(Row::against_limit(&name, "ns/text", measurement.best(Side::Ours)?, limit));
    }
    Ok(rows)
}

fn model(root: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(root.join(".venv-embed/lib")).ok()?.flatten();
    pythons.map(|python| python.path().join("site-packages/wordllama")).find(|model| model.is_dir())
}
