//! How well retrievers find the turns that answer the questions about the dialogues beside this file.
//!
//! `cargo run --release -p sage-services --features minilm,static --example dialogues -- --static DIR --minilm DIR`
//!
//! prints a table of recall@10 by kinds of questions, and of MRR. Without arguments there is no model.

mod labelled;
#[path = "../retrieval/models.rs"]
mod models;
mod ranking;

use std::error::Error;
use std::path::Path;

use clap::Parser;
use labelled::{Dialogue, K, Kind, Question, dialogues, mean, scores};
use models::Models;
use ranking::{Remembered, Turns};
use sage_services::{Embedder, LexicalEmbedder};

type Failure = Box<dyn Error>;

/// Measures retrievers on the labelled dialogues of benches/dialogues.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    models: Models,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let dialogues = dialogues(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/dialogues"))?;
    let turns: usize = dialogues.iter().map(|dialogue| dialogue.turns.len()).sum();
    let questions: usize = dialogues.iter().map(|dialogue| dialogue.questions.len()).sum();
    println!("{} dialogues, {turns} turns, {questions} questions\n", dialogues.len());
    let kinds = Kind::ALL.map(|kind| format!("{kind:?}").to_lowercase());
    println!("| retriever | recall@{K} | MRR | {} |", kinds.join(" | "));
    println!("|---|--:|--:|{}", "--:|".repeat(kinds.len()));

    let lexical = LexicalEmbedder::default();
    let turns = Turns::new(&lexical, &dialogues)?;
    tell("BM25", &dialogues, |dialogue, question| turns.by_words(dialogue, question))?;
    let words = Remembered::new(None, &dialogues)?;
    tell("memory, without an embedder", &dialogues, |dialogue, question| words.recalled(dialogue, question))?;
    compare("lexical", &lexical, &dialogues)?;
    for (name, model) in options.models.open()? {
        compare(name, &*model, &dialogues)?;
    }
    Ok(())
}

/// Prints the rows of an embedder.
fn compare(name: &str, embedder: &dyn Embedder, dialogues: &[Dialogue]) -> Result<(), Failure> {
    let turns = Turns::new(embedder, dialogues)?;
    tell(name, dialogues, |dialogue, question| turns.by_vectors(dialogue, question))?;
    tell(&format!("{name} and BM25, fused"), dialogues, |dialogue, question| turns.fused(dialogue, question))?;
    let remembered = Remembered::new(Some(embedder), dialogues)?;
    tell(&format!("memory, {name}"), dialogues, |dialogue, question| remembered.recalled(dialogue, question))
}

/// Prints a row of the table.
fn tell(
    name: &str,
    dialogues: &[Dialogue],
    rank: impl Fn(&Dialogue, &str) -> Result<Vec<String>, Failure>,
) -> Result<(), Failure> {
    let scores = scores(dialogues, |dialogue, Question { question, .. }| rank(dialogue, question))?;
    let (all, _) = mean(&scores, |_| true);
    let kinds = Kind::ALL.map(|kind| format!("{:.2}", mean(&scores, |of| of == kind).0.recall));
    println!("| {name} | {:.3} | {:.3} | {} |", all.recall, all.reciprocal_rank, kinds.join(" | "));
    Ok(())
}
