//! Finds the passages of a folder of documents that are closest to a question.
//!
//! `cargo run -p sage-services --example search -- docs 'In which order do services stop?'`

use std::env::args;
use std::error::Error;
use std::path::Path;

use sage::Environment;
use sage_services::store::{Embedded, Schema, Search, VectorStore};
use sage_services::{Chunker, Embedder, LexicalEmbedder, Passage, documents, read_document};

/// How many passages are shown.
const SHOWN: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(folder), Some(question)) = (args().nth(1), args().nth(2)) else {
        return Err("say where the documents are, and ask a question".into());
    };
    let mut passages = Vec::new();
    for path in documents(Path::new(&folder), &["md".into(), "txt".into()]) {
        let path = path?;
        passages.extend(Chunker::default().chunk_document(path.to_string_lossy(), &read_document(&path)?));
    }

    let env = Environment::local("search");
    let embedder = env.register_service("embedder", LexicalEmbedder::default).build();
    let schema = Schema::made_by("passages", LexicalEmbedder::default().id());
    let made = VectorStore::constructor(schema, Embedded::in_memory)?;
    let store = env.register_async_service("store", made).after(&embedder).build();
    let (asked, searched) = (embedder.clone(), store.clone());
    env.from_iter(passages)
        .try_map(move |passage: Passage| {
            let vector = embedder.call(|embedder| embedder.embed_passage(&passage.text_with_heading()))?;
            store.try_call_blocking(async move |store| store.upsert(vec![passage.record(vector)]).await)
        })
        .count()
        // The one record of `count` comes when all passages are stored.
        .try_map(move |_stored| {
            let vector = asked.call(|embedder| embedder.embed_query(&question))?;
            searched.try_call_blocking(async move |store| store.search(Search::vector(vector, SHOWN)).await)
        })
        .sink(|hits| {
            for hit in &hits {
                let Passage { path, first_line, text, .. } = hit.into();
                println!("{:.2}  {path}:{first_line}\n{text}\n", hit.score);
            }
        });
    env.run()?;
    Ok(())
}
