//! How well retrievers find what answers the labelled questions, in passages of this repository's documents.
//!
//! `cargo run --release -p sage-services --features minilm,static --example quality -- --static DIR --minilm DIR`
//!
//! prints a table for docs/benchmarks.md. Without arguments there is no model. A passage is right if it has a line of a
//! place that answers the question; a place counts once, for the first passage that covers it.

mod labelled;
mod models;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::path::Path;

use clap::Parser;
use labelled::{Kind, Labelled, labelled, place_of};
use models::Models;
use sage_services::evaluate::{ndcg_at, recall_at, reciprocal_rank};
use sage_services::store::{Embedded, Hit, Schema, Search, VectorStore};
use sage_services::{Chunker, Embedder, LexicalEmbedder, Passage, documents, read_document, rerank, wait};

type Failure = Box<dyn Error>;
/// What a retriever finds for a question, best first.
type Retrieve<'a> = Box<dyn Fn(&str) -> Result<Vec<Hit>, Failure> + 'a>;

/// Places that are looked at.
const K: usize = 10;
/// Passages that are found for reranking.
const RERANKED: usize = 50;

/// Measures retrievers on the labelled questions of benches/retrieval.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    models: Models,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let questions = labelled(root)?;
    let mut passages = Vec::new();
    for path in documents(&root.join("docs"), &["md".to_owned()]) {
        let path = path?;
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        passages.extend(Chunker::default().chunk_document(name, &read_document(&path)?));
    }
    println!("{} questions about {} passages\n", questions.len(), passages.len());
    println!("| retriever | recall@10 | nDCG@10 | MRR | paraphrases: recall@10 | nDCG@10 | MRR |");
    println!("|---|--:|--:|--:|--:|--:|--:|");

    let lexical = LexicalEmbedder::default();
    let index = Index::new(&lexical, &passages)?;
    tell("lexical", &questions, Box::new(|question| index.search(question, K)))?;
    tell("BM25", &questions, Box::new(|question| index.words(question)))?;
    tell("lexical and BM25, fused", &questions, Box::new(|question| index.fused(question)))?;
    let reranked = |question: &str| Ok(rerank(&lexical, question, index.search(question, RERANKED)?, K));
    tell("lexical, reranked", &questions, Box::new(reranked))?;
    for (name, model) in options.models.open()? {
        let index = Index::new(&*model, &passages)?;
        tell(name, &questions, Box::new(|question| index.search(question, K)))?;
        tell(&format!("{name} and BM25, fused"), &questions, Box::new(|question| index.fused(question)))?;
    }
    Ok(())
}

/// The passages, embedded and stored.
struct Index<'a> {
    embedder: &'a dyn Embedder,
    store: VectorStore,
}

impl<'a> Index<'a> {
    fn new(embedder: &'a dyn Embedder, passages: &[Passage]) -> Result<Self, Failure> {
        let schema = Schema::made_by("passages", embedder.id()).with_text_search();
        let store = VectorStore::new(schema, Embedded::in_memory())?;
        wait(store.open())?;
        let texts: Vec<String> = passages.iter().map(Passage::text_with_heading).collect();
        let vectors = embedder.embed_passages(&texts.iter().map(String::as_str).collect::<Vec<_>>())?;
        let records = passages.iter().zip(&texts).zip(vectors);
        wait(store.upsert(records.map(|((passage, text), vector)| passage.record(vector).text(text)).collect()))?;
        Ok(Self { embedder, store })
    }

    fn vector(&self, question: &str) -> Result<Vec<f32>, Failure> {
        Ok(self.embedder.embed_queries(&[question])?.remove(0))
    }

    fn search(&self, question: &str, k: usize) -> Result<Vec<Hit>, Failure> {
        Ok(wait(self.store.search(Search::vector(self.vector(question)?, k)))?)
    }

    fn words(&self, question: &str) -> Result<Vec<Hit>, Failure> {
        Ok(wait(self.store.search(Search::text(question, K)))?)
    }

    fn fused(&self, question: &str) -> Result<Vec<Hit>, Failure> {
        Ok(wait(self.store.search(Search::hybrid(self.vector(question)?, question, K)))?)
    }
}

/// Prints a row of the table.
fn tell(name: &str, questions: &[Labelled], retrieve: Retrieve<'_>) -> Result<(), Failure> {
    let mut scores = Vec::new();
    for Labelled { question, kind, places } in questions {
        let found: Vec<Passage> = retrieve(question)?.iter().map(Passage::from).collect();
        let of = |(at, passage): (usize, &Passage)| {
            // What covers no place is a place of its own, which is not relevant.
            place_of(places, &passage.path, passage.first_line, passage.last_line).unwrap_or(places.len() + at)
        };
        let found: Vec<usize> = found.iter().enumerate().map(of).collect();
        let relevant: HashSet<usize> = (0..places.len()).collect();
        let gains: HashMap<usize, f64> = relevant.iter().map(|&place| (place, 1.0)).collect();
        let of_question =
            [recall_at(&found, &relevant, K), ndcg_at(&found, &gains, K), reciprocal_rank(&found, &relevant)];
        scores.push((*kind, of_question));
    }
    let mean = |which: &dyn Fn(Kind) -> bool, measure: usize| {
        let chosen: Vec<f64> = scores.iter().filter(|(kind, _)| which(*kind)).map(|(_, of)| of[measure]).collect();
        format!("{:.2}", chosen.iter().sum::<f64>() / chosen.len() as f64)
    };
    let all = (0..3).map(|measure| mean(&|_| true, measure));
    let paraphrases = (0..3).map(|measure| mean(&|kind| kind == Kind::Paraphrase, measure));
    println!("| {name} | {} |", all.chain(paraphrases).collect::<Vec<_>>().join(" | "));
    Ok(())
}
